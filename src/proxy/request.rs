//! The spine: what happens to one request, from top to bottom.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;

use crate::base::error::{ProxyError, Reason};
use crate::route::{RedirectFrom, RequestView, normalise_host, normalise_path};
use crate::snapshot::{Action, Route};

use super::check::{Host, Refusal, check};
use super::connection::Downstream;
use super::exchange::Exchange;
use super::forward::{Forwarding, forward};
use super::response::ResponseBody;
use super::{headers, reply, tunnel};

/// What the connection does instead of answering: an HTTP/2 stream is reset, an HTTP/1 connection closed.
pub(crate) type Broken = h2::Error;

/// Answers a request.
///
/// # Errors
/// An HTTP/2 request that is malformed has its stream reset (RFC 9113 §8.1.1); so has one whose caller is gone.
pub(crate) async fn handle(
    downstream: Rc<Downstream>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Broken> {
    let Some(active) = downstream.local.active(&downstream.worker) else {
        return Err(h2::Reason::REFUSED_STREAM.into());
    };
    let mut exchange = Exchange::begin(&downstream, active, &request);
    let host = match check(&request, &downstream.local.via) {
        Ok(Host::Named(host)) => Some(host),
        Ok(Host::None) => None,
        Err(refusal) => return refuse(exchange, refusal),
    };
    exchange.host.clone_from(&host);
    let path = match normalise(&mut request) {
        Ok(path) => path,
        Err(refusal) => return refuse(exchange, refusal),
    };
    let Some((route, rest_at)) = find_route(&exchange, &request, host.as_ref(), &path) else {
        return Ok(not_routed(exchange));
    };
    exchange.route = Some(route);
    let active = Rc::clone(&exchange.active);
    let route = &active.listener.routes[route];
    match &route.action {
        Action::Respond { status, body, content_type } => {
            let mut response = reply::direct(exchange, *status, content_type.clone(), body.clone());
            route.response_headers.apply(response.headers_mut());
            Ok(response)
        }
        Action::Redirect(_) => Ok(redirect(exchange, route, host.as_ref(), &path, rest_at)),
        Action::To(_) if request.method() == Method::CONNECT => {
            Ok(Box::pin(tunnel::connect(exchange, route, request)).await)
        }
        Action::To(split) => {
            let upstream = split.pick(&mut downstream.worker.rng.borrow_mut()).clone();
            let request = match rewrite(request, route, &path, rest_at) {
                Ok(request) => request,
                Err(error) => return Ok(reply::failure(exchange, &error)),
            };
            let host = route.rewrite_host.clone().or(host);
            // Boxed: an idle HTTP/1 connection keeps the memory of its service's future.
            Box::pin(forward(Forwarding { exchange, route, upstream, host }, request)).await
        }
    }
}

fn refuse(exchange: Box<Exchange>, refusal: Refusal) -> Result<Response<ResponseBody>, Broken> {
    let malformed = matches!(refusal.reason, Reason::BadHeader | Reason::DownstreamProtocol);
    let error = ProxyError::new(refusal.reason, refusal.detail);
    tracing::info!(
        listener = %exchange.active.listener.name, peer = %exchange.downstream.peer,
        reason = refusal.reason.word(), detail = refusal.detail, "refused a request"
    );
    if malformed && exchange.version == Version::HTTP_2 && refusal.detail != EXPECTATION {
        let mut exchange = exchange;
        exchange.status = 400;
        exchange.broke(refusal.reason, refusal.detail);
        exchange.complete = true;
        exchange.downstream.count_reset_elsewhere();
        return Err(h2::Reason::PROTOCOL_ERROR.into());
    }
    Ok(reply::failure(exchange, &error))
}

/// Well-formed, but not to be met: answered on HTTP/2, too.
const EXPECTATION: &str = "only `Expect: 100-continue` is known";

/// Brings the path into its one form, in the request as well: the form that was routed is the form that goes upstream.
fn normalise(request: &mut Request<Incoming>) -> Result<String, Refusal> {
    if request.method() == Method::CONNECT {
        return Ok(String::new());
    }
    let Some(target) = request.uri().path_and_query() else { return Ok("/".to_owned()) };
    if target.as_str() == "*" {
        return Ok("*".to_owned());
    }
    let refusal = |_| Refusal {
        reason: Reason::DownstreamProtocol,
        detail: "the path has a malformed escape or a control character",
    };
    let path = normalise_path(target.path()).map_err(refusal)?;
    let owned = path.clone().into_owned();
    if let Cow::Owned(path) = path {
        let written = match target.query() {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path),
        };
        let target = written.map_err(|_| Refusal {
            reason: Reason::DownstreamProtocol,
            detail: "the path cannot be written in its normal form",
        })?;
        *request.uri_mut() = Uri::from(target);
    }
    Ok(owned)
}

/// The route's index, and where in the path that begins which its `/*` stands for.
fn find_route(
    exchange: &Exchange,
    request: &Request<Incoming>,
    host: Option<&HeaderValue>,
    path: &str,
) -> Option<(usize, usize)> {
    let authority = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let view = RequestView {
        host: &normalise_host(authority),
        path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
        grpc: exchange.grpc,
    };
    let table = &exchange.active.listener.table;
    let index = table.find(&view)?;
    let rest = table.rest(index, path).unwrap_or_default();
    Some((index, path.len() - rest.len()))
}

fn not_routed(exchange: Box<Exchange>) -> Response<ResponseBody> {
    let listener = &exchange.active.listener.name;
    if exchange.method == Method::CONNECT {
        let detail = format!("listener {listener} serves no CONNECT");
        let mut response =
            reply::failure(exchange, &ProxyError::new(Reason::MethodRefused, detail));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(""));
        return response;
    }
    let detail = format!("no route of listener {listener} takes this request");
    reply::failure(exchange, &ProxyError::new(Reason::NoRoute, detail))
}

fn redirect(
    exchange: Box<Exchange>,
    route: &Route,
    host: Option<&HeaderValue>,
    path: &str,
    rest_at: usize,
) -> Response<ResponseBody> {
    let Action::Redirect(redirect) = &route.action else { return not_routed(exchange) };
    let from = RedirectFrom {
        scheme: "http",
        authority: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
        path,
        rest: &path[rest_at..],
        query: exchange.uri.query(),
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

fn rewrite(
    mut request: Request<Incoming>,
    route: &Route,
    path: &str,
    rest_at: usize,
) -> Result<Request<Incoming>, ProxyError> {
    let malformed =
        |_| ProxyError::new(Reason::DownstreamProtocol, "the rewritten path is not valid");
    if let Some(prefix) = &route.rewrite_prefix {
        let target = prefix.apply(&path[rest_at..], request.uri().query()).map_err(malformed)?;
        *request.uri_mut() = Uri::from(target);
    } else if request.uri().authority().is_some() {
        // The absolute form becomes a path: whom it is for stands in `Host`.
        let target = request.uri().path_and_query().cloned();
        let root = PathAndQuery::from_static(if path == "*" { "*" } else { "/" });
        *request.uri_mut() = Uri::from(target.unwrap_or(root));
    }
    Ok(request)
}

/// The head as it goes upstream, but for what differs between attempts.
pub(crate) fn prepare_head(
    exchange: &mut Exchange,
    route: &Route,
    parts: &mut http::request::Parts,
) -> headers::Hop {
    let hop = headers::strip_hop_by_hop(&mut parts.headers);
    exchange.wants_trailers = hop.wants_trailers;
    let downstream = Rc::clone(&exchange.downstream);
    let rng = &mut downstream.worker.rng.borrow_mut();
    let id = headers::forward(&mut parts.headers, &downstream, exchange.host.as_ref(), rng);
    exchange.request_id = Some(id);
    route.request_headers.apply(&mut parts.headers);
    hop
}
