//! Getting in at an upstream: past its gate, then one of its places, at once or after waiting.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::error::{ProxyError, Reason};
use crate::base::rng::Rng;
use crate::io::tick::Tick;
use crate::metrics::GaugeGuard;
use crate::policy::breaker::Pass;
use crate::policy::limits::Permit;

use super::Upstream;
use super::gate::Ended;
use super::local::LocalUpstream;
use super::queue::{Queue, Unserved};

/// A place at the upstream; dropping it lets the next request in.
#[derive(Debug)]
pub struct Slot {
    /// Taken out by the drop, before the next in line is woken.
    permit: Option<Permit>,
    pass: Pass,
    local: Rc<LocalUpstream>,
    _in_flight: GaugeGuard,
}

impl Slot {
    /// Says how the attempt ended, once, when its answer's head has come or none will. Without a word it was cancelled.
    pub fn settle(&mut self, ended: &Ended) {
        self.local.upstream.gate.settle(&mut self.pass, ended);
    }

    /// Where the breaker has let it in to see whether the upstream has recovered: its `open_for`.
    pub fn probes_after(&self) -> Option<Duration> {
        if self.pass.is_of_recovery() { self.local.upstream.gate.open_for() } else { None }
    }

    /// Where it is a place at.
    pub fn upstream(&self) -> &Upstream {
        &self.local.upstream
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permit = None;
        self.local.slots.wake_first();
        // Its connection has been given back before it, or its stream ended.
        self.local.connections.wake_first();
    }
}

impl LocalUpstream {
    /// A place for one attempt; `None` where it has to be waited for ([`LocalUpstream::wait_to_enter`]).
    ///
    /// # Errors
    /// `breaker_open` or `overload`: the upstream is not to be asked.
    pub fn try_enter(self: &Rc<Self>, rng: &RefCell<Rng>) -> Result<Option<Slot>, ProxyError> {
        let pass = self.upstream.gate.admit(rng).map_err(|reason| self.refused(reason))?;
        let take = || self.upstream.limits.try_in_flight();
        Ok(self.slots.unless_others_wait(take).map(|permit| self.slot(permit, pass)))
    }

    fn slot(self: &Rc<Self>, permit: Permit, pass: Pass) -> Slot {
        let gauge = GaugeGuard::of(&self.upstream.metrics.in_flight);
        Slot { permit: Some(permit), pass, local: Rc::clone(self), _in_flight: gauge }
    }

    /// Waits for a place for one attempt as long as the upstream's `queue` and `deadline` allow, after
    /// [`LocalUpstream::try_enter`] has found none.
    ///
    /// # Errors
    /// `limit_reached` when too many wait, or so many that its turn would come too late; `queue_timeout`; `timeout` when the
    /// deadline comes first; `breaker_open` when the breaker opens meanwhile.
    pub async fn wait_to_enter(
        self: &Rc<Self>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Slot, ProxyError> {
        let take = || match self.upstream.gate.pass() {
            Ok(pass) => self.upstream.limits.try_in_flight().map(|permit| Ok((permit, pass))),
            Err(reason) => Some(Err(reason)),
        };
        let (permit, pass) = self
            .wait(&self.slots, tick, deadline, take)
            .await?
            .map_err(|reason| self.refused(reason))?;
        Ok(self.slot(permit, pass))
    }

    /// Counts an attempt that is not made, and says why.
    fn refused(&self, reason: Reason) -> ProxyError {
        self.upstream.gate.reject(reason);
        let name = &self.upstream.name;
        let detail = match reason {
            Reason::BreakerOpen => format!("the breaker of upstream {name} is open"),
            Reason::Overload => format!("upstream {name} is overloaded and spared some requests"),
            Reason::LimitReached => format!("upstream {name} has reached its limits"),
            Reason::Timeout => {
                format!("the deadline passed while waiting for a place at upstream {name}")
            }
            _ => format!("waited too long for a place at upstream {name}"),
        };
        ProxyError::new(reason, detail)
    }

    /// Waits in `queue` until `take` finds something.
    pub(super) async fn wait<T>(
        &self,
        queue: &Queue,
        tick: &Tick,
        deadline: Option<Instant>,
        take: impl Fn() -> Option<T>,
    ) -> Result<T, ProxyError> {
        let full = || self.refused(Reason::LimitReached);
        if self.upstream.policy.queue.is_zero() {
            return Err(full());
        }
        let _pending = self.upstream.limits.try_pending().ok_or_else(full)?;
        let _gauge = GaugeGuard::of(&self.upstream.metrics.pending);
        let now = Instant::now();
        let queue_ends = now + self.upstream.policy.queue;
        let until = deadline.map_or(queue_ends, |deadline| deadline.min(queue_ends));
        queue.wait(tick, now, until, take).await.map_err(|unserved| {
            self.refused(match unserved {
                Unserved::Hopeless => Reason::LimitReached,
                Unserved::Late if until < queue_ends => Reason::Timeout,
                Unserved::Late => Reason::QueueTimeout,
            })
        })
    }
}
