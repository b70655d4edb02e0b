//! One check: connect, ask, judge the answer.
//!
//! Each check is one future with everything in it, the connection's own work included: dropping it closes the socket at
//! once. Each makes a connection of its own: what requests will need is a process that accepts, and a kept connection
//! goes on living beside a listener that does not.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::base::address::Address;
use crate::base::units::format_duration;
use crate::io::socket::Socket;
use crate::metrics::{HandshakeFailure, HealthOutcome};
use crate::net::{Connect, ConnectError, Target, TlsTarget};
use crate::policy::health::HealthSettings;
use crate::tls::{Alpn, ClientTls};

use super::{grpc, http2};

/// Bytes of an answer's head.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Bytes of an HTTP/1 answer's body that are read, so that a server does not meet a reset in the middle of it.
const MAX_BODY: usize = 64 * 1024;

/// How servers' logs tell checks from requests.
const AGENT: HeaderValue = HeaderValue::from_static("outrigger-health-check");

/// What is asked, how, and how often. Two checks that are equal ask an endpoint once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Sent as `Host` or `:authority`; `None`: the endpoint's address.
    pub host: Option<Arc<str>>,
    /// TLS; `None`: in clear.
    pub tls: Option<CheckTls>,
    /// When, and what results amount to.
    pub settings: HealthSettings,
}

/// The TLS of an upstream, as its requests use it. Equal where it is the same one.
#[derive(Debug, Clone)]
pub struct CheckTls(pub Arc<ClientTls>);

impl PartialEq for CheckTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CheckTls {}

impl Hash for CheckTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A connection stands.
    Tcp,
    /// GET, and a look at the status. A redirect is not followed.
    Http {
        /// HTTP/2 with prior knowledge, else HTTP/1.1.
        http2: bool,
        /// In origin form.
        path: Arc<str>,
        /// Statuses that pass.
        passing: Arc<[RangeInclusive<u16>]>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// Empty: the whole server.
        service: Arc<str>,
    },
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// For metrics, and for the verdict.
    pub outcome: HealthOutcome,
    /// One line for people; never quotes a peer's bytes.
    pub text: Cow<'static, str>,
}

impl Finding {
    pub(super) fn new(outcome: HealthOutcome, text: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, text: text.into() }
    }

    pub(super) fn broken(text: &'static str) -> Self {
        Self::new(HealthOutcome::Protocol, text)
    }

    /// `Some(true)`: passed, `Some(false)`: failed; `None`: says nothing about the endpoint.
    pub fn passed(&self) -> Option<bool> {
        match self.outcome {
            HealthOutcome::Success => Some(true),
            HealthOutcome::Local => None,
            _ => Some(false),
        }
    }
}

/// Until when an answer passes.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    deadline: Instant,
    timeout: Duration,
}

impl Limit {
    pub(super) async fn within<T>(self, step: impl Future<Output = T>) -> Result<T, Finding> {
        timeout_at(self.deadline, step).await.map_err(|_| self.passed())
    }

    fn passed(self) -> Finding {
        let text = format!("timeout after {}", format_duration(self.timeout));
        Finding::new(HealthOutcome::Timeout, text)
    }
}

/// Checks `address` once, within the check's timeout.
pub(super) async fn probe(address: &Address, check: &Check) -> Finding {
    // Boxed: what a check needs is there while it runs, not between two.
    match Box::pin(asked(address, check)).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn asked(address: &Address, check: &Check) -> Result<Finding, Finding> {
    let timeout = check.settings.timeout;
    let limit = Limit { deadline: Instant::now() + timeout, timeout };
    let target = Target { address: address.clone(), timeout, tls: under_tls(address, check)? };
    let connected = Connect.call(target).await;
    let socket = connected.map_err(|error| not_connected(&error, limit))?;
    let authority = || match (&check.host, address) {
        (Some(host), _) => host.to_string(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    };
    let scheme = if check.tls.is_some() { "https" } else { "http" };
    match &check.probe {
        Probe::Tcp => Ok(Finding::new(HealthOutcome::Success, "connected")),
        Probe::Http { http2: false, path, passing } => {
            let request = Request::get(&**path)
                .header(HOST, authority())
                .header(USER_AGENT, AGENT)
                .header(CONNECTION, "close");
            let request = request.body(Empty::new()).map_err(|error| unsendable(&error))?;
            Ok(judge(http1(socket, request, limit).await?, passing))
        }
        Probe::Http { http2: true, path, passing } => {
            let request = Request::get(format!("{scheme}://{}{path}", authority()));
            let request = request.header(USER_AGENT, AGENT).body(());
            let request = request.map_err(|error| unsendable(&error))?;
            let answer = http2::ask(socket, request, None, limit).await?;
            Ok(judge(answer.head.status, passing))
        }
        Probe::Grpc { service } => {
            let request = Request::post(format!("{scheme}://{}{}", authority(), grpc::METHOD))
                .header(USER_AGENT, AGENT)
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .header("grpc-timeout", format!("{}m", timeout.as_millis().max(1)));
            let request = request.body(()).map_err(|error| unsendable(&error))?;
            let message = Some(grpc::request(service));
            Ok(grpc::judge(&http2::ask(socket, request, message, limit).await?))
        }
    }
}

/// The configuration has checked every part; a combination that is refused all the same is ours to mend.
fn unsendable(error: &http::Error) -> Finding {
    Finding::new(HealthOutcome::Local, format!("cannot be asked: {error}"))
}

/// With what to begin TLS, where the check does: the protocol is offered that the check speaks.
fn under_tls(address: &Address, check: &Check) -> Result<Option<TlsTarget>, Finding> {
    let Some(CheckTls(tls)) = &check.tls else { return Ok(None) };
    let alpn = match &check.probe {
        Probe::Tcp => Alpn::None,
        Probe::Http { http2: false, .. } => Alpn::Http1,
        Probe::Http { http2: true, .. } | Probe::Grpc { .. } => Alpn::Http2,
    };
    let name = tls.name_of(address).ok_or_else(|| {
        Finding::new(HealthOutcome::Local, "a unix socket has no name to ask for")
    })?;
    Ok(Some(TlsTarget { config: tls.current().offering(alpn), name }))
}

fn not_connected(error: &ConnectError, limit: Limit) -> Finding {
    let error = match error {
        ConnectError::Io(error) => error,
        ConnectError::Tls(error) if error.reason == HandshakeFailure::Timeout => {
            return limit.passed();
        }
        ConnectError::Tls(error) => {
            return Finding::new(HealthOutcome::ConnectFailed, format!("TLS: {error}"));
        }
    };
    /// ENFILE, EMFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL: no descriptor, memory or port left on our side.
    const OURS: [i32; 5] = [23, 24, 105, 12, 99];
    if error.raw_os_error().is_some_and(|code| OURS.contains(&code)) {
        return Finding::new(HealthOutcome::Local, format!("cannot be asked: {error}"));
    }
    match error.kind() {
        io::ErrorKind::TimedOut => limit.passed(),
        kind => Finding::new(HealthOutcome::ConnectFailed, kind.to_string()),
    }
}

fn judge(status: StatusCode, passing: &[RangeInclusive<u16>]) -> Finding {
    let outcome = match passing.iter().any(|range| range.contains(&status.as_u16())) {
        true => HealthOutcome::Success,
        false => HealthOutcome::Status,
    };
    Finding::new(outcome, format!("status {}", status.as_u16()))
}

async fn http1(
    socket: Socket,
    request: Request<Empty<Bytes>>,
    limit: Limit,
) -> Result<StatusCode, Finding> {
    let broken = |error: &hyper::Error| match error.is_parse() {
        true => Finding::broken("the answer is not valid HTTP/1"),
        false => Finding::broken("closed without an answer"),
    };
    let builder = http1::Builder::new().max_buf_size(MAX_HEAD).to_owned();
    let (mut send, connection) =
        builder.handshake(TokioIo::new(socket)).await.map_err(|error| broken(&error))?;
    let asking = async move {
        let answer = limit.within(send.send_request(request)).await?;
        let answer = answer.map_err(|error| broken(&error))?;
        let status = answer.status();
        // The head has decided: whatever becomes of the body changes nothing.
        let _rest = limit.within(Limited::new(answer.into_body(), MAX_BODY).collect()).await;
        Ok(status)
    };
    driven(Box::pin(asking), Box::pin(connection), limit).await
}

/// Waits for `asking` while `connection` does its work, then gives it the time that is left to end in order.
pub(super) async fn driven<T>(
    mut asking: Pin<Box<impl Future<Output = Result<T, Finding>>>>,
    mut connection: Pin<Box<impl Future>>,
    limit: Limit,
) -> Result<T, Finding> {
    let answer = tokio::select! {
        biased;
        answer = &mut asking => answer,
        // The answer may have come together with the end.
        _ended = &mut connection => return asking.await,
    };
    let _ended = limit.within(connection).await;
    answer
}
