//! The head of a gRPC answer, held back until what follows it is known.
//!
//! A call that fails can say so in its trailers, behind a head that says 200: once that head has gone to the caller, the
//! call cannot be sent again. So where a route retries on gRPC statuses, and only there, the head waits for the first
//! message, which commits the call, or for the trailers, which decide. (gRFC A6 commits at the head, as it has to: a library
//! hands metadata to its application at once. linkerd2-proxy looks at what follows the head, too.)
//!
//! It waits only while the caller has said all that it has to say: a caller in the middle of a stream may be waiting for
//! the head before it goes on, so then only what came together with the head is looked at. And no longer than the
//! attempt may take (`per_try`, the deadline), nor than the route's `idle`: then the head is passed on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::io::tick::Timer;

/// What stands behind a head.
#[derive(Debug)]
pub(super) enum Behind<E> {
    /// Nobody knows yet: the head goes on without.
    Unknown,
    /// A piece of the body.
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end, without.
    Nothing,
    /// It broke off.
    Broken(E),
}

impl<E> Behind<E> {
    /// The trailers, where they are known.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Trailers(trailers) => Some(trailers),
            _ => None,
        }
    }
}

/// Waits for the first of `body`, until the `timer` is done; as soon as nothing is there where the request is `open`.
pub(super) async fn behind<B>(body: &mut B, timer: &mut Timer, open: bool) -> Behind<B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(None) => Poll::Ready(Behind::Nothing),
        Poll::Ready(Some(Err(error))) => Poll::Ready(Behind::Broken(error)),
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(of_frame(frame)),
        Poll::Pending if open || timer.poll_elapsed(cx).is_ready() => Poll::Ready(Behind::Unknown),
        Poll::Pending => Poll::Pending,
    })
    .await
}

fn of_frame<E>(frame: Frame<Bytes>) -> Behind<E> {
    match frame.into_trailers() {
        Ok(trailers) => Behind::Trailers(trailers),
        Err(frame) => Behind::Data(frame.into_data().unwrap_or_default()),
    }
}
