//! Requests of one worker that wait for one kind of place, first come, first served.

use std::cell::Cell;
use std::pin::pin;

use tokio::sync::Notify;

use crate::io::tick::Timer;

/// Those who wait. Places are counted elsewhere, over all workers; this only says when to look again.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Cell<u32>,
    freed: Notify,
}

impl Queue {
    /// What `take` finds, unless others wait: nobody overtakes them.
    pub(super) fn unless_others_wait<T>(&self, take: impl Fn() -> Option<T>) -> Option<T> {
        if self.waiting.get() > 0 { None } else { take() }
    }

    /// Waits until `take` finds something; `None` when the timer was first.
    pub(super) async fn wait<T>(
        &self,
        timer: &mut Timer,
        take: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            timer.limit(pin!(self.freed.notified())).await.ok()?;
            if let Some(taken) = take() {
                return Some(taken);
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
