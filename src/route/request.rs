//! What the table looks at in a request, and the forms in which it wants it.

use std::borrow::Cow;

use http::{HeaderMap, Method};

/// A request's head as the table sees it. Borrowed: making one costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// From [`normalise_host`]; empty where the request names none.
    pub host: &'a str,
    /// From [`normalise_path`](super::normalise_path), without the query.
    pub path: &'a str,
    /// What follows the `?`, as sent.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The headers, as received.
    pub headers: &'a HeaderMap,
    /// Whether the content type says gRPC ([`crate::policy::classify::is_grpc`]).
    pub grpc: bool,
}

/// The host of an authority as patterns want it: lower case, without port and without one trailing dot.
///
/// Borrowed unless there is an upper-case letter. An IPv6 address keeps its brackets. What is no
/// authority (user information, a port that is no number) is left as it is and so matches no pattern;
/// refusing it is the caller's task.
pub fn normalise_host(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(host.to_ascii_lowercase());
    }
    Cow::Borrowed(host)
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.starts_with('[') && host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_case_port_and_one_trailing_dot() {
        for (authority, want) in [
            ("articles", "articles"),
            ("Articles.SVC", "articles.svc"),
            ("articles:8080", "articles"),
            ("articles:", "articles"),
            ("articles.:80", "articles"),
            ("articles.", "articles"),
            ("articles..", "articles."),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[FE80::A]", "[fe80::a]"),
            ("::1", "::1"),
            ("articles:http", "articles:http"),
            ("user@articles:80", "user@articles"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(normalise_host(authority), want, "{authority}");
        }
    }

    #[test]
    fn hosts_in_normal_form_are_borrowed() {
        for authority in ["articles", "articles:80", "articles.", "[::1]:80"] {
            assert!(matches!(normalise_host(authority), Cow::Borrowed(_)), "{authority}");
        }
    }
}
