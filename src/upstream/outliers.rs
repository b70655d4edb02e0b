//! Outlier detection of an upstream: what its attempts say, what the control tick finds, and who hears of it.

use tokio::time::Instant;

use crate::balance::endpoint::EndpointGuard;
use crate::balance::outliers::{Change, ChangeKind};
use crate::base::rng::Rng;
use crate::policy::outlier::Signal;

use super::Upstream;

impl Upstream {
    /// Takes in what an attempt says of its endpoint. On a worker.
    pub fn note(&self, guard: &EndpointGuard, signal: Signal, now: Instant, rng: &mut Rng) {
        guard.endpoint().learn_reach(signal);
        let Some(outliers) = &self.outliers else { return };
        let endpoints = self.endpoints();
        if let Some(change) = outliers.note(&endpoints, guard, signal, now, rng) {
            drop(endpoints);
            self.announce(&change);
        }
    }

    /// Takes ejections back that may not stay. On the control thread.
    pub(super) fn relieve(&self, now: Instant) {
        let Some(outliers) = &self.outliers else { return };
        let mut changes = Vec::new();
        outliers.relieve(&self.endpoints(), now, &mut changes);
        changes.iter().for_each(|change| self.announce(change));
    }

    /// Compares the endpoints' success rates of the last interval, and forgives. On the control thread, once in
    /// [`crate::policy::outlier::INTERVAL`].
    pub fn judge(&self, now: Instant, rng: &mut Rng) {
        let Some(outliers) = &self.outliers else { return };
        let mut changes = Vec::new();
        outliers.judge(&self.endpoints(), now, rng, &mut changes);
        changes.iter().for_each(|change| self.announce(change));
    }

    /// A line for each endpoint that leaves traffic or returns: an ejection lasts a second at least, so they are few.
    fn announce(&self, change: &Change) {
        let enforced = self.outliers.as_ref().is_some_and(|outliers| outliers.policy().enforce);
        let (upstream, endpoint) = (&*self.name, &change.endpoint.address);
        match change.what {
            ChangeKind::Ejected { cause, time, times } => {
                self.metrics.eject(cause as usize);
                let seconds = time.as_secs_f64();
                let reason = cause.word();
                tracing::warn!(%upstream, %endpoint, reason, times, seconds, enforced, "endpoint ejected");
            }
            ChangeKind::Returned => {
                tracing::info!(%upstream, %endpoint, enforced, "endpoint returned: its probe succeeded");
            }
            ChangeKind::Relieved => {
                tracing::info!(%upstream, %endpoint, enforced, "endpoint returned: too few are left without it");
            }
        }
    }
}
