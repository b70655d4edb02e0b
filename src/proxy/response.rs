//! The answer on its way back: streamed, bounded in time, and settled at its last byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::balance::endpoint::EndpointGuard;
use crate::base::error::Reason;
use crate::io::request_body::BodySource;
use crate::io::tick::{Alarm, Timer};
use crate::io::trailers;
use crate::net;
use crate::policy::classify;
use crate::policy::deadline::Deadline;
use crate::snapshot::Route;
use crate::upstream::{Connection, Slot};

use super::attempt::Answer;
use super::exchange::Exchange;
use super::headers;

/// The body of an answer. Its drop ends the request.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
    /// `None` where a tunnel has taken the record over.
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Kind {
    Local(Bytes),
    Forwarded(Box<Forwarded>),
}

/// A body that comes from an upstream, and what is held until its end.
#[derive(Debug)]
struct Forwarded {
    incoming: Incoming,
    request: BodySource,
    /// Taken when it is given back.
    connection: Option<Connection>,
    deadline: Timer,
    idle: Alarm,
    idle_after: Option<Duration>,
    /// Bytes of the request's body that had moved when the idle alarm was set.
    moved: u64,
    /// The caller can take trailers, and knows of them.
    trailers: bool,
    _endpoint: EndpointGuard,
    _slot: Slot,
}

/// Why an answer was cut short.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short: {0}")]
pub(crate) struct CutShort(Reason);

/// Turns an upstream's answer into ours.
pub(crate) fn pass_back(
    mut exchange: Box<Exchange>,
    route: &Route,
    answer: Answer,
    mut deadline: Deadline,
    request: BodySource,
) -> Response<ResponseBody> {
    let Answer { response, connection, mut timer, endpoint, slot } = answer;
    let (mut parts, incoming) = response.into_parts();
    let hop = headers::strip_response(&mut parts.headers);
    if let Some(seconds) = hop.keep_alive {
        connection.learn_keep_alive(seconds);
    }
    route.response_headers.apply(&mut parts.headers);
    deadline.see_response(&parts.headers);
    let cut_at = deadline.overall.filter(|_| !deadline.ends_at_head);
    timer.set(cut_at);
    exchange.downstream.cut_at(cut_at);
    exchange.status = parts.status.as_u16();
    exchange.grpc_status = classify::grpc_status(&parts.headers);
    let to_http2 = exchange.version == Version::HTTP_2;
    if !to_http2 && exchange.wants_trailers {
        announce_trailers(&mut parts.headers, exchange.grpc);
    }
    parts.version = if to_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let now = Instant::now();
    exchange.head_at = Some(now);
    let mut idle = exchange.downstream.worker.tick.alarm();
    idle.set(route.idle.map(|idle| now + idle));
    let mut forwarded = Box::new(Forwarded {
        moved: request.received(),
        trailers: to_http2 || (exchange.wants_trailers && parts.headers.contains_key(TRAILER)),
        incoming,
        request,
        connection: Some(connection),
        deadline: timer,
        idle,
        idle_after: route.idle,
        _endpoint: endpoint,
        _slot: slot,
    });
    if forwarded.incoming.is_end_stream() {
        forwarded.finish(&mut exchange);
    }
    let body = ResponseBody { kind: Kind::Forwarded(forwarded), exchange: Some(exchange) };
    Response::from_parts(parts, body)
}

/// HTTP/1 sends only trailers that the head has announced.
fn announce_trailers(headers: &mut HeaderMap, grpc: bool) {
    if grpc && !headers.contains_key(TRAILER) {
        headers.insert(TRAILER, HeaderValue::from_static("grpc-status, grpc-message"));
    }
}

impl ResponseBody {
    /// A body of our own making.
    pub(crate) fn local(mut exchange: Box<Exchange>, bytes: Bytes) -> Self {
        exchange.sent = bytes.len() as u64;
        exchange.head_at = Some(Instant::now());
        exchange.complete = true;
        Self { kind: Kind::Local(bytes), exchange: Some(exchange) }
    }

    /// Nothing; the record is kept elsewhere.
    pub(crate) fn detached() -> Self {
        Self { kind: Kind::Local(Bytes::new()), exchange: None }
    }
}

impl Forwarded {
    /// The whole answer was handed over.
    fn finish(&mut self, exchange: &mut Exchange) {
        exchange.complete = true;
        let Some(connection) = self.connection.take() else { return };
        if !self.request.is_complete() {
            // The answer came before the request's end: the connection is in the middle of a message, as the caller's is.
            self.request.abandon();
        } else if let Some(local) = &exchange.upstream {
            connection.give_back(&local.upstream.policy.pool, Instant::now());
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if self.deadline.poll_elapsed(cx).is_ready() {
            return cut(
                exchange,
                Reason::Timeout,
                "the deadline passed in the middle of the answer",
            );
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.poll_idle(cx));
            return cut(exchange, Reason::StreamIdle, "nothing moved for the route's idle time");
        };
        let frame = match frame {
            None => {
                self.finish(exchange);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.broken(exchange, &error),
            Some(Ok(frame)) => frame,
        };
        if let Some(idle) = self.idle_after {
            self.idle.set(Some(Instant::now() + idle));
        }
        if let Some(data) = frame.data_ref() {
            exchange.sent += data.len() as u64;
        }
        let frame = match frame.into_trailers() {
            Ok(trailers) => return self.end_with(trailers, exchange),
            Err(frame) => frame,
        };
        if self.incoming.is_end_stream() {
            self.finish(exchange);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Trailers are the last of an answer: hyper asks for nothing behind them.
    fn end_with(
        &mut self,
        mut trailers: HeaderMap,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        exchange.grpc_status = classify::grpc_status(&trailers).or(exchange.grpc_status);
        self.finish(exchange);
        if !self.trailers {
            exchange.downstream.worker.shared.process.trailers_dropped.inc();
            return Poll::Ready(None);
        }
        trailers::strip(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    /// Ready when neither direction has moved for the idle time.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.idle.poll_elapsed(cx));
            if self.moved == self.request.received() {
                return Poll::Ready(());
            }
            self.moved = self.request.received();
            self.idle.set(self.idle_after.map(|idle| Instant::now() + idle));
        }
    }

    fn broken(
        &self,
        exchange: &mut Exchange,
        error: &hyper::Error,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(cause) = self.request.failure() {
            return cut(exchange, cause.reason(), &cause.to_string());
        }
        let reason = net::broken_body(error);
        cut(exchange, reason, "the upstream broke off in the middle of its answer")
    }
}

/// Ends the answer so that it cannot be taken for a whole one.
fn cut(
    exchange: &mut Exchange,
    reason: Reason,
    detail: &str,
) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
    exchange.broke(reason, detail);
    if exchange.version != Version::HTTP_2 {
        // Where the end of the connection is the end of the body, only a reset tells (HTTP/1.0).
        exchange.downstream.activity.reset_on_close();
    }
    Poll::Ready(Some(Err(CutShort(reason))))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        match (&mut this.kind, &mut this.exchange) {
            (Kind::Local(bytes), _) if bytes.is_empty() => Poll::Ready(None),
            (Kind::Local(bytes), _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            (Kind::Forwarded(forwarded), Some(exchange)) => forwarded.poll_frame(cx, exchange),
            (Kind::Forwarded(_), None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Local(bytes) => bytes.is_empty(),
            Kind::Forwarded(forwarded) => forwarded.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Local(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Forwarded(forwarded) => forwarded.incoming.size_hint(),
        }
    }
}
