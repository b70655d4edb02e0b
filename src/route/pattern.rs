//! What a route asks of a request: the plain input of [`RouteTable`](super::RouteTable).
//!
//! The meaning is that of `match:` in the configuration; literals are expected in the form in which
//! requests arrive here: hosts through [`normalise_host`](super::normalise_host), paths through
//! [`normalise_path`](super::normalise_path), header names in lower case.

use http::{HeaderName, Method};
use regex::Regex;

/// All of it must hold. The default matches every request but CONNECT.
#[derive(Debug, Clone, Default)]
pub struct RouteMatch {
    /// Any of these; empty: every host.
    pub host: Vec<HostPattern>,
    /// The path; `None`: every path.
    pub path: Option<PathPattern>,
    /// A gRPC service, or one method of it.
    pub grpc: Option<GrpcMatch>,
    /// Any of these; empty: every method but CONNECT, which only a route that lists it takes (a tunnel
    /// to wherever the caller likes must be asked for).
    pub method: Vec<Method>,
    /// All of these. A header sent several times holds if any one of its values does.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// All of these query parameters, names and values percent-decoded with `+` as a space. A parameter
    /// given several times holds if any one of its values does.
    pub query: Vec<(String, ValueMatch)>,
}

/// A host: lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// The name itself.
    Exact(String),
    /// `*.suffix`, kept as `.suffix`: at least one label in front, so never `suffix` itself.
    Suffix(String),
}

impl HostPattern {
    /// Whether the normalised `host` is one of those meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// A path in its normalised form.
///
/// Empty segments count (`/a//b` has three), and `%2F` is a character of its segment, never a border.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// Exactly this path; a slash at the end makes another one.
    Exact(String),
    /// `/v2/*`, kept as `/v2` (so `""` for `/*`): the path itself and all below, by whole segments.
    Prefix(String),
    /// Segments, of which `None` is one non-empty segment of any text. `rest`: the pattern ends in `/*`.
    Template {
        /// The segments between the slashes, without the empty one before the first slash.
        segments: Vec<Option<String>>,
        /// Whether anything may follow, by whole segments.
        rest: bool,
    },
    /// Searched in the path: not anchored unless it says so. Must come from [`Regex::new`]: the index
    /// reads its text, so flags set by a builder would be missed.
    Regex(Regex),
}

impl PathPattern {
    /// Whether the normalised `path` is one of those meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Regex(regex) => regex.is_match(path),
            Self::Prefix(_) | Self::Template { rest: true, .. } => self.rest(path).is_some(),
            Self::Template { segments, rest: false } => after_segments(segments, path) == Some(""),
        }
    }

    /// What `/*` stands for in `path`: empty, or from a slash on. `None` where the pattern does not end
    /// in `/*`, or does not match.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = match self {
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_str())?,
            Self::Template { segments, rest: true } => after_segments(segments, path)?,
            _ => return None,
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// What follows `segments` at the start of `path`: empty, or from a slash on.
fn after_segments<'p>(segments: &[Option<String>], path: &'p str) -> Option<&'p str> {
    let mut left = path;
    for wanted in segments {
        let (segment, after) = first_segment(left)?;
        let fits = wanted.as_ref().map_or(!segment.is_empty(), |literal| segment == literal);
        if !fits {
            return None;
        }
        left = after;
    }
    Some(left)
}

/// Splits `/a/b` into `a` and `/b`. `None` where there is no slash in front.
pub(super) fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

/// A gRPC call: the request's content type says gRPC and its path is `/service/method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMatch {
    /// `package.Service`.
    pub service: String,
    /// One method, or all of the service.
    pub method: Option<String>,
}

impl GrpcMatch {
    /// Whether `path` names this service and method; the content type is asked apart.
    pub fn matches_path(&self, path: &str) -> bool {
        let Some((service, after)) = first_segment(path) else { return false };
        let Some((method, "")) = first_segment(after) else { return false };
        service == self.service
            && self.method.as_ref().map_or(!method.is_empty(), |wanted| method == wanted)
    }
}

/// What is asked of one header or query parameter.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// The whole value, by bytes.
    Exact(String),
    /// The beginning of the value, by bytes.
    Prefix(String),
    /// Searched in the value; a value that is not UTF-8 never matches. From [`Regex::new`], as for paths.
    Regex(Regex),
    /// Whether there is such a header or parameter at all, whatever its value.
    Present(bool),
}

impl ValueMatch {
    /// Whether it asks that there be no value at all.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Present(false))
    }

    /// Whether this one `value` meets it.
    pub(super) fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == exact.as_bytes(),
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::Regex(regex) => str::from_utf8(value).is_ok_and(|text| regex.is_match(text)),
            Self::Present(present) => *present,
        }
    }
}
