//! Which endpoint a request goes to.
//!
//! Reading order: [`endpoint`] (live state), `standing` (may it be picked), [`endpoint_set`] (the immutable set picked from),
//! `candidates` (the set as one pick sees it), `two_choices`, then one file per policy. A pick allocates nothing, takes no
//! lock, and costs O(1) with equal weights, O(log n) with others; O(n) where so much is not available that a few draws do
//! not find what is.

mod candidates;
pub mod endpoint;
pub mod endpoint_set;
mod least_request;
pub mod outliers;
mod peak_ewma;
mod picked;
mod random;
mod round_robin;
mod standing;
mod tried;
mod two_choices;
mod view;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::candidates::Candidates;
pub use self::picked::Picked;
use self::picked::ProbePermit;
pub use self::tried::Tried;
pub use self::view::{EjectionView, Place, View};
use crate::balance::endpoint::Health;
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
    /// The share of endpoints not unhealthy below which there is panic, `0.0..=1.0`; 0: never.
    panic_below: f64,
    /// How long an endpoint that joins or returns takes to its whole weight; `None`: it has it at once.
    slow_start: Option<Duration>,
    /// The verdict of [`Balancer::review`].
    panicking: AtomicBool,
    /// Also of [`Balancer::review`]: endpoints whose first check has not ended are used.
    uses_unproven: AtomicBool,
}

/// Below this share of endpoints that are not unhealthy, the checks are believed less than the endpoints: Envoy's 50 %.
///
/// Half of an upstream seldom breaks at once; a network that loses the checks does. And the other half could not take the
/// traffic of all.
pub const PANIC_BELOW: f64 = 0.5;

impl Balancer {
    /// A balancer whose turns begin with the first endpoint.
    pub fn new(policy: Policy) -> Self {
        Self::starting_at(policy, 0)
    }

    /// A balancer whose turns begin anywhere. Give it random bits: many sidecars that start together would otherwise all
    /// begin with the same endpoint.
    pub fn starting_at(policy: Policy, sequence: u64) -> Self {
        Self {
            policy,
            sequence: AtomicU64::new(sequence),
            panic_below: PANIC_BELOW,
            slow_start: None,
            panicking: AtomicBool::new(false),
            uses_unproven: AtomicBool::new(true),
        }
    }

    /// The same with another panic threshold, `0.0..=1.0`; 0 turns panic off.
    #[must_use]
    pub fn panic_below(self, panic_below: f64) -> Self {
        Self { panic_below, ..self }
    }

    /// The same with slow start over `window`.
    #[must_use]
    pub fn slow_start(self, window: Option<Duration>) -> Self {
        Self { slow_start: window, ..self }
    }

    /// Its policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// True while so many endpoints are unhealthy that those are used as well.
    pub fn is_panicking(&self) -> bool {
        self.panicking.load(Ordering::Relaxed)
    }

    /// True while endpoints whose first check has not ended are used, for a lack of others.
    pub fn uses_unproven(&self) -> bool {
        self.uses_unproven.load(Ordering::Relaxed)
    }

    /// Chooses an endpoint, avoiding those in `tried` while there are others. `None` where none is available.
    ///
    /// Counts nothing: the caller starts the attempt ([`Picked::start`]).
    pub fn pick(
        &self,
        set: &EndpointSet,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Picked> {
        let none = Tried::new();
        let first = tried.is_empty();
        let mut candidates =
            Candidates { set, tried, now, balancer: self, probes: first, reachable: !first };
        loop {
            let mut index = self.choose(&candidates, rng);
            if index.is_none() && candidates.reachable {
                candidates.reachable = false;
                index = self.choose(&candidates, rng);
            }
            let index = index.or_else(|| {
                // Every endpoint was tried: one of them again is better than none.
                candidates.tried = &none;
                self.choose(&candidates, rng)
            })?;
            let endpoint = &set.members()[index].endpoint;
            if endpoint.standing.is_plain() {
                return Some(Picked::new(endpoint, None, false));
            }
            let state = endpoint.standing.load();
            let panic = state.health == Health::Unhealthy;
            if !state.is_ejected() {
                return Some(Picked::new(endpoint, None, panic));
            }
            if let Some(permit) = ProbePermit::take(endpoint, now) {
                return Some(Picked::new(endpoint, Some(permit), panic));
            }
            // Another worker was faster.
            candidates.probes = false;
        }
    }

    /// True where a request that could not be sent has somewhere to go: an endpoint that may be picked, and is not known to
    /// take no connection. Looks at every endpoint, so ask it after a failure only.
    pub fn has_reachable(&self, set: &EndpointSet, now: Instant) -> bool {
        let tried = &Tried::new();
        let candidates =
            Candidates { set, tried, now, balancer: self, probes: false, reachable: true };
        (0..set.len()).any(|index| candidates.share(index) > 0)
    }

    fn choose(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match self.policy {
            _ if candidates.set.is_empty() => None,
            _ if candidates.set.len() == 1 => (candidates.share(0) > 0).then_some(0),
            Policy::PeakEwma => peak_ewma::pick(candidates, rng),
            Policy::LeastRequest => least_request::pick(candidates, rng),
            Policy::RoundRobin => round_robin::pick(&self.sequence, candidates, rng),
            Policy::Random => random::pick(candidates, rng),
        }
    }

    /// Counts how the endpoints of `set` stand, ends slow starts that are over, and publishes whether there is panic.
    ///
    /// Panic looks at health alone: ejected endpoints are neither missed nor brought back by it. Endpoints whose first check
    /// has not ended are used before unhealthy ones: where too few of the others work, or none is available.
    pub fn review(&self, set: &EndpointSet, now: Instant) -> Counts {
        let mut counts = Counts::default();
        let (mut unhealthy, mut unproven, mut available) = (0_usize, 0_usize, false);
        for member in set.members() {
            let standing = &member.endpoint.standing;
            standing.settle_ramp(now, self.slow_start);
            let state = standing.load();
            unhealthy += usize::from(state.health == Health::Unhealthy);
            unproven += usize::from(state.health == Health::Unproven);
            available |= state.is_available();
            let count = match state.place(self.slow_start) {
                Place::Ejected => &mut counts.ejected,
                Place::Unhealthy => &mut counts.unhealthy,
                Place::Unproven => &mut counts.unproven,
                Place::SlowStart => &mut counts.slow_start,
                Place::Ready => &mut counts.ready,
            };
            *count += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "endpoints, far below 2^53")]
        let too_few = |working: usize, of: usize| {
            unhealthy > 0 && working as f64 / (of.max(1) as f64) < self.panic_below
        };
        let proven = set.len() - unproven;
        let uses_unproven = !available || too_few(proven - unhealthy, proven);
        counts.panic = too_few(set.len() - unhealthy, set.len());
        self.panicking.store(counts.panic, Ordering::Relaxed);
        self.uses_unproven.store(uses_unproven, Ordering::Relaxed);
        counts
    }
}

/// How the endpoints of a set stand; each is counted once, in the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Out of traffic for failures.
    pub ejected: usize,
    /// Checks fail.
    pub unhealthy: usize,
    /// No check has ended yet.
    pub unproven: usize,
    /// In traffic with a part of their weight.
    pub slow_start: usize,
    /// In traffic.
    pub ready: usize,
    /// Unhealthy ones are used as well.
    pub panic: bool,
}

#[cfg(test)]
mod tests;
