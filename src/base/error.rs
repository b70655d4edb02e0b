//! Why a request ended other than by the upstream's own answer: one closed list.
//!
//! Each [`Reason`] knows its word (header `x-outrigger-reason`, log, metric label), Envoy's response flag, and whether
//! the request provably did not run. Only `proxy::reply` turns a reason into a status and a body.

use std::fmt;

/// Who is at the origin of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The side that connected to us.
    Downstream,
    /// The side that we connect to.
    Upstream,
    /// Our own decision: a limit, a policy, a missing route.
    Proxy,
}

/// Whether a request may have been executed by an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetrySafety {
    /// It provably was not: nothing was written, or the protocol guarantees it (REFUSED_STREAM, GOAWAY).
    NotSent,
    /// It may have been.
    MaybeSent,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $flag:literal, $origin:ident, $safety:ident;)+) => {
        /// Why the proxy answered itself, refused a message, or gave up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of the documentation; metric handles are indexed by it.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in headers, logs and metric labels.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// Envoy's response flag for the same event (or ours, in its style, where Envoy has none).
            pub const fn flag(self) -> &'static str {
                match self { $(Self::$name => $flag,)+ }
            }

            /// Who caused it.
            pub const fn origin(self) -> Origin {
                match self { $(Self::$name => Origin::$origin,)+ }
            }

            /// Whether the request may have run.
            pub const fn safety(self) -> RetrySafety {
                match self { $(Self::$name => RetrySafety::$safety,)+ }
            }
        }
    };
}

reasons! {
    /// No route of the listener matched.
    NoRoute = "no_route", "NR", Proxy, NotSent;
    /// The upstream has no endpoint at all (discovery has not answered, or answered empty).
    NoUpstream = "no_upstream", "NC", Proxy, NotSent;
    /// The upstream has endpoints, none of which may be used.
    NoHealthyEndpoint = "no_healthy_endpoint", "UH", Upstream, NotSent;
    /// No connection could be made: refused, unreachable, timed out.
    ConnectFailed = "connect_failed", "UF", Upstream, NotSent;
    /// A limit of the upstream or the listener is reached.
    LimitReached = "limit_reached", "UO", Proxy, NotSent;
    /// The request waited as long as it may for a place at the upstream.
    QueueTimeout = "queue_timeout", "QT", Proxy, NotSent;
    /// The upstream's breaker is open, or half-open with its places taken.
    BreakerOpen = "breaker_open", "BO", Proxy, NotSent;
    /// The upstream refuses much of what it is sent, and is spared a share of it.
    Overload = "overload", "OM", Proxy, NotSent;
    /// The listener's rules do not let this caller do this.
    Denied = "denied", "UAEX", Proxy, NotSent;
    /// The request's token is missing or not valid.
    Unauthenticated = "unauthenticated", "UAEX", Downstream, NotSent;
    /// More requests than the route's rate limit admits.
    RateLimited = "rate_limited", "RL", Proxy, NotSent;
    /// The route answers a share of its requests with an error on purpose.
    FaultAbort = "fault_abort", "FI", Proxy, NotSent;
    /// The caller's deadline had passed before anything was sent.
    DeadlineExpired = "deadline_already_expired", "DX", Downstream, NotSent;
    /// The route's timeout, or the caller's shorter deadline, passed.
    Timeout = "timeout", "UT", Upstream, MaybeSent;
    /// The last attempt took longer than the per-try timeout, with no further attempt allowed.
    PerTryTimeout = "per_try_timeout", "UT", Upstream, MaybeSent;
    /// The upstream closed the connection before its answer was complete.
    UpstreamClosed = "upstream_closed", "UC", Upstream, MaybeSent;
    /// The upstream reset the connection or the stream.
    UpstreamReset = "upstream_reset", "UR", Upstream, MaybeSent;
    /// The upstream refused the stream before running it (REFUSED_STREAM, GOAWAY).
    UpstreamRefused = "upstream_refused", "UR", Upstream, NotSent;
    /// An earlier attempt may have run, and the last one could not be sent.
    RetriesExhausted = "retries_exhausted", "URX", Upstream, MaybeSent;
    /// The upstream's answer is not valid HTTP, or cannot be passed on safely.
    UpstreamProtocol = "upstream_protocol_error", "UPE", Upstream, MaybeSent;
    /// The request is not valid HTTP, or cannot be passed on safely.
    DownstreamProtocol = "downstream_protocol_error", "DPE", Downstream, NotSent;
    /// A header of the request is malformed or contradicts another.
    BadHeader = "bad_header", "IH", Downstream, NotSent;
    /// The request's head or body is larger than the listener allows.
    TooLarge = "too_large", "DPE", Downstream, NotSent;
    /// The head or the body of the request did not arrive in time.
    RequestTimeout = "request_timeout", "SI", Downstream, NotSent;
    /// Nothing moved on a stream for the route's `idle`.
    StreamIdle = "stream_idle", "SI", Upstream, MaybeSent;
    /// The caller went away before the answer was complete.
    ClientGone = "client_gone", "DC", Downstream, MaybeSent;
    /// The request has come through this proxy before (`via`).
    Loop = "loop_detected", "LD", Downstream, NotSent;
    /// The method is not served here (CONNECT without a route for it).
    MethodRefused = "method_refused", "DPE", Downstream, NotSent;
    /// A route's own `respond` or `redirect`.
    DirectResponse = "direct_response", "DR", Proxy, NotSent;
    /// The name of the upstream could not be looked up, ever.
    DnsFailed = "dns_failed", "DF", Upstream, NotSent;
    /// The proxy is shutting down and the hard deadline has passed.
    Draining = "draining", "OM", Proxy, MaybeSent;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Reason {
    /// A dense index below `Reason::ALL.len()`, for arrays of metric handles.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A failed request or attempt: the reason, and a detail for the log and the reply's text.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct ProxyError {
    /// Which of the closed list.
    pub reason: Reason,
    /// One lower-case line for people; never quotes a peer's bytes.
    pub detail: std::borrow::Cow<'static, str>,
}

impl ProxyError {
    /// An error for `reason` with a `detail` for people.
    pub fn new(reason: Reason, detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Whether the request may have run.
    pub fn safety(&self) -> RetrySafety {
        self.reason.safety()
    }

    /// The same failure, where an attempt before it may have run: nobody must take the whole for something that did not.
    #[must_use]
    pub fn after_one_that_may_have_run(mut self) -> Self {
        if self.safety() == RetrySafety::NotSent {
            self.reason = Reason::RetriesExhausted;
        }
        self
    }
}
