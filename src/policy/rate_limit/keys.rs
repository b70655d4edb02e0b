//! The buckets of a limit by key: a table of fixed size that workers share without locks.
//!
//! Each key has a window of [`WINDOW`] slots, found by its hash, and takes one of them. A slot whose bucket is full again
//! says nothing that an absent key would not say, so it is free for the next key: nothing is lost by taking it, and no one
//! has to sweep. Only where every slot of a window is owed something does a new key find no place; it then shares one bucket
//! with all others of that fate. Evicting the oldest instead was rejected: whoever sends a new key with each request would
//! push out the debts of others and never meet a limit.
//!
//! A slot is two numbers: whose it is, and when its bucket is full. The second decides: it grows with every change, so
//! a compare-and-swap on it fails whenever the slot has changed hands in between. Two workers that see a new key at the same
//! moment might take two slots for it; so whoever takes a slot marks it as claimed, writes the key, looks through the window
//! again, and one of two claims is withdrawn before either counts (Purcell and Harris, "Non-blocking hashtables with open
//! addressing", 2005). Invariant: no key has two live slots, so that it is never admitted beyond its quota.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Quota, Verdict};

/// Slots in which a key may be. At twice the slots of the keys told apart, hardly a key in some thousands finds none.
const WINDOW: usize = 16;

/// Rounds after which a key that workers contend for goes to the shared bucket. One that is stopped in the middle of a claim
/// is overruled after [`PATIENT`] rounds, so that nobody waits for it.
const ROUNDS: u32 = 32;
const PATIENT: u32 = 4;

/// In place of a time: a worker is about to give the slot to a key.
const CLAIMED: u64 = u64::MAX;
/// In place of a time: a claim that another worker has withdrawn; its owner will free the slot.
const WITHDRAWN: u64 = u64::MAX - 1;

/// Whether a key has a bucket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It has, and this is what it says.
    Place(Verdict),
    /// Its window is full of others that owe something.
    NoPlace,
}

#[derive(Debug)]
pub(super) struct KeyTable {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The key's hash with its lowest bit set; 0: nobody's.
    owner: AtomicU64,
    /// When its bucket is full, in nanoseconds; or one of the two marks.
    full: AtomicU64,
}

/// What one look through a window has come to.
enum Step {
    Done(Found),
    /// Another worker was at it: look again.
    Again,
}

impl KeyTable {
    /// A table that tells `keys` keys apart: at least twice as many slots, a power of two.
    pub(super) fn new(keys: NonZeroU32) -> Self {
        let keys = usize::try_from(keys.get()).unwrap_or(usize::MAX / 4);
        let slots = (keys * 2).next_power_of_two().max(WINDOW);
        Self { slots: (0..slots).map(|_| Slot::default()).collect() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Charges the bucket of `key`.
    pub(super) fn take(&self, key: u64, quota: &Quota, now: u64) -> Found {
        let owner = key | 1;
        // The bits that the owner's mark does not touch, from the other end.
        let start = usize::try_from(key >> 32).unwrap_or_default();
        for round in 0..ROUNDS {
            match self.step(start, owner, quota, now, round >= PATIENT) {
                Step::Done(found) => return found,
                Step::Again => std::hint::spin_loop(),
            }
        }
        Found::NoPlace
    }

    fn window(&self, start: usize) -> impl Iterator<Item = (usize, &Slot)> {
        let mask = self.slots.len() - 1;
        (0..WINDOW).map(move |step| (step, &self.slots[(start + step) & mask]))
    }

    fn step(&self, start: usize, owner: u64, quota: &Quota, now: u64, force: bool) -> Step {
        let mut free = None;
        for (place, slot) in self.window(start) {
            // The time before the owner: if the slot changes hands in between, the time has changed too.
            let full = slot.full.load(Ordering::SeqCst);
            let holder = slot.owner.load(Ordering::SeqCst);
            if holder != owner {
                if free.is_none() && full <= now {
                    free = Some((place, slot, full));
                }
                continue;
            }
            match full {
                WITHDRAWN => {}
                CLAIMED if force => slot.withdraw(),
                CLAIMED => return Step::Again,
                full => return slot.charge(owner, full, quota, now),
            }
        }
        match free {
            Some((place, slot, full)) => {
                self.claim(start, owner, (place, slot, full), quota, now, force)
            }
            None => Step::Done(Found::NoPlace),
        }
    }

    /// Takes a free slot for a key that has none.
    fn claim(
        &self,
        start: usize,
        owner: u64,
        (place, slot, full): (usize, &Slot, u64),
        quota: &Quota,
        now: u64,
        force: bool,
    ) -> Step {
        if slot.exchange(full, CLAIMED).is_err() {
            return Step::Again;
        }
        slot.owner.store(owner, Ordering::SeqCst);
        for (other_place, other) in self.window(start) {
            if other_place == place || other.owner.load(Ordering::SeqCst) != owner {
                continue;
            }
            let yields = match other.full.load(Ordering::SeqCst) {
                WITHDRAWN => false,
                // Of two claims the first place wins, unless its worker does not go on.
                CLAIMED if other_place < place && !force => true,
                CLAIMED => other.exchange(CLAIMED, WITHDRAWN).is_err_and(|now| now != WITHDRAWN),
                _live => true,
            };
            if yields {
                slot.free(full);
                return Step::Again;
            }
        }
        let verdict = match quota.charge(full, now) {
            Ok(next) if slot.exchange(CLAIMED, next).is_ok() => Verdict::Admitted,
            // A bucket that is full admits; so the claim was withdrawn.
            _ => {
                slot.free(full);
                return Step::Again;
            }
        };
        Step::Done(Found::Place(verdict))
    }
}

impl Slot {
    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.full.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn charge(&self, owner: u64, mut full: u64, quota: &Quota, now: u64) -> Step {
        loop {
            let next = match quota.charge(full, now) {
                Ok(next) => next,
                Err(wait) => return Step::Done(Found::Place(Verdict::Limited { wait })),
            };
            match self.exchange(full, next) {
                Ok(_) => return Step::Done(Found::Place(Verdict::Admitted)),
                Err(CLAIMED | WITHDRAWN) => return Step::Again,
                Err(other) => full = other,
            }
            if self.owner.load(Ordering::SeqCst) != owner {
                return Step::Again;
            }
        }
    }

    fn withdraw(&self) {
        // Where it fails, the claim has come to its end: the next round sees which.
        let _decided = self.exchange(CLAIMED, WITHDRAWN);
    }

    /// Gives a claimed slot back. The time moves on by its smallest step, so that nobody takes the slot for what it was.
    fn free(&self, full: u64) {
        self.owner.store(0, Ordering::SeqCst);
        self.full.store(full + 1, Ordering::SeqCst);
    }
}
