//! The immutable compiled view of a configuration: what a request sees from its first to its last byte.
//!
//! The control thread makes it and swaps it in as a whole; workers look at one counter per request and load the new
//! one when that has moved. What has live state (upstreams, connection counts) is shared by `Arc` with the snapshot
//! before, where the configuration of it is unchanged.

mod authorize;
mod command;
mod fault;
mod hashing;
mod hedging;
mod jwt;
mod mirror;
mod rate_limit;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::base::rng::Rng;
use crate::base::units::{ByteSize, Ratio};
use crate::metrics::{ListenerMetrics, RouteMetrics};
use crate::policy::retry::RetryPolicy;
use crate::policy::sources::Sources;
use crate::route::{Redirect, RewritePrefix, RouteTable};
use crate::upstream::Upstream;

pub use authorize::Authorize;
pub use command::{Command, ListenSocket, Protocol};
pub use fault::FaultInjection;
pub use hashing::{HashBy, HashCookie};
pub use hedging::Hedging;
pub use jwt::{Jwt, JwtMode};
pub use mirror::{Mirror, MirrorTarget};
pub use rate_limit::{RateLimit, RateLimitBy, RateLimitSettings};
pub use tls::ListenerTls;

/// Everything in force.
#[derive(Debug)]
pub struct Snapshot {
    /// 1 for the configuration of the start, one more with each reload that took force.
    pub generation: u64,
    /// Our name, in logs.
    pub service: Arc<str>,
    /// Also read the timeouts in Envoy's headers.
    pub compat_envoy: bool,
    /// Which requests the access log takes.
    pub log: LogFilter,
    /// By the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// By the order of the configuration.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Where the listeners are bound: no redirected connection may have been going there.
    pub listening: Vec<SocketAddr>,
}

impl Snapshot {
    /// The listener of that name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogFilter {
    /// All of them.
    All,
    /// Those that failed.
    Errors,
    /// Those that failed, and a share of the others.
    Share(Ratio),
    /// None.
    Never,
}

/// A listener's routes and limits.
#[derive(Debug)]
pub struct Listener {
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// Traffic to the local application (true) or from it.
    pub inbound: bool,
    /// Its connections are redirected here by the packet filter.
    pub original_destination: bool,
    /// TLS; `None`: callers are spoken to in clear.
    pub tls: Option<ListenerTls>,
    /// Who may call what. `None`: everyone everything.
    pub authorize: Option<Authorize>,
    /// Whose tokens are taken. `None`: none are asked for.
    pub jwt: Option<Jwt>,
    /// What a peer may use.
    pub limits: ListenerLimits,
    /// Open connections over all workers; shared with the listener of the same name before a reload.
    pub connections: Arc<AtomicU32>,
    /// Finds the index of the route.
    pub table: RouteTable,
    /// Open connections by source, where `limits.per_source` is set; shared like `connections`.
    pub sources: Option<Arc<Sources>>,
    /// By the table's index.
    pub routes: Vec<Route>,
    /// Handles resolved once.
    pub metrics: ListenerMetrics,
    /// For requests that no route took.
    pub unrouted: RouteMetrics,
}

/// See the configuration's `limits` of a listener; `None` is unlimited.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerLimits {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Connections at once from one source.
    pub per_source: Option<u32>,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: ByteSize,
    /// From a head's first byte to its last.
    pub header_timeout: Option<Duration>,
    /// Bytes of a request's body.
    pub body: Option<ByteSize>,
    /// Longest pause in a request's body.
    pub body_timeout: Option<Duration>,
    /// A connection without a request.
    pub idle: Option<Duration>,
    /// A connection's age.
    pub max_age: Option<Duration>,
    /// HTTP/2 streams at once.
    pub streams: u32,
}

/// What happens to the requests that one route takes.
#[derive(Debug)]
pub struct Route {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Where they go.
    pub action: Action,
    /// In place of the matched prefix.
    pub rewrite_prefix: Option<RewritePrefix>,
    /// In place of the host.
    pub rewrite_host: Option<HeaderValue>,
    /// Edits on the way up.
    pub request_headers: HeaderEdits,
    /// Edits on the way back.
    pub response_headers: HeaderEdits,
    /// All attempts together.
    pub timeout: Option<Duration>,
    /// A stream on which nothing moves.
    pub idle: Option<Duration>,
    /// Whether a token is needed, where the listener takes some.
    pub jwt: JwtMode,
    /// Requests beyond it are refused.
    pub rate_limit: Option<RateLimit>,
    /// Failures on purpose.
    pub fault: Option<FaultInjection>,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// What balancers that hash choose by; empty: nothing.
    pub hash: Vec<HashBy>,
    /// When a second attempt is raced against the first.
    pub hedging: Option<Hedging>,
    /// When a request is sent again.
    pub retry: RetryPolicy,
    /// Handles resolved once.
    pub metrics: RouteMetrics,
}

/// Where a request goes.
#[derive(Debug)]
pub enum Action {
    /// To one of these upstreams, by weight.
    To(Split),
    /// Elsewhere.
    Redirect(Redirect),
    /// No further.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: bytes::Bytes,
        /// The body's type.
        content_type: HeaderValue,
    },
}

/// Upstreams by weight.
#[derive(Debug)]
pub struct Split {
    /// Each with the sum of the weights up to and including its own.
    upstreams: Vec<(Arc<Upstream>, usize)>,
}

impl Split {
    /// Upstreams with their weights; one of weight 0 is never picked. `None` when nothing could be picked.
    pub fn new(weighted: impl IntoIterator<Item = (Arc<Upstream>, u32)>) -> Option<Self> {
        let mut sum = 0_usize;
        let mut upstreams = Vec::new();
        for (upstream, weight) in weighted {
            sum = sum.checked_add(usize::try_from(weight).ok()?)?;
            upstreams.push((upstream, sum));
        }
        (sum > 0).then_some(Self { upstreams })
    }

    /// One of the upstreams. Draws a number only where there is a choice.
    pub fn pick(&self, rng: &mut Rng) -> &Arc<Upstream> {
        let (last, sum) = &self.upstreams[self.upstreams.len() - 1];
        if self.upstreams.len() == 1 {
            return last;
        }
        let drawn = rng.below(*sum);
        self.upstreams.iter().find(|(_, end)| drawn < *end).map_or(last, |(upstream, _)| upstream)
    }

    /// All of them.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().map(|(upstream, _)| upstream)
    }
}

/// Edits of a head, in the order remove, set, append.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct HeaderEdits {
    /// Names whose values are removed.
    pub remove: Vec<HeaderName>,
    /// Names whose values are replaced.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values added.
    pub append: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }

    /// Applies them.
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.append {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Where workers find the snapshot in force.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
}

impl SnapshotCell {
    /// Holds the first snapshot.
    pub fn new(first: Snapshot) -> Self {
        let generation = AtomicU64::new(first.generation);
        Self { current: ArcSwap::from_pointee(first), generation }
    }

    /// The number of the snapshot in force: one relaxed load, for every request. A worker that sees the new number a
    /// moment late serves that request by the old configuration, whole.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The snapshot in force.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `next` in force.
    pub fn apply(&self, next: Snapshot) {
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
    }
}
