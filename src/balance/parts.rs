//! A set in parts: one for each priority, or for each zone of a priority.
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
use super::overflow::{Tier, Verdict, spread};
use super::standing::{Ejection, Health};
use super::zones;
use crate::base::rng::Rng;

/// All requests.
const ALL: u32 = 1 << 16;

/// Priorities told apart; those beyond are taken for the last. Bounds what a pick walks through, and the tables of `maglev`.
const MOST_PRIORITIES: usize = 16;

/// Zones of a priority told apart; those beyond share a part.
const MOST_ZONES: usize = 16;

/// Our own zone sheds a request when its endpoint has more than [`SPILL`] times what another zone's has in flight, and
/// [`SLACK`] besides, each per weight.
///
/// Capacity is a guess about other callers; this is the fuse for where it is wrong. 16: a sidecar that has so many requests at
/// one endpoint at once sees a queue, or asks some thousand times a second; below, staying is worth more. Twice: a zone that
/// is slower everywhere must not be mistaken for a full one.
const SPILL: f64 = 2.0;
const SLACK: f64 = 16.0;

/// Endpoints of one priority, or of some zones in it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) set: EndpointSet,
    priority: u32,
    /// `None`: several, or not told apart.
    zone: Option<String>,
    /// How many zones.
    zones: u32,
    /// Of [`ALL`] requests, how many ask here first.
    share: AtomicU32,
}

/// The parts of `members`: the first choice first, and of each priority our own `zone` first. None where one would hold them
/// all.
pub(super) fn split(members: &[Member], zone: Option<&str>) -> Vec<Part> {
    let mut priorities: Vec<u32> = members.iter().map(|member| member.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let last = priorities.get(MOST_PRIORITIES - 1).copied().unwrap_or(u32::MAX);
    priorities.truncate(MOST_PRIORITIES);
    let mut parts: Vec<Part> = Vec::new();
    for priority in priorities {
        let of_it = |member: &&Member| member.priority.min(last) == priority;
        let of_it: Vec<&Member> = members.iter().filter(of_it).collect();
        parts.extend(split_zones(priority, &of_it, zone));
    }
    if parts.len() < 2 {
        return Vec::new();
    }
    parts[0].share = AtomicU32::new(ALL);
    parts
}

/// The zones of one priority; one part for all where none, or nothing but, is in ours.
fn split_zones(priority: u32, members: &[&Member], own: Option<&str>) -> Vec<Part> {
    let part = |zone: Option<&str>, zones: usize, members: Vec<&Member>| Part {
        set: EndpointSet::of(members.into_iter().cloned().collect()),
        priority,
        zone: zone.map(str::to_owned),
        zones: u32::try_from(zones).unwrap_or(u32::MAX),
        share: AtomicU32::new(0),
    };
    let zone_of = |member: &Member| member.endpoint.zone.clone();
    let mut zones: Vec<Option<String>> = members.iter().map(|member| zone_of(member)).collect();
    zones.sort_unstable();
    zones.dedup();
    let ours = |zone: &Option<String>| own.is_some() && zone.as_deref() == own;
    let Some(place) = zones.iter().position(ours).filter(|_| zones.len() > 1) else {
        return vec![part(None, 1, members.to_vec())];
    };
    let own = zones.remove(place);
    zones.insert(0, own);
    let apart = if zones.len() > MOST_ZONES { MOST_ZONES - 1 } else { zones.len() };
    let mut parts: Vec<Part> = zones[..apart]
        .iter()
        .map(|zone| {
            let of_it = members.iter().copied().filter(|member| member.endpoint.zone == *zone);
            part(zone.as_deref(), 1, of_it.collect())
        })
        .collect();
    let others = &zones[apart..];
    if !others.is_empty() {
        let of_it = |member: &&Member| others.binary_search(&member.endpoint.zone).is_ok();
        parts.push(part(None, others.len(), members.iter().copied().filter(of_it).collect()));
    }
    parts
}

/// What a part of a set is told to take.
#[derive(Debug, Clone, PartialEq)]
pub struct PartView {
    /// 0: first choice.
    pub priority: u32,
    /// `None`: several, or not told apart.
    pub zone: Option<String>,
    /// Of the requests, `0.0..=1.0`.
    pub share: f64,
}

impl EndpointSet {
    /// Each part with the share of requests that asks it first; none where the set has no parts.
    pub fn shares(&self) -> impl Iterator<Item = PartView> {
        self.parts().iter().map(|part| PartView {
            priority: part.priority,
            zone: part.zone.clone(),
            share: f64::from(part.share.load(Ordering::Relaxed)) / f64::from(ALL),
        })
    }
}

impl Balancer {
    /// An endpoint of the part whose turn it is; where that has none, of the others, the first choice first.
    #[inline(never)]
    pub(super) fn choose_by_parts<'a>(
        &self,
        candidates: &Candidates<'a>,
        parts: &'a [Part],
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let first = whose_turn(parts, candidates, rng);
        let others = (0..parts.len()).filter(|index| *index != first);
        std::iter::once(first).chain(others).find_map(|index| {
            let part = &parts[index];
            let chosen = self.choose_in(index, candidates, parts, rng)?;
            let other = self.spill(index, chosen, candidates, parts, rng);
            Some(other.unwrap_or_else(|| &part.set.members()[chosen].endpoint))
        })
    }

    #[inline(never)]
    fn choose_in(
        &self,
        index: usize,
        candidates: &Candidates<'_>,
        parts: &[Part],
        rng: &mut Rng,
    ) -> Option<usize> {
        let turns = &self.turns[index.min(self.turns.len() - 1)];
        let candidates = Candidates { set: &parts[index].set, ..*candidates };
        self.choose_within(&candidates, turns, rng)
    }

    /// An endpoint of another zone, where the one that was `chosen` in ours is overloaded beside it. A key stays where it is.
    fn spill<'a>(
        &self,
        index: usize,
        chosen: usize,
        candidates: &Candidates<'_>,
        parts: &'a [Part],
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let part = &parts[index];
        let load = Candidates { set: &part.set, ..*candidates }.load(chosen);
        if load <= SLACK || candidates.key.is_some() || part.zone.as_deref() != self.zone() {
            return None;
        }
        let others = parts[index + 1..].iter().take_while(|other| other.priority == part.priority);
        let other = index + 1 + rng.below(others.count());
        let set = &parts.get(other).filter(|other| other.priority == part.priority)?.set;
        let instead = self.choose_in(other, candidates, parts, rng)?;
        let there = Candidates { set, ..*candidates }.load(instead);
        (load > SPILL * there + SLACK).then_some(&set.members()[instead].endpoint)
    }

    /// Decides how much goes to each part, and which of them panic; true where one does.
    pub(super) fn review_parts(&self, parts: &[Part], now: Instant) -> bool {
        let of_one = |parts: &[Part]| -> (Vec<Tier>, Tier) {
            let tiers: Vec<Tier> = parts.iter().map(|part| self.tier(&part.set, now)).collect();
            let sum = tiers.iter().copied().fold(Tier::default(), Tier::plus);
            (tiers, sum)
        };
        let priorities: Vec<&[Part]> = parts.chunk_by(|a, b| a.priority == b.priority).collect();
        let found: Vec<(Vec<Tier>, Tier)> = priorities.iter().map(|parts| of_one(parts)).collect();
        let tiers: Vec<Tier> = found.iter().map(|(_, sum)| *sum).collect();
        let verdicts = spread(&tiers, self.panic_below);
        // Ends are rounded, not shares: so they add up.
        let (mut sum, mut before) = (0.0, 0);
        for ((parts, (tiers, _)), verdict) in priorities.iter().zip(&found).zip(&verdicts) {
            let shares = of_zones(parts, tiers, *verdict);
            for ((part, tier), share) in parts.iter().zip(tiers).zip(shares) {
                sum += verdict.share * share;
                let end = of_all(sum);
                part.share.store(end - before, Ordering::Relaxed);
                part.set.set_panicking(verdict.panics);
                part.set.set_available_weight(tier.available);
                before = end;
            }
        }
        verdicts.iter().any(|verdict| verdict.panics)
    }

    /// What there is to pick from in `set`.
    pub(super) fn tier(&self, set: &EndpointSet, now: Instant) -> Tier {
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
                // One that is due gets a request, which is its probe: else a part without traffic would never get one back.
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

/// How a priority's part of the requests is split between its zones. In panic, and where nothing is available, by weight: what
/// the checks say of zones is not believed then either.
#[expect(clippy::cast_precision_loss, reason = "sums of weights, far below 2^53")]
fn of_zones(parts: &[Part], tiers: &[Tier], verdict: Verdict) -> Vec<f64> {
    let available: Vec<(u64, u32)> =
        parts.iter().zip(tiers).map(|(part, tier)| (tier.available, part.zones)).collect();
    let spread = if verdict.panics { None } else { zones::spread(&available) };
    spread.unwrap_or_else(|| {
        let total: u64 = tiers.iter().map(|tier| tier.weight).sum();
        tiers.iter().map(|tier| tier.weight as f64 / total.max(1) as f64).collect()
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and ALL")]
fn of_all(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(ALL)).round() as u32
}

/// Which part is asked first. Shares are published one by one: a pick may see some of before and some of after.
fn whose_turn(parts: &[Part], candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    let first = parts.first().map_or(0, |part| part.share.load(Ordering::Relaxed));
    if first == ALL {
        return 0;
    }
    // Of a key always the same: its requests stay together where several parts share the traffic.
    let point = candidates.key.map_or_else(|| rng.bits(), |key| key.again(u64::MAX)) >> 48;
    let mut point = u32::try_from(point).unwrap_or(0);
    for (index, part) in parts.iter().enumerate() {
        let share = part.share.load(Ordering::Relaxed);
        if point < share {
            return index;
        }
        point -= share;
    }
    0
}
