//! Failures on purpose: a delay that counts against the deadline, an answer in place of the upstream's.

use http::Response;
use tokio::time::Instant;

use crate::base::error::{ProxyError, Reason};
use crate::policy::fault::{Abort, Injection};
use crate::snapshot::{FaultInjection, Route};

use super::exchange::Exchange;
use super::response::ResponseBody;
use super::{forward, reply};

/// How an injection ends the request.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The deadline passed during the delay.
    Expired,
    Aborted(Abort),
}

/// What is done to this request; nothing, for most.
pub(super) fn draw(exchange: &Exchange, fault: &FaultInjection) -> Option<Injection> {
    fault.policy.draw(&mut exchange.downstream.worker.rng.borrow_mut())
}

/// Does it.
pub(super) async fn inject(
    exchange: &mut Exchange,
    route: &Route,
    fault: &FaultInjection,
    injection: Injection,
) -> Option<End> {
    if let Some(delay) = injection.delay {
        fault.metrics.delays.inc();
        exchange.delayed = true;
        let deadline = forward::deadline(exchange, route, false).overall;
        let until = exchange.started + delay;
        tokio::time::sleep_until(deadline.map_or(until, |deadline| deadline.min(until))).await;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some(End::Expired);
        }
    }
    let abort = injection.abort?;
    fault.metrics.aborts.inc();
    Some(End::Aborted(abort))
}

/// Answers a request that an injection has ended.
pub(super) fn answer(exchange: Box<Exchange>, end: End) -> Response<ResponseBody> {
    match end {
        End::Expired => {
            let text = "the deadline passed during a delay that the route injects on purpose";
            reply::failure(exchange, &ProxyError::new(Reason::Timeout, text))
        }
        End::Aborted(abort) => {
            let text = "the route answers a share of its requests with an error on purpose";
            let error = ProxyError::new(Reason::FaultAbort, text);
            reply::failure_as(exchange, &error, abort.status, abort.grpc)
        }
    }
}
