//! After an attempt: whether there is another, and what of all this is counted and told to other hops.

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::balance::Tried;
use crate::base::error::ProxyError;
use crate::io::request_body::{BodySource, Replay};
use crate::metrics::RetryCause;
use crate::net::UpstreamResponse;
use crate::policy::deadline::{self, Deadline};
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState, SuppressedReason};
use crate::policy::retry_depth::{ATTEMPTS, RetryDepth};
use crate::snapshot::Route;

use super::attempt::{Failed, Plan};
use super::exchange::Exchange;
use super::flow::Flow;

/// The attempts of a request so far.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    /// Where they went.
    pub(super) tried: Tried,
    /// One was sent again at once; what follows takes a fresh connection.
    pub(super) resent_once: bool,
    /// The caller's head has fields of ours or of a deadline.
    told: bool,
    /// Or the route may have set some.
    edited: bool,
    /// What it told of attempts above.
    above: RetryDepth,
    /// Those that may have run.
    ran: u32,
    /// Why there will be another one, until it begins.
    next: Option<RetryCause>,
}

impl SoFar {
    /// None yet.
    pub(super) fn new(exchange: &Exchange, route: &Route) -> Self {
        let told = exchange.fields.deadline;
        let headers = &exchange.head.headers;
        let above = if told { RetryDepth::read(headers) } else { RetryDepth::default() };
        Self { told, above, edited: !route.request_headers.is_empty(), ..Self::default() }
    }

    /// None, of a request that is sent beside another: whatever its head tells is of that one.
    pub(super) fn beside() -> Self {
        Self { told: true, ..Self::default() }
    }

    /// Counts the attempt that begins, where it is not the first.
    pub(super) fn begin(&mut self, plan: &Plan<'_>) {
        if let Some(cause) = self.next.take() {
            plan.local.upstream.metrics.retry(cause);
        }
    }

    /// Counts an attempt that was raced against the one that is decided over, where it may have run.
    pub(super) fn also_ran(&mut self, may_have_run: bool) {
        self.ran += u32::from(may_have_run);
    }

    /// Writes into the head of an attempt that starts `now` what the next hop should know: the time that is left, and
    /// which time this is that the request may run.
    ///
    /// The time is the request's, not the attempt's: `per_try` ends at the head of the answer, while the next hop cuts the
    /// body off as well; and an attempt that is given up is cancelled there anyway. `grpc-timeout` goes on where the caller
    /// sent one: a call without it may be a stream that is meant to stay open.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        added: &mut Vec<(HeaderName, HeaderValue)>,
        deadline: &Deadline,
        now: Instant,
    ) {
        let mut set = |name: HeaderName, value| match added.iter_mut().find(|(n, _)| *n == name) {
            Some((_, of_last_attempt)) => *of_last_attempt = value,
            None => added.push((name, value)),
        };
        if let Some(remaining) = deadline.remaining(now) {
            let millis = deadline::timeout_ms(remaining);
            if self.told {
                replace(headers, deadline::ENVOY_EXPECTED_MS, || millis.clone());
                replace(headers, deadline::GRPC_TIMEOUT, || deadline::grpc_timeout(remaining));
            }
            if self.told || self.edited {
                headers.remove(deadline::TIMEOUT_MS);
            }
            set(deadline::TIMEOUT_MS, millis);
        }
        if self.ran > 0 {
            headers.remove(ATTEMPTS);
            set(ATTEMPTS, self.above.of_next_attempt(self.ran).value());
        }
    }

    /// What to do after the attempt that has `ended`. Pays for it, and counts a retry that is wanted and not made.
    pub(super) fn decide(
        &mut self,
        plan: &Plan<'_>,
        exchange: &Exchange,
        route: &Route,
        body: &BodySource,
        ended: &Result<UpstreamResponse, Failed>,
    ) -> RetryDecision {
        let end = match ended {
            Ok(response) => AttemptEnd::Response {
                status: response.status(),
                grpc_status: exchange.grpc_status,
            },
            Err(failed) => failed.end,
        };
        if ended.is_ok() && !route.retry.when.lists(end) {
            return RetryDecision::Stop(None);
        }
        let now = Instant::now();
        let head = ended.as_ref().ok().map(UpstreamResponse::headers);
        let trailers = exchange.flow.as_deref().and_then(Flow::trailers);
        // What a call says about retries stands where its status does.
        let pushback = head
            .map(Pushback::read)
            .filter(|pushback| *pushback != Pushback::None)
            .or_else(|| trailers.map(Pushback::read))
            .unwrap_or_default();
        let state = RetryState {
            attempt: exchange.attempts,
            method: &exchange.head.method,
            idempotency_key: exchange.fields.idempotency_key,
            body: match body.replay() {
                Replay::Unsent => BodyReplay::Unsent,
                Replay::Kept => BodyReplay::Whole,
                Replay::TooLarge => BodyReplay::TooLarge,
            },
            resent_once: self.resent_once,
            committed: false,
            remaining: plan.deadline.remaining(now),
            pushback,
            above: self.above,
            below: head.map_or_else(RetryDepth::default, RetryDepth::read),
        };
        let decision = route.retry.decide(end, &state, &mut plan.worker.rng.borrow_mut());
        let decision = plan.local.upstream.pay(decision, &mut plan.local.budget(), now);
        match decision {
            RetryDecision::Stop(reason) => {
                if let Some(reason) = reason {
                    plan.local.upstream.metrics.suppress(reason.index());
                }
            }
            _ => {
                self.resent_once |= decision == RetryDecision::ResendOnce;
                self.ran += u32::from(end.may_have_run());
                self.next = Some(cause_of(end));
            }
        }
        tracing::debug!(
            upstream = %plan.local.upstream.name, attempt = exchange.attempts, end = end.word(),
            ?decision, "attempt ended"
        );
        decision
    }

    /// The last attempt's end as that of the request. The caller learns how often it was tried where it failed, and
    /// trying again would only repeat that.
    pub(super) fn last(
        &self,
        exchange: &mut Exchange,
        ended: Result<UpstreamResponse, Failed>,
        suppressed: Option<SuppressedReason>,
    ) -> Result<UpstreamResponse, ProxyError> {
        exchange.retry_suppressed = suppressed;
        let mut response = ended.map_err(|failed| self.whole(failed.error))?;
        if suppressed.is_some_and(SuppressedReason::is_last_word) {
            let below = RetryDepth::read(response.headers());
            let attempts = below.of_failure(exchange.attempts).value();
            response.headers_mut().insert(ATTEMPTS, attempts);
        }
        Ok(response)
    }

    /// What the failure of the last attempt says of the whole request.
    fn whole(&self, error: ProxyError) -> ProxyError {
        if self.ran > 0 { error.after_one_that_may_have_run() } else { error }
    }

    /// Why there is no attempt, or not another one: then that one was wanted.
    pub(super) fn not_made(
        &mut self,
        plan: &Plan<'_>,
        exchange: &mut Exchange,
        error: ProxyError,
    ) -> ProxyError {
        if self.next.take().is_some() {
            let reason = SuppressedReason::of_attempt_not_made(error.reason);
            plan.local.upstream.metrics.suppress(reason.index());
            exchange.retry_suppressed = Some(reason);
        }
        self.whole(error)
    }
}

/// What the head of an answer of our own tells of attempts: a failure of ours is as final as an upstream's.
pub(super) fn told_of_failure(exchange: &Exchange) -> Option<HeaderValue> {
    let last_word = exchange.retry_suppressed.is_some_and(SuppressedReason::is_last_word);
    let told = last_word || exchange.attempts > 1;
    told.then(|| RetryDepth::default().of_failure(exchange.attempts).value())
}

fn replace(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if headers.contains_key(&name) {
        headers.insert(name, value());
    }
}

fn cause_of(end: AttemptEnd) -> RetryCause {
    match end {
        AttemptEnd::Response { grpc_status: Some(_), .. } => RetryCause::Grpc,
        AttemptEnd::Response { status, .. } => match status.as_u16() {
            502..=504 => RetryCause::GatewayError,
            500..=599 => RetryCause::ServerError,
            _ => RetryCause::Status,
        },
        AttemptEnd::KeepAliveRace => RetryCause::KeepAliveRace,
        AttemptEnd::Reset => RetryCause::Reset,
        AttemptEnd::PerTryTimeout => RetryCause::PerTryTimeout,
        AttemptEnd::NotSent | AttemptEnd::Refused | AttemptEnd::Final => RetryCause::Safe,
    }
}
