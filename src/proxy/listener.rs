//! Accepting connections.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::base::drain::Open;
use crate::base::error::Reason;
use crate::io::socket::Socket;
use crate::io::tick::TICK;
use crate::metrics::GaugeGuard;
use crate::policy::sources::{Entry, Sources};
use crate::snapshot::{ListenSocket, Listener, Protocol, Snapshot};

use super::worker::{Stop, Worker};
use super::{connection, original};

/// Connections that are closed at once, unserved, for each turn in which there is no file descriptor for them.
const SHED_AT_ONCE: usize = 64;

/// A listener on one worker. The snapshot's part of it is looked up again when the generation has moved.
#[derive(Debug)]
pub(crate) struct LocalListener {
    name: Arc<str>,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// Traffic to the local application.
    pub(crate) inbound: bool,
    /// What is added to `via`, and what a loop is known by.
    pub(crate) via: HeaderValue,
    current: RefCell<Option<Rc<Active>>>,
}

/// A listener as of one snapshot. Requests keep it to their end.
#[derive(Debug)]
pub(crate) struct Active {
    /// All of the configuration.
    pub(crate) snapshot: Arc<Snapshot>,
    /// This listener in it.
    pub(crate) listener: Arc<Listener>,
}

impl LocalListener {
    pub(crate) fn new(worker: &Worker, name: Arc<str>, protocol: Protocol, inbound: bool) -> Self {
        // RFC 9110 §7.6.3: a comment may tell instances of one product apart.
        let via = format!("1.1 outrigger ({}.{name})", worker.shared.instance);
        let via = HeaderValue::from_str(&via)
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 outrigger"));
        Self { name, protocol, inbound, via, current: RefCell::new(None) }
    }

    /// The listener as the configuration in force has it; `None` once it was removed.
    pub(crate) fn active(&self, worker: &Worker) -> Option<Rc<Active>> {
        let mut current = self.current.borrow_mut();
        if let Some(active) = &*current
            && active.snapshot.generation == worker.shared.snapshots.generation()
        {
            return Some(Rc::clone(active));
        }
        let snapshot = worker.shared.snapshots.load();
        // A connection that outlives its listener is served by the last configuration that had it.
        if let Some(listener) = snapshot.listener(&self.name).map(Arc::clone) {
            *current = Some(Rc::new(Active { snapshot, listener }));
        }
        current.clone()
    }
}

/// A connection's place under the listener's limit, and its part in the gauges.
#[derive(Debug)]
pub(crate) struct Admitted {
    listener: Arc<Listener>,
    /// Where its source is counted.
    source: Option<(Arc<Sources>, usize)>,
    _gauge: GaugeGuard,
    _open: Open,
}

impl Admitted {
    fn new(
        worker: &Worker,
        local: &LocalListener,
        active: &Active,
        peer: connection::Peer,
    ) -> Option<Self> {
        let listener = Arc::clone(&active.listener);
        let now = listener.connections.fetch_add(1, Ordering::Relaxed);
        if listener.limits.connections.is_some_and(|max| now >= max) {
            listener.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let source = match source_of(&listener, peer) {
            Ok(source) => source,
            Err(Refused) => {
                listener.connections.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
        };
        listener.metrics.connections_total.inc();
        let open = if local.inbound { &worker.shared.inbound } else { &worker.shared.outbound };
        let gauge = GaugeGuard::of(&listener.metrics.connections);
        Some(Self { _gauge: gauge, _open: open.open(), source, listener })
    }
}

/// A source has as many connections as it may.
struct Refused;

/// Counts a connection under its source; nothing where sources are not counted, or this one cannot be.
fn source_of(
    listener: &Listener,
    peer: connection::Peer,
) -> Result<Option<(Arc<Sources>, usize)>, Refused> {
    let (Some(sources), Some(max)) = (&listener.sources, listener.limits.per_source) else {
        return Ok(None);
    };
    let Some(ip) = peer.ip() else { return Ok(None) };
    match sources.enter(ip, max) {
        Entry::At(at) => Ok(Some((Arc::clone(sources), at))),
        Entry::Uncounted => Ok(None),
        Entry::Refused => Err(Refused),
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((sources, at)) = &self.source {
            sources.leave(*at);
        }
        self.listener.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket of the worker's runtime.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// The socket without the runtime, still not blocking.
    fn into_std(self) -> io::Result<ListenSocket> {
        Ok(match self {
            Self::Tcp(listener) => ListenSocket::Tcp(listener.into_std()?),
            Self::Unix(listener) => ListenSocket::Unix(listener.into_std()?),
        })
    }

    /// The next connection and its peer's address (`unix` for a unix peer, which has none).
    async fn accept(&self) -> io::Result<(Socket, connection::Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::from_tcp(stream)?, connection::Peer::Ip(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::from_unix(stream), connection::Peer::Unix))
            }
        }
    }
}

/// Accepts until told to stop; then serves what already waits on the socket, and closes it.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    local: Rc<LocalListener>,
    socket: ListenSocket,
    mut stopped: watch::Receiver<Stop>,
) {
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(listener = %local.name, %error, "cannot accept");
            return;
        }
    };
    let reserve = Cell::new(spare());
    let connections = stopped.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = acceptor.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop >= Stop::Accepting) => break,
        };
        match accepted {
            Ok((socket, peer)) => serve(&worker, &local, socket, peer, &connections),
            Err(error) if is_exhausted(&error) => shed(&worker, &local, &acceptor, &reserve).await,
            // The peer was gone before it was accepted.
            Err(error) => tracing::debug!(listener = %local.name, %error, "accept failed"),
        }
    }
    match acceptor.into_std() {
        Ok(socket) => accept_waiting(&worker, &local, &socket, &connections),
        Err(error) => tracing::warn!(listener = %local.name, %error, "cannot empty its queue"),
    }
}

/// Serves what the kernel has put into the socket's queue: closing the socket would reset it. The kernel is asked itself,
/// as the runtime may not have heard of the newest yet.
fn accept_waiting(
    worker: &Rc<Worker>,
    local: &Rc<LocalListener>,
    socket: &ListenSocket,
    stopped: &watch::Receiver<Stop>,
) {
    loop {
        let (socket, peer) = match accept_now(socket) {
            Ok(Ok(accepted)) => accepted,
            // The peer was gone before it was accepted.
            Ok(Err(_)) => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            // Nothing waits any more, or nothing can be done about it.
            Err(_) => return,
        };
        serve(worker, local, socket, peer, stopped);
    }
}

/// One accept that does not wait. The inner error is the accepted connection's.
fn accept_now(socket: &ListenSocket) -> io::Result<io::Result<(Socket, connection::Peer)>> {
    Ok(match socket {
        ListenSocket::Tcp(listener) => {
            let (stream, peer) = listener.accept()?;
            stream
                .set_nonblocking(true)
                .and_then(|()| Socket::from_tcp(TcpStream::from_std(stream)?))
                .map(|socket| (socket, connection::Peer::Ip(peer)))
        }
        ListenSocket::Unix(listener) => {
            let (stream, _) = listener.accept()?;
            stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream))
                .map(|stream| (Socket::from_unix(stream), connection::Peer::Unix))
        }
    })
}

fn serve(
    worker: &Rc<Worker>,
    local: &Rc<LocalListener>,
    socket: Socket,
    peer: connection::Peer,
    stopped: &watch::Receiver<Stop>,
) {
    let Some(active) = local.active(worker) else { return };
    let Some(admitted) = Admitted::new(worker, local, &active, peer) else {
        active.listener.metrics.reject(Reason::LimitReached);
        return;
    };
    let redirected = active.listener.original_destination;
    let listening = &active.snapshot.listening;
    let original = redirected.then(|| original::destination(&socket, listening)).flatten();
    let accepted = connection::Accepted {
        worker: Rc::clone(worker),
        local: Rc::clone(local),
        active,
        peer,
        identity: None,
        original,
        admitted,
    };
    // Ends with the connection; the drain waits for it through `admitted`.
    drop(tokio::task::spawn_local(connection::serve(accepted, socket, stopped.clone())));
}

/// Out of file descriptors or memory: the connection stays in the queue, so that `accept` would return at once again.
fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS | ENOMEM))
}

/// A descriptor kept for the moment when there are none.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Closes what waits, so that its callers learn at once instead of hanging; then rests, so that the worker does not spin.
async fn shed(
    worker: &Worker,
    local: &LocalListener,
    acceptor: &Acceptor,
    reserve: &Cell<Option<File>>,
) {
    drop(reserve.take());
    for _ in 0..SHED_AT_ONCE {
        tokio::select! {
            biased;
            accepted = acceptor.accept() => {
                if accepted.is_err() {
                    break;
                }
                if let Some(active) = local.active(worker) {
                    active.listener.metrics.reject(Reason::LimitReached);
                }
            }
            () = std::future::ready(()) => break,
        }
    }
    reserve.set(spare());
    tokio::time::sleep(TICK).await;
}
