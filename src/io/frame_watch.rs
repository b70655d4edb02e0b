//! Sees which frames an HTTP/2 peer sends, and stops reading when that is too much.
//!
//! The h2 crate handles resets, PINGs and SETTINGS by itself, without a word to its user: what a peer sends of them can only be seen
//! in its bytes. This adapter walks over the frames that are read (`io/frames.rs`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use super::frames::FrameKind;
use super::frames::Frames;

/// A reader of an HTTP/2 client's bytes, from the preface on, that asks `J` about each frame. `false` ends it in an error.
#[derive(Debug)]
pub struct FrameWatch<S, J> {
    inner: S,
    judge: J,
    frames: Frames,
}

impl<S, J: FnMut(FrameKind) -> bool> FrameWatch<S, J> {
    /// Watches what is read from `inner`.
    pub fn new(inner: S, judge: J) -> Self {
        Self { inner, judge, frames: Frames::of_client() }
    }
}

impl<S: AsyncRead + Unpin, J: FnMut(FrameKind) -> bool + Unpin> AsyncRead for FrameWatch<S, J> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled
            && !this.frames.see(&buf.filled()[before..], &mut this.judge)
        {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other("too many control frames")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, J: Unpin> AsyncWrite for FrameWatch<S, J> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_too_many_ends_the_reading() {
        let mut left = 2;
        let ping = [0, 0, 0, 6, 0, 0, 0, 0, 0];
        let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &ping, &ping, &ping].concat();
        let mut watch = FrameWatch::new(&bytes[..], |kind| {
            left -= usize::from(kind == FrameKind::Control);
            left > 0
        });
        let mut read = Vec::new();
        let error = watch.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.to_string(), "too many control frames");
    }
}
