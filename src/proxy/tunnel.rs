//! Connections whose bytes are passed on as they are: upgrades (WebSocket), CONNECT, and TCP listeners.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::Tried;
use crate::balance::endpoint::Endpoint;
use crate::base::error::{ProxyError, Reason};
use crate::io::relay::{RelayEnd, Relayed, relay};
use crate::io::socket::{Activity, Socket};
use crate::metrics::AttemptOutcome;
use crate::policy::classify::Outcome;
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange as Kind};
use crate::policy::pushback::Pushback;
use crate::policy::retry::{AttemptEnd, BodyReplay, RetryDecision, RetryState};
use crate::snapshot::{Action, LogFilter, Route};
use crate::upstream::{LocalUpstream, Slot};

use super::access_log::Line;
use super::attempt::{Answer, Plan};
use super::connection::{Accepted, Peer};
use super::exchange::Exchange;
use super::listener::{Active, Admitted};
use super::response::ResponseBody;
use super::worker::{Stop, Worker};
use super::{headers, reply};

/// Passes a 101 back and then bytes both ways, until both sides have closed or nothing moves for the route's `idle`.
pub(crate) fn upgrade(
    mut exchange: Box<Exchange>,
    route: &Route,
    answer: Answer,
    downstream: OnUpgrade,
) -> Response<ResponseBody> {
    let Answer { mut response, connection, endpoint, slot, .. } = answer;
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    let protocol = headers::strip_response(&mut parts.headers).upgrade;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol.unwrap_or(HeaderValue::from_static("websocket")));
    route.response_headers.apply(&mut parts.headers);
    parts.version = Version::HTTP_11;
    exchange.status = parts.status.as_u16();
    exchange.head_at = Some(Instant::now());
    let (idle, tick) = (route.idle, exchange.downstream.worker.tick.clone());
    // Owned by the two connections: it ends when either has.
    drop(tokio::task::spawn_local(async move {
        let relayed = match (downstream.await, upstream.await) {
            (Ok(downstream), Ok(upstream)) => {
                relay(TokioIo::new(downstream), TokioIo::new(upstream), &tick, idle).await
            }
            (Err(_), _) => Relayed { end: RelayEnd::DownstreamBroken, ..Relayed::default() },
            (_, Err(_)) => Relayed { end: RelayEnd::UpstreamBroken, ..Relayed::default() },
        };
        settle(&mut exchange, relayed);
        drop((connection, endpoint, slot));
    }));
    Response::from_parts(parts, ResponseBody::detached())
}

fn settle(exchange: &mut Exchange, relayed: Relayed) {
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
pub(crate) async fn connect(
    mut exchange: Box<Exchange>,
    route: &Route,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let Action::To(split) = &route.action else {
        return reply::failure(exchange, &ProxyError::new(Reason::NoRoute, "no upstream"));
    };
    let worker = Rc::clone(&exchange.downstream.worker);
    let upstream = Arc::clone(split.pick(&mut worker.rng.borrow_mut()));
    let local = worker.upstreams.get(&upstream, Instant::now());
    exchange.upstream = Some(Rc::clone(&local));
    let caller = CallerTimeout::read(request.headers(), exchange.active.snapshot.compat_envoy);
    let deadline = Deadline::new(exchange.started, route.timeout, &caller, Kind::Tunnel);
    let reached = reach(&worker, &local, route, deadline).await;
    let (socket, held, (endpoint, attempts)) = match reached {
        Ok(reached) => reached,
        Err(error) => return reply::failure(exchange, &error),
    };
    exchange.endpoint = Some(endpoint);
    exchange.attempts = attempts;
    exchange.status = 200;
    let (idle, tick) = (route.idle, worker.tick.clone());
    let downstream = hyper::upgrade::on(request);
    drop(tokio::task::spawn_local(async move {
        let relayed = match downstream.await {
            Ok(downstream) => relay(TokioIo::new(downstream), socket, &tick, idle).await,
            Err(_) => Relayed { end: RelayEnd::DownstreamBroken, ..Relayed::default() },
        };
        settle(&mut exchange, relayed);
        drop(held);
    }));
    let mut response = Response::new(ResponseBody::detached());
    *response.status_mut() = StatusCode::OK;
    response
}

/// Connects to an endpoint of the upstream, trying others where one cannot be reached.
async fn reach(
    worker: &Worker,
    local: &Rc<LocalUpstream>,
    route: &Route,
    deadline: Deadline,
) -> Result<(Socket, impl Sized + 'static + use<>, (Arc<Endpoint>, u32)), ProxyError> {
    let plan = Plan { worker, local, http2: false, deadline, per_try: None, idle: None };
    let slot: Slot = local.enter(&worker.tick, deadline.overall).await?;
    let mut tried = Tried::new();
    let mut attempt = 1;
    loop {
        let start = Instant::now();
        let endpoint = plan.pick(&mut tried)?;
        let guard = endpoint.start(start);
        let dialled = local.dial(&endpoint, &worker.tick, deadline.overall).await;
        let now = Instant::now();
        let error = match dialled {
            Ok((socket, held)) => {
                local.upstream.metrics.attempt(AttemptOutcome::Success);
                guard.settle(Outcome::Success, now);
                return Ok((socket, (held, guard, slot), (endpoint, attempt)));
            }
            Err(error) => error,
        };
        local.upstream.metrics.attempt(AttemptOutcome::ConnectFailed);
        guard.settle(Outcome::Failure, now);
        let state = RetryState {
            attempt,
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
            _ => {
                local.upstream.metrics.retry(crate::metrics::RetryCause::Safe);
                attempt += 1;
            }
        }
    }
}

/// Serves a connection of a TCP listener.
pub(crate) async fn serve_tcp(accepted: Accepted, socket: Socket, stopped: watch::Receiver<Stop>) {
    let Accepted { worker, active, peer, admitted, .. } = accepted;
    let started = Instant::now();
    // `validate` has made sure of it: the one route of a TCP listener goes to upstreams.
    let Some(route) = active.listener.routes.first() else { return };
    let Action::To(split) = &route.action else { return };
    let upstream = Arc::clone(split.pick(&mut worker.rng.borrow_mut()));
    let local = worker.upstreams.get(&upstream, started);
    let deadline = Deadline::new(started, route.timeout, &CallerTimeout::default(), Kind::Tunnel);
    let mut record = TcpRecord {
        worker: &worker,
        active: &active,
        route,
        local: &local,
        started,
        peer,
        activity: socket.activity(),
        endpoint: None,
        attempts: 0,
        end: TcpEnd::Cut,
        _admitted: admitted,
    };
    // A drain leaves it until the deadline: nobody can ask the peers of a TCP connection to end.
    drop(stopped);
    match reach(&worker, &local, route, deadline).await {
        Ok((upstream_socket, held, (endpoint, attempts))) => {
            record.endpoint = Some(endpoint);
            record.attempts = attempts;
            let idle = active.listener.limits.idle;
            let relayed = relay(socket, upstream_socket, &worker.tick, idle).await;
            record.end = TcpEnd::Relayed(relayed.end);
            drop(held);
        }
        Err(error) => record.end = TcpEnd::NotConnected(error),
    }
}

/// How a TCP connection ended.
enum TcpEnd {
    /// The process ended first.
    Cut,
    NotConnected(ProxyError),
    Relayed(RelayEnd),
}

/// The record of a TCP connection. Its drop counts and logs it, whatever ended it.
struct TcpRecord<'a> {
    worker: &'a Worker,
    active: &'a Active,
    route: &'a Route,
    local: &'a LocalUpstream,
    started: Instant,
    peer: Peer,
    activity: Arc<Activity>,
    endpoint: Option<Arc<Endpoint>>,
    attempts: u32,
    end: TcpEnd,
    _admitted: Admitted,
}

impl Drop for TcpRecord<'_> {
    fn drop(&mut self) {
        let listener = &self.active.listener;
        if let TcpEnd::NotConnected(error) = &self.end {
            listener.metrics.reject(error.reason);
        }
        listener.metrics.received.inc_by(self.activity.bytes_read());
        listener.metrics.sent.inc_by(self.activity.bytes_written());
        let took = self.started.elapsed();
        let status = if matches!(self.end, TcpEnd::NotConnected(_)) { 503 } else { 200 };
        self.route.metrics.request(status, took.as_secs_f64());
        self.log(took);
    }
}

impl TcpRecord<'_> {
    fn log(&self, took: Duration) {
        let (reason, detail) = match &self.end {
            TcpEnd::Cut => (Some(Reason::Draining), Some("cut off at the end of the drain")),
            TcpEnd::NotConnected(error) => (Some(error.reason), Some(&*error.detail)),
            TcpEnd::Relayed(RelayEnd::Idle) => (Some(Reason::StreamIdle), None),
            TcpEnd::Relayed(RelayEnd::UpstreamBroken) => (Some(Reason::UpstreamReset), None),
            TcpEnd::Relayed(RelayEnd::DownstreamBroken) => (Some(Reason::ClientGone), None),
            TcpEnd::Relayed(RelayEnd::Closed) => (None, None),
        };
        let wanted = match self.active.snapshot.log {
            LogFilter::All | LogFilter::Share(_) => true,
            LogFilter::Errors => reason.is_some(),
            LogFilter::Never => false,
        };
        if !wanted {
            return;
        }
        self.worker.shared.access_log.write(&Line {
            time: SystemTime::now(),
            service: &self.active.snapshot.service,
            listener: &self.active.listener.name,
            route: Some(&self.route.name),
            protocol: "TCP",
            method: None,
            host: None,
            path: None,
            status: 0,
            grpc_status: None,
            reason: reason.map(Reason::word),
            flag: reason.map(Reason::flag),
            detail,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            head_ms: None,
            attempts: self.attempts,
            upstream: Some(&self.local.upstream.name),
            endpoint: self.endpoint.as_ref().map(|endpoint| &endpoint.address as _),
            received_bytes: self.activity.bytes_read(),
            sent_bytes: self.activity.bytes_written(),
            peer: &self.peer,
            request_id: None,
        });
    }
}
