//! `outrigger run`: from a file to a running proxy, and to its end.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::admin::Server;
use crate::base::address::Address;
use crate::base::drain::OpenCount;
use crate::base::rng::Rng;
use crate::config::{Config, Loaded, LogFilter, LogTarget, load_file};
use crate::control::watch::FileWatch;
use crate::control::{self, Control};
use crate::metrics::Metrics;
use crate::proxy::Shared;
use crate::proxy::access_log::{self, LogSender, Target};
use crate::snapshot::{self, Snapshot, SnapshotCell};

use super::logging::{self, FilterHandle};
use super::threads::{self, WorkerThread};
use super::{check, output};

/// How long the workers may take to drop what they hold: milliseconds, unless the machine is starved.
const WORKERS_END: Duration = Duration::from_secs(2);

/// How long the last access log lines may take.
const LOG_ENDS: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<()> {
    let log = logging::start("info");
    // Before the file is read: a change between the two is seen.
    let mut watch = FileWatch::new(path);
    let mut loaded = load_file(path);
    control::add_findings(&mut loaded);
    if loaded.config.is_none() {
        output::stderr(&check::findings(&loaded));
        bail!("{} is not valid: nothing was started", path.display());
    }
    control::log_warnings(&loaded);
    threads::local_runtime()?.block_on(async {
        // Before anything else: a signal that comes during the start must not end the process as if it had no handler.
        let mut signals = Signals::new()?;
        let proxy = Proxy::start(path, loaded, log).await?;
        proxy.until_stopped(&mut signals, &mut watch).await;
        proxy.stop().await;
        Ok(())
    })
}

/// The signals that a running proxy obeys.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on the process is not ended by them.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// A running proxy.
pub(super) struct Proxy {
    pub(super) control: Rc<Control>,
    pub(super) snapshots: Arc<SnapshotCell>,
    pub(super) admin: Option<Address>,
    workers: Vec<WorkerThread>,
    log_writer: Option<JoinHandle<()>>,
    shared: Shared,
}

impl Proxy {
    /// Starts workers, puts the configuration in force, starts the admin server.
    pub(super) async fn start(
        path: &Path,
        loaded: Loaded,
        log: FilterHandle,
    ) -> anyhow::Result<Self> {
        threads::raise_descriptor_limit();
        let effective = loaded.effective_yaml();
        let Some(config) = loaded.config else { bail!("the configuration is not valid") };
        let config = Rc::new(config);
        let metrics = Metrics::new(&config.metrics.buckets).context("metrics.buckets")?;
        let (access_log, log_writer) = start_access_log(&config, &metrics)?;
        let count = config.runtime.workers.unwrap_or_else(threads::auto_workers);
        let snapshots = Arc::new(SnapshotCell::new(empty_snapshot(&config)));
        let shared = Shared {
            snapshots: Arc::clone(&snapshots),
            access_log,
            process: metrics.process.clone(),
            inbound: OpenCount::default(),
            outbound: OpenCount::default(),
            instance: format!("{:08x}", Rng::from_entropy().bits() >> 32).into(),
            workers: u32::try_from(count).unwrap_or(u32::MAX),
        };
        metrics.process.workers.set(i64::try_from(count).unwrap_or(i64::MAX));
        let workers = (0..count)
            .map(|index| threads::start_worker(index, shared.clone()))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot start a worker")?;
        let control = Control::new(
            path.to_owned(),
            Rc::clone(&config),
            metrics,
            (shared.inbound.clone(), shared.outbound.clone()),
            workers.iter().map(|worker| worker.commands.clone()).collect(),
            Arc::clone(&snapshots),
        );
        control.apply(Rc::clone(&config)).await?;
        control.started(loaded.source.text(), effective);
        drop(tokio::task::spawn_local(control::tick::run(Rc::clone(&control))));
        drop(tokio::task::spawn_local(Rc::clone(&control).watch_certificates()));
        let admin = start_admin(&config, &control, log).await?;
        tracing::info!(
            version = super::VERSION,
            workers = count,
            generation = control.generation(),
            "outrigger is running"
        );
        Ok(Self { control, snapshots, admin, workers, log_writer, shared })
    }

    /// Reloads where that is asked for, until SIGTERM, SIGINT or `POST /drain`; then drains. A second signal cuts the
    /// drain short; the first after `POST /drain` does not, as a platform's stop hook asks for the drain just before the
    /// platform itself does.
    pub(super) async fn until_stopped(&self, signals: &mut Signals, watch: &mut FileWatch) {
        let Signals { terminate, interrupt, hangup } = signals;
        let by_signal = loop {
            tokio::select! {
                () = Signals::end(terminate, interrupt) => break true,
                () = self.control.drain_requested() => break false,
                _ = hangup.recv() => {
                    // Logged and counted where it happens.
                    let _reported = self.control.reload().await;
                }
                () = watch.changed() => {
                    // What was asked for otherwise has been read already.
                    if !self.control.has_read(watch.content()) {
                        let _reported = self.control.reload().await;
                    }
                }
            }
        };
        let cut = async {
            if !by_signal {
                Signals::end(terminate, interrupt).await;
                tracing::info!("already draining, the next signal cuts it short");
            }
            Signals::end(terminate, interrupt).await;
        };
        tokio::select! {
            _ = self.control.drain() => {}
            () = cut => tracing::warn!("second signal, cutting off what is left"),
        }
    }

    /// Ends the threads in order: the workers, which cut off and log what is left, then the access log's, which writes
    /// what they have logged. Waits for each no longer than its bound: a full pipe must not keep the process alive.
    pub(super) async fn stop(self) {
        let Self { workers, log_writer, shared, .. } = self;
        let threads: Vec<_> = workers.into_iter().map(WorkerThread::stop).collect();
        let until = Instant::now() + WORKERS_END;
        for thread in threads {
            threads::join(thread, until).await;
        }
        // The last sender: the writer ends with its queue empty.
        drop(shared);
        if let Some(writer) = log_writer {
            threads::join(writer, Instant::now() + LOG_ENDS).await;
        }
    }
}

fn start_access_log(
    config: &Config,
    metrics: &Metrics,
) -> anyhow::Result<(LogSender, Option<JoinHandle<()>>)> {
    let dropped = metrics.process.access_log_dropped.clone();
    if config.access_log.only == LogFilter::Never {
        return Ok((LogSender::none(dropped), None));
    }
    let target = match &config.access_log.to {
        LogTarget::Stdout => Target::Stdout,
        LogTarget::Stderr => Target::Stderr,
        LogTarget::File(path) => Target::File(path.clone()),
    };
    let (sender, thread) =
        access_log::start(&target, dropped).context("access_log.to cannot be written")?;
    Ok((sender, Some(thread)))
}

/// Nothing in force yet.
fn empty_snapshot(config: &Config) -> Snapshot {
    Snapshot {
        generation: 0,
        service: config.service.as_str().into(),
        compat_envoy: false,
        log: snapshot::LogFilter::All,
        listeners: Vec::new(),
        upstreams: Vec::new(),
        listening: Vec::new(),
    }
}

async fn start_admin(
    config: &Config,
    control: &Rc<Control>,
    log: FilterHandle,
) -> anyhow::Result<Option<Address>> {
    let Some(settings) = config.admin.clone() else { return Ok(None) };
    let bind = settings.bind.clone();
    let set_level = Box::new(move |filter: &str| logging::set(&log, filter));
    let server = Server::bind(settings, Rc::clone(control), set_level)
        .await
        .with_context(|| format!("admin: cannot bind {bind}"))?;
    let address = server.address();
    tracing::info!(listener = "admin", %address, "listening");
    drop(tokio::task::spawn_local(server.run()));
    Ok(Some(address))
}
