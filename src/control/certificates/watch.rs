//! Noticing that a certificate's file has changed: its folder is watched, as `control/watch.rs` does it for the configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::control::watch::{DEBOUNCE, POLL, may_change};

use super::{Certificates, SETTLE};

/// Watches for ever. The control thread owns the task that runs this.
pub(in crate::control) async fn run(certificates: Rc<Certificates>) {
    loop {
        let (changed, mut events) = mpsc::channel(1);
        let _watcher = watcher(&certificates.folders(), changed);
        // What has changed before it was watched.
        look(&certificates).await;
        loop {
            let noticed = async {
                if events.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = certificates.changed.notified() => break,
                () = noticed => {
                    tokio::time::sleep(DEBOUNCE).await;
                    while events.try_recv().is_ok() {}
                }
                () = tokio::time::sleep(POLL) => {}
            }
            look(&certificates).await;
        }
    }
}

async fn look(certificates: &Certificates) {
    let mut waited = Duration::ZERO;
    while certificates.look(waited >= SETTLE) {
        tokio::time::sleep(DEBOUNCE).await;
        waited += DEBOUNCE;
    }
}

impl Certificates {
    fn folders(&self) -> BTreeSet<PathBuf> {
        let in_force = self.in_force.borrow();
        let paths = in_force.sets.keys().flat_map(|files| files.paths());
        paths.filter_map(|(_, path)| path.parent().map(Path::to_owned)).collect()
    }
}

/// One for all folders: the system grants each user 128 of them.
fn watcher(folders: &BTreeSet<PathBuf>, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    if folders.is_empty() {
        return None;
    }
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !may_change(event.kind)) {
            return;
        }
        let _noted_already = changed.try_send(());
    });
    let watcher = watcher.and_then(|mut watcher| {
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "no notifications of changed certificates: looking every 10 s");
    }
    watcher.ok()
}
