//! One downstream connection: which protocol it speaks, how long it may rest, how it ends.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::io::deferred_write::{DeferredWrite, Pushed};
use crate::io::executor::LocalExecutor;
use crate::io::socket::{Activity, Socket};
use crate::io::tick::{Alarm, TICK};

use super::listener::{Active, Admitted, LocalListener, Protocol};
use super::worker::{Stop, Worker};
use super::{request, tunnel};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flow control towards callers: as towards upstreams.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// PING after this silence, and how long an answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An address.
    Ip(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A connection that was admitted.
pub(crate) struct Accepted {
    pub(crate) worker: Rc<Worker>,
    pub(crate) local: Rc<LocalListener>,
    pub(crate) active: Rc<Active>,
    pub(crate) peer: Peer,
    pub(crate) admitted: Admitted,
}

/// What the requests of a connection share.
#[derive(Debug)]
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) local: Rc<LocalListener>,
    pub(crate) peer: Peer,
    /// The peer's address as `X-Forwarded-For` has it, made once.
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) http2: bool,
    pub(crate) activity: Arc<Activity>,
    /// Requests that are being answered.
    in_flight: Cell<u32>,
    /// Since when there is none, and how much had been read by then.
    rests_since: Cell<Instant>,
    read_by_then: Cell<u64>,
    /// When an HTTP/1 answer must be out, whatever its reader does.
    cut_at: Cell<Option<Instant>>,
    /// When the head that is arriving began to.
    head_since: Cell<Option<Instant>>,
    _admitted: Admitted,
}

/// Serves a connection to its end.
pub(crate) async fn serve(accepted: Accepted, socket: Socket, stopped: watch::Receiver<Stop>) {
    // Each protocol is boxed: the task would otherwise be as large as the largest of them for every connection.
    match accepted.local.protocol {
        Protocol::Tcp => Box::pin(tunnel::serve_tcp(accepted, socket, stopped)).await,
        Protocol::Http => {
            let Some((http2, socket)) = Box::pin(tell_apart(&accepted, socket, &stopped)).await
            else {
                return;
            };
            let downstream = Rc::new(Downstream::new(accepted, &socket, http2));
            if http2 {
                Box::pin(serve_http2(downstream, socket, stopped)).await;
            } else {
                Box::pin(serve_http1(downstream, socket, stopped)).await;
            }
        }
    }
}

/// Reads until it is certain whether the connection begins with the HTTP/2 preface. `None`: it ended or waited too long.
async fn tell_apart(
    accepted: &Accepted,
    mut socket: Socket,
    stopped: &watch::Receiver<Stop>,
) -> Option<(bool, Socket)> {
    let limits = &accepted.active.listener.limits;
    let start = Instant::now();
    let mut alarm = accepted.worker.tick.alarm();
    alarm.set(limits.idle.map(|idle| start + idle));
    let mut stopped = stopped.clone();
    let mut first = [0; PREFACE.len()];
    let mut read = 0;
    while first[..read] == PREFACE[..read] {
        if read == PREFACE.len() {
            return Some((true, socket.with_ahead(Bytes::from_static(PREFACE))));
        }
        let received = tokio::select! {
            received = socket.read(&mut first[read..]) => received.ok()?,
            () = alarm.elapsed() => return None,
            _ = stopped.wait_for(|stop| *stop == Stop::Connections) => return None,
        };
        if received == 0 {
            return None;
        }
        if read == 0 {
            alarm.set(limits.header_timeout.map(|limit| Instant::now() + limit));
        }
        read += received;
    }
    Some((false, socket.with_ahead(Bytes::copy_from_slice(&first[..read]))))
}

async fn serve_http1(downstream: Rc<Downstream>, socket: Socket, stopped: watch::Receiver<Stop>) {
    let limits = downstream.active_limits();
    let service = {
        let downstream = Rc::clone(&downstream);
        service_fn(move |request| request::handle(Rc::clone(&downstream), request))
    };
    let connection = http1::Builder::new()
        .max_headers(limits.0)
        .max_header_size(limits.1)
        .auto_date_header(false)
        // Our own tick does it, cheaper.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let ended = drive(&downstream, connection, stopped, |connection| {
        connection.graceful_shutdown();
    })
    .await;
    downstream.account(ended);
}

async fn serve_http2(downstream: Rc<Downstream>, socket: Socket, stopped: watch::Receiver<Stop>) {
    let limits = downstream.active_limits();
    let service = {
        let downstream = Rc::clone(&downstream);
        service_fn(move |request| request::handle(Rc::clone(&downstream), request))
    };
    let (io, pusher) = DeferredWrite::new(socket);
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.2)
        .max_header_list_size(u32::try_from(limits.1).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(io), service);
    let ended = drive(&downstream, Pushed::new(connection, pusher), stopped, |connection| {
        connection.future().graceful_shutdown();
    })
    .await;
    downstream.account(ended);
}

/// How a driven connection ended.
enum Ended {
    /// By itself.
    Served(hyper::Result<()>),
    /// A head did not arrive in time.
    HeadTimeout,
    /// It could not be ended gracefully in time.
    Cut,
}

/// Polls a connection, with its limits of time and the listener's drain.
async fn drive<C>(
    downstream: &Downstream,
    connection: C,
    mut stopped: watch::Receiver<Stop>,
    shut_down: impl Fn(Pin<&mut C>),
) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let mut drained = std::pin::pin!(stopped.wait_for(|stop| *stop == Stop::Connections));
    let mut watch = Watch::new(downstream);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Served(ended));
        }
        let draining = !watch.ending && drained.as_mut().poll(cx).is_ready();
        match watch.poll(cx, draining) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Verdict::HeadTimeout) => Poll::Ready(Ended::HeadTimeout),
            Poll::Ready(Verdict::Cut) => Poll::Ready(Ended::Cut),
            Poll::Ready(Verdict::ShutDown) => {
                shut_down(connection.as_mut());
                // To register the waker with what the shutdown has changed.
                connection.as_mut().poll(cx).map(Ended::Served)
            }
        }
    })
    .await
}

/// What the clock says of a connection.
enum Verdict {
    ShutDown,
    HeadTimeout,
    Cut,
}

/// The limits of time of one connection, on one alarm.
struct Watch<'a> {
    downstream: &'a Downstream,
    alarm: Alarm,
    header: Option<Duration>,
    idle: Option<Duration>,
    ends_at: Option<Instant>,
    armed: Option<Instant>,
    /// It was asked to end.
    ending: bool,
}

impl<'a> Watch<'a> {
    fn new(downstream: &'a Downstream) -> Self {
        let active = downstream.local.active(&downstream.worker);
        let limits = active.as_ref().map(|active| &active.listener.limits);
        Self {
            alarm: downstream.worker.tick.alarm(),
            header: limits.and_then(|limits| limits.header_timeout),
            idle: limits.and_then(|limits| limits.idle),
            ends_at: limits.and_then(|limits| limits.max_age).map(|age| Instant::now() + age),
            armed: None,
            ending: false,
            downstream,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, draining: bool) -> Poll<Verdict> {
        if draining {
            return self.shut_down();
        }
        let (next, verdict) = self.next();
        if self.armed != next {
            self.armed = next;
            self.alarm.set(next);
        }
        if next.is_none() {
            return Poll::Pending;
        }
        ready!(self.alarm.poll_elapsed(cx));
        match verdict {
            // Asked again and still there: whoever is at the other end does not read.
            Verdict::ShutDown if self.ending => Poll::Ready(Verdict::Cut),
            Verdict::ShutDown => self.shut_down(),
            verdict => Poll::Ready(verdict),
        }
    }

    fn shut_down(&mut self) -> Poll<Verdict> {
        self.ending = true;
        self.ends_at = None;
        Poll::Ready(Verdict::ShutDown)
    }

    /// The next limit, as the connection stands now.
    fn next(&self) -> (Option<Instant>, Verdict) {
        let downstream = self.downstream;
        if downstream.in_flight.get() > 0 {
            // hyper does not ask for more of a body while its reader is slow: the deadline is kept from here.
            return match (downstream.cut_at.get(), self.ends_at) {
                (Some(cut), Some(aged)) if cut >= aged => (Some(aged), Verdict::ShutDown),
                (Some(cut), _) => (Some(cut + TICK), Verdict::Cut),
                (None, aged) => (aged, Verdict::ShutDown),
            };
        }
        let arriving = downstream.activity.bytes_read() > downstream.read_by_then.get();
        if !downstream.http2 && arriving {
            let since = downstream.head_since.get().unwrap_or_else(Instant::now);
            downstream.head_since.set(Some(since));
            return (self.header.map(|limit| since + limit), Verdict::HeadTimeout);
        }
        let rested = self.idle.map(|idle| downstream.rests_since.get() + idle);
        match (rested, self.ends_at) {
            (Some(rested), Some(aged)) => (Some(rested.min(aged)), Verdict::ShutDown),
            (rested, aged) => (rested.or(aged), Verdict::ShutDown),
        }
    }
}

impl Downstream {
    fn new(accepted: Accepted, socket: &Socket, http2: bool) -> Self {
        let forwarded_for = match accepted.peer {
            Peer::Ip(address) => {
                HeaderValue::from_str(&address.ip().to_canonical().to_string()).ok()
            }
            Peer::Unix => None,
        };
        Self {
            worker: accepted.worker,
            local: accepted.local,
            peer: accepted.peer,
            forwarded_for,
            http2,
            activity: socket.activity(),
            in_flight: Cell::new(0),
            rests_since: Cell::new(Instant::now()),
            // What was read to tell the protocols apart already belongs to a head, and the socket has not counted more.
            read_by_then: Cell::new(0),
            cut_at: Cell::new(None),
            head_since: Cell::new(None),
            _admitted: accepted.admitted,
        }
    }

    /// Headers, bytes of a head, streams.
    fn active_limits(&self) -> (usize, usize, u32) {
        self.local.active(&self.worker).map_or((100, 65_536, 256), |active| {
            let limits = &active.listener.limits;
            (limits.headers, limits.header_bytes.as_usize(), limits.streams)
        })
    }

    /// Counts a request until [`Downstream::end_request`].
    pub(crate) fn begin_request(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.head_since.set(None);
    }

    /// An HTTP/1 answer that is not out by then is cut off. (HTTP/2 answers are not: their connection has others.)
    pub(crate) fn cut_at(&self, at: Option<Instant>) {
        if !self.http2 {
            self.cut_at.set(at);
        }
    }

    /// The response's last byte was handed over, or nobody wants it any more.
    pub(crate) fn end_request(&self, now: Instant) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.cut_at.set(None);
        self.rests_since.set(now);
        self.read_by_then.set(self.activity.bytes_read());
    }

    /// Counts and logs how the connection ended.
    fn account(&self, ended: Ended) {
        let Some(active) = self.local.active(&self.worker) else { return };
        let metrics = &active.listener.metrics;
        metrics.received.inc_by(self.activity.bytes_read());
        metrics.sent.inc_by(self.activity.bytes_written());
        let error = match ended {
            Ended::Served(Ok(())) | Ended::Cut => return,
            Ended::HeadTimeout => {
                metrics.reject(Reason::RequestTimeout);
                tracing::info!(
                    listener = %active.listener.name, peer = %self.peer, reason = "request_timeout",
                    "the request's head did not arrive in time"
                );
                return;
            }
            Ended::Served(Err(error)) => error,
        };
        let reason = if error.is_parse_too_large() {
            Reason::TooLarge
        } else if error.is_parse() {
            Reason::DownstreamProtocol
        } else {
            // Broken off by the peer: the requests in flight have told it.
            tracing::debug!(listener = %active.listener.name, peer = %self.peer, %error, "connection ended");
            return;
        };
        metrics.reject(reason);
        tracing::info!(
            listener = %active.listener.name, peer = %self.peer, reason = reason.word(), %error,
            "refused what is not valid HTTP"
        );
    }
}
