//! TCP and unix sockets as one type, in clear or under TLS, with the bytes that were read ahead, and what the timers need
//! to know of it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::CommonState;

use crate::base::address::Address;

/// Silence after which the kernel probes a TCP peer, the pause between probes, and how many may go unanswered: a
/// vanished peer is noticed within 60 s, before cloud load balancers forget the flow (350 s).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Bytes that the kernel takes beyond what it can send. Without a bound it takes megabytes, and whoever reads slowly looks
/// for minutes as if nothing moved: the idle time would cut off a caller that reads 10 kB/s.
const UNSENT: u32 = 256 * 1024;

/// A connected socket. `Send`, as hyper's upgrades want it.
#[derive(Debug)]
pub struct Socket {
    pub(super) stream: Stream,
    /// Read while the protocol was being told apart; given out first.
    pub(super) ahead: Bytes,
    activity: Arc<Activity>,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: a session is a kilobyte, and connections in clear do not pay for it.
    Tls(Box<TlsStream<Socket>>),
}

/// What has moved on a socket: under TLS, what was inside it. Written by its reader and writer, read by timers on the same worker; the atomics are
/// uncontended and relaxed, and only there because hyper wants a `Send` socket.
#[derive(Debug, Default)]
pub struct Activity {
    read: AtomicU64,
    written: AtomicU64,
    reset_on_close: AtomicBool,
}

impl Activity {
    /// Bytes received so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes received and sent so far.
    pub fn bytes_moved(&self) -> u64 {
        self.bytes_read() + self.bytes_written()
    }

    /// Ends the connection in RST instead of FIN: the only way to tell an HTTP/1.0 peer that a response was cut short.
    pub fn reset_on_close(&self) {
        self.reset_on_close.store(true, Ordering::Relaxed);
    }
}

impl Socket {
    /// Connects to `address`. The caller bounds the time.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Self::from_tcp(TcpStream::connect(address).await?),
            Address::Unix(path) => Ok(Self::new(Stream::Unix(UnixStream::connect(path).await?))),
        }
    }

    /// Takes a TCP stream: no Nagle delay (small messages must not wait for an ACK), keep-alive probes on.
    ///
    /// # Errors
    /// The kernel's, where the peer is gone already.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (idle, pause, probes) = KEEPALIVE;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(idle).with_interval(pause).with_retries(probes);
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
        Ok(Self::new(Stream::Tcp(stream)))
    }

    /// Where the connection was going before the packet filter redirected it; `None` where it cannot say.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        let Stream::Tcp(stream) = &self.stream else { return None };
        let socket = socket2::SockRef::from(stream);
        let to = match stream.local_addr().ok()?.ip().to_canonical() {
            IpAddr::V4(_) => socket.original_dst_v4(),
            IpAddr::V6(_) => socket.original_dst_v6(),
        };
        to.ok()?.as_socket()
    }

    /// Our own end of it; `None` for a unix stream, and once it is wrapped in TLS.
    pub fn local(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) | Stream::Tls(_) => None,
        }
    }

    /// Takes a unix stream.
    pub fn from_unix(stream: UnixStream) -> Self {
        Self::new(Stream::Unix(stream))
    }

    /// Takes a TLS session whose handshake is done. Its end is its `close_notify`: a connection that ends without one was cut,
    /// and reading it fails.
    pub fn from_tls(stream: impl Into<TlsStream<Self>>) -> Self {
        Self::new(Stream::Tls(Box::new(stream.into())))
    }

    /// The TLS session, where there is one.
    pub fn tls(&self) -> Option<&CommonState> {
        match &self.stream {
            Stream::Tls(stream) => Some(stream.get_ref().1),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    fn new(stream: Stream) -> Self {
        Self { stream, ahead: Bytes::new(), activity: Arc::default() }
    }

    /// Puts bytes that were read already in front of what is still to come.
    #[must_use]
    pub fn with_ahead(mut self, ahead: Bytes) -> Self {
        self.ahead = ahead;
        self
    }

    /// True when nothing has come since the last read: no byte, no end. A byte that has come is lost, so ask of what is closed
    /// where the answer is no. Costs no system call where the runtime knows of nothing. Under TLS, what concerns the session
    /// alone (tickets, keys) is taken in and is nothing.
    pub fn is_quiet(&mut self) -> bool {
        let found = match &mut self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut [0]),
            Stream::Unix(stream) => stream.try_read(&mut [0]),
            Stream::Tls(stream) => read_now(stream),
        };
        let silent = matches!(found, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        silent && self.ahead.is_empty()
    }

    /// What has moved on it; outlives it.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.activity.reset_on_close.load(Ordering::Relaxed)
            && let Some(stream) = self.stream.tcp()
        {
            // A socket that cannot be told to linger is closed with FIN: nothing better is left to do.
            let _ignored = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.ahead.has_remaining() {
            let taken = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(taken));
            // With what follows, if it is there: who gets the first bytes of a head alone asks for more room.
            if buf.remaining() > 0 {
                let received = buf.filled().len();
                let _shown_by_the_next_read = this.stream.poll_read(cx, buf);
                this.count_read(buf.filled().len() - received);
            }
            return Poll::Ready(Ok(()));
        }
        let polled = this.stream.poll_read(cx, buf);
        this.count_read(buf.filled().len() - before);
        polled
    }
}

/// What a read finds without waiting.
fn read_now(stream: &mut TlsStream<Socket>) -> io::Result<usize> {
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    // Not held up by the runtime's sharing of turns, which would look as if nothing had come.
    let read = pin!(tokio::task::unconstrained(poll_fn(
        |cx| Pin::new(&mut *stream).poll_read(cx, &mut buf)
    )));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        Poll::Ready(read) => read.map(|()| buf.filled().len()),
    }
}

impl Stream {
    /// The TCP stream at the bottom.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().0.stream.tcp(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => {
                ready!(Pin::new(&mut **stream).poll_read(cx, buf))?;
                // One record at a time is what it gives.
                while buf.remaining() > 0 {
                    let before = buf.filled().len();
                    // An error or the end is there again for the next read.
                    let _later = Pin::new(&mut **stream).poll_read(cx, buf);
                    if buf.filled().len() == before {
                        break;
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Socket {
    pub(super) fn count_read(&self, received: usize) {
        self.activity.read.fetch_add(received as u64, Ordering::Relaxed);
    }

    fn count_written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(sent)) = polled {
            self.count_sent(sent);
        }
        polled
    }

    pub(super) fn count_sent(&self, sent: usize) {
        self.activity.written.fetch_add(sent as u64, Ordering::Relaxed);
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        };
        this.count_written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        };
        this.count_written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            // It keeps what its socket did not take.
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.reset_on_close.load(Ordering::Relaxed) {
            // A FIN here would look like a proper end.
            return Poll::Ready(Ok(()));
        }
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_read_ahead_comes_with_what_follows() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b" and the rest").await.unwrap();
        ours.readable().await.unwrap();
        let mut socket = Socket::from_unix(ours).with_ahead(Bytes::from_static(b"the first"));
        let mut buf = [0; 64];
        let read = socket.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], b"the first and the rest");
        assert_eq!(socket.activity().bytes_read(), 13);
    }

    #[tokio::test]
    async fn what_was_read_ahead_does_not_wait_for_more() {
        let (ours, peer) = UnixStream::pair().unwrap();
        let mut socket = Socket::from_unix(ours).with_ahead(Bytes::from_static(b"all"));
        assert!(!socket.is_quiet());
        let mut buf = [0; 2];
        assert_eq!(socket.read(&mut buf).await.unwrap(), 2);
        assert_eq!(socket.read(&mut buf).await.unwrap(), 1);
        assert!(socket.is_quiet());
        drop(peer);
        assert_eq!(socket.read(&mut buf).await.unwrap(), 0);
        assert!(!socket.is_quiet());
    }
}
