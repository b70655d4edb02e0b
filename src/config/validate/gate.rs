//! Breakers that cannot see what they are for.

use std::time::Duration;

use crate::base::units::format_duration;
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};
use crate::config::{Action, Breaker, Config, ListenerProtocol, Route, Upstream};

/// Warnings of one upstream; `node` is its map.
pub(super) fn warnings(
    config: &Config,
    upstream: &Upstream,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let (Some(breaker), Some(node)) = (&upstream.breaker, node.get("breaker")) else { return };
    let leads_here = |route: &&Route| match &route.action {
        Action::To(targets) => targets.iter().any(|(name, _)| *name == upstream.name),
        Action::Redirect(_) | Action::Respond(_) => false,
    };
    let http = config.listeners.iter().filter(|l| l.protocol != ListenerProtocol::Tcp);
    // The longest that an attempt can take, by route.
    let longest: Vec<(&str, Option<Duration>)> = http
        .flat_map(|listener| &listener.routes)
        .filter(leads_here)
        .map(|route| {
            let per_try = route.retry.as_ref().and_then(|retry| retry.per_try);
            (route.name.as_str(), per_try.into_iter().chain(route.timeout).min())
        })
        .collect();
    slow_is_seen(breaker, &longest, node, path, out);
    hanging_opens(upstream, breaker, &longest, node, path, out);
}

/// Attempts that end before they count as slow.
fn slow_is_seen(
    breaker: &Breaker,
    longest: &[(&str, Option<Duration>)],
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(slow) = &breaker.slow else { return };
    let Some(node) = node.get("slow").and_then(|node| node.get("over")) else { return };
    let cut = |(_, most): &(&str, Option<Duration>)| most.is_some_and(|most| most <= slow.over);
    let Some((route, Some(most))) = longest.iter().copied().max_by_key(|(_, most)| *most) else {
        return;
    };
    if !longest.iter().all(cut) {
        return;
    }
    let message = format!(
        "no answer is ever slower than {}: the route `{route}` gives up after {}",
        format_duration(slow.over),
        format_duration(most)
    );
    let breaker = path.key("breaker");
    let found = Diagnostic::warning("breaker-slow-unseen", node.span, message);
    out.push(found.at(breaker.key("slow")).label("lower it, below the time of one attempt"));
}

/// Requests at a hanging upstream end one timeout after they began, and only so many run at once.
fn hanging_opens(
    upstream: &Upstream,
    breaker: &Breaker,
    longest: &[(&str, Option<Duration>)],
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let (Some(in_flight), None) = (upstream.limits.in_flight, upstream.adaptive) else { return };
    let soonest = longest.iter().filter_map(|(_, most)| *most).min();
    let Some(soonest) = soonest.filter(|soonest| !soonest.is_zero()) else { return };
    let ended = f64::from(in_flight) * breaker.window.as_secs_f64() / soonest.as_secs_f64();
    if ended >= f64::from(breaker.min_requests) {
        return;
    }
    let message = format!(
        "an upstream that hangs never opens it: {in_flight} at once × {} of window / {} of timeout = {} in a window, of {} that are needed",
        format_duration(breaker.window),
        format_duration(soonest),
        ended.floor(),
        breaker.min_requests
    );
    let span = node.get("min_requests").unwrap_or(node).span;
    let found = Diagnostic::warning("breaker-never-opens", span, message);
    let label = "lower `min_requests` or the timeout, or raise `window`";
    out.push(found.at(path.key("breaker")).label(label));
}
