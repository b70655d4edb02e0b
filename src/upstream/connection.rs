//! A connection as an attempt holds it.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::time::Instant;

use crate::io::request_body::RequestBody;
use crate::metrics::GaugeGuard;
use crate::net::http2::StreamGuard;
use crate::net::{Http1, Http2, RequestHead, SendFailure, UpstreamResponse};
use crate::policy::limits::Permit;

use super::local::LocalUpstream;
use super::pool::EndpointPool;
use super::reuse::{AtRisk, Kept};
use super::{PoolPolicy, Upstream};

/// One of the upstream's connections, as its limit and its gauge count them.
#[derive(Debug)]
pub(super) struct Place {
    _permit: Permit,
    _gauge: GaugeGuard,
}

impl Place {
    pub(super) fn new(permit: Permit, upstream: &Upstream) -> Self {
        Self { _permit: permit, _gauge: GaugeGuard::of(&upstream.metrics.connections) }
    }
}

/// The place of a connection that has a task. The task gives it back at its end; the pool may take it away before, from an
/// unused connection in favour of a request to another endpoint.
pub(super) type SharedPlace = Rc<RefCell<Option<Place>>>;

/// What a connection's task, or a tunnel, holds of the upstream.
#[derive(Debug)]
pub(super) struct Held {
    place: SharedPlace,
    local: Rc<LocalUpstream>,
}

impl Held {
    pub(super) fn new(place: Place, local: Rc<LocalUpstream>) -> Self {
        Self { place: Rc::new(RefCell::new(Some(place))), local }
    }

    pub(super) fn place(&self) -> SharedPlace {
        Rc::clone(&self.place)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Where it was taken away, it is in use elsewhere.
        if let Some(place) = self.place.take() {
            drop(place);
            self.local.connection_freed();
        }
    }
}

/// A connection that is ready to carry one request.
#[derive(Debug)]
pub struct Connection(Kind);

#[derive(Debug)]
enum Kind {
    /// Exclusive.
    Http1(Http1, Rc<EndpointPool>, Place, Option<AtRisk>),
    /// One stream of a shared one. The guard counts the stream until the connection is dropped.
    Http2(Http2, #[expect(dead_code, reason = "held, never read")] StreamGuard),
}

impl Connection {
    pub(super) fn http1(connection: Http1, place: Place, pool: Rc<EndpointPool>) -> Self {
        Self(Kind::Http1(connection, pool, place, None))
    }

    /// One that was used before.
    pub(super) fn kept((connection, place, risk): Kept, pool: Rc<EndpointPool>) -> Self {
        Self(Kind::Http1(connection, pool, place, risk))
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
        head: &RequestHead<'_>,
        body: RequestBody,
    ) -> Result<UpstreamResponse, SendFailure> {
        match &mut self.0 {
            Kind::Http1(connection, pool, _, risk) => {
                let reused = connection.is_reused();
                let sent = connection.send(head, body).await;
                match &sent {
                    Ok(_) if reused => {
                        *risk = None;
                        pool.trust().succeeded();
                    }
                    Err(SendFailure::Closed) if reused => pool.trust().raced(Instant::now()),
                    _ => {}
                }
                sent
            }
            Kind::Http2(connection, _) => connection.send(head, body).await,
        }
    }

    /// True for a kept HTTP/1 connection, which its peer may be closing just now.
    pub fn is_reused_http1(&self) -> bool {
        matches!(&self.0, Kind::Http1(connection, ..) if connection.is_reused())
    }

    /// Gives it back after a response that was read to its end. Dropping it instead closes it.
    pub fn give_back(self, policy: &PoolPolicy, now: Instant) {
        if let Kind::Http1(connection, pool, place, _) = self.0 {
            pool.checkin(connection, place, policy, now);
        }
    }

    /// Remembers what the upstream's `Keep-Alive` header said.
    pub fn learn_keep_alive(&self, seconds: u64) {
        if let Kind::Http1(_, pool, ..) = &self.0 {
            pool.learn(seconds);
        }
    }
}
