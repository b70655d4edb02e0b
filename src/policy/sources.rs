//! How many connections each source has: a table of fixed size that workers share without a lock.
//!
//! A slot is one number: whose it is (44 bits of a keyed hash) and how many connections that source has (20 bits). A source
//! takes the first free slot of a window of [`WINDOW`]; one whose count has fallen to 0 is free. With twice as many slots
//! as connections a window is full once in more connections than there will ever be; who finds no place is let in uncounted, for
//! refusing the innocent is worse than missing one.
//!
//! Two workers that see a new source at the same moment may give it two slots. So whoever has counted itself in adds up all
//! slots of its source, and leaves again where they are too many. Invariant: never more than the maximum are let in at
//! once; near it, of two that come at the same moment both may be refused.
//!
//! Two sources of one hash share a place: with a million of them, one in 10⁷ pairs.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slots in which a source may be.
const WINDOW: usize = 16;

/// Where the count stands.
const COUNT: u64 = (1 << 20) - 1;

/// Rounds after which a source that workers contend for is let in uncounted.
const ROUNDS: usize = 64;

/// Slots: 64 KiB of memory at least, 8 MiB at most.
const SLOTS: (usize, usize) = (1 << 13, 1 << 20);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is counted here, until [`Sources::leave`].
    At(usize),
    /// The table has no place for it: let in, not counted.
    Uncounted,
    /// Its source has as many as it may.
    Refused,
}

/// Connections at once by source.
#[derive(Debug)]
pub struct Sources {
    slots: Box<[AtomicU64]>,
    seed: u64,
}

impl Sources {
    /// For about so many connections at once. `seed` keeps others from choosing addresses that share a window.
    pub fn new(connections: usize, seed: u64) -> Self {
        let slots = connections.saturating_mul(2).clamp(SLOTS.0, SLOTS.1).next_power_of_two();
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), seed }
    }

    /// Counts one more of `source`, unless it has `max` already (1..=65 535).
    ///
    /// An IPv6 source is its /64: whoever has one address there has all of them.
    pub fn enter(&self, source: IpAddr, max: u32) -> Entry {
        let hash = self.hash(source);
        let owner = (hash | 1 << 63) & !COUNT;
        let start = usize::try_from(hash & COUNT).unwrap_or_default();
        for _ in 0..ROUNDS {
            if let Some(entry) = self.step(start, owner, u64::from(max)) {
                return entry;
            }
        }
        Entry::Uncounted
    }

    /// One less, where [`Sources::enter`] has said.
    pub fn leave(&self, at: usize) {
        if let Some(slot) = self.slots.get(at) {
            slot.fetch_sub(1, SeqCst);
        }
    }

    /// One look through the window; `None`: another worker was at it, look again.
    fn step(&self, start: usize, owner: u64, max: u64) -> Option<Entry> {
        let mut free = None;
        for at in self.window(start) {
            let slot = self.slots[at].load(SeqCst);
            if slot & COUNT == 0 {
                free = free.or(Some((at, slot)));
            } else if slot & !COUNT == owner {
                if slot & COUNT >= max {
                    return Some(Entry::Refused);
                }
                return self.take(start, at, slot, slot + 1, max);
            }
        }
        let Some((at, slot)) = free else { return Some(Entry::Uncounted) };
        self.take(start, at, slot, owner | 1, max)
    }

    fn take(&self, start: usize, at: usize, from: u64, to: u64, max: u64) -> Option<Entry> {
        self.slots[at].compare_exchange(from, to, SeqCst, SeqCst).ok()?;
        let slots = self.window(start).map(|at| self.slots[at].load(SeqCst));
        let all: u64 =
            slots.filter(|slot| slot & !COUNT == to & !COUNT).map(|slot| slot & COUNT).sum();
        if all > max {
            self.leave(at);
            return Some(Entry::Refused);
        }
        Some(Entry::At(at))
    }

    fn window(&self, start: usize) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        (start..start + WINDOW).map(move |at| at & mask)
    }

    fn hash(&self, source: IpAddr) -> u64 {
        match source.to_canonical() {
            IpAddr::V4(address) => xxh3_64_with_seed(&address.octets(), self.seed),
            IpAddr::V6(address) => xxh3_64_with_seed(&address.octets()[..8], self.seed),
        }
    }
}

#[cfg(test)]
mod tests;
