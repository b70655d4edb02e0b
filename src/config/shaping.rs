//! What a route does to requests besides sending them on.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::units::{Rate, Ratio};

/// The shaping of a route; all of it is off where it is not written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shaping {
    /// `rate_limit:`. `None`: `unlimited`.
    pub rate_limit: Option<RateLimit>,
    /// `fault:`. `None`: `never`.
    pub fault: Option<Fault>,
    /// `mirror:` upstreams, each with its share of the requests. Empty: `never`.
    pub mirror: Vec<(String, Ratio)>,
    /// `hedge:`. `None`: `never`.
    pub hedge: Option<Hedge>,
}

/// `hedge.after`: when a second attempt is raced against the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hedge {
    /// Always after this long.
    After(Duration),
    /// `p95`: after what this share of first attempts takes; 50 % to 99.9 %.
    Percentile(Ratio),
}

/// `fault:`; at least one of the two. The shares are drawn independently.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// `delay:`, first.
    pub delay: Option<FaultDelay>,
    /// `abort:`.
    pub abort: Option<FaultAbort>,
}

/// `fault.delay`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultDelay {
    /// Of the route's requests.
    pub share: Ratio,
    /// `for:`, counted against the deadline.
    pub time: Duration,
}

/// `fault.abort`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultAbort {
    /// Of the route's requests.
    pub share: Ratio,
    /// 200..=599. Default 503. A gRPC call gets what its clients make of it.
    pub status: http::StatusCode,
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
    /// `identity`: each identity that a client certificate proves.
    Identity,
}
