//! Connections to upstreams: making them, and speaking HTTP/1 and HTTP/2 over them.
//!
//! The rooms above see [`Http1`], [`Http2`], [`ResponseBody`] and [`SendFailure`]; which library speaks a protocol, and
//! that HTTP/1 is spoken by us, stays behind this seam.

mod body;
pub mod connect;
pub mod http1;
pub mod http2;
mod request_head;

use std::sync::Arc;

use crate::io::request_body::BodyError;
use crate::tls::client::ClientConfigs;
use crate::tls::rotation::Generation;

pub use body::{BrokenBody, ResponseBody};
pub use connect::{Connect, ConnectError, Target, TlsTarget};
pub use http1::Http1;
pub use http2::Http2;
pub use request_head::RequestHead;

/// What a connection under TLS was made with; nothing in clear.
pub type MadeWith = Option<Arc<Generation<ClientConfigs>>>;
/// Interim answers (1xx) before the answer: a peer that sends more means to keep us busy.
const MAX_INTERIM: u32 = 32;

/// A response whose body is still to come.
pub type UpstreamResponse = http::Response<ResponseBody>;

/// Why a request got no response. Says no more than is certain.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// Not a byte was written, or the peer guarantees that it did not look at the request.
    #[error("the request was not sent")]
    NotSent,
    /// The peer has refused our certificate, or wants one, and said so when we had begun to send: TLS 1.3 lets us.
    #[error("TLS: {0}")]
    PeerRefused(String),
    /// The peer refused the stream before running it (REFUSED_STREAM, GOAWAY).
    #[error("the upstream refused the stream")]
    Refused,
    /// The connection ended after something was written and before any byte of a response.
    #[error("the upstream closed the connection before it answered")]
    Closed,
    /// The connection or the stream broke in the middle of the response's head, or was reset by the peer.
    #[error("the upstream broke off its answer")]
    Reset,
    /// What came back is not HTTP.
    #[error("the upstream's answer is not valid HTTP: {0}")]
    Protocol(String),
    /// The request's body failed.
    #[error("the request's body failed: {0}")]
    Body(BodyError),
}
