//! `defaults:` merged into every listener, route and upstream, before any of them is read.

use super::diagnostic::Diagnostic;
use super::keys::{LISTENER_DEFAULTS, ROUTE_DEFAULTS, Section, UPSTREAM_DEFAULTS};
use super::node::{Node, Value};

/// Nodes that merging may add: a small file must not become a large tree.
const MAX_ADDED: usize = 1_000_000;

/// Puts what `defaults` has, and an item does not, into that item. Maps are merged key by key; anything else that an
/// item writes stands in place of the default.
pub(super) fn merge(root: &mut Node, out: &mut Vec<Diagnostic>) {
    let Some(defaults) = root.get("defaults").cloned() else { return };
    let part = |key: &str, section| defaults.get(key).map(|node| permitted(node, section));
    let listener = part("listener", &LISTENER_DEFAULTS);
    let route = part("route", &ROUTE_DEFAULTS);
    let upstream = part("upstream", &UPSTREAM_DEFAULTS);

    let listeners = root.get("listeners").map_or(&[][..], Node::entries);
    let routes = listeners.iter().filter_map(|entry| entry.node.get("routes")).map(|node| {
        let Value::List(routes) = &node.value else { return 0 };
        routes.len()
    });
    let upstreams = root.get("upstreams").map_or(0, |node| node.entries().len());
    let items_in_all = listeners.len() + upstreams + routes.sum::<usize>();
    if defaults.size().saturating_mul(items_in_all) > MAX_ADDED {
        let message = "`defaults`, merged into everything here, makes the file too large";
        out.push(Diagnostic::error("too-large", defaults.span, message).at("defaults"));
        return;
    }
    for node in items(root, "listeners") {
        if let (Some(route), Value::Map(entries)) = (&route, &mut node.value) {
            let routes = entries.iter_mut().filter(|entry| entry.key == "routes");
            for entry in routes {
                if let Value::List(routes) = &mut entry.node.value {
                    routes.iter_mut().for_each(|node| fill(node, route));
                }
            }
        }
        if let Some(listener) = &listener {
            fill(node, listener);
        }
    }
    if let Some(upstream) = &upstream {
        items(root, "upstreams").for_each(|node| fill(node, upstream));
    }
}

/// The entries of `node` that may stand under `defaults`, marked as inherited; the others are reported where they are read.
fn permitted(node: &Node, section: &Section) -> Node {
    let mut node = node.clone();
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| section.keys.contains(&entry.key.as_str()));
    }
    inherit(&mut node);
    node
}

fn inherit(node: &mut Node) {
    node.inherited = true;
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(inherit),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| inherit(&mut entry.node)),
    }
}

/// The values of the map `key` of the file.
fn items<'a>(root: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let entries = match &mut root.value {
        Value::Map(entries) => entries.as_mut_slice(),
        _ => &mut [],
    };
    let found = entries.iter_mut().find(|entry| entry.key == key);
    let entries = match found.map(|entry| &mut entry.node.value) {
        Some(Value::Map(entries)) => entries.as_mut_slice(),
        _ => &mut [],
    };
    entries.iter_mut().map(|entry| &mut entry.node)
}

fn fill(node: &mut Node, defaults: &Node) {
    let (Value::Map(own), Value::Map(others)) = (&mut node.value, &defaults.value) else { return };
    for other in others {
        match own.iter_mut().find(|entry| entry.key == other.key) {
            Some(entry) => fill(&mut entry.node, &other.node),
            None => own.push(other.clone()),
        }
    }
}
