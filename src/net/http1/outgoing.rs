//! A request on its way out: its head, then its body as it comes, in as few writes as that allows.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::io::request_body::BodyError;
use crate::net::RequestHead;

use super::encode::{self, Encoding};

thread_local! {
    /// Where heads are written: most are sent whole at once, so that one buffer of the worker serves all connections.
    static TEXT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that has grown beyond this is not kept.
const MAX_KEPT: usize = 64 * 1024;

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// Its body failed.
    Body(BodyError),
    /// The connection takes no more.
    Broken,
}

/// What is still to be sent of a request.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
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
            state: State::Complete,
            begun: false,
        }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Outgoing<B> {
    /// A request of which nothing was sent.
    pub(super) fn new(head: &RequestHead<'_>, body: B) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        let size = body.as_ref().map(Body::size_hint);
        let mut text = TEXT.take();
        text.clear();
        let encoding = encode::head(&mut text, head, size.as_ref());
        Self { body, encoding, text, state: State::Open, ..Self::default() }
    }

    /// True when all of it was sent.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// True when some of it is still to be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// True when its body has failed.
    pub(super) fn body_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// True when a byte of it was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends what can be sent; ready when all of it was, or never will be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Halt>> {
        if self.state != State::Open {
            return Poll::Ready(Ok(()));
        }
        let ended = ready!(self.poll_open(cx, socket));
        self.state = match ended {
            Ok(()) => State::Complete,
            Err(Halt::Broken) => State::Broken,
            Err(Halt::Body(_)) => State::Failed,
        };
        self.body = None;
        let mut text = std::mem::take(&mut self.text);
        if text.capacity() <= MAX_KEPT {
            text.clear();
            TEXT.set(text);
        }
        Poll::Ready(ended)
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Halt>> {
        loop {
            if self.data.is_empty()
                && self.behind.is_empty()
                && let Some(body) = &mut self.body
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(frame) => self.take(frame)?,
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

    /// Takes a piece of the body, which goes out next.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), Halt> {
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
            self.behind = framed.map_err(|_| Halt::Body(BodyError::Malformed))?;
            self.data = data;
        }
        if self.body.as_ref().is_none_or(Body::is_end_stream) { self.end(None) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Halt> {
        self.body = None;
        let ended = self.encoding.end(&mut self.behind, trailers, &mut self.text);
        ended.map_err(|_| Halt::Body(BodyError::Malformed))
    }

    fn is_written(&self) -> bool {
        self.sent == self.text.len() && self.data.is_empty() && self.behind.is_empty()
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        let text = &self.text[self.sent..];
        if self.data.is_empty() && self.behind.is_empty() {
            return Pin::new(socket).poll_write(cx, text);
        }
        let parts = [IoSlice::new(text), IoSlice::new(&self.data), IoSlice::new(self.behind)];
        Pin::new(socket).poll_write_vectored(cx, &parts)
    }

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
