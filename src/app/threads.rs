//! Threads: one current-thread runtime per worker, and the control thread's own.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use tokio::time::Instant;

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

/// What threads of the pool for long work add to their nice value. Beside a worker that wants the same core such a thread gets
/// a tenth of it (weights of 110 and 1 024, `sched_prio_to_weight` in Linux), and the worker runs as soon as it can.
const NICE: i32 = 10;

/// A runtime for tasks of this thread. Its pool for long work (lists of endpoints being read, say) gives way to requests.
pub(super) fn local_runtime() -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().thread_name("long-work").on_thread_start(give_way);
    builder.build_local(LocalOptions::default())
}

/// Lowers the priority of the thread that calls: in Linux the nice value is a thread's own (setpriority(2), C library/kernel
/// differences).
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};
    let lowered = getpriority_process(None).and_then(|now| setpriority_process(None, now + NICE));
    if let Err(error) = lowered {
        tracing::debug!(%error, "long work keeps the priority of requests");
    }
}

/// How often a thread is looked at that is about to end: its handle cannot be awaited.
const LOOK: Duration = Duration::from_millis(1);

/// A running worker.
#[derive(Debug)]
pub(super) struct WorkerThread {
    pub(super) commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Asks it to cut off what is left, and gives its thread for [`join`].
    pub(super) fn stop(self) -> JoinHandle<()> {
        if self.commands.try_send(Command::Stop).is_err() && !self.thread.is_finished() {
            tracing::warn!("a worker has too many commands waiting to be told to end");
        }
        self.thread
    }
}

/// Waits for a thread's end, or for `until`.
pub(super) async fn join(thread: JoinHandle<()>, until: Instant) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    while !thread.is_finished() {
        if Instant::now() >= until {
            tracing::warn!(thread = name, "still busy, ending without it");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    if thread.join().is_err() {
        tracing::error!(thread = name, "has panicked");
    }
}

/// Starts a worker. It ends with [`WorkerThread::stop`], or when its commands are dropped.
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
