//! What one worker has of an upstream: its connections, its part of the retry budget, its waiting requests.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::time::Instant;
use tower::Service;

use crate::balance::endpoint::Endpoint;
use crate::base::error::{ProxyError, Reason};
use crate::io::socket::Socket;
use crate::io::tick::Tick;
use crate::net::http2::{NotStarted, StreamGuard};
use crate::net::{Connect, ConnectError, Http1, Http2, MadeWith, Target};
use crate::policy::limits::Resource;
use crate::policy::retry_budget::RetryBudget;
use crate::tls::Alpn;

use super::Upstream;
use super::connection::{Connection, Held, Place, SharedPlace};
use super::pool::{EndpointPool, Http2Place};
use super::queue::Queue;
use super::reuse::{Kept, MayReuse};

/// Maps of a worker are keyed by ids of our own making: no attacker chooses them, so a fast fixed hash will do.
pub(super) type IdMap<V> = HashMap<u64, V, FixedState>;

/// One worker's part of an upstream.
#[derive(Debug)]
pub struct LocalUpstream {
    /// What all workers share.
    pub upstream: Arc<Upstream>,
    budget: RefCell<RetryBudget>,
    pools: RefCell<IdMap<(Arc<Endpoint>, Rc<EndpointPool>)>>,
    /// Requests that wait for one of the upstream's places.
    pub(super) slots: Queue,
    /// Requests that have a place and wait for one of its connections.
    pub(super) connections: Queue,
}

impl LocalUpstream {
    pub(super) fn new(upstream: Arc<Upstream>, now: Instant) -> Self {
        Self {
            budget: RefCell::new(upstream.budget_of_one(now)),
            upstream,
            pools: RefCell::default(),
            slots: Queue::default(),
            connections: Queue::default(),
        }
    }

    /// The worker's part of the retry budget.
    pub fn budget(&self) -> RefMut<'_, RetryBudget> {
        self.budget.borrow_mut()
    }

    /// Gives waiting requests another chance: what they wait for may have become free on another worker, which in turn
    /// may wait for a connection that this one keeps unused. Each tick.
    pub(super) fn turn(&self) {
        self.slots.wake_all();
        self.connections.wake_all();
        let limits = &self.upstream.limits;
        let full = limits.maximum(Resource::Connections).is_some_and(|max| {
            limits.current(Resource::Pending) > 0 && limits.current(Resource::Connections) >= max
        });
        if full {
            drop(self.evict());
        }
    }

    pub(super) fn connection_freed(&self) {
        self.connections.wake_first();
    }

    /// Closes every unused connection.
    pub(super) fn close(&self) {
        self.pools.borrow().values().for_each(|(_, pool)| pool.close());
    }

    pub(super) fn pool(&self, endpoint: &Arc<Endpoint>) -> Rc<EndpointPool> {
        let mut pools = self.pools.borrow_mut();
        let (_, pool) =
            pools.entry(endpoint.id).or_insert_with(|| (Arc::clone(endpoint), Rc::default()));
        Rc::clone(pool)
    }

    /// A place for a new connection: a free one, or that of a connection which is kept unused.
    pub(super) fn place(&self) -> Option<Place> {
        let permit = self.upstream.limits.try_connection();
        permit.map(|permit| Place::new(permit, &self.upstream)).or_else(|| self.evict())
    }

    fn evict(&self) -> Option<Place> {
        self.pools.borrow().values().find_map(|(_, pool)| pool.evict())
    }

    /// A connection to `endpoint`: one that is kept, as far as `reuse` and the endpoint's past allow it, or a new one.
    ///
    /// # Errors
    /// `connect_failed`, or those of waiting for one of the upstream's connections.
    pub async fn connect(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        http2: bool,
        reuse: MayReuse,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Connection, ProxyError> {
        let pool = self.pool(endpoint);
        let policy = &self.upstream.policy.pool;
        if http2 {
            return match pool.http2(policy, Instant::now()) {
                Http2Place::Stream(connection, stream) => Ok(Connection::http2(connection, stream)),
                place => Box::pin(self.connect_http2(place, endpoint, &pool, tick, deadline)).await,
            };
        }
        let kept = || self.kept(&pool, reuse);
        if let Some(kept) = self.connections.unless_others_wait(kept) {
            return Ok(Connection::kept(kept, pool));
        }
        Box::pin(self.connect_http1(endpoint, reuse, pool, tick, deadline)).await
    }

    async fn connect_http1(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        reuse: MayReuse,
        pool: Rc<EndpointPool>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Connection, ProxyError> {
        enum Found {
            Kept(Kept),
            New(Place),
        }
        let take = || {
            let kept = self.kept(&pool, reuse).map(Found::Kept);
            kept.or_else(|| self.place().map(Found::New))
        };
        let found = match self.connections.unless_others_wait(take) {
            Some(found) => found,
            None => self.wait(&self.connections, tick, deadline, take).await?,
        };
        match found {
            Found::Kept(kept) => Ok(Connection::kept(kept, pool)),
            Found::New(place) => {
                let opened = self.open(endpoint, Alpn::Http1, place).await?;
                let interim = self.upstream.metrics.interim_dropped.clone();
                let connection = Http1::new(opened.socket, Instant::now(), interim);
                let (connection, place) = (connection.made_with(opened.made_with), opened.place);
                Ok(Connection::http1(connection, place, pool))
            }
        }
    }

    async fn connect_http2(
        self: &Rc<Self>,
        mut place: Http2Place,
        endpoint: &Arc<Endpoint>,
        pool: &Rc<EndpointPool>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Connection, ProxyError> {
        loop {
            let maker = match place {
                Http2Place::Stream(connection, stream) => {
                    return Ok(Connection::http2(connection, stream));
                }
                Http2Place::Wait(connecting) => {
                    connecting.finished().await?;
                    place = pool.http2(&self.upstream.policy.pool, Instant::now());
                    continue;
                }
                Http2Place::Make(maker) => maker,
            };
            return match self.make_http2(endpoint, pool, tick, deadline).await {
                Ok(Made::New(connection, place)) => {
                    let (connection, stream) = maker.succeed(connection, place);
                    Ok(Connection::http2(connection, stream))
                }
                Ok(Made::Stream(connection, stream)) => Ok(Connection::http2(connection, stream)),
                Err(error) => {
                    maker.fail(&error);
                    Err(error)
                }
            };
        }
    }

    /// A new HTTP/2 connection; at the limit of connections, a stream of one that stands will do as well.
    async fn make_http2(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        pool: &EndpointPool,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Made, ProxyError> {
        let take = || match self.place() {
            Some(place) => Some(Err(place)),
            None => pool.stream(&self.upstream.policy.pool, Instant::now()).map(Ok),
        };
        let found = match self.connections.unless_others_wait(take) {
            Some(found) => found,
            None => self.wait(&self.connections, tick, deadline, take).await?,
        };
        let place = match found {
            Ok((connection, stream)) => return Ok(Made::Stream(connection, stream)),
            Err(place) => place,
        };
        let opened = self.open(endpoint, Alpn::Http2, place).await?;
        let held = Held::new(opened.place, Rc::clone(self));
        let place = held.place();
        let interim = self.upstream.metrics.interim_dropped.clone();
        match Http2::start(opened.socket, Instant::now(), interim, held).await {
            Ok(connection) => Ok(Made::New(connection.made_with(opened.made_with), place)),
            Err(error) => Err(self.not_started(endpoint, &error)),
        }
    }

    /// Under TLS 1.3 an endpoint that does not take our certificate says so only after the handshake.
    pub(super) fn not_started(&self, endpoint: &Endpoint, error: &NotStarted) -> ProxyError {
        if self.upstream.tls.is_none() {
            return self.failed(endpoint, error);
        }
        let why =
            "ended after the TLS handshake: it does not take our certificate, or speaks no HTTP/2";
        self.failed(endpoint, &why)
    }

    /// Opens a socket to `endpoint` under the upstream's limit of connections. What is returned beside it must live as
    /// long as the connection.
    ///
    /// # Errors
    /// `connect_failed`, or those of waiting for one of the upstream's connections.
    pub async fn dial(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<(Socket, impl Sized + 'static + use<>), ProxyError> {
        let take = || self.place();
        let place = match self.connections.unless_others_wait(take) {
            Some(place) => place,
            None => self.wait(&self.connections, tick, deadline, take).await?,
        };
        let opened = self.open(endpoint, Alpn::None, place).await?;
        Ok((opened.socket, Held::new(opened.place, Rc::clone(self))))
    }

    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        alpn: Alpn,
        place: Place,
    ) -> Result<Opened, ProxyError> {
        let timeout = self.upstream.connect_timeout(endpoint);
        let (mut tls, mut made_with) = (None, None);
        if let Some(under) = &self.upstream.tls {
            let Some((target, generation)) = under.target(endpoint, alpn) else {
                let why = "a unix socket has no name to ask for: write `tls.sni`";
                return Err(self.failed(endpoint, &why));
            };
            (tls, made_with) = (Some(target), generation);
        }
        let target = Target { address: endpoint.address.clone(), timeout, tls };
        let connected = Connect.call(target).await;
        if let Some(under) = &self.upstream.tls {
            under.count(&connected);
        }
        match connected {
            Ok(socket) => {
                self.upstream.metrics.connects_ok.inc();
                Ok(Opened { socket, place, made_with })
            }
            Err(error) => {
                drop(place);
                self.connection_freed();
                let metrics = &self.upstream.metrics;
                if error.kind() == io::ErrorKind::TimedOut {
                    metrics.connects_timed_out.inc();
                } else {
                    metrics.connects_failed.inc();
                }
                Err(self.not_connected(endpoint, &error, timeout))
            }
        }
    }

    fn not_connected(
        &self,
        endpoint: &Endpoint,
        error: &ConnectError,
        limit: Duration,
    ) -> ProxyError {
        let upstream = &self.upstream.name;
        let kind = match error {
            ConnectError::Io(error) => Some(error.kind()),
            ConnectError::Tls(_) => None,
        };
        let why = match kind {
            Some(io::ErrorKind::TimedOut) => {
                format!("no connection within {} ms", limit.as_millis())
            }
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
            Some(io::ErrorKind::NotFound) => "no such socket".to_owned(),
            _ => error.to_string(),
        };
        let detail = format!("upstream {upstream}, endpoint {}: {why}", endpoint.address);
        ProxyError::new(Reason::ConnectFailed, detail)
    }

    pub(super) fn failed(&self, endpoint: &Endpoint, error: &impl std::fmt::Display) -> ProxyError {
        let upstream = &self.upstream.name;
        let detail = format!("upstream {upstream}, endpoint {}: {error}", endpoint.address);
        ProxyError::new(Reason::ConnectFailed, detail)
    }

    pub(super) fn sweep(&self, now: Instant) {
        let policy = &self.upstream.policy.pool;
        self.pools.borrow_mut().retain(|_, (endpoint, pool)| {
            pool.sweep(policy, endpoint.is_retired(), now);
            self.upstream.metrics.reuse_rests.inc_by(u64::from(pool.trust().take_rests()));
            !(endpoint.is_retired() && pool.is_empty())
        });
    }
}

/// A connection that stands, before anything is said on it.
pub(super) struct Opened {
    pub(super) socket: Socket,
    pub(super) place: Place,
    pub(super) made_with: MadeWith,
}

/// Where an HTTP/2 request ended up.
enum Made {
    New(Http2, SharedPlace),
    Stream(Http2, StreamGuard),
}
