//! Threads: one current-thread runtime per worker, and the control thread's own.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::base::rng::Rng;
use crate::proxy::{Shared, Worker};
use crate::snapshot::Command;

/// More workers than this cost more in cold connections and caches than they give a sidecar.
const MOST_AUTO: usize = 4;

/// Commands that a worker may have waiting: they come only with reloads and drains.
const COMMANDS: usize = 256;

/// How many workers `auto` means: the CPUs that the cgroup grants, at most 4.
pub(super) fn auto_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_AUTO))
}

/// A runtime for tasks of this thread.
pub(super) fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// A running worker.
#[derive(Debug)]
pub(super) struct WorkerThread {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) thread: JoinHandle<()>,
}

/// Starts a worker. It ends, cutting off what is left, when its commands are dropped.
pub(super) fn start_worker(index: usize, shared: Shared) -> io::Result<WorkerThread> {
    let (commands, received) = mpsc::channel(COMMANDS);
    let runtime = std::thread::Builder::new().name(format!("worker-{index}"));
    let thread = runtime.spawn(move || match local_runtime() {
        Ok(runtime) => runtime.block_on(Worker::new(shared, Rng::from_entropy()).run(received)),
        Err(error) => tracing::error!(index, %error, "worker cannot start"),
    })?;
    Ok(WorkerThread { commands, thread })
}

/// Raises the limit of file descriptors to what the system allows: each proxied connection takes two.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
}
