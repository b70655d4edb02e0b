//! A list of endpoints in a file, read again when its content changes.
//!
//! Whoever writes the file is not asked for more than that: a rename over it, an edit in place and the swap of a symlink
//! (Kubernetes updates a mounted ConfigMap so) all count, and touching it does not. What cannot be read or understood keeps
//! the last good set.
//!
//! Half a file that happens to be a whole list cannot be told from a whole one. An edit in place is therefore looked at when
//! it has been quiet for [`PACE`]`.quiet`; a writer that is slower than that should write elsewhere and rename.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::last_good::{LastGood, Trouble, Verdict};
use super::publisher::Publisher;
use super::{ErrorKind, Standing};
use crate::base::endpoint::EndpointSpec;
use crate::io::file_events::{FileEvents, Pace};

/// A change reaches picks within 1 s: 100 ms after its last step where the system notifies, 600 ms where it does not. A
/// look at a file that did not change is one `stat`.
const PACE: Pace = Pace { quiet: Duration::from_millis(100), poll: Duration::from_millis(500) };

/// Bytes of a file: ten thousand endpoints with zones and labels take some 1.5 MiB.
const MAX_BYTES: u64 = 4 << 20;

/// Reads a list of endpoints; gets the file's name, for messages, and its text. The error says where and what.
pub type Parse = fn(&str, &str) -> Result<Vec<EndpointSpec>, String>;

/// `discover: file:///path`.
#[derive(Debug, Clone)]
pub struct File {
    path: PathBuf,
    parse: Parse,
}

impl File {
    /// The endpoints that `parse` finds in the file at `path`. It need not be there yet.
    pub fn new(path: PathBuf, parse: Parse) -> Self {
        Self { path, parse }
    }

    pub(super) fn source(&self) -> Arc<str> {
        format!("file://{}", self.path.display()).into()
    }

    /// Looks, publishes, waits; ends only by being aborted.
    pub(super) async fn run(self, publisher: Publisher) {
        // Before the first look: a change in between is an event.
        let mut events = FileEvents::new(&self.path, PACE);
        let mut state = LastGood::default();
        let mut seen = Seen::default();
        let mut good = false;
        loop {
            let look = self.look(seen).await;
            let now = Instant::now();
            let verdict = match look.found {
                Some(found) => Some(judge(&mut state, found, now)),
                None if state.confirm_at().is_some_and(|due| now >= due) => {
                    Some(state.on_set(Vec::new(), now))
                }
                None => None,
            };
            match verdict {
                Some(verdict) => {
                    good = matches!(verdict.standing, Standing::Fresh | Standing::Empty);
                    publisher.take(verdict, now);
                }
                // Unchanged, and it was good.
                None if good => publisher.still_good(now),
                None => {}
            }
            seen = look.seen;
            events.next().await;
        }
    }

    /// Reads and parses on a thread where that may take its time.
    async fn look(&self, seen: Seen) -> Look {
        let Self { path, parse } = self.clone();
        let looked = tokio::task::spawn_blocking(move || Look::at(&path, parse, seen)).await;
        looked.unwrap_or_else(|error| {
            let found = Err(Trouble::new(ErrorKind::Other, format!("not read: {error}")));
            Look { seen: Seen::default(), found: Some(found) }
        })
    }
}

fn judge(state: &mut LastGood, found: Result<Vec<EndpointSpec>, Trouble>, now: Instant) -> Verdict {
    match found {
        Ok(endpoints) => state.on_set(endpoints, now),
        Err(trouble) => state.on_failure(trouble),
    }
}

/// What a file was like when it was looked at.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// Its content, or why there is none.
    content: Option<Result<Vec<u8>, Trouble>>,
}

/// What changes when a file does: device and inode (replaced), size and times (rewritten). The time of change is what a
/// writer cannot set back.
type Stamp = (u64, u64, u64, [(i64, i64); 2]);

/// `None`: it cannot be told by its stamp whether the file changes. That is so for a moment after each change, as the clock of
/// a file system ticks in milliseconds.
fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    let times = [(file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let settled = i64::try_from(now).is_ok_and(|now| file.ctime() < now);
    settled.then_some((file.dev(), file.ino(), file.size(), times))
}

/// The result of one look.
struct Look {
    seen: Seen,
    /// `None`: what it was before.
    found: Option<Result<Vec<EndpointSpec>, Trouble>>,
}

impl Look {
    fn at(path: &Path, parse: Parse, before: Seen) -> Self {
        // Before the reading: a change in between is seen as one next time.
        let stamp = stamp(path);
        if stamp.is_some() && stamp == before.stamp {
            return Self { seen: before, found: None };
        }
        let content = read(path);
        if before.content.as_ref() == Some(&content) {
            return Self { seen: Seen { stamp, ..before }, found: None };
        }
        let found = content.as_ref().map_err(Clone::clone).and_then(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
                format!("{}:{line}: the file is no UTF-8 text", path.display())
            });
            text.and_then(|text| parse(&path.display().to_string(), text))
                .map_err(|text| Trouble::new(ErrorKind::Malformed, text))
        });
        Self { seen: Seen { stamp, content: Some(content) }, found: Some(found) }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unreachable,
        };
        Trouble::new(kind, format!("{} cannot be read: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    // To open a pipe is to wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(Trouble::new(ErrorKind::Unreachable, text));
    }
    // One byte more than allowed shows that there is more.
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        let text = format!("{} has more than 4MiB", path.display());
        return Err(Trouble::new(ErrorKind::Malformed, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
