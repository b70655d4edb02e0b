//! `breaker`, `adaptive` and `throttle` of an upstream. Each is off where it is not written.

use std::time::Duration;

use crate::base::units::Ratio;

/// `breaker:`: circuit breaking by state. See `docs/policies/breaker.md`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Opens at this share of failures. Default 50 %.
    pub errors: Ratio,
    /// Opens at a share of slow answers. Default: however slow they are.
    pub slow: Option<SlowCalls>,
    /// What both shares are shares of. Default 10 s.
    pub window: Duration,
    /// Fewer requests in the window say nothing. Default 20.
    pub min_requests: u32,
    /// How long everything is refused. Default 5 s.
    pub open_for: Duration,
    /// Requests that must succeed in a row, one at a time, before more pass. Default 3.
    pub probes: u32,
}

/// `breaker.slow`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// Opens at this share. Default 50 %.
    pub share: Ratio,
    /// An answer whose head takes longer is slow.
    pub over: Duration,
}

/// `adaptive:`: how the limit of requests in flight is found, in place of `limits.in_flight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adaptive {
    /// By the ratio of normal to present latency.
    Gradient,
}

/// `throttle:`: client-side throttling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// The upstream is sent this many times what it accepts. Default 2.
    pub k: f64,
}
