//! Notices the streams that an HTTP/2 connection of ours resets as malformed.
//!
//! The h2 crate checks most of a request's head itself and resets the stream (RFC 9113 §8.1.1) without a word to its
//! user, so that such refusals could be neither counted nor logged. What it sends says it: this adapter walks over the
//! frames that are written, nine bytes of head each, and looks into none but RST_STREAM.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length (3), type (1), flags (1), stream (4).
const HEAD: usize = 9;

/// RFC 9113 §6.4: the payload is the code.
const RST_STREAM: u8 = 3;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

/// A writer of HTTP/2 frames that tells `T` of each RST_STREAM with PROTOCOL_ERROR.
#[derive(Debug)]
pub struct ResetWatch<S, T> {
    inner: S,
    tell: T,
    frames: Frames,
}

impl<S, T: Fn()> ResetWatch<S, T> {
    /// Watches what is written to `inner` from the first byte on.
    pub fn new(inner: S, tell: T) -> Self {
        Self { inner, tell, frames: Frames::default() }
    }

    fn see<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>, mut written: usize) {
        for buf in bufs {
            let taken = buf.len().min(written);
            written -= taken;
            for _ in 0..self.frames.resets_in(&buf[..taken]) {
                (self.tell)();
            }
        }
    }
}

/// Where in the stream of frames a writer is.
#[derive(Debug, Default)]
struct Frames {
    /// The frame's head, and the code of a RST_STREAM behind it.
    head: [u8; HEAD + 4],
    filled: usize,
    /// Bytes of payload still to come.
    payload: usize,
}

impl Frames {
    fn resets_in(&mut self, mut bytes: &[u8]) -> usize {
        let mut resets = 0;
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let is_reset = self.filled >= HEAD && self.head[3] == RST_STREAM;
            let wanted = if is_reset { HEAD + 4 } else { HEAD };
            let taken = (wanted - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD && self.head[3] != RST_STREAM {
                let [high, middle, low, ..] = self.head.map(usize::from);
                self.payload = high << 16 | middle << 8 | low;
                self.filled = 0;
            } else if self.filled == HEAD + 4 {
                resets += usize::from(self.head[HEAD..] == PROTOCOL_ERROR);
                self.filled = 0;
            }
        }
        resets
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

impl<S: AsyncWrite + Unpin, T: Fn() + Unpin> AsyncWrite for ResetWatch<S, T> {
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

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    /// Two resets as malformed, and what could be taken for one: another code, and the bytes of one as data.
    fn stream() -> Vec<u8> {
        let malformed = frame(RST_STREAM, &PROTOCOL_ERROR);
        let cancelled = frame(RST_STREAM, &[0, 0, 0, 8]);
        let settings = frame(4, &[]);
        [frame(0, &malformed), malformed.clone(), settings, cancelled, frame(1, b"x"), malformed]
            .concat()
    }

    #[test]
    fn resets_are_found_however_the_bytes_are_cut() {
        for size in 1..=stream().len() {
            let mut frames = Frames::default();
            let found: usize = stream().chunks(size).map(|piece| frames.resets_in(piece)).sum();
            assert_eq!(found, 2, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn only_what_was_written_counts() {
        use tokio::io::AsyncWriteExt;
        let (near, _far) = tokio::io::duplex(7);
        let told = std::cell::Cell::new(0);
        let mut watch = ResetWatch::new(near, || told.set(told.get() + 1));
        let reset = frame(RST_STREAM, &PROTOCOL_ERROR);
        let written = watch.write(&reset).await.unwrap();
        assert_eq!((written, told.get()), (7, 0));
    }
}
