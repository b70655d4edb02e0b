//! Active health checks: asking endpoints how they are, apart from the requests that go to them.
//!
//! The rules (verdicts, pace, jitter) are `policy::health`; here is what asks ([`probe`]) and who asks. Checks run on the control thread,
//! **once per process** for each endpoint and equal check: workers, upstreams and generations of the configuration that
//! want the same share one, and its verdict outlives a reload as long as anybody wants it.
//!
//! At most [`AT_ONCE`] checks are under way; more wait their turn, which is no failure. A check that nobody wants any more
//! ends at once, in the middle of an answer too.

mod grpc;
mod http2;
mod probe;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::base::address::Address;
use crate::base::rng::Rng;
use crate::policy::health::{Health, Verdict};

pub use probe::{Check, CheckTls, Finding, Probe};

/// Checks under way at once, over the whole process. By Little's law, endpoints × timeout ÷ interval are under way where
/// all of them hang: 200 for 1 000 endpoints with the defaults.
pub const AT_ONCE: usize = 256;

/// What is known about an endpoint's health.
#[derive(Debug, Clone)]
pub struct Report {
    /// What its checks amount to.
    pub verdict: Verdict,
    /// Passes in a row up to now.
    pub passes: u32,
    /// Failures in a row up to now.
    pub failures: u32,
    /// The last check, and when it ended; `None` before the first.
    pub last: Option<(Finding, Instant)>,
}

/// Hears of every check that ends: how, what is known after it, and the verdict before it.
pub type Listener = dyn Fn(&Finding, &Report, Verdict);

/// Every check of the process, each run once.
#[derive(Debug)]
pub struct Checks {
    running: Rc<Running>,
    places: Rc<Semaphore>,
    rng: RefCell<Rng>,
}

/// What makes two checks the same.
type Key = (Address, Check);

/// The checks that somebody wants.
type Running = RefCell<HashMap<Rc<Key>, Weak<Run>>>;

/// A wanted check. Dropping the last one of a check ends it.
#[derive(Debug)]
pub struct Watch {
    run: Rc<Run>,
    id: u64,
}

/// A check with its task; leaves the table when it is dropped.
#[derive(Debug)]
struct Run {
    key: Rc<Key>,
    table: Weak<Running>,
    shared: Rc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    report: RefCell<Report>,
    listeners: RefCell<Vec<(u64, Rc<Listener>)>>,
    next_id: Cell<u64>,
}

impl Checks {
    /// None yet. `rng` spreads checks over time.
    pub fn new(rng: Rng) -> Self {
        let places = Rc::new(Semaphore::new(AT_ONCE));
        Self { running: Rc::default(), places, rng: RefCell::new(rng) }
    }

    /// Has `address` checked until the watch is dropped. Where it is already, what is known is known at once.
    ///
    /// Must be called within the control thread's runtime.
    pub fn watch(&self, address: &Address, check: &Check, listener: Rc<Listener>) -> Watch {
        let key = (address.clone(), check.clone());
        let known = self.running.borrow().get(&key).and_then(Weak::upgrade);
        let run = known.unwrap_or_else(|| self.start(Rc::new(key)));
        let id = run.shared.next_id.get();
        run.shared.next_id.set(id + 1);
        run.shared.listeners.borrow_mut().push((id, listener));
        Watch { run, id }
    }

    fn start(&self, key: Rc<Key>) -> Rc<Run> {
        let shared = Rc::new(Shared::new());
        let rng = Rng::from_seed(self.rng.borrow_mut().bits());
        let task = repeat(Rc::clone(&key), Rc::clone(&shared), Rc::clone(&self.places), rng);
        let run = Rc::new(Run {
            key: Rc::clone(&key),
            table: Rc::downgrade(&self.running),
            shared,
            _task: AbortOnDropHandle::new(tokio::task::spawn_local(task)),
        });
        self.running.borrow_mut().insert(key, Rc::downgrade(&run));
        run
    }
}

impl Watch {
    /// What is known so far.
    pub fn report(&self) -> Report {
        self.run.shared.report.borrow().clone()
    }

    /// What the checks so far amount to.
    pub fn verdict(&self) -> Verdict {
        self.run.shared.report.borrow().verdict
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.run.shared.listeners.borrow_mut().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.borrow_mut().remove(&self.key);
        }
    }
}

impl Shared {
    fn new() -> Self {
        let report = Report { verdict: Verdict::Unknown, passes: 0, failures: 0, last: None };
        Self { report: RefCell::new(report), listeners: RefCell::default(), next_id: Cell::new(0) }
    }

    /// Notes what a check has found, and tells it to whoever listens.
    fn tell(&self, health: &Health, finding: &Finding, ended: Instant) {
        let report = Report {
            verdict: health.verdict(),
            passes: health.passes(),
            failures: health.failures(),
            last: Some((finding.clone(), ended)),
        };
        let before = self.report.replace(report.clone()).verdict;
        // A listener may end watches, its own included.
        let listeners = self.listeners.borrow().clone();
        for (_, listener) in listeners {
            listener(finding, &report, before);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("report", &self.report).finish_non_exhaustive()
    }
}

/// Checks for ever.
async fn repeat(key: Rc<Key>, shared: Rc<Shared>, places: Rc<Semaphore>, mut rng: Rng) {
    let (address, check) = &*key;
    let mut health = Health::new(check.settings);
    sleep_until(Instant::now() + health.before_first(&mut rng)).await;
    // The semaphore is never closed.
    while let Ok(place) = places.acquire().await {
        let began = Instant::now();
        let finding = probe::probe(address, check).await;
        drop(place);
        let ended = Instant::now();
        if let Some(passed) = finding.passed() {
            health.record(passed);
        }
        shared.tell(&health, &finding, ended);
        sleep_until(health.next(began, ended, &mut rng)).await;
    }
}

/// What holds of any bytes that may come as an answer of gRPC: they are read, or are no message. The door for fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    let _any = grpc::response(bytes);
}
