//! A listener's rules of who may call what.

use prometheus::IntCounter;

use crate::policy::authorize::Authorization;

/// The rules, and the count of what they deny.
#[derive(Debug)]
pub struct Authorize {
    /// False: what is denied is counted and logged, and passes.
    pub enforce: bool,
    /// In the order of the configuration.
    pub rules: Authorization,
    /// Requests and connections that the rules deny.
    pub denied: IntCounter,
}
