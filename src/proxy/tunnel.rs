//! Connections whose bytes are passed on as they are: upgrades (WebSocket), CONNECT, and TCP listeners.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::Tried;
use crate::balance::endpoint::Endpoint;
use crate::base::error::{ProxyError, Reason};
use crate::io::relay::{RelayEnd, Relayed, relay};
use crate::io::socket::Socket;
use crate::metrics::{AttemptOutcome, RetryCause};
use crate::net::UpstreamResponse;
use crate::policy::classify::Outcome;
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange as Kind};
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState};
use crate::snapshot::{Action, LogFilter, Route, Split};
use crate::upstream::{LocalUpstream, Slot};

use super::access_log::Line;
use super::attempt::{Plan, outcome_word};
use super::connection::{Accepted, Peer};
use super::exchange::Exchange;
use super::fields::ResponseFields;
use super::listener::Active;
use super::reply;
use super::response::ResponseBody;
use super::worker::{Stop, Worker};

/// Passes a 101 back and then bytes both ways, until both sides have closed or nothing moves for the route's `idle`.
pub(super) fn upgrade(
    mut exchange: Box<Exchange>,
    route: &Route,
    mut response: UpstreamResponse,
    downstream: OnUpgrade,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    let hop = ResponseFields::find(&parts.headers).hop;
    let protocol = hop.strip(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol.unwrap_or(HeaderValue::from_static("websocket")));
    route.response_headers.apply(&mut parts.headers);
    parts.version = Version::HTTP_11;
    exchange.status = parts.status.as_u16();
    let (idle, tick) = (route.idle, exchange.downstream.worker.tick.clone());
    // Owned by the two connections: it ends when either has.
    drop(tokio::task::spawn_local(async move {
        let relayed = match (downstream.await, upstream.await) {
            (Ok(downstream), Ok(upstream)) => {
                relay(TokioIo::new(downstream), TokioIo::new(upstream), &tick, idle).await
            }
            (Err(_), _) => Relayed::of_gone_caller(),
            (_, Err(_)) => Relayed { end: RelayEnd::UpstreamBroken, ..Relayed::default() },
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
) -> Response<ResponseBody> {
    let Some(downstream) = exchange.head.extensions.remove::<OnUpgrade>() else {
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
    let mut tries = Tries::default();
    let reached = reach(&worker, &local, route, deadline, &mut tries).await;
    exchange.attempts = tries.made;
    exchange.endpoint = tries.endpoint;
    let (mut socket, held) = match reached {
        Ok(reached) => reached,
        Err(error) => return reply::failure(exchange, &error),
    };
    exchange.status = 200;
    exchange.head_at = Some(Instant::now());
    let (idle, tick) = (route.idle, worker.tick.clone());
    drop(tokio::task::spawn_local(async move {
        match downstream.await {
            Ok(downstream) => {
                let mut downstream = TokioIo::new(downstream);
                let relayed = relay(&mut downstream, &mut socket, &tick, idle).await;
                relayed.end.pass_on(&exchange.downstream.activity, &socket.activity());
                settle(&mut exchange, relayed);
            }
            Err(_) => settle(&mut exchange, Relayed::of_gone_caller()),
        }
        drop((socket, held));
    }));
    let mut response = Response::new(ResponseBody::detached());
    *response.status_mut() = StatusCode::OK;
    response
}

/// What it took to reach an endpoint, or not to.
#[derive(Default)]
struct Tries {
    made: u32,
    endpoint: Option<Arc<Endpoint>>,
}

/// Connects to an endpoint of the upstream, trying others where one cannot be reached.
async fn reach(
    worker: &Worker,
    local: &Rc<LocalUpstream>,
    route: &Route,
    deadline: Deadline,
    tries: &mut Tries,
) -> Result<(Socket, impl Sized + 'static + use<>), ProxyError> {
    let plan = Plan {
        worker,
        local,
        http2: false,
        grpc: false,
        deadline,
        per_try: None,
        idle: None,
        body: None,
    };
    let slot: Slot = local.enter(&worker.tick, deadline.overall).await?;
    let mut tried = Tried::new();
    loop {
        let start = Instant::now();
        let endpoint = plan.pick(&mut tried, start)?;
        tries.made += 1;
        tries.endpoint = Some(Arc::clone(&endpoint));
        let guard = endpoint.start(start);
        let dialled = local.dial(&endpoint, &worker.tick, deadline.overall).await;
        let now = Instant::now();
        let error = match dialled {
            Ok((socket, held)) => {
                local.upstream.metrics.attempt(AttemptOutcome::Success);
                guard.settle(Outcome::Success, now);
                return Ok((socket, (held, guard, slot)));
            }
            Err(error) => error,
        };
        local.upstream.metrics.attempt(outcome_word(error.reason));
        guard.settle(Outcome::of_reason(error.reason), now);
        let state = RetryState {
            attempt: tries.made,
            method: &http::Method::CONNECT,
            idempotency_key: false,
            body: BodyReplay::Unsent,
            resent_once: false,
            committed: false,
            remaining: deadline.remaining(now),
            pushback: Pushback::None,
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
            _ => local.upstream.metrics.retry(RetryCause::Safe),
        }
    }
}

/// Serves a connection of a TCP listener.
pub(super) async fn serve_tcp(
    accepted: Accepted,
    mut socket: Socket,
    stopped: watch::Receiver<Stop>,
) {
    let Accepted { worker, active, peer, admitted, .. } = accepted;
    let (started, time) = (Instant::now(), SystemTime::now());
    let listener = &active.listener;
    // `validate` has made sure of it: the one route of a TCP listener goes to upstreams.
    let Some(route) = listener.routes.first() else { return };
    let Action::To(split) = &route.action else { return };
    let upstream = Arc::clone(split.pick(&mut worker.rng.borrow_mut()));
    let local = worker.upstreams.get(&upstream, started);
    let deadline = Deadline::new(started, route.timeout, &CallerTimeout::default(), Kind::Tunnel);
    let mut line = TcpLine { tries: Tries::default(), relayed: Relayed::default(), error: None };
    let reached = reach(&worker, &local, route, deadline, &mut line.tries).await;
    // A drain leaves it until the deadline: nobody can ask the peers of a TCP connection to end.
    drop(stopped);
    match reached {
        Ok((mut upstream_socket, held)) => {
            let idle = listener.limits.idle;
            line.relayed = relay(&mut socket, &mut upstream_socket, &worker.tick, idle).await;
            line.relayed.end.pass_on(&socket.activity(), &upstream_socket.activity());
            drop((upstream_socket, held));
        }
        Err(error) => {
            listener.metrics.reject(error.reason);
            line.error = Some(error);
        }
    }
    listener.metrics.received.inc_by(line.relayed.sent);
    listener.metrics.sent.inc_by(line.relayed.received);
    let took = started.elapsed();
    let status = if line.error.is_some() { 503 } else { 200 };
    route.metrics.request(status, took.as_secs_f64());
    line.write(&worker, &active, route, &local, (time, took), &peer);
    drop(admitted);
}

/// What the access log says of a TCP connection.
struct TcpLine {
    tries: Tries,
    relayed: Relayed,
    error: Option<ProxyError>,
}

impl TcpLine {
    fn write(
        &self,
        worker: &Worker,
        active: &Active,
        route: &Route,
        local: &LocalUpstream,
        (time, took): (SystemTime, Duration),
        peer: &Peer,
    ) {
        let reason = match (&self.error, self.relayed.end) {
            (Some(error), _) => Some(error.reason),
            (None, RelayEnd::Idle) => Some(Reason::StreamIdle),
            (None, RelayEnd::UpstreamBroken) => Some(Reason::UpstreamReset),
            (None, RelayEnd::DownstreamBroken) => Some(Reason::ClientGone),
            (None, RelayEnd::Closed) => None,
        };
        let wanted = match active.snapshot.log {
            LogFilter::All | LogFilter::Share(_) => true,
            LogFilter::Errors => reason.is_some(),
            LogFilter::Never => false,
        };
        if !wanted {
            return;
        }
        worker.shared.access_log.write(&Line {
            time,
            service: &active.snapshot.service,
            listener: &active.listener.name,
            route: Some(&route.name),
            protocol: "TCP",
            method: None,
            host: None,
            path: None,
            status: 0,
            grpc_status: None,
            reason: reason.map(Reason::word),
            flag: reason.map(Reason::flag),
            detail: self.error.as_ref().map(|error| &*error.detail),
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            head_ms: None,
            attempts: self.tries.made,
            retry_suppressed: None,
            upstream: Some(&local.upstream.name),
            endpoint: self.tries.endpoint.as_ref().map(|endpoint| &endpoint.address as _),
            received_bytes: self.relayed.sent,
            sent_bytes: self.relayed.received,
            peer,
            request_id: None,
        });
    }
}
