//! One connection at work: what is sent, what is read, and what both mean for the request.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus::IntCounter;

use crate::io::http1::blocks::Unread;
use crate::io::http1::framing::{Malformed, Scan};
use crate::io::http1::outgoing::{Halt, Outgoing};
use crate::io::request_body::{BodyError, RequestBody};
use crate::io::socket::Socket;
use crate::io::splice::Pipe;
use crate::net::{MAX_INTERIM, SendFailure};
use crate::tls::handshake;

use super::head::{self, Head};

/// A connection, as its handle, the body of its answer and the sender of a late request body share it.
#[derive(Debug)]
pub(super) struct Wire {
    /// `None` when it was closed, or handed over to a tunnel.
    socket: Option<Socket>,
    /// Read, and not yet used.
    unread: Unread,
    pub(super) outgoing: Outgoing<RequestBody>,
    /// Between a request's first byte and its answer's last.
    busy: bool,
    /// Nothing has come on it yet.
    fresh: bool,
    /// Who waits for the answer while the request is sent by a task of its own.
    reader: Option<Waker>,
    /// Counts interim answers that are left out.
    interim: IntCounter,
}

/// What is known of an answer that is awaited.
#[derive(Debug)]
pub(super) struct Awaited {
    /// The request was HEAD.
    head_only: bool,
    /// Where the answer's fields will stand.
    headers: HeaderMap,
    scan: Scan,
    interim: u32,
    /// A byte of an answer has come.
    begun: bool,
}

impl Awaited {
    /// `headers`: an empty map, perhaps with room.
    pub(super) fn new(head_only: bool, headers: HeaderMap) -> Self {
        Self { head_only, headers, scan: Scan::default(), interim: 0, begun: false }
    }
}

/// How a read of a body's bytes ends that brings none.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer has closed the connection.
    Closed,
    /// It has broken off.
    Reset,
    /// The request's body has failed.
    Request,
    /// The peer has ended the TLS handshake, after ours was done, because it does not take us.
    Refused(String),
}

impl Wire {
    pub(super) fn new(socket: Socket, interim: IntCounter) -> Self {
        Self {
            socket: Some(socket),
            unread: Unread::default(),
            outgoing: Outgoing::default(),
            busy: false,
            fresh: true,
            reader: None,
            interim,
        }
    }

    /// True when it may carry another request: none is under way, and nothing has come that nobody asked for, nor the end.
    /// Costs no system call where nothing has come.
    pub(super) fn is_open(&mut self) -> bool {
        !self.busy && self.socket.as_mut().is_some_and(Socket::is_quiet)
    }

    #[cfg(test)]
    pub(super) fn interim(&self) -> u64 {
        self.interim.get()
    }

    pub(super) fn begin(&mut self, outgoing: Outgoing<RequestBody>) {
        self.outgoing = outgoing;
        self.busy = true;
        self.unread.begin();
    }

    /// Sends the request and waits for the answer's head.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        awaited: &mut Awaited,
    ) -> Poll<Result<Head, SendFailure>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(SendFailure::NotSent)) };
        match self.outgoing.poll(cx, socket) {
            Poll::Ready(Err(Halt::Body(error))) => {
                return Poll::Ready(Err(SendFailure::Body(error)));
            }
            Poll::Ready(Err(Halt::WrongLength)) => {
                return Poll::Ready(Err(SendFailure::Body(BodyError::Malformed)));
            }
            Poll::Ready(Err(Halt::Broken)) if !self.outgoing.has_begun() => {
                return Poll::Ready(Err(SendFailure::NotSent));
            }
            // The peer reads no more; what it has said before is still worth reading.
            Poll::Ready(Err(Halt::Broken) | Ok(())) | Poll::Pending => {}
        }
        loop {
            if !self.unread.bytes.is_empty() {
                match self.next_head(awaited) {
                    Err(Malformed(what)) => {
                        return Poll::Ready(Err(SendFailure::Protocol(what.to_owned())));
                    }
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                }
            }
            match ready!(self.poll_more(cx, false)) {
                Ok(()) => {
                    awaited.begun = true;
                    self.fresh = false;
                }
                Err(ended) => return Poll::Ready(Err(self.unanswered(&ended, awaited.begun))),
            }
        }
    }

    /// The next head that is not interim, if all of it is there.
    fn next_head(&mut self, awaited: &mut Awaited) -> Result<Option<Head>, Malformed> {
        loop {
            let Awaited { scan, headers, head_only, .. } = awaited;
            let Some(head) = head::parse(&mut self.unread.bytes, scan, *head_only, headers)? else {
                return Ok(None);
            };
            let status = head.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            if status != StatusCode::CONTINUE {
                self.interim.inc();
            }
            awaited.interim += 1;
            if awaited.interim > MAX_INTERIM {
                return Err(Malformed("too many interim answers"));
            }
            awaited.headers = head.headers;
            awaited.headers.clear();
            awaited.scan = Scan::default();
            if self.unread.bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    /// What is certain when the connection ends before the answer's head.
    fn unanswered(&self, ended: &Ended, begun: bool) -> SendFailure {
        match ended {
            // It was still shaking hands: what was sent has reached nobody.
            Ended::Refused(why) if !begun && self.fresh => SendFailure::PeerRefused(why.clone()),
            _ if !self.outgoing.has_begun() => SendFailure::NotSent,
            _ if !begun => SendFailure::Closed,
            Ended::Closed => SendFailure::Protocol("the head breaks off".to_owned()),
            Ended::Reset | Ended::Request | Ended::Refused(_) => SendFailure::Reset,
        }
    }

    /// What was read and not yet used.
    pub(super) fn unread(&mut self) -> &mut Bytes {
        &mut self.unread.bytes
    }

    /// Reads more of an answer. `large`: much of it is still to come.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        large: bool,
    ) -> Poll<Result<(), Ended>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(Ended::Closed)) };
        match ready!(self.unread.poll_more(socket, cx, large)) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Ready(Err(Ended::Closed)),
            Err(error) => {
                let refused = handshake::refusal(&error).map(Ended::Refused);
                Poll::Ready(Err(refused.unwrap_or(Ended::Reset)))
            }
        }
    }

    /// Moves up to `most` bytes of an answer into an empty pipe, which is lent where there is none. Ready with `None`: they have
    /// to be read.
    pub(super) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Option<Pipe>,
        most: u64,
    ) -> Poll<Option<Result<usize, Ended>>> {
        let Some(socket) = self.socket.as_mut().filter(|socket| socket.can_splice()) else {
            return Poll::Ready(None);
        };
        if !self.unread.bytes.is_empty() {
            return Poll::Ready(None);
        }
        if pipe.is_none() {
            *pipe = Pipe::lend();
        }
        let Some(pipe) = pipe else { return Poll::Ready(None) };
        Poll::Ready(Some(match ready!(socket.poll_splice_from(cx, pipe, most)) {
            Ok(0) => Err(Ended::Closed),
            Ok(moved) => Ok(moved),
            Err(_) => Err(Ended::Reset),
        }))
    }

    /// Sends what is left of a request whose answer has begun; ready at its end.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(()) };
        let ended = ready!(self.outgoing.poll(cx, socket));
        if let (Err(Halt::Body(_) | Halt::WrongLength), Some(reader)) = (ended, self.reader.take())
        {
            reader.wake();
        }
        Poll::Ready(())
    }

    /// Fails where the request's body has failed: an answer to half a request is not passed on as a whole one. Wakes whoever
    /// waits for the answer when it does so later.
    pub(super) fn watch_rest(&mut self, cx: &Context<'_>) -> Result<(), Ended> {
        if self.outgoing.body_failed() {
            return Err(Ended::Request);
        }
        if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        Ok(())
    }

    /// The answer was read to its end. `keep_alive`: the connection may carry another request, if nothing is left of this one.
    pub(super) fn end(&mut self, keep_alive: bool) {
        self.busy = false;
        self.reader = None;
        if !keep_alive || !self.outgoing.is_complete() || !self.unread.bytes.is_empty() {
            self.socket = None;
        }
        self.outgoing = Outgoing::default();
        self.unread.bytes = Bytes::new();
    }

    /// The connection behind a 101, with what came behind its head.
    pub(super) fn take_tunnel(&mut self) -> Option<Socket> {
        let ahead = std::mem::take(&mut self.unread.bytes);
        self.socket.take().map(|socket| socket.with_ahead(ahead))
    }
}
