//! YAML line by line, each value with its origin as a comment; and a route, the longest of what is written.

use std::fmt::Display;

use crate::base::endpoint::EndpointSpec;
use crate::base::units::format_duration;
use crate::config::node::{Node, retyped};
use crate::config::source::Source;
use crate::config::{
    Action, GrpcMatch, HeaderEdits, HostPattern, ListenerProtocol, PathPattern, Retry,
    RetryMethods, RetryWhen, Route, RouteMatch, ValueMatch,
};

use super::below;

/// The column of the comments.
const MARGIN: usize = 64;

pub(super) struct Writer<'a> {
    source: &'a Source,
    out: String,
    depth: usize,
    /// The next line begins an item of a list.
    dash: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, out: String::new(), depth: 0, dash: false }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    /// `key: value  # origin`
    pub(super) fn leaf(&mut self, key: &str, value: impl Display, node: Option<&Node>) {
        let line = format!("{}{key}: {value}", self.lead());
        let origin = match node {
            None => "built in".to_owned(),
            Some(node) => {
                let line = self.source.position(node.span.start).line;
                let place = format!("{}:{line}", self.source.name());
                if node.inherited { format!("defaults, {place}") } else { place }
            }
        };
        self.out.push_str(&format!("{line:<MARGIN$} # {origin}\n"));
    }

    /// A value that has no written form, as a comment.
    pub(super) fn note(&mut self, note: &str) {
        let line = format!("{}# {note}", "  ".repeat(self.depth));
        self.out.push_str(&format!("{line:<MARGIN$} # built in\n"));
    }

    /// `key:` and what `inside` writes, one step to the right.
    pub(super) fn section(&mut self, key: &str, inside: impl FnOnce(&mut Self)) {
        let line = format!("{}{key}:\n", self.lead());
        self.out.push_str(&line);
        self.depth += 1;
        inside(self);
        self.depth -= 1;
    }

    /// An item of a list: what `inside` writes, its first line behind a dash.
    pub(super) fn item(&mut self, inside: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.dash = true;
        inside(self);
        self.dash = false;
        self.depth -= 1;
    }

    fn lead(&mut self) -> String {
        match std::mem::take(&mut self.dash) {
            true => format!("{}- ", "  ".repeat(self.depth.saturating_sub(1))),
            false => "  ".repeat(self.depth),
        }
    }
}

/// Text as a scalar, in quotes wherever they could be needed; `${` is escaped.
pub(super) fn text(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && retyped(text).is_none()
        && !text.eq_ignore_ascii_case("null");
    if plain {
        return text.to_owned();
    }
    // A string of JSON is a double-quoted scalar of YAML.
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

/// As `text`, for anything that can be shown.
pub(super) fn quoted(value: impl Display) -> String {
    text(value.to_string())
}

/// `[a, b]`
pub(super) fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

pub(super) fn unlimited(value: Option<impl Display>) -> String {
    value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string())
}

pub(super) fn endpoint(endpoint: &EndpointSpec) -> String {
    let mut fields = vec![format!("address: {}", quoted(&endpoint.address))];
    fields.push(format!("weight: {}", endpoint.weight));
    if endpoint.priority > 0 {
        fields.push(format!("priority: {}", endpoint.priority));
    }
    fields.extend(endpoint.zone.as_ref().map(|zone| format!("zone: {}", text(zone))));
    if !endpoint.labels.is_empty() {
        let pairs = endpoint.labels.iter().map(|(k, v)| format!("{}: {}", text(k), text(v)));
        fields.push(format!("labels: {{ {} }}", pairs.collect::<Vec<_>>().join(", ")));
    }
    format!("{{ {} }}", fields.join(", "))
}

pub(super) fn route(
    w: &mut Writer<'_>,
    route: &Route,
    protocol: ListenerProtocol,
    node: Option<&Node>,
) {
    // A standard name holds brackets, which a written one may not.
    match route.name.contains('[') {
        true => conditions(w, &route.matches, below(node, "match", "")),
        false => {
            w.leaf("name", text(&route.name), below(node, "name", ""));
            conditions(w, &route.matches, below(node, "match", ""));
        }
    }
    action(w, &route.action, node);
    let rewrite = &route.rewrite;
    if rewrite.prefix.is_some() || rewrite.host.is_some() {
        let node = below(node, "rewrite", "");
        w.section("rewrite", |w| {
            if let Some(prefix) = &rewrite.prefix {
                w.leaf("prefix", text(prefix), below(node, "prefix", ""));
            }
            if let Some(host) = &rewrite.host {
                w.leaf("host", header(host), below(node, "host", ""));
            }
        });
    }
    edits(w, "request_headers", &route.request_headers, node);
    edits(w, "response_headers", &route.response_headers, node);
    if protocol != ListenerProtocol::Tcp {
        let time = |time: Option<_>| unlimited(time.map(format_duration));
        w.leaf("timeout", time(route.timeout), below(node, "timeout", ""));
        w.leaf("idle", time(route.idle), below(node, "idle", ""));
        super::jwt::mode(w, route.jwt, node);
        super::shaping::shaping(w, &route.shaping, node);
    }
    super::balance::hash(w, &route.hash, node);
    let node = below(node, "retry", "");
    // What the proxy answers itself is never tried again.
    if node.is_some() || matches!(route.action, Action::To(_)) {
        retry(w, route.retry.as_ref(), node);
    }
}

fn header(value: &http::HeaderValue) -> String {
    // Values come from text, so that nothing is lost.
    text(String::from_utf8_lossy(value.as_bytes()))
}

fn conditions(w: &mut Writer<'_>, matches: &RouteMatch, node: Option<&Node>) {
    if *matches == RouteMatch::default() {
        return;
    }
    w.section("match", |w| {
        if !matches.host.is_empty() {
            let hosts = matches.host.iter().map(|host| match host {
                HostPattern::Exact(name) => text(name),
                HostPattern::Suffix(suffix) => quoted(format_args!("*{suffix}")),
            });
            w.leaf("host", list(hosts), below(node, "host", ""));
        }
        if let Some(pattern) = &matches.path {
            w.leaf("path", path(pattern), below(node, "path", ""));
        }
        if let Some(GrpcMatch { service, method }) = &matches.grpc {
            let method = method.as_ref().map(|method| format!("/{method}")).unwrap_or_default();
            w.leaf("grpc", quoted(format_args!("{service}{method}")), below(node, "grpc", ""));
        }
        if !matches.method.is_empty() {
            w.leaf("method", list(matches.method.iter().map(quoted)), below(node, "method", ""));
        }
        let values = |w: &mut Writer<'_>, key: &str, pairs: Vec<(String, &ValueMatch)>| {
            let node = below(node, key, "");
            if !pairs.is_empty() {
                w.section(key, |w| {
                    for (name, wanted) in pairs {
                        w.leaf(&text(&name), value(wanted), node.and_then(|n| named(n, &name)));
                    }
                });
            }
        };
        let headers = matches.headers.iter().map(|(name, value)| (name.to_string(), value));
        values(w, "headers", headers.collect());
        let query = matches.query.iter().map(|(name, value)| (name.clone(), value));
        values(w, "query", query.collect());
    });
}

/// The value of a key that may be written in another case.
pub(super) fn named<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let found = node.entries().iter().find(|entry| entry.key.eq_ignore_ascii_case(name));
    found.map(|entry| &entry.node)
}

pub(super) fn path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => text(path),
        PathPattern::Prefix(prefix) => quoted(format_args!("{prefix}/*")),
        PathPattern::Regex(regex) => format!("{{ regex: {} }}", text(regex.as_str())),
        PathPattern::Template { segments, rest } => {
            let mut path = String::new();
            for (index, segment) in segments.iter().enumerate() {
                match segment {
                    Some(segment) => path.push_str(&format!("/{segment}")),
                    None => path.push_str(&format!("/{{s{index}}}")),
                }
            }
            quoted(format_args!("{path}{}", if *rest { "/*" } else { "" }))
        }
    }
}

pub(super) fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(exact) => text(exact),
        ValueMatch::Prefix(prefix) => format!("{{ prefix: {} }}", text(prefix)),
        ValueMatch::Regex(regex) => format!("{{ regex: {} }}", text(regex.as_str())),
        ValueMatch::Present(present) => format!("{{ present: {present} }}"),
    }
}

fn action(w: &mut Writer<'_>, action: &Action, node: Option<&Node>) {
    match action {
        Action::To(targets) => match targets.as_slice() {
            [(only, 1)] => w.leaf("to", text(only), below(node, "to", "")),
            targets => {
                let pairs =
                    targets.iter().map(|(name, weight)| format!("{}: {weight}", text(name)));
                let map = format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "));
                w.leaf("to", map, below(node, "to", ""));
            }
        },
        Action::Redirect(redirect) => {
            let node = below(node, "redirect", "");
            w.section("redirect", |w| {
                w.leaf("status", redirect.status.as_u16(), below(node, "status", ""));
                for (key, value) in [
                    ("scheme", &redirect.scheme),
                    ("host", &redirect.host),
                    ("path", &redirect.path),
                    ("prefix", &redirect.prefix),
                ] {
                    if let Some(value) = value {
                        w.leaf(key, text(value), below(node, key, ""));
                    }
                }
            });
        }
        Action::Respond(respond) => {
            let node = below(node, "respond", "");
            w.section("respond", |w| {
                w.leaf("status", respond.status.as_u16(), below(node, "status", "status"));
                w.leaf("body", text(&respond.body), below(node, "body", "status"));
                let kind = header(&respond.content_type);
                w.leaf("content_type", kind, below(node, "content_type", "status"));
            });
        }
    }
}

fn edits(w: &mut Writer<'_>, key: &str, edits: &HeaderEdits, node: Option<&Node>) {
    if *edits == HeaderEdits::default() {
        return;
    }
    let node = below(node, key, "");
    w.section(key, |w| {
        for (key, pairs) in [("set", &edits.set), ("append", &edits.append)] {
            let node = below(node, key, "");
            if !pairs.is_empty() {
                w.section(key, |w| {
                    for (name, value) in pairs {
                        let node = node.and_then(|node| named(node, name.as_str()));
                        w.leaf(&quoted(name), header(value), node);
                    }
                });
            }
        }
        if !edits.remove.is_empty() {
            w.leaf("remove", list(edits.remove.iter().map(quoted)), below(node, "remove", ""));
        }
    });
}

fn retry(w: &mut Writer<'_>, retry: Option<&Retry>, node: Option<&Node>) {
    let Some(retry) = retry else {
        w.leaf("retry", "never", node);
        return;
    };
    w.section("retry", |w| {
        w.leaf("when", when(&retry.when), below(node, "when", ""));
        w.leaf("attempts", retry.attempts, below(node, "attempts", ""));
        match retry.per_try {
            None => w.note("per_try: only the timeout bounds an attempt"),
            Some(time) => w.leaf("per_try", format_duration(time), below(node, "per_try", "")),
        }
        let backoff = super::range(retry.backoff.first, retry.backoff.max);
        w.leaf("backoff", backoff, below(node, "backoff", ""));
        let methods = match &retry.methods {
            RetryMethods::Idempotent => "idempotent".to_owned(),
            RetryMethods::Any => "any".to_owned(),
            RetryMethods::Listed(methods) => list(methods.iter().map(quoted)),
        };
        w.leaf("methods", methods, below(node, "methods", ""));
        w.leaf("replay", retry.replay, below(node, "replay", ""));
    });
}

fn when(when: &RetryWhen) -> String {
    let words = [
        (true, "safe"),
        (when.reset, "reset"),
        (when.gateway_error, "gateway-error"),
        (when.server_error, "5xx"),
        (when.per_try_timeout, "per-try-timeout"),
    ];
    let words = words.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned());
    let statuses = when.statuses.iter().map(u16::to_string);
    let grpc = (!when.grpc.is_empty()).then(|| {
        let names = when.grpc.iter().filter_map(|code| crate::config::GRPC.get(usize::from(*code)));
        format!("{{ grpc: {} }}", list(names))
    });
    list(words.chain(statuses).chain(grpc))
}
