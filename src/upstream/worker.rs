//! All upstreams that one worker has used.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::Upstream;
use super::local::{IdMap, LocalUpstream};

/// Every upstream that this worker has used.
#[derive(Debug, Default)]
pub struct LocalUpstreams {
    map: RefCell<IdMap<Rc<LocalUpstream>>>,
}

impl LocalUpstreams {
    /// The worker's part of `upstream`.
    pub fn get(&self, upstream: &Arc<Upstream>, now: Instant) -> Rc<LocalUpstream> {
        let mut map = self.map.borrow_mut();
        if let Some(local) = map.get(&upstream.id()) {
            return Rc::clone(local);
        }
        let local = Rc::new(LocalUpstream::new(Arc::clone(upstream), now));
        map.insert(upstream.id(), Rc::clone(&local));
        local
    }

    /// Gives waiting requests another chance: a place may have become free on another worker. Each tick.
    pub fn wake_waiting(&self) {
        for local in self.map.borrow().values() {
            local.turn();
        }
    }

    /// Closes connections that have rested too long and forgets upstreams that only this map still knows. Each second.
    pub fn sweep(&self, now: Instant) {
        self.map.borrow_mut().retain(|_, local| {
            local.sweep(now);
            // Requests and connections hold it, too.
            !local.upstream.is_retired() || Rc::strong_count(local) > 1
        });
    }

    /// Closes every unused connection.
    pub fn close(&self) {
        for local in self.map.borrow().values() {
            local.close();
        }
    }
}
