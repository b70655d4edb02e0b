//! `listeners.<name>`.

use std::time::Duration;

use crate::base::address::Address;
use crate::base::units::ByteSize;

use super::{Authorize, JwtIssuer, ListenerTls, Route};

/// A bound address, its protocol and its routes.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its key under `listeners`: a metric label.
    pub name: String,
    /// Where it is bound.
    pub bind: Address,
    /// What is spoken on it. Default `auto`.
    pub protocol: ListenerProtocol,
    /// Default: outbound on a loopback or unix address, inbound elsewhere.
    pub direction: Direction,
    /// Connections are redirected here by the packet filter, and were going elsewhere. Default false.
    pub original_destination: bool,
    /// TLS; `None` (not written, or `never`): callers are spoken to in clear.
    pub tls: Option<ListenerTls>,
    /// Who may call what. `None`: everyone everything.
    pub authorize: Option<Authorize>,
    /// Whose tokens are taken. Empty: none are asked for.
    pub jwt: Vec<JwtIssuer>,
    /// What a peer may use.
    pub limits: ListenerLimits,
    /// First match wins. At least one; exactly one, an unconditional `to`, for `tcp`.
    pub routes: Vec<Route>,
}

/// `protocol:` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Tells TLS (where there is `tls`), HTTP/2 with prior knowledge and HTTP/1 apart by the first bytes.
    Auto,
    /// The same as `Auto`.
    Http,
    /// Bytes are passed on as they are.
    Tcp,
}

/// Traffic to (inbound) or from (outbound) the local application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the application: drains first; peers are not trusted.
    Inbound,
    /// From the application: its headers are trusted.
    Outbound,
}

/// `limits:` of a listener. Every limit is bounded by default; `None` is `unlimited`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerLimits {
    /// Connections at once. Default 10 000.
    pub connections: Option<u32>,
    /// Connections at once from one address (IPv6: from one /64), 1..=65535. Default unlimited.
    pub per_source: Option<u32>,
    /// Headers in a request. Default 100.
    pub headers: usize,
    /// Bytes of a request's head. Default 64 KiB.
    pub header_bytes: ByteSize,
    /// From a head's first byte to its last. Default 10 s.
    pub header_timeout: Option<Duration>,
    /// Bytes of a request's body. Default unlimited.
    pub body: Option<ByteSize>,
    /// Longest pause between two pieces of a request's body. Default 60 s.
    pub body_timeout: Option<Duration>,
    /// A connection without a request (TCP: without a byte). Default 60 s; 1 h for `tcp`.
    pub idle: Option<Duration>,
    /// A connection is closed, after its requests in flight, when it is this old. Default unlimited.
    pub max_age: Option<Duration>,
    /// HTTP/2 streams at once on a connection. Default 256.
    pub streams: u32,
}
