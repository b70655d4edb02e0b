//! `listeners`.

use std::time::Duration;

use crate::base::address::Address;
use crate::base::units::ByteSize;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Action, Direction, Listener, ListenerLimits, ListenerProtocol, RouteMatch};

use super::{At, Fields, action, authorize, jwt, tls};

/// Every listener, in the order of the file.
pub(super) fn all(at: At<'_>) -> Option<Vec<Listener>> {
    let pairs = at.pairs("a map from names to listeners")?;
    Some(pairs.iter().filter_map(|(_, at)| one(at)).collect())
}

/// What `defaults.listener` holds, read only for its mistakes.
pub(super) fn defaults(at: At<'_>) -> Option<()> {
    let fields = at.fields(&keys::LISTENER_DEFAULTS)?;
    let protocol = protocol(&fields);
    fields.read("direction", |at| direction(&at));
    fields.read("tls", tls::listener);
    limits(fields.get("limits"), protocol);
    fields.read("authorize", |at| authorize::authorize(&at, protocol));
    fields.get("jwt").map(|at| jwt::issuers(&at, protocol));
    Some(())
}

fn one(at: &At<'_>) -> Option<Listener> {
    let name = name(at);
    let fields = at.fields(&keys::LISTENER)?;
    let protocol = protocol(&fields);
    let bind: Option<Address> = fields.required("bind").and_then(|at| at.address());
    let local = bind.as_ref().is_some_and(Address::is_local);
    let by_address = if local { Direction::Outbound } else { Direction::Inbound };
    let direction = fields.read("direction", |at| direction(&at)).unwrap_or(by_address);
    let limits = limits(fields.get("limits"), protocol);
    let original = fields.read("original_destination", |at| original(&at, bind.as_ref()));
    let authorize = fields.read("authorize", |at| authorize::authorize(&at, protocol));
    let tls = fields
        .get("tls")
        .and_then(|at| tls::listener(at).flatten().map(|tls| tls::complete_listener(&at, tls)));
    let jwt = fields.get("jwt").map(|at| jwt::issuers(&at, protocol)).unwrap_or_default();
    let routes = fields
        .required("routes")
        .map(|at| routes(&at, name.unwrap_or_default(), protocol, fields.get("jwt").is_some()));
    let (name, bind, routes) = (name?.to_owned(), bind?, routes?);
    let original_destination = original.unwrap_or(false);
    Some(Listener {
        name,
        bind,
        protocol,
        direction,
        original_destination,
        tls,
        authorize,
        jwt,
        limits,
        routes,
    })
}

/// The key that names a listener or an upstream: a metric label, and part of paths and commands.
pub(super) fn name<'a>(at: &At<'a>) -> Option<&'a str> {
    let name = at.path.steps().into_iter().next_back().and_then(|step| match step {
        crate::config::node::Step::Key(key) => Some(key),
        crate::config::node::Step::Index(_) => None,
    })?;
    if let Err(right) = check_name(name) {
        let message = format!("`{name}` cannot be a name");
        at.push(Diagnostic::error("bad-name", at.place, message).at(at.path).label(right));
        return None;
    }
    Some(name)
}

/// Letters, digits, `_`, `.` and `-`, so that a name needs no quotes anywhere.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    match name.len() {
        1..=64 if name.bytes().all(allowed) => Ok(()),
        1..=64 => Err("write letters, digits, `_`, `.` and `-`"),
        _ => Err("write 1 to 64 characters"),
    }
}

fn protocol(fields: &Fields<'_>) -> ListenerProtocol {
    let words = [
        ("auto", ListenerProtocol::Auto),
        ("http", ListenerProtocol::Http),
        ("tcp", ListenerProtocol::Tcp),
    ];
    fields.read("protocol", |at| at.word(&words)).unwrap_or(ListenerProtocol::Auto)
}

fn direction(at: &At<'_>) -> Option<Direction> {
    at.word(&[("inbound", Direction::Inbound), ("outbound", Direction::Outbound)])
}

/// Whether connections are redirected here, which those to a unix socket cannot be.
fn original(at: &At<'_>, bind: Option<&Address>) -> Option<bool> {
    let original = at.boolean()?;
    if original && matches!(bind, Some(Address::Unix(_))) {
        let message = "nothing is redirected to a unix socket";
        at.push(at.error("bad-value", message).label("bind to an address, or remove it"));
        return None;
    }
    Some(original)
}

fn limits(at: Option<At<'_>>, protocol: ListenerProtocol) -> ListenerLimits {
    let idle = match protocol {
        ListenerProtocol::Tcp => Duration::from_secs(3600),
        ListenerProtocol::Auto | ListenerProtocol::Http => Duration::from_secs(60),
    };
    let mut limits = ListenerLimits {
        connections: Some(10_000),
        per_source: None,
        headers: 100,
        header_bytes: ByteSize::kib(64),
        header_timeout: Some(Duration::from_secs(10)),
        body: None,
        body_timeout: Some(Duration::from_secs(60)),
        idle: Some(idle),
        max_age: None,
        streams: 256,
    };
    let Some(at) = at else { return limits };
    let Some(fields) = at.fields(&keys::LISTENER_LIMITS) else { return limits };
    let time = |key, standard| {
        fields.read(key, |at| at.or_unlimited(|at| at.span_of_time())).unwrap_or(standard)
    };
    limits.header_timeout = time("header_timeout", limits.header_timeout);
    limits.body_timeout = time("body_timeout", limits.body_timeout);
    limits.idle = time("idle", limits.idle);
    limits.max_age = time("max_age", limits.max_age);
    limits.connections = fields
        .read("connections", |at| at.or_unlimited(|at| at.number(1..=u64::from(u32::MAX))))
        .unwrap_or(limits.connections);
    limits.per_source = fields
        .read("per_source", |at| at.or_unlimited(|at| at.number(1..=65_535)))
        .unwrap_or(limits.per_source);
    limits.headers = fields.read("headers", |at| at.number(1..=1_000)).unwrap_or(limits.headers);
    // Below 8 KiB real requests with cookies fail, and hyper takes no smaller buffer.
    let head = ByteSize::kib(8)..=ByteSize::kib(1024);
    limits.header_bytes =
        fields.read("header_bytes", |at| at.size_within(head)).unwrap_or(limits.header_bytes);
    limits.body = fields.read("body", |at| at.or_unlimited(|at| at.size())).unwrap_or(limits.body);
    limits.streams = fields.read("streams", |at| at.number(1..=65_535)).unwrap_or(limits.streams);
    limits
}

fn routes(
    at: &At<'_>,
    listener: &str,
    protocol: ListenerProtocol,
    tokens: bool,
) -> Vec<crate::config::Route> {
    let Some(items) = at.list("a list of routes") else { return Vec::new() };
    if items.is_empty() {
        let error = Diagnostic::error("missing-key", at.node.span, "`routes` holds no route");
        at.push(error.at(at.path).label("write at least `- to: <upstream>`"));
    }
    let mut routes: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(index, item)| action::route(item, &format!("{listener}[{index}]")))
        .collect();
    unique_names(&items);
    if !tokens {
        jwt::need_issuers(at, &routes);
    }
    if protocol == ListenerProtocol::Tcp {
        only_to(at, &items, &routes);
        routes.iter_mut().flatten().for_each(without_http);
    }
    routes.into_iter().flatten().collect()
}

fn unique_names(items: &[At<'_>]) {
    let mut seen = std::collections::HashMap::new();
    for item in items {
        let Some(node) = item.node.get("name") else { continue };
        let Value::Scalar(scalar) = &node.value else { continue };
        if let Some(first) = seen.insert(scalar.text.as_str(), node.span) {
            let message = format!("two routes are named `{}`", scalar.text);
            let error = Diagnostic::error("duplicate-name", node.span, message)
                .at(item.path.key("name"))
                .label("choose another name: it is a metric label")
                .related(first, "the other route");
            item.push(error);
        }
    }
}

/// What `defaults.route` brings to a route whose bytes are passed on, and which has no meaning there.
fn without_http(route: &mut crate::config::Route) {
    (route.timeout, route.idle) = (None, None);
    route.request_headers = crate::config::HeaderEdits::default();
    route.response_headers = crate::config::HeaderEdits::default();
    route.shaping = crate::config::Shaping::default();
}

/// A connection whose bytes are passed on shows nothing that a match or an edit could look at.
fn only_to(at: &At<'_>, items: &[At<'_>], routes: &[Option<crate::config::Route>]) {
    if let Some(second) = items.get(1) {
        let message = "a `tcp` listener has one route: nothing tells its connections apart";
        let error = Diagnostic::error("tcp-route", second.node.span, message).at(second.path);
        at.push(error.label("remove it, or split the listener"));
    }
    for (item, route) in items.iter().zip(routes) {
        for key in [
            "match",
            "rewrite",
            "request_headers",
            "response_headers",
            "timeout",
            "idle",
            "rate_limit",
            "fault",
            "mirror",
            "hedge",
            "jwt",
        ] {
            let Some(entry) = item.node.entry(key).filter(|entry| !entry.node.inherited) else {
                continue;
            };
            let message = format!("`{key}` has no meaning on a `tcp` listener");
            let right = match key {
                "idle" | "timeout" => "remove it; the listener's `limits.idle` bounds a connection",
                "rate_limit" => "remove it; the listener's `limits.connections` bounds them",
                _ => "remove it: bytes are passed on as they are",
            };
            let error = Diagnostic::error("tcp-route", entry.key_span, message);
            at.push(error.at(item.path.key(key)).label(right));
        }
        let Some(route) = route else { continue };
        if !matches!(route.action, Action::To(_)) && route.matches == RouteMatch::default() {
            let message = "a `tcp` listener cannot redirect or respond: its route needs `to`";
            at.push(Diagnostic::error("tcp-route", item.node.span, message).at(item.path));
        }
    }
}
