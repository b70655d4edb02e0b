//! Making connections, as a tower service: TLS and test doubles take the same seat.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::Service;

use crate::base::address::Address;
use crate::io::socket::Socket;

/// Where to connect, and for how long to try.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint's address.
    pub address: Address,
    /// From the start of the connect until it stands. Not zero.
    pub timeout: Duration,
}

/// Connects over TCP or a unix socket within the target's time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connect;

impl Service<Target> for Connect {
    type Response = Socket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Socket>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Target) -> Self::Future {
        // Boxed: a connect costs three round trips of the kernel, an allocation does not show.
        Box::pin(async move {
            match tokio::time::timeout(target.timeout, Socket::connect(&target.address)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn connect(address: Address, timeout: Duration) -> io::Result<Socket> {
        Connect.call(Target { address, timeout }).await
    }

    #[tokio::test]
    async fn connects_over_tcp_and_says_when_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::from(listener.local_addr().unwrap());
        connect(address.clone(), Duration::from_secs(5)).await.unwrap();
        drop(listener);
        let error = connect(address, Duration::from_secs(5)).await.unwrap_err();
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
