//! HTTP connections that turn into bytes passed on as they are: upgrades (WebSocket) and CONNECT.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Version};
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::balance::{Key, Tried};
use crate::base::error::{ProxyError, Reason};
use crate::io::incoming::{Incoming, Upgrade};
use crate::io::relay::{RelayEnd, Relayed, relay};
use crate::io::socket::Socket;
use crate::metrics::{AttemptOutcome, RetryCause};
use crate::net::UpstreamResponse;
use crate::policy::classify::Outcome;
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange as Kind};
use crate::policy::outlier::Signal;
use crate::policy::retry::{AttemptEnd, RetryDecision, RetryState, SuppressedReason};
use crate::snapshot::{Route, Split};
use crate::upstream::{Ended, LocalUpstream, Slot};

use super::affinity;
use super::attempt::{Plan, outcome_word};
use super::exchange::Exchange;
use super::fields::ResponseFields;
use super::reply;
use super::response::ResponseBody;
use super::worker::Worker;

/// Passes a 101 back and then bytes both ways, until both sides have closed or nothing moves for the route's `idle`.
pub(super) fn upgrade(
    mut exchange: Box<Exchange>,
    route: &Route,
    response: UpstreamResponse,
    downstream: Upgrade,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    let upstream = body.into_tunnel();
    let hop = ResponseFields::find(&parts.headers).hop;
    let protocol = hop.strip(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol.unwrap_or(HeaderValue::from_static("websocket")));
    route.response_headers.apply(&mut parts.headers);
    affinity::finish(&mut exchange, &mut parts.headers);
    parts.version = Version::HTTP_11;
    exchange.status = parts.status.as_u16();
    let (idle, tick) = (route.idle, exchange.downstream.worker.tick.clone());
    // Owned by the two connections: it ends when either has.
    drop(tokio::task::spawn_local(async move {
        let relayed = match (downstream.tunnel().await, upstream) {
            (Some(downstream), Some(upstream)) => relay(downstream, upstream, &tick, idle).await,
            (None, _) => Relayed::of_gone_caller(),
            (_, None) => Relayed { end: RelayEnd::UpstreamBroken, ..Relayed::default() },
        };
        settle(&mut exchange, relayed);
    }));
    Response::from_parts(parts, ResponseBody::detached())
}

fn settle(exchange: &mut Exchange, relayed: Relayed) {
    exchange.tunnelled = relayed.sent;
    exchange.sent = relayed.received;
    exchange.complete = true;
    match relayed.end {
        RelayEnd::Closed | RelayEnd::DownstreamBroken => {}
        RelayEnd::Idle => exchange.broke(Reason::StreamIdle, "nothing moved on the tunnel"),
        RelayEnd::UpstreamBroken => {
            exchange.broke(Reason::UpstreamReset, "the upstream broke the tunnel off");
        }
    }
}

/// CONNECT on a route that lists the method: a tunnel to an endpoint of the route's upstream.
pub(super) async fn connect(
    mut exchange: Box<Exchange>,
    route: &Route,
    split: &Split,
    incoming: &Incoming,
) -> Response<ResponseBody> {
    let Some(downstream) = incoming.upgrade(&mut exchange.head.extensions) else {
        let text = "this connection cannot become a tunnel";
        return reply::failure(exchange, &ProxyError::new(Reason::MethodRefused, text));
    };
    let worker = Rc::clone(&exchange.downstream.worker);
    let upstream = Arc::clone(split.pick(&mut worker.rng.borrow_mut()));
    let local = worker.upstreams.get(&upstream, exchange.started);
    exchange.upstream = Some(Rc::clone(&local));
    let compat = exchange.active.snapshot.compat_envoy;
    let caller = CallerTimeout::read(&exchange.head.headers, compat);
    let deadline = Deadline::new(exchange.started, route.timeout, &caller, Kind::Tunnel);
    let mut tries = Tries { original: exchange.downstream.original, ..Tries::default() };
    let key = affinity::key(&mut exchange, route, &upstream);
    let reached = reach(&worker, &local, route, key, deadline, &mut tries).await;
    exchange.attempts = tries.made;
    exchange.endpoint = tries.endpoint;
    exchange.panic_pick = tries.panic_pick;
    let (mut socket, held) = match reached {
        Ok(reached) => reached,
        Err(error) => return reply::failure(exchange, &error),
    };
    exchange.status = 200;
    exchange.head_at = Some(Instant::now());
    let (idle, tick) = (route.idle, worker.tick.clone());
    drop(tokio::task::spawn_local(async move {
        match downstream.tunnel().await {
            Some(mut downstream) => {
                let relayed = relay(&mut downstream, &mut socket, &tick, idle).await;
                relayed.end.pass_on(&exchange.downstream.activity, &socket.activity());
                settle(&mut exchange, relayed);
            }
            None => settle(&mut exchange, Relayed::of_gone_caller()),
        }
        drop((socket, held));
    }));
    let mut response = Response::new(ResponseBody::detached());
    *response.status_mut() = StatusCode::OK;
    response
}

/// What it took to reach an endpoint, or not to.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pub(super) made: u32,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// The endpoint is unhealthy, and was picked in panic.
    pub(super) panic_pick: bool,
    /// Where the connection was going before it was redirected here.
    pub(super) original: Option<SocketAddr>,
}

/// Connects to an endpoint of the upstream, trying others where one cannot be reached.
pub(super) async fn reach(
    worker: &Rc<Worker>,
    local: &Rc<LocalUpstream>,
    route: &Route,
    key: Option<Key>,
    deadline: Deadline,
    tries: &mut Tries,
) -> Result<(Socket, impl Sized + 'static + use<>), ProxyError> {
    let plan = Plan {
        worker,
        local,
        http2: false,
        repeatable: false,
        hold: false,
        key,
        deadline,
        per_try: None,
        idle: None,
        body: None,
        original: tries.original,
    };
    let mut slot: Slot = match local.try_enter(&worker.rng)? {
        Some(slot) => slot,
        None => local.wait_to_enter(&worker.tick, deadline.overall).await?,
    };
    let mut tried = Tried::new();
    loop {
        let start = Instant::now();
        let mut picked = plan.pick(&mut tried, start)?;
        tries.made += 1;
        tries.endpoint = Some(Arc::clone(picked.endpoint()));
        tries.panic_pick = picked.in_panic();
        let guard = picked.start(start);
        let dialled = local.dial(picked.endpoint(), &worker.tick, deadline.overall).await;
        let now = Instant::now();
        let error = match dialled {
            Ok((socket, held)) => {
                local.upstream.metrics.attempt(AttemptOutcome::Success);
                guard.settle(Outcome::Success, now);
                slot.settle(&Ended::of_tunnel(now.saturating_duration_since(start)));
                let upstream = &local.upstream;
                upstream.note(&guard, Signal::Success, now, &mut worker.rng.borrow_mut());
                return Ok((socket, (held, guard, slot)));
            }
            Err(error) => error,
        };
        local.upstream.metrics.attempt(outcome_word(error.reason));
        guard.settle(Outcome::of_reason(error.reason), now);
        slot.settle(&Ended::of_reason(error.reason, now.saturating_duration_since(start)));
        // Any other end is one of waiting for our own place.
        if error.reason == Reason::ConnectFailed {
            let upstream = &local.upstream;
            upstream.note(&guard, Signal::LocalOrigin, now, &mut worker.rng.borrow_mut());
        }
        let state = RetryState {
            attempt: tries.made,
            ..RetryState::first(&http::Method::CONNECT, deadline.remaining(now))
        };
        let end = match error.reason {
            Reason::ConnectFailed => AttemptEnd::NotSent,
            _ => AttemptEnd::Final,
        };
        match route.retry.decide(end, &state, &mut worker.rng.borrow_mut()) {
            RetryDecision::Stop(reason) => {
                if let Some(reason) = reason {
                    local.upstream.metrics.suppress(reason.index());
                }
                return Err(error);
            }
            _ if local.upstream.gate.is_refusing() => {
                local.upstream.metrics.suppress(SuppressedReason::BreakerOpen.index());
                return Err(error);
            }
            _ => local.upstream.metrics.retry(RetryCause::Safe),
        }
    }
}
