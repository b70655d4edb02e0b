//! Requests and connections that the listener's rules deny.
//!
//! The answer says that it was denied and nothing else: which rule it was, and that there are any, stands in the log alone.

use std::fmt;

use http::{Method, Response};

use crate::base::error::{ProxyError, Reason};
use crate::policy::authorize::{Asked, AskedFor, Verdict};
use crate::snapshot::Listener;

use super::connection::Accepted;
use super::exchange::Exchange;
use super::reply;
use super::response::ResponseBody;

/// What the rules have denied, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeniedBy {
    /// The deny rule of this index.
    Rule(usize),
    /// No rule allows it.
    NoRule,
}

impl fmt::Display for DeniedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(index) => write!(f, "deny[{index}]"),
            Self::NoRule => f.write_str("no_rule"),
        }
    }
}

/// Asks the listener's rules, counts and notes what they deny. True where it is to be refused.
pub(super) fn is_denied(exchange: &mut Exchange) -> bool {
    let listener = &exchange.active.listener;
    if listener.authorize.is_none() {
        return false;
    }
    let target = exchange.target();
    let asked = Asked {
        identity: exchange.downstream.identity.as_deref(),
        source: exchange.downstream.peer.ip(),
        request: Some(AskedFor {
            method: &exchange.head.method,
            path: if exchange.head.method == Method::CONNECT { "" } else { target.path() },
            headers: &exchange.head.headers,
        }),
    };
    let (denied_by, refused) = judge(listener, &asked);
    exchange.denied_by = denied_by;
    refused
}

/// The same for a connection whose bytes are passed on.
pub(super) fn judge_connection(accepted: &Accepted) -> (Option<DeniedBy>, bool) {
    let asked =
        Asked { identity: accepted.identity.as_deref(), source: accepted.peer.ip(), request: None };
    judge(&accepted.active.listener, &asked)
}

fn judge(listener: &Listener, asked: &Asked<'_>) -> (Option<DeniedBy>, bool) {
    let Some(authorize) = &listener.authorize else { return (None, false) };
    let denied_by = match authorize.rules.judge(asked) {
        Verdict::Allowed(_) => return (None, false),
        Verdict::DeniedBy(index) => DeniedBy::Rule(index),
        Verdict::NotAllowed => DeniedBy::NoRule,
    };
    authorize.denied.inc();
    (Some(denied_by), authorize.enforce)
}

/// Why a caller is refused, in the words that he may hear.
pub(super) fn denied() -> ProxyError {
    ProxyError::new(Reason::Denied, "this caller may not do this")
}

/// Answers 403.
pub(super) fn refuse(exchange: Box<Exchange>) -> Response<ResponseBody> {
    reply::failure(exchange, &denied())
}
