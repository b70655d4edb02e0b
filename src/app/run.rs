//! `outrigger run`: from a file to a running proxy, and to its end.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Server;
use crate::base::address::Address;
use crate::base::drain::OpenCount;
use crate::base::rng::Rng;
use crate::config::{Config, Loaded, LogFilter, LogTarget, load_file};
use crate::control::Control;
use crate::control::watch::FileWatch;
use crate::metrics::Metrics;
use crate::proxy::Shared;
use crate::proxy::access_log::{self, LogSender, Target};
use crate::snapshot::{self, Snapshot, SnapshotCell};

use super::logging::{self, FilterHandle};
use super::threads::{self, WorkerThread};
use super::{check, output};

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<()> {
    let log = logging::start("info");
    let loaded = load_file(path);
    output::stderr(&check::findings(&loaded));
    if loaded.config.is_none() {
        bail!("{} is not valid: nothing was started", path.display());
    }
    threads::local_runtime()?.block_on(async {
        let proxy = Proxy::start(path, loaded, log).await?;
        let mut watch = FileWatch::new(path);
        proxy.until_stopped(&mut watch).await?;
        proxy.stop().await;
        Ok(())
    })
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
        control.metrics.process.last_reload_ok.set(1);
        control.set_effective(effective);
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
    /// drain short.
    pub(super) async fn until_stopped(&self, watch: &mut FileWatch) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = self.control.drain_requested() => break,
                _ = hangup.recv() => {
                    // Logged and counted where it happens.
                    let _reported = self.control.reload().await;
                }
                () = watch.changed() => {
                    let _reported = self.control.reload().await;
                }
            }
        }
        tokio::select! {
            _ = self.control.drain() => {}
            _ = terminate.recv() => tracing::warn!("second signal, cutting off what is left"),
            _ = interrupt.recv() => tracing::warn!("second signal, cutting off what is left"),
        }
        Ok(())
    }

    /// Ends the threads; whatever is still open is cut off.
    pub(super) async fn stop(self) {
        let Self { control, workers, log_writer, shared, .. } = self;
        drop(control);
        for worker in workers {
            drop(worker.commands);
            // The runtime's own tasks (admin, discovery) hold a sender until they are dropped with it: do not wait for
            // the thread, which ends with the process.
            if worker.thread.is_finished() && worker.thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
        drop(shared);
        drop(log_writer);
        tokio::task::yield_now().await;
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
