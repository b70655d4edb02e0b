//! `upstreams.<name>.balance`, and `hash:` of a route, which some policies choose by.

use std::time::Duration;

use crate::base::units::Ratio;

/// `balance:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancing {
    /// `policy:`. Default `peak_ewma`.
    pub policy: Balance,
    /// `panic:`: below this share of endpoints that are not unhealthy, all are used. Default 50 %; 0 %: never.
    pub panic: Ratio,
    /// `zone_aware:`. Default false.
    pub zone_aware: bool,
    /// The file's own `zone`, where `zone_aware`; else empty, so that a change of it changes nothing else.
    pub zone: String,
    /// `max_load:` of `ring_hash`: requests in flight at an endpoint, in percent of the mean, 100..=1 000. Default 125;
    /// `None`: unlimited.
    pub max_load: Option<u32>,
    /// Nothing of this is written, and the endpoints come from a control plane: what its cluster says of the policy holds.
    pub advised: bool,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            policy: Balance::PeakEwma,
            panic: super::outliers::half(),
            zone_aware: false,
            zone: String::new(),
            max_load: Some(MAX_LOAD),
            advised: false,
        }
    }
}

/// A quarter more than the mean: the figure of the paper's worked example, and the lowest that HAProxy advises. Less moves more
/// keys for little; more lets a hot key fill its endpoint.
pub(super) const MAX_LOAD: u32 = 125;

/// `balance.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Two random choices by peak latency × requests in flight.
    PeakEwma,
    /// Two random choices by requests in flight.
    LeastRequest,
    /// Smooth weighted turns.
    RoundRobin,
    /// By weight alone.
    Random,
    /// By key, on a ring with bounded load.
    RingHash,
    /// By key, from a table.
    Maglev,
}

impl Balance {
    pub(super) const WORDS: [(&'static str, Self); 6] = [
        ("peak_ewma", Self::PeakEwma),
        ("least_request", Self::LeastRequest),
        ("round_robin", Self::RoundRobin),
        ("random", Self::Random),
        ("ring_hash", Self::RingHash),
        ("maglev", Self::Maglev),
    ];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, policy)| *policy == self).map_or("", |(word, _)| word)
    }

    /// True where a request's key decides.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// An item of `hash:`: the first that a request has is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// `header:NAME`: its first value, unless it is empty.
    Header(http::HeaderName),
    /// `cookie`: set where the request has none.
    Cookie {
        /// A token (RFC 6265 §4.1.1).
        name: String,
        /// `ttl:`, 1 s to one year. `None`: until the browser is closed.
        ttl: Option<Duration>,
    },
    /// `query:NAME`: the first parameter of that name, unless it is empty.
    Query(String),
    /// `source_ip`: the peer's address.
    SourceIp,
}
