//! One system call for all that a connection's task has written in one turn.
//!
//! The h2 crate flushes each DATA frame of 256 B and more before it takes the next, so that a busy HTTP/2 connection
//! costs one `writev` per response. [`DeferredWrite`] collects small writes and answers "flushed"; [`Pushed`], around
//! the futures that drive the connection, really sends them once at the end of each of their polls. Nothing is held
//! back beyond the turn of the task in which it was written.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Unsent bytes above which a writer has to wait for the socket: bounds the memory of a slow reader.
const HIGH_WATER: usize = 64 * 1024;

/// Writes of this size and more go to the socket without a copy, once what is before them is sent.
const PASS_THROUGH: usize = 16 * 1024;

/// A buffer that has grown beyond this is given back when it is empty.
const KEEP: usize = 128 * 1024;

/// A socket whose writes are collected. Not `Send`: it shares its state with the [`Pusher`] on the same worker.
#[derive(Debug)]
pub struct DeferredWrite<S>(Rc<RefCell<Inner<S>>>);

/// Sends what the [`DeferredWrite`] has collected.
#[derive(Debug)]
pub struct Pusher<S>(Rc<RefCell<Inner<S>>>);

impl<S> Clone for Pusher<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<S> {
    socket: S,
    buffer: Vec<u8>,
    /// How much of `buffer` is sent already.
    sent: usize,
    /// The socket was written to and not flushed since: under TLS it may hold some of that back.
    unflushed: bool,
    /// A failed push, told to the next reader or writer.
    failed: Option<io::ErrorKind>,
    /// The task that drives the connection. A socket knows one waiting writer only, and it must be this one, whichever future
    /// pushed.
    owner: Option<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> DeferredWrite<S> {
    /// Wraps a connected socket. Every future that drives the connection must be wrapped in [`Pushed`] with the pusher,
    /// or nothing is ever sent.
    pub fn new(socket: S) -> (Self, Pusher<S>) {
        let inner = Rc::new(RefCell::new(Inner {
            socket,
            buffer: Vec::new(),
            sent: 0,
            unflushed: false,
            failed: None,
            owner: None,
        }));
        (Self(Rc::clone(&inner)), Pusher(inner))
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Remembers the task that drives the connection: the one that reads and writes.
    fn note_owner(&mut self, cx: &Context<'_>) {
        match &mut self.owner {
            Some(owner) => owner.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Sends the buffer, on behalf of whichever task; the owner goes on when the socket can take more.
    fn push(&mut self) {
        // Who has written was noted as the owner.
        let Some(owner) = self.owner.take() else { return };
        if let Poll::Ready(Err(_)) = self.poll_push(&mut Context::from_waker(&owner)) {
            // The connection learns of it from its next read or write.
            owner.wake_by_ref();
        }
        self.owner = Some(owner);
    }

    /// Sends the buffer. Ready when it is empty, and the socket has sent all that it was given.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            self.unflushed = true;
            let socket = Pin::new(&mut self.socket);
            match ready!(socket.poll_write(cx, &self.buffer[self.sent..])) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero),
                Ok(sent) => self.sent += sent,
                Err(error) => return self.fail(error.kind()),
            }
        }
        self.sent = 0;
        self.buffer.clear();
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        if self.unflushed {
            if let Err(error) = ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
                return self.fail(error.kind());
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// True when there is something for [`Inner::push`] to do.
    fn has_unsent(&self) -> bool {
        self.unflushed || self.buffer.len() > self.sent
    }

    fn fail(&mut self, kind: io::ErrorKind) -> Poll<io::Result<()>> {
        self.failed = Some(kind);
        self.sent = 0;
        self.unflushed = false;
        self.buffer = Vec::new();
        Poll::Ready(Err(kind.into()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.note_owner(cx);
        let size: usize = bufs.iter().map(|buf| buf.len()).sum();
        let unsent = self.buffer.len() - self.sent;
        if size >= PASS_THROUGH || unsent + size > HIGH_WATER {
            match self.poll_push(cx) {
                Poll::Ready(Ok(())) if size >= PASS_THROUGH => {
                    self.unflushed = true;
                    return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
                }
                Poll::Ready(pushed) => pushed?,
                Poll::Pending if self.buffer.len() - self.sent + size > HIGH_WATER => {
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        if self.sent > HIGH_WATER {
            self.buffer.drain(..self.sent);
            self.sent = 0;
        }
        for buf in bufs {
            self.buffer.extend_from_slice(buf);
        }
        Poll::Ready(Ok(size))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for DeferredWrite<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        inner.check()?;
        inner.note_owner(cx);
        Pin::new(&mut inner.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DeferredWrite<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        inner.check()?;
        ready!(inner.poll_push(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}

pin_project! {
    /// A future that drives a connection over a [`DeferredWrite`]: sends what was collected after each poll.
    #[derive(Debug)]
    pub struct Pushed<F, S> {
        #[pin]
        future: F,
        pusher: Pusher<S>,
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Pushed<F, S> {
    /// Wraps `future`, whose connection writes to the other half of `pusher`.
    pub fn new(future: F, pusher: Pusher<S>) -> Self {
        Self { future, pusher }
    }

    /// The wrapped future, to ask it for a graceful shutdown.
    pub fn future(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().future
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for Pushed<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        let mut inner = this.pusher.0.borrow_mut();
        if inner.has_unsent() {
            inner.push();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn small_writes_leave_together_at_the_end_of_the_poll() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut deferred, pusher) = DeferredWrite::new(near);
        let writing = async {
            for _ in 0..3 {
                deferred.write_all(b"abc").await.unwrap();
                deferred.flush().await.unwrap();
            }
            // Nothing may have left before the first `Pending`.
            tokio::task::yield_now().await;
            deferred
        };
        let reading = async {
            let mut buf = [0; 64];
            let size = far.read(&mut buf).await.unwrap();
            buf[..size].to_vec()
        };
        let (_open, read) = tokio::join!(Pushed::new(writing, pusher), reading);
        assert_eq!(read, b"abcabcabc");
    }

    #[tokio::test]
    async fn a_slow_reader_bounds_the_buffer_and_loses_nothing() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut deferred, pusher) = DeferredWrite::new(near);
        let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let inner = Rc::clone(&deferred.0);
        let writing = async {
            for (index, piece) in sent.chunks(3_000).enumerate() {
                // Every tenth piece is large enough to pass through.
                if index % 10 == 0 {
                    tokio::task::yield_now().await;
                }
                deferred.write_all(piece).await.unwrap();
                assert!(inner.borrow().buffer.len() <= 3 * HIGH_WATER);
            }
            deferred.write_all(&sent).await.unwrap();
            deferred.shutdown().await.unwrap();
        };
        let reading = async {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(Pushed::new(writing, pusher), reading);
        assert!(received == [sent.as_slice(), sent.as_slice()].concat());
    }

    #[tokio::test]
    async fn a_task_that_pushes_and_ends_takes_no_wake_up_with_it() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut deferred, pusher) = DeferredWrite::new(near);
        let sent = vec![7; 3 * HIGH_WATER];
        let local = tokio::task::LocalSet::new();
        let received = local.run_until(async {
            let pieces = sent.clone();
            let connection = Pushed::new(
                async move {
                    for piece in pieces.chunks(1_000) {
                        deferred.write_all(piece).await.unwrap();
                    }
                    deferred.shutdown().await.unwrap();
                },
                pusher.clone(),
            );
            let connection = tokio::task::spawn_local(connection);
            tokio::task::yield_now().await;
            assert!(!connection.is_finished(), "the socket is full");
            let other = Pushed::new(std::future::ready(()), pusher.clone());
            tokio::task::spawn_local(other).await.unwrap();
            let mut received = vec![0; 3 * HIGH_WATER];
            far.read_exact(&mut received).await.unwrap();
            received
        });
        let received = tokio::time::timeout(std::time::Duration::from_secs(20), received).await;
        assert!(received.unwrap() == sent);
    }

    #[tokio::test]
    async fn a_failed_push_is_told_to_the_connection() {
        let (near, far) = tokio::io::duplex(1000);
        let (mut deferred, pusher) = DeferredWrite::new(near);
        drop(far);
        let writing = async {
            deferred.write_all(b"lost").await.unwrap();
            tokio::task::yield_now().await;
            deferred.read_u8().await.unwrap_err().kind()
        };
        assert_eq!(Pushed::new(writing, pusher).await, io::ErrorKind::BrokenPipe);
    }
}
