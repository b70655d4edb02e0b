//! Which endpoint a request goes to.
//!
//! Reading order: [`endpoint`] (live state), [`endpoint_set`] (the immutable set picked from), `two_choices`, then one file
//! per policy. A pick allocates nothing, takes no lock, and costs O(1) with equal weights, O(log n) with others.

pub mod endpoint;
pub mod endpoint_set;
mod least_request;
mod peak_ewma;
mod random;
mod round_robin;
mod tried;
mod two_choices;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

pub use self::tried::Tried;
use crate::balance::endpoint::Endpoint;
use crate::balance::endpoint_set::EndpointSet;
use crate::base::rng::Rng;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The better of two random ones by latency × requests in flight. The default.
    PeakEwma,
    /// The better of two random ones by requests in flight.
    LeastRequest,
    /// In turns, smoothly by weight.
    RoundRobin,
    /// At random by weight.
    Random,
}

/// Chooses endpoints of one upstream; shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    /// Whose turn it is, for round robin.
    sequence: AtomicU64,
}

impl Balancer {
    /// A balancer whose turns begin with the first endpoint.
    pub fn new(policy: Policy) -> Self {
        Self::starting_at(policy, 0)
    }

    /// A balancer whose turns begin anywhere. Give it random bits: many sidecars that start together would otherwise all
    /// begin with the same endpoint.
    pub fn starting_at(policy: Policy, sequence: u64) -> Self {
        Self { policy, sequence: AtomicU64::new(sequence) }
    }

    /// Its policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Chooses an endpoint, avoiding those in `tried` while there are others. `None` where the set is empty.
    ///
    /// Counts nothing: the caller starts the endpoint's guard ([`Endpoint::start`]).
    pub fn pick<'a>(
        &self,
        set: &'a EndpointSet,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let index = match set.len() {
            0 => return None,
            1 => 0,
            _ => self.choose(set, tried, now, rng).or_else(|| {
                // Every endpoint was tried: one of them again is better than none.
                self.choose(set, &Tried::new(), now, rng)
            })?,
        };
        Some(&set.members()[index].endpoint)
    }

    fn choose(
        &self,
        set: &EndpointSet,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<usize> {
        match self.policy {
            Policy::PeakEwma => peak_ewma::pick(set, tried, now, rng),
            Policy::LeastRequest => least_request::pick(set, tried, rng),
            Policy::RoundRobin => round_robin::pick(&self.sequence, set, tried, rng),
            Policy::Random => random::pick(set, tried, rng),
        }
    }
}

#[cfg(test)]
mod tests;
