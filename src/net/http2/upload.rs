//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body;

use crate::io::request_body::{BodyError, RequestBody};

/// Sends a body as fast as the peer's windows allow. Dropped before its end, it resets the stream.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// A piece that waits for the peer's window, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    ended: bool,
}

/// Why an upload ended before its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The body failed; the stream is reset.
    Body(BodyError),
    /// The peer wants no more of it, or the connection broke: the stream's other half tells which.
    Stream,
}

impl Upload {
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: None, ended: false }
    }

    /// Sends until the end, or until body or window make it wait. Not to be polled after it was ready.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            // A peer that wants no more says so by a reset; whoever waits for the body must hear of it.
            if !matches!(self.stream.poll_reset(cx), Poll::Pending) {
                return self.end(Err(Broken::Stream));
            }
            if let Some((piece, last)) = self.waiting.take() {
                if self.stream.capacity() == 0 && !piece.is_empty() {
                    let granted = self.stream.poll_capacity(cx);
                    if matches!(granted, Poll::Pending | Poll::Ready(Some(Ok(0)))) {
                        self.waiting = Some((piece, last));
                        if granted.is_pending() {
                            return Poll::Pending;
                        }
                        continue;
                    }
                    if !matches!(granted, Poll::Ready(Some(Ok(_)))) {
                        return self.end(Err(Broken::Stream));
                    }
                }
                let sent = self.stream.send_data(piece, last).map_err(|_| Broken::Stream);
                if last || sent.is_err() {
                    return self.end(sent);
                }
                continue;
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                let sent = self.stream.send_data(Bytes::new(), true);
                return self.end(sent.map_err(|_| Broken::Stream));
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.stream.send_reset(h2::Reason::CANCEL);
                    return self.end(Err(Broken::Body(error)));
                }
            };
            match frame.into_data() {
                Ok(piece) => {
                    // One byte is claimed, not the piece: what waits with its whole length would hold the connection's
                    // window against streams that could use it. h2 raises the claim when the piece is sent.
                    self.stream.reserve_capacity(usize::from(!piece.is_empty()));
                    self.waiting = Some((piece, self.body.is_end_stream()));
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let sent = self.stream.send_trailers(trailers);
                        return self.end(sent.map_err(|_| Broken::Stream));
                    }
                }
            }
        }
    }

    fn end(&mut self, how: Result<(), Broken>) -> Poll<Result<(), Broken>> {
        self.ended = true;
        Poll::Ready(how)
    }

    /// True when nothing is left to send, or nobody to send it to.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}
