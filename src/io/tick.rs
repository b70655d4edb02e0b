//! The worker's coarse clock: most timers never fire, so arming one must cost next to nothing.
//!
//! A hashed wheel (Varghese and Lauck, 1987, scheme 6) with one slot per tick of 50 ms. Moving a deadline later only
//! writes a field: the slot it was filed in finds it not due and files it anew. [`Alarm`] is never early and at most
//! one tick late: right for header, body, idle and keep-alive limits. [`Timer`] is exact: it sleeps on the wheel until
//! the last tick and on tokio's clock from there, so that a deadline which does not pass costs no timer of tokio's.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, Sleep};

/// The distance between two ticks: the most that an [`Alarm`] can be late.
pub const TICK: Duration = Duration::from_millis(50);

const TICK_NANOS: u64 = 50_000_000;

/// Slots of the wheel: a deadline further away than `SLOTS` ticks is looked at once each turn (6.4 s).
const SLOTS: usize = 128;

/// A handle on the worker's wheel. Cheap to clone; not shared between threads.
#[derive(Debug, Clone)]
pub struct Tick(Rc<RefCell<Wheel>>);

#[derive(Debug)]
struct Wheel {
    start: Instant,
    /// Ticks that have been processed.
    ticks: u64,
    slots: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Reused by every tick, so that none of them allocates.
    due: Vec<u32>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The tick at which to fire; `u64::MAX`: not armed.
    due: u64,
    /// How many places in slots name this entry. They outlive its handle: whoever uses the entry next finds it filed, so
    /// that a timer for each request files nothing most of the time.
    filings: u32,
    /// The tick of the filing that counts; others are left over from before the deadline was moved.
    next: u64,
    waker: Option<Waker>,
}

const NEVER: u64 = u64::MAX;

impl Tick {
    /// A wheel that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(RefCell::new(Wheel {
            start: now,
            ticks: 0,
            slots: vec![Vec::new(); SLOTS],
            entries: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
        })))
    }

    /// Turns the wheel for ever and calls `each` after each tick. The worker owns the task that runs this.
    pub async fn run(self, mut each: impl FnMut(Instant)) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let now = interval.tick().await.max(Instant::now());
            self.advance(now);
            each(now);
        }
    }

    /// Fires what is due at `now`.
    pub fn advance(&self, now: Instant) {
        loop {
            let Some(waker) = self.0.borrow_mut().next_due(now) else { return };
            // Woken without the borrow: a waker may drop an alarm.
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// A coarse alarm, not armed.
    pub fn alarm(&self) -> Alarm {
        let key = self.0.borrow_mut().insert();
        Alarm { wheel: self.clone(), key }
    }

    /// An exact timer that is done at `at`; `None`: never.
    pub fn timer(&self, at: Option<Instant>) -> Timer {
        let mut timer = Timer { alarm: self.alarm(), at: None, exact: None };
        timer.set(at);
        timer
    }
}

impl Wheel {
    fn insert(&mut self) -> u32 {
        if let Some(key) = self.free.pop() {
            return key;
        }
        self.entries.push(Entry { due: NEVER, ..Entry::default() });
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// The first tick at or after `at`.
    fn tick_of(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.start)).div_ceil(TICK_NANOS)
    }

    /// Puts the entry into the slot where its deadline will be noticed; one in the past fires at the next tick.
    fn file(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        entry.filings += 1;
        entry.next = entry.due.max(self.ticks + 1);
        self.slots[slot_of(entry.next)].push(key);
    }

    /// Sets an entry's deadline, and files it where the place it has would come too late.
    fn arm(&mut self, key: u32, due: u64) {
        let ticks = self.ticks;
        let entry = &mut self.entries[key as usize];
        entry.due = due;
        let noticed_in_time = entry.filings > 0 && entry.next > ticks && entry.next <= due;
        if due != NEVER && !noticed_in_time {
            self.file(key);
        }
    }

    /// Looks at one place of the slot under the hand. `Some` when the entry is due.
    fn visit(&mut self, key: u32) -> Option<Option<Waker>> {
        let now = self.ticks;
        let entry = &mut self.entries[key as usize];
        entry.filings -= 1;
        if entry.due <= now {
            return Some(entry.waker.take());
        }
        // Of the further places that name this entry, only the one that counts is kept.
        let counts = slot_of(entry.next) == slot_of(now);
        if counts && entry.due != NEVER {
            self.file(key);
        }
        None
    }

    /// The next due entry's waker; `None` when nothing is due at `now`.
    fn next_due(&mut self, now: Instant) -> Option<Option<Waker>> {
        loop {
            if let Some(key) = self.due.pop() {
                if let Some(waker) = self.visit(key) {
                    return Some(waker);
                }
                continue;
            }
            if self.ticks >= nanos(now.saturating_duration_since(self.start)) / TICK_NANOS {
                return None;
            }
            self.ticks += 1;
            let slot = slot_of(self.ticks);
            std::mem::swap(&mut self.due, &mut self.slots[slot]);
        }
    }
}

/// In 64 bits, which hold 584 years: a division of 128 bits would cost more than all else here.
fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

fn slot_of(tick: u64) -> usize {
    // The remainder is below SLOTS, so it fits.
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}

/// A coarse alarm on the wheel: never early, at most one [`TICK`] late. Dropping it disarms it.
#[derive(Debug)]
pub struct Alarm {
    wheel: Tick,
    key: u32,
}

impl Alarm {
    /// Arms it for `at`, or disarms it. Moving a deadline later only writes a field.
    pub fn set(&mut self, at: Option<Instant>) {
        let mut wheel = self.wheel.0.borrow_mut();
        let due = at.map_or(NEVER, |at| wheel.tick_of(at));
        wheel.arm(self.key, due);
    }

    /// Arms it for the last tick before `at`, at which it fires at once if that has passed already.
    fn set_before(&mut self, at: Option<Instant>) {
        let mut wheel = self.wheel.0.borrow_mut();
        let due = at.map_or(NEVER, |at| wheel.tick_of(at).saturating_sub(2));
        wheel.arm(self.key, due);
    }

    /// Ready when the armed time has passed; `Pending` for ever when not armed.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wheel = self.wheel.0.borrow_mut();
        let ticks = wheel.ticks;
        let entry = &mut wheel.entries[self.key as usize];
        if entry.due <= ticks {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until the armed time has passed.
    pub async fn elapsed(&mut self) {
        std::future::poll_fn(|cx| self.poll_elapsed(cx)).await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut wheel = self.wheel.0.borrow_mut();
        let entry = &mut wheel.entries[self.key as usize];
        entry.waker = None;
        entry.due = NEVER;
        wheel.free.push(self.key);
    }
}

/// An exact timer that costs a field on the wheel until its last tick. Dropping it disarms it.
#[derive(Debug)]
pub struct Timer {
    alarm: Alarm,
    at: Option<Instant>,
    /// Made for the last tick only.
    exact: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Moves the timer; `None` disarms it.
    pub fn set(&mut self, at: Option<Instant>) {
        if self.at == at {
            return;
        }
        self.at = at;
        self.exact = None;
        // One tick early: the rest is slept exactly.
        self.alarm.set_before(at);
    }

    /// Ready when the time has passed; `Pending` for ever when not armed.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if let Some(exact) = &mut self.exact {
            return exact.as_mut().poll(cx);
        }
        if self.alarm.poll_elapsed(cx).is_ready() {
            let exact = self.exact.insert(Box::pin(tokio::time::sleep_until(at)));
            return exact.as_mut().poll(cx);
        }
        Poll::Pending
    }

    /// Runs `future` until the timer is done. It comes pinned (`pin!`), for taken by value it would be stored twice.
    ///
    /// # Errors
    /// [`Elapsed`] when the timer was first.
    pub async fn limit<F: Future + Unpin>(&mut self, mut future: F) -> Result<F::Output, Elapsed> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_elapsed(cx).map(|()| Err(Elapsed))
        })
        .await
    }
}

/// A [`Timer`] was done before the future it limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time has passed")]
pub struct Elapsed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn is_elapsed(alarm: &mut Alarm) -> bool {
        alarm.poll_elapsed(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_is_never_early_and_at_most_one_tick_late() {
        let start = Instant::now();
        let wheel = Tick::new(start);
        let mut rng = Rng::from_seed(7);
        let mut alarms: Vec<(Alarm, Instant)> = Vec::new();
        for step in 0..20_000_u32 {
            let now = start + TICK * step / 3;
            wheel.advance(now);
            for (alarm, at) in &mut alarms {
                if is_elapsed(alarm) {
                    assert!(now >= *at, "early by {:?}", *at - now);
                } else {
                    assert!(now < *at + TICK, "late by {:?}", now - *at);
                }
            }
            alarms.retain_mut(|(alarm, _)| !is_elapsed(alarm));
            if alarms.len() < 40 {
                let mut alarm = wheel.alarm();
                let at = now + rng.duration_up_to(Duration::from_secs(15));
                alarm.set(Some(at));
                alarms.push((alarm, at));
            }
            let moved = rng.below(alarms.len());
            let at = now + rng.duration_up_to(Duration::from_secs(9));
            alarms[moved].0.set(Some(at));
            alarms[moved].1 = at;
            if rng.below(10) == 0 {
                alarms.swap_remove(rng.below(alarms.len()));
            }
        }
        assert!(wheel.0.borrow().entries.len() <= 41, "entries are used again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_is_exact_and_a_disarmed_one_never_ends() {
        let wheel = Tick::new(Instant::now());
        let checks = async {
            for millis in [0_u64, 1, 49, 50, 51, 333, 10_007] {
                let at = Instant::now() + Duration::from_millis(millis);
                let late = wheel.timer(Some(at)).limit(std::future::pending::<()>()).await;
                assert_eq!(late, Err(Elapsed));
                let now = Instant::now();
                assert!(now >= at && now - at <= Duration::from_millis(1), "{millis} ms");
            }
            let mut never = wheel.timer(None);
            let done = never.limit(Box::pin(tokio::time::sleep(Duration::from_secs(3600)))).await;
            assert_eq!(done, Ok(()));
        };
        tokio::select! {
            () = wheel.clone().run(|_| {}) => {}
            () = checks => {}
        }
    }
}
