//! The answer on its way back: streamed, bounded in time, and settled at its last byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{PROXY_AUTHENTICATE, TRAILER};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::io::request_body::{BodyError, BodySource};
use crate::io::trailers;
use crate::net::{self, BrokenBody, UpstreamResponse};
use crate::policy::classify;
use crate::policy::deadline::Deadline;
use crate::snapshot::Route;

use super::affinity;
use super::exchange::Exchange;
use super::fields::ResponseFields;
use super::flow::Flow;
use super::reply;

/// The body of an answer. Its drop ends the request.
#[derive(Debug)]
pub(super) struct ResponseBody {
    /// What is left of an answer of our own; an upstream's comes through the record's [`Flow`].
    pub(super) local: Bytes,
    /// `None` where a tunnel has taken the record over.
    pub(super) exchange: Option<Box<Exchange>>,
}

/// Bytes handed to an HTTP/2 stream at once: a DATA frame. hyper asks for more when all of it was sent, so that each asking
/// tells that the caller reads; and no more than this waits for a caller that does not.
const PIECE: usize = 16 * 1024;

/// What comes next of an answer.
pub(super) type Piece = Poll<Option<Result<Frame<Bytes>, CutShort>>>;

/// Why an answer was cut short.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short: {0}")]
pub(super) struct CutShort(Reason);

/// Turns an upstream's answer into ours.
pub(super) fn pass_back(
    mut exchange: Box<Exchange>,
    route: &Route,
    response: UpstreamResponse,
    deadline: Deadline,
) -> Response<ResponseBody> {
    let (mut parts, incoming) = response.into_parts();
    let fields = ResponseFields::find(&parts.headers);
    fields.hop.strip(&mut parts.headers);
    if fields.proxy_authenticate {
        parts.headers.remove(PROXY_AUTHENTICATE);
    }
    route.response_headers.apply(&mut parts.headers);
    affinity::finish(&mut exchange, &mut parts.headers);
    exchange.status = parts.status.as_u16();
    let to_http2 = exchange.head.version == Version::HTTP_2;
    let trailers = to_http2 || exchange.fields.wants_trailers;
    if !to_http2 && trailers && exchange.fields.grpc && !fields.trailer {
        announce_trailers(&mut parts.headers);
    }
    parts.version = if to_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let streams = deadline.ends_at_head || fields.events;
    let cut_at = deadline.overall.filter(|_| !streams);
    let now = exchange.head_at.unwrap_or_else(Instant::now);
    exchange.downstream.limit_answer(cut_at, route.idle, now);
    if let Some(flow) = &mut exchange.flow {
        if let (Some(seconds), Some(connection)) = (fields.keep_alive, &flow.connection) {
            connection.learn_keep_alive(seconds);
        }
        flow.bound(cut_at, fields.events, now);
        flow.idle_after = route.idle;
        flow.trailers = trailers;
        let ended = incoming.is_end_stream() && !flow.holds();
        flow.incoming = Some(incoming);
        if ended {
            exchange.finish();
        }
    }
    let body = ResponseBody { local: Bytes::new(), exchange: Some(exchange) };
    Response::from_parts(parts, body)
}

/// Those of a call are known beforehand, and readers of HTTP/1 like to be told (RFC 9110 §6.6.2).
fn announce_trailers(headers: &mut HeaderMap) {
    headers.insert(TRAILER, HeaderValue::from_static("grpc-status, grpc-message"));
}

impl ResponseBody {
    /// A body of our own making.
    pub(super) fn local(mut exchange: Box<Exchange>, bytes: Bytes) -> Self {
        exchange.sent = bytes.len() as u64;
        exchange.head_at = Some(Instant::now());
        exchange.complete = true;
        Self { local: bytes, exchange: Some(exchange) }
    }

    /// Nothing; the record is kept elsewhere.
    pub(super) fn detached() -> Self {
        Self { local: Bytes::new(), exchange: None }
    }

    fn flow(&self) -> Option<&Flow> {
        self.exchange.as_ref()?.flow.as_deref()
    }

    fn incoming(&self) -> Option<&net::ResponseBody> {
        self.flow()?.incoming.as_ref()
    }
}

impl Exchange {
    /// The whole answer was handed over.
    pub(super) fn finish(&mut self) {
        self.complete = true;
        let (status, now) = (self.grpc_status, Instant::now());
        // The upstream has said all: however slow the caller reads, its place is free.
        let taken = self.flow.as_mut().and_then(|flow| {
            if let Some(held) = &mut flow.held {
                held.whole(status, now);
            }
            flow.held = None;
            flow.connection.take()
        });
        if let Some(body) = self.body.as_ref().filter(|body| !body.is_complete()) {
            // The answer came before the request's end: the connection is in the middle of a message, as the caller's is.
            body.abandon();
        } else if let (Some(connection), Some(local)) = (taken, &self.upstream) {
            connection.give_back(&local.upstream.policy.pool, now);
        }
    }

    /// Bytes that have moved in either direction, and one: nothing is not yet looked at.
    pub(super) fn moved(&self) -> u64 {
        self.sent + self.body.as_ref().map_or(0, BodySource::received) + 1
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Piece {
        let moved = self.moved();
        self.downstream.turn().ask();
        let Some(flow) = &mut self.flow else { return Poll::Ready(None) };
        if flow.is_over(cx) {
            if flow.waits(cx) {
                flow.broken(Reason::Timeout);
            }
            return self.cut(Reason::Timeout, "the deadline passed in the middle of the answer");
        }
        let Some(incoming) = &mut flow.incoming else { return Poll::Ready(None) };
        if !flow.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_piece())));
        }
        if let Some(fields) = flow.read_trailers.take() {
            let passed_on = flow.trailers;
            return self.end_with(fields, passed_on);
        }
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            ready!(flow.poll_idle(cx, &self.downstream.worker.tick, moved));
            flow.broken(Reason::StreamIdle);
            return self.cut(Reason::StreamIdle, "nothing moved for the route's idle time");
        };
        let frame = match frame {
            None => {
                self.finish();
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.broken(&error),
            Some(Ok(frame)) => frame,
        };
        match frame.into_trailers() {
            Ok(fields) => {
                let passed_on = flow.trailers;
                self.end_with(fields, passed_on)
            }
            Err(frame) => {
                flow.rest = frame.into_data().unwrap_or_default();
                Poll::Ready(Some(Ok(self.next_piece())))
            }
        }
    }

    /// What is handed over at once.
    fn next_piece(&mut self) -> Frame<Bytes> {
        let Some(flow) = &mut self.flow else { return Frame::data(Bytes::new()) };
        let most = if self.head.version == Version::HTTP_2 { PIECE } else { usize::MAX };
        let piece = if flow.rest.len() <= most {
            std::mem::take(&mut flow.rest)
        } else {
            flow.rest.split_to(most)
        };
        self.sent += piece.len() as u64;
        if flow.rest.is_empty() && flow.incoming.as_ref().is_none_or(Body::is_end_stream) {
            self.finish();
        }
        Frame::data(piece)
    }

    /// Trailers are the last of an answer: nobody asks for more.
    fn end_with(&mut self, mut fields: HeaderMap, passed_on: bool) -> Piece {
        self.grpc_status = classify::grpc_status(&fields).or(self.grpc_status);
        self.finish();
        if !passed_on {
            self.downstream.worker.shared.process.trailers_dropped.inc();
            return Poll::Ready(None);
        }
        trailers::strip(&mut fields);
        Poll::Ready(Some(Ok(Frame::trailers(fields))))
    }

    pub(super) fn broken(&mut self, error: &BrokenBody) -> Piece {
        let failure = self.body.as_ref().and_then(BodySource::failure);
        if let Some(flow) = &mut self.flow {
            flow.broken(failure.map_or_else(|| error.reason(), BodyError::reason));
        }
        if let Some(cause) = failure {
            return self.cut(cause.reason(), &cause.to_string());
        }
        self.cut(error.reason(), "the upstream broke off in the middle of its answer")
    }

    /// Ends the answer so that it cannot be taken for a whole one.
    pub(super) fn cut(&mut self, reason: Reason, detail: &str) -> Piece {
        self.broke(reason, detail);
        if self.head.version != Version::HTTP_2 {
            // Where the end of the connection is the end of the body, only a reset tells (HTTP/1.0).
            self.downstream.activity.reset_on_close();
        } else if self.fields.grpc {
            // A call has its own way to say how it ended; of a reset the caller would only know that something is wrong.
            let mut fields = HeaderMap::new();
            let code = classify::grpc_code(reason);
            reply::write_grpc_status(&mut fields, code, reason, detail);
            fields.insert(reply::REASON, HeaderValue::from_static(reason.word()));
            self.grpc_status = Some(code);
            self.flow = None;
            return Poll::Ready(Some(Ok(Frame::trailers(fields))));
        }
        Poll::Ready(Some(Err(CutShort(reason))))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        let this = self.get_mut();
        if !this.local.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.local)))));
        }
        match &mut this.exchange {
            Some(exchange) => exchange.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.local.is_empty()
            && self.flow().is_none_or(|flow| !flow.holds())
            && self.incoming().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(incoming) = self.incoming() else {
            return SizeHint::with_exact(self.local.len() as u64);
        };
        let (to_come, read) = (incoming.size_hint(), self.flow().map_or(0, |flow| flow.rest.len()));
        let mut hint = SizeHint::new();
        hint.set_lower(to_come.lower() + read as u64);
        if let Some(upper) = to_come.upper() {
            hint.set_upper(upper + read as u64);
        }
        hint
    }
}
