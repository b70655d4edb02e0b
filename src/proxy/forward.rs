//! A request on its way upstream: deadline, attempts, and what to do after each.

use std::rc::Rc;
use std::sync::Arc;

use http::header::TRAILER;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::balance::Tried;
use crate::base::error::{ProxyError, Reason};
use crate::base::units::ByteSize;
use crate::io::request_body::{BodyError, BodyLimits, BodySource, Replay, RequestBody};
use crate::metrics::RetryCause;
use crate::policy::classify;
use crate::policy::deadline::{self, CallerTimeout, Deadline};
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState};
use crate::snapshot::Route;
use crate::upstream::{Protocol, Upstream};

use super::attempt::{Answer, Failed, Plan};
use super::exchange::Exchange;
use super::headers::{self, Hop};
use super::request::{Broken, prepare_head};
use super::response::{self, ResponseBody};
use super::{reply, tunnel};

/// A routed request.
pub(crate) struct Forwarding<'a> {
    pub(crate) exchange: Box<Exchange>,
    pub(crate) route: &'a Route,
    pub(crate) upstream: Arc<Upstream>,
    /// What goes into `Host` or `:authority`.
    pub(crate) host: Option<HeaderValue>,
}

/// Sends a request upstream, again where that is allowed, and passes the answer back.
///
/// # Errors
/// The caller went away: there is nobody to answer.
pub(crate) async fn forward(
    forwarding: Forwarding<'_>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Broken> {
    let Forwarding { mut exchange, route, upstream, host } = forwarding;
    let worker = Rc::clone(&exchange.downstream.worker);
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let allowed = exchange.active.listener.limits.body;
    if allowed.is_some_and(|allowed| incoming.size_hint().lower() > allowed.0) {
        // Said at once, before a byte of it was asked for or sent on.
        let error = ProxyError::new(Reason::TooLarge, BodyError::TooLarge.to_string());
        return Ok(reply::failure(exchange, &error));
    }
    let hop = prepare_head(&mut exchange, route, &mut parts);
    let deadline = deadline(&exchange, route, &parts, &hop);
    let now = Instant::now();
    let local = worker.upstreams.get(&upstream, now);
    local.budget().deposit(now);
    exchange.upstream = Some(Rc::clone(&local));
    let http2 = match upstream.policy.protocol {
        _ if hop.upgrade.is_some() => false,
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => exchange.grpc,
    };
    let (wants_trailers, upgrade) = (hop.wants_trailers || exchange.grpc, hop.upgrade.as_ref());
    headers::address_request(&mut parts, host.as_ref(), http2, wants_trailers, upgrade);
    if !http2 {
        headers::frame_request(&mut parts.headers, !incoming.is_end_stream());
    }
    let trailers = http2 || parts.headers.contains_key(TRAILER);
    let body = body_source(&mut exchange, route, incoming, trailers);
    let plan = Plan {
        worker: &worker,
        local: &local,
        http2,
        deadline,
        per_try: route.retry.per_try,
        idle: route.idle,
    };
    match attempts(&plan, &mut exchange, route, parts, &body).await {
        Err(error) => {
            // The body's own failure is the cause, whatever it did to the connection.
            let error = match body.failure() {
                Some(cause) => ProxyError::new(cause.reason(), cause.to_string()),
                None => error,
            };
            if error.reason == Reason::ClientGone {
                exchange.broke(error.reason, error.detail);
                return Err(h2::Reason::CANCEL.into());
            }
            Ok(reply::failure(exchange, &error))
        }
        Ok(answer) => {
            body.commit();
            Ok(pass_back(exchange, route, answer, deadline, body, upgrade.map(|_| on_upgrade)))
        }
    }
}

fn deadline(
    exchange: &Exchange,
    route: &Route,
    parts: &http::request::Parts,
    hop: &Hop,
) -> Deadline {
    let caller = CallerTimeout::read(&parts.headers, exchange.active.snapshot.compat_envoy);
    if caller.malformed > 0 {
        let process = &exchange.downstream.worker.shared.process;
        process.bad_deadlines_dropped.inc_by(u64::from(caller.malformed));
    }
    let kind = if hop.upgrade.is_some() {
        deadline::Exchange::Tunnel
    } else if exchange.grpc {
        deadline::Exchange::Grpc
    } else {
        deadline::Exchange::Http
    };
    Deadline::new(exchange.started, route.timeout, &caller, kind)
}

fn body_source(
    exchange: &mut Exchange,
    route: &Route,
    incoming: Incoming,
    trailers: bool,
) -> BodySource {
    let limits = &exchange.active.listener.limits;
    let limits = BodyLimits {
        replay: ByteSize(route.retry.replay_bytes),
        size: limits.body,
        pause: limits.body_timeout,
        trailers,
    };
    let body = BodySource::new(incoming, limits, &exchange.downstream.worker.tick);
    exchange.body = Some(body.clone());
    body
}

/// The retry loop. Ends with an answer to pass back, or with why there is none.
async fn attempts(
    plan: &Plan<'_>,
    exchange: &mut Exchange,
    route: &Route,
    parts: http::request::Parts,
    body: &BodySource,
) -> Result<Answer, ProxyError> {
    let mut tried = Tried::new();
    let mut resent_once = false;
    let mut head = Some(parts);
    loop {
        let now = Instant::now();
        if plan.deadline.expired(now) {
            let (reason, text) = match exchange.attempts {
                0 => (Reason::DeadlineExpired, "the caller's deadline had passed already"),
                _ => (Reason::Timeout, "the deadline passed between two attempts"),
            };
            return Err(ProxyError::new(reason, text));
        }
        exchange.attempts += 1;
        // The last attempt takes the head; the others leave a copy for the next.
        let last = exchange.attempts >= route.retry.attempts;
        let Some(head) = (if last { head.take() } else { head.clone() }) else {
            return Err(ProxyError::new(Reason::UpstreamClosed, "no attempt is left"));
        };
        let endpoint = plan.pick(&mut tried)?;
        exchange.endpoint = Some(Arc::clone(&endpoint));
        let request = attempt_request(head, plan, exchange.grpc, body, now);
        let ended = plan.attempt(&endpoint, resent_once, request).await;
        let end = match &ended {
            Ok(answer) => end_of(answer),
            Err(failed) => failed.end,
        };
        match decide(plan, exchange, route, body, &ended, end, resent_once) {
            RetryDecision::Stop(_) => return ended.map_err(|failed| failed.error),
            RetryDecision::Resend => {}
            RetryDecision::ResendOnce => resent_once = true,
            RetryDecision::Retry { wait } => {
                drop(ended);
                Box::pin(tokio::time::sleep(wait)).await;
            }
        }
        plan.local.upstream.metrics.retry(cause_of(end));
    }
}

fn attempt_request(
    mut head: http::request::Parts,
    plan: &Plan<'_>,
    grpc: bool,
    body: &BodySource,
    now: Instant,
) -> Request<RequestBody> {
    if let Some(remaining) = plan.deadline.remaining(now)
        && !plan.deadline.ends_at_head
    {
        let headers = &mut head.headers;
        headers.insert(deadline::TIMEOUT_MS, deadline::timeout_ms(remaining));
        if grpc {
            headers.insert(deadline::GRPC_TIMEOUT, deadline::grpc_timeout(remaining));
        }
        if headers.contains_key(deadline::ENVOY_EXPECTED_MS) {
            headers.insert(deadline::ENVOY_EXPECTED_MS, deadline::timeout_ms(remaining));
        }
    }
    Request::from_parts(head, body.attempt())
}

fn end_of(answer: &Answer) -> AttemptEnd {
    AttemptEnd::Response {
        status: answer.response.status(),
        grpc_status: classify::grpc_status(answer.response.headers()),
    }
}

fn decide(
    plan: &Plan<'_>,
    exchange: &Exchange,
    route: &Route,
    body: &BodySource,
    ended: &Result<Answer, Failed>,
    end: AttemptEnd,
    resent_once: bool,
) -> RetryDecision {
    if let AttemptEnd::Response { .. } = end
        && !route.retry.when.lists(end)
    {
        return RetryDecision::Stop(None);
    }
    let now = Instant::now();
    let state = RetryState {
        attempt: exchange.attempts,
        method: &exchange.method,
        idempotency_key: exchange.idempotency_key,
        body: match body.replay() {
            Replay::Unsent => BodyReplay::Unsent,
            Replay::Kept => BodyReplay::Whole,
            Replay::TooLarge => BodyReplay::TooLarge,
        },
        resent_once,
        committed: false,
        remaining: plan.deadline.remaining(now),
        pushback: ended
            .as_ref()
            .map_or(Pushback::None, |answer| Pushback::read(answer.response.headers())),
    };
    let decision = route.retry.decide(end, &state, &mut plan.worker.rng.borrow_mut());
    let decision = decision.paid_from(&mut plan.local.budget(), now);
    if let RetryDecision::Stop(Some(reason)) = decision {
        plan.local.upstream.metrics.suppress(reason.index());
    }
    tracing::debug!(
        upstream = %plan.local.upstream.name, attempt = exchange.attempts, end = end.word(),
        ?decision, "attempt ended"
    );
    decision
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

fn pass_back(
    exchange: Box<Exchange>,
    route: &Route,
    answer: Answer,
    deadline: Deadline,
    body: BodySource,
    on_upgrade: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    if answer.response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return response::pass_back(exchange, route, answer, deadline, body);
    }
    match on_upgrade {
        Some(on_upgrade) => tunnel::upgrade(exchange, route, answer, on_upgrade),
        None => {
            let text = "the upstream switched protocols without being asked";
            reply::failure(exchange, &ProxyError::new(Reason::UpstreamProtocol, text))
        }
    }
}
