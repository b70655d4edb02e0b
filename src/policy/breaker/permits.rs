//! What workers have of a breaker: the verdict, the places of the half-open state, and where outcomes are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::{Seen, Tally, Verdict};

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;

/// Shared by all workers, written by the control thread.
///
/// A closed breaker costs a request one load, and one or two additions at its end. Each half-open state has an
/// object of its own: a probe that outlives the state it belongs to gives its place back to that one and not to the next.
/// Orderings are `Relaxed`, as counts guard no other memory and a verdict seen a moment late is only late; but for the
/// place of a probe, which is given back with `Release` and taken with `Acquire`: who takes it knows how the one before ended.
#[derive(Debug, Default)]
pub struct Permits {
    verdict: AtomicU32,
    counts: Counts,
    recovery: ArcSwapOption<Recovery>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
}

/// One half-open state.
#[derive(Debug, Default)]
struct Recovery {
    /// How many may be under way; 1 while probing.
    limit: AtomicU32,
    under_way: AtomicU32,
    counts: Counts,
}

/// A request that was let in. Dropping it gives back what it holds: whoever leaves, no place is lost.
#[derive(Debug, Default)]
#[must_use = "dropping it ends the request for the breaker"]
pub struct Pass(Option<Arc<Recovery>>);

impl Pass {
    /// True where it is a probe, or part of the ramp.
    pub fn is_of_recovery(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(recovery) = &self.0 {
            recovery.under_way.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Counts {
    fn add(&self, failed: bool, slow: bool) {
        // The marks first: whoever reads the sum in between sees more that was bad, never a share above 1 for long.
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn tally(&self) -> Tally {
        Tally {
            requests: self.requests.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
        }
    }
}

impl Permits {
    /// Lets a request in, or not. Its place, where it takes one, ends with the pass or with [`Permits::settle`].
    pub fn try_pass(&self) -> Option<Pass> {
        match self.verdict.load(Ordering::Relaxed) {
            CLOSED => Some(Pass(None)),
            HALF_OPEN => self.recovery.load_full()?.try_enter(),
            _ => None,
        }
    }

    /// True where nothing passes, or only probes: no time for second attempts.
    pub fn is_refusing(&self) -> bool {
        match self.verdict.load(Ordering::Relaxed) {
            CLOSED => false,
            HALF_OPEN => {
                let probing = |r: &Arc<Recovery>| r.limit.load(Ordering::Relaxed) <= 1;
                self.recovery.load().as_ref().is_none_or(probing)
            }
            _ => true,
        }
    }

    /// Counts how a request ended, in the state that let it in, and gives its place back.
    pub fn settle(&self, pass: &mut Pass, failed: bool, slow: bool) {
        let Pass(held) = pass;
        match held {
            None => self.counts.add(failed, slow),
            Some(recovery) => {
                recovery.counts.add(failed, slow);
                // Counted before its place is free: nobody passes between a failed probe and the knowledge of it.
                *pass = Pass(None);
            }
        }
    }

    /// What has been counted.
    pub fn seen(&self) -> Seen {
        let recovery = self.recovery.load();
        Seen {
            closed: self.counts.tally(),
            recovery: recovery.as_ref().map(|r| r.counts.tally()).unwrap_or_default(),
            in_flight: recovery.as_ref().map_or(0, |r| r.under_way.load(Ordering::Relaxed)),
        }
    }

    /// Makes a verdict known. Called by the control thread only.
    pub fn publish(&self, verdict: Verdict) {
        let word = match verdict {
            Verdict::Pass => CLOSED,
            Verdict::Refuse => OPEN,
            Verdict::AtMost(limit) => {
                let running = self.recovery.load();
                match running.as_ref() {
                    Some(running) => running.limit.store(limit, Ordering::Relaxed),
                    None => {
                        let limit = AtomicU32::new(limit);
                        let begun = Recovery { limit, ..Recovery::default() };
                        self.recovery.store(Some(Arc::new(begun)));
                    }
                }
                HALF_OPEN
            }
        };
        self.verdict.store(word, Ordering::Relaxed);
        if word != HALF_OPEN {
            self.recovery.store(None);
        }
    }

    /// How many may be under way; `None` where that is not bounded.
    pub fn limit(&self) -> Option<u32> {
        match self.verdict.load(Ordering::Relaxed) {
            CLOSED => None,
            HALF_OPEN => self.recovery.load().as_ref().map(|r| r.limit.load(Ordering::Relaxed)),
            _ => Some(0),
        }
    }
}

impl Recovery {
    fn try_enter(self: Arc<Self>) -> Option<Pass> {
        let limit = self.limit.load(Ordering::Relaxed);
        let raise = |now| if now < limit { Some(now + 1) } else { None };
        self.under_way.fetch_update(Ordering::Acquire, Ordering::Relaxed, raise).ok()?;
        // Looked at with the place in hand: a bad probe was counted before it gave its place back.
        let tally = self.counts.tally();
        let bad = limit <= 1 && tally.failed + tally.slow > 0;
        let pass = Pass(Some(self));
        (!bad).then_some(pass)
    }
}
