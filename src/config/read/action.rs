//! A route: what it does with what it takes.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::base::units::ByteSize;
use crate::config::diagnostic::{Diagnostic, nearest};
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Action, PathPattern, Redirect, Respond, Retry, Rewrite, Route, RouteMatch};

use super::{At, Fields, balance, headers, jwt, listener, matches, retry, shaping};

/// The longest `respond.body`.
const MAX_BODY: ByteSize = ByteSize::kib(64);

/// The policy that a route has of its own or from `defaults.route`.
struct Policy {
    timeout: Option<Duration>,
    idle: Option<Duration>,
    retry: Option<Retry>,
}

/// What `defaults.route` holds, read only for its mistakes.
pub(super) fn defaults(at: At<'_>) -> Option<()> {
    let fields = at.fields(&keys::ROUTE_DEFAULTS)?;
    fields.read("request_headers", headers::edits);
    fields.read("response_headers", headers::edits);
    policy(&fields);
    fields.read("jwt", |at| jwt::mode(&at));
    shaping::shaping(&fields);
    fields.read("hash", balance::hash);
    Some(())
}

/// A route; `standard_name` is its name where it has none.
pub(super) fn route(at: &At<'_>, standard_name: &str) -> Option<Route> {
    let fields = at.fields(&keys::ROUTE)?;
    let name =
        fields.read("name", |at| at.parsed(|n| listener::check_name(n).map(|()| n.to_owned())));
    let matches = fields.read("match", matches::all);
    let rest = matches.as_ref().is_none_or(ends_in_rest);
    let action = fields.exactly_one(&["to", "redirect", "respond"]);
    let action = action.and_then(|at| match at.path.to_string() {
        path if path.ends_with(".redirect") => redirect(&at, rest).map(Action::Redirect),
        path if path.ends_with(".respond") => respond(&at).map(Action::Respond),
        _ => to(&at).map(Action::To),
    });
    let rewrite = fields.read("rewrite", |at| rewrite(&at, rest)).unwrap_or_default();
    let request_headers = fields.read("request_headers", headers::edits).unwrap_or_default();
    let response_headers = fields.read("response_headers", headers::edits).unwrap_or_default();
    let Policy { timeout, idle, retry } = policy(&fields);
    let hash = fields.read("hash", balance::hash).unwrap_or_default();
    Some(Route {
        name: name.unwrap_or_else(|| standard_name.to_owned()),
        matches: matches.unwrap_or_default(),
        action: action?,
        rewrite,
        request_headers,
        response_headers,
        timeout,
        idle,
        jwt: fields.read("jwt", |at| jwt::mode(&at)).unwrap_or_default(),
        retry,
        shaping: shaping::shaping(&fields),
        hash,
    })
}

fn policy(fields: &Fields<'_>) -> Policy {
    let time = |key| fields.read(key, |at| at.or_unlimited(|at| at.span_of_time()));
    let timeout = time("timeout").unwrap_or(Some(Duration::from_secs(15)));
    let idle = time("idle").unwrap_or(Some(Duration::from_secs(300)));
    let retry = fields.read("retry", retry::retry).unwrap_or_else(|| Some(retry::standard()));
    per_try_below_timeout(fields, timeout, retry.as_ref());
    Policy { timeout, idle, retry }
}

/// Envoy ignores a per-try timeout that is not below the whole; here it is a contradiction.
fn per_try_below_timeout(fields: &Fields<'_>, timeout: Option<Duration>, retry: Option<&Retry>) {
    let per_try = retry.and_then(|retry| retry.per_try);
    let (Some(timeout), Some(per_try)) = (timeout, per_try) else { return };
    let Some(at) = fields.get("retry").filter(|_| per_try >= timeout) else { return };
    let Some(node) = at.node.get("per_try") else { return };
    let message = format!(
        "`per_try` of {} is not below the route's `timeout` of {}",
        crate::base::units::format_duration(per_try),
        crate::base::units::format_duration(timeout)
    );
    let mut error = Diagnostic::error("contradiction", node.span, message)
        .at(at.path.key("per_try"))
        .label("`timeout` holds all attempts together: lower this one");
    match fields.get("timeout") {
        Some(timeout) => error = error.related(timeout.node.span, "the whole request"),
        None => error = error.help("`timeout` is not written here; its default is 15s"),
    }
    at.push(error);
}

/// Whether what a match leaves open is the rest after `/*`. A match without a path leaves all of it open.
fn ends_in_rest(matches: &RouteMatch) -> bool {
    match &matches.path {
        None => matches.grpc.is_none(),
        Some(PathPattern::Prefix(_) | PathPattern::Template { rest: true, .. }) => true,
        Some(_) => false,
    }
}

fn prefix(at: &At<'_>, rest: bool) -> Option<String> {
    if !rest {
        let message = "`prefix` replaces what stands before `/*`, and this route's `match.path` does not end in it";
        at.push(at.error("contradiction", message).label("end `match.path` in `/*`"));
        return None;
    }
    at.parsed(path)
}

/// An absolute path as it stands in a request line.
fn path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("write a path that begins with `/`");
    }
    match text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
        true => Ok(text.to_owned()),
        false => Err("write a path without `?`, `#`, spaces and non-ASCII characters"),
    }
}

/// A host with or without port, as it stands in a `Host` header.
fn authority(text: &str) -> Result<HeaderValue, &'static str> {
    const RIGHT: &str = "write a host, with a port where wanted, such as `articles.internal:8080`";
    let authority = text.parse::<http::uri::Authority>().map_err(|_| RIGHT)?;
    match authority.as_str().contains('@') {
        true => Err(RIGHT),
        false => HeaderValue::from_str(text).map_err(|_| RIGHT),
    }
}

fn rewrite(at: &At<'_>, rest: bool) -> Option<Rewrite> {
    let fields = at.fields(&keys::REWRITE)?;
    Some(Rewrite {
        prefix: fields.read("prefix", |at| prefix(&at, rest)),
        host: fields.read("host", |at| at.parsed(authority)),
    })
}

fn to(at: &At<'_>) -> Option<Vec<(String, u32)>> {
    const WANTED: &str = "the name of an upstream, or a map from names to weights";
    if let Value::Scalar(_) = at.node.value {
        let name = at.text()?;
        known(at, name, at.node.span)?;
        return Some(vec![(name.to_owned(), 1)]);
    }
    let pairs = match &at.node.value {
        Value::Map(_) => at.pairs(WANTED)?,
        _ => {
            at.wrong_type(WANTED);
            return None;
        }
    };
    let targets: Vec<_> = pairs
        .iter()
        .map(|(entry, weight)| {
            let known = known(weight, &entry.key, entry.key_span);
            let weight = weight.number(0..=1_000_000);
            known.and(weight).map(|weight| (entry.key.clone(), weight))
        })
        .collect();
    let whole: Option<Vec<(String, u32)>> = targets.into_iter().collect();
    let targets = whole?;
    if targets.iter().all(|(_, weight)| *weight == 0) {
        let error = Diagnostic::error("out-of-range", at.place, "the weights of `to` add up to 0");
        at.push(error.at(at.path).label("give at least one upstream a weight above 0"));
        return None;
    }
    Some(targets)
}

pub(super) fn known(at: &At<'_>, name: &str, span: crate::config::source::Span) -> Option<()> {
    if at.reader.known.contains(name) {
        return Some(());
    }
    let names = &at.reader.upstreams;
    let error =
        Diagnostic::error("unknown-upstream", span, format!("there is no upstream `{name}`"))
            .at(at.path);
    at.push(match nearest(name, names.iter().copied()) {
        Some(meant) => error.label(format!("did you mean `{meant}`?")),
        None if names.is_empty() => error.help("the file has no `upstreams` yet"),
        None => {
            let shown = &names[..names.len().min(10)];
            error.help(format!("the file's upstreams: {}", shown.join(", ")))
        }
    });
    None
}

fn redirect(at: &At<'_>, rest: bool) -> Option<Redirect> {
    let fields = at.fields(&keys::REDIRECT)?;
    let statuses = [301_u16, 302, 303, 307, 308].map(|code| (code.to_string(), code));
    let words: Vec<(&str, u16)> = statuses.iter().map(|(word, code)| (&**word, *code)).collect();
    let status = fields.read("status", |at| at.word(&words)).unwrap_or(308);
    fields.at_most_one(&["path", "prefix"]);
    let redirect = Redirect {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT),
        scheme: fields
            .read("scheme", |at| at.word(&[("http", "http"), ("https", "https")]))
            .map(str::to_owned),
        host: fields.read("host", |at| at.parsed(|text| authority(text).map(|_| text.to_owned()))),
        path: fields.read("path", |at| at.parsed(path)),
        prefix: fields.read("prefix", |at| prefix(&at, rest)),
    };
    let target = ["scheme", "host", "path", "prefix"];
    if !target.iter().any(|key| fields.get(key).is_some()) {
        fields.missing("one of `scheme`, `host`, `path` or `prefix`: else it leads to itself");
        return None;
    }
    Some(redirect)
}

fn respond(at: &At<'_>) -> Option<Respond> {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    if let Value::Scalar(_) = at.node.value {
        let status = status(at)?;
        return Some(Respond { status, body: String::new(), content_type: PLAIN });
    }
    let fields = at.fields(&keys::RESPOND)?;
    let code = fields.required("status").and_then(|at| status(&at));
    let body = fields.read("body", |at| {
        let body = at.text()?;
        let bodyless = code.is_some_and(|code| matches!(code.as_u16(), 204 | 205 | 304));
        if bodyless && !body.is_empty() {
            let message = "a reply with this status has no body (RFC 9110 §6.4.1)";
            at.push(at.error("contradiction", message).label("remove it"));
        }
        if body.len() > MAX_BODY.as_usize() {
            let message = format!("`body` has {} bytes, more than {MAX_BODY}", body.len());
            at.push(at.error("out-of-range", message));
        }
        Some(body.to_owned())
    });
    let content_type = fields.read("content_type", |at| {
        at.parsed(|text| {
            HeaderValue::from_str(text).map_err(|_| "write a media type, such as `text/html`")
        })
    });
    Some(Respond {
        status: code?,
        body: body.unwrap_or_default(),
        content_type: content_type.unwrap_or(PLAIN),
    })
}

fn status(at: &At<'_>) -> Option<StatusCode> {
    StatusCode::from_u16(at.number(200..=599)?).ok()
}
