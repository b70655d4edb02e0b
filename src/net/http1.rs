//! One HTTP/1.1 connection to an upstream.

use std::io;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::io::request_body::RequestBody;
use crate::io::socket::{Activity, Socket};

use super::{SendFailure, UpstreamRequest, UpstreamResponse, body_error, find_source};

/// Bytes of a response's head; more is an error of the upstream. The same as for requests. (Of headers hyper takes 100: it
/// would allocate for each message where another number is set.)
const MAX_HEAD: usize = 64 * 1024;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Http1 {
    send: http1::SendRequest<RequestBody>,
    activity: Arc<Activity>,
    made: Instant,
    used: u64,
}

impl Http1 {
    /// Starts HTTP/1.1 on a connected socket. `held` is dropped when the connection has ended: permits and gauges.
    ///
    /// # Errors
    /// hyper's, where its task could not start.
    pub async fn start(
        socket: Socket,
        now: Instant,
        held: impl Sized + 'static,
    ) -> Result<Self, SendFailure> {
        let activity = socket.activity();
        let (send, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| SendFailure::NotSent)?;
        // Ends when the peer closes, or when `send` and the body of the last response are dropped.
        drop(tokio::task::spawn_local(async move {
            // What went wrong is told to the request; an idle connection that ends is nothing to tell.
            let _ended = connection.with_upgrades().await;
            drop(held);
        }));
        Ok(Self { send, activity, made: now, used: 0 })
    }

    /// Waits until another request may be sent. `false`: the connection has ended.
    pub async fn ready(&mut self) -> bool {
        self.send.is_ready() || self.send.ready().await.is_ok()
    }

    /// True when the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// True when an earlier request was sent on it: it may be closing just now. Asked before the next is sent.
    pub fn is_reused(&self) -> bool {
        self.used > 0
    }

    /// Requests sent on it.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// Sends `request` (origin-form target, `Host` set) and waits for the response's head.
    ///
    /// # Errors
    /// [`SendFailure`], with what is certain about how far the request got.
    pub async fn send(
        &mut self,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, SendFailure> {
        self.used += 1;
        let (read, written) = (self.activity.bytes_read(), self.activity.bytes_written());
        match self.send.try_send_request(request).await {
            Ok(response) => match ambiguous(&response) {
                None => Ok(response),
                Some(what) => Err(SendFailure::Protocol(what.to_owned())),
            },
            Err(mut error) => {
                let unsent =
                    error.take_message().is_some() || self.activity.bytes_written() == written;
                let answered = self.activity.bytes_read() > read;
                Err(failure(error.error(), unsent, answered))
            }
        }
    }
}

/// What of a response's framing could be read in two ways, or not be passed on (RFC 9112 §6.3). hyper takes the chunks
/// and leaves the length in the head; it takes off `chunked` and nothing below it.
fn ambiguous(response: &UpstreamResponse) -> Option<&'static str> {
    if response.body().is_end_stream() {
        return None;
    }
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return match length {
            Some(_) => Some("both Content-Length and Transfer-Encoding"),
            None if !chunked || codings.next().is_some() => {
                Some("a Transfer-Encoding other than one `chunked`")
            }
            None => None,
        };
    }
    let several = lengths.next().is_some()
        || length.is_some_and(|length| !length.as_bytes().iter().all(u8::is_ascii_digit));
    several.then_some("Content-Length is not one number")
}

fn failure(error: &hyper::Error, unsent: bool, answered: bool) -> SendFailure {
    if let Some(error) = body_error(error) {
        return SendFailure::Body(error);
    }
    if error.is_parse() {
        return SendFailure::Protocol(error.to_string());
    }
    if unsent {
        return SendFailure::NotSent;
    }
    let reset = find_source::<io::Error>(error)
        .is_some_and(|error| error.kind() != io::ErrorKind::UnexpectedEof);
    match (answered, reset) {
        (false, _) => SendFailure::Closed,
        (true, true) => SendFailure::Reset,
        (true, false) => SendFailure::Protocol(error.to_string()),
    }
}
