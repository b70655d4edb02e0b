//! A caller's connection, as its loop, the body of its request and a tunnel share it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use crate::io::body_error::BodyError;
use crate::io::socket::Socket;
use crate::io::splice::{Pipe, SpliceTo};

use super::blocks::Unread;
use super::chunked::Step;
use super::framing::Scan;
use super::request::{self, Head, HeadLimits, Refusal};
use super::rest::Rest;

/// What asks a caller for the body that it holds back (RFC 9110 §10.1.1).
const HUNDRED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a connection ends that could not be served to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What came is not to be answered.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The caller has left, or its answer broke off.
    #[error("the connection was broken off")]
    Gone,
}

#[derive(Debug)]
pub(in crate::io) struct Wire {
    /// `None` when it was handed over to a tunnel.
    socket: Option<Socket>,
    /// Read, and not yet used.
    unread: Unread,
    /// Of the request's body.
    rest: Rest,
    /// Why that body has failed.
    failed: Option<BodyError>,
    /// Counts requests: the body of an earlier one reads nothing.
    pub(in crate::io) number: u64,
    hundred: Hundred,
    /// The request wants to leave HTTP behind.
    pub(in crate::io) upgrades: bool,
    /// Who gets the connection then.
    pub(in crate::io) tunnel: Option<oneshot::Sender<Socket>>,
    /// No further request is taken.
    pub(super) ending: bool,
}

/// Whether the caller waits to be asked for its body.
#[derive(Debug, Clone, Copy)]
enum Hundred {
    No,
    Waits,
    /// It is being asked; so much is still to be sent.
    Asked(&'static [u8]),
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            unread: Unread::default(),
            rest: Rest::Nothing,
            failed: None,
            number: 0,
            hundred: Hundred::No,
            upgrades: false,
            tunnel: None,
            ending: false,
        }
    }

    /// The next request's head; `None`: the caller sends no more, or may not.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut Scan,
        limits: &HeadLimits,
    ) -> Poll<Result<Option<Head>, Fault>> {
        loop {
            if !self.unread.bytes.is_empty()
                && let Some(head) = request::parse(&mut self.unread.bytes, scan, limits)?
            {
                self.begin(&head);
                return Poll::Ready(Ok(Some(head)));
            }
            match self.poll_more(cx, false) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if self.unread.bytes.is_empty() => {
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                Poll::Pending if self.ending && self.unread.bytes.is_empty() => {
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending => {
                    self.unread.keep_apart();
                    return Poll::Pending;
                }
            }
        }
    }

    fn begin(&mut self, head: &Head) {
        self.number += 1;
        self.rest = head.framing.into();
        self.failed = None;
        self.upgrades = head.upgrades;
        self.tunnel = None;
        self.unread.begin();
        self.hundred = if head.expects { Hundred::Waits } else { Hundred::No };
    }

    /// Reads more; false at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>, large: bool) -> Poll<io::Result<bool>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(false)) };
        self.unread.poll_more(socket, cx, large)
    }

    /// The next piece of the request's body.
    pub(in crate::io) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(failed) = self.failed {
            return Poll::Ready(Some(Err(failed)));
        }
        if ready!(self.poll_hundred(cx)).is_err() {
            return self.fail(BodyError::ClientGone);
        }
        loop {
            match self.rest.take(&mut self.unread.bytes) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::End(trailers)) => {
                    return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
                }
                Ok(Step::More) => {}
                Err(_) => return self.fail(BodyError::Malformed),
            }
            let large = self.rest.is_large();
            match ready!(self.poll_more(cx, large)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return self.fail(BodyError::ClientGone),
            }
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = Some(error);
        Poll::Ready(Some(Err(error)))
    }

    /// Asks the caller for its body, where it waits for that.
    fn poll_hundred(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.hundred, Hundred::Waits) {
            // Where it did not wait there is nothing to ask for.
            let waits = self.unread.bytes.is_empty();
            self.hundred = if waits { Hundred::Asked(HUNDRED) } else { Hundred::No };
        }
        let Hundred::Asked(left) = &mut self.hundred else { return Poll::Ready(Ok(())) };
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        while !left.is_empty() {
            let sent = ready!(Pin::new(&mut *socket).poll_write(cx, left))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *left = &left[sent..];
        }
        ready!(Pin::new(socket).poll_flush(cx))?;
        self.hundred = Hundred::No;
        Poll::Ready(Ok(()))
    }

    /// What has to be written before the answer: what is left of a `100 Continue`. None is sent from here on.
    pub(super) fn begin_answer(&mut self) -> &'static [u8] {
        match std::mem::replace(&mut self.hundred, Hundred::No) {
            Hundred::Asked(left) if left.len() < HUNDRED.len() => left,
            _ => b"",
        }
    }

    /// True when something was read of what should be a head: more than the empty lines that may stand before one.
    pub(super) fn has_begun_head(&self) -> bool {
        self.unread.bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    #[cfg(test)]
    pub(super) fn unread_length(&self) -> usize {
        self.unread.bytes.len()
    }

    pub(in crate::io) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// True where an answer may be moved to the caller inside the kernel.
    pub(super) fn can_splice(&self) -> bool {
        self.socket.as_ref().is_some_and(Socket::can_splice)
    }

    /// Ready when the caller has gone: nobody wants the answer. Looked for behind a request that is whole and as long as
    /// nothing has come behind it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.rest.is_nothing() || !self.unread.bytes.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_more(cx, false)) {
            Ok(true) => Poll::Pending,
            Ok(false) | Err(_) => Poll::Ready(()),
        }
    }

    /// The answer was sent. Skips what is left of the request, as far as it is here. False where more is still to come, or
    /// nobody knows where it ends.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) -> bool {
        self.number += 1;
        if self.failed.is_some() {
            return false;
        }
        for last in [false, true] {
            loop {
                match self.rest.take(&mut self.unread.bytes) {
                    Ok(Step::Data(_)) => {}
                    Ok(Step::End(_)) => return true,
                    Ok(Step::More) => break,
                    Err(_) => return false,
                }
            }
            let large = self.rest.is_large();
            if last || !matches!(self.poll_more(cx, large), Poll::Ready(Ok(true))) {
                return false;
            }
        }
        false
    }

    /// True where the caller may still be sending what nobody reads.
    pub(super) fn may_be_sending(&self) -> bool {
        self.failed.is_some() || !self.rest.is_nothing() || !self.unread.bytes.is_empty()
    }

    /// Reads what nobody wants; its length, 0 at the end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.unread.bytes = Bytes::new();
        let more = ready!(self.poll_more(cx, false))?;
        Poll::Ready(Ok(if more { self.unread.bytes.len() } else { 0 }))
    }

    /// Gives the connection to whoever waits for its tunnel, with what came behind the request.
    pub(super) fn hand_over(&mut self) {
        let ahead = std::mem::take(&mut self.unread.bytes);
        let socket = self.socket.take().map(|socket| socket.with_ahead(ahead));
        if let (Some(socket), Some(tunnel)) = (socket, self.tunnel.take()) {
            let _gone = tunnel.send(socket);
        }
    }
}

/// The connection's writing half. It is held no longer than for a write: what is being sent may end the request, whose body
/// then lets go of the connection.
pub(super) struct Half<'a>(pub(super) &'a RefCell<Wire>);

impl Half<'_> {
    fn with<T>(
        &self,
        write: impl FnOnce(Pin<&mut Socket>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.0.borrow_mut().socket {
            Some(socket) => write(Pin::new(socket)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Half<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|socket| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|socket| socket.poll_write_vectored(cx, parts))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_shutdown(cx))
    }
}

impl SpliceTo for Half<'_> {
    fn poll_splice_to(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        self.with(|socket| socket.poll_splice_to(cx, pipe))
    }
}
