//! Noticing that the configuration file has changed.
//!
//! Its folder is watched, not the file: editors and `mv` replace it, and Kubernetes swaps a symlink two levels up. What
//! counts is the content; touching a file reloads nothing. A slow poll stands behind it for file systems that notify
//! nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Quiet time after a change: an editor writes in several steps.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(200);

/// The file is read this often, whatever the notifications say.
pub(super) const POLL: Duration = Duration::from_secs(10);

/// Waits for changes of a file's content.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    content: Option<Vec<u8>>,
    events: mpsc::Receiver<()>,
    /// Dropping it ends the notifications; `None` where the system gives none.
    _watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Watches `path` from its present content on.
    pub fn new(path: &Path) -> Self {
        // One place is enough: what matters is that something has happened since the last look.
        let (changed, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !may_change(event.kind)) {
                return;
            }
            let _noted_already = changed.try_send(());
        });
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no notifications of file changes: looking every 10 s");
        }
        let content = std::fs::read(path).ok();
        Self { path: path.to_owned(), content, events, _watcher: watcher.ok() }
    }

    /// The content as it was seen last; `None` before the file was there.
    pub fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// Waits until the content is another one.
    pub async fn changed(&mut self) {
        loop {
            // Without a watcher the channel is closed, and only the poll is left.
            let noticed = async {
                if self.events.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            if tokio::time::timeout(POLL, noticed).await.is_ok() {
                tokio::time::sleep(DEBOUNCE).await;
                while self.events.try_recv().is_ok() {}
            }
            // A file that is missing for a moment is being replaced.
            let Ok(content) = std::fs::read(&self.path) else { continue };
            if self.content.as_ref() != Some(&content) {
                self.content = Some(content);
                return;
            }
        }
    }
}

/// False for reading: our own look at the file would otherwise be the event that causes the next one.
pub(super) fn may_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_noticed_and_a_touched_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path);
        std::fs::write(&path, "one").unwrap();
        let next = dir.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &path).unwrap();
        watch.changed().await;
        assert_eq!(watch.content.as_deref(), Some(b"two".as_slice()));
    }

    #[tokio::test]
    async fn looking_at_the_file_is_no_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        // Events come in order: what is first in the channel is not the reading.
        std::fs::write(dir.path().join("other"), "").unwrap();
        watch.events.recv().await.unwrap();
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)] {
            assert!(!may_change(EventKind::Access(kind)));
        }
        assert!(may_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::fs::write(one.join("a.yaml"), "one").unwrap();
        std::fs::write(two.join("a.yaml"), "two").unwrap();
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink(&one, &data).unwrap();
        let path = dir.path().join("a.yaml");
        std::os::unix::fs::symlink("..data/a.yaml", &path).unwrap();
        let mut watch = FileWatch::new(&path);
        let swap = dir.path().join("swap");
        std::os::unix::fs::symlink(&two, &swap).unwrap();
        std::fs::rename(&swap, &data).unwrap();
        watch.changed().await;
        assert_eq!(watch.content.as_deref(), Some(b"two".as_slice()));
    }
}
