//! Requests of one worker that wait for one kind of place, first come, first served.

use std::cell::Cell;
use std::pin::pin;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::io::tick::Tick;
use crate::policy::pace::Pace;

/// Those who wait. Places are counted elsewhere, over all workers; this only says when to look again.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Cell<u32>,
    freed: Notify,
    pace: Cell<Pace>,
}

/// Why one who wanted to wait got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// It would not have got in in time.
    Hopeless,
    /// Its time has passed.
    Late,
}

impl Queue {
    /// What `take` finds, unless others wait: nobody overtakes them.
    pub(super) fn unless_others_wait<T>(&self, take: impl Fn() -> Option<T>) -> Option<T> {
        if self.waiting.get() > 0 { None } else { take() }
    }

    /// Waits from `now` until `take` finds something, at most until `until`.
    pub(super) async fn wait<T>(
        &self,
        tick: &Tick,
        now: Instant,
        until: Instant,
        take: impl Fn() -> Option<T>,
    ) -> Result<T, Unserved> {
        let mut pace = self.pace.get();
        let joins = pace.joins(self.waiting.get(), now, until);
        self.pace.set(pace);
        if !joins {
            return Err(Unserved::Hopeless);
        }
        let mut timer = tick.timer(Some(until));
        let _waiting = Waiting::new(&self.waiting);
        loop {
            timer.limit(pin!(self.freed.notified())).await.map_err(|_| Unserved::Late)?;
            let now = Instant::now();
            if now >= until {
                // Its own time is over, however long it had to wait for its turn: the place is for the next.
                self.freed.notify_one();
                return Err(Unserved::Late);
            }
            if let Some(taken) = take() {
                let mut pace = self.pace.get();
                pace.gets_in(now);
                self.pace.set(pace);
                return Ok(taken);
            }
        }
    }

    /// Lets the first of those who wait look again.
    pub(super) fn wake_first(&self) {
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// Lets all of them look again.
    pub(super) fn wake_all(&self) {
        self.freed.notify_waiters();
    }
}

/// Counts a waiting request while it lives.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
