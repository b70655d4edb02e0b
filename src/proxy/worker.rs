//! A worker: one thread, one runtime, and what its requests share without locks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::base::drain::OpenCount;
use crate::base::rng::Rng;
use crate::io::tick::Tick;
use crate::metrics::ProcessMetrics;
use crate::snapshot::{Command, SnapshotCell};
use crate::upstream::LocalUpstreams;

use super::access_log::LogSender;
use super::listener::LocalListener;
use super::mirror::UnderWay;

/// How often unused connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers are given.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The configuration in force.
    pub snapshots: Arc<SnapshotCell>,
    /// Where access log lines go.
    pub access_log: LogSender,
    /// Handles that exist once.
    pub process: ProcessMetrics,
    /// Open connections of inbound listeners.
    pub inbound: OpenCount,
    /// Open connections of outbound listeners.
    pub outbound: OpenCount,
    /// Distinguishes this process in `via`.
    pub instance: Arc<str>,
    /// Number of workers.
    pub workers: u32,
}

/// One worker's state. Lives on its thread, is never locked.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub(crate) shared: Shared,
    /// Seeded once per worker.
    pub(crate) rng: RefCell<Rng>,
    /// Connections, budgets, queues.
    pub(crate) upstreams: LocalUpstreams,
    /// Coarse time.
    pub(crate) tick: Tick,
    /// Copies of requests under way.
    pub(super) mirrors: UnderWay,
    /// Whose TLS handshake is worked at: one after the other (`secure.rs`).
    pub(super) handshakes: Semaphore,
    listening: RefCell<HashMap<u64, Listening>>,
    stopping: Cell<bool>,
}

#[derive(Debug)]
struct Listening {
    inbound: bool,
    stop: watch::Sender<Stop>,
}

/// What a listener's tasks are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Go on.
    No,
    /// Accept no more.
    Accepting,
    /// And end connections as soon as their requests are answered.
    Connections,
}

impl Worker {
    /// A worker with a generator of its own.
    pub fn new(shared: Shared, rng: Rng) -> Rc<Self> {
        Rc::new(Self {
            rng: RefCell::new(rng),
            upstreams: LocalUpstreams::default(),
            tick: Tick::new(Instant::now()),
            mirrors: UnderWay::default(),
            handshakes: Semaphore::new(1),
            listening: RefCell::default(),
            stopping: Cell::new(false),
            shared,
        })
    }

    /// Does what the control thread says until it hangs up.
    pub async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let worker = Rc::clone(&self);
        let swept = Cell::new(Instant::now());
        let turning = tokio::task::spawn_local(self.tick.clone().run(move |now| {
            worker.upstreams.wake_waiting();
            if now.saturating_duration_since(swept.get()) >= SWEEP {
                swept.set(now);
                worker.upstreams.sweep(now);
            }
        }));
        while let Some(command) = commands.recv().await {
            if matches!(command, Command::Stop) {
                break;
            }
            self.obey(command);
        }
        self.stopping.set(true);
        turning.abort();
    }

    /// True when what is dropped from now on is cut off by the end of the process.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Listen { id, name, socket, protocol, inbound } => {
                let (stop, stopped) = watch::channel(Stop::No);
                let listener = LocalListener::new(self, name, protocol, inbound);
                // Looked up now, so that what still waits on its socket is served even after it was removed.
                drop(listener.active(self));
                drop(tokio::task::spawn_local(super::listener::accept(
                    Rc::clone(self),
                    Rc::new(listener),
                    socket,
                    stopped,
                )));
                self.listening.borrow_mut().insert(id, Listening { inbound, stop });
            }
            Command::Stop => {}
            Command::Close { id, connections } => {
                let stop = if connections { Stop::Connections } else { Stop::Accepting };
                let mut listening = self.listening.borrow_mut();
                if let Some(closed) = listening.get(&id) {
                    closed.stop.send_replace(stop);
                }
                // Earlier ones are forgotten when their last connection has ended.
                listening.retain(|_, listening| !listening.stop.is_closed());
            }
            Command::Drain { inbound } => {
                for listening in self.listening.borrow().values() {
                    if listening.inbound == inbound {
                        listening.stop.send_replace(Stop::Connections);
                    }
                }
                if !inbound {
                    self.upstreams.close();
                }
            }
        }
    }
}
