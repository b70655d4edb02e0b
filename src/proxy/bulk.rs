//! Large answers between two connections in clear: the kernel moves their bytes, and we count.

use std::task::{Context, Poll, ready};

use http_body::Body;

use crate::base::error::Reason;
use crate::io::splice::{Pipe, Splice};

use super::exchange::Exchange;
use super::response::{CutShort, Piece, ResponseBody};

impl Splice for ResponseBody {
    type Error = CutShort;

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Option<Pipe>,
    ) -> Poll<Option<Result<usize, CutShort>>> {
        match &mut self.exchange {
            Some(exchange) if self.local.is_empty() => exchange.poll_splice(cx, pipe),
            _ => Poll::Ready(None),
        }
    }
}

impl Exchange {
    /// As [`Exchange::poll_frame`], for bytes that bypass us.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Option<Pipe>,
    ) -> Poll<Option<Result<usize, CutShort>>> {
        let moved = self.moved();
        let Some(flow) = self.flow.as_mut().filter(|flow| !flow.holds()) else {
            return Poll::Ready(None);
        };
        if flow.is_over(cx) {
            if flow.waits(cx) {
                flow.broken(Reason::Timeout);
            }
            let text = "the deadline passed in the middle of the answer";
            return failure(self.cut(Reason::Timeout, text));
        }
        let Some(incoming) = &mut flow.incoming else { return Poll::Ready(None) };
        let Poll::Ready(spliced) = incoming.poll_splice(cx, pipe) else {
            ready!(flow.poll_idle(cx, &self.downstream.worker.tick, moved));
            flow.broken(Reason::StreamIdle);
            let text = "nothing moved for the route's idle time";
            return failure(self.cut(Reason::StreamIdle, text));
        };
        match spliced {
            None => Poll::Ready(None),
            Some(Err(error)) => failure(self.broken(&error)),
            Some(Ok(moved)) => {
                self.sent += moved as u64;
                if incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(moved)))
            }
        }
    }
}

/// Of how an answer ends that is cut off: over HTTP/1 that is never a frame.
fn failure(ended: Piece) -> Poll<Option<Result<usize, CutShort>>> {
    ended.map(|ended| ended.and_then(Result::err).map(Err))
}
