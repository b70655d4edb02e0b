//! What a route asks of a request: the plain input of [`RouteTable`](super::RouteTable).
//!
//! The meaning is that of `match:` in the configuration; literals are expected in the form in which
//! requests arrive here: hosts through [`normalise_host`](super::normalise_host), paths through
//! [`normalise_path`], header names in lower case.

use http::{HeaderName, Method};
use regex::Regex;

use super::path::{PathError, normalise_path};

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
    /// The pattern with its literals in the form in which paths arrive: a rule for `/café` must meet
    /// `/caf%C3%A9`. Expressions stay as they are. A dot segment in a template matches nothing.
    ///
    /// # Errors
    ///
    /// Where a literal is no path, so that nothing could match.
    pub fn normalised(self) -> Result<Self, PathError> {
        Ok(match self {
            Self::Exact(path) => Self::Exact(normalise_path(&path)?.into_owned()),
            Self::Prefix(prefix) => {
                let whole = format!("{prefix}/*");
                let whole = normalise_path(&whole)?;
                Self::Prefix(whole.strip_suffix("/*").unwrap_or(&whole).to_owned())
            }
            Self::Template { segments, rest } => {
                let segments = segments.into_iter().map(normalised_segment);
                Self::Template { segments: segments.collect::<Result<_, _>>()?, rest }
            }
            Self::Regex(regex) => Self::Regex(regex),
        })
    }

    pub(super) fn is_expression(&self) -> bool {
        matches!(self, Self::Regex(_))
    }

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

fn normalised_segment(segment: Option<String>) -> Result<Option<String>, PathError> {
    let Some(literal) = segment else { return Ok(None) };
    let alone = format!("/{literal}");
    let normal = normalise_path(&alone)?;
    match normal.strip_prefix('/') {
        // Empty now: it was dots.
        None | Some("") => Ok(Some(literal)),
        Some(segment) => Ok(Some(segment.to_owned())),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn template(segments: &[Option<&str>], rest: bool) -> PathPattern {
        let segments = segments.iter().map(|segment| segment.map(str::to_owned)).collect();
        PathPattern::Template { segments, rest }
    }

    #[test]
    fn hosts_match_whole_or_by_labels() {
        let exact = HostPattern::Exact("a.b".to_owned());
        assert!(exact.matches("a.b") && !exact.matches("x.a.b") && !exact.matches("a.bc"));
        let suffix = HostPattern::Suffix(".a.b".to_owned());
        for (host, want) in
            [("x.a.b", true), ("x.y.a.b", true), ("a.b", false), (".a.b", false), ("xa.b", false)]
        {
            assert_eq!(suffix.matches(host), want, "{host}");
        }
    }

    #[test]
    fn prefixes_take_whole_segments() {
        let prefix = PathPattern::Prefix("/v2".to_owned());
        for (path, rest) in [
            ("/v2", Some("")),
            ("/v2/", Some("/")),
            ("/v2/x/y", Some("/x/y")),
            ("/v2//x", Some("//x")),
            ("/v2x", None),
            ("/v2%2Fx", None),
            ("/v", None),
            ("//v2", None),
        ] {
            assert_eq!((prefix.rest(path), prefix.matches(path)), (rest, rest.is_some()), "{path}");
        }
        let everything = PathPattern::Prefix(String::new());
        assert!(everything.matches("/") && everything.matches("/x") && !everything.matches("*"));
    }

    #[test]
    fn exact_paths_mind_the_slash_at_the_end() {
        let exact = PathPattern::Exact("/a".to_owned());
        assert!(exact.matches("/a") && !exact.matches("/a/") && !exact.matches("/a/b"));
        assert_eq!(exact.rest("/a"), None);
    }

    #[test]
    fn templates_take_one_non_empty_segment_per_blank() {
        let user = template(&[Some("users"), None], false);
        for (path, want) in [
            ("/users/7", true),
            ("/users/a%2Fb", true),
            ("/users/", false),
            ("/users", false),
            ("/users/7/", false),
            ("/users/7/x", false),
            ("/user/7", false),
            ("/users//7", false),
        ] {
            assert_eq!(user.matches(path), want, "{path}");
        }
        assert_eq!(user.rest("/users/7"), None);
    }

    #[test]
    fn open_templates_take_all_below() {
        let posts = template(&[Some("users"), None, Some("posts")], true);
        for (path, rest) in [
            ("/users/7/posts", Some("")),
            ("/users/7/posts/", Some("/")),
            ("/users/7/posts/1/x", Some("/1/x")),
            ("/users/7/postsx", None),
            ("/users//posts", None),
        ] {
            assert_eq!((posts.rest(path), posts.matches(path)), (rest, rest.is_some()), "{path}");
        }
    }

    #[test]
    fn expressions_are_searched_not_anchored() {
        let regex = PathPattern::Regex(Regex::new("/v[0-9]+/").unwrap());
        assert!(regex.matches("/x/v12/y") && !regex.matches("/v/"));
    }

    #[test]
    fn grpc_paths_are_service_and_method() {
        let grpc = |method: Option<&str>| GrpcMatch {
            service: "p.S".to_owned(),
            method: method.map(str::to_owned),
        };
        for (path, service, list) in [
            ("/p.S/List", true, true),
            ("/p.S/Get", true, false),
            ("/p.S/", false, false),
            ("/p.S", false, false),
            ("/p.S/List/x", false, false),
            ("/p.Sx/List", false, false),
        ] {
            assert_eq!(grpc(None).matches_path(path), service, "{path}");
            assert_eq!(grpc(Some("List")).matches_path(path), list, "{path}");
        }
    }

    #[test]
    fn patterns_take_the_form_in_which_paths_arrive() {
        let text = |pattern: PathPattern| match pattern.normalised() {
            Ok(PathPattern::Exact(text) | PathPattern::Prefix(text)) => text,
            Ok(PathPattern::Template { segments, .. }) => {
                segments.into_iter().map(|segment| segment.unwrap_or_else(|| "{}".into())).collect()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            text(PathPattern::Exact("/caf\u{e9}/%41/../x%2f".to_owned())),
            "/caf%C3%A9/x%2F"
        );
        for (prefix, want) in [
            ("", ""),
            ("/a b", "/a%20b"),
            ("/a/..", ""),
            ("/a/.", "/a"),
            ("/", "/"),
            ("/%7Ea", "/~a"),
        ] {
            assert_eq!(text(PathPattern::Prefix(prefix.to_owned())), want, "{prefix}");
        }
        assert_eq!(text(template(&[Some("a|b"), None, Some(".."), Some("")], true)), "a%7Cb{}..");
        let bad = PathPattern::Exact("/a%2".to_owned()).normalised();
        assert!(matches!(bad, Err(PathError::MalformedEscape)));
    }
}
