//! hyper's executor on a worker: tasks stay on the thread and need not be `Send`.

use std::future::Future;

/// Spawns on the current worker's `LocalRuntime`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // Owned by the connection it belongs to: hyper ends these when the connection's handles are gone.
        drop(tokio::task::spawn_local(future));
    }
}
