//! One HTTP/1.1 connection to an upstream: a client of our own over httparse.
//!
//! No task belongs to a connection. Whoever sends a request drives it: the head goes out, with the first of the body where
//! that is there already, and the answer's head is read by the same future. The answer's body then reads straight from the
//! socket. A connection that rests is a socket and nothing else: the pool looks at it before it gives it out and about once a
//! second, which costs no system call as long as nothing has come.
//!
//! Where the answer begins before the request has ended, what is left of the request is sent by a task of its own: the caller
//! may read nothing before it has sent everything.

mod body;
mod encode;
mod head;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;
mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use http::{HeaderMap, Method, Response, StatusCode};
use prometheus::IntCounter;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::io::http1::framing::Framing;
use crate::io::http1::outgoing::{self, Outgoing};
use crate::io::request_body::RequestBody;
use crate::io::socket::Socket;

use super::{MadeWith, RequestHead, ResponseBody, SendFailure, UpstreamResponse};

pub use body::Http1Body;

use wire::{Awaited, Wire};

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Http1 {
    wire: Rc<RefCell<Wire>>,
    made: Instant,
    made_with: MadeWith,
    used: u64,
}

impl Http1 {
    /// Speaks HTTP/1.1 on a connected socket. `interim` counts answers that are not passed on (1xx but 100 and 101).
    pub fn new(socket: Socket, now: Instant, interim: IntCounter) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(socket, interim)));
        Self { wire, made: now, made_with: None, used: 0 }
    }

    /// The same, made with a set of certificates.
    #[must_use]
    pub fn made_with(self, made_with: MadeWith) -> Self {
        Self { made_with, ..self }
    }

    /// When it takes no further request because its set was replaced.
    pub fn ends_at(&self) -> Option<Instant> {
        self.made_with.as_ref()?.ends_at(self.made)
    }

    /// True when it may carry another request: the last one and its answer have ended, and the peer has neither closed it nor
    /// said anything since.
    pub fn is_open(&self) -> bool {
        self.wire.borrow_mut().is_open()
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

    /// Sends a request (`Host` set) and waits for the response's head.
    ///
    /// # Errors
    /// [`SendFailure`], with what is certain about how far the request got.
    pub async fn send(
        &mut self,
        head: &RequestHead<'_>,
        body: RequestBody,
    ) -> Result<UpstreamResponse, SendFailure> {
        self.used += 1;
        let mut awaited = self.begin(head, body);
        let head = poll_fn(|cx| self.wire.borrow_mut().poll_answer(cx, &mut awaited)).await?;
        let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            Http1Body::tunnel(&self.wire)
        } else {
            // An answer without a body has ended: whatever is left of the request has no reader.
            let sender = if head.framing == Framing::None { None } else { self.send_rest() };
            Http1Body::new(&self.wire, head.framing, head.keep_alive, sender)
        };
        let mut response = Response::new(ResponseBody::Http1(body));
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        Ok(response)
    }

    /// Hands the request over.
    fn begin(&self, head: &RequestHead<'_>, body: RequestBody) -> Awaited {
        let body = (!http_body::Body::is_end_stream(&body)).then_some(body);
        let size = body.as_ref().map(http_body::Body::size_hint);
        let mut text = outgoing::text();
        let encoding = encode::head(&mut text, head, size.as_ref());
        self.wire.borrow_mut().begin(Outgoing::new(text, body, encoding));
        Awaited::new(head.method == Method::HEAD, HeaderMap::new())
    }

    /// Sends on what is left of a request whose answer has begun.
    fn send_rest(&self) -> Option<AbortOnDropHandle<()>> {
        if !self.wire.borrow().outgoing.is_open() {
            return None;
        }
        // The connection ends with its handle and its body, not with this.
        let wire = Rc::downgrade(&self.wire);
        let sending = poll_fn(move |cx| match wire.upgrade() {
            Some(wire) => wire.borrow_mut().poll_rest(cx),
            None => Poll::Ready(()),
        });
        Some(AbortOnDropHandle::new(tokio::task::spawn_local(sending)))
    }
}

#[cfg(test)]
mod tests;
