//! What one worker has of an upstream: its connections, its part of the retry budget, its waiting requests.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::Service;

use crate::balance::endpoint::Endpoint;
use crate::base::error::{ProxyError, Reason};
use crate::io::socket::Socket;
use crate::io::tick::Tick;
use crate::metrics::GaugeGuard;
use crate::net::{Connect, Http1, Http2, SendFailure, Target};
use crate::policy::limits::Permit;
use crate::policy::retry_budget::RetryBudget;

use super::Upstream;
use super::connection::Connection;
use super::pool::{EndpointPool, Http2Place};

/// Maps of a worker are keyed by ids of our own making: no attacker chooses them, so a fast fixed hash will do.
pub(super) type IdMap<V> = HashMap<u64, V, FixedState>;

/// One worker's part of an upstream.
#[derive(Debug)]
pub struct LocalUpstream {
    /// What all workers share.
    pub upstream: Arc<Upstream>,
    budget: RefCell<RetryBudget>,
    pools: RefCell<IdMap<(Arc<Endpoint>, Rc<EndpointPool>)>>,
    waiting: Cell<u32>,
    freed: Notify,
}

/// A place at the upstream; dropping it lets the next request in.
#[derive(Debug)]
pub struct Slot {
    /// Taken out by the drop, before the next in line is woken.
    permit: Option<Permit>,
    local: Rc<LocalUpstream>,
    _in_flight: GaugeGuard,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permit = None;
        self.local.wake(1);
    }
}

impl LocalUpstream {
    pub(super) fn new(upstream: Arc<Upstream>, workers: u32, now: Instant) -> Self {
        let policy = upstream.policy.budget;
        let floor = policy.floor_per_second / f64::from(workers);
        Self {
            budget: RefCell::new(RetryBudget::new(policy.ratio, floor, policy.window, now)),
            upstream,
            pools: RefCell::default(),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// The worker's part of the retry budget.
    pub fn budget(&self) -> RefMut<'_, RetryBudget> {
        self.budget.borrow_mut()
    }

    /// A place for one attempt; waits for one as long as the upstream's `queue` and `deadline` allow.
    ///
    /// # Errors
    /// `limit_reached` when too many wait, `queue_timeout`, or `timeout` when the deadline comes first.
    pub async fn enter(
        self: &Rc<Self>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Slot, ProxyError> {
        let permit = match self.free_place(|local| local.upstream.limits.try_in_flight()) {
            Some(permit) => permit,
            None => {
                self.wait(tick, deadline, |local| local.upstream.limits.try_in_flight()).await?
            }
        };
        Ok(Slot {
            permit: Some(permit),
            local: Rc::clone(self),
            _in_flight: GaugeGuard::of(&self.upstream.metrics.in_flight),
        })
    }

    /// Nobody overtakes those who wait.
    fn free_place<T>(&self, take: impl Fn(&Self) -> Option<T>) -> Option<T> {
        if self.waiting.get() > 0 { None } else { take(self) }
    }

    async fn wait<T>(
        &self,
        tick: &Tick,
        deadline: Option<Instant>,
        take: impl Fn(&Self) -> Option<T>,
    ) -> Result<T, ProxyError> {
        let full = || {
            let detail = format!("upstream {} has reached its limits", self.upstream.name);
            ProxyError::new(Reason::LimitReached, detail)
        };
        if self.upstream.policy.queue.is_zero() {
            return Err(full());
        }
        let _pending = self.upstream.limits.try_pending().ok_or_else(full)?;
        let _gauge = GaugeGuard::of(&self.upstream.metrics.pending);
        let _waiting = Waiting::new(&self.waiting);
        let queue_ends = Instant::now() + self.upstream.policy.queue;
        let until = deadline.map_or(queue_ends, |deadline| deadline.min(queue_ends));
        let mut timer = tick.timer(Some(until));
        loop {
            if timer.limit(std::pin::pin!(self.freed.notified())).await.is_err() {
                let (reason, what) = if until < queue_ends {
                    (Reason::Timeout, "the deadline passed while waiting for a place at upstream ")
                } else {
                    (Reason::QueueTimeout, "waited too long for a place at upstream ")
                };
                return Err(ProxyError::new(reason, format!("{what}{}", self.upstream.name)));
            }
            if let Some(taken) = take(self) {
                return Ok(taken);
            }
        }
    }

    pub(super) fn wake(&self, places: u32) {
        for _ in 0..places.min(self.waiting.get()) {
            self.freed.notify_one();
        }
    }

    /// Requests that wait on this worker.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.get()
    }

    /// Closes every unused connection.
    pub(super) fn close(&self) {
        self.pools.borrow().values().for_each(|(_, pool)| pool.close());
    }

    fn pool(&self, endpoint: &Arc<Endpoint>) -> Rc<EndpointPool> {
        let mut pools = self.pools.borrow_mut();
        let (_, pool) =
            pools.entry(endpoint.id).or_insert_with(|| (Arc::clone(endpoint), Rc::default()));
        Rc::clone(pool)
    }

    /// A connection to `endpoint`: one that is kept, or a new one. `fresh` takes no kept HTTP/1 connection.
    ///
    /// # Errors
    /// `connect_failed`, or those of waiting for one of the upstream's connections.
    pub async fn connect(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        http2: bool,
        fresh: bool,
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
        while !fresh && let Some(mut connection) = pool.checkout(policy, Instant::now()) {
            if connection.ready().await {
                return Ok(Connection::http1(connection, pool));
            }
        }
        Box::pin(self.connect_http1(endpoint, pool, tick, deadline)).await
    }

    async fn connect_http1(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        pool: Rc<EndpointPool>,
        tick: &Tick,
        deadline: Option<Instant>,
    ) -> Result<Connection, ProxyError> {
        let (socket, held) = self.dial(endpoint, tick, deadline).await?;
        match Http1::start(socket, Instant::now(), held).await {
            Ok(connection) => Ok(Connection::http1(connection, pool)),
            Err(error) => Err(self.failed(endpoint, &error)),
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
            let made = match self.dial(endpoint, tick, deadline).await {
                Ok((socket, held)) => Http2::start(socket, Instant::now(), held)
                    .await
                    .map_err(|error| self.failed(endpoint, &error)),
                Err(error) => Err(error),
            };
            match made {
                Ok(connection) => {
                    let (connection, stream) = maker.succeed(connection);
                    return Ok(Connection::http2(connection, stream));
                }
                Err(error) => {
                    maker.fail(&error);
                    return Err(error);
                }
            }
        }
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
        let permit = match self.free_place(|local| local.upstream.limits.try_connection()) {
            Some(permit) => permit,
            None => {
                self.wait(tick, deadline, |local| local.upstream.limits.try_connection()).await?
            }
        };
        let gauge = GaugeGuard::of(&self.upstream.metrics.connections);
        let timeout = self.upstream.connect_timeout(endpoint);
        let target = Target { address: endpoint.address.clone(), timeout };
        match Connect.call(target).await {
            Ok(socket) => {
                self.upstream.metrics.connects_ok.inc();
                let local = Rc::clone(self);
                Ok((socket, Held { permit: Some(permit), local, _gauge: gauge }))
            }
            Err(error) => {
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

    fn not_connected(&self, endpoint: &Endpoint, error: &io::Error, limit: Duration) -> ProxyError {
        let upstream = &self.upstream.name;
        let why = match error.kind() {
            io::ErrorKind::TimedOut => format!("no connection within {} ms", limit.as_millis()),
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::NotFound => "no such socket".to_owned(),
            _ => error.to_string(),
        };
        let detail = format!("upstream {upstream}, endpoint {}: {why}", endpoint.address);
        ProxyError::new(Reason::ConnectFailed, detail)
    }

    fn failed(&self, endpoint: &Endpoint, error: &SendFailure) -> ProxyError {
        let upstream = &self.upstream.name;
        let detail = format!("upstream {upstream}, endpoint {}: {error}", endpoint.address);
        ProxyError::new(Reason::ConnectFailed, detail)
    }

    pub(super) fn sweep(&self, now: Instant) {
        let policy = &self.upstream.policy.pool;
        self.pools.borrow_mut().retain(|_, (endpoint, pool)| {
            pool.sweep(policy, endpoint.is_retired(), now);
            !(endpoint.is_retired() && pool.is_empty())
        });
    }
}

/// What an open connection holds of its upstream.
#[derive(Debug)]
struct Held {
    permit: Option<Permit>,
    local: Rc<LocalUpstream>,
    _gauge: GaugeGuard,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.permit = None;
        self.local.wake(1);
    }
}

/// Counts a waiting request while it lives.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
