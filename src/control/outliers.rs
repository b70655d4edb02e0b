//! The endpoints on the control tick: who is an outlier, whose slow start is over, who may stay ejected.

use std::time::Duration;

use tokio::time::Instant;

use super::Upstreams;
use crate::base::rng::Rng;
use crate::policy::outlier::INTERVAL;

/// How late a verdict may be that nobody has asked for: an end of slow start, an ejection that has become one too many.
const REVIEW: Duration = Duration::from_secs(1);

/// When the endpoints were looked at last.
#[derive(Debug)]
pub(super) struct Watch {
    reviewed: Instant,
    judged: Instant,
    rng: Rng,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self { reviewed: now, judged: now, rng: Rng::from_entropy() }
    }

    /// Looks at the endpoints of every upstream, where it is time to.
    pub(super) fn look(&mut self, upstreams: &Upstreams, now: Instant) {
        if now.saturating_duration_since(self.reviewed) < REVIEW {
            return;
        }
        self.reviewed = now;
        let judge = now.saturating_duration_since(self.judged) >= INTERVAL;
        if judge {
            self.judged = now;
        }
        for managed in upstreams.iter() {
            if judge {
                managed.upstream.judge(now, &mut self.rng);
            }
            managed.upstream.review(now);
        }
    }
}
