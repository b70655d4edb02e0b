//! Why a route took a request or did not, in words.
//!
//! Values of the request are quoted with everything unprintable escaped, so the text is safe to print.

use std::fmt::{self, Write as _};

use super::{
    matcher::{Condition, Matcher},
    pattern::{HostPattern, PathPattern, ValueMatch},
    query::{self, Scratch},
    request::RequestView,
};

/// What one route has to say to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The first route whose match holds.
    Takes,
    /// Its match holds, but the route at this index stands before it.
    Shadowed {
        /// The route that takes the request.
        by: usize,
    },
    /// Its match does not hold.
    Fails {
        /// The first condition that failed.
        condition: Condition,
        /// What was wanted and what was there: one line without a full stop.
        why: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Takes => f.write_str("takes the request"),
            Self::Shadowed { by } => write!(f, "matches too, but route {by} stands before it"),
            Self::Fails { why, .. } => f.write_str(why),
        }
    }
}

/// What was wanted and what was there instead.
pub(super) fn why(matcher: &Matcher, failed: Condition, request: &RequestView<'_>) -> String {
    let wants = &matcher.wants;
    match failed {
        Condition::Host => {
            let hosts = list(wants.host.iter().map(|host| match host {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Suffix(suffix) => format!("*{suffix}"),
            }));
            format!("host is {:?}, not {hosts}", request.host)
        }
        Condition::Path => {
            let pattern = wants.path.as_ref().map(path_text).unwrap_or_default();
            format!("path {:?} does not match {pattern}", request.path)
        }
        Condition::Grpc if !request.grpc => "content-type is not application/grpc".to_owned(),
        Condition::Grpc => {
            let call = wants.grpc.as_ref().map(|grpc| match &grpc.method {
                Some(method) => format!("method {}/{method}", grpc.service),
                None => format!("service {}", grpc.service),
            });
            format!("path {:?} is not gRPC {}", request.path, call.unwrap_or_default())
        }
        Condition::Method if wants.method.is_empty() => {
            format!("{} is taken only where a route lists it", request.method)
        }
        Condition::Method => {
            format!("method is {}, not {}", request.method, list(wants.method.iter()))
        }
        Condition::Header(index) => {
            wants.headers.get(index).map_or_else(String::new, |(name, wanted)| {
                let values = request.headers.get_all(name).iter();
                value_text("header", name.as_str(), wanted, values.map(|v| v.as_bytes().to_vec()))
            })
        }
        Condition::Query(index) => {
            wants.query.get(index).map_or_else(String::new, |(name, wanted)| {
                let pairs = query::pairs(request.query.unwrap_or_default());
                let values = pairs.filter(|(n, _)| query::is_name(n, name));
                let values = values.map(|(_, v)| Scratch::new().decode(v).to_vec());
                value_text("query parameter", name, wanted, values)
            })
        }
    }
}

fn value_text(
    kind: &str,
    name: &str,
    wanted: &ValueMatch,
    values: impl Iterator<Item = Vec<u8>>,
) -> String {
    let values: Vec<_> =
        values.map(|value| format!("{:?}", String::from_utf8_lossy(&value))).collect();
    if values.is_empty() {
        return format!("{kind} {name} is absent");
    }
    let there = list(values.iter());
    match wanted {
        ValueMatch::Exact(text) => format!("{kind} {name} is {there}, not {text:?}"),
        ValueMatch::Prefix(text) => {
            format!("{kind} {name} is {there}, which does not begin with {text:?}")
        }
        ValueMatch::Regex(regex) => {
            format!("{kind} {name} is {there}, which regex {regex} does not match")
        }
        ValueMatch::Present(_) => format!("{kind} {name} is present"),
    }
}

fn path_text(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) => format!("{prefix}/*"),
        PathPattern::Template { segments, rest } => {
            let mut text = String::new();
            for segment in segments {
                text.push('/');
                text.push_str(segment.as_deref().unwrap_or("{}"));
            }
            text.push_str(if *rest { "/*" } else { "" });
            text
        }
        PathPattern::Regex(regex) => format!("regex {regex}"),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let mut items = items.peekable();
    let mut text = String::new();
    while let Some(item) = items.next() {
        let separator = match (text.is_empty(), items.peek()) {
            (true, _) => "",
            (false, Some(_)) => ", ",
            (false, None) => " or ",
        };
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, "{separator}{item}");
    }
    text
}
