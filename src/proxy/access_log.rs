//! The access log: one JSON object a line, written by a thread of its own.
//!
//! Workers hand finished lines to a bounded queue and never wait: when the writer does not keep up (a full disk, a
//! stopped pipe), lines are dropped and counted. What the fields mean stands in `docs/ACCESS_LOG.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

/// Lines that may wait: at 500 B each, 4 MiB.
const QUEUE: usize = 8192;

/// A line is on its way out at most this long after it was written (or as soon as the queue lets the writer rest).
const FLUSH: Duration = Duration::from_millis(200);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The workers' end.
#[derive(Debug, Clone)]
pub struct LogSender {
    lines: Option<SyncSender<Vec<u8>>>,
    dropped: IntCounter,
}

/// One request.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    pub(crate) service: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) route: Option<&'a str>,
    pub(crate) protocol: &'static str,
    pub(crate) method: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    pub(crate) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u8>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) flag: Option<Flags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_refused: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) denied_by: Option<&'a dyn DisplayAny>,
    pub(crate) duration_ms: f64,
    pub(crate) head_ms: Option<f64>,
    pub(crate) attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_suppressed: Option<&'static str>,
    pub(crate) upstream: Option<&'a str>,
    pub(crate) endpoint: Option<&'a dyn DisplayAny>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) peer: &'a dyn DisplayAny,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
}

/// Envoy's response flags, with a comma between them.
#[derive(Debug)]
pub(crate) struct Flags {
    flag: Option<&'static str>,
    panic_pick: bool,
}

impl Flags {
    /// `flag`, and PN where the endpoint is unhealthy and was picked in panic; `None` where there is neither.
    pub(crate) fn of(flag: Option<&'static str>, panic_pick: bool) -> Option<Self> {
        (flag.is_some() || panic_pick).then_some(Self { flag, panic_pick })
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.flag, self.panic_pick) {
            (Some(flag), true) => serializer.collect_str(&format_args!("{flag},PN")),
            (Some(flag), false) => serializer.serialize_str(flag),
            (None, _) => serializer.serialize_str("PN"),
        }
    }
}

/// Something that is written by its `Display`.
pub(crate) trait DisplayAny: std::fmt::Display + std::fmt::Debug {}
impl<T: std::fmt::Display + std::fmt::Debug> DisplayAny for T {}

impl Serialize for dyn DisplayAny + '_ {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

impl LogSender {
    /// Logs nothing.
    pub fn none(dropped: IntCounter) -> Self {
        Self { lines: None, dropped }
    }

    /// Hands a line to the writer, or drops and counts it.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let mut bytes = Vec::with_capacity(512);
        // Writing to a vector does not fail, and no field has a map with keys that are not text.
        if serde_json::to_writer(&mut bytes, line).is_err() {
            return;
        }
        bytes.push(b'\n');
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(bytes) {
            self.dropped.inc();
        }
    }
}

/// Starts the writer's thread. It ends when the last sender is gone, with everything written.
///
/// # Errors
/// Where the file cannot be opened or the thread not started.
pub fn start(target: &Target, dropped: IntCounter) -> io::Result<(LogSender, JoinHandle<()>)> {
    let out: Box<dyn Write + Send> = match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::Stderr => Box::new(io::stderr()),
        Target::File(path) => Box::new(LogFile::open(path)?),
    };
    let (sender, lines) = sync_channel(QUEUE);
    let lost = dropped.clone();
    let thread = std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write_all(&lines, out, &lost))?;
    Ok((LogSender { lines: Some(sender), dropped }, thread))
}

/// A file that is followed by its path: once it was moved or removed, lines go into a new one.
///
/// So logrotate needs neither a signal nor `copytruncate`, which loses lines. Asking twice per write is cheap: a write
/// carries what came in 200 ms, or 64 KiB.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn is_moved(&self) -> bool {
        let (Ok(open), there) = (self.file.metadata(), self.path.metadata()) else { return false };
        there.map_or(true, |there| (there.dev(), there.ino()) != (open.dev(), open.ino()))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Where the new one cannot be opened, the old one still takes the lines.
        if self.is_moved()
            && let Ok(next) = Self::open(&self.path)
        {
            *self = next;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write_all(lines: &Receiver<Vec<u8>>, out: Box<dyn Write + Send>, lost: &IntCounter) {
    let mut out = io::BufWriter::with_capacity(64 * 1024, out);
    // When the oldest line in the buffer must be out.
    let mut due: Option<Instant> = None;
    loop {
        let line = match due {
            Some(due) => lines.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let written = match line {
            Ok(line) => {
                due.get_or_insert_with(|| Instant::now() + FLUSH);
                out.write_all(&line)
            }
            Err(RecvTimeoutError::Timeout) => {
                due = None;
                out.flush()
            }
            Err(RecvTimeoutError::Disconnected) => {
                if out.flush().is_err() {
                    lost.inc();
                }
                return;
            }
        };
        if written.is_err() {
            lost.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: u16) -> Line<'static> {
        Line {
            time: SystemTime::UNIX_EPOCH,
            service: "orders",
            listener: "outbound",
            route: Some("a\"b"),
            protocol: "HTTP/1.1",
            method: Some("GET"),
            host: None,
            path: Some("/x\n"),
            status,
            grpc_status: None,
            reason: None,
            flag: None,
            fault: None,
            detail: None,
            token_refused: None,
            denied_by: None,
            duration_ms: 1.5,
            head_ms: None,
            attempts: 1,
            retry_suppressed: None,
            upstream: None,
            endpoint: Some(&"127.0.0.1:1"),
            received_bytes: 0,
            sent_bytes: 3,
            peer: &"unix",
            identity: None,
            request_id: None,
        }
    }

    #[test]
    fn lines_are_json_and_all_of_them_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (sender, thread) = start(&Target::File(path.clone()), dropped.clone()).unwrap();
        for status in 200..300 {
            sender.write(&line(status));
        }
        drop(sender);
        thread.join().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 100);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&first["route"], &first["path"]), (&"a\"b".into(), &"/x\n".into()));
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_file_whose_folder_is_gone_still_takes_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile::open(&dir.path().join("access.log")).unwrap();
        drop(dir);
        file.write_all(b"one\n").unwrap();
    }

    /// Tells when something was written to it.
    struct Told(std::sync::mpsc::Sender<()>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_but_steady_flow_is_not_held_back() {
        let (sender, lines) = sync_channel::<Vec<u8>>(QUEUE);
        let (told, written) = std::sync::mpsc::channel();
        let lost = IntCounter::new("lost", "lost").unwrap();
        let thread = std::thread::spawn(move || write_all(&lines, Box::new(Told(told)), &lost));
        // Lines keep coming in less than the flush's time, far too few to fill the buffer.
        let out = (0..500).any(|_| {
            sender.send(b"line\n".to_vec()).unwrap();
            written.recv_timeout(FLUSH / 10).is_ok()
        });
        drop(sender);
        thread.join().unwrap();
        assert!(out);
    }
}
