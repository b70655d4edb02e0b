//! `upstreams.<name>`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::units::{Rate, Ratio};

use super::balance::Balancing;
use super::discover::Discover;
use super::gate::{Adaptive, Breaker, Throttle};
use super::outliers::Outliers;
use super::tls::UpstreamTls;

/// A named group of interchangeable endpoints and its policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its key under `upstreams`: a metric label.
    pub name: String,
    /// Exactly one of `endpoints` and `discover`.
    pub discover: Discover,
    /// What is spoken to it. Default `auto`.
    pub protocol: UpstreamProtocol,
    /// TLS; `None` (not written, or `never`): endpoints are spoken to in clear.
    pub tls: Option<UpstreamTls>,
    /// `None`: not written: 1 s, and 250 ms to a loopback endpoint.
    pub connect_timeout: Option<Duration>,
    /// How an endpoint is picked.
    pub balance: Balancing,
    /// Only endpoints with these labels; empty: all.
    pub subset: BTreeMap<String, String>,
    /// How long an endpoint that joins or returns takes to its whole weight. Default `never`.
    pub slow_start: Option<Duration>,
    /// Connections kept for reuse.
    pub pool: PoolSettings,
    /// Circuit breaking by resource.
    pub limits: UpstreamLimits,
    /// Circuit breaking by state.
    pub breaker: Option<Breaker>,
    /// An adaptive limit in place of `limits.in_flight`.
    pub adaptive: Option<Adaptive>,
    /// Client-side throttling.
    pub throttle: Option<Throttle>,
    /// Active health checks; `None` (not written, or `never`): none.
    pub health: Option<HealthCheck>,
    /// Who is taken out of traffic for failures; `None` is `never`.
    pub outliers: Option<Outliers>,
}

/// `protocol:` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Over TLS what the endpoints choose (ALPN); in clear HTTP/1.1. gRPC requests go over HTTP/2, which gRPC requires.
    Auto,
}

/// `pool:`. Per worker and endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// How long an unused connection is kept.
    pub idle: PoolIdle,
    /// Unused connections kept. Default 100.
    pub max_idle: usize,
    /// Requests on one connection. Default unlimited.
    pub max_requests: Option<u64>,
    /// Age after which a connection takes no further request. Default unlimited.
    pub max_age: Option<Duration>,
}

/// `pool.idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolIdle {
    /// 4 s, or less where the upstream's `Keep-Alive: timeout=` says so (one second below it).
    Auto,
    /// This long.
    After(Duration),
}

/// `limits:` of an upstream: in all, over every worker. `None` is `unlimited`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamLimits {
    /// Connections at once. Default 1 024.
    pub connections: Option<u32>,
    /// Requests at once. Default 1 024.
    pub in_flight: Option<u32>,
    /// Requests that wait for a place. Default 256; 0 turns waiting off.
    pub pending: Option<u32>,
    /// How long one waits. Default 1 s, never beyond its deadline.
    pub queue: Duration,
    /// Caps retries.
    pub retry_budget: Budget,
}

/// `limits.retry_budget`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Retries per request. Default 20 %.
    pub ratio: Ratio,
    /// Retries allowed whatever the traffic. Default 3/s.
    pub floor: Rate,
    /// Requests are counted over this window. Default 10 s.
    pub window: Duration,
}

/// `health:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Exactly one of `http`, `tcp` and `grpc`.
    pub probe: HealthProbe,
    /// Sent as `Host` or `:authority`. Not written: the name that discovery looks up, else the endpoint's address.
    pub host: Option<String>,
    /// From the start of a check to the start of the next, 10 ms to 1 h. Default 5 s.
    pub interval: Duration,
    /// Until the answer, 1 ms to 1 min. Default 1 s.
    pub timeout: Duration,
    /// Passes in a row until an unhealthy endpoint is healthy, 1..=100. Default 2.
    pub rise: u32,
    /// Failures in a row until a healthy endpoint is unhealthy, 1..=100. Default 3.
    pub fall: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthProbe {
    /// `http: /path`: GET, over the protocol of the upstream.
    Http {
        /// In origin form; may have a query.
        path: String,
        /// `status`: ranges with both ends, in order, within 200..=599. Default 200..299.
        status: Vec<(u16, u16)>,
    },
    /// `tcp: true`: a connection stands.
    Tcp,
    /// `grpc: service`: `grpc.health.v1.Health/Check`.
    Grpc {
        /// Empty: the whole server.
        service: String,
    },
}
