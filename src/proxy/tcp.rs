//! TCP listeners: bytes passed on as they are, to an endpoint that can be reached.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::error::{ProxyError, Reason};
use crate::base::identity::Identity;
use crate::io::relay::{RelayEnd, relay};
use crate::io::socket::{Activity, Socket};
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange as Kind};
use crate::snapshot::{Action, LogFilter, Route};
use crate::upstream::LocalUpstream;

use super::access_log::{Flags, Line};
use super::affinity;
use super::authorize::{self, DeniedBy};
use super::connection::{Accepted, Peer};
use super::listener::{Active, Admitted};
use super::tunnel::{Tries, reach};
use super::worker::{Stop, Worker};

/// Serves a connection of a TCP listener.
pub(super) async fn serve(accepted: Accepted, mut socket: Socket, stopped: watch::Receiver<Stop>) {
    let (denied_by, refused) = authorize::judge_connection(&accepted);
    let Accepted { worker, active, peer, identity, admitted, original, .. } = accepted;
    let started = Instant::now();
    // `validate` has made sure of it: the one route of a TCP listener goes to upstreams.
    let Some(route) = active.listener.routes.first() else { return };
    let Action::To(split) = &route.action else { return };
    let upstream = Arc::clone(split.pick(&mut worker.rng.borrow_mut()));
    let local = worker.upstreams.get(&upstream, started);
    let deadline = Deadline::new(started, route.timeout, &CallerTimeout::default(), Kind::Tunnel);
    let mut record = Record {
        worker: &worker,
        active: &active,
        route,
        local: &local,
        started,
        peer,
        identity,
        activity: socket.activity(),
        tries: Tries { original, ..Tries::default() },
        denied_by,
        end: End::Cut,
        _admitted: admitted,
    };
    if refused {
        record.end = End::NotConnected(authorize::denied());
        return;
    }
    let key = affinity::of_connection(route, &upstream, &record.peer);
    let reached = reach(&worker, &local, route, key, deadline, &mut record.tries).await;
    // A drain leaves it until the deadline: nobody can ask the peers of a TCP connection to end.
    drop(stopped);
    match reached {
        Ok((mut upstream_socket, held)) => {
            let idle = active.listener.limits.idle;
            let relayed = relay(&mut socket, &mut upstream_socket, &worker.tick, idle).await;
            relayed.end.pass_on(&record.activity, &upstream_socket.activity());
            record.end = End::Relayed(relayed.end);
            drop((upstream_socket, held));
        }
        Err(error) => record.end = End::NotConnected(error),
    }
}

/// How a TCP connection ended.
enum End {
    /// The process ended first.
    Cut,
    NotConnected(ProxyError),
    Relayed(RelayEnd),
}

/// The record of a TCP connection. Its drop counts and logs it, whatever ended it.
struct Record<'a> {
    worker: &'a Worker,
    active: &'a Active,
    route: &'a Route,
    local: &'a Rc<LocalUpstream>,
    started: Instant,
    peer: Peer,
    identity: Option<Arc<Identity>>,
    activity: Arc<Activity>,
    tries: Tries,
    denied_by: Option<DeniedBy>,
    end: End,
    _admitted: Admitted,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let listener = &self.active.listener;
        if let End::NotConnected(error) = &self.end {
            listener.metrics.reject(error.reason);
        }
        listener.metrics.received.inc_by(self.activity.bytes_read());
        listener.metrics.sent.inc_by(self.activity.bytes_written());
        let took = self.started.elapsed();
        let status = match &self.end {
            End::NotConnected(error) if error.reason == Reason::Denied => 403,
            End::NotConnected(_) => 503,
            End::Cut | End::Relayed(_) => 200,
        };
        self.route.metrics.request(status, took.as_secs_f64());
        self.log(took);
    }
}

impl Record<'_> {
    fn log(&self, took: Duration) {
        let (reason, detail) = match &self.end {
            End::Cut => (Some(Reason::Draining), Some("cut off at the end of the drain")),
            End::NotConnected(error) => (Some(error.reason), Some(&*error.detail)),
            End::Relayed(RelayEnd::Idle) => (Some(Reason::StreamIdle), None),
            End::Relayed(RelayEnd::UpstreamBroken) => (Some(Reason::UpstreamReset), None),
            End::Relayed(RelayEnd::DownstreamBroken) => (Some(Reason::ClientGone), None),
            End::Relayed(RelayEnd::Closed) => (None, None),
        };
        let wanted = match self.active.snapshot.log {
            LogFilter::All | LogFilter::Share(_) => true,
            LogFilter::Errors => reason.is_some(),
            LogFilter::Never => false,
        };
        if !wanted {
            return;
        }
        self.worker.shared.access_log.write(&Line {
            time: SystemTime::now(),
            service: &self.active.snapshot.service,
            listener: &self.active.listener.name,
            route: Some(&self.route.name),
            protocol: "TCP",
            method: None,
            host: None,
            path: None,
            status: 0,
            grpc_status: None,
            reason: reason.map(Reason::word),
            flag: Flags::of(reason.map(Reason::flag), self.tries.panic_pick),
            fault: None,
            detail,
            token_refused: None,
            denied_by: self.denied_by.as_ref().map(|by| by as _),
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            head_ms: None,
            attempts: self.tries.made,
            retry_suppressed: None,
            upstream: Some(&self.local.upstream.name),
            endpoint: self.tries.endpoint.as_ref().map(|endpoint| &endpoint.address as _),
            received_bytes: self.activity.bytes_read(),
            sent_bytes: self.activity.bytes_written(),
            peer: &self.peer,
            identity: self.identity.as_deref().and_then(Identity::name),
            request_id: None,
        });
    }
}
