//! A connection as an attempt holds it.

use std::rc::Rc;

use tokio::time::Instant;

use crate::net::http2::StreamGuard;
use crate::net::{Http1, Http2, SendFailure, UpstreamRequest, UpstreamResponse};

use super::PoolPolicy;
use super::pool::EndpointPool;

/// A connection that is ready to carry one request.
#[derive(Debug)]
pub struct Connection(Kind);

#[derive(Debug)]
enum Kind {
    /// Exclusive.
    Http1(Http1, Rc<EndpointPool>),
    /// One stream of a shared one.
    /// The guard counts the stream until the connection is dropped.
    Http2(Http2, #[expect(dead_code, reason = "held, never read")] StreamGuard),
}

impl Connection {
    pub(super) fn http1(connection: Http1, pool: Rc<EndpointPool>) -> Self {
        Self(Kind::Http1(connection, pool))
    }

    pub(super) fn http2(connection: Http2, stream: StreamGuard) -> Self {
        Self(Kind::Http2(connection, stream))
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// [`SendFailure`].
    pub async fn send(
        &mut self,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, SendFailure> {
        match &mut self.0 {
            Kind::Http1(connection, _) => connection.send(request).await,
            Kind::Http2(connection, _) => connection.send(request).await,
        }
    }

    /// True for HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(&self.0, Kind::Http2(..))
    }

    /// True for a kept HTTP/1 connection, which its peer may be closing just now.
    pub fn is_reused_http1(&self) -> bool {
        matches!(&self.0, Kind::Http1(connection, _) if connection.is_reused())
    }

    /// Gives it back after a response that was read to its end. Dropping it instead closes it.
    pub fn give_back(self, policy: &PoolPolicy, now: Instant) {
        if let Kind::Http1(connection, pool) = self.0 {
            pool.checkin(connection, policy, now);
        }
    }

    /// Remembers what the upstream's `Keep-Alive` header said.
    pub fn learn_keep_alive(&self, seconds: u64) {
        if let Kind::Http1(_, pool) = &self.0 {
            pool.learn(seconds);
        }
    }
}
