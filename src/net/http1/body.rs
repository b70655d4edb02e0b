//! The body of an answer, read straight from its connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use crate::io::http1::chunked::Step;
use crate::io::http1::framing::{Framing, Malformed};
use crate::io::http1::rest::Rest;
use crate::io::socket::Socket;
use crate::io::splice::{Pipe, Splice, WORTHWHILE};
use crate::net::BrokenBody;

use super::wire::{Ended, Wire};

/// The body of an HTTP/1 answer. Its end gives the connection free.
#[derive(Debug)]
pub struct Http1Body {
    /// `None` once the answer has ended.
    wire: Option<Rc<RefCell<Wire>>>,
    rest: Rest,
    keep_alive: bool,
    /// Something was handed over since the reader was last told to wait: the head, or a piece.
    handed_over: bool,
    /// Why it broke off, until the reader is told.
    broken: Option<BrokenBody>,
    /// Sends what was left of the request when the answer began.
    sender: Option<AbortOnDropHandle<()>>,
}

impl Http1Body {
    pub(super) fn new(
        wire: &Rc<RefCell<Wire>>,
        framing: Framing,
        keep_alive: bool,
        sender: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let mut body = Self { rest: framing.into(), keep_alive, sender, ..Self::tunnel(wire) };
        if body.rest.is_nothing() {
            body.end();
        }
        body
    }

    /// What follows a 101: the connection itself.
    pub(super) fn tunnel(wire: &Rc<RefCell<Wire>>) -> Self {
        Self {
            wire: Some(Rc::clone(wire)),
            rest: Rest::Nothing,
            keep_alive: false,
            handed_over: true,
            broken: None,
            sender: None,
        }
    }

    pub(in crate::net) fn into_tunnel(self) -> Option<Socket> {
        self.wire.and_then(|wire| wire.borrow_mut().take_tunnel())
    }

    /// Nothing more is read: the connection is free, or closed.
    fn end(&mut self) {
        self.sender = None;
        if let Some(wire) = self.wire.take() {
            wire.borrow_mut().end(self.keep_alive);
        }
    }

    /// The next piece; `None`: the end.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, BrokenBody>> {
        let Some(wire) = &self.wire else { return Poll::Ready(Ok(None)) };
        let mut wire = wire.borrow_mut();
        if self.sender.is_some() {
            wire.watch_rest(cx).map_err(BrokenBody::from)?;
        }
        loop {
            match self.rest.take(wire.unread())? {
                Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Step::End(trailers) => return Poll::Ready(Ok(trailers.map(Frame::trailers))),
                Step::More => {}
            }
            match ready!(wire.poll_more(cx, self.rest.is_large())) {
                Ok(()) => {}
                Err(Ended::Closed) if matches!(self.rest, Rest::UntilClose) => {
                    self.rest = Rest::Nothing;
                    return Poll::Ready(Ok(None));
                }
                Err(ended) => return Poll::Ready(Err(ended.into())),
            }
        }
    }
}

impl Splice for Http1Body {
    type Error = BrokenBody;

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Option<Pipe>,
    ) -> Poll<Option<Result<usize, BrokenBody>>> {
        let (Rest::Length(left), Some(wire)) = (&mut self.rest, &self.wire) else {
            return Poll::Ready(None);
        };
        if *left < WORTHWHILE && pipe.is_none() || self.sender.is_some() || self.broken.is_some() {
            return Poll::Ready(None);
        }
        let spliced = ready!(wire.borrow_mut().poll_splice(cx, pipe, *left));
        let moved = match spliced {
            None => return Poll::Ready(None),
            Some(Err(ended)) => {
                self.keep_alive = false;
                self.end();
                return Poll::Ready(Some(Err(ended.into())));
            }
            Some(Ok(moved)) => moved,
        };
        *left -= moved as u64;
        if *left == 0 {
            self.rest = Rest::Nothing;
            self.end();
        }
        Poll::Ready(Some(Ok(moved)))
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = self.get_mut();
        if let Some(broken) = this.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match this.poll_piece(cx) {
            Poll::Pending => {
                this.handed_over = false;
                Poll::Pending
            }
            Poll::Ready(Ok(piece)) => {
                this.handed_over = true;
                if this.rest.is_nothing() {
                    this.end();
                }
                Poll::Ready(piece.map(Ok))
            }
            Poll::Ready(Err(broken)) => {
                this.keep_alive = false;
                this.end();
                if !this.handed_over {
                    return Poll::Ready(Some(Err(broken)));
                }
                // What came before goes out first: an error would take it back.
                this.broken = Some(broken);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_nothing()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }
}

impl From<Ended> for BrokenBody {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => Self::Closed,
            Ended::Reset | Ended::Request | Ended::Refused(_) => Self::Reset,
        }
    }
}

impl From<Malformed> for BrokenBody {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}
