//! The body of an upstream's response, over either protocol.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::base::error::Reason;
use crate::io::socket::Socket;
use crate::io::splice::{Pipe, Splice};

use super::http1::Http1Body;
use super::http2::Http2Body;

/// The body of a response. What is dropped before its end closes its connection or resets its stream.
#[derive(Debug)]
pub enum ResponseBody {
    /// Read from its connection.
    Http1(Http1Body),
    /// One stream's.
    Http2(Http2Body),
}

impl ResponseBody {
    /// The connection behind a 101, with what has come on it already. `None` behind any other response.
    pub fn into_tunnel(self) -> Option<Socket> {
        match self {
            Self::Http1(body) => body.into_tunnel(),
            Self::Http2(_) => None,
        }
    }
}

impl Splice for ResponseBody {
    type Error = BrokenBody;

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Option<Pipe>,
    ) -> Poll<Option<Result<usize, BrokenBody>>> {
        match self {
            Self::Http1(body) => body.poll_splice(cx, pipe),
            Self::Http2(_) => Poll::Ready(None),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Why the body of a response broke off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenBody {
    /// The upstream closed the connection before the end.
    #[error("the upstream closed the connection in the middle of its answer")]
    Closed,
    /// The connection broke.
    #[error("the connection broke in the middle of the upstream's answer")]
    Reset,
    /// Its chunks are not what the protocol allows.
    #[error("the upstream's answer is malformed: {0}")]
    Malformed(&'static str),
    /// What the HTTP/2 stream says.
    #[error(transparent)]
    Http2(h2::Error),
}

impl BrokenBody {
    /// The reason that the answer is cut short with.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Closed => Reason::UpstreamClosed,
            Self::Reset => Reason::UpstreamReset,
            Self::Malformed(_) => Reason::UpstreamProtocol,
            Self::Http2(error) if error.is_library() => Reason::UpstreamProtocol,
            Self::Http2(error) if error.is_io() => Reason::UpstreamClosed,
            Self::Http2(_) => Reason::UpstreamReset,
        }
    }
}
