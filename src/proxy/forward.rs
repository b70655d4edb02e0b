//! A request on its way upstream: deadline, attempts, and what to do after each.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::Instant;

use crate::balance::{Picked, Tried};
use crate::base::error::{ProxyError, Reason};
use crate::base::units::ByteSize;
use crate::io::incoming::Incoming;
use crate::io::request_body::{BodyError, BodyLimits, BodySource};
use crate::net::UpstreamResponse;
use crate::policy::deadline::{self, CallerTimeout, Deadline};
use crate::policy::retry::RetryDecision;
use crate::snapshot::{Hedging, Route};
use crate::upstream::{Protocol, Slot, Upstream};

use super::attempt::Plan;
use super::exchange::Exchange;
use super::headers::Outbound;
use super::request::Broken;
use super::response::{self, ResponseBody};
use super::retries::SoFar;
use super::{affinity, headers, hedge, mirror, reply, tunnel};

/// Sends a request upstream, again where that is allowed, and passes the answer back.
///
/// # Errors
/// The caller went away: there is nobody to answer.
pub(super) async fn forward(
    mut exchange: Box<Exchange>,
    route: &Route,
    upstream: &Arc<Upstream>,
    incoming: Incoming,
) -> Result<Response<ResponseBody>, Broken> {
    let worker = Rc::clone(&exchange.downstream.worker);
    let allowed = exchange.active.listener.limits.body;
    if allowed.is_some_and(|allowed| incoming.size_hint().lower() > allowed.0) {
        // Said at once, before a byte of it was asked for or sent on.
        let error = ProxyError::new(Reason::TooLarge, BodyError::TooLarge.to_string());
        return Ok(reply::failure(exchange, &error));
    }
    let on_upgrade = incoming.upgrade(&mut exchange.head.extensions);
    let upgrade = exchange.fields.hop.strip(&mut exchange.head.headers);
    let deadline = deadline(&exchange, route, upgrade.is_some());
    let local = worker.upstreams.get(upstream, exchange.started);
    local.budget().deposit(exchange.started);
    exchange.upstream = Some(Rc::clone(&local));
    let key = affinity::key(&mut exchange, route, upstream);
    let http2 = match upstream.policy.protocol {
        _ if upgrade.is_some() => false,
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto if exchange.fields.grpc => true,
        Protocol::Auto => match local.chosen_http2() {
            Some(chosen) => chosen,
            None => Box::pin(local.choose(&worker.rng)).await,
        },
    };
    prepare_head(&mut exchange, route, http2, upgrade.as_ref());
    if !http2 && exchange.fields.lengths == 0 && !incoming.is_end_stream() {
        headers::frame(&mut exchange.head.headers);
    }
    let body = body_source(&mut exchange, route, incoming, http2);
    if let Some(mirror) = route.mirror.as_ref().filter(|_| upgrade.is_none()) {
        mirror::tee(&exchange, route, mirror, http2, &body);
    }
    let plan = Plan {
        worker: &worker,
        local: &local,
        http2,
        repeatable: route.retry.repeats(&exchange.head.method, exchange.fields.idempotency_key),
        hold: exchange.fields.grpc && route.retry.looks_at_grpc(),
        key,
        deadline,
        per_try: route.retry.per_try,
        idle: route.idle,
        body: Some(&body),
        original: exchange.downstream.original,
    };
    let so_far = SoFar::new(&exchange, route);
    let hedging = route.hedging.as_ref().filter(|_| upgrade.is_none());
    match attempts(&plan, &mut exchange, (route, hedging), so_far, &body).await {
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
        Ok(response) => {
            body.commit();
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response::pass_back(exchange, route, response, deadline));
            }
            Ok(match on_upgrade.filter(|_| upgrade.is_some()) {
                Some(on_upgrade) => tunnel::upgrade(exchange, route, response, on_upgrade),
                None => {
                    let text = "the upstream switched protocols without being asked";
                    reply::failure(exchange, &ProxyError::new(Reason::UpstreamProtocol, text))
                }
            })
        }
    }
}

/// The request's deadline.
pub(super) fn deadline(exchange: &Exchange, route: &Route, upgrade: bool) -> Deadline {
    let mut caller = CallerTimeout::default();
    if exchange.fields.deadline {
        let headers = &exchange.head.headers;
        caller = CallerTimeout::read(headers, exchange.active.snapshot.compat_envoy);
        let process = &exchange.downstream.worker.shared.process;
        process.bad_deadlines_dropped.inc_by(u64::from(caller.malformed));
    }
    let kind = if upgrade {
        deadline::Exchange::Tunnel
    } else if exchange.fields.grpc {
        deadline::Exchange::Grpc
    } else {
        deadline::Exchange::Http
    };
    Deadline::new(exchange.started, route.timeout, &caller, kind)
}

/// Turns the fields that came into those that go upstream, but for what differs between attempts.
fn prepare_head(
    exchange: &mut Exchange,
    route: &Route,
    http2: bool,
    upgrade: Option<&HeaderValue>,
) {
    let downstream = Rc::clone(&exchange.downstream);
    let fields = &mut exchange.fields;
    let (came, added) = (&mut exchange.head.headers, &mut exchange.added);
    let mut head = Outbound { came, added, edited: false };
    let rng = &mut downstream.worker.rng.borrow_mut();
    let id = headers::forward(&mut head, fields, &downstream, rng);
    exchange.request_id = Some(id);
    head.edit(&route.request_headers);
    let host = route.rewrite_host.as_ref().or(fields.host.as_ref());
    if http2 {
        let trailers = fields.wants_trailers || fields.grpc;
        let target = exchange.target.as_ref().unwrap_or(&exchange.head.uri);
        let tls = exchange.upstream.as_ref().is_some_and(|local| local.upstream.tls.is_some());
        exchange.target =
            Some(headers::for_http2(&mut head, fields, target, host, (tls, trailers)));
    } else {
        let written = fields.hosts == 1
            && route.rewrite_host.is_none()
            && exchange.head.uri.authority().is_none();
        if fields.cookies > 1 && exchange.head.version == Version::HTTP_2 {
            headers::join_cookies(head.came);
        }
        headers::for_http1(&mut head, fields, host, written, upgrade);
    }
}

fn body_source(
    exchange: &mut Exchange,
    route: &Route,
    incoming: Incoming,
    http2: bool,
) -> BodySource {
    let limits = &exchange.active.listener.limits;
    let limits = BodyLimits {
        replay: ByteSize(route.retry.replay_bytes),
        size: limits.body,
        pause: limits.body_timeout,
        trailers: http2 || exchange.fields.trailer,
        stream: exchange.downstream.http2,
    };
    let body = BodySource::new(incoming, limits, &exchange.downstream.worker.tick);
    exchange.body = Some(body.clone());
    body
}

/// The retry loop. Ends with a response to pass back, or with why there is none.
async fn attempts(
    plan: &Plan<'_>,
    exchange: &mut Exchange,
    (route, hedging): (&Route, Option<&Hedging>),
    mut so_far: SoFar,
    body: &BodySource,
) -> Result<UpstreamResponse, ProxyError> {
    // An injected delay is no time of the upstream's.
    let mut now = if exchange.delayed { Instant::now() } else { exchange.started };
    loop {
        let placed = place(plan, exchange, &mut so_far.tried, now).await;
        let (slot, mut picked, start) =
            placed.map_err(|error| so_far.not_made(plan, exchange, error))?;
        so_far.begin(plan);
        exchange.attempts += 1;
        exchange.endpoint = Some(Arc::clone(picked.endpoint()));
        exchange.panic_pick = picked.in_panic();
        let ended = match hedging.filter(|_| hedge::is_wanted(exchange)) {
            None => {
                let body = body.attempt();
                plan.attempt(slot, &mut picked, &so_far, body, exchange, start).await
            }
            // Boxed: two attempts at once would make the future of every request larger.
            Some(hedging) => {
                let first = (slot, picked, start);
                Box::pin(hedge::attempt(plan, hedging, first, &mut so_far, body, exchange)).await
            }
        };
        match so_far.decide(plan, exchange, route, body, &ended) {
            RetryDecision::Stop(suppressed) => return so_far.last(exchange, ended, suppressed),
            RetryDecision::Resend | RetryDecision::ResendOnce => {}
            RetryDecision::Retry { wait } => {
                drop(ended);
                exchange.flow = None;
                Box::pin(tokio::time::sleep(wait)).await;
            }
        }
        now = Instant::now();
    }
}

/// A place for an attempt, an endpoint for it, and when both were there.
async fn place(
    plan: &Plan<'_>,
    exchange: &Exchange,
    tried: &mut Tried,
    mut now: Instant,
) -> Result<(Slot, Picked, Instant), ProxyError> {
    if plan.deadline.expired(now) {
        let (reason, text) = match exchange.attempts {
            0 => (Reason::DeadlineExpired, "the caller's deadline had passed already"),
            _ => (Reason::Timeout, "the deadline passed between two attempts"),
        };
        return Err(ProxyError::new(reason, text));
    }
    // A place first: what waits in our own queue is no concern of the endpoint's.
    let slot = match plan.local.try_enter(&plan.worker.rng)? {
        Some(slot) => slot,
        None => {
            let waiting = plan.local.wait_to_enter(&plan.worker.tick, plan.deadline.overall);
            let entered = Box::pin(waiting).await?;
            now = Instant::now();
            entered
        }
    };
    Ok((slot, plan.pick(tried, now)?, now))
}
