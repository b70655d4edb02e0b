//! The immutable set of endpoints that a pick chooses from.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::maglev::Table;
use super::parts::{self, Part};
use super::ring_hash::Ring;
use super::standing::FULL;
use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;
use crate::base::rng::Rng;

/// The largest weight; larger ones count as it, so that sums of products stay in 64 bits.
const MAX_WEIGHT: u32 = 1000;

/// Draws before a condition is met by looking at every member instead.
const DRAWS: usize = 4;

/// Numbers on either side of the golden section that are considered as a step.
const STEPS_TRIED: u64 = 32;

/// Endpoints with their weights, and what picks need computed once.
///
/// Never changed, only replaced: a pick sees one consistent set, and the live state is in the endpoints, which the next
/// set shares.
#[derive(Debug, Default)]
pub struct EndpointSet {
    members: Vec<Member>,
    /// Where each member's weight ends when all are laid end to end; empty where all weights are equal.
    ends: Vec<u64>,
    /// Sum of the weights.
    total: u64,
    /// Distance between turns of round robin.
    step: u64,
    /// Its members by priority and zone; empty where one part would hold them all.
    parts: Vec<Part>,
    /// What a hashing policy looks keys up in; none of a set that has parts.
    places: Option<Places>,
    /// The verdict of [`super::Balancer::review`]: weights that may be picked; 0: nobody has looked.
    available: AtomicU64,
    /// The verdict of [`super::Balancer::review`]: unhealthy members are used as well.
    panicking: AtomicBool,
}

/// Where keys belong.
#[derive(Debug)]
pub(super) enum Places {
    Ring(Ring),
    Table(Table),
}

/// An endpoint in a set.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its live state.
    pub endpoint: Arc<Endpoint>,
    /// Its relative share, 1..=1 000.
    pub weight: u32,
    /// 0: first choice.
    pub priority: u32,
    /// Mean weight of the set ÷ `weight`: 1 where all are equal.
    per_share: f64,
}

impl Member {
    /// Requests in flight ÷ (weight ÷ mean weight): how loaded it is for its size.
    pub fn load_per_share(&self) -> f64 {
        f64::from(self.endpoint.in_flight()) * self.per_share
    }
}

impl EndpointSet {
    /// The set of `specs`. What `previous` already holds under the same address, zone and labels keeps its state, its
    /// ejection included; what it holds beyond is marked retired. What joins those of `previous` begins slow start. Of
    /// several specs with one address the first counts.
    pub fn build(specs: &[EndpointSpec], previous: Option<&Self>, now: Instant) -> Self {
        let mut known: HashMap<&Address, &Arc<Endpoint>> = previous
            .into_iter()
            .flat_map(|set| &set.members)
            .map(|member| (&member.endpoint.address, &member.endpoint))
            .collect();
        // The first of a process, or after none at all, have nobody who could take their part meanwhile.
        let joins = !known.is_empty();
        let mut seen = HashMap::with_capacity(specs.len());
        let mut members = Vec::with_capacity(specs.len());
        for spec in specs {
            let Entry::Vacant(first) = seen.entry(&spec.address) else { continue };
            first.insert(());
            let kept = match known.get(&spec.address) {
                Some(endpoint) if endpoint.matches(spec) => known.remove(&spec.address),
                _ => None,
            };
            let endpoint = kept.map_or_else(|| Arc::new(Endpoint::new(spec, now)), Arc::clone);
            if kept.is_none() && joins {
                endpoint.standing.ramp(now);
            }
            let weight = spec.weight.clamp(1, MAX_WEIGHT);
            members.push(Member { endpoint, weight, priority: spec.priority, per_share: 1.0 });
        }
        known.values().for_each(|endpoint| endpoint.retire());
        let parts = parts::split(&members, None);
        Self { parts, ..Self::of(members) }
    }

    /// A set without parts.
    pub(super) fn of(mut members: Vec<Member>) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let even = members.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        if even {
            return Self { members, total, step: 1, ..Self::default() };
        }
        #[expect(clippy::cast_precision_loss, reason = "sums far below 2^53")]
        let mean = total as f64 / members.len() as f64;
        let mut end = 0;
        let mut ends = Vec::with_capacity(members.len());
        for member in &mut members {
            member.per_share = mean / f64::from(member.weight);
            end += u64::from(member.weight);
            ends.push(end);
        }
        Self { members, ends, total, step: golden_step(total), ..Self::default() }
    }

    /// Its endpoints, in the order of the specs.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Its members by priority and zone; none where one part would hold them all.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The same with our `zone` apart from others, and with `places` of each part.
    pub(super) fn prepared(
        mut self,
        zone: Option<&str>,
        places: impl Fn(&[Member]) -> Option<Places>,
    ) -> Self {
        if zone.is_some() {
            self.parts = parts::split(&self.members, zone);
        }
        match self.parts.is_empty() {
            true => self.places = places(&self.members),
            false => {
                for part in &mut self.parts {
                    part.set.places = places(&part.set.members);
                }
            }
        }
        self
    }

    /// What a hashing policy looks keys up in.
    pub(super) fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// Sum of the weights that may be picked, at least 1.
    #[expect(clippy::cast_precision_loss, reason = "sums of weights, far below 2^53")]
    pub(super) fn available_weight(&self) -> f64 {
        match self.available.load(Ordering::Relaxed) {
            0 => self.total.max(1) as f64,
            available => available as f64,
        }
    }

    pub(super) fn set_available_weight(&self, available: u64) {
        self.available.store(available, Ordering::Relaxed);
    }

    /// True while its unhealthy members are used.
    pub(super) fn is_panicking(&self) -> bool {
        self.panicking.load(Ordering::Relaxed)
    }

    pub(super) fn set_panicking(&self, panics: bool) {
        self.panicking.store(panics, Ordering::Relaxed);
    }

    /// Marks every endpoint retired: the upstream itself is gone.
    pub fn retire(&self) {
        self.members.iter().for_each(|member| member.endpoint.retire());
    }

    /// True where all weights are equal.
    pub(super) fn is_even(&self) -> bool {
        self.ends.is_empty()
    }

    /// The member whose turn `sequence` is. The set must not be empty.
    pub(super) fn turn(&self, sequence: u64) -> usize {
        if self.is_even() {
            index(sequence % self.members.len() as u64)
        } else {
            self.at(sequence % self.total * self.step % self.total)
        }
    }

    /// A member drawn by weight × `share`, by index; `None` where no member has a share. A share is in thousandths.
    ///
    /// Draws again while a share says no, which leaves the others' proportions as they are. After a few draws, only
    /// likely where little is left to choose from, it weighs every member once.
    pub(super) fn draw(&self, rng: &mut Rng, share: impl Fn(usize) -> u32) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        for _ in 0..DRAWS {
            let drawn = if self.is_even() {
                rng.below(self.members.len())
            } else {
                self.at(rng.below(index(self.total)) as u64)
            };
            let share = share(drawn);
            if share == FULL || (share > 0 && rng.below(FULL as usize) < share as usize) {
                return Some(drawn);
            }
        }
        // Each share is asked for once: other threads change them meanwhile.
        let (mut chosen, mut total) = (None, 0);
        for (index, member) in self.members.iter().enumerate() {
            let weight = member.weight as usize * share(index) as usize;
            total += weight;
            if rng.below(total) < weight {
                chosen = Some(index);
            }
        }
        chosen
    }

    /// The member that `position` below `total` belongs to.
    fn at(&self, position: u64) -> usize {
        self.ends.partition_point(|end| *end <= position)
    }
}

/// A number near `total ÷ φ`, without a common divisor with `total`, whose multiples spread evenly over `0..total`.
///
/// How evenly is told by the continued fraction of `step ÷ total`: the smaller its largest quotient the better
/// (Niederreiter 1992, §3.1), and the golden section has all ones. The very nearest number may be bad (251 ÷ 408 has
/// a quotient of 31, 253 ÷ 408 none above 3), so the best of some neighbours is taken.
fn golden_step(total: u64) -> u64 {
    // Fixed point, 32 bits: (√5 − 1) ÷ 2.
    let nearest = u64::try_from((u128::from(total) * 2_654_435_769) >> 32).unwrap_or(1);
    let neighbours = nearest.saturating_sub(STEPS_TRIED).max(1)..nearest + STEPS_TRIED;
    let sound = neighbours.filter_map(|step| Some((largest_quotient(total, step)?, step)));
    sound.min().map_or(1, |(_, step)| step)
}

/// The largest quotient of the continued fraction of `step ÷ total`; `None` where they have a common divisor.
fn largest_quotient(total: u64, step: u64) -> Option<u64> {
    let (mut a, mut b, mut largest) = (total, step, 0);
    while b != 0 {
        largest = largest.max(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(largest)
}

/// A number that is below the length of a vector.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
