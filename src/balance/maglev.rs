//! The same endpoint for the same key, by a table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::candidates::Candidates;
use super::endpoint_set::Member;
use super::key::{self, Key};

/// Slots of the table, a prime: the paper's, and Envoy's, standard size. With 100 endpoints each has 655, so that their shares
/// differ by less than 1 %.
const SLOTS: usize = 65_537;

/// Other slots that a key tries, where its own belongs to an endpoint that may not be picked. With half of the endpoints
/// out, one key in 65 536 finds none in so many.
const REHASHES: u64 = 16;

/// Which endpoint each slot belongs to.
///
/// Every endpoint has an order of its own, drawn from its address, in which it would like the slots; they take turns,
/// by weight, and each takes the next of its order that is free. A pick is one division and one look-up. When an endpoint
/// leaves, its slots go to the others, and hardly any other changes hands: less than 2 % of all with 100 endpoints.
/// Shares are more even than a ring's, and more changes hands than on a ring. Source: Eisenbud et al., "Maglev" (NSDI 2016),
/// §3.4; turns by weight as in Envoy.
#[derive(Debug)]
pub(super) struct Table {
    /// Indexes of members.
    slots: Vec<u32>,
}

/// A free slot.
const FREE: u32 = u32::MAX;

/// An endpoint while the table is filled.
struct Filler {
    member: u32,
    /// Its next wish.
    slot: usize,
    skip: usize,
    /// Turns' distance: the inverse of its weight.
    stride: u64,
}

impl Table {
    /// The table of `members`, the same in whatever order they are. Of more than [`SLOTS`] members some get no slot.
    ///
    /// About `SLOTS × ln SLOTS` steps and as many comparisons of turns, however many members and whatever weights.
    pub(super) fn build(members: &[Member]) -> Self {
        let mut fillers: Vec<(u64, Filler)> = (0..).zip(members).map(filler).collect();
        fillers.sort_by_key(|(hash, _)| *hash);
        let mut slots = vec![FREE; SLOTS];
        let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
            (0..fillers.len()).map(|order| Reverse((0, order))).collect();
        for _ in 0..SLOTS {
            let Some(Reverse((turn, order))) = turns.pop() else { break };
            let filler = &mut fillers[order].1;
            while slots[filler.slot] != FREE {
                filler.slot = (filler.slot + filler.skip) % SLOTS;
            }
            slots[filler.slot] = filler.member;
            turns.push(Reverse((turn + filler.stride, order)));
        }
        Self { slots }
    }

    fn at(&self, hash: u64) -> Option<usize> {
        let slot = usize::try_from(hash % SLOTS as u64).ok()?;
        self.slots.get(slot).filter(|member| **member != FREE).map(|member| *member as usize)
    }
}

fn filler((member, of): (u32, &Member)) -> (u64, Filler) {
    /// A turn of weight 1; more than 17 bits are left for the number of turns.
    const TURN: u64 = 1 << 40;
    let name = key::name(&of.endpoint.address);
    let (first, second) = (key::place(&name, 0), key::place(&name, 1));
    let within = |hash: u64, size: usize| usize::try_from(hash % size as u64).unwrap_or(0);
    let filler = Filler {
        member,
        slot: within(first, SLOTS),
        skip: 1 + within(second, SLOTS - 1),
        stride: TURN / u64::from(of.weight.max(1)),
    };
    (first, filler)
}

/// The endpoint of the key's slot; where that may not be picked, of the slots that the key finds when it is hashed
/// again: those of one endpoint that is out are spread over all others, and come back to it when it does.
pub(super) fn pick(candidates: &Candidates<'_>, table: &Table, key: Key) -> Option<usize> {
    let takes = |index: &usize| {
        let share = candidates.share(*index);
        share > 0 && key.is_among(share, &candidates.set.members()[*index].endpoint)
    };
    let own = table.at(key.bits()).filter(takes);
    own.or_else(|| (1..=REHASHES).find_map(|times| table.at(key.again(times)).filter(takes)))
        .or_else(|| key::first_of_all(candidates, key))
}
