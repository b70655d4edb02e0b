//! Notes what tonic keeps to itself: that the peer finds our PINGs too many, and that it was the peer who ended the connection.
//!
//! A gRPC server says the first with a GOAWAY of ENHANCE_YOUR_CALM and the text `too_many_pings` (gRFC A8), and closes. The stream on
//! top of it only learns that its connection is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The code of ENHANCE_YOUR_CALM (RFC 9113 §7) and the text, as they stand at the end of the frame. A server writes so small a frame
/// at once; where it is torn apart all the same it goes unnoticed, and comes again on the next connection.
const TOO_MANY_PINGS: &[u8] = b"\x00\x00\x00\x0btoo_many_pings";

/// What was noted of one connection.
#[derive(Debug, Default)]
pub(super) struct Noted {
    calm: AtomicBool,
    ended: AtomicBool,
}

impl Noted {
    /// The peer finds our PINGs too many.
    pub(super) fn wants_calm(&self) -> bool {
        self.calm.load(Relaxed)
    }

    /// The peer, or the network, ended it: not we.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// A connection that is watched for it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    noted: Arc<Noted>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<Noted>) {
        let noted = Arc::default();
        (Self { inner, noted: Arc::clone(&noted) }, noted)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let new = &buf.filled()[before..];
        if read.is_err() || new.is_empty() {
            self.noted.ended.store(true, Relaxed);
        } else if new.windows(TOO_MANY_PINGS.len()).any(|bytes| bytes == TOO_MANY_PINGS) {
            self.noted.calm.store(true, Relaxed);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_goaway_for_too_many_pings_is_noted_and_no_other() {
        let goaway = |code: u8, text: &[u8]| {
            let length = u8::try_from(8 + text.len()).unwrap();
            let head = [0, 0, length, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, code];
            [&head[..], text].concat()
        };
        for (frame, calm) in [
            (goaway(11, b"too_many_pings"), true),
            (goaway(11, b"too_many_streams"), false),
            (goaway(0, b"too_many_pings"), false),
        ] {
            let (mut peer, ours) = tokio::io::duplex(1024);
            let (mut watched, noted) = Watched::new(ours);
            peer.write_all(b"before").await.unwrap();
            peer.write_all(&frame).await.unwrap();
            let mut read = vec![0; 6 + frame.len()];
            watched.read_exact(&mut read).await.unwrap();
            assert_eq!((noted.wants_calm(), noted.has_ended()), (calm, false));
            drop(peer);
            assert_eq!(watched.read(&mut [0]).await.unwrap(), 0);
            assert!(noted.has_ended());
        }
    }
}
