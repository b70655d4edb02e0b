//! Which endpoint a request goes to.
//!
//! Reading order: [`endpoint`] (live state), `standing` (may it be picked), [`endpoint_set`] (the immutable set picked from),
//! `candidates` (the set as one pick sees it), `parts`, `overflow` and `zones`, `two_choices`, then one file per policy, and `review`. A pick allocates nothing, takes no
//! lock, and costs O(1) with equal weights, O(log n) with others; O(n) where so much is not available that a few draws do
//! not find what is.

mod candidates;
pub mod endpoint;
pub mod endpoint_set;
mod key;
mod least_request;
mod maglev;
pub mod outliers;
mod overflow;
mod parts;
mod peak_ewma;
mod picked;
mod random;
mod review;
mod ring_hash;
mod round_robin;
mod standing;
mod tried;
mod two_choices;
mod view;
mod zones;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::candidates::Candidates;
use self::endpoint_set::Places;
pub use self::key::Key;
pub use self::parts::PartView;
pub use self::picked::Picked;
use self::picked::ProbePermit;
pub use self::review::Counts;
pub use self::tried::Tried;
pub use self::view::{EjectionView, Place, View};
use crate::balance::endpoint::{Endpoint, Health};
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
    /// By the request's key, on a ring; `Some`: up to this many percent of the mean load, 100..=1 000.
    RingHash(Option<u32>),
    /// By the request's key, from a table.
    Maglev,
}

impl Policy {
    /// True where a request's key decides.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev)
    }

    fn is_bounded(self) -> bool {
        matches!(self, Self::RingHash(Some(_)))
    }

    /// In one word: which it is in the low byte, the bound above it.
    const fn packed(self) -> u32 {
        match self {
            Self::PeakEwma => 0,
            Self::LeastRequest => 1,
            Self::RoundRobin => 2,
            Self::Random => 3,
            Self::Maglev => 4,
            Self::RingHash(None) => 5,
            Self::RingHash(Some(percent)) => 6 | percent << 8,
        }
    }

    #[inline]
    const fn unpacked(word: u32) -> Self {
        match word & 0xff {
            1 => Self::LeastRequest,
            2 => Self::RoundRobin,
            3 => Self::Random,
            4 => Self::Maglev,
            5 => Self::RingHash(None),
            6 => Self::RingHash(Some(word >> 8)),
            _ => Self::PeakEwma,
        }
    }
}

/// Chooses endpoints of one upstream; shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    /// [`Policy::packed`]. A control plane may change it.
    policy: AtomicU32,
    /// Whose turn it is, for round robin: in each part of a set, the last for all beyond.
    turns: [AtomicU64; 8],
    /// The share of endpoints not unhealthy below which there is panic, `0.0..=1.0`; 0: never.
    panic_below: f64,
    /// How long an endpoint that joins or returns takes to its whole weight; `None`: it has it at once.
    slow_start: Option<Duration>,
    /// Our own zone, where requests stay in it as far as it has capacity.
    zone: Option<Box<str>>,
    /// Requests in flight at all endpoints; counted for the bound of `ring_hash` only.
    in_flight: Arc<AtomicU32>,
    /// The verdict of [`Balancer::review`]; each set, and each part of it, has its own.
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
            policy: AtomicU32::new(policy.packed()),
            turns: std::array::from_fn(|_| AtomicU64::new(sequence)),
            panic_below: PANIC_BELOW,
            slow_start: None,
            zone: None,
            in_flight: Arc::default(),
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

    /// The same with requests that stay in `zone` as far as it has capacity.
    #[must_use]
    pub fn zone_aware(self, zone: Option<&str>) -> Self {
        Self { zone: zone.map(Box::from), ..self }
    }

    /// Our zone, where it matters.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Makes `set` ready for its picks: parted by zone, with a ring or table where the policy hashes. This takes up to some
    /// ten milliseconds, so that it is done where a set is published, never where it is picked from.
    #[must_use]
    pub fn prepare(&self, set: EndpointSet) -> EndpointSet {
        let policy = self.policy();
        if policy.is_bounded() {
            set.members().iter().for_each(|member| member.endpoint.count_in(&self.in_flight));
        }
        set.prepared(self.zone(), |members| match policy {
            _ if members.len() < 2 => None,
            Policy::RingHash(_) => Some(Places::Ring(ring_hash::Ring::build(members))),
            Policy::Maglev => Some(Places::Table(maglev::Table::build(members))),
            _ => None,
        })
    }

    /// Its policy.
    #[inline]
    pub fn policy(&self) -> Policy {
        Policy::unpacked(self.policy.load(Ordering::Relaxed))
    }

    /// Chooses by another policy from here on. Where that hashes, by its ring or table from the next set that is prepared on, and
    /// at random until then.
    pub fn adopt(&self, policy: Policy) {
        self.policy.store(policy.packed(), Ordering::Relaxed);
    }

    /// True while so many endpoints are unhealthy that those are used as well.
    pub fn is_panicking(&self) -> bool {
        self.panicking.load(Ordering::Relaxed)
    }

    /// True while endpoints whose first check has not ended are used, for a lack of others.
    pub fn uses_unproven(&self) -> bool {
        self.uses_unproven.load(Ordering::Relaxed)
    }

    /// Chooses an endpoint, avoiding those in `tried` while there are others, and for a retry those that take no connection.
    /// `None` where none is available.
    ///
    /// Counts nothing: the caller starts the attempt ([`Picked::start`]).
    #[inline]
    pub fn pick(
        &self,
        set: &EndpointSet,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Picked> {
        self.pick_for(None, set, tried, now, rng)
    }

    /// The same for a request with a `key`, which decides where the policy hashes. Without one such a policy chooses at random,
    /// by weight.
    pub fn pick_for(
        &self,
        key: Option<Key>,
        set: &EndpointSet,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Picked> {
        let key = key.filter(|_| self.policy().hashes());
        let none = Tried::new();
        // A retry goes where it has not been, and where a connection can be had; either is better than neither.
        let wishes = [(tried, true), (tried, false), (&none, true), (&none, false)];
        let mut probes = tried.is_empty();
        let wishes = if probes { &wishes[3..] } else { &wishes[..] };
        loop {
            let endpoint = wishes.iter().find_map(|&(tried, reachable)| {
                let balancer = self;
                self.choose(&Candidates { set, tried, key, now, balancer, probes, reachable }, rng)
            })?;
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
            probes = false;
        }
    }

    /// True where a request that could not be sent has somewhere to go: an endpoint that may be picked, and is not known to
    /// take no connection. Looks at every endpoint, so ask it after a failure only.
    pub fn has_reachable(&self, set: &EndpointSet, now: Instant) -> bool {
        let tried = &Tried::new();
        let (key, balancer) = (None, self);
        let candidates =
            Candidates { set, tried, key, now, balancer, probes: false, reachable: true };
        let has_one = |candidates: &Candidates<'_>| {
            (0..candidates.set.len()).any(|index| candidates.share(index) > 0)
        };
        match set.parts() {
            [] => has_one(&candidates),
            parts => parts.iter().any(|part| has_one(&Candidates { set: &part.set, ..candidates })),
        }
    }

    fn choose<'a>(&self, candidates: &Candidates<'a>, rng: &mut Rng) -> Option<&'a Arc<Endpoint>> {
        let set = candidates.set;
        match set.parts() {
            [] => {
                let chosen = self.choose_within(candidates, &self.turns[0], rng)?;
                Some(&set.members()[chosen].endpoint)
            }
            parts => self.choose_by_parts(candidates, parts, rng),
        }
    }

    /// By the policy, in a set that has no parts. Part of every pick: a call of it would be a tenth of a turn's cost.
    #[inline(always)]
    fn choose_within(
        &self,
        candidates: &Candidates<'_>,
        turns: &AtomicU64,
        rng: &mut Rng,
    ) -> Option<usize> {
        match self.policy() {
            _ if candidates.set.is_empty() => None,
            _ if candidates.set.len() == 1 => (candidates.share(0) > 0).then_some(0),
            Policy::PeakEwma => peak_ewma::pick(candidates, rng),
            Policy::LeastRequest => least_request::pick(candidates, rng),
            Policy::RoundRobin => round_robin::pick(turns, candidates, rng),
            Policy::Random => random::pick(candidates, rng),
            Policy::RingHash(_) | Policy::Maglev => self.choose_by_key(candidates, rng),
        }
    }

    #[inline(never)]
    fn choose_by_key(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match (candidates.key, candidates.set.places()) {
            (Some(key), Some(Places::Table(table))) => maglev::pick(candidates, table, key),
            (Some(key), Some(Places::Ring(ring))) => {
                let Policy::RingHash(max_load) = self.policy() else {
                    return random::pick(candidates, rng);
                };
                let in_flight = self.in_flight.load(Ordering::Relaxed);
                let bound = max_load
                    .map(|most| ring_hash::Bound { max_load: f64::from(most) / 100.0, in_flight });
                ring_hash::pick(candidates, ring, key, bound)
            }
            _ => random::pick(candidates, rng),
        }
    }
}

#[cfg(test)]
mod tests;
