//! What a route does to requests besides sending them on.

use std::num::NonZeroU32;

use crate::base::units::Rate;

/// The shaping of a route; all of it is off where it is not written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shaping {
    /// `rate_limit:`. `None`: `unlimited`.
    pub rate_limit: Option<RateLimit>,
}

/// `rate_limit:`, counted over all workers of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Requests admitted for ever; 1 per hour to 1 000 000 per second.
    pub rate: Rate,
    /// Requests admitted at once, 1..=1 000 000. Default: what the rate earns in a second, at least 1.
    pub burst: NonZeroU32,
    /// Who has a limit of his own. Default: nobody, the route has one.
    pub by: RateLimitBy,
    /// Keys told apart at once, 1..=1 000 000. Default 10 000 (512 KiB).
    pub keys: NonZeroU32,
}

/// `rate_limit.by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitBy {
    /// One limit for the whole route.
    Route,
    /// `header:NAME`: its values; requests without it share one limit.
    Header(http::HeaderName),
    /// `source`: the peer's address; of an IPv6 address its first 64 bits.
    Source,
}
