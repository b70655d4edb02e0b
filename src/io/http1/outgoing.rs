//! A message on its way out: its head, then its body as it comes, in as few writes as that allows.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};

use crate::io::splice::{Pipe, Splice, SpliceTo};

use super::encode::Encoding;

thread_local! {
    /// Where heads are written: most are sent whole at once, so that one buffer of the worker serves all connections.
    static TEXT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that has grown beyond this is not kept.
const MAX_KEPT: usize = 64 * 1024;

/// Pieces of a body in one turn: others on this worker have to have theirs.
const MAX_PIECES: usize = 16;

/// Why a message could not be sent to its end.
#[derive(Debug)]
pub enum Halt<E> {
    /// Its body failed.
    Body(E),
    /// Its body is not as long as its head said.
    WrongLength,
    /// The connection takes no more.
    Broken,
}

/// What is still to be sent of a message.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// `None` once its end was taken.
    body: Option<B>,
    encoding: Encoding,
    /// Written before `data`: the head, a chunk's size, trailers.
    text: Vec<u8>,
    /// Bytes of `text` that were sent.
    sent: usize,
    data: Bytes,
    /// Written behind `data`.
    behind: &'static [u8],
    /// Its body may be moved inside the kernel.
    splices: bool,
    /// What is moved so: written behind all else.
    pipe: Option<Pipe>,
    state: State,
    /// A byte of it was sent.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    /// The connection takes no more.
    Broken,
    /// The body has failed.
    Failed,
}

impl<B> Default for Outgoing<B> {
    fn default() -> Self {
        Self {
            body: None,
            encoding: Encoding::Length(0),
            text: Vec::new(),
            sent: 0,
            data: Bytes::new(),
            behind: b"",
            splices: false,
            pipe: None,
            state: State::Complete,
            begun: false,
        }
    }
}

/// An empty buffer for a head.
pub fn text() -> Vec<u8> {
    let mut text = TEXT.take();
    text.clear();
    text
}

impl<B: Body<Data = Bytes> + Splice<Error = <B as Body>::Error> + Unpin> Outgoing<B> {
    /// A message of which nothing was sent: its head, its body if it has one, and how that is framed.
    pub fn new(head: Vec<u8>, body: Option<B>, encoding: Encoding) -> Self {
        Self { body, encoding, text: head, state: State::Open, ..Self::default() }
    }

    /// Lets the kernel move the body, where both sides can.
    #[must_use]
    pub fn spliced(self, splices: bool) -> Self {
        let splices = splices && matches!(self.encoding, Encoding::Length(_));
        Self { splices, ..self }
    }

    /// True when all of it was sent.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// True when some of it is still to be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// True when its body has failed.
    pub fn body_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// True when a byte of it was sent.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends what can be sent; ready when all of it was, or never will be.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl SpliceTo + Unpin),
    ) -> Poll<Result<(), Halt<<B as Body>::Error>>> {
        if self.state != State::Open {
            return Poll::Ready(Ok(()));
        }
        let ended = ready!(self.poll_open(cx, socket));
        self.state = match ended {
            Ok(()) => State::Complete,
            Err(Halt::Broken) => State::Broken,
            Err(Halt::Body(_) | Halt::WrongLength) => State::Failed,
        };
        (self.body, self.pipe) = (None, None);
        if self.sent < self.text.len() {
            return Poll::Ready(ended);
        }
        let mut text = std::mem::take(&mut self.text);
        self.sent = 0;
        if text.capacity() <= MAX_KEPT {
            text.clear();
            TEXT.set(text);
        }
        Poll::Ready(ended)
    }

    /// Sends what the socket takes of what came before the body failed.
    pub fn push(&mut self, cx: &mut Context<'_>, socket: &mut (impl SpliceTo + Unpin)) {
        while !self.is_written() {
            match self.poll_write(cx, socket) {
                Poll::Ready(Ok(sent)) if sent > 0 => self.advance(sent),
                _ => return,
            }
        }
        let _as_far_as_it_goes = Pin::new(socket).poll_flush(cx);
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl SpliceTo + Unpin),
    ) -> Poll<Result<(), Halt<<B as Body>::Error>>> {
        let mut pieces = 0;
        loop {
            let waits = self.data.is_empty() && self.behind.is_empty() && self.in_pipe() == 0;
            if waits && self.body.is_some() {
                if pieces == MAX_PIECES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                pieces += 1;
                match self.poll_next(cx) {
                    Poll::Ready(next) => next?,
                    Poll::Pending if self.is_written() => {
                        return match Pin::new(socket).poll_flush(cx) {
                            Poll::Ready(Err(_)) => Poll::Ready(Err(Halt::Broken)),
                            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                        };
                    }
                    Poll::Pending => {}
                }
            }
            if !self.is_written() {
                match ready!(self.poll_write(cx, socket)) {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Halt::Broken)),
                    Ok(sent) => self.advance(sent),
                }
            } else if self.body.is_none() {
                // TLS keeps what its socket did not take.
                let flushed = ready!(Pin::new(socket).poll_flush(cx));
                return Poll::Ready(flushed.map_err(|_| Halt::Broken));
            }
        }
    }

    /// Waits for what comes next of the body: moved into the pipe, or taken.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt<<B as Body>::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        if self.splices
            && let Some(moved) = ready!(body.poll_splice(cx, &mut self.pipe))
        {
            let framed = self.encoding.piece(moved.map_err(Halt::Body)?, &mut self.text);
            framed.map_err(|_| Halt::WrongLength)?;
            let ended = self.body.as_ref().is_none_or(Body::is_end_stream);
            return Poll::Ready(if ended { self.end(None) } else { Ok(()) });
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(self.take(frame))
    }

    fn in_pipe(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Takes a piece of the body, which goes out next.
    fn take(
        &mut self,
        frame: Option<Result<Frame<Bytes>, <B as Body>::Error>>,
    ) -> Result<(), Halt<<B as Body>::Error>> {
        let frame = match frame {
            None => return self.end(None),
            Some(frame) => frame.map_err(Halt::Body)?,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.trailers_ref()),
        };
        // A chunk of nothing would be the last.
        if !data.is_empty() {
            let framed = self.encoding.piece(data.len(), &mut self.text);
            self.behind = framed.map_err(|_| Halt::WrongLength)?;
            self.data = data;
        }
        if self.body.as_ref().is_none_or(Body::is_end_stream) { self.end(None) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Halt<<B as Body>::Error>> {
        self.body = None;
        let ended = self.encoding.end(&mut self.behind, trailers, &mut self.text);
        ended.map_err(|_| Halt::WrongLength)
    }

    fn is_written(&self) -> bool {
        self.is_text_written() && self.in_pipe() == 0
    }

    fn is_text_written(&self) -> bool {
        self.sent == self.text.len() && self.data.is_empty() && self.behind.is_empty()
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl SpliceTo + Unpin),
    ) -> Poll<io::Result<usize>> {
        if self.is_text_written()
            && let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0)
        {
            return Pin::new(socket).poll_splice_to(cx, pipe);
        }
        let text = &self.text[self.sent..];
        if self.data.is_empty() && self.behind.is_empty() {
            return Pin::new(socket).poll_write(cx, text);
        }
        let parts = [IoSlice::new(text), IoSlice::new(&self.data), IoSlice::new(self.behind)];
        Pin::new(socket).poll_write_vectored(cx, &parts)
    }

    /// Notes what was sent; what is in the pipe counts itself.
    fn advance(&mut self, sent: usize) {
        self.begun = true;
        let text = sent.min(self.text.len() - self.sent);
        self.sent += text;
        if self.sent == self.text.len() {
            self.text.clear();
            self.sent = 0;
        }
        let data = (sent - text).min(self.data.len());
        self.data.advance(data);
        self.behind = &self.behind[(sent - text - data).min(self.behind.len())..];
    }
}

#[cfg(test)]
mod tests;
