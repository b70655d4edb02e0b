//! The body of a response on one stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use crate::net::BrokenBody;

/// One stream's body. What is dropped before its end resets the stream, and ends what is still sent on it.
///
/// It has ended only where the peer has said so: a stream that is reset is cut short, whatever the reset's code.
#[derive(Debug)]
pub struct Http2Body {
    stream: RecvStream,
    /// What is still to come, where the head said how much.
    left: Option<u64>,
    data_done: bool,
    /// Sends what is left of the request.
    _upload: Option<AbortOnDropHandle<()>>,
}

impl Http2Body {
    /// The body behind a head which announced `length` bytes.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        upload: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let left = if stream.is_end_stream() { Some(0) } else { length };
        Self { stream, left, data_done: false, _upload: upload }
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = self.get_mut();
        if !this.data_done {
            if let Some(data) = ready!(this.stream.poll_data(cx)) {
                let data = data.map_err(BrokenBody::Http2)?;
                // Taken over: the peer may send as much again. It fails only for more than was received.
                this.stream
                    .flow_control()
                    .release_capacity(data.len())
                    .map_err(BrokenBody::Http2)?;
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            this.data_done = true;
        }
        let trailers = ready!(this.stream.poll_trailers(cx)).map_err(BrokenBody::Http2)?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
