//! Balancing that does not do what it says.

use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};
use crate::config::{
    Action, Balancing, Config, Discover, HashBy, ListenerProtocol, Route, Upstream,
};

/// What a route hashes by, where no upstream of it does; and what is behind something that every request has.
pub(super) fn hash(
    config: &Config,
    route: &Route,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(written) = node.get("hash").filter(|hash| !hash.inherited) else { return };
    let path = path.key("hash");
    let targets = match &route.action {
        Action::To(targets) => targets.as_slice(),
        Action::Redirect(_) | Action::Respond(_) => &[],
    };
    let hashes = |name: &str| {
        let mut upstreams = config.upstreams.iter();
        // A control plane may want a ring.
        let may = |balance: &Balancing| balance.policy.hashes() || balance.advised;
        upstreams.any(|upstream| upstream.name == name && may(&upstream.balance))
    };
    if !targets.iter().any(|(name, _)| hashes(name)) {
        let message = "`hash` has no effect: no upstream of this route chooses by it";
        let found = Diagnostic::warning("hash-unused", written.span, message).at(path);
        out.push(found.label("remove it, or give the upstream `balance: ring_hash` or `maglev`"));
        return;
    }
    let sure = |by: &HashBy| matches!(by, HashBy::Cookie { .. } | HashBy::SourceIp);
    let Some(place) = route.hash.iter().position(sure) else { return };
    if place + 1 < route.hash.len() {
        let what = match &route.hash[place] {
            HashBy::Cookie { .. } => "a cookie is set where it is absent",
            _ => "every request has a source address",
        };
        let message = format!("{what}: what stands behind it in `hash` is never looked at");
        let found = Diagnostic::warning("hash-unreachable", written.span, message).at(path);
        out.push(found.label("move it to the end"));
    }
}

/// What an upstream is told to choose by, and cannot.
pub(super) fn upstream(
    config: &Config,
    upstream: &Upstream,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let balance = node.get("balance").unwrap_or(node);
    let written = &upstream.balance;
    if written.zone_aware && written.zone.is_empty() {
        let span = balance.get("zone_aware").unwrap_or(balance).span;
        let message = "`zone_aware` has no effect: the file does not say which zone is ours";
        let found = Diagnostic::warning("zone-unknown", span, message).at(path.key("balance"));
        out.push(found.label("set `zone` at the top of the file, such as `zone: \"${ZONE}\"`"));
    }
    if let Some(route) = without_hash(config, upstream) {
        let message = format!(
            "`{}` has nothing to choose by on the route `{}`: it chooses at random there",
            written.policy.word(),
            route.name
        );
        let found = Diagnostic::warning("hash-missing", balance.span, message);
        let label = "give the route `hash`, such as `hash: [\"header:x-user\", source_ip]`";
        out.push(found.at(path.key("balance")).label(label));
    }
    if let Some(subset) = node.get("subset") {
        matches_none(upstream, subset, path, out);
    }
}

/// A subset that no endpoint will ever be in, as far as the file tells.
fn matches_none(upstream: &Upstream, subset: &Node, path: &Path<'_>, out: &mut Vec<Diagnostic>) {
    let has_all = |labels: &std::collections::BTreeMap<String, String>| {
        upstream.subset.iter().all(|(label, value)| labels.get(label) == Some(value))
    };
    let why = match &upstream.discover {
        Discover::Endpoints(endpoints) => {
            let any = endpoints.iter().any(|endpoint| has_all(&endpoint.labels));
            (!any).then_some("no endpoint has the labels of `subset`")
        }
        Discover::Dns { .. } => Some("what DNS answers has no labels"),
        // Others bring labels.
        _ => None,
    };
    if let Some(why) = why {
        let message = format!("{why}: every request to `{}` is refused", upstream.name);
        let found = Diagnostic::warning("empty-subset", subset.span, message);
        out.push(found.at(path.key("subset")).label("give endpoints these `labels`"));
    }
}

/// A route to a hashing upstream that has nothing which it could hash.
fn without_hash<'a>(config: &'a Config, upstream: &Upstream) -> Option<&'a Route> {
    if !upstream.balance.policy.hashes() {
        return None;
    }
    config.listeners.iter().find_map(|listener| {
        // Of a TCP connection only the address is known.
        let tcp = listener.protocol == ListenerProtocol::Tcp;
        let none = |route: &&Route| {
            let leads_here = matches!(&route.action, Action::To(targets)
                if targets.iter().any(|(name, _)| *name == upstream.name));
            let known = |by: &HashBy| !tcp || *by == HashBy::SourceIp;
            leads_here && !route.hash.iter().any(known)
        };
        listener.routes.iter().find(none)
    })
}
