//! What an HTTP/2 client sends, before the h2 crate reads it: which frames, and whether their fields may be seen.
//!
//! The h2 crate handles resets, PINGs and SETTINGS by itself, without a word to its user: what a peer sends of them can only be seen
//! in its bytes. This adapter walks over the frames that are read (`io/frames.rs`), and lets the field blocks among them pass
//! through `io/field_guard.rs`.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::field_guard::FieldGuard;
pub use super::frames::FrameKind;
use super::frames::Frames;

/// How much is read at once behind what is held back.
const PIECE: usize = 4_096;

/// Who is asked about what an HTTP/2 client sends.
pub trait Judge {
    /// Whether a frame may be read. False ends the connection.
    fn allows(&mut self, kind: FrameKind) -> bool;

    /// A request was malformed, and how: its stream will be reset.
    fn malformed(&mut self, stream: u32, fault: &'static str);
}

/// A reader of an HTTP/2 client's bytes, from the preface on, that asks `J` about them.
#[derive(Debug)]
pub struct FrameWatch<S, J> {
    inner: S,
    judge: J,
    frames: Frames,
    guard: FieldGuard,
}

impl<S, J: Judge> FrameWatch<S, J> {
    /// Watches what is read from `inner`, where a head may have `limit` bytes.
    pub fn new(inner: S, judge: J, limit: usize) -> Self {
        Self { inner, judge, frames: Frames::of_client(), guard: FieldGuard::new(limit) }
    }

    fn see(&mut self, bytes: &[u8]) -> io::Result<()> {
        let judge = &mut self.judge;
        if self.frames.see(bytes, |kind| judge.allows(kind)) {
            Ok(())
        } else {
            Err(io::Error::other("too many control frames"))
        }
    }

    fn tell(&mut self) {
        if let Some((stream, fault)) = self.guard.take_fault() {
            self.judge.malformed(stream, fault);
        }
    }
}

impl<S: AsyncRead + Unpin, J: Judge + Unpin> AsyncRead for FrameWatch<S, J> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.guard.give(buf) {
            if !this.guard.holds() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                let read = &buf.filled()[before..];
                let is_the_end = read.is_empty();
                if let Err(error) = this.see(read) {
                    buf.set_filled(before);
                    return Poll::Ready(Err(error));
                }
                let passed = this.guard.look_at(&buf.filled()[before..]);
                buf.set_filled(before + passed);
                this.tell();
                if passed > 0 || is_the_end {
                    break;
                }
            } else if this.guard.go_on() {
                this.tell();
            } else {
                let mut piece = [MaybeUninit::uninit(); PIECE];
                let mut piece = ReadBuf::uninit(&mut piece);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
                this.see(piece.filled())?;
                if piece.filled().is_empty() {
                    // What is held back is no request, and nothing will make it one.
                    break;
                }
                this.guard.take(piece.filled());
            }
        }
        Poll::Ready(Ok(()))
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

    /// Allows so many control frames.
    struct Allowance(usize);

    impl Judge for Allowance {
        fn allows(&mut self, kind: FrameKind) -> bool {
            self.0 -= usize::from(kind == FrameKind::Control);
            self.0 > 0
        }

        fn malformed(&mut self, _: u32, _: &'static str) {}
    }

    #[tokio::test]
    async fn one_too_many_ends_the_reading() {
        let ping = [0, 0, 0, 6, 0, 0, 0, 0, 0];
        let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &ping, &ping, &ping].concat();
        let mut watch = FrameWatch::new(&bytes[..], Allowance(2), 65_536);
        let mut read = Vec::new();
        let error = watch.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.to_string(), "too many control frames");
    }

    #[tokio::test]
    async fn a_head_that_breaks_off_is_not_given_on() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let ping = [0, 0, 0, 6, 0, 0, 0, 0, 0];
        let bytes = [&preface[..], &ping, &[0, 0, 5, 1, 4, 0, 0, 0, 1, 0x82, 0x86]].concat();
        for end in 0..bytes.len() {
            let mut watch = FrameWatch::new(&bytes[..end], Allowance(9), 65_536);
            let mut read = Vec::new();
            watch.read_to_end(&mut read).await.unwrap();
            let up_to_ping = preface.len() + ping.len();
            let passes = if end < up_to_ping { end.min(preface.len()) } else { up_to_ping };
            assert_eq!(read, bytes[..passes], "{end}");
        }
    }
}
