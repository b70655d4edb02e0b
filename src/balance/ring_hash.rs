//! The same endpoint for the same key, on a ring, as long as that one is not too full.

use super::candidates::Candidates;
use super::endpoint_set::Member;
use super::key::{self, Key};

/// Points of an endpoint of weight 1, while there is room for so many: its share is then 1 ± 3 %. A ring has so many at least.
const POINTS: u64 = 1024;

/// Points of the whole ring (768 KiB). Beyond 64 endpoints of weight 1 each has fewer, in proportion to the weights.
const MOST_POINTS: u64 = 1 << 16;

/// Points that are looked at from the key's own on.
const STEPS: usize = 256;

/// Requests at once that an endpoint takes whatever the others have: with few in flight, `max_load` of the mean is one or two,
/// and a browser's parallel requests would be torn apart.
const FEW: f64 = 8.0;

/// Points of endpoints in the order of their hashes.
///
/// A key belongs to the endpoint of the first point at or after its own hash. An endpoint's points hang on its address alone:
/// where one leaves, only its keys move; with more endpoints than [`MOST_POINTS`] ÷ [`POINTS`] a few others, since those
/// left get some points more. Source: Karger et al. (1997); ketama.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<u64>,
    /// The member of each point.
    owners: Vec<u32>,
}

/// How full an endpoint may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Of the mean, at least 1.
    pub(super) max_load: f64,
    /// Requests in flight at all endpoints.
    pub(super) in_flight: u32,
}

impl Ring {
    /// The ring of `members`, the same in whatever order they are.
    pub(super) fn build(members: &[Member]) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut points: Vec<(u64, u32)> = Vec::new();
        for (index, member) in (0..).zip(members) {
            let weight = u64::from(member.weight);
            let share = (weight * MOST_POINTS / total.max(1)).clamp(1, weight * POINTS);
            let name = key::name(&member.endpoint.address);
            points.extend((0..share).map(|number| (key::place(&name, number), index)));
        }
        points.sort_unstable();
        let (points, owners) = points.into_iter().unzip();
        Self { points, owners }
    }

    /// The members of the points from `hash` on, once around at most.
    fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|point| *point < hash);
        let (before, after) = self.owners.split_at(start);
        after.iter().chain(before).map(|owner| *owner as usize)
    }
}

/// The endpoint that the key belongs to, or the next on the ring that may be picked and is not too full.
///
/// Too full is more than `max_load × mean` requests in flight, by weight, and more than [`FEW`]: a key that everybody wants
/// spills to the next endpoint, always in the same order, and no endpoint has more than that bound. Where all that were
/// looked at are too full, the least full of them. Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded
/// Loads" (2018); HAProxy `hash-balance-factor`; Envoy `hash_balance_factor`.
pub(super) fn pick(
    candidates: &Candidates<'_>,
    ring: &Ring,
    key: Key,
    bound: Option<Bound>,
) -> Option<usize> {
    let set = candidates.set;
    let (mut last, mut fallback) = (None, None);
    for index in ring.from(key.bits()).take(STEPS) {
        if last.replace(index) == Some(index) {
            continue;
        }
        let member = &set.members()[index];
        let share = candidates.share(index);
        if share == 0 || !key.is_among(share, &member.endpoint) {
            continue;
        }
        let Some(bound) = bound else { return Some(index) };
        let load = f64::from(member.endpoint.in_flight());
        let part = f64::from(member.weight) / set.available_weight();
        let mean = f64::from(bound.in_flight + 1) * part;
        if load < (bound.max_load * mean).ceil().max(FEW) || candidates.is_probe(index) {
            return Some(index);
        }
        if fallback.is_none_or(|(fullness, _)| load / part < fullness) {
            fallback = Some((load / part, index));
        }
    }
    fallback.map(|(_, index)| index).or_else(|| key::first_of_all(candidates, key))
}
