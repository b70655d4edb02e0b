//! `listeners.<name>.routes[]`.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::units::ByteSize;
use crate::config;
use crate::control::ApplyError;
use crate::control::resolve::Plan;
use crate::policy::backoff::Backoff;
use crate::policy::retry::{RetryMethods, RetryPolicy, RetryWhen};
use crate::route;
use crate::snapshot::{Action, HeaderEdits, Route, Split};
use crate::upstream::Upstream;

use super::{Given, balance, jwt, same_name, shaping};

/// A route with its upstreams, edits and policies.
pub(super) fn compile(
    listener: &str,
    route: &config::Route,
    given: &Given<'_>,
) -> Result<Route, ApplyError> {
    let &Given { upstreams, metrics, .. } = given;
    let before = same_name(given.before, listener, &route.name);
    let invalid = |error: route::RewriteError| {
        ApplyError::Invalid(format!("route {} of listener {listener}: {error}", route.name))
    };
    let action = match &route.action {
        config::Action::To(split) => Action::To(compile_split(route, split, upstreams)?),
        config::Action::Redirect(redirect) => Action::Redirect(
            route::Redirect::new(
                redirect.status,
                redirect.scheme.as_deref(),
                redirect.host.as_deref(),
                redirect.path.as_deref(),
                redirect.prefix.as_deref(),
            )
            .map_err(invalid)?,
        ),
        config::Action::Respond(respond) => Action::Respond {
            status: respond.status,
            body: Bytes::from(respond.body.clone()),
            content_type: respond.content_type.clone(),
        },
    };
    let prefix = route.rewrite.prefix.as_deref().map(route::RewritePrefix::new);
    Ok(Route {
        name: route.name.as_str().into(),
        action,
        rewrite_prefix: prefix.transpose().map_err(invalid)?,
        rewrite_host: route.rewrite.host.clone(),
        request_headers: compile_edits(&route.request_headers),
        response_headers: compile_edits(&route.response_headers),
        timeout: route.timeout,
        idle: route.idle,
        fault: shaping::fault(listener, route, metrics),
        mirror: shaping::mirror(listener, route, upstreams, metrics)?,
        hedging: shaping::hedging(listener, route, before, given),
        jwt: jwt::mode(route.jwt),
        hash: route.hash.iter().map(balance::hash_by).collect(),
        rate_limit: shaping::rate_limit(listener, route, before, given)?,
        retry: match &route.retry {
            Some(retry) => compile_retry(retry),
            None => never(route.shaping.hedge.is_some()),
        },
        metrics: metrics.downstream.route(listener, &route.name),
    })
}

fn compile_split(
    route: &config::Route,
    split: &[(String, u32)],
    upstreams: &Plan,
) -> Result<Split, ApplyError> {
    let weighted: Vec<(Arc<Upstream>, u32)> = split
        .iter()
        .map(|(name, weight)| {
            let upstream = upstreams.get(name).ok_or_else(|| {
                ApplyError::Invalid(format!("route {}: no upstream {name}", route.name))
            })?;
            Ok((Arc::clone(upstream), *weight))
        })
        .collect::<Result<_, ApplyError>>()?;
    Split::new(weighted)
        .ok_or_else(|| ApplyError::Invalid(format!("route {}: every weight is 0", route.name)))
}

fn compile_edits(edits: &config::HeaderEdits) -> HeaderEdits {
    HeaderEdits {
        remove: edits.remove.clone(),
        set: edits.set.clone(),
        append: edits.append.clone(),
    }
}

/// No retries; but a second attempt that is raced needs the body as well.
fn never(hedged: bool) -> RetryPolicy {
    const STANDARD: ByteSize = ByteSize::kib(64);
    let never = RetryPolicy::never();
    if hedged { RetryPolicy { replay_bytes: STANDARD.0, ..never } } else { never }
}

fn compile_retry(retry: &config::Retry) -> RetryPolicy {
    let when = &retry.when;
    RetryPolicy {
        when: RetryWhen {
            reset: when.reset,
            gateway_error: when.gateway_error,
            server_error: when.server_error,
            per_try_timeout: when.per_try_timeout,
            statuses: when.statuses.iter().copied().collect(),
            grpc: RetryWhen::grpc_codes(when.grpc.iter().copied()),
        },
        attempts: retry.attempts,
        per_try: retry.per_try,
        backoff: Backoff { first: retry.backoff.first, max: retry.backoff.max },
        methods: match &retry.methods {
            config::RetryMethods::Idempotent => RetryMethods::Idempotent,
            config::RetryMethods::Any => RetryMethods::Any,
            config::RetryMethods::Listed(methods) => RetryMethods::Listed(methods.clone()),
        },
        replay_bytes: retry.replay.0,
    }
}

/// The matches of a listener's routes, in their order.
pub(super) fn table(listener: &config::Listener) -> Result<route::RouteTable, ApplyError> {
    let matches = listener.routes.iter().map(|route| {
        compile_match(&route.matches).map_err(|error| {
            let (route, listener) = (&route.name, &listener.name);
            ApplyError::Invalid(format!("route {route} of listener {listener}: {error}"))
        })
    });
    Ok(route::RouteTable::new(matches.collect::<Result<_, _>>()?))
}

fn compile_match(wanted: &config::RouteMatch) -> Result<route::RouteMatch, route::PathError> {
    Ok(route::RouteMatch {
        host: wanted
            .host
            .iter()
            .map(|host| match host {
                config::HostPattern::Exact(name) => route::HostPattern::Exact(name.clone()),
                config::HostPattern::Suffix(name) => route::HostPattern::Suffix(name.clone()),
            })
            .collect(),
        path: wanted.path.as_ref().map(compile_path).transpose()?,
        grpc: wanted.grpc.as_ref().map(|grpc| route::GrpcMatch {
            service: grpc.service.clone(),
            method: grpc.method.clone(),
        }),
        method: wanted.method.clone(),
        headers: wanted
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), compile_value(value)))
            .collect(),
        query: wanted
            .query
            .iter()
            .map(|(name, value)| (name.clone(), compile_value(value)))
            .collect(),
    })
}

/// Written paths take the form that requests are brought into, or they would never match.
pub(super) fn compile_path(
    path: &config::PathPattern,
) -> Result<route::PathPattern, route::PathError> {
    match path {
        config::PathPattern::Exact(path) => route::PathPattern::Exact(path.clone()),
        config::PathPattern::Prefix(path) => route::PathPattern::Prefix(path.clone()),
        config::PathPattern::Template { segments, rest } => {
            route::PathPattern::Template { segments: segments.clone(), rest: *rest }
        }
        config::PathPattern::Regex(regex) => route::PathPattern::Regex(regex.clone()),
    }
    .normalised()
}

fn compile_value(value: &config::ValueMatch) -> route::ValueMatch {
    match value {
        config::ValueMatch::Exact(text) => route::ValueMatch::Exact(text.clone()),
        config::ValueMatch::Prefix(text) => route::ValueMatch::Prefix(text.clone()),
        config::ValueMatch::Regex(regex) => route::ValueMatch::Regex(regex.clone()),
        config::ValueMatch::Present(present) => route::ValueMatch::Present(*present),
    }
}
