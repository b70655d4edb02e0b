//! Where a route's requests are copied to.

use std::sync::Arc;

use http::HeaderValue;

use crate::base::units::Ratio;
use crate::metrics::MirrorMetrics;
use crate::upstream::Upstream;

/// The shadows of a route.
#[derive(Debug)]
pub struct Mirror {
    /// Each gets its own share.
    pub targets: Vec<MirrorTarget>,
    /// The route's name, as a header carries it.
    pub name: HeaderValue,
    /// Handles resolved once; a copy may outlive the configuration.
    pub metrics: Arc<MirrorMetrics>,
}

/// One of them.
#[derive(Debug)]
pub struct MirrorTarget {
    /// Who gets the copies.
    pub upstream: Arc<Upstream>,
    /// Of the route's requests.
    pub share: Ratio,
}
