//! Notices the streams that an HTTP/2 connection of ours resets as malformed.
//!
//! The h2 crate checks most of a request's head itself and resets the stream (RFC 9113 §8.1.1) without a word to its
//! user, so that such refusals could be neither counted nor logged. What it sends says it: this adapter walks over the
//! frames that are written (`io/frames.rs`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{FrameKind, Frames};

/// RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;

/// A writer of HTTP/2 frames that tells `T` of each stream that is reset with PROTOCOL_ERROR.
#[derive(Debug)]
pub struct ResetWatch<S, T> {
    inner: S,
    tell: T,
    frames: Frames,
}

impl<S, T: Fn(u32)> ResetWatch<S, T> {
    /// Watches what is written to `inner` from the first byte on.
    pub fn new(inner: S, tell: T) -> Self {
        Self { inner, tell, frames: Frames::of_server() }
    }

    fn see<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>, mut written: usize) {
        for buf in bufs {
            let taken = buf.len().min(written);
            written -= taken;
            self.frames.see(&buf[..taken], |kind| {
                if let FrameKind::Reset { stream, code: PROTOCOL_ERROR } = kind {
                    (self.tell)(stream);
                }
                true
            });
        }
    }
}

impl<S: AsyncRead + Unpin, T: Unpin> AsyncRead for ResetWatch<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, T: Fn(u32) + Unpin> AsyncWrite for ResetWatch<S, T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.see(std::iter::once(buf), written);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(written)) = polled {
            this.see(bufs.iter().map(|buf| &**buf), written);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
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
    use super::*;

    /// RST_STREAM of stream 1.
    fn reset(code: u8) -> [u8; 13] {
        [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]
    }

    #[tokio::test]
    async fn only_resets_as_malformed_count_and_only_what_was_written() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, mut far) = tokio::io::duplex(20);
        let told = std::cell::Cell::new(0);
        let mut watch = ResetWatch::new(near, |stream| told.set(told.get() + stream));
        assert_eq!((watch.write(&reset(8)).await.unwrap(), told.get()), (13, 0));
        assert_eq!((watch.write(&reset(1)).await.unwrap(), told.get()), (7, 0));
        far.read_exact(&mut [0; 20]).await.unwrap();
        assert_eq!((watch.write(&reset(1)[7..]).await.unwrap(), told.get()), (6, 1));
    }
}
