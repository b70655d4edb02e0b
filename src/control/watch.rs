//! Noticing that the configuration file has changed.
//!
//! What counts is the content; touching a file reloads nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::io::file_events::{FileEvents, Pace};

/// An editor is done after 200 ms. A poll each 10 s is for file systems that notify nobody: who waits for a change there
/// says SIGHUP.
const PACE: Pace = Pace { quiet: Duration::from_millis(200), poll: Duration::from_secs(10) };

/// Waits for changes of a file's content.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    content: Option<Vec<u8>>,
    events: FileEvents,
}

impl FileWatch {
    /// Watches `path` from its present content on.
    pub fn new(path: &Path) -> Self {
        let events = FileEvents::new(path, PACE);
        Self { path: path.to_owned(), content: std::fs::read(path).ok(), events }
    }

    /// The content as it was seen last; `None` before the file was there.
    pub fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// Waits until the content is another one.
    pub async fn changed(&mut self) {
        loop {
            self.events.next().await;
            // A file that is missing for a moment is being replaced.
            let Ok(content) = std::fs::read(&self.path) else { continue };
            if self.content.as_ref() != Some(&content) {
                self.content = Some(content);
                return;
            }
        }
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
