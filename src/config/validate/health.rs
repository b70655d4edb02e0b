//! Health checks that will not tell what they are meant to.

use crate::base::units::format_duration;
use crate::config::Upstream;
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};

/// A check that may take as long as the time between two.
pub(super) fn slow(upstream: &Upstream, node: &Node, path: &Path<'_>, out: &mut Vec<Diagnostic>) {
    let (Some(check), Some(node)) = (&upstream.health, node.get("health")) else { return };
    if check.timeout < check.interval {
        return;
    }
    let (timeout, interval) = (format_duration(check.timeout), format_duration(check.interval));
    let message = format!("a check may take {timeout}, and the next is due after {interval}");
    let health = path.key("health");
    let span = node.get("timeout").or_else(|| node.get("interval")).unwrap_or(node).span;
    let found = Diagnostic::warning("health-timeout", span, message).at(health.key("timeout"));
    let label = "a hanging endpoint is noticed later than `interval` says: keep `timeout` below it";
    out.push(found.label(label));
}

/// An upstream of which nothing would notice that an endpoint fails.
pub(super) fn blind(upstream: &Upstream, node: &Node, path: &Path<'_>, out: &mut Vec<Diagnostic>) {
    if upstream.health.is_some() || upstream.outliers.is_some() {
        return;
    }
    let message = format!(
        "nothing notices that an endpoint of `{}` fails: neither health checks nor outlier detection",
        upstream.name
    );
    let span = node.get("outliers").unwrap_or(node).span;
    let found = Diagnostic::warning("unwatched-upstream", span, message).at(path.key("outliers"));
    out.push(found.label("add `health`, or leave outlier detection on"));
}
