//! One try: a place, an endpoint, a connection, the head of a response.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::endpoint::{Endpoint, EndpointGuard};
use crate::balance::{Key, Picked, Tried};
use crate::base::error::{ProxyError, Reason};
use crate::io::request_body::{BodySource, RequestBody};
use crate::metrics::{AttemptOutcome, UpstreamMetrics};
use crate::net::{BrokenBody, RequestHead, SendFailure, UpstreamResponse};
use crate::policy::classify::{Outcome, grpc_status};
use crate::policy::deadline::Deadline;
use crate::policy::retry::AttemptEnd;
use crate::upstream::{Connection, Ended, LocalUpstream, MayReuse, Slot};

use super::flow::Flow;
use super::hold::{self, Behind};
use super::original;
use super::retries::SoFar;
use super::signal::Stage;
use super::subject::Subject;
use super::verdict::Held;
use super::worker::Worker;

/// What does not change between the attempts of a request.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) local: &'a Rc<LocalUpstream>,
    /// HTTP/2 is spoken upstream.
    pub(super) http2: bool,
    /// It would be sent again after the keep-alive race.
    pub(super) repeatable: bool,
    /// A gRPC call that is sent again for some statuses: its head is held back, see [`super::hold`].
    pub(super) hold: bool,
    /// What the request is hashed by.
    pub(super) key: Option<Key>,
    pub(super) deadline: Deadline,
    pub(super) per_try: Option<Duration>,
    /// Nothing may move for this long.
    pub(super) idle: Option<Duration>,
    /// Whose movement is looked at.
    pub(super) body: Option<&'a BodySource>,
    /// Where the connection was going before it was redirected here.
    pub(super) original: Option<SocketAddr>,
}

/// How far an attempt has come, and what it holds.
#[derive(Debug, Default)]
struct Progress {
    connection: Option<Connection>,
    /// The request was handed to the connection.
    sent: bool,
    /// Which stood before this attempt.
    kept: bool,
}

/// An attempt without a response.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) end: AttemptEnd,
    pub(super) error: ProxyError,
    /// What it went on, kept until the next is decided: see `upstream::reuse`, a use stays at risk until it is paid.
    connection: Option<Connection>,
}

impl Failed {
    pub(super) fn new(end: AttemptEnd, error: ProxyError) -> Self {
        Self { end, error, connection: None }
    }
}

/// An attempt that is under way. A caller that leaves drops it: then the endpoint took at least this long.
struct Ongoing<'a> {
    guard: Option<EndpointGuard>,
    metrics: &'a UpstreamMetrics,
}

impl<'a> Ongoing<'a> {
    fn new(guard: EndpointGuard, metrics: &'a UpstreamMetrics) -> Self {
        Self { guard: Some(guard), metrics }
    }

    /// It has ended by itself: its end is told by the one who knows it.
    fn end(mut self) -> Option<EndpointGuard> {
        self.guard.take()
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            self.metrics.attempt(AttemptOutcome::Cancelled);
            guard.settle(Outcome::Cancelled, Instant::now());
        }
    }
}

impl Plan<'_> {
    /// Chooses an endpoint that was not tried yet, as long as there is one.
    pub(super) fn pick(&self, tried: &mut Tried, now: Instant) -> Result<Picked, ProxyError> {
        let upstream = &self.local.upstream;
        if let Some(originals) = &upstream.originals {
            let to = self.original.ok_or_else(original::nowhere)?;
            return Ok(Picked::only(&originals.endpoint(to, now)));
        }
        let endpoints = upstream.endpoints();
        let rng = &mut self.worker.rng.borrow_mut();
        let picked = upstream.balancer.pick_for(self.key, &endpoints, tried, now, rng);
        let picked = picked.ok_or_else(|| upstream.nothing_to_pick())?;
        tried.note(picked.endpoint().id);
        upstream.count_zone(picked.endpoint());
        Ok(picked)
    }

    /// Makes one attempt at what was `picked`, at `start`, after those of `so_far`. What is held until the end of the
    /// response goes to the `subject`.
    pub(super) async fn attempt<S: Subject>(
        &self,
        mut slot: Slot,
        picked: &mut Picked,
        so_far: &SoFar,
        body: RequestBody,
        subject: &mut S,
        start: Instant,
    ) -> Result<UpstreamResponse, Failed> {
        let bound = self.deadline.of_attempt(self.per_try, start);
        let mut timer = self.worker.tick.timer(self.or_idle(bound, start));
        let ongoing = Ongoing::new(picked.start(start), &self.local.upstream.metrics);
        let endpoint = picked.endpoint();
        let mut progress = Progress::default();
        let (answered, now) = {
            let mut asking = pin!(self.ask(endpoint, so_far, body, subject, &mut progress));
            let mut moved = self.moved();
            loop {
                let answered = timer.limit(asking.as_mut()).await;
                let now = Instant::now();
                let idle = bound.is_none_or(|at| now < at);
                if answered.is_ok() || !idle || moved == self.moved() {
                    break (answered.map_err(|_| idle), now);
                }
                // The request's body is still on its way: the stream is not idle.
                moved = self.moved();
                timer.set(self.or_idle(bound, now));
            }
        };
        let took = now.saturating_duration_since(start);
        let stage = Stage::of(answered.is_err(), progress.sent, progress.kept);
        let mut answered =
            answered.unwrap_or_else(|idle| Err(self.timed_out(endpoint, progress.sent, idle, now)));
        let mut behind = Behind::Unknown;
        if self.hold
            && let Ok(response) = &mut answered
            && grpc_status(response.headers()).is_none()
        {
            timer.set(self.or_idle(bound, now));
            let open = self.body.is_some_and(|body| !body.is_complete());
            behind = hold::behind(response.body_mut(), &mut timer, open).await;
            if let Behind::Broken(error) = &behind {
                answered = Err(self.broken(endpoint, error));
            }
        }
        let metrics = &self.local.upstream.metrics;
        let guard = ongoing.end();
        match answered {
            Ok(response) => {
                metrics.duration.observe(took.as_secs_f64());
                let grpc = subject.is_grpc();
                let status = grpc.then(|| {
                    grpc_status(response.headers()).or_else(|| grpc_status(behind.trailers()?))
                });
                let status = status.flatten();
                let mut held = Held::new(self.worker, guard, slot, took);
                held.head(response.status(), grpc, status, now);
                let mut flow = Flow::new(timer, progress.connection, held);
                flow.read_already(behind);
                subject.answered(flow, status, now);
                Ok(response)
            }
            Err(mut failed) => {
                failed.connection = progress.connection;
                metrics.attempt(outcome_word(failed.error.reason));
                // A connection that was closed while it rested says nothing; the next attempt, on a fresh one, does.
                let outcome = match failed.end {
                    AttemptEnd::KeepAliveRace => Outcome::LocalFailure,
                    _ => Outcome::of_reason(failed.error.reason),
                };
                slot.settle(&Ended { outcome, ..Ended::of_reason(failed.error.reason, took) });
                if let Some(guard) = guard {
                    guard.settle(outcome, now);
                    let upstream = &self.local.upstream;
                    if let Some(signal) = failed.signal(stage, &upstream.limits) {
                        upstream.note(&guard, signal, now, &mut self.worker.rng.borrow_mut());
                    }
                }
                Err(failed)
            }
        }
    }

    /// `bound`, or when nothing has moved since `now` for too long.
    fn or_idle(&self, bound: Option<Instant>, now: Instant) -> Option<Instant> {
        let idle = self.idle.and_then(|idle| now.checked_add(idle));
        bound.into_iter().chain(idle).min()
    }

    /// Bytes of the request's body that have come.
    fn moved(&self) -> u64 {
        self.body.map_or(0, BodySource::received)
    }

    async fn ask<S: Subject>(
        &self,
        endpoint: &Arc<Endpoint>,
        so_far: &SoFar,
        body: RequestBody,
        subject: &mut S,
        progress: &mut Progress,
    ) -> Result<UpstreamResponse, Failed> {
        let (tick, deadline) = (&self.worker.tick, self.deadline.overall);
        let reuse = match self.repeatable {
            _ if so_far.resent_once => MayReuse::No,
            true => MayReuse::Repeatable,
            false => MayReuse::Once,
        };
        let connected = self.local.connect(endpoint, self.http2, reuse, tick, deadline).await;
        let connection = connected.map_err(|error| {
            let end = match error.reason {
                Reason::ConnectFailed => AttemptEnd::NotSent,
                _ => AttemptEnd::Final,
            };
            Failed::new(end, error)
        })?;
        progress.sent = true;
        let connection = progress.connection.insert(connection);
        let reused = connection.is_reused_http1();
        // HTTP/2's is shared: who finds it closed found one that others had made or used.
        progress.kept = reused || self.http2;
        let sent = connection.send(&self.head(subject, so_far), body).await;
        sent.map_err(|failure| self.not_answered(endpoint, &failure, reused))
    }

    /// The head as this attempt sends it.
    fn head<'a, S: Subject>(&self, subject: &'a mut S, so_far: &SoFar) -> RequestHead<'a> {
        let (fields, added) = subject.fields();
        so_far.tell(fields, added, &self.deadline, Instant::now());
        subject.head()
    }

    fn not_answered(&self, endpoint: &Endpoint, failure: &SendFailure, reused: bool) -> Failed {
        if let (SendFailure::PeerRefused(_), Some(tls)) = (failure, &self.local.upstream.tls) {
            tls.count_refused();
        }
        let (end, reason) = match failure {
            SendFailure::NotSent | SendFailure::PeerRefused(_) => {
                (AttemptEnd::NotSent, Reason::ConnectFailed)
            }
            SendFailure::Refused => (AttemptEnd::Refused, Reason::UpstreamRefused),
            SendFailure::Closed if reused => (AttemptEnd::KeepAliveRace, Reason::UpstreamClosed),
            SendFailure::Closed => (AttemptEnd::Reset, Reason::UpstreamClosed),
            SendFailure::Reset => (AttemptEnd::Reset, Reason::UpstreamReset),
            SendFailure::Protocol(_) => (AttemptEnd::Final, Reason::UpstreamProtocol),
            SendFailure::Body(error) => (AttemptEnd::Final, error.reason()),
        };
        Failed::new(end, ProxyError::new(reason, self.named(endpoint, &failure.to_string())))
    }

    /// The answer broke off before the caller has seen any of it.
    fn broken(&self, endpoint: &Endpoint, error: &BrokenBody) -> Failed {
        let text = "the upstream broke off before the first of its answer";
        let error = ProxyError::new(error.reason(), self.named(endpoint, text));
        Failed::new(AttemptEnd::Reset, error)
    }

    fn timed_out(&self, endpoint: &Endpoint, sent: bool, idle: bool, now: Instant) -> Failed {
        let (end, reason, text) = if self.deadline.expired(now) {
            (AttemptEnd::Final, Reason::Timeout, "no answer before the deadline")
        } else if idle {
            (AttemptEnd::Final, Reason::StreamIdle, "nothing moved for the route's idle time")
        } else if sent {
            (
                AttemptEnd::PerTryTimeout,
                Reason::PerTryTimeout,
                "no answer within the per-try timeout",
            )
        } else {
            (AttemptEnd::NotSent, Reason::ConnectFailed, "no connection within the per-try timeout")
        };
        Failed::new(end, ProxyError::new(reason, self.named(endpoint, text)))
    }

    fn named(&self, endpoint: &Endpoint, what: &str) -> String {
        format!("upstream {}, endpoint {}: {what}", self.local.upstream.name, endpoint.address)
    }
}

/// How an attempt that ended for `reason` is counted.
pub(super) fn outcome_word(reason: Reason) -> AttemptOutcome {
    match reason {
        Reason::ConnectFailed => AttemptOutcome::ConnectFailed,
        Reason::UpstreamRefused => AttemptOutcome::Refused,
        Reason::UpstreamClosed | Reason::UpstreamReset => AttemptOutcome::Reset,
        Reason::UpstreamProtocol => AttemptOutcome::Protocol,
        Reason::Timeout | Reason::PerTryTimeout | Reason::StreamIdle => AttemptOutcome::Timeout,
        _ => AttemptOutcome::Cancelled,
    }
}
