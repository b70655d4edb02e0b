//! One downstream connection: which protocol it speaks, how long it may rest, how it ends.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::base::identity::Identity;
use crate::io::deferred_write::{DeferredWrite, Pushed};
use crate::io::frame_watch::{FrameKind, FrameWatch, Judge};
use crate::io::http1::server::{Connection, Fault, HeadLimits, LATE};
use crate::io::incoming::Incoming;
use crate::io::reset_watch::ResetWatch;
use crate::io::socket::{Activity, Socket};
use crate::io::tick::TICK;
use crate::policy::frames::FrameAllowance;
use crate::snapshot::Protocol;

use super::listener::{Active, Admitted, LocalListener};
use super::secure::{self, Secured};
use super::stream::StreamExecutor;
use super::watch::{Clock, Ended, drive};
use super::worker::{Stop, Worker};
use super::{client_cert, refused, request, tcp};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flow control towards callers: as towards upstreams.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// PING after this silence, and how long an answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// How many malformed requests are remembered until their resets are written.
const FAULTS: usize = 32;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// An address.
    Ip(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// Its address, IPv4 as IPv4 on an IPv6 socket as well.
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A connection that was admitted.
pub(super) struct Accepted {
    pub(super) worker: Rc<Worker>,
    pub(super) local: Rc<LocalListener>,
    pub(super) active: Rc<Active>,
    pub(super) peer: Peer,
    /// Who the peer has proved to be; nothing without a verified certificate.
    pub(super) identity: Option<Arc<Identity>>,
    /// Where it was going before it was redirected here.
    pub(super) original: Option<SocketAddr>,
    pub(super) admitted: Admitted,
}

/// What the requests of a connection share.
#[derive(Debug)]
pub(super) struct Downstream {
    pub(super) worker: Rc<Worker>,
    pub(super) local: Rc<LocalListener>,
    pub(super) peer: Peer,
    /// Who the peer has proved to be; nothing without a verified certificate.
    pub(super) identity: Option<Arc<Identity>>,
    /// Where it was going before it was redirected here.
    pub(super) original: Option<SocketAddr>,
    /// The peer's address as `X-Forwarded-For` has it, made once.
    pub(super) forwarded_for: Option<HeaderValue>,
    /// What `X-Forwarded-Client-Cert` says of the peer, made once.
    pub(super) client_cert: Option<HeaderValue>,
    /// What it was made with, under TLS.
    pub(super) secured: Option<Secured>,
    pub(super) http2: bool,
    pub(super) activity: Arc<Activity>,
    pub(super) clock: Clock,
    /// It was ended for its control frames.
    flooded: Cell<bool>,
    /// Resets as malformed that are under way and were counted with their reason already.
    counted_resets: Cell<u32>,
    /// What is wrong with streams whose resets are under way and not counted yet, where that is known.
    faults: RefCell<VecDeque<(u32, &'static str)>>,
    _admitted: Admitted,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    mut accepted: Accepted,
    mut socket: Socket,
    stopped: watch::Receiver<Stop>,
) {
    let mut secured = None;
    if accepted.active.listener.tls.is_some() {
        let active = Rc::clone(&accepted.active);
        let Some(tls) = &active.listener.tls else { return };
        let begun = Box::pin(secure::begin(&mut accepted, tls, socket, &stopped)).await;
        let Some((under_tls, made_with)) = begun else { return };
        (socket, secured) = (under_tls, made_with);
    }
    // Each protocol is boxed: the task would otherwise be as large as the largest of them for every connection.
    match accepted.local.protocol {
        Protocol::Tcp => Box::pin(tcp::serve(accepted, socket, stopped)).await,
        Protocol::Http => {
            let agreed = secured.as_ref().and_then(|secured| secured.http2);
            let told = match agreed {
                Some(http2) => Some((http2, socket)),
                None => Box::pin(tell_apart(&accepted, socket, &stopped)).await,
            };
            let Some((http2, socket)) = told else { return };
            let downstream = Rc::new(Downstream::new(accepted, secured, &socket, http2));
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
    let mut ending = false;
    let mut first = [0; PREFACE.len()];
    let mut read = 0;
    while first[..read] == PREFACE[..read] {
        if read == PREFACE.len() {
            return Some((true, socket.with_ahead(Bytes::from_static(PREFACE))));
        }
        let received = tokio::select! {
            received = socket.read(&mut first[read..]) => received.ok()?,
            () = alarm.elapsed() => {
                if read > 0 {
                    refused::head_timed_out(&accepted.active, accepted.peer);
                }
                return None;
            }
            _ = stopped.wait_for(|stop| *stop == Stop::Connections), if !ending => {
                // It was accepted in time, and its request may be here already: that one is answered.
                ending = true;
                alarm.set(Some(Instant::now() + TICK));
                continue;
            }
        };
        if received == 0 {
            return None;
        }
        if read == 0 && !ending {
            alarm.set(limits.header_timeout.map(|limit| Instant::now() + limit));
        }
        read += received;
    }
    if first[0] == secure::HANDSHAKE && socket.tls().is_none() {
        let error = "a TLS handshake, and the listener has no `tls`";
        refused::count(&accepted.active, accepted.peer, Reason::DownstreamProtocol, error);
        // The alert `handshake_failure`, fatal (RFC 8446 §6).
        let _gone = socket.write_all(&[21, 3, 1, 0, 2, 2, 40]).await;
        return None;
    }
    Some((false, socket.with_ahead(Bytes::copy_from_slice(&first[..read]))))
}

async fn serve_http1(downstream: Rc<Downstream>, socket: Socket, stopped: watch::Receiver<Stop>) {
    let (fields, bytes, _) = downstream.active_limits();
    let worker = Rc::clone(&downstream.worker);
    let connection = Connection::new(socket, HeadLimits { fields, bytes });
    let answer = |request| request::handle(&downstream, request);
    // Pinned where it is made: a future that is moved into another is there twice.
    let serving = pin!(connection.serve(&worker.tick, answer));
    let arriving = || connection.has_part_of_head();
    let mut ended = drive(&downstream, serving, stopped, arriving, |_| connection.end()).await;
    if matches!(ended, Ended::HeadTimeout) {
        connection.refuse(&LATE, &worker.tick).await;
        ended = Ended::Served(Err(Fault::Refused(LATE)));
    }
    if let Ended::Served(Err(Fault::Refused(refusal))) = &ended {
        refused::log(&downstream, refusal);
    }
    downstream.account(ended, |_| None);
}

async fn serve_http2(downstream: Rc<Downstream>, socket: Socket, stopped: watch::Receiver<Stop>) {
    let limits = downstream.active_limits();
    let service = {
        let downstream = Rc::clone(&downstream);
        service_fn(move |request: Request<_>| {
            // hyper, the executor and tokio each move it on, tokio thrice as it ends: 2 KiB at a time otherwise.
            Box::pin(request::handle(&downstream, request.map(Incoming::Http2)))
        })
    };
    let (io, pusher) = DeferredWrite::new(socket);
    let io = {
        let downstream = Rc::clone(&downstream);
        ResetWatch::new(io, move |stream| downstream.stream_was_malformed(stream))
    };
    let io = {
        let downstream = Rc::clone(&downstream);
        let allowance = FrameAllowance::new(Instant::now());
        FrameWatch::new(io, FrameJudge { downstream, allowance }, limits.1)
    };
    let connection = http2::Builder::new(StreamExecutor::new(&downstream))
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.2)
        .max_header_list_size(u32::try_from(limits.1).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(io), service);
    let connection = pin!(Pushed::new(connection, pusher));
    // A head that stays half in HTTP/2 is under `idle`, and PINGs find out whether its peer is there.
    let arriving = || false;
    let ended = drive(&downstream, connection, stopped, arriving, |connection| {
        connection.future().graceful_shutdown();
    })
    .await;
    downstream.account(ended, |error| downstream.reason_of(error));
}

/// What becomes of what an HTTP/2 client sends.
struct FrameJudge {
    downstream: Rc<Downstream>,
    allowance: FrameAllowance,
}

impl Judge for FrameJudge {
    fn allows(&mut self, kind: FrameKind) -> bool {
        let flooded = &self.downstream.flooded;
        match kind {
            FrameKind::Transfer => return true,
            FrameKind::Headers => self.allowance.on_request(),
            FrameKind::Reset { .. } | FrameKind::Control => {
                flooded.set(!self.allowance.on_control(Instant::now()));
            }
        }
        !flooded.get()
    }

    fn malformed(&mut self, stream: u32, fault: &'static str) {
        let mut faults = self.downstream.faults.borrow_mut();
        // A stream that was reset before is not reset again.
        faults.truncate(FAULTS - 1);
        faults.push_front((stream, fault));
    }
}

impl Downstream {
    fn new(accepted: Accepted, secured: Option<Secured>, socket: &Socket, http2: bool) -> Self {
        let forwarded_for = match accepted.peer {
            Peer::Ip(address) => {
                HeaderValue::from_str(&address.ip().to_canonical().to_string()).ok()
            }
            Peer::Unix => None,
        };
        let client_cert = accepted.identity.as_deref().and_then(|peer| {
            client_cert::element(peer, secured.as_ref().and_then(Secured::own_uri))
        });
        Self {
            worker: accepted.worker,
            local: accepted.local,
            peer: accepted.peer,
            original: accepted.original,
            identity: accepted.identity,
            forwarded_for,
            client_cert,
            secured,
            http2,
            activity: socket.activity(),
            clock: Clock::new(Instant::now()),
            flooded: Cell::new(false),
            counted_resets: Cell::new(0),
            faults: RefCell::default(),
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

    /// A stream is being reset as malformed, and whoever does it counts it.
    pub(super) fn count_reset_elsewhere(&self) {
        self.counted_resets.set(self.counted_resets.get() + 1);
    }

    /// Counts and logs a stream that was reset as malformed, unless that was done already.
    fn stream_was_malformed(&self, stream: u32) {
        let fault = {
            let mut faults = self.faults.borrow_mut();
            let known = faults.iter().position(|(at, _)| *at == stream);
            known.and_then(|known| faults.remove(known)).map(|(_, fault)| fault)
        };
        if fault.is_none()
            && let Some(left) = self.counted_resets.get().checked_sub(1)
        {
            self.counted_resets.set(left);
        } else if let Some(active) = self.local.active(&self.worker) {
            let error = fault.unwrap_or("a malformed HTTP/2 request");
            refused::count(&active, self.peer, Reason::DownstreamProtocol, error);
        }
    }

    /// Why we have ended an HTTP/2 connection, where it was we.
    fn reason_of(&self, error: &hyper::Error) -> Option<Reason> {
        if self.flooded.get() || is_too_much(error) {
            Some(Reason::Flood)
        } else {
            is_protocol_error(error).then_some(Reason::DownstreamProtocol)
        }
    }

    /// Counts and logs how the connection ended. `reason`: why we have ended it, if it was we.
    fn account<E: Display>(&self, ended: Ended<E>, reason: impl Fn(&E) -> Option<Reason>) {
        let Some(active) = self.local.active(&self.worker) else { return };
        let metrics = &active.listener.metrics;
        metrics.received.inc_by(self.activity.bytes_read());
        metrics.sent.inc_by(self.activity.bytes_written());
        let error = match ended {
            Ended::Served(Ok(())) | Ended::Cut => return,
            Ended::HeadTimeout => return refused::head_timed_out(&active, self.peer),
            Ended::Served(Err(error)) => error,
        };
        match reason(&error) {
            Some(reason) => refused::count(&active, self.peer, reason, &error),
            // Broken off by the peer: the requests in flight have told it.
            None => {
                tracing::debug!(listener = %active.listener.name, peer = %self.peer, %error, "connection ended");
            }
        }
    }
}

/// True where the h2 crate has ended a connection for how much its peer sent, not for what: endless heads, empty DATA, resets.
fn is_too_much(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_go_away()
            && error.is_library()
            && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// True where we have ended an HTTP/2 connection (GOAWAY) because of what its peer sent.
fn is_protocol_error(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    error.is_some_and(|error| error.is_go_away() && error.is_library())
}
