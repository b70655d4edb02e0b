//! Ejection that ejects nothing, or too much.

use crate::config::Upstream;
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};

/// Warns of a share that lets nothing go, or leaves one endpoint to carry all.
pub(super) fn ejection_share(
    upstream: &Upstream,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let (Some(outliers), Some(section)) = (&upstream.outliers, node.get("outliers")) else {
        return;
    };
    let Some(share) = section.get("max_ejected") else { return };
    let (message, label) = if outliers.max_ejected.fraction() <= 0.0 {
        ("a share of 0% never ejects anything", "write `outliers: never`, or `enforce: false`")
    } else if outliers.max_ejected.fraction() >= 0.8 && outliers.enforce {
        (
            "so large a share may leave one endpoint with the traffic of all",
            "keep it below 80%: the last endpoint is never ejected, but it is alone then",
        )
    } else {
        return;
    };
    let place = path.key("outliers");
    let found = Diagnostic::warning("ejection-share", share.span, message);
    out.push(found.at(place.key("max_ejected")).label(label));
}
