//! What is looked at from time to time, and after changes: how endpoints stand, and what picks are told of it.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::endpoint::Health;
use super::endpoint_set::EndpointSet;
use super::{Balancer, Place};

impl Balancer {
    /// Counts how the endpoints of `set` stand, ends slow starts that are over, and publishes whether there is panic,
    /// and how much goes to each priority.
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
        self.uses_unproven.store(uses_unproven, Ordering::Relaxed);
        counts.panic = match set.parts() {
            [] => {
                if self.policy().is_bounded() {
                    set.set_available_weight(self.tier(set, now).available);
                }
                too_few(set.len() - unhealthy, set.len())
            }
            parts => self.review_parts(parts, now),
        };
        set.set_panicking(counts.panic);
        self.panicking.store(counts.panic, Ordering::Relaxed);
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
