//! Requests beyond a route's rate, refused before anything else is done for them.

use std::net::IpAddr;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Response};

use crate::base::error::{ProxyError, Reason};
use crate::base::identity::Identity;
use crate::policy::rate_limit::Verdict;
use crate::snapshot::{RateLimit, RateLimitBy};

use super::connection::Peer;
use super::exchange::Exchange;
use super::reply;
use super::response::ResponseBody;

/// What gRPC clients wait before they try again (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// How long a request that exceeds the limit would have had to wait; nothing for one that goes on.
pub(super) fn exceeded(exchange: &Exchange, limit: &RateLimit) -> Option<Duration> {
    let decision = limit.limiter.take(key(exchange, limit), exchange.started);
    if decision.overflow {
        limit.metrics.overflowed.inc();
    }
    match decision.verdict {
        Verdict::Admitted => None,
        Verdict::Limited { wait } => {
            limit.metrics.limited.inc();
            Some(wait)
        }
    }
}

fn key(exchange: &Exchange, limit: &RateLimit) -> u64 {
    match &limit.settings.by {
        RateLimitBy::Route => 0,
        RateLimitBy::Header(name) => {
            let values = exchange.head.headers.get_all(name);
            limit.limiter.key(values.iter().map(HeaderValue::as_bytes))
        }
        RateLimitBy::Identity => {
            let name = exchange.downstream.identity.as_deref().and_then(Identity::name);
            limit.limiter.key(name.map(str::as_bytes))
        }
        RateLimitBy::Source => match exchange.downstream.peer {
            Peer::Unix => limit.limiter.key([]),
            Peer::Ip(address) => match address.ip().to_canonical() {
                IpAddr::V4(address) => limit.limiter.key([&address.octets()[..]]),
                // A subscriber has a /64 (RFC 6177), and may use a new address of it for each request.
                IpAddr::V6(address) => limit.limiter.key([&address.octets()[..8]]),
            },
        },
    }
}

/// Answers 429, with the time after which to come again.
pub(super) fn refuse(
    exchange: Box<Exchange>,
    limit: &RateLimit,
    wait: Duration,
) -> Response<ResponseBody> {
    let (rate, burst) = (limit.settings.per_second, limit.settings.burst);
    let who = match &limit.settings.by {
        RateLimitBy::Route => "in all".to_owned(),
        RateLimitBy::Header(name) => format!("for this value of {name}"),
        RateLimitBy::Source => "for this source address".to_owned(),
        RateLimitBy::Identity => "for this identity".to_owned(),
    };
    let detail = format!("more than {rate} requests per second and {burst} at once, {who}");
    let grpc = exchange.fields.grpc;
    let mut response = reply::failure(exchange, &ProxyError::new(Reason::RateLimited, detail));
    let headers = response.headers_mut();
    // Whole seconds (RFC 9110 §10.2.3), rounded up: who keeps to it is admitted.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    if grpc {
        let millis = wait.as_nanos().div_ceil(1_000_000);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        headers.insert(PUSHBACK, HeaderValue::from(millis));
    }
    response
}
