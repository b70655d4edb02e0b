//! Noticing that a certificate's file has changed.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::io::file_events::{FileEvents, Pace};

use super::{Certificates, SETTLE};

/// As for the configuration: whoever writes a file is done after 200 ms, and the poll is for file systems that notify nobody.
const PACE: Pace = Pace { quiet: Duration::from_millis(200), poll: Duration::from_secs(10) };

/// Watches for ever. The control thread owns the task that runs this.
pub(in crate::control) async fn run(certificates: Rc<Certificates>) {
    loop {
        let paths = certificates.paths();
        let mut events = FileEvents::near(paths.iter().map(PathBuf::as_path), PACE);
        // What has changed before it was watched.
        look(&certificates).await;
        loop {
            tokio::select! {
                () = certificates.changed.notified() => break,
                () = events.next() => look(&certificates).await,
            }
        }
    }
}

async fn look(certificates: &Certificates) {
    let mut waited = Duration::ZERO;
    while certificates.look(waited >= SETTLE) {
        tokio::time::sleep(PACE.quiet).await;
        waited += PACE.quiet;
    }
}

impl Certificates {
    fn paths(&self) -> Vec<PathBuf> {
        let in_force = self.in_force.borrow();
        let paths = in_force.sets.keys().flat_map(|files| files.paths());
        paths.map(|(_, path)| Path::to_owned(path)).collect()
    }
}
