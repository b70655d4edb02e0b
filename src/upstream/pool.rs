//! Connections of one worker to one endpoint, kept for reuse.
//!
//! HTTP/1: a stack, last in first out, because the connection used last is the warmest and the least likely to be
//! closing; the others grow old together and are swept. HTTP/2: one connection, a second one only where the peer's
//! stream limit is reached; requests that come while it is being made wait for it instead of making their own.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::base::error::ProxyError;
use crate::net::http2::StreamGuard;
use crate::net::{Http1, Http2};
use crate::policy::reuse::ReuseTrust;

use super::connection::{Place, SharedPlace};

/// Kept while unused, where the upstream's keep-alive is not known: below the 5 s that many servers (Node.js, Apache)
/// close at, so that they do not close under a request.
const IDLE_HTTP1: Duration = Duration::from_secs(4);

/// An HTTP/2 connection announces its end (GOAWAY), so it may be kept longer: as long as ztunnel keeps its own.
const IDLE_HTTP2: Duration = Duration::from_secs(300);

/// How long and how many connections are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPolicy {
    /// Kept this long while unused; `None`: 4 s (HTTP/2: 5 min), or less where the upstream's `Keep-Alive` says so.
    pub idle: Option<Duration>,
    /// Unused HTTP/1 connections kept, per worker and endpoint.
    pub max_idle: usize,
    /// Requests on one connection; `None`: any number.
    pub max_requests: Option<u64>,
    /// Age after which a connection takes no further request; `None`: any.
    pub max_age: Option<Duration>,
}

impl PoolPolicy {
    /// How long an HTTP/1 connection is kept unused to an upstream that says nothing about it.
    pub fn kept(&self) -> Duration {
        self.idle.unwrap_or(IDLE_HTTP1)
    }

    fn allows_http1(&self, connection: &Http1, now: Instant) -> bool {
        self.allows(connection.used(), connection.made(), connection.ends_at(), now)
    }

    fn allows(&self, used: u64, made: Instant, ends_at: Option<Instant>, now: Instant) -> bool {
        ends_at.is_none_or(|at| now < at)
            && self.max_requests.is_none_or(|max| used < max)
            && self.max_age.is_none_or(|max| now.saturating_duration_since(made) < max)
    }
}

/// What one worker keeps open to one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<(Http2, SharedPlace)>>,
    /// The connection that is being made, where one is.
    connecting: RefCell<Option<Rc<Connecting>>>,
    /// One second below what the upstream's `Keep-Alive: timeout=` said last.
    learned: Cell<Option<Duration>>,
    /// How reuse went.
    trust: RefCell<ReuseTrust>,
}

#[derive(Debug)]
struct Idle {
    connection: Http1,
    place: Place,
    since: Instant,
}

/// An HTTP/2 connection that is being made, for those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    done: Notify,
    failure: RefCell<Option<String>>,
}

impl Connecting {
    /// Waits until it stands or has failed.
    ///
    /// # Errors
    /// The failure of the one that made it.
    pub(super) async fn finished(self: Rc<Self>) -> Result<(), ProxyError> {
        self.done.notified().await;
        // Passed on, one by one: a notification wakes a single waiter.
        self.done.notify_one();
        match &*self.failure.borrow() {
            None => Ok(()),
            Some(detail) => {
                Err(ProxyError::new(crate::base::error::Reason::ConnectFailed, detail.clone()))
            }
        }
    }
}

/// Where a request gets its HTTP/2 connection from.
#[derive(Debug)]
pub(super) enum Http2Place {
    /// A stream of a connection that stands.
    Stream(Http2, StreamGuard),
    /// Another request is making one: wait for it.
    Wait(Rc<Connecting>),
    /// Make one, and tell the others.
    Make(Maker),
}

/// The one request that makes the connection. Dropped without a word (its caller left), the next of the others makes it.
#[derive(Debug)]
pub(super) struct Maker {
    pool: Rc<EndpointPool>,
    connecting: Rc<Connecting>,
}

impl Maker {
    /// Shares the new connection.
    pub(super) fn succeed(self, connection: Http2, place: SharedPlace) -> (Http2, StreamGuard) {
        let stream = connection.open_stream();
        self.pool.http2.borrow_mut().push((connection.clone(), place));
        (connection, stream)
    }

    /// Tells the others why there is none.
    pub(super) fn fail(self, error: &ProxyError) {
        *self.connecting.failure.borrow_mut() = Some(error.detail.to_string());
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        *self.pool.connecting.borrow_mut() = None;
        self.connecting.done.notify_one();
    }
}

impl EndpointPool {
    /// What was learned of reuse.
    pub(super) fn trust(&self) -> RefMut<'_, ReuseTrust> {
        self.trust.borrow_mut()
    }

    /// True when an HTTP/1 connection is kept.
    pub(super) fn has_kept(&self) -> bool {
        !self.idle.borrow().is_empty()
    }

    /// The idle HTTP/1 connection that was used last, if one may still be used.
    pub(super) fn checkout(&self, policy: &PoolPolicy, now: Instant) -> Option<(Http1, Place)> {
        let limit = self.idle_limit(policy);
        let mut idle = self.idle.borrow_mut();
        while let Some(candidate) = idle.pop() {
            let rested = now.saturating_duration_since(candidate.since);
            if rested >= limit {
                // All below it on the stack have rested longer.
                idle.clear();
                return None;
            }
            let connection = candidate.connection;
            if connection.is_open() && policy.allows_http1(&connection, now) {
                return Some((connection, candidate.place));
            }
        }
        None
    }

    /// Takes a connection back after a response that was read to its end.
    pub(super) fn checkin(
        &self,
        connection: Http1,
        place: Place,
        policy: &PoolPolicy,
        now: Instant,
    ) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= policy.max_idle
            || !connection.is_open()
            // One is kept for the trial that follows.
            || (!idle.is_empty() && self.trust.borrow().rests())
            || !policy.allows_http1(&connection, now)
        {
            return;
        }
        idle.push(Idle { connection, place, since: now });
    }

    /// Remembers the upstream's `Keep-Alive: timeout=`, in seconds.
    pub(super) fn learn(&self, seconds: u64) {
        self.learned.set(Some(Duration::from_secs(seconds.saturating_sub(1).max(1))));
    }

    fn idle_limit(&self, policy: &PoolPolicy) -> Duration {
        let learned = self.learned.get();
        policy.idle.unwrap_or_else(|| learned.map_or(IDLE_HTTP1, |at| at.min(IDLE_HTTP1)))
    }

    /// A stream of a connection that stands, where one has room.
    pub(super) fn stream(&self, policy: &PoolPolicy, now: Instant) -> Option<(Http2, StreamGuard)> {
        let mut connections = self.http2.borrow_mut();
        connections.retain(|(connection, _)| {
            let (used, made, ends_at) =
                (connection.used(), connection.made(), connection.ends_at());
            !connection.is_closed() && policy.allows(used, made, ends_at, now)
        });
        let (connection, _) = connections.iter().find(|(connection, _)| connection.has_room())?;
        Some((connection.clone(), connection.open_stream()))
    }

    /// Closes an unused connection and returns its place: at the limit, what is in use goes before what is kept.
    pub(super) fn evict(&self) -> Option<Place> {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            // The one that has rested longest.
            return Some(idle.remove(0).place);
        }
        let mut http2 = self.http2.borrow_mut();
        let unused = http2.iter().position(|(connection, _)| connection.idle_since().is_some())?;
        http2.swap_remove(unused).1.take()
    }

    /// A stream, or what to do to get one.
    pub(super) fn http2(self: &Rc<Self>, policy: &PoolPolicy, now: Instant) -> Http2Place {
        if let Some((connection, stream)) = self.stream(policy, now) {
            return Http2Place::Stream(connection, stream);
        }
        let mut connecting = self.connecting.borrow_mut();
        if let Some(connecting) = &*connecting {
            return Http2Place::Wait(Rc::clone(connecting));
        }
        let made = Rc::new(Connecting::default());
        *connecting = Some(Rc::clone(&made));
        Http2Place::Make(Maker { pool: Rc::clone(self), connecting: made })
    }

    /// Closes what has rested too long, and what its peer has closed; everything unused where the endpoint is `retired`. Called about once a second.
    pub(super) fn sweep(&self, policy: &PoolPolicy, retired: bool, now: Instant) {
        let limit = self.idle_limit(policy);
        self.idle.borrow_mut().retain(|idle| {
            !retired
                && idle.connection.is_open()
                && policy.allows_http1(&idle.connection, now)
                && now.saturating_duration_since(idle.since) < limit
        });
        let limit = policy.idle.unwrap_or(IDLE_HTTP2);
        self.http2.borrow_mut().retain(|(connection, _)| {
            // A connection with open streams lives on in their handles and closes with the last of them.
            let rested = connection.idle_since().map(|since| now.saturating_duration_since(since));
            !retired && !connection.is_closed() && rested.is_none_or(|rested| rested < limit)
        });
    }

    /// True when nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
            && self.http2.borrow().is_empty()
            && self.connecting.borrow().is_none()
    }

    /// Closes what is unused: the worker drains.
    pub(super) fn close(&self) {
        self.idle.borrow_mut().clear();
        self.http2.borrow_mut().clear();
    }
}
