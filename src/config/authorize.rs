//! `listeners.<name>.authorize`.

use ipnet::IpNet;

use crate::base::identity::IdentityPattern;

use super::{PathPattern, ValueMatch};

/// Who may call what. Once it is there, whatever no `allow` takes is denied.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorize {
    /// `false` counts and logs what would be denied, and lets it pass. Default true.
    pub enforce: bool,
    /// Asked first: one that holds denies.
    pub deny: Vec<AuthorizeRule>,
    /// One that holds allows.
    pub allow: Vec<AuthorizeRule>,
}

/// A rule: at least one condition, and all that it has must hold. An empty list is a condition that was not written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthorizeRule {
    /// `from:` any of these identities, proved by a client certificate.
    pub from: Vec<IdentityPattern>,
    /// `source:` any of these networks.
    pub source: Vec<IpNet>,
    /// `method:` any of these.
    pub method: Vec<http::Method>,
    /// `path:` any of these.
    pub path: Vec<PathPattern>,
    /// `headers:` all of these.
    pub headers: Vec<(http::HeaderName, ValueMatch)>,
}
