//! Routes that an earlier one leaves nothing to.

use std::collections::HashMap;

use http::Method;

use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};
use crate::config::{HostPattern, PathPattern, Route, RouteMatch, ValueMatch};

/// Warns of every route that can never be reached. Quadratic only among routes that say nothing of the path, or
/// whose first segment is the same.
pub(super) fn shadowed(
    routes: &[Route],
    nodes: &[Node],
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    // By first segment; `None` holds those that may cover any path.
    let mut earlier: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let key = first_segment(&route.matches);
        let near = earlier.get(&key).into_iter().flatten();
        let anywhere = earlier.get(&None).into_iter().flatten();
        let covering = near.chain(anywhere).copied().filter(|before| {
            routes.get(*before).is_some_and(|before| covers(&before.matches, &route.matches))
        });
        if let (Some(before), Some(node)) = (covering.min(), nodes.get(index))
            && let (Some(cover), Some(cover_node)) = (routes.get(before), nodes.get(before))
        {
            let message = format!(
                "the route `{}` is never reached: `{}` above takes all that it would",
                route.name, cover.name
            );
            let span = node.entries().first().map_or(node.span, |entry| entry.key_span);
            let cover_span = cover_node.entries().first().map_or(cover_node.span, |e| e.key_span);
            out.push(
                Diagnostic::warning("shadowed-route", span, message)
                    .at(path.index(index))
                    .label("move it up, or remove it")
                    .related(cover_span, "first match wins"),
            );
        } else {
            earlier.entry(key).or_default().push(index);
        }
    }
}

/// The first segment of every path that a match takes, where there is only one.
fn first_segment(matches: &RouteMatch) -> Option<&str> {
    if let Some(grpc) = &matches.grpc {
        return Some(&grpc.service);
    }
    let fixed = match matches.path.as_ref()? {
        PathPattern::Exact(path) | PathPattern::Prefix(path) => path.strip_prefix('/')?,
        PathPattern::Template { segments, .. } => segments.first()?.as_deref()?,
        PathPattern::Regex(_) => return None,
    };
    fixed.split('/').next()
}

/// Whether `first` takes every request that `second` takes. May say no where a proof would be hard (regular
/// expressions), never yes where it is not so.
fn covers(first: &RouteMatch, second: &RouteMatch) -> bool {
    path_covers(first, second)
        && host_covers(&first.host, &second.host)
        && method_covers(&first.method, &second.method)
        && values_cover(&first.headers, &second.headers)
        && values_cover(&first.query, &second.query)
}

fn path_covers(first: &RouteMatch, second: &RouteMatch) -> bool {
    match (&first.path, &first.grpc, &second.path, &second.grpc) {
        (None, None, ..) => true,
        (Some(PathPattern::Prefix(prefix)), None, ..) if prefix.is_empty() => true,
        (Some(first), None, Some(second), None) => pattern_covers(first, second),
        (None, Some(first), None, Some(second)) => {
            first.service == second.service
                && (first.method.is_none() || first.method == second.method)
        }
        _ => false,
    }
}

pub(super) fn pattern_covers(first: &PathPattern, second: &PathPattern) -> bool {
    if first == second {
        return true;
    }
    let below = |prefix: &str, path: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (first, second) {
        (PathPattern::Prefix(prefix), PathPattern::Exact(path) | PathPattern::Prefix(path)) => {
            below(prefix, path)
        }
        (PathPattern::Prefix(prefix), PathPattern::Template { segments, .. }) => {
            let fixed: String =
                segments.iter().map_while(Option::as_ref).map(|s| format!("/{s}")).collect();
            below(prefix, &fixed)
        }
        (PathPattern::Template { segments, rest: false }, PathPattern::Exact(path)) => {
            let mut parts = path.split('/').skip(1);
            let mut same = segments.iter().all(|segment| match (segment, parts.next()) {
                (Some(fixed), Some(part)) => fixed == part,
                (None, Some(part)) => !part.is_empty(),
                (_, None) => false,
            });
            same &= parts.next().is_none();
            same
        }
        (PathPattern::Regex(regex), PathPattern::Exact(path)) => regex.is_match(path),
        _ => false,
    }
}

fn host_covers(first: &[HostPattern], second: &[HostPattern]) -> bool {
    if first.is_empty() {
        return true;
    }
    let one = |wide: &HostPattern, narrow: &HostPattern| match (wide, narrow) {
        (HostPattern::Suffix(wide), HostPattern::Exact(name) | HostPattern::Suffix(name)) => {
            name.ends_with(wide.as_str()) && name.len() >= wide.len() && name != &wide[1..]
        }
        (HostPattern::Exact(wide), HostPattern::Exact(name)) => wide == name,
        (HostPattern::Exact(_), HostPattern::Suffix(_)) => false,
    };
    !second.is_empty() && second.iter().all(|narrow| first.iter().any(|wide| one(wide, narrow)))
}

fn method_covers(first: &[Method], second: &[Method]) -> bool {
    match (first, second) {
        // Without `method`, a route takes all but CONNECT.
        ([], second) => !second.contains(&Method::CONNECT),
        (_, []) => false,
        (first, second) => second.iter().all(|method| first.contains(method)),
    }
}

/// Whether all that `first` asks for, `second` asks for as well.
pub(super) fn values_cover<N: PartialEq>(
    first: &[(N, ValueMatch)],
    second: &[(N, ValueMatch)],
) -> bool {
    first.iter().all(|(name, wide)| {
        second.iter().filter(|(other, _)| other == name).any(|(_, narrow)| match (wide, narrow) {
            _ if wide == narrow => true,
            (ValueMatch::Present(true), ValueMatch::Present(present)) => *present,
            (ValueMatch::Present(true), _) => true,
            (ValueMatch::Prefix(prefix), ValueMatch::Exact(text) | ValueMatch::Prefix(text)) => {
                text.starts_with(prefix.as_str())
            }
            (ValueMatch::Regex(regex), ValueMatch::Exact(text)) => regex.is_match(text),
            _ => false,
        })
    })
}
