//! Copies of requests for another upstream: sent beside, never waited for, dropped at the first trouble.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Uri};
use hyper::body::Body;
use tokio::time::Instant;

use crate::balance::{Key, Picked, Tried};
use crate::base::error::Reason;
use crate::base::units::ByteSize;
use crate::io::request_body::{BodySource, RequestBody};
use crate::metrics::MirrorOutcome;
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange as Kind};
use crate::snapshot::{Mirror, MirrorTarget, Route};
use crate::upstream::{LocalUpstream, Protocol, Slot};

use super::attempt::Plan;
use super::exchange::Exchange;
use super::headers::{self, Outbound};
use super::retries::SoFar;
use super::subject::Spare;
use super::worker::Worker;

/// Bytes of a body that may wait for a shadow that is slower than the upstream: as many as are kept for a retry.
const BEHIND: ByteSize = ByteSize::kib(64);

/// A copy takes at most this long, its answer included: the default of a route's `timeout`.
const WHOLE: Duration = Duration::from_secs(15);

/// Copies under way at once, per worker: with 64 KiB each, 6 MiB.
const MOST: u32 = 100;

/// Tells a shadow that it is one, and of which route.
const MIRROR: HeaderName = HeaderName::from_static("x-outrigger-mirror");

/// How many copies this worker has under way.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Cell<u32>);

impl UnderWay {
    fn enter(worker: &Rc<Worker>) -> Option<Entered> {
        let count = &worker.mirrors.0;
        if count.get() >= MOST {
            return None;
        }
        count.set(count.get() + 1);
        Some(Entered(Rc::clone(worker)))
    }
}

/// One of them.
struct Entered(Rc<Worker>);

impl Drop for Entered {
    fn drop(&mut self) {
        let count = &self.0.mirrors.0;
        count.set(count.get() - 1);
    }
}

/// Starts the copies that the route wants of this request. Its head is as it goes upstream, in HTTP/2 or HTTP/1; of its body
/// nothing was read yet.
pub(super) fn tee(
    exchange: &Exchange,
    route: &Route,
    mirror: &Mirror,
    http2: bool,
    body: &BodySource,
) {
    let worker = &exchange.downstream.worker;
    for target in &mirror.targets {
        if worker.rng.borrow_mut().fraction() >= target.share.fraction() {
            continue;
        }
        match Copy::prepare(worker, exchange, route, (mirror, target), http2, body) {
            Ok(copy) => {
                let metrics = Arc::clone(&mirror.metrics);
                // Owned by the worker's runtime; it ends by itself, at the latest when its time is over.
                drop(tokio::task::spawn_local(async move {
                    let mut counted = Counted { metrics, outcome: MirrorOutcome::Failed };
                    counted.outcome = copy.send().await;
                }));
            }
            Err(outcome) => mirror.metrics.mirrored(outcome),
        }
    }
}

/// Counts a copy when it has ended, however.
struct Counted {
    metrics: Arc<crate::metrics::MirrorMetrics>,
    outcome: MirrorOutcome,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.mirrored(self.outcome);
    }
}

/// A copy on its way.
struct Copy {
    entered: Entered,
    local: Rc<LocalUpstream>,
    slot: Slot,
    picked: Picked,
    http2: bool,
    head: Spare,
    body: RequestBody,
    start: Instant,
}

impl Copy {
    fn prepare(
        worker: &Rc<Worker>,
        exchange: &Exchange,
        route: &Route,
        (mirror, target): (&Mirror, &MirrorTarget),
        http2: bool,
        body: &BodySource,
    ) -> Result<Self, MirrorOutcome> {
        let start = Instant::now();
        let entered = UnderWay::enter(worker).ok_or(MirrorOutcome::TooMany)?;
        let local = worker.upstreams.get(&target.upstream, start);
        // Who would have to wait for a place is not worth it.
        let slot = local.try_enter(&worker.rng).ok().flatten().ok_or(MirrorOutcome::TooMany)?;
        let to_http2 = match target.upstream.policy.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => exchange.fields.grpc || local.chosen_http2() == Some(true),
        };
        let picked = {
            let plan = plan(worker, &local, to_http2, exchange.key, start);
            plan.pick(&mut Tried::new(), start).map_err(|_| MirrorOutcome::Failed)?
        };
        let body = body.copy(BEHIND);
        let mut head = Spare::of(exchange);
        let tls = target.upstream.tls.is_some();
        address(&mut head, exchange, route, mirror, (http2, to_http2, tls), &body);
        Ok(Self { entered, local, slot, picked, http2: to_http2, head, body, start })
    }

    async fn send(mut self) -> MirrorOutcome {
        let worker = &self.entered.0;
        let plan = plan(worker, &self.local, self.http2, None, self.start);
        let so_far = SoFar::beside();
        let body = std::mem::replace(&mut self.body, RequestBody::empty());
        let sent =
            plan.attempt(self.slot, &mut self.picked, &so_far, body, &mut self.head, self.start);
        match Box::pin(sent).await {
            Ok(response) => {
                let Some(flow) = self.head.flow.take() else { return MirrorOutcome::Failed };
                match Box::pin(flow.discard(response.into_body(), &self.local)).await {
                    true => MirrorOutcome::Answered,
                    false => MirrorOutcome::Failed,
                }
            }
            Err(failed) => match failed.error.reason {
                Reason::Timeout => MirrorOutcome::Timeout,
                Reason::ClientGone => MirrorOutcome::Behind,
                _ => MirrorOutcome::Failed,
            },
        }
    }
}

fn plan<'a>(
    worker: &'a Rc<Worker>,
    local: &'a Rc<LocalUpstream>,
    http2: bool,
    key: Option<Key>,
    start: Instant,
) -> Plan<'a> {
    Plan {
        worker,
        local,
        http2,
        repeatable: false,
        hold: false,
        key,
        deadline: Deadline::new(start, Some(WHOLE), &CallerTimeout::default(), Kind::Http),
        per_try: None,
        idle: None,
        body: None,
        // A copy goes to a shadow, not where the request is going.
        original: None,
    }
}

/// Writes the copy's head in the shadow's protocol, and who it is.
fn address(
    copy: &mut Spare,
    exchange: &Exchange,
    route: &Route,
    mirror: &Mirror,
    (http2, to_http2, tls): (bool, bool, bool),
    body: &RequestBody,
) {
    let host = route.rewrite_host.as_ref().or(exchange.fields.host.as_ref());
    let suffixed = exchange.active.snapshot.compat_envoy.then(|| host.and_then(with_suffix));
    let host = suffixed.as_ref().and_then(Option::as_ref).or(host);
    copy.headers.insert(MIRROR, mirror.name.clone());
    if to_http2 {
        copy.headers.remove(TRANSFER_ENCODING);
        let mut head = Outbound { came: &mut copy.headers, added: &mut copy.added, edited: true };
        let trailers = exchange.fields.wants_trailers || exchange.fields.grpc;
        copy.target =
            headers::for_http2(&mut head, &exchange.fields, &copy.target, host, (tls, trailers));
        return;
    }
    if http2 {
        copy.headers.remove(TE);
        if let Some(path) = copy.target.path_and_query() {
            copy.target = Uri::from(path.clone());
        }
        if !body.is_end_stream() && !copy.headers.contains_key(CONTENT_LENGTH) {
            headers::frame(&mut copy.headers);
        }
    }
    let mut head = Outbound { came: &mut copy.headers, added: &mut copy.added, edited: true };
    headers::for_http1(&mut head, &exchange.fields, host, false, None);
}

/// As Envoy does: `articles:80` becomes `articles-shadow:80`. `None` for an address of IPv6.
fn with_suffix(host: &HeaderValue) -> Option<HeaderValue> {
    let host = host.to_str().ok().filter(|host| !host.starts_with('['))?;
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    HeaderValue::try_from(format!("{name}-shadow{port}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_stands_before_the_port() {
        let suffixed = |host| with_suffix(&HeaderValue::from_static(host));
        assert_eq!(suffixed("articles").unwrap(), "articles-shadow");
        assert_eq!(suffixed("articles:80").unwrap(), "articles-shadow:80");
        assert_eq!(suffixed("[::1]:80"), None, "an address has no other name");
    }
}
