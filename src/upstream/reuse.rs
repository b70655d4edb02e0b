//! Kept HTTP/1 connections, as far as their endpoint is trusted with another request on them.

use std::rc::Rc;

use tokio::time::Instant;

use crate::net::Http1;
use crate::policy::reuse::Reuse;

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

/// A use that the budget must be able to repair, until its response has begun.
#[derive(Debug)]
pub(super) struct AtRisk(Rc<LocalUpstream>);

impl AtRisk {
    fn begin(local: &Rc<LocalUpstream>) -> Self {
        local.at_risk.set(local.at_risk.get() + 1);
        Self(Rc::clone(local))
    }
}

impl Drop for AtRisk {
    fn drop(&mut self) {
        self.0.at_risk.set(self.0.at_risk.get().saturating_sub(1));
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
        let verdict = pool.trust().ask(now, repeatable, self.at_risk.get(), |uses| {
            let budget = self.budget();
            // Where nothing is ever repaired, nothing needs cover.
            budget.is_none() || budget.available(now) >= f64::from(uses)
        });
        let risk = match verdict {
            Reuse::No => return None,
            Reuse::Free => None,
            Reuse::AtRisk => Some(AtRisk::begin(self)),
        };
        let (connection, place) = pool.checkout(&self.upstream.policy.pool, now)?;
        Some((connection, place, risk))
    }
}
