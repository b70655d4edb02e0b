//! Making connections, as a tower service: TCP or unix, in clear or under TLS; test doubles take the same seat.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::base::address::Address;
use crate::io::socket::Socket;
use crate::metrics::HandshakeFailure;
use crate::tls::handshake::{self, HandshakeError};

/// Where to connect, how, and for how long to try.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint's address.
    pub address: Address,
    /// From the start of the connect until it stands, the handshake of TLS included. Not zero.
    pub timeout: Duration,
    /// TLS; `None`: in clear.
    pub tls: Option<TlsTarget>,
}

/// With what to begin TLS.
#[derive(Debug, Clone)]
pub struct TlsTarget {
    /// Ours.
    pub config: Arc<ClientConfig>,
    /// The peer's.
    pub name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection was made, or not in time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was made, and TLS was not.
    #[error("TLS: {0}")]
    Tls(#[from] HandshakeError),
}

impl ConnectError {
    /// What kind of failure it is; of a handshake, only whether it took too long.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Tls(error) if error.reason == HandshakeFailure::Timeout => {
                io::ErrorKind::TimedOut
            }
            Self::Tls(_) => io::ErrorKind::InvalidData,
        }
    }
}

/// Connects over TCP or a unix socket within the target's time, and begins TLS on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connect;

impl Service<Target> for Connect {
    type Response = Socket;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, ConnectError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Target) -> Self::Future {
        // Boxed: a connect costs three round trips of the kernel, an allocation does not show.
        Box::pin(async move {
            let deadline = Instant::now() + target.timeout;
            let connected = timeout_at(deadline, Socket::connect(&target.address)).await;
            let socket = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let Some(TlsTarget { config, name }) = target.tls else { return Ok(socket) };
            match timeout_at(deadline, handshake::connect(config, name, socket)).await {
                Ok(stream) => Ok(Socket::from_tls(stream?)),
                Err(_) => Err(ConnectError::Tls(HandshakeError {
                    reason: HandshakeFailure::Timeout,
                    detail: format!("not done within {} ms", target.timeout.as_millis()),
                })),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn connect(address: Address, timeout: Duration) -> Result<Socket, ConnectError> {
        Connect.call(Target { address, timeout, tls: None }).await
    }

    #[tokio::test]
    async fn connects_over_tcp_and_says_when_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::from(listener.local_addr().unwrap());
        connect(address.clone(), Duration::from_secs(5)).await.unwrap();
        drop(listener);
        let error = connect(address, Duration::from_secs(5)).await.unwrap_err();
        let ConnectError::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn connects_over_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        connect(Address::Unix(path), Duration::from_secs(5)).await.unwrap();
    }
}
