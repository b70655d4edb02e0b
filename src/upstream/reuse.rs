//! Kept HTTP/1 connections, as far as their endpoint is trusted with another request on them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::net::Http1;
use crate::policy::reuse::{Cover, Reuse};

use super::Upstream;
use super::connection::Place;
use super::local::LocalUpstream;
use super::pool::EndpointPool;

/// Whether a request may go on a kept HTTP/1 connection, which its peer may be closing just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayReuse {
    /// It is sent again because of such an end already.
    No,
    /// It would not be sent again.
    Once,
    /// It would be sent again, from the budget.
    Repeatable,
}

/// A kept connection, with what counts its use as at risk where it is not yet trusted.
pub(super) type Kept = (Http1, Place, Option<AtRisk>);

/// A use that the budget must be able to repair, until its response has begun, or its race is paid.
#[derive(Debug)]
pub(super) struct AtRisk(Arc<Upstream>);

impl AtRisk {
    /// Counts one, and says how many there were before. Of all workers: they share the budget's floor.
    fn begin(upstream: &Arc<Upstream>) -> (Self, u32) {
        let already = upstream.at_risk.fetch_add(1, Ordering::Relaxed);
        (Self(Arc::clone(upstream)), already)
    }
}

impl Drop for AtRisk {
    fn drop(&mut self) {
        self.0.at_risk.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LocalUpstream {
    /// A kept connection for a request, where there is one and it may be used.
    pub(super) fn kept(self: &Rc<Self>, pool: &EndpointPool, may: MayReuse) -> Option<Kept> {
        if may == MayReuse::No || !pool.has_kept() {
            return None;
        }
        let now = Instant::now();
        let repeatable = may == MayReuse::Repeatable;
        let mut risk = None;
        let verdict = pool.trust().ask(now, repeatable, |alone| {
            let budget = self.budget();
            // Counted before it is looked at: two workers must not both find room for the last.
            let (begun, already) = AtRisk::begin(&self.upstream);
            risk = Some(begun);
            // Where nothing is ever repaired, nothing needs cover.
            let available = if budget.is_none() { f64::MAX } else { budget.available(now) };
            Cover::of(available, already, alone)
        });
        match verdict {
            Reuse::No => return None,
            Reuse::Free => risk = None,
            Reuse::AtRisk => {}
        }
        let (connection, place) = pool.checkout(&self.upstream.policy.pool, now)?;
        Some((connection, place, risk))
    }
}
