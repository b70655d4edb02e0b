//! A route's second attempts.

use std::sync::Arc;

use crate::metrics::HedgeMetrics;
use crate::policy::hedge::Hedge;

/// When there is one, and the count of them.
#[derive(Debug)]
pub struct Hedging {
    /// Shared by all workers, and with the snapshot before where the setting is the same.
    pub policy: Arc<Hedge>,
    /// Handles resolved once.
    pub metrics: HedgeMetrics,
}
