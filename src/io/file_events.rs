//! Waiting until something may have happened to a file.
//!
//! Its folder is watched, not the file: editors and `mv` replace it, and Kubernetes swaps a symlink two levels up. A poll
//! stands behind it for file systems that notify nobody, and for symlinks that lead elsewhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How often quiet is waited for before a file that keeps changing is looked at all the same.
const PATIENCE: usize = 4;

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Quiet time after a change: an editor writes in several steps.
    pub quiet: Duration,
    /// After this long the file is looked at whatever the notifications say.
    pub poll: Duration,
}

/// Notifications about one file. Dropping it ends them.
#[derive(Debug)]
pub struct FileEvents {
    pace: Pace,
    events: mpsc::Receiver<()>,
    /// `None` where the system gives none.
    _watcher: Option<RecommendedWatcher>,
}

impl FileEvents {
    /// Watches the folder of `path`.
    pub fn new(path: &Path, pace: Pace) -> Self {
        Self::near([path], pace)
    }

    /// Watches the folders of all `paths`, with one watcher: the system grants each user 128 of them.
    pub fn near<'a>(paths: impl IntoIterator<Item = &'a Path>, pace: Pace) -> Self {
        // One place is enough: what matters is that something has happened since the last look.
        let (changed, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !may_change(event.kind)) {
                return;
            }
            let _noted_already = changed.try_send(());
        });
        let folders = paths.into_iter().map(|path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or_else(|| Path::new("."))
        });
        let folders: BTreeSet<&Path> = folders.collect();
        let watcher = watcher.and_then(|mut watcher| {
            for folder in &folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            let every = pace.poll;
            tracing::warn!(?folders, %error, ?every, "no notifications of file changes, looking now and then");
        }
        Self { pace, events, _watcher: watcher.ok() }
    }

    /// Returns when the file is worth a look: something has happened near it and it is quiet since, or the poll is due.
    pub async fn next(&mut self) {
        if timeout(self.pace.poll, self.noticed()).await.is_err() {
            return;
        }
        for _ in 0..PATIENCE {
            sleep(self.pace.quiet).await;
            if self.events.try_recv().is_err() {
                return;
            }
        }
    }

    /// Without a watcher the channel is closed, and only the poll is left.
    async fn noticed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// False for reading: our own look at the file would otherwise be the event that causes the next one.
fn may_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_POLL: Pace =
        Pace { quiet: Duration::from_millis(10), poll: Duration::from_secs(3_600) };

    #[tokio::test]
    async fn looking_at_the_file_is_no_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "one").unwrap();
        let mut events = FileEvents::new(&path, NO_POLL);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        // Events come in order: what is first in the channel is not the reading.
        std::fs::write(dir.path().join("other"), "").unwrap();
        events.events.recv().await.unwrap();
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)] {
            assert!(!may_change(EventKind::Access(kind)));
        }
        assert!(may_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_notifies_the_poll_is_left() {
        let pace = Pace { quiet: Duration::from_millis(10), poll: Duration::from_secs(1) };
        let mut events = FileEvents::new(Path::new("/nonexistent/folder/a.yaml"), pace);
        let start = tokio::time::Instant::now();
        events.next().await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
