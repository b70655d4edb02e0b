//! HTTP/1.1 on the wire (RFC 9112), for both sides: heads, the framing of bodies, and the connection of a caller.
//!
//! What is read is parsed once, and what is written is written anew in one form: no bytes leave that two parsers could cut
//! differently. The upstream's side of a connection stands in `net::http1`.

pub mod blocks;
pub mod chunked;
pub mod encode;
pub mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;
pub mod outgoing;
mod request;
mod response;
pub mod rest;
pub mod server;
pub(super) mod wire;
