//! What the user wrote, checked and with defaults filled in: plain data, no runtime types.
//!
//! `load` reads the file into a tree of nodes with their places, `read` turns nodes into the types below and goes on
//! after each error, `validate` checks what concerns more than one node. `control::compile` makes the runtime types.
//! `None` means `unlimited` (or "not written", where the field says so).

mod authorize;
mod balance;
mod defaults;
mod diagnostic;
mod discover;
mod effective;
mod expand;
mod gate;
mod jwt;
mod keys;
mod listener;
mod load;
mod loaded;
mod node;
pub mod outliers;
mod read;
mod render;
mod route;
mod scenario;
mod schema;
mod shaping;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::certificates::CertificateFiles;
use crate::base::units::Ratio;

pub use authorize::{Authorize, AuthorizeRule};
pub use balance::{Balance, Balancing, HashBy};
pub use diagnostic::{Diagnostic, Severity};
pub use discover::{ConsulService, Discover, KubernetesPort, KubernetesService, endpoints_from};
pub use effective::Effective;
pub use expand::Environment;
pub use gate::{Adaptive, Breaker, SlowCalls, Throttle};
pub use jwt::{Jwks, JwtIssuer, JwtMode};
pub use listener::{Direction, Listener, ListenerLimits, ListenerProtocol};
pub use loaded::{Loaded, load_file, load_str};
use read::GRPC;
pub use render::{render, render_json};
pub use route::{
    Action, BackoffRange, GrpcMatch, HeaderEdits, HostPattern, PathPattern, Redirect, Respond,
    Retry, RetryMethods, RetryWhen, Rewrite, Route, RouteMatch, ValueMatch,
};
pub use scenario::{
    Clients, Effect, Event, LoadedScenario, Scenario, Servers, ServiceTime, load_scenario,
    scenario_from,
};
pub use schema::schema;
pub use shaping::{Fault, FaultAbort, FaultDelay, Hedge, RateLimit, RateLimitBy, Shaping};
pub use source::{Position, Source, Span};
pub use tls::{ClientCert, ListenerTls, PlainText, UpstreamTls};
pub use upstream::{
    Budget, HealthCheck, HealthProbe, PoolIdle, PoolSettings, Upstream, UpstreamLimits,
    UpstreamProtocol,
};

/// A whole configuration file, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who we are: goes into logs and headers. Default: `outrigger`.
    pub service: String,
    /// Our own zone. Default: empty.
    pub zone: String,
    /// `compat: envoy`: also read the timeouts in Envoy's `x-envoy-*` headers.
    pub compat_envoy: bool,
    /// The admin server; `None` (not written) starts none.
    pub admin: Option<Admin>,
    /// Threads and life cycle.
    pub runtime: Runtime,
    /// Where and what the access log writes.
    pub access_log: AccessLog,
    /// Metrics.
    pub metrics: Metrics,
    /// The resolver for `dns://`.
    pub dns: Dns,
    /// Who we are among those that `ca` vouches for: what every `tls` that says nothing else is made of. `None`: not written.
    pub identity: Option<CertificateFiles>,
    /// Listeners, in the order of the file; names are unique.
    pub listeners: Vec<Listener>,
    /// Upstreams, in the order of the file; names are unique.
    pub upstreams: Vec<Upstream>,
}

/// `admin:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Bound address.
    pub bind: Address,
    /// A file whose trimmed content callers send as `Authorization: Bearer`. `None`: only loopback and unix peers may
    /// call what changes or shows more than `/metrics`, `/ready`, `/live`.
    pub token_file: Option<PathBuf>,
}

/// `runtime:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Worker threads, 1..=64; `None` is `auto`: the CPUs that the cgroup grants, at most 4.
    pub workers: Option<usize>,
    /// From SIGTERM until new connections are refused. Default 5 s.
    pub drain_delay: Duration,
    /// From SIGTERM (the delay included) until what is left is cut. Default 25 s, inside Kubernetes' 30 s.
    pub drain_deadline: Duration,
}

/// `access_log:`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go. Default stdout.
    pub to: LogTarget,
    /// Which requests are written. Default all.
    pub only: LogFilter,
}

/// `access_log.to`: `stdout`, `stderr`, or a file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file, an absolute path.
    File(PathBuf),
}

/// `access_log.only`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogFilter {
    /// Every request.
    All,
    /// Only 5xx, refusals, and failed gRPC calls.
    Errors,
    /// This share, chosen at random, and every error.
    Share(Ratio),
    /// Nothing (`never`).
    Never,
}

/// `metrics:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Upper bounds of the latency histogram, ascending, 1..=50 of them. Default: 14 from 1 ms to 30 s.
    pub buckets: Vec<Duration>,
}

/// `dns:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    /// Name servers; empty: the system's (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
    /// Search domains for names without a dot; empty: the system's.
    pub search: Vec<String>,
    /// Answers are asked again after their TTL, clamped to this range. Default 1 s..60 s.
    pub ttl: (Duration, Duration),
}
