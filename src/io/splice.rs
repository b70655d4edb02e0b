//! Bytes that go from one socket to another without passing through us: splice(2), by way of a pipe.
//!
//! To copy 1 MiB into our memory and out again is nearly all that a large body costs. A pipe holds references to the pages that
//! the kernel has received, and the other socket sends them from there. A worker keeps the pipes that it has made, and lends
//! them; where it cannot have one, bodies are copied.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncWrite, Interest};

use super::socket::{Socket, Stream};

/// Bytes that a body must still have to be worth a pipe: below, one copy is cheaper than two more system calls.
pub const WORTHWHILE: u64 = 128 * 1024;

/// What a pipe holds: as much as the kernel gives without a privilege (`/proc/sys/fs/pipe-max-size`). Where it gives less, less
/// moves at a time.
const SIZE: usize = 1 << 20;

/// Pipes of a worker at once, each of two descriptors: more bodies than this are copied.
const MOST: usize = 64;

/// Pipes that a worker keeps for the next body.
const KEPT: usize = 4;

thread_local! {
    static PIPES: RefCell<Pipes> = const { RefCell::new(Pipes { free: Vec::new(), lent: 0 }) };
}

struct Pipes {
    free: Vec<Ends>,
    lent: usize,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// A pipe of the worker, lent to one body. It goes back when it is empty.
#[derive(Debug)]
pub struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// One of the worker's; `None`: they are all at work, or the process may have no more descriptors.
    pub fn lend() -> Option<Self> {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.lent == MOST {
                return None;
            }
            let ends = match pipes.free.pop() {
                Some(ends) => ends,
                None => Ends::make().ok()?,
            };
            pipes.lent += 1;
            Some(Self { ends: Some(ends), held: 0 })
        })
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Ends {
    fn make() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Whoever has used up his share gets small ones.
        let _as_it_is = fcntl_setpipe_size(&writer, SIZE);
        Ok(Self { reader, writer })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // At the end of the thread there is nobody to give it back to.
        let _gone = PIPES.try_with(|pipes| {
            let mut pipes = pipes.borrow_mut();
            pipes.lent -= 1;
            if self.held == 0 && pipes.free.len() < KEPT {
                pipes.free.extend(self.ends.take());
            }
        });
    }
}

/// A body whose bytes may be moved inside the kernel.
pub trait Splice {
    /// Why it breaks off.
    type Error;

    /// Moves what has come into a pipe that is empty: so many bytes of its data. Ready with `None`: ask for frames instead.
    fn poll_splice(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Option<Pipe>,
    ) -> Poll<Option<Result<usize, Self::Error>>> {
        Poll::Ready(None)
    }
}

/// Where a pipe may be emptied.
pub trait SpliceTo: AsyncWrite {
    /// Sends what a pipe holds, as far as it is taken.
    ///
    /// # Errors
    /// The kernel's; of what cannot, `Unsupported`.
    fn poll_splice_to(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Socket {
    /// True where its bytes may bypass us: it is in clear, and nothing was read ahead.
    pub fn can_splice(&self) -> bool {
        !matches!(self.stream, Stream::Tls(_)) && self.ahead.is_empty()
    }

    /// Moves up to `most` of what has come into an empty pipe; 0 at the end.
    ///
    /// # Errors
    /// The kernel's; of a socket that cannot, `Unsupported`.
    pub fn poll_splice_from(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &pipe.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).map_or(SIZE, |most| most.min(SIZE));
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = loop {
            let moved = match &self.stream {
                Stream::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    let from = stream.as_fd();
                    stream.try_io(Interest::READABLE, || {
                        Ok(splice(from, None, &ends.writer, None, most, flags)?)
                    })
                }
                Stream::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    let from = stream.as_fd();
                    stream.try_io(Interest::READABLE, || {
                        Ok(splice(from, None, &ends.writer, None, most, flags)?)
                    })
                }
                Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => break moved?,
            }
        };
        pipe.held += moved;
        self.count_read(moved);
        Poll::Ready(Ok(moved))
    }
}

impl SpliceTo for Socket {
    fn poll_splice_to(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &pipe.ends else { return Poll::Ready(Ok(0)) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let sent = loop {
            let sent = match &self.stream {
                Stream::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    let to = stream.as_fd();
                    stream.try_io(Interest::WRITABLE, || {
                        Ok(splice(&ends.reader, None, to, None, pipe.held, flags)?)
                    })
                }
                Stream::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    let to = stream.as_fd();
                    stream.try_io(Interest::WRITABLE, || {
                        Ok(splice(&ends.reader, None, to, None, pipe.held, flags)?)
                    })
                }
                Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break sent?,
            }
        };
        pipe.held -= sent.min(pipe.held);
        self.count_sent(sent);
        Poll::Ready(Ok(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn bytes_go_from_socket_to_socket_and_are_counted() {
        let ((from, mut near), (to, mut far)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let (mut from, mut to) = (Socket::from_unix(from), Socket::from_unix(to));
        let mut pipe = Pipe::lend().unwrap();
        near.write_all(b"hello, world").await.unwrap();
        let moved = poll_fn(|cx| from.poll_splice_from(cx, &mut pipe, 5)).await.unwrap();
        assert_eq!((moved, pipe.held()), (5, 5));
        let sent = poll_fn(|cx| Pin::new(&mut to).poll_splice_to(cx, &mut pipe)).await.unwrap();
        assert_eq!((sent, pipe.held()), (5, 0));
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        assert_eq!((from.activity().bytes_read(), to.activity().bytes_written()), (5, 5));
        drop(near);
        let rest = poll_fn(|cx| from.poll_splice_from(cx, &mut pipe, 100)).await.unwrap();
        assert_eq!(rest, 7);
        drop(pipe);
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(pipe.held(), 0, "what was left in a pipe is nobody's");
        let end = poll_fn(|cx| from.poll_splice_from(cx, &mut pipe, 100)).await.unwrap();
        assert_eq!(end, 0);
    }

    #[test]
    fn pipes_are_lent_again_and_bounded() {
        let lent: Vec<_> = std::iter::from_fn(Pipe::lend).take(2 * MOST).collect();
        assert_eq!(lent.len(), MOST);
        drop(lent);
        PIPES.with_borrow(|pipes| assert_eq!((pipes.lent, pipes.free.len()), (0, KEPT)));
        assert!(Pipe::lend().is_some());
    }
}
