//! What a provider's task says to the world: sets, counts, and one line of the log for each change of standing.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

#[cfg(feature = "xds")]
use super::AdvisedBalance;
#[cfg(feature = "xds")]
use super::last_good::Trouble;
use super::last_good::Verdict;
use super::{Discovered, ProviderStatus, Standing};

/// The sending side of a subscription.
#[derive(Debug)]
pub(super) struct Publisher {
    source: Arc<str>,
    sender: watch::Sender<Discovered>,
    status: Arc<ProviderStatus>,
}

impl Publisher {
    pub(super) fn new(
        source: Arc<str>,
        sender: watch::Sender<Discovered>,
        status: Arc<ProviderStatus>,
    ) -> Self {
        Self { source, sender, status }
    }

    /// The source has been looked at, or has said of itself, that the last good set still is what it was: an unchanged file,
    /// a heartbeat, a long poll that ended without a change.
    pub(super) fn still_good(&self, now: Instant) {
        self.status.record_success(now);
    }

    /// Counts what happened, logs it where it is not what happened last time too, and publishes the set if there is one.
    pub(super) fn take(&self, verdict: Verdict, now: Instant) {
        let Verdict { publish, trouble, standing } = verdict;
        if matches!(standing, Standing::Fresh | Standing::Empty) {
            self.status.record_success(now);
        }
        self.log(standing, trouble.as_ref().map(|trouble| trouble.text.as_str()));
        if let Some(trouble) = trouble {
            self.status.record_error(trouble.kind, trouble.text, now);
        }
        if let Some(endpoints) = publish {
            self.status.record_update();
            let source = Arc::clone(&self.source);
            self.sender.send_replace(Discovered {
                endpoints,
                source,
                updated: now,
                answered: true,
            });
        }
    }

    /// Says how the endpoints are to be balanced. Who follows the sets looks again.
    #[cfg(feature = "xds")]
    pub(super) fn advise(&self, advice: AdvisedBalance) {
        if self.status.advise(advice) != Some(advice) {
            info!(source = &*self.source, ?advice, "the source says how to balance");
            self.sender.send_modify(|_| {});
        }
    }

    /// Counts what is wrong beside the endpoints: the set stands as it did.
    #[cfg(feature = "xds")]
    pub(super) fn count(&self, trouble: Trouble, now: Instant) {
        self.status.record_error(trouble.kind, trouble.text, now);
    }

    fn log(&self, standing: Standing, error: Option<&str>) {
        let before = self.status.set_standing(standing);
        if before == standing {
            return;
        }
        let source = &*self.source;
        match standing {
            Standing::Fresh if before == Standing::Unasked => {}
            Standing::Fresh | Standing::Unasked => info!(source, "discovery works again"),
            Standing::Stale => warn!(source, error, "discovery fails, the last good set is kept"),
            Standing::Empty => warn!(source, error, "discovery says that there are no endpoints"),
            Standing::Failing => warn!(source, error, "discovery fails, no endpoints are known"),
        }
    }
}
