//! One HTTP/2 connection to an upstream, shared by the requests of a worker.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason as H2Reason;
use http::{Request, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::io::deferred_write::{DeferredWrite, PushingExecutor};
use crate::io::request_body::RequestBody;
use crate::io::socket::Socket;

use super::{
    MadeWith, RequestHead, ResponseBody, SendFailure, UpstreamResponse, body_error, find_source,
};

/// Flow control: one stream may have 1 MiB under way, a connection 4 MiB, so that no stream stalls the others at
/// ordinary latencies while a stalled reader still bounds our memory.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Bytes of a response's head.
const MAX_HEAD: u32 = 64 * 1024;

/// PING after this silence while streams are open, and how long an answer may take: a vanished peer costs 40 s at most.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A connection that carries many requests at once. Clones share it.
#[derive(Debug, Clone)]
pub struct Http2 {
    send: http2::SendRequest<RequestBody>,
    made_with: MadeWith,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    made: Instant,
    used: Cell<u64>,
    streams: Cell<usize>,
    /// What the peer's SETTINGS allow, as of the last turn of the connection's task.
    max_streams: Cell<usize>,
    /// Since when no stream is open.
    idle_since: Cell<Instant>,
}

impl Http2 {
    /// Starts HTTP/2 with prior knowledge on a connected socket, and waits for the peer's SETTINGS: before them nobody knows
    /// how many streams it takes, nor whether it speaks HTTP/2 at all. `held` is dropped when the connection has ended.
    ///
    /// # Errors
    /// [`NotStarted`]: nothing of a request was sent yet.
    pub async fn start(
        socket: Socket,
        now: Instant,
        held: impl Sized + 'static,
    ) -> Result<Self, NotStarted> {
        let (io, pusher) = DeferredWrite::new(socket);
        let executor = PushingExecutor::new(pusher.clone());
        let (send, mut connection) = http2::Builder::new(executor.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| NotStarted)?;
        std::future::poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx).is_ready();
            // hyper reads in a task of its own, which does not tell this one of SETTINGS.
            pusher.wake_on_read(cx.waker());
            match connection.current_max_send_streams() {
                _ if ended => Poll::Ready(Err(NotStarted)),
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        })
        .await?;
        let shared = Rc::new(Shared {
            made: now,
            used: Cell::new(0),
            streams: Cell::new(0),
            max_streams: Cell::new(connection.current_max_send_streams()),
            idle_since: Cell::new(now),
        });
        let seen = Rc::clone(&shared);
        hyper::rt::Executor::execute(&executor, async move {
            // What went wrong is told to the streams.
            let _ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                seen.max_streams.set(connection.current_max_send_streams());
                polled
            })
            .await;
            drop(held);
        });
        Ok(Self { send, made_with: None, shared })
    }

    /// The same, made with a set of certificates.
    #[must_use]
    pub fn made_with(self, made_with: MadeWith) -> Self {
        Self { made_with, ..self }
    }

    /// When it takes no further request because its set was replaced.
    pub fn ends_at(&self) -> Option<Instant> {
        self.made_with.as_ref()?.ends_at(self.shared.made)
    }

    /// True when the connection has ended or is ending.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// True when the peer takes another stream now.
    pub fn has_room(&self) -> bool {
        self.shared.streams.get() < self.shared.max_streams.get()
    }

    /// Since when no stream is open; `None` while there are some.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.shared.streams.get() == 0).then(|| self.shared.idle_since.get())
    }

    /// Requests sent on it.
    pub fn used(&self) -> u64 {
        self.shared.used.get()
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.shared.made
    }

    /// Counts a stream until the guard is dropped.
    pub fn open_stream(&self) -> StreamGuard {
        self.shared.streams.set(self.shared.streams.get() + 1);
        self.shared.used.set(self.shared.used.get() + 1);
        StreamGuard(Rc::clone(&self.shared))
    }

    /// Sends a request (absolute-form target) and waits for the response's head.
    ///
    /// # Errors
    /// [`SendFailure`], with what the protocol guarantees.
    pub async fn send(
        &mut self,
        head: &RequestHead<'_>,
        body: RequestBody,
    ) -> Result<UpstreamResponse, SendFailure> {
        if self.send.ready().await.is_err() {
            return Err(SendFailure::NotSent);
        }
        match self.send.try_send_request(request(head, body)).await {
            Ok(response) => Ok(response.map(ResponseBody::Http2)),
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                Err(failure(error.error(), unsent))
            }
        }
    }
}

fn request(head: &RequestHead<'_>, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.target.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.to_map();
    request
}

/// The peer ended the connection before it said anything in HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream does not answer in HTTP/2")]
pub struct NotStarted;

/// One stream of a connection.
#[derive(Debug)]
pub struct StreamGuard(Rc<Shared>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if self.0.streams.get() == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

fn failure(error: &hyper::Error, unsent: bool) -> SendFailure {
    if let Some(error) = body_error(error) {
        return SendFailure::Body(error);
    }
    if unsent {
        return SendFailure::NotSent;
    }
    let Some(cause) = find_source::<h2::Error>(error) else { return SendFailure::Closed };
    // RFC 9113 §8.7: a REFUSED_STREAM was not processed, nor was a stream above the last one of a GOAWAY; streams
    // below it are not failed by the GOAWAY itself.
    let goaway = cause.is_go_away() && cause.is_remote();
    if cause.reason() == Some(H2Reason::REFUSED_STREAM) || goaway {
        return SendFailure::Refused;
    }
    if cause.is_io() {
        return SendFailure::Closed;
    }
    if cause.is_library() {
        return SendFailure::Protocol(cause.to_string());
    }
    SendFailure::Reset
}
