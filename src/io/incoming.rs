//! The body of a request as it comes from its caller, over either protocol.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Extensions;
use http_body::{Body, Frame, SizeHint};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_util::either::Either;

use super::body_error::BodyError;
use super::http1::wire::Wire;
use super::socket::Socket;

/// The body of a request.
#[derive(Debug)]
pub enum Incoming {
    /// Read from its connection.
    Http1(Http1Incoming),
    /// One stream's.
    Http2(hyper::body::Incoming),
}

/// The body of a request that comes over HTTP/1.
#[derive(Debug)]
pub struct Http1Incoming {
    wire: Rc<RefCell<Wire>>,
    /// Which of the connection's requests.
    number: u64,
}

/// What a caller's connection, or stream, becomes behind an answer that grants it.
#[derive(Debug)]
pub enum Upgrade {
    /// The connection.
    Http1(oneshot::Receiver<Socket>),
    /// The stream.
    Http2(OnUpgrade),
}

impl Incoming {
    /// The body of the request whose head was read last.
    pub(super) fn http1(wire: &Rc<RefCell<Wire>>) -> Self {
        Self::Http1(Http1Incoming { wire: Rc::clone(wire), number: wire.borrow().number })
    }

    /// What becomes of the connection if the answer grants what its request asks for: where that is a tunnel. `extensions` are
    /// the request's.
    pub fn upgrade(&self, extensions: &mut Extensions) -> Option<Upgrade> {
        match self {
            Self::Http1(body) => {
                let mut wire = body.wire.borrow_mut();
                if !wire.upgrades {
                    return None;
                }
                let (sender, receiver) = oneshot::channel();
                wire.tunnel = Some(sender);
                Some(Upgrade::Http1(receiver))
            }
            Self::Http2(_) => extensions.remove::<OnUpgrade>().map(Upgrade::Http2),
        }
    }
}

impl Upgrade {
    /// Waits until the answer has been sent; `None`: the caller has gone.
    pub async fn tunnel(self) -> Option<Either<Socket, TokioIo<Upgraded>>> {
        match self {
            Self::Http1(socket) => socket.await.ok().map(Either::Left),
            Self::Http2(stream) => {
                stream.await.ok().map(|stream| Either::Right(TokioIo::new(stream)))
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => {
                let mut wire = body.wire.borrow_mut();
                if wire.number != body.number {
                    return Poll::Ready(Some(Err(BodyError::ClientGone)));
                }
                wire.poll_body(cx)
            }
            Self::Http2(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map(|frame| {
                    frame.map(|frame| frame.map_err(|error| BodyError::of_read(&error)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => {
                let wire = body.wire.borrow();
                wire.number == body.number && wire.rest().is_nothing()
            }
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.wire.borrow().rest().size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
