//! What is refused before it is a request: counted and logged.

use std::fmt::Display;
use std::time::SystemTime;

use crate::base::error::Reason;
use crate::base::identity::Identity;
use crate::io::http1::server::Refusal;
use crate::snapshot::LogFilter;

use super::access_log::{Flags, Line};
use super::connection::{Downstream, Peer};
use super::listener::Active;

/// Counts and logs why a connection was ended, or a stream reset.
pub(super) fn count(active: &Active, peer: Peer, reason: Reason, error: impl Display) {
    active.listener.metrics.reject(reason);
    tracing::info!(
        listener = %active.listener.name, %peer, reason = reason.word(), %error,
        "refused what is not valid HTTP"
    );
}

/// A head has not come in time.
pub(super) fn head_timed_out(active: &Active, peer: Peer) {
    active.listener.metrics.reject(Reason::RequestTimeout);
    tracing::info!(
        listener = %active.listener.name, %peer, reason = Reason::RequestTimeout.word(),
        "the request's head did not arrive in time"
    );
}

/// Counts what came in a request's place and was answered, and writes its line into the access log: nothing is known of it but where
/// it came from and what was wrong with it.
pub(super) fn log(downstream: &Downstream, refusal: &Refusal) {
    let Some(active) = downstream.local.active(&downstream.worker) else { return };
    active.listener.metrics.reject(refusal.reason);
    if active.snapshot.log == LogFilter::Never {
        return;
    }
    downstream.worker.shared.access_log.write(&Line {
        time: SystemTime::now(),
        service: &active.snapshot.service,
        listener: &active.listener.name,
        route: None,
        protocol: "HTTP/1.1",
        method: None,
        host: None,
        path: None,
        status: refusal.status.as_u16(),
        grpc_status: None,
        reason: Some(refusal.reason.word()),
        flag: Flags::of(Some(refusal.reason.flag()), false),
        fault: None,
        detail: Some(refusal.detail),
        token_refused: None,
        denied_by: None,
        duration_ms: 0.0,
        head_ms: None,
        attempts: 0,
        retry_suppressed: None,
        upstream: None,
        endpoint: None,
        received_bytes: 0,
        sent_bytes: 0,
        peer: &downstream.peer,
        identity: downstream.identity.as_deref().and_then(Identity::name),
        request_id: None,
    });
}
