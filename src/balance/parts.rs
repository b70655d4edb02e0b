//! A set in parts: one for each priority.
//!
//! Each part is a set of its own, so that every policy chooses within it as it does in a set that has no parts. How much
//! goes to each is decided where endpoints are counted ([`super::Balancer::review`]) and read by picks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

use super::Balancer;
use super::candidates::Candidates;
use super::endpoint::Endpoint;
use super::endpoint_set::{EndpointSet, Member};
use super::overflow::{Tier, spread};
use super::standing::{Ejection, Health};
use crate::base::rng::Rng;

/// All requests.
const ALL: u32 = 1 << 16;

/// Endpoints of one priority.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) set: EndpointSet,
    priority: u32,
    /// Of [`ALL`] requests, how many ask here first.
    share: AtomicU32,
}

/// The parts of `members`, the first choice first; none where one would hold them all.
pub(super) fn split(members: &[Member]) -> Vec<Part> {
    let mut priorities: Vec<u32> = members.iter().map(|member| member.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    if priorities.len() < 2 {
        return Vec::new();
    }
    let part = |(index, priority)| {
        let of_it = members.iter().filter(|member| member.priority == priority);
        let set = EndpointSet::of(of_it.cloned().collect());
        Part { set, priority, share: AtomicU32::new(if index == 0 { ALL } else { 0 }) }
    };
    priorities.into_iter().enumerate().map(part).collect()
}

impl EndpointSet {
    /// Each priority with the share of requests that asks it first; none where all endpoints have the same.
    pub fn priorities(&self) -> impl Iterator<Item = (u32, f64)> {
        self.parts().iter().map(|part| {
            let share = f64::from(part.share.load(Ordering::Relaxed)) / f64::from(ALL);
            (part.priority, share)
        })
    }
}

impl Balancer {
    /// An endpoint of the part whose turn it is; where that has none, of the others, the first choice first.
    pub(super) fn choose_by_parts<'a>(
        &self,
        candidates: &Candidates<'a>,
        parts: &'a [Part],
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let first = whose_turn(parts, rng);
        let others = (0..parts.len()).filter(|index| *index != first);
        std::iter::once(first).chain(others).find_map(|index| {
            let set = &parts[index].set;
            let turns = &self.turns[index.min(self.turns.len() - 1)];
            let chosen = self.choose_within(&Candidates { set, ..*candidates }, turns, rng)?;
            Some(&set.members()[chosen].endpoint)
        })
    }

    /// Decides how much goes to each part, and which of them panic; true where one does.
    pub(super) fn review_parts(&self, parts: &[Part], now: Instant) -> bool {
        let tiers: Vec<Tier> = parts.iter().map(|part| self.tier(&part.set, now)).collect();
        let verdicts = spread(&tiers, self.panic_below);
        let (mut sum, mut before) = (0.0, 0);
        for (part, verdict) in parts.iter().zip(&verdicts) {
            // Ends are rounded, not shares: so they add up.
            sum += verdict.share;
            let end = of_all(sum);
            part.share.store(end - before, Ordering::Relaxed);
            part.set.set_panicking(verdict.panics);
            before = end;
        }
        verdicts.iter().any(|verdict| verdict.panics)
    }

    /// What there is to pick from in `set`.
    fn tier(&self, set: &EndpointSet, now: Instant) -> Tier {
        let mut tier = Tier { endpoints: set.len(), ..Tier::default() };
        let uses_unproven = self.uses_unproven();
        for member in set.members() {
            let standing = &member.endpoint.standing;
            let state = standing.load();
            let healthy = match state.health {
                Health::Unknown | Health::Healthy => true,
                Health::Unhealthy => false,
                Health::Unproven => uses_unproven,
            };
            let takes = match state.ejection {
                Ejection::In | Ejection::Shadow => true,
                // One that is due gets a request, which is its probe: else a priority without traffic would never get one back.
                Ejection::Ejected => state.at <= standing.clock(now),
                Ejection::Probing => false,
            };
            tier.weight += u64::from(member.weight);
            tier.available += u64::from(member.weight) * u64::from(healthy && takes);
            tier.unhealthy += usize::from(state.health == Health::Unhealthy);
        }
        tier
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and ALL")]
fn of_all(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(ALL)).round() as u32
}

/// Which part is asked first. Shares are published one by one: a pick may see some of before and some of after.
fn whose_turn(parts: &[Part], rng: &mut Rng) -> usize {
    let first = parts.first().map_or(0, |part| part.share.load(Ordering::Relaxed));
    if first == ALL {
        return 0;
    }
    let mut point = u32::try_from(rng.below(ALL as usize)).unwrap_or(0);
    for (index, part) in parts.iter().enumerate() {
        let share = part.share.load(Ordering::Relaxed);
        if point < share {
            return index;
        }
        point -= share;
    }
    0
}
