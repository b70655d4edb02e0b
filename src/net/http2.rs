//! One HTTP/2 connection to an upstream, shared by the requests of a worker.

mod body;
mod driver;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason as H2Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use prometheus::IntCounter;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::io::deferred_write::{DeferredWrite, Pushed};
use crate::io::request_body::RequestBody;
use crate::io::socket::Socket;

use super::{MAX_INTERIM, MadeWith, RequestHead, ResponseBody, SendFailure, UpstreamResponse};

pub use body::Http2Body;

use driver::Driver;
use upload::{Broken, Upload};

/// Flow control: one stream may have 1 MiB under way, a connection 4 MiB, so that no stream stalls the others at
/// ordinary latencies while a stalled reader still bounds our memory.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Bytes of a stream that wait in memory for the peer's window.
const SEND_BUFFER: usize = 1 << 20;

/// Bytes of a response's head.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection that carries many requests at once. Clones share it; it ends when all of them and their streams are gone.
#[derive(Debug, Clone)]
pub struct Http2 {
    made_with: MadeWith,
    handle: Rc<Handle>,
}

/// What all clones have in common. The driver's side of it is behind a second counter: it must notice when this one is gone.
#[derive(Debug)]
struct Handle {
    shared: Rc<Shared>,
    /// Never sends: streams are opened by clones of it, and it is asked how the connection is.
    send: RefCell<SendRequest<Bytes>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // h2 does not tell a resting connection that nobody will send on it any more.
        if let Some(driver) = self.shared.driver.take() {
            driver.wake();
        }
    }
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
    /// The connection's task has ended.
    ended: Cell<bool>,
    /// The connection's task.
    driver: RefCell<Option<Waker>>,
    /// Counts answers that are not passed on (1xx).
    interim: IntCounter,
}

impl Shared {
    fn note_driver(&self, waker: &Waker) {
        match &mut *self.driver.borrow_mut() {
            Some(driver) => driver.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Http2 {
    /// Starts HTTP/2 with prior knowledge on a connected socket, and waits for the peer's SETTINGS: before them nobody knows
    /// how many streams it takes, nor whether it speaks HTTP/2 at all. `interim` counts answers that are not passed on.
    /// `held` is dropped when the connection has ended.
    ///
    /// # Errors
    /// [`NotStarted`]: nothing of a request was sent yet.
    pub async fn start(
        socket: Socket,
        now: Instant,
        interim: IntCounter,
        held: impl Sized + 'static,
    ) -> Result<Self, NotStarted> {
        let activity = socket.activity();
        let (io, pusher) = DeferredWrite::new(socket);
        let (send, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(0)
            .handshake(io)
            .await
            .map_err(|_| NotStarted)?;
        let shared = Rc::new(Shared {
            made: now,
            used: Cell::new(0),
            streams: Cell::new(0),
            max_streams: Cell::new(0),
            idle_since: Cell::new(now),
            ended: Cell::new(false),
            driver: RefCell::new(None),
            interim,
        });
        let driver = Driver::new(connection, Rc::clone(&shared), activity);
        let mut driving = Pushed::new(driver, pusher);
        poll_fn(|cx| match Pin::new(&mut driving).poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(NotStarted)),
            Poll::Pending if shared.max_streams.get() == 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        // It ends with its handles and streams.
        drop(tokio::task::spawn_local(async move {
            driving.await;
            drop(held);
        }));
        let handle = Handle { shared, send: RefCell::new(send) };
        Ok(Self { made_with: None, handle: Rc::new(handle) })
    }

    /// The same, made with a set of certificates.
    #[must_use]
    pub fn made_with(self, made_with: MadeWith) -> Self {
        Self { made_with, ..self }
    }

    /// When it takes no further request because its set was replaced.
    pub fn ends_at(&self) -> Option<Instant> {
        self.made_with.as_ref()?.ends_at(self.shared().made)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// True when the connection has ended or is ending.
    pub fn is_closed(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        // Not pending: nothing is sent by this handle. An error is the connection's, a GOAWAY among them.
        self.shared().ended.get()
            || matches!(self.handle.send.borrow_mut().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// True when the peer takes another stream now.
    pub fn has_room(&self) -> bool {
        self.shared().streams.get() < self.shared().max_streams.get()
    }

    /// Since when no stream is open; `None` while there are some.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.shared().streams.get() == 0).then(|| self.shared().idle_since.get())
    }

    /// Requests sent on it.
    pub fn used(&self) -> u64 {
        self.shared().used.get()
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.shared().made
    }

    /// Counts a stream until the guard is dropped.
    pub fn open_stream(&self) -> StreamGuard {
        self.shared().streams.set(self.shared().streams.get() + 1);
        self.shared().used.set(self.shared().used.get() + 1);
        StreamGuard(Rc::clone(&self.handle.shared))
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
        let mut send = self.handle.send.borrow().clone();
        if poll_fn(|cx| send.poll_ready(cx)).await.is_err() {
            return Err(SendFailure::NotSent);
        }
        let whole = body.is_end_stream();
        let (mut answer, stream) = match send.send_request(request(head, &body), whole) {
            Ok(sent) => sent,
            Err(error) if error.is_io() || error.is_go_away() => return Err(SendFailure::NotSent),
            Err(error) => return Err(failure(&error)),
        };
        let mut upload = (!whole).then(|| Upload::new(body, stream));
        let mut interim = 0;
        let response = poll_fn(|cx| {
            if let Some(sending) = &mut upload
                && !sending.has_ended()
                && let Poll::Ready(Err(Broken::Body(error))) = sending.poll(cx)
            {
                return Poll::Ready(Err(SendFailure::Body(error)));
            }
            interim += self.skip_interim(&mut answer, cx);
            if interim > MAX_INTERIM {
                let what = "too many interim answers".to_owned();
                return Poll::Ready(Err(SendFailure::Protocol(what)));
            }
            Pin::new(&mut answer).poll(cx).map_err(|error| failure(&error))
        })
        .await?;
        let upload = upload.filter(|upload| !upload.has_ended()).map(send_rest);
        let (head, stream) = response.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(length);
        let body = ResponseBody::Http2(Http2Body::new(stream, length, upload));
        Ok(Response::from_parts(head, body))
    }

    /// Takes what interim answers have come, and counts them.
    fn skip_interim(&self, answer: &mut ResponseFuture, cx: &mut Context<'_>) -> u32 {
        let mut skipped = 0;
        while let Poll::Ready(Some(Ok(_))) = answer.poll_informational(cx) {
            self.shared().interim.inc();
            skipped += 1;
        }
        skipped
    }
}

/// Sends on what is left of a request whose answer has begun: the caller may read nothing before it has sent everything.
fn send_rest(mut upload: Upload) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::task::spawn_local(async move {
        // A body that fails has reset the stream, which its reader hears of.
        let _ended = poll_fn(|cx| upload.poll(cx)).await;
    }))
}

fn request(head: &RequestHead<'_>, body: &RequestBody) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.target.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut fields = head.to_map();
    // A known length is told, as over HTTP/1; that there is no body, where one is expected (RFC 9110 §8.6).
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || matches!(*head.method, Method::POST | Method::PUT | Method::PATCH))
        && !fields.contains_key(CONTENT_LENGTH)
    {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *request.headers_mut() = fields;
    request
}

fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
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

fn failure(cause: &h2::Error) -> SendFailure {
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

#[cfg(test)]
mod tests;
