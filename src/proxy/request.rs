//! The spine: what happens to one request, from top to bottom.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;

use crate::base::error::{ProxyError, Reason};
use crate::io::incoming::Incoming;
use crate::policy::classify;
use crate::route::{Redirect, RedirectFrom, RequestView, normalise_host, normalise_path};
use crate::snapshot::{Action, Route};

use super::check::{EXPECTATION, Refusal, check};
use super::connection::Downstream;
use super::exchange::Exchange;
use super::forward::forward;
use super::response::ResponseBody;
use super::{authorize, fault, jwt, rate_limit, reply, secure, tunnel};

/// What the connection does instead of answering: an HTTP/2 stream is reset, an HTTP/1 connection closed.
pub(super) type Broken = h2::Error;

/// Answers a request.
///
/// The record is begun at once, not when the future runs: a future keeps its arguments to its end, and a head is large.
///
/// # Errors
/// An HTTP/2 request that is malformed has its stream reset (RFC 9113 §8.1.1); so has one whose caller is gone.
pub(super) fn handle(
    downstream: &Rc<Downstream>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Broken>> + use<> {
    let begun = downstream.local.active(&downstream.worker).map(|active| {
        let (head, incoming) = request.into_parts();
        (Exchange::begin(downstream, active, head), incoming)
    });
    async move {
        match begun {
            Some((exchange, incoming)) => {
                let replaceable = secure::may_be_replaced(&exchange);
                let mut answered = answer(exchange, incoming).await;
                if let (Some(downstream), Ok(response)) = (replaceable, &mut answered) {
                    secure::announce_end(&downstream, response);
                }
                answered
            }
            None => Err(h2::Reason::REFUSED_STREAM.into()),
        }
    }
}

async fn answer(
    mut exchange: Box<Exchange>,
    incoming: Incoming,
) -> Result<Response<ResponseBody>, Broken> {
    exchange.fields.host = match check(&exchange.head, &exchange.fields, incoming.is_end_stream()) {
        Ok(host) => host,
        Err(refusal) => return refuse(exchange, refusal),
    };
    if let Err(refusal) = normalise(&mut exchange) {
        return refuse(exchange, refusal);
    }
    let found = find_route(&exchange);
    exchange.route = found.map(|(index, _)| index);
    if let Some(refusal) = jwt::check(&mut exchange) {
        return Ok(jwt::refuse(exchange, refusal));
    }
    // Also where there is no route: who may not call learns nothing of what there is.
    if authorize::is_denied(&mut exchange) {
        return Ok(authorize::refuse(exchange));
    }
    let Some((index, rest)) = found else { return Ok(not_routed(exchange)) };
    let active = Rc::clone(&exchange.active);
    let route = &active.listener.routes[index];
    if let Some(limit) = &route.rate_limit
        && let Some(wait) = rate_limit::exceeded(&exchange, limit)
    {
        return Ok(rate_limit::refuse(exchange, limit, wait));
    }
    if let Some(fault) = &route.fault
        && let Some(drawn) = fault::draw(&exchange, fault)
        && let Some(end) = Box::pin(fault::inject(&mut exchange, route, fault, drawn)).await
    {
        return Ok(fault::answer(exchange, end));
    }
    match &route.action {
        Action::Respond { status, body, content_type } => {
            let mut response = reply::direct(exchange, *status, content_type.clone(), body.clone());
            route.response_headers.apply(response.headers_mut());
            Ok(response)
        }
        Action::Redirect(to) => Ok(redirect(exchange, route, to, rest)),
        Action::To(split) if exchange.head.method == Method::CONNECT => {
            Ok(Box::pin(tunnel::connect(exchange, route, split, &incoming)).await)
        }
        Action::To(split) => {
            if let Err(error) = rewrite(&mut exchange, route, rest) {
                return Ok(reply::failure(exchange, &error));
            }
            let upstream = split.pick(&mut exchange.downstream.worker.rng.borrow_mut());
            forward(exchange, route, upstream, incoming).await
        }
    }
}

fn refuse(mut exchange: Box<Exchange>, refusal: Refusal) -> Result<Response<ResponseBody>, Broken> {
    // The access log has a line of it: a hostile peer must not fill the process's log as well.
    tracing::debug!(
        listener = %exchange.active.listener.name, peer = %exchange.downstream.peer,
        reason = refusal.reason.word(), detail = refusal.detail, "refused a request"
    );
    let malformed = matches!(refusal.reason, Reason::BadHeader | Reason::DownstreamProtocol);
    if malformed && exchange.head.version == Version::HTTP_2 && refusal.detail != EXPECTATION {
        exchange.status = 400;
        exchange.broke(refusal.reason, refusal.detail);
        exchange.complete = true;
        exchange.downstream.count_reset_elsewhere();
        return Err(h2::Reason::PROTOCOL_ERROR.into());
    }
    let error = ProxyError::new(refusal.reason, refusal.detail);
    if refusal.detail == EXPECTATION {
        let grpc = classify::grpc_code(refusal.reason);
        let status = StatusCode::EXPECTATION_FAILED.as_u16();
        return Ok(reply::failure_as(exchange, &error, status, grpc));
    }
    Ok(reply::failure(exchange, &error))
}

/// Brings the target into the one form in which it is routed and goes upstream: the path alone, normalised.
fn normalise(exchange: &mut Exchange) -> Result<(), Refusal> {
    let uri = &exchange.head.uri;
    if exchange.head.method == Method::CONNECT {
        return Ok(());
    }
    let refusal = Refusal {
        reason: Reason::DownstreamProtocol,
        detail: "the path has a malformed escape or a character that no path has",
    };
    exchange.target = match uri.path_and_query() {
        Some(target) if target.as_str() == "*" => None,
        Some(target) => match normalise_path(target.path()).map_err(|_| refusal)? {
            Cow::Borrowed(_) if uri.authority().is_none() => None,
            Cow::Borrowed(_) => Some(Uri::from(target.clone())),
            Cow::Owned(path) => {
                let written = match target.query() {
                    Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
                    None => PathAndQuery::try_from(path),
                };
                Some(Uri::from(written.map_err(|_| refusal)?))
            }
        },
        // The absolute form without a path (RFC 9112 §3.2.4 for OPTIONS).
        None => {
            let options = exchange.head.method == Method::OPTIONS;
            Some(Uri::from_static(if options { "*" } else { "/" }))
        }
    };
    Ok(())
}

impl Exchange {
    /// The target in its one form.
    pub(super) fn target(&self) -> &Uri {
        self.target.as_ref().unwrap_or(&self.head.uri)
    }
}

/// The route's index, and how much of the path its `/*` stands for, counted from the end.
fn find_route(exchange: &Exchange) -> Option<(usize, usize)> {
    let authority =
        exchange.fields.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let target = exchange.target();
    let view = RequestView {
        host: &normalise_host(authority),
        path: target.path(),
        query: target.query(),
        method: &exchange.head.method,
        headers: &exchange.head.headers,
        grpc: exchange.fields.grpc,
    };
    let table = &exchange.active.listener.table;
    let index = table.find(&view)?;
    let route = &exchange.active.listener.routes[index];
    let wanted = route.rewrite_prefix.is_some() || matches!(route.action, Action::Redirect(_));
    let rest = if wanted { table.rest(index, view.path).map_or(0, str::len) } else { 0 };
    Some((index, rest))
}

fn not_routed(exchange: Box<Exchange>) -> Response<ResponseBody> {
    let listener = Rc::clone(&exchange.active);
    let listener = &listener.listener.name;
    if exchange.head.method == Method::CONNECT {
        let detail = format!("listener {listener} serves no CONNECT");
        let error = ProxyError::new(Reason::MethodRefused, detail);
        let mut response = reply::failure(exchange, &error);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(""));
        return response;
    }
    let detail = format!("no route of listener {listener} takes this request");
    reply::failure(exchange, &ProxyError::new(Reason::NoRoute, detail))
}

/// The end of `path` that a route's `/*` stands for.
fn rest_of(path: &str, rest: usize) -> &str {
    path.get(path.len().saturating_sub(rest)..).unwrap_or_default()
}

fn redirect(
    exchange: Box<Exchange>,
    route: &Route,
    redirect: &Redirect,
    rest: usize,
) -> Response<ResponseBody> {
    let target = exchange.target();
    let from = RedirectFrom {
        scheme: "http",
        authority: exchange
            .fields
            .host
            .as_ref()
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
        path: target.path(),
        rest: rest_of(target.path(), rest),
        query: target.query(),
    };
    let location = redirect.location(&from).ok().and_then(|at| HeaderValue::try_from(at).ok());
    let Some(location) = location else {
        let detail = "the redirect of this route needs a host, and the request names none";
        return reply::failure(exchange, &ProxyError::new(Reason::BadHeader, detail));
    };
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = reply::direct(exchange, redirect.status(), text, Bytes::new());
    response.headers_mut().insert(LOCATION, location);
    route.response_headers.apply(response.headers_mut());
    response
}

fn rewrite(exchange: &mut Exchange, route: &Route, rest: usize) -> Result<(), ProxyError> {
    let Some(prefix) = &route.rewrite_prefix else { return Ok(()) };
    let target = exchange.target();
    let malformed =
        |_| ProxyError::new(Reason::DownstreamProtocol, "the rewritten path is not valid");
    let rest = rest_of(target.path(), rest);
    let written = prefix.apply(rest, target.query()).map_err(malformed)?;
    exchange.target = Some(Uri::from(written));
    Ok(())
}
