//! `listeners.<name>.routes[]`.

use std::time::Duration;

use crate::base::units::ByteSize;

use super::{HashBy, JwtMode, Shaping};

/// A match, an action, and the policy of what it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `name:`, else `<listener>[<index>]`: a metric label, unique within the listener.
    pub name: String,
    /// All of it must hold. Default: matches everything.
    pub matches: RouteMatch,
    /// Exactly one of `to`, `redirect`, `respond`.
    pub action: Action,
    /// `rewrite:`.
    pub rewrite: Rewrite,
    /// `request_headers:`, applied before the request is sent on.
    pub request_headers: HeaderEdits,
    /// `response_headers:`, applied before the answer is passed back.
    pub response_headers: HeaderEdits,
    /// All attempts together, from the request's head received. Default 15 s. `None`: unlimited, as always on `tcp`,
    /// where the listener's `limits.idle` bounds a connection.
    pub timeout: Option<Duration>,
    /// A stream on which nothing moves. Default 5 min. `None`: unlimited, as always on `tcp`.
    pub idle: Option<Duration>,
    /// Whether a request needs a token, where the listener has `jwt`. Default required.
    pub jwt: JwtMode,
    /// `None` is `retry: never`, which turns `safe` off too.
    pub retry: Option<Retry>,
    /// `rate_limit:`; off on `tcp`.
    pub shaping: Shaping,
    /// `hash:`: what `ring_hash` and `maglev` choose by. Empty: nothing, they choose at random.
    pub hash: Vec<HashBy>,
}

/// `match:`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteMatch {
    /// Any of these; empty: every host.
    pub host: Vec<HostPattern>,
    /// The path (at most one of `path` and `grpc`).
    pub path: Option<PathPattern>,
    /// `grpc: package.Service` or `package.Service/Method`.
    pub grpc: Option<GrpcMatch>,
    /// Any of these; empty: every method but CONNECT.
    pub method: Vec<http::Method>,
    /// All of these; names are lower case.
    pub headers: Vec<(http::HeaderName, ValueMatch)>,
    /// All of these query parameters.
    pub query: Vec<(String, ValueMatch)>,
}

/// A host in `match.host`, lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// The name itself.
    Exact(String),
    /// `*.suffix`: one or more labels before `.suffix` (kept here without `*`, with the dot).
    Suffix(String),
}

/// `match.path`.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// `/v2/x`: exactly this path.
    Exact(String),
    /// `/v2/*`: `/v2`, `/v2/` and all below, by whole segments; kept without `/*` (so `""` for `/*`).
    Prefix(String),
    /// `/users/{id}`: segments, `None` for one non-empty segment of any text. `rest`: it ended in `/*`.
    Template {
        /// The segments between the slashes.
        segments: Vec<Option<String>>,
        /// True where the pattern ends in `/*`.
        rest: bool,
    },
    /// `{ regex: … }`, searched in the path (not anchored unless it says so).
    Regex(regex::Regex),
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Template { segments: a, rest: x }, Self::Template { segments: b, rest: y }) => {
                a == b && x == y
            }
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// `match.grpc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMatch {
    /// `package.Service`.
    pub service: String,
    /// One method, or all of the service.
    pub method: Option<String>,
}

/// The value of a header or query parameter.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// A string.
    Exact(String),
    /// `{ prefix: }`.
    Prefix(String),
    /// `{ regex: }`.
    Regex(regex::Regex),
    /// `{ present: true|false }`.
    Present(bool),
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present(a), Self::Present(b)) => a == b,
            _ => false,
        }
    }
}

/// What a route does with what it takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `to:` upstreams by weight; at least one weight is above 0.
    To(Vec<(String, u32)>),
    /// `redirect:`.
    Redirect(Redirect),
    /// `respond:`.
    Respond(Respond),
}

/// `redirect:`; at least one of `scheme`, `host`, `path`, `prefix` is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 308: method and body are kept.
    pub status: http::StatusCode,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host, with port where wanted.
    pub host: Option<String>,
    /// The whole path (at most one of `path` and `prefix`).
    pub path: Option<String>,
    /// In place of what the match's `/*` left fixed.
    pub prefix: Option<String>,
}

/// `respond:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// 200..=599.
    pub status: http::StatusCode,
    /// At most 64 KiB. Default empty.
    pub body: String,
    /// Default `text/plain; charset=utf-8`; ignored where the body is empty.
    pub content_type: http::HeaderValue,
}

/// `rewrite:`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// In place of the fixed part of a match that ends in `/*`.
    pub prefix: Option<String>,
    /// In place of the host.
    pub host: Option<http::HeaderValue>,
}

/// `request_headers:` and `response_headers:`; applied in the order remove, set, append.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderEdits {
    /// Replaces every value of the name.
    pub set: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Adds a value beside those there are.
    pub append: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Removes every value of the name.
    pub remove: Vec<http::HeaderName>,
}

/// `retry:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Beyond `safe`, which is always included.
    pub when: RetryWhen,
    /// Attempts in all, 1..=10. Default 3.
    pub attempts: u32,
    /// One attempt. Default: only the deadline bounds it. Must be below `timeout`.
    pub per_try: Option<Duration>,
    /// Full jitter between 0 and `first` × 2^(n-1), at most `max`. Default 25 ms..250 ms.
    pub backoff: BackoffRange,
    /// Which methods may be sent again beyond `safe`. Default idempotent.
    pub methods: RetryMethods,
    /// Request body kept for another attempt. Default 64 KiB.
    pub replay: ByteSize,
}

/// `retry.when`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryWhen {
    /// `reset`: the connection or stream ended before a response.
    pub reset: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `5xx`.
    pub server_error: bool,
    /// `per-try-timeout`.
    pub per_try_timeout: bool,
    /// Single statuses, 400..=599.
    pub statuses: Vec<u16>,
    /// gRPC status codes, 1..=16.
    pub grpc: Vec<u8>,
}

/// `retry.backoff: first..max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffRange {
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound of every wait.
    pub max: Duration,
}

/// `retry.methods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, PUT, DELETE, TRACE (RFC 9110 §9.2.2), and whatever carries an `Idempotency-Key`.
    Idempotent,
    /// Every method.
    Any,
    /// These, and whatever carries an `Idempotency-Key`.
    Listed(Vec<http::Method>),
}
