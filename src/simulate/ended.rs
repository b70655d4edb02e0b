//! After an attempt: what is learned, whether there is another, and what the caller gets, as `proxy::retries` has it.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::base::error::{Reason, RetrySafety};
use crate::policy::classify::{self, Outcome, http_status};
use crate::policy::outlier::Signal;
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState, SuppressedReason};
use crate::policy::retry_depth::RetryDepth;
use crate::upstream::Ended as Told;

use super::events::What;
use super::faults::nanos;
use super::record::Ended;
use super::slab::Id;
use super::state::{Attempt, From};
use super::world::World;

/// How an attempt ended: what is decided by, and why, where there is no answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) end: AttemptEnd,
    pub(super) reason: Option<Reason>,
    /// What the answer told of attempts below.
    pub(super) below: RetryDepth,
}

impl End {
    pub(super) fn failed(end: AttemptEnd, reason: Reason) -> Self {
        Self { end, reason: Some(reason), below: RetryDepth::default() }
    }
}

impl World {
    /// What is learned from an attempt, and what comes next.
    pub(super) fn ended(&mut self, id: Id, how: End) {
        let now = self.instant();
        let Some(mut attempt) = self.attempts.remove(id) else { return };
        settle(&attempt, how, now);
        let request = attempt.request;
        let Some(from) = self.requests.get(request).map(|request| request.from) else { return };
        let took = Duration::from_nanos(self.now - attempt.started);
        let told = match (how.end, how.reason) {
            (AttemptEnd::Response { status, .. }, _) => Told::of_response(status, None, took),
            (_, reason) => Told::of_reason(reason.unwrap_or(Reason::UpstreamProtocol), took),
        };
        let upstream = &self.hops[from.hop].sidecars[from.sidecar].upstream;
        // A connection that was closed while it rested says nothing, as in `proxy::attempt`.
        if how.end != AttemptEnd::KeepAliveRace {
            upstream.gate.settle(&mut attempt.pass, &told);
        }
        if let Some(signal) = signal(&attempt, how) {
            upstream.note(&attempt.guard, signal, now, self.chance.policy.get_mut());
        }
        if let AttemptEnd::Response { .. } = how.end {
            self.keep(from, &attempt);
        }
        // The place, and the endpoint's count, end with the attempt.
        drop(attempt);
        let Some(how) = self.raced(request, id, how) else { return self.wake(from, 1) };
        match self.decide(request, how, now) {
            RetryDecision::Stop(suppressed) => self.stop(request, how, suppressed),
            RetryDecision::Retry { wait } => {
                self.events.at(self.now + nanos(wait), What::Again(request));
            }
            _ => self.proceed(request),
        }
        // A second place where a race is over.
        self.wake(from, 2);
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

    fn decide(&mut self, id: Id, how: End, now: Instant) -> RetryDecision {
        let Some(request) = self.requests.get_mut(id) else { return RetryDecision::Stop(None) };
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
            above: request.above,
            below: how.below,
        };
        let decision = policy.decide(how.end, &state, self.chance.policy.get_mut());
        let budget = &mut sidecar.workers[from.worker].budget;
        let decision = sidecar.upstream.pay(decision, budget, now);
        if !matches!(decision, RetryDecision::Stop(_)) {
            request.resent_once |= decision == RetryDecision::ResendOnce;
            request.ran += u32::from(how.end.may_have_run());
            request.wanted = true;
        }
        decision
    }

    /// Passes on what there is. Where trying again would only repeat it, the caller is told how often it was tried.
    fn stop(&mut self, id: Id, how: End, suppressed: Option<SuppressedReason>) {
        let Some(request) = self.requests.get_mut(id) else { return };
        request.suppressed = suppressed;
        match (how.reason, how.end) {
            (None, AttemptEnd::Response { status, .. }) => {
                let last_word = suppressed.is_some_and(SuppressedReason::is_last_word);
                let depth =
                    if last_word { how.below.of_failure(request.attempts) } else { how.below };
                self.finish(id, status.as_u16(), None, depth);
            }
            (reason, _) => self.fail(id, reason.unwrap_or(Reason::UpstreamProtocol)),
        }
    }

    /// Answers with a failure of ours.
    pub(super) fn fail(&mut self, id: Id, reason: Reason) {
        let Some(request) = self.requests.get_mut(id) else { return };
        if std::mem::take(&mut request.wanted) {
            request.suppressed = Some(SuppressedReason::of_attempt_not_made(reason));
        }
        let reason = if request.ran > 0 && reason.safety() == RetrySafety::NotSent {
            Reason::RetriesExhausted
        } else {
            reason
        };
        let last_word = request.suppressed.is_some_and(SuppressedReason::is_last_word);
        let depth = if last_word || request.attempts > 1 {
            RetryDepth::default().of_failure(request.attempts)
        } else {
            RetryDepth::default()
        };
        self.finish(id, http_status(reason), Some(reason.word()), depth);
    }

    fn finish(&mut self, id: Id, status: u16, reason: Option<&'static str>, depth: RetryDepth) {
        let Some(request) = self.requests.remove(id) else { return };
        match request.parent {
            Some(job) => self.done(job, status, depth),
            None => {
                let refused = reason == Some(Reason::RateLimited.word());
                let how = Ended { ok: status < 500 && !refused, status, reason };
                self.record.ended(request.started, self.now, how);
            }
        }
    }
}

/// Tells the endpoint's state how an attempt ended.
fn settle(attempt: &Attempt, how: End, now: Instant) {
    let signal = match how.end {
        AttemptEnd::NotSent => Signal::LocalOrigin,
        _ => Signal::Success,
    };
    attempt.guard.endpoint().learn_reach(signal);
    match (how.end, how.reason) {
        (AttemptEnd::Response { status, .. }, _) if classify::is_overload(status, None) => {
            attempt.guard.settle_overloaded(now);
        }
        (AttemptEnd::Response { status, .. }, _) => {
            attempt.guard.settle(Outcome::of_response(status, None), now);
        }
        (AttemptEnd::KeepAliveRace, _) => {}
        (_, Some(reason)) => attempt.guard.settle(Outcome::of_reason(reason), now),
        (_, None) => {}
    }
}

/// What it says of the endpoint, as `proxy::signal` has it; `None`: nothing.
fn signal(attempt: &Attempt, how: End) -> Option<Signal> {
    let reason = match (how.end, how.reason) {
        (AttemptEnd::Response { status, .. }, _) => return Some(Signal::of_response(status, None)),
        // Servers close connections that nobody uses: no fault of theirs.
        (AttemptEnd::KeepAliveRace, _) => return None,
        (_, reason) => reason?,
    };
    Signal::of_reason(reason, !attempt.sent)
}
