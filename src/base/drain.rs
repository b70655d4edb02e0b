//! Waiting until the last connection has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts what is open over all workers, and lets the control thread wait for the last of it.
#[derive(Debug, Clone, Default)]
pub struct OpenCount(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    open: AtomicUsize,
    ended: Notify,
}

/// One open thing; dropping it ends it.
#[derive(Debug)]
pub struct Open(Arc<Counted>);

impl OpenCount {
    /// Counts one until the guard is dropped.
    pub fn open(&self) -> Open {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.0))
    }

    /// How many are open.
    pub fn get(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.get() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_last_one() {
        let count = OpenCount::default();
        let (first, second) = (count.open(), count.open());
        drop(first);
        assert_eq!(count.get(), 1);
        let waiting = count.all_ended();
        tokio::pin!(waiting);
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(Future::poll(waiting.as_mut(), &mut cx).is_pending());
        drop(second);
        waiting.await;
    }
}
