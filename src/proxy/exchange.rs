//! The record of one request, from its head to the last byte of its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri, Version};
use tokio::time::Instant;

use crate::balance::Key;
use crate::balance::endpoint::Endpoint;
use crate::base::error::Reason;
use crate::base::identity::Identity;
use crate::io::request_body::{BodyError, BodySource};
use crate::metrics::GaugeGuard;
use crate::policy::retry::SuppressedReason;
use crate::snapshot::{LogFilter, Route};
use crate::upstream::LocalUpstream;

use super::access_log::{Flags, Line};
use super::authorize::DeniedBy;
use super::connection::Downstream;
use super::fields::RequestFields;
use super::flow::Flow;
use super::listener::Active;

/// What is known of a request so far, and what is held for it. Its drop counts and logs the request, whatever ended it.
///
/// Box what few requests have: up to 1 KiB the C library keeps freed memory at hand for the next request; beyond it every one
/// searches and merges free memory anew.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) downstream: Rc<Downstream>,
    pub(super) active: Rc<Active>,
    pub(super) started: Instant,
    /// The request's head: as it came, but that of its fields only those are left that go upstream.
    pub(super) head: Parts,
    /// Fields that go upstream behind those.
    pub(super) added: Vec<(HeaderName, HeaderValue)>,
    /// The target as it goes upstream, where it is not the one that came.
    pub(super) target: Option<Uri>,
    pub(super) request_id: Option<HeaderValue>,
    /// What its head had when it came.
    pub(super) fields: RequestFields,
    /// What it is hashed by.
    pub(super) key: Option<Key>,
    /// Made for it, and set by its answer.
    pub(super) set_cookie: Option<Box<HeaderValue>>,
    /// Index of the route.
    pub(super) route: Option<usize>,
    pub(super) upstream: Option<Rc<LocalUpstream>>,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) attempts: u32,
    /// The endpoint is unhealthy, and was picked in panic.
    pub(super) panic_pick: bool,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    /// Why the proxy answered itself, or why the answer is not whole.
    pub(super) reason: Option<Reason>,
    pub(super) detail: Option<String>,
    /// What the listener's rules have denied, enforced or not.
    pub(super) denied_by: Option<DeniedBy>,
    /// Why its token was refused.
    pub(super) token_refused: Option<&'static str>,
    /// Why the last attempt was not followed by another, where there were grounds for one.
    pub(super) retry_suppressed: Option<SuppressedReason>,
    /// When the head of the answer was handed over.
    pub(super) head_at: Option<Instant>,
    pub(super) body: Option<BodySource>,
    /// The attempt that answers, while its answer is passed on. By itself, so that neither it nor the exchange is of a size (above
    /// 1 032 bytes) that glibc keeps no list of at each thread: two quick allocations cost less than a slow one.
    pub(super) flow: Option<Box<Flow>>,
    /// Bytes that came on a tunnel; those of a body are counted by the body.
    pub(super) tunnelled: u64,
    pub(super) sent: u64,
    /// It was delayed on purpose.
    pub(super) delayed: bool,
    /// The last byte was handed over.
    pub(super) complete: bool,
    _in_flight: GaugeGuard,
}

impl Exchange {
    pub(super) fn begin(downstream: &Rc<Downstream>, active: Rc<Active>, head: Parts) -> Box<Self> {
        downstream.begin_request();
        let fields = RequestFields::find(&head.headers, &downstream.local.via);
        let gauge = GaugeGuard::of(&active.listener.metrics.in_flight);
        Box::new(Self {
            downstream: Rc::clone(downstream),
            active,
            started: Instant::now(),
            head,
            added: Vec::new(),
            target: None,
            request_id: None,
            fields,
            key: None,
            set_cookie: None,
            route: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            panic_pick: false,
            status: 0,
            grpc_status: None,
            reason: None,
            detail: None,
            denied_by: None,
            token_refused: None,
            retry_suppressed: None,
            head_at: None,
            body: None,
            flow: None,
            tunnelled: 0,
            sent: 0,
            delayed: false,
            complete: false,
            _in_flight: gauge,
        })
    }

    /// The route that took the request.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.and_then(|index| self.active.listener.routes.get(index))
    }

    /// Notes that the answer broke off, unless something noted why before.
    pub(super) fn broke(&mut self, reason: Reason, detail: impl Into<String>) {
        if self.reason.is_none() {
            self.reason = Some(reason);
            self.detail = Some(detail.into());
        }
    }

    /// The HTTP/2 connection has reset the stream for its body, and counted that.
    fn was_reset_as_malformed(&self) -> bool {
        let failure = self.body.as_ref().and_then(BodySource::failure);
        self.head.version == Version::HTTP_2 && failure == Some(BodyError::Malformed)
    }

    fn is_failure(&self) -> bool {
        self.status >= 500
            || matches!(self.reason, Some(reason) if reason != Reason::DirectResponse)
            || self.grpc_status.is_some_and(|code| code != 0)
    }

    fn is_logged(&self) -> bool {
        match self.active.snapshot.log {
            LogFilter::All => true,
            LogFilter::Never => false,
            LogFilter::Errors => self.is_failure(),
            LogFilter::Share(share) => {
                let drawn = || self.downstream.worker.rng.borrow_mut().fraction();
                self.is_failure() || drawn() < share.fraction()
            }
        }
    }

    fn log(&self, now: Instant) {
        let text = |value: &'_ HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let (host, id) = (self.fields.host.as_ref().map(text), self.request_id.as_ref().map(text));
        let millis = |at: Instant| at.saturating_duration_since(self.started).as_secs_f64() * 1e3;
        // Rounded to the microsecond: more digits would be noise.
        let round = |millis: f64| (millis * 1e3).round() / 1e3;
        let path = {
            let uri = &self.head.uri;
            uri.path_and_query().map_or_else(|| uri.path(), |path| path.as_str())
        };
        self.downstream.worker.shared.access_log.write(&Line {
            time: SystemTime::now(),
            service: &self.active.snapshot.service,
            listener: &self.active.listener.name,
            route: self.route().map(|route| &*route.name),
            protocol: match self.head.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            method: Some(self.head.method.as_str()),
            host: host.as_deref(),
            path: Some(path),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason.map(Reason::word),
            flag: {
                let flag = self.reason.map(Reason::flag);
                Flags::of(flag.or_else(|| self.delayed.then_some("DI")), self.panic_pick)
            },
            fault: self.delayed.then_some("delay"),
            detail: self.detail.as_deref(),
            token_refused: self.token_refused,
            denied_by: self.denied_by.as_ref().map(|by| by as _),
            duration_ms: round(millis(now)),
            head_ms: self.head_at.map(|at| round(millis(at))),
            attempts: self.attempts,
            retry_suppressed: self.retry_suppressed.map(SuppressedReason::word),
            upstream: self.upstream.as_ref().map(|local| &*local.upstream.name),
            endpoint: self.endpoint.as_ref().map(|endpoint| &endpoint.address as _),
            received_bytes: self.tunnelled + self.body.as_ref().map_or(0, BodySource::received),
            sent_bytes: self.sent,
            peer: &self.downstream.peer,
            identity: self.downstream.identity.as_deref().and_then(Identity::name),
            request_id: id.as_deref(),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.downstream.end_request(now);
        if !self.complete && self.downstream.worker.is_stopping() {
            self.broke(Reason::Draining, "cut off at the end of the drain");
            if self.status == 0 {
                self.status = 502;
            }
        } else if !self.complete {
            match self.downstream.cut_for() {
                Some(reason) => self.broke(reason, "the caller did not read the answer in time"),
                None => {
                    let detail = "the caller went away before the answer was complete";
                    self.broke(Reason::ClientGone, detail);
                }
            }
        }
        if self.reason == Some(Reason::ClientGone) {
            self.status = 499;
        }
        let listener = &self.active.listener;
        let metrics = self.route().map_or(&listener.unrouted, |route| &route.metrics);
        metrics.request(self.status, now.saturating_duration_since(self.started).as_secs_f64());
        if let Some(reason) = self.reason
            && reason != Reason::DirectResponse
            && !self.was_reset_as_malformed()
        {
            listener.metrics.reject(reason);
        }
        if self.body.as_ref().is_some_and(BodySource::trailers_left_out) {
            self.downstream.worker.shared.process.trailers_dropped.inc();
        }
        if self.is_logged() {
            self.log(now);
        }
    }
}
