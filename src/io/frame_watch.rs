//! Sees which frames an HTTP/2 peer sends, and stops reading when that is too much.
//!
//! The h2 crate handles resets, PINGs and SETTINGS by itself, without a word to its user: what a peer sends of them can only be seen
//! in its bytes. This adapter walks over the frames that are read, nine bytes of head each, and looks into none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length (3), type (1), flags (1), stream (4).
const HEAD: usize = 9;

/// What a client sends before its first frame.
const PREFACE: usize = 24;

/// A frame's type (RFC 9113 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// HEADERS: a request, or trailers.
    Headers,
    /// DATA, CONTINUATION, WINDOW_UPDATE: they come with what is transferred.
    Transfer,
    /// Everything else.
    Control,
}

impl FrameKind {
    fn of(code: u8) -> Self {
        match code {
            1 => Self::Headers,
            0 | 8 | 9 => Self::Transfer,
            _ => Self::Control,
        }
    }
}

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
        Self { inner, judge, frames: Frames { skip: PREFACE, head: [0; HEAD], filled: 0 } }
    }
}

/// Where in the stream of frames a reader is.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Frames {
    /// Asks about each frame whose head ends in `bytes`; false as soon as one is too many.
    fn see(&mut self, mut bytes: &[u8], judge: &mut impl FnMut(FrameKind) -> bool) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                let [high, middle, low, ..] = self.head.map(usize::from);
                self.skip = high << 16 | middle << 8 | low;
                self.filled = 0;
                if !judge(FrameKind::of(self.head[3])) {
                    return false;
                }
            }
        }
        true
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

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn stream() -> Vec<u8> {
        let hidden = frame(6, b"12345678");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        [
            preface,
            frame(4, &[]),
            frame(1, b"x"),
            frame(0, &hidden),
            frame(3, &[0; 4]),
            frame(8, &[0; 4]),
            frame(0xfa, b"?"),
        ]
        .concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        use FrameKind::{Control, Headers, Transfer};
        for size in 1..=stream().len() {
            let (mut found, mut frames) =
                (Vec::new(), Frames { skip: PREFACE, head: [0; HEAD], filled: 0 });
            for piece in stream().chunks(size) {
                frames.see(piece, &mut |kind| {
                    found.push(kind);
                    true
                });
            }
            assert_eq!(
                found,
                [Control, Headers, Transfer, Control, Transfer, Control],
                "pieces of {size}"
            );
        }
    }

    #[tokio::test]
    async fn one_too_many_ends_the_reading() {
        let mut left = 2;
        let bytes = stream();
        let mut watch = FrameWatch::new(&bytes[..], |kind| {
            left -= usize::from(kind == FrameKind::Control);
            left > 0
        });
        let mut read = Vec::new();
        let error = watch.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.to_string(), "too many control frames");
    }
}
