//! What one pick may choose from.

use tokio::time::Instant;

use super::Balancer;
use super::endpoint_set::EndpointSet;
use super::key::Key;
use super::standing::{Ejection, FULL, Health};
use super::tried::Tried;
use crate::base::rng::Rng;

/// A set, seen by one pick: without what was tried, without what is not available, with slow start's shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates<'a> {
    pub(super) set: &'a EndpointSet,
    pub(super) tried: &'a Tried,
    /// What the request is hashed by.
    pub(super) key: Option<Key>,
    pub(super) now: Instant,
    pub(super) balancer: &'a Balancer,
    /// An ejected endpoint whose time has passed may be chosen. Only for a request's first attempt: a retry goes where it
    /// will be answered.
    pub(super) probes: bool,
    /// No endpoint that cannot be reached, for the same reason.
    pub(super) reachable: bool,
}

impl Candidates<'_> {
    /// Thousandths of its weight that a member takes part with; 0 where it may not be chosen.
    ///
    /// One load, of a cache line that the attempt touches anyway, where nothing is the matter with the endpoint.
    pub(super) fn share(&self, index: usize) -> u32 {
        let endpoint = &self.set.members()[index].endpoint;
        if !self.tried.is_empty() && self.tried.contains(endpoint.id) {
            return 0;
        }
        if self.reachable && endpoint.is_unreachable() {
            return 0;
        }
        if endpoint.standing.is_plain() {
            return FULL;
        }
        let state = endpoint.standing.load();
        let refused = match state.health {
            Health::Unknown | Health::Healthy => false,
            Health::Unhealthy => !self.set.is_panicking(),
            Health::Unproven => !self.balancer.uses_unproven(),
        };
        if refused {
            return 0;
        }
        let now = endpoint.standing.clock(self.now);
        match state.ejection {
            Ejection::Probing => 0,
            Ejection::Ejected => FULL * u32::from(self.probes && state.at <= now),
            Ejection::In | Ejection::Shadow => state.share(now, self.balancer.slow_start),
        }
    }

    /// A member drawn by weight and share, by index.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<usize> {
        self.set.draw(rng, |index| self.share(index))
    }

    /// Chosen as a probe: what it costs does not matter.
    pub(super) fn is_probe(&self, index: usize) -> bool {
        let standing = &self.set.members()[index].endpoint.standing;
        !standing.is_plain() && standing.load().is_ejected()
    }

    /// Requests in flight ÷ (weight ÷ mean weight): how loaded it is for what it takes at present.
    pub(super) fn load(&self, index: usize) -> f64 {
        let member = &self.set.members()[index];
        let load = member.load_per_share();
        if member.endpoint.standing.is_plain() {
            return load;
        }
        let standing = &member.endpoint.standing;
        let share = standing.load().share(standing.clock(self.now), self.balancer.slow_start);
        load * f64::from(FULL) / f64::from(share)
    }
}
