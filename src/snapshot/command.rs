//! What the control thread tells the workers beside the snapshot: sockets to accept on, and when to end.

use std::sync::Arc;

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1 and HTTP/2, told apart by the first bytes.
    Http,
    /// Bytes as they are.
    Tcp,
}

/// A bound socket that listens.
#[derive(Debug)]
pub enum ListenSocket {
    /// Each worker has its own (`SO_REUSEPORT`).
    Tcp(std::net::TcpListener),
    /// All workers share one.
    Unix(std::os::unix::net::UnixListener),
}

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on a socket.
    Listen {
        /// Unique among all listeners that ever were.
        id: u64,
        /// The listener in the configuration.
        name: Arc<str>,
        /// Bound and listening.
        socket: ListenSocket,
        /// What is spoken on it.
        protocol: Protocol,
        /// Traffic to the local application.
        inbound: bool,
    },
    /// Serve what waits on the socket, then close it.
    Close {
        /// As in `Listen`.
        id: u64,
        /// End its connections, too, as soon as their requests are answered: no listener of that name is left. Those of
        /// one that has moved go on.
        connections: bool,
    },
    /// Cut off what is left, and end.
    Stop,
    /// Close the sockets of one direction and end its connections as soon as their requests are answered.
    Drain {
        /// Inbound or outbound.
        inbound: bool,
    },
}
