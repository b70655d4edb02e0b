//! The control path: from a file to what is in force.
//!
//! `config::load` reads and checks the file, [`compile`] turns it into runtime types, [`Control::apply`] binds what is
//! new, swaps the snapshot and tells the workers; [`watch`] notices a changed file; [`resolve`] feeds endpoints to
//! upstreams; [`tick`] looks at them. All of it runs on the control thread, apart from the workers.

mod applied;
mod certificates;
mod checks;
mod compile;
mod jwks;
mod listen;
mod outliers;
mod providers;
mod resolve;
mod series;
mod socket_file;
pub mod tick;
pub mod watch;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::base::drain::OpenCount;
use crate::config::{Config, Loaded, Severity};
use crate::metrics::Metrics;
use crate::snapshot::{Command, Snapshot, SnapshotCell};

pub use applied::Applied;
pub use checks::UpstreamHealth;
pub use compile::{compiled, health_settings};
pub use listen::{Bound, Listeners};
pub use resolve::{Managed, Upstreams};
pub use socket_file::SocketFile;

/// Why a configuration did not take force. The one before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The file has errors; the text shows each with its place.
    #[error("{0}")]
    Refused(String),
    /// An address could not be bound.
    #[error("listener {listener}: cannot bind {address}: {error}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// What was asked for.
        address: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The resolver could not be set up.
    #[error("upstream {upstream}: {error}")]
    Resolver {
        /// The upstream's name.
        upstream: String,
        /// Why.
        error: String,
    },
    /// The process ends: what would be bound now would be cut off at once.
    #[error("draining: no configuration takes force any more")]
    Draining,
    /// A part that `check` should have refused; names it.
    #[error("{0}")]
    Invalid(String),
}

/// The control thread's state.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    snapshots: Arc<SnapshotCell>,
    workers: Vec<mpsc::Sender<Command>>,
    /// Every family.
    pub metrics: Metrics,
    inbound: OpenCount,
    outbound: OpenCount,
    config: RefCell<Rc<Config>>,
    effective: RefCell<String>,
    listeners: RefCell<Listeners>,
    upstreams: RefCell<Upstreams>,
    certificates: Rc<certificates::Certificates>,
    keys: RefCell<jwks::Sources>,
    last_error: RefCell<Option<String>>,
    /// The text of the file as it was read last.
    read: RefCell<String>,
    /// Held during a reload: the workers must hear of one after the other.
    reloading: tokio::sync::Mutex<()>,
    started: Instant,
    /// Said once that it is ready, and until it drains for ever: what comes later must not take it out of traffic.
    ready: Cell<bool>,
    draining: Cell<bool>,
    drain_requested: tokio::sync::Notify,
}

/// Everything that can fail about a configuration, done.
struct Planned {
    certificates: certificates::Plan,
    upstreams: resolve::Plan,
    listeners: listen::Plan,
    keys: jwks::Plan,
    snapshot: Snapshot,
}

/// How long readiness waits for discovery and first health checks: an upstream that cannot be looked up must not keep
/// all others from traffic.
const WARM_UP: Duration = Duration::from_secs(10);

/// Adds what is wrong with the files that a configuration names: certificates, keys for tokens.
pub fn add_findings(loaded: &mut Loaded) {
    let mut found = certificates::findings(loaded);
    found.extend(jwks::findings(loaded));
    loaded.refuse(found);
}

impl Control {
    /// Takes over with nothing in force; [`Control::apply`] gives it the first configuration.
    pub fn new(
        path: PathBuf,
        first: Rc<Config>,
        metrics: Metrics,
        open: (OpenCount, OpenCount),
        workers: Vec<mpsc::Sender<Command>>,
        snapshots: Arc<SnapshotCell>,
    ) -> Rc<Self> {
        let upstreams = Upstreams::new(metrics.clone());
        let certificates = Rc::new(certificates::Certificates::new(metrics.clone()));
        Rc::new(Self {
            path,
            snapshots,
            workers,
            metrics,
            inbound: open.0,
            outbound: open.1,
            config: RefCell::new(first),
            effective: RefCell::default(),
            listeners: RefCell::default(),
            upstreams: RefCell::new(upstreams),
            certificates,
            keys: RefCell::default(),
            last_error: RefCell::default(),
            read: RefCell::default(),
            reloading: tokio::sync::Mutex::default(),
            started: Instant::now(),
            ready: Cell::new(false),
            draining: Cell::new(false),
            drain_requested: tokio::sync::Notify::new(),
        })
    }

    /// Reads the file again and puts it in force, or keeps what is. Logs and counts either way.
    ///
    /// Not to be dropped half-way: the workers would have heard of a part of it.
    ///
    /// # Errors
    /// Why the file was refused.
    pub async fn reload(&self) -> Result<Applied, ApplyError> {
        let _one_at_a_time = self.reloading.lock().await;
        if self.draining.get() {
            return Err(ApplyError::Draining);
        }
        let loaded = crate::config::load_file(&self.path);
        self.read.replace(loaded.source.text().to_owned());
        let result = self.take(loaded).await;
        let process = &self.metrics.process;
        match &result {
            Ok(applied) => {
                process.reloads.inc();
                process.last_reload_ok.set(1);
                self.last_error.replace(None);
                tracing::info!(
                    generation = applied.generation, bound = ?applied.listeners_bound,
                    closed = ?applied.listeners_closed, upstreams_changed = ?applied.upstreams_changed,
                    upstreams_removed = ?applied.upstreams_removed, needs_restart = ?applied.needs_restart,
                    "configuration in force"
                );
            }
            Err(error) => {
                process.reload_failures.inc();
                process.last_reload_ok.set(0);
                self.last_error.replace(Some(error.to_string()));
                tracing::error!(
                    generation = self.snapshots.generation(), %error,
                    "configuration refused, the one before stays in force"
                );
            }
        }
        result
    }

    async fn take(&self, loaded: Loaded) -> Result<Applied, ApplyError> {
        let refused = || crate::config::render(&loaded.diagnostics, &loaded.source, false);
        let Some(config) = loaded.config.as_ref() else {
            return Err(ApplyError::Refused(refused()));
        };
        let before = Rc::clone(&self.config.borrow());
        let mut applied = self.apply(Rc::new(config.clone())).await?;
        log_warnings(&loaded);
        applied.needs_restart = applied::needs_restart(&before, config);
        self.effective.replace(loaded.effective_yaml());
        Ok(applied)
    }

    /// Puts a valid configuration in force: all of it, or, on an error, nothing.
    ///
    /// # Errors
    /// An address that cannot be bound, or a resolver that cannot be set up.
    pub async fn apply(&self, config: Rc<Config>) -> Result<Applied, ApplyError> {
        let before = self.snapshots.load();
        let planned = self.plan(&config, &before);
        if planned.is_err() {
            // Compiling has made series for what will not be.
            series::forget(&self.metrics, &config, &self.config());
        }
        let Planned { certificates, upstreams, listeners, keys, snapshot } = planned?;
        // From here on nothing fails.
        let generation = snapshot.generation;
        let mut applied = Applied { generation, ..Applied::default() };
        self.certificates.commit(certificates);
        self.upstreams.borrow_mut().commit(upstreams, &mut applied);
        self.keys.borrow_mut().commit(keys, &self.metrics);
        self.snapshots.apply(snapshot);
        let workers = self.workers.len();
        let commands = self.listeners.borrow_mut().commit(listeners, workers, &mut applied);
        for (worker, commands) in self.workers.iter().zip(commands) {
            for command in commands {
                // A worker that is gone has ended the process already.
                let _gone = worker.send(command).await;
            }
        }
        series::forget(&self.metrics, &self.config(), &config);
        self.config.replace(config);
        self.metrics.process.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        Ok(applied)
    }

    /// Makes everything that can fail, and changes nothing.
    fn plan(&self, config: &Config, before: &Snapshot) -> Result<Planned, ApplyError> {
        let certificates = self.certificates.plan(config)?;
        let listeners = self.listeners.borrow().plan(config, self.workers.len())?;
        let upstreams = self.upstreams.borrow().plan(config, &certificates)?;
        let keys = self.keys.borrow().plan(config)?;
        let given = compile::Given {
            certificates: &certificates,
            upstreams: &upstreams,
            keys: &keys,
            metrics: &self.metrics,
            before,
            now: Instant::now(),
        };
        let mut snapshot = compile::snapshot(config, &given)?;
        snapshot.listening = self.listeners.borrow().addresses_after(&listeners);
        Ok(Planned { certificates, upstreams, listeners, keys, snapshot })
    }

    /// Puts certificates in force whose files change, for ever. The control thread owns the task that runs this.
    pub async fn watch_certificates(self: Rc<Self>) {
        certificates::watch(Rc::clone(&self.certificates)).await;
    }

    /// True where `content` is what was read last, whether or not it took force.
    pub fn has_read(&self, content: Option<&[u8]>) -> bool {
        content == Some(self.read.borrow().as_bytes())
    }

    /// Notes what the first configuration was read from, and what `/config` shows of it.
    pub fn started(&self, read: &str, effective: String) {
        self.read.replace(read.to_owned());
        self.effective.replace(effective);
        self.metrics.process.last_reload_ok.set(1);
    }

    /// Every value in force, with its origin.
    pub fn effective(&self) -> String {
        self.effective.borrow().clone()
    }

    /// The configuration in force.
    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// The number in force.
    pub fn generation(&self) -> u64 {
        self.snapshots.generation()
    }

    /// Why the newest file is not in force, if it is not.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.borrow().clone()
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Bound listeners.
    pub fn bound(&self) -> Vec<Bound> {
        self.listeners.borrow().bound()
    }

    /// Looks at every upstream.
    pub fn with_upstreams<T>(&self, look: impl FnOnce(&Upstreams) -> T) -> T {
        look(&self.upstreams.borrow())
    }

    /// Why new traffic should not come here yet, or any more; `None`: it may.
    ///
    /// Waits for verdicts, not for good ones: whether this proxy can serve does not depend on how its upstreams are. One that
    /// took itself out of traffic for them would turn the fault of one upstream into that of every caller.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining.get() {
            return Some("draining".to_owned());
        }
        if self.ready.get() || self.started.elapsed() >= WARM_UP {
            return None;
        }
        let upstreams = self.upstreams.borrow();
        let why = [
            ("endpoints of", upstreams.unresolved()),
            ("the first health checks of", upstreams.undecided()),
        ];
        let why = why.iter().find(|(_, waiting)| !waiting.is_empty());
        self.ready.set(why.is_none());
        why.map(|(what, waiting)| format!("waiting for {what} {}", waiting.join(", ")))
    }

    /// Asks for a drain, as SIGTERM does.
    pub fn request_drain(&self) {
        self.drain_requested.notify_one();
    }

    /// Waits until a drain was asked for.
    pub async fn drain_requested(&self) {
        self.drain_requested.notified().await;
    }

    /// Ends all traffic: readiness fails at once; after `drain.delay` inbound connections end, then outbound ones, which
    /// the application still needs to answer; at `drain.deadline`, counted from now, what is left is cut off.
    ///
    /// Returns true when everything had ended before the deadline.
    pub async fn drain(&self) -> bool {
        let runtime = self.config().runtime.clone();
        self.draining.set(true);
        self.metrics.process.draining.set(1);
        let deadline = Instant::now() + runtime.drain_deadline;
        tracing::info!(
            inbound = self.inbound.get(),
            outbound = self.outbound.get(),
            delay_ms = u64::try_from(runtime.drain_delay.as_millis()).unwrap_or(u64::MAX),
            "draining"
        );
        let ending = async {
            tokio::time::sleep(runtime.drain_delay).await;
            // One that had begun may still bind listeners.
            drop(self.reloading.lock().await);
            self.tell_all(true).await;
            self.inbound.all_ended().await;
            self.tell_all(false).await;
            self.outbound.all_ended().await;
        };
        let ended = tokio::time::timeout_at(deadline, ending).await.is_ok();
        let (inbound, outbound) = (self.inbound.get(), self.outbound.get());
        if ended {
            tracing::info!("drained");
        } else {
            tracing::warn!(inbound, outbound, "drain deadline passed, cutting off what is left");
        }
        ended
    }

    async fn tell_all(&self, inbound: bool) {
        self.listeners.borrow_mut().drain(inbound);
        for worker in &self.workers {
            let _gone = worker.send(Command::Drain { inbound }).await;
        }
    }
}

/// Logs what a valid file is warned of: one line for each finding, as all of the log.
pub fn log_warnings(loaded: &Loaded) {
    for warning in loaded.diagnostics.iter().filter(|found| found.severity == Severity::Warning) {
        let line = loaded.source.position(warning.span.start).line;
        tracing::warn!(
            code = warning.code,
            file = loaded.source.name(),
            line,
            path = warning.path,
            detail = warning.message,
            "configuration warning"
        );
    }
}
