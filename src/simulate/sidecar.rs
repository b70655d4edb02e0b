//! A request's way through a sidecar, step by step as `proxy::forward` and `proxy::attempt` go: a place, an endpoint, an
//! attempt, what is learned from its end, and whether there is another.
//!
//! The decisions are made by the same types as in production; only waiting, connections and wires are imitated.

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::balance::Tried;
use crate::base::error::{Reason, RetrySafety};
use crate::policy::classify::{self, Outcome, http_status};
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange};
use crate::policy::limits::Permit;
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState};

use super::events::{Line, What};
use super::faults::nanos;
use super::record::Ended;
use super::slab::Id;
use super::world::{Answer, Attempt, From, Request, World, number};

/// How an attempt ended: what is decided by, and why, where there is no answer.
#[derive(Debug, Clone, Copy)]
struct End {
    end: AttemptEnd,
    reason: Option<Reason>,
}

impl World {
    /// A request comes to a sidecar.
    pub(super) fn begin(&mut self, from: From, parent: Option<Id>) {
        let now = self.instant();
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let timeout = sidecar.route().timeout;
        let deadline = Deadline::new(now, timeout, &CallerTimeout::default(), Exchange::Http);
        sidecar.workers[from.worker].budget.deposit(now);
        let request = self.requests.insert(Request {
            from,
            started: self.now,
            deadline,
            tried: Tried::new(),
            attempts: 0,
            resent_once: false,
            may_have_run: false,
            parent,
            pending: None,
            waits_until: 0,
        });
        self.proceed(request);
    }

    /// The head of the loop of attempts.
    pub(super) fn proceed(&mut self, id: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get(id) else { return };
        let from = request.from;
        if request.deadline.expired(now) {
            let reason =
                if request.attempts == 0 { Reason::DeadlineExpired } else { Reason::Timeout };
            return self.fail(id, reason);
        }
        // A place first: what waits in our own queue is no concern of the endpoint's.
        let sidecar = &self.hops[from.hop].sidecars[from.sidecar];
        let others_wait = !sidecar.workers[from.worker].queue.is_empty();
        let permit = if others_wait { None } else { sidecar.upstream.limits.try_in_flight() };
        match permit {
            Some(permit) => self.attempt(id, permit, now),
            None => self.wait(id, now),
        }
    }

    /// Waits for a place as long as the upstream's `queue` and the deadline allow.
    fn wait(&mut self, id: Id, now: Instant) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let queue = sidecar.upstream.policy.queue;
        let pending = if queue.is_zero() { None } else { sidecar.upstream.limits.try_pending() };
        let Some(pending) = pending else { return self.fail(id, Reason::LimitReached) };
        request.pending = Some(pending);
        sidecar.workers[from.worker].queue.push_back(id);
        let until = now + queue;
        let until = request.deadline.overall.map_or(until, |deadline| deadline.min(until));
        let at = nanos(until.saturating_duration_since(self.base));
        request.waits_until = at;
        self.waiting += 1;
        self.events.timer(Line::Queue, at, What::WaitedEnough(id));
    }

    /// Waiting is over without a place.
    pub(super) fn waited_enough(&mut self, id: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get_mut(id) else { return };
        if request.pending.is_none() || request.waits_until != self.now {
            // The timer of a wait that has ended.
            return;
        }
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let expired = request.deadline.expired(now);
        request.pending = None;
        self.waiting -= 1;
        sidecar.workers[from.worker].queue.retain(|waiting| *waiting != id);
        self.fail(id, if expired { Reason::Timeout } else { Reason::QueueTimeout });
    }

    /// Gives up to `most` of those who wait at a worker the places that are free.
    pub(super) fn wake(&mut self, from: From, most: usize) {
        for _ in 0..most {
            let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
            let Some(first) = sidecar.workers[from.worker].queue.front().copied() else { return };
            let Some(permit) = sidecar.upstream.limits.try_in_flight() else { return };
            sidecar.workers[from.worker].queue.pop_front();
            self.waiting -= 1;
            if let Some(request) = self.requests.get_mut(first) {
                request.pending = None;
            }
            let now = self.instant();
            self.attempt(first, permit, now);
        }
    }

    /// Picks an endpoint and sends the request to it.
    fn attempt(&mut self, id: Id, permit: Permit, now: Instant) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let endpoints = sidecar.upstream.endpoints();
        let picked = sidecar.upstream.balancer.pick(
            &endpoints,
            &request.tried,
            now,
            &mut self.chance.policy,
        );
        let Some(endpoint) = picked else {
            let reason = sidecar.upstream.nothing_to_pick().reason;
            drop(endpoints);
            return self.fail(id, reason);
        };
        request.tried.note(endpoint.id);
        request.attempts += 1;
        let server = number(&endpoint.address);
        let guard = endpoint.start(now);
        let connect_timeout = nanos(sidecar.upstream.connect_timeout(endpoint));
        drop(endpoints);
        let kept = nanos(sidecar.upstream.policy.pool.kept());
        let bound = request.deadline.of_attempt(sidecar.route().retry.per_try, now);
        let idle = sidecar.route().idle.and_then(|idle| now.checked_add(idle));
        let life = self.hops[from.hop].servers[server].life;
        let pool =
            &mut self.hops[from.hop].sidecars[from.sidecar].workers[from.worker].pools[server];
        if pool.life != life {
            // The peer has closed them, and the sidecar has seen it.
            pool.idle.clear();
            pool.life = life;
        }
        let reused = !request.resent_once
            && pool.idle.pop().is_some_and(|since| {
                // All others have been unused for longer.
                let fresh = self.now - since < kept;
                if !fresh {
                    pool.idle.clear();
                }
                fresh
            });
        let attempt = self.attempts.insert(Attempt {
            request: id,
            guard,
            _permit: permit,
            server,
            life,
            sent: reused,
            reused,
            started: self.now,
            answer: Answer::None,
        });
        self.record_attempt(from.hop);
        self.start_timer(attempt, bound.into_iter().chain(idle).min());
        let hop = &self.hops[from.hop];
        if reused {
            self.send(from.hop, server, attempt);
        } else {
            let unreachable = hop.servers[server].condition.unreachable;
            let takes = if unreachable { connect_timeout } else { hop.rtt };
            self.events.at(self.now + takes, What::Connected(attempt));
        }
    }

    fn record_attempt(&mut self, hop: usize) {
        self.record.first_hop += u64::from(hop == 0);
        if hop == self.last_hop() {
            self.record.attempt(self.now);
        }
    }

    fn send(&mut self, hop: usize, server: usize, attempt: Id) {
        let at = self.now + self.hops[hop].rtt / 2;
        #[expect(clippy::cast_possible_truncation, reason = "at most 5 hops of 1000 endpoints")]
        let what = What::Reached { hop: hop as u8, server: server as u16, attempt };
        self.events.at(at, what);
    }

    /// A connection stands, was refused, or took too long.
    pub(super) fn connected(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let Some(request) = self.requests.get(attempt.request) else { return };
        let from = request.from;
        let server = &self.hops[from.hop].servers[attempt.server];
        let is = server.condition;
        let upstream = &self.hops[from.hop].sidecars[from.sidecar].upstream;
        let timeout = nanos(upstream.connect_timeout(attempt.guard.endpoint()));
        let left = (attempt.started + timeout).saturating_sub(self.now);
        if is.unreachable && left > 0 {
            // The network broke while it was being made.
            return self.events.at(self.now + left, What::Connected(id));
        }
        if is.unreachable || !is.up || left == 0 {
            let reason = Some(Reason::ConnectFailed);
            return self.ended(id, End { end: AttemptEnd::NotSent, reason });
        }
        attempt.life = server.life;
        attempt.sent = true;
        let index = attempt.server;
        self.send(from.hop, index, id);
    }

    /// An answer, or the end of the connection, comes back.
    pub(super) fn answered(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get(id) else { return };
        let end = match attempt.answer {
            Answer::None => return,
            Answer::Status(status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                End { end: AttemptEnd::Response { status, grpc_status: None }, reason: None }
            }
            Answer::Reset if attempt.reused => {
                End { end: AttemptEnd::KeepAliveRace, reason: Some(Reason::UpstreamClosed) }
            }
            Answer::Reset => End { end: AttemptEnd::Reset, reason: Some(Reason::UpstreamReset) },
        };
        self.ended(id, end);
    }

    /// An attempt has taken too long.
    pub(super) fn overdue(&mut self, id: Id) {
        let now = self.instant();
        let Some(attempt) = self.attempts.get(id) else { return };
        let Some(request) = self.requests.get(attempt.request) else { return };
        let route = self.hops[request.from.hop].sidecars[request.from.sidecar].route();
        let per_try = route.retry.per_try.map(nanos);
        let end = if request.deadline.expired(now) {
            End { end: AttemptEnd::Final, reason: Some(Reason::Timeout) }
        } else if per_try.is_none_or(|per_try| self.now < attempt.started + per_try) {
            End { end: AttemptEnd::Final, reason: Some(Reason::StreamIdle) }
        } else if attempt.sent {
            End { end: AttemptEnd::PerTryTimeout, reason: Some(Reason::PerTryTimeout) }
        } else {
            End { end: AttemptEnd::NotSent, reason: Some(Reason::ConnectFailed) }
        };
        self.ended(id, end);
    }

    /// What is learned from an attempt, and what comes next.
    fn ended(&mut self, id: Id, how: End) {
        let now = self.instant();
        let Some(attempt) = self.attempts.remove(id) else { return };
        settle(&attempt, how, now);
        let request = attempt.request;
        let Some(from) = self.requests.get(request).map(|request| request.from) else { return };
        if let AttemptEnd::Response { .. } = how.end {
            self.keep(from, &attempt);
        }
        // The place, and the endpoint's count, end with the attempt.
        drop(attempt);
        match self.decide(request, how, now) {
            RetryDecision::Stop(_) => self.stop(request, how),
            RetryDecision::Retry { wait } => {
                self.noted(request, how);
                self.events.at(self.now + nanos(wait), What::Again(request));
            }
            decision => {
                self.noted(request, how);
                if let (RetryDecision::ResendOnce, Some(request)) =
                    (decision, self.requests.get_mut(request))
                {
                    request.resent_once = true;
                }
                self.proceed(request);
            }
        }
        self.wake(from, 1);
    }

    /// Puts the attempt's connection back.
    fn keep(&mut self, from: From, attempt: &Attempt) {
        let hop = &mut self.hops[from.hop];
        let sidecar = &mut hop.sidecars[from.sidecar];
        let pool = &mut sidecar.workers[from.worker].pools[attempt.server];
        let lives = attempt.life == hop.servers[attempt.server].life && pool.life == attempt.life;
        if lives && pool.idle.len() < sidecar.upstream.policy.pool.max_idle {
            pool.idle.push(self.now);
        }
    }

    fn noted(&mut self, id: Id, how: End) {
        if let Some(request) = self.requests.get_mut(id) {
            request.may_have_run |= how.end.may_have_run();
        }
    }

    fn decide(&mut self, id: Id, how: End, now: Instant) -> RetryDecision {
        let Some(request) = self.requests.get(id) else { return RetryDecision::Stop(None) };
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let policy = &sidecar.route().retry;
        if how.reason.is_none() && !policy.when.lists(how.end) {
            return RetryDecision::Stop(None);
        }
        let state = RetryState {
            attempt: request.attempts,
            method: &Method::GET,
            idempotency_key: false,
            body: BodyReplay::Whole,
            resent_once: request.resent_once,
            committed: false,
            remaining: request.deadline.remaining(now),
            pushback: Pushback::None,
        };
        let decision = policy.decide(how.end, &state, &mut self.chance.policy);
        decision.paid_from(&mut sidecar.workers[from.worker].budget, now)
    }

    /// Passes on what there is.
    fn stop(&mut self, id: Id, how: End) {
        match (how.reason, how.end) {
            (Some(reason), _) => self.fail(id, reason),
            (None, AttemptEnd::Response { status, .. }) => self.finish(id, status.as_u16(), None),
            (None, _) => self.finish(id, 502, None),
        }
    }

    /// Answers with a failure of ours.
    fn fail(&mut self, id: Id, reason: Reason) {
        let ran = self.requests.get(id).is_some_and(|request| request.may_have_run);
        let reason = if ran && reason.safety() == RetrySafety::NotSent {
            Reason::RetriesExhausted
        } else {
            reason
        };
        self.finish(id, http_status(reason), Some(reason.word()));
    }

    fn finish(&mut self, id: Id, status: u16, reason: Option<&'static str>) {
        let Some(request) = self.requests.remove(id) else { return };
        match request.parent {
            Some(job) => self.done(job, status),
            None => {
                let how = Ended { ok: status < 500, status, reason };
                self.record.ended(request.started, self.now, how);
            }
        }
    }
}

/// Tells the endpoint's state how an attempt ended.
fn settle(attempt: &Attempt, how: End, now: Instant) {
    match (how.end, how.reason) {
        (AttemptEnd::Response { status, .. }, _) if classify::is_overload(status, None) => {
            attempt.guard.settle_overloaded(now);
        }
        (AttemptEnd::Response { status, .. }, _) => {
            attempt.guard.settle(Outcome::of_response(status, None), now);
        }
        (_, Some(reason)) => attempt.guard.settle(Outcome::of_reason(reason), now),
        (_, None) => {}
    }
}
