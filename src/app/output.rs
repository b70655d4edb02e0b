//! Writing to people: survives a pipe that was closed (`outrigger schema | head`).

use std::io::Write;

/// Writes to standard output.
pub(super) fn stdout(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that nobody reads any more.
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub(super) fn stderr(text: &str) {
    let _closed = std::io::stderr().lock().write_all(text.as_bytes());
}
