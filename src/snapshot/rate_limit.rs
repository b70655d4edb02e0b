//! A route's rate limit.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

use crate::metrics::RateLimitMetrics;
use crate::policy::rate_limit::RateLimiter;

/// What is limited, and the count of it.
#[derive(Debug)]
pub struct RateLimit {
    /// As they were written.
    pub settings: RateLimitSettings,
    /// Shared by all workers, and with the snapshot before where the settings are the same.
    pub limiter: Arc<RateLimiter>,
    /// Handles resolved once.
    pub metrics: RateLimitMetrics,
}

/// How much, and of whom.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitSettings {
    /// Requests per second.
    pub per_second: f64,
    /// Requests at once.
    pub burst: NonZeroU32,
    /// Who has a limit of his own.
    pub by: RateLimitBy,
    /// Keys told apart at once.
    pub keys: NonZeroU32,
}

/// Who has a limit of his own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitBy {
    /// Nobody: the route has one.
    Route,
    /// Each set of values of this header.
    Header(HeaderName),
    /// Each source address, of IPv6 its first 64 bits.
    Source,
    /// Each identity that a client certificate proves; callers without one together.
    Identity,
}
