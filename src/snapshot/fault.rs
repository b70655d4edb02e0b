//! A route's failures on purpose.

use crate::metrics::FaultMetrics;
use crate::policy::fault::Fault;

/// What is injected, and the count of it.
#[derive(Debug)]
pub struct FaultInjection {
    /// Which share, and what.
    pub policy: Fault,
    /// Handles resolved once.
    pub metrics: FaultMetrics,
}
