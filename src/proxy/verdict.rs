//! What an attempt amounts to once its answer has begun, and when that is known.
//!
//! One attempt has one outcome: for the breaker, the throttle, outlier detection, the endpoint's estimate, and
//! `outrigger_upstream_attempts_total` alike.
//!
//! - A head that says how it went is judged at once: 5xx, 429, a gRPC status (held back trailers included), an upgrade, a
//!   stream of events.
//! - Any other answer is judged at its end. A gRPC call says in its trailers how it went, behind a head that says 200; and an
//!   answer that the upstream breaks off is a failure, however good it began.
//! - One that goes on for longer than [`STREAM`] is a stream, and what its head says stands: nobody waits for hours to learn
//!   that an endpoint answers. Where one request probes an endpoint or an upstream, nobody else is let in meanwhile; so its
//!   answer is waited for no longer than [`PROBE`], nor than half of the breaker's `open_for`, after which it would open again.
//! - A caller that leaves in between says nothing of a gRPC call; of another answer the head had said enough.
//!
//! Latency is the time to the head, whenever it is counted: a long body is no slow endpoint. Envoy judges at the head
//! (and counts a call that fails in its trailers as a success), linkerd2-proxy at the end.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::balance::endpoint::EndpointGuard;
use crate::base::error::Reason;
use crate::metrics::AttemptOutcome;
use crate::policy::classify::{self, Outcome};
use crate::policy::outlier::Signal;
use crate::upstream::{Ended, Slot};

use super::attempt::outcome_word;
use super::worker::Worker;

/// How long an outcome waits for the end of an answer at most: as long as a request may take unless the file says otherwise.
const STREAM: Duration = Duration::from_secs(15);

/// The same of a probe: a call that fails behind its head does so at once, or later than others can wait.
const PROBE: Duration = Duration::from_secs(1);

/// An attempt whose answer has begun: what it holds until the upstream has said all, and its outcome until that is known.
#[derive(Debug)]
pub(super) struct Held {
    worker: Rc<Worker>,
    guard: Option<EndpointGuard>,
    slot: Slot,
    /// From its start to the answer's head.
    took: Duration,
    /// Of an answer that is not judged yet.
    unjudged: Option<Head>,
}

/// A head that leaves open how it went.
#[derive(Debug, Clone, Copy)]
struct Head {
    status: StatusCode,
    grpc: bool,
}

impl Held {
    /// Of an attempt whose head has come after it `took` so long.
    pub(super) fn new(
        worker: &Rc<Worker>,
        guard: Option<EndpointGuard>,
        slot: Slot,
        took: Duration,
    ) -> Self {
        Self { worker: Rc::clone(worker), guard, slot, took, unjudged: None }
    }

    /// Judges the head, or leaves that to the end. `grpc_status`: what a call has said already.
    pub(super) fn head(
        &mut self,
        status: StatusCode,
        grpc: bool,
        grpc_status: Option<u8>,
        now: Instant,
    ) {
        if let Some(guard) = &mut self.guard {
            guard.answered(now);
        }
        let last_word = grpc_status.is_some()
            || status.is_informational()
            || classify::is_overload(status, None)
            || Outcome::of_response(status, None) != Outcome::Success;
        if last_word {
            self.judge(status, grpc_status, now);
        } else {
            self.unjudged = Some(Head { status, grpc });
        }
    }

    /// When the answer, whose head has come `now`, is taken for a stream. `None`: it is judged, or cut off, before.
    pub(super) fn stream_at(&self, now: Instant, cut_at: Option<Instant>) -> Option<Instant> {
        self.unjudged?;
        let mut patience = STREAM;
        if self.guard.as_ref().is_some_and(EndpointGuard::is_probe) {
            patience = PROBE;
        }
        if let Some(open_for) = self.slot.probes_after() {
            patience = PROBE.min(open_for / 2);
        }
        let cut_before = cut_at.is_some_and(|at| at.saturating_duration_since(now) <= patience);
        if cut_before { None } else { now.checked_add(patience) }
    }

    /// The answer is whole, with `grpc_status` where that stood in its trailers.
    pub(super) fn whole(&mut self, grpc_status: Option<u8>, now: Instant) {
        if let Some(head) = self.unjudged.take() {
            self.judge(head.status, grpc_status.filter(|_| head.grpc), now);
        }
    }

    /// The answer is a stream: what its head says stands.
    pub(super) fn goes_on(&mut self, now: Instant) {
        self.whole(None, now);
    }

    /// The answer has ended early, for `reason`.
    pub(super) fn broken(&mut self, reason: Reason, now: Instant) {
        if self.unjudged.take().is_none() {
            return;
        }
        let upstream = self.slot.upstream();
        upstream.metrics.attempt(outcome_word(reason));
        if let Some(guard) = &self.guard {
            guard.settle(Outcome::of_reason(reason), now);
            if let Some(signal) = Signal::of_reason(reason, false) {
                upstream.note(guard, signal, now, &mut self.worker.rng.borrow_mut());
            }
        }
        self.slot.settle(&Ended::of_reason(reason, self.took));
    }

    fn judge(&mut self, status: StatusCode, grpc_status: Option<u8>, now: Instant) {
        let outcome = Outcome::of_response(status, grpc_status);
        let upstream = self.slot.upstream();
        if let Some(guard) = &self.guard {
            if classify::is_overload(status, grpc_status) {
                guard.settle_overloaded(now);
            } else {
                guard.settle(outcome, now);
            }
            let signal = Signal::of_response(status, grpc_status);
            upstream.note(guard, signal, now, &mut self.worker.rng.borrow_mut());
        }
        upstream.metrics.attempt(match outcome {
            Outcome::Failure => AttemptOutcome::Failure,
            _ => AttemptOutcome::Success,
        });
        self.slot.settle(&Ended::of_response(status, grpc_status, self.took));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.unjudged {
            None => {}
            Some(head) if head.grpc => self.broken(Reason::ClientGone, Instant::now()),
            Some(_) => self.whole(None, Instant::now()),
        }
    }
}
