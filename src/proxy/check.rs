//! What a request must not be: anything that two parsers could read differently.
//!
//! hyper has refused what is not HTTP at all (see the rulings on smuggling in `docs/SECURITY.md`); here stands what it
//! lets through. Whatever passes is written anew in one form, so no ambiguity of ours reaches an upstream.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, VIA};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Body;

use crate::base::error::Reason;

/// Why a request is refused, for the log and the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: &'static str,
}

const fn refuse(reason: Reason, detail: &'static str) -> Refusal {
    Refusal { reason, detail }
}

/// The authority that a request is for, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// HTTP/1.0 without one.
    None,
    /// From `Host`, `:authority`, or the absolute form.
    Named(HeaderValue),
}

/// Checks a request's head.
///
/// # Errors
/// The first reason to refuse it.
pub(crate) fn check<B: Body>(request: &Request<B>, via: &HeaderValue) -> Result<Host, Refusal> {
    check_framing(request)?;
    check_target(request)?;
    if let Some(expect) = request.headers().get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(refuse(Reason::BadHeader, "only `Expect: 100-continue` is known"));
    }
    if request.headers().get_all(VIA).iter().any(|seen| names(seen, via)) {
        return Err(refuse(Reason::Loop, "the request has passed this listener before"));
    }
    check_host(request)
}

/// True where `seen`, a list, has `via` as one of its members.
fn names(seen: &HeaderValue, via: &HeaderValue) -> bool {
    seen.as_bytes().split(|byte| *byte == b',').any(|hop| hop.trim_ascii() == via.as_bytes())
}

fn check_framing<B: Body>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if request.version() == Version::HTTP_10 {
            return Err(refuse(Reason::BadHeader, "HTTP/1.0 has no Transfer-Encoding"));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(refuse(Reason::BadHeader, "the only Transfer-Encoding is one `chunked`"));
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = length.as_bytes().iter().all(u8::is_ascii_digit) && !length.is_empty();
        if !digits || lengths.next().is_some() {
            return Err(refuse(Reason::BadHeader, "Content-Length is not one number"));
        }
    }
    let bodiless = matches!(*request.method(), Method::TRACE | Method::CONNECT);
    if bodiless && !request.body().is_end_stream() && request.version() != Version::HTTP_2 {
        return Err(refuse(Reason::BadHeader, "TRACE and CONNECT have no body"));
    }
    Ok(())
}

fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return match uri.authority() {
            Some(authority) if authority.port_u16().is_some() => Ok(()),
            _ => Err(refuse(Reason::BadHeader, "CONNECT wants `host:port`")),
        };
    }
    match uri.path_and_query() {
        Some(path) if path.as_str() == "*" && request.method() == Method::OPTIONS => Ok(()),
        Some(path) if path.as_str().starts_with('/') => Ok(()),
        // The absolute form of `OPTIONS *`, and of `/`, may have no path.
        None if uri.scheme().is_some() => Ok(()),
        Some(path) if path.as_str().starts_with('?') && uri.scheme().is_some() => Ok(()),
        _ => Err(refuse(Reason::DownstreamProtocol, "the target is no path")),
    }?;
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(refuse(Reason::DownstreamProtocol, "the target's scheme is not http")),
    }
}

fn check_host<B>(request: &Request<B>) -> Result<Host, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(refuse(Reason::BadHeader, "more than one Host"));
    }
    let is_authority =
        |host: &HeaderValue| Authority::try_from(host.as_bytes()).is_ok_and(|host| is_sound(&host));
    if header.is_some_and(|host| !is_authority(host)) {
        return Err(refuse(Reason::BadHeader, "Host is not `name` or `name:port`"));
    }
    let written = request.uri().authority();
    if written.is_some_and(|authority| !is_sound(authority)) {
        return Err(refuse(Reason::BadHeader, "the target's authority is malformed"));
    }
    let either = written.map(|authority| authority.as_str().as_bytes());
    let either = either.or_else(|| header.map(HeaderValue::as_bytes));
    if either.is_some_and(|authority| authority.contains(&b'@')) {
        return Err(refuse(Reason::BadHeader, "Host names a user"));
    }
    match (written, header) {
        (Some(authority), Some(host))
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err(refuse(Reason::BadHeader, "Host contradicts the target"))
        }
        (Some(authority), _) => HeaderValue::from_str(authority.as_str())
            .map(Host::Named)
            .map_err(|_| refuse(Reason::BadHeader, "the target's authority is malformed")),
        (None, Some(host)) => Ok(Host::Named(host.clone())),
        (None, None) if request.version() == Version::HTTP_10 => Ok(Host::None),
        (None, None) => Err(refuse(Reason::BadHeader, "Host is missing")),
    }
}

/// A name, and after a colon a port: `Authority` takes an empty name and any text for a port, too. A user is told apart
/// by its own check.
fn is_sound(authority: &Authority) -> bool {
    let has_port = authority.as_str().len() > authority.host().len();
    !authority.host().is_empty()
        && (!has_port || authority.port_u16().is_some() || authority.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};

    const VIA_US: HeaderValue = HeaderValue::from_static("1.1 outrigger (a.b)");

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<Empty<bytes::Bytes>> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }

    fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        check(&request(method, uri, headers), &VIA_US).err().map(|refusal| refusal.detail)
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let host = ("host", "a");
        for (method, uri, headers, detail) in [
            ("GET", "/", vec![], "Host is missing"),
            ("GET", "/", vec![host, host], "more than one Host"),
            ("GET", "/", vec![("host", "a b")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", "")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", ":80")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", "a:")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", "a:b")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", "a:65536")], "Host is not `name` or `name:port`"),
            ("GET", "/", vec![("host", "u@a")], "Host names a user"),
            ("GET", "http://b/", vec![host], "Host contradicts the target"),
            ("GET", "http://a:b/", vec![], "the target's authority is malformed"),
            ("GET", "ftp://a/", vec![host], "the target's scheme is not http"),
            ("GET", "*", vec![host], "the target is no path"),
            ("GET", "a", vec![host], "the target is no path"),
            ("CONNECT", "a", vec![host], "CONNECT wants `host:port`"),
            (
                "POST",
                "/",
                vec![host, ("transfer-encoding", "gzip, chunked")],
                "the only Transfer-Encoding is one `chunked`",
            ),
            (
                "POST",
                "/",
                vec![host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                "the only Transfer-Encoding is one `chunked`",
            ),
            (
                "POST",
                "/",
                vec![host, ("content-length", "1"), ("content-length", "1")],
                "Content-Length is not one number",
            ),
            ("POST", "/", vec![host, ("content-length", "+1")], "Content-Length is not one number"),
            ("GET", "/", vec![host, ("expect", "tea")], "only `Expect: 100-continue` is known"),
            (
                "GET",
                "/",
                vec![host, ("via", "1.0 x, 1.1 outrigger (a.b)")],
                "the request has passed this listener before",
            ),
        ] {
            assert_eq!(refused(method, uri, &headers), Some(detail), "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn ordinary_requests_pass() {
        let host = ("host", "a:80");
        for (method, uri, headers) in [
            ("GET", "/x?y", vec![host]),
            ("GET", "http://A:80/x", vec![host]),
            ("GET", "http://a:80?x", vec![host]),
            ("GET", "/", vec![("host", "[::1]:80")]),
            ("OPTIONS", "*", vec![host]),
            ("CONNECT", "a:80", vec![host]),
            ("POST", "/", vec![host, ("transfer-encoding", "Chunked")]),
            ("POST", "/", vec![host, ("content-length", "0"), ("expect", "100-Continue")]),
            ("GET", "/", vec![host, ("via", "1.1 outrigger (a.c), 1.1 outrigger")]),
        ] {
            assert_eq!(refused(method, uri, &headers), None, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn http_1_0_needs_no_host_and_has_no_chunks() {
        let mut old = request("GET", "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check(&old, &VIA_US), Ok(Host::None));
        old.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(check(&old, &VIA_US).is_err());
    }

    #[test]
    fn trace_has_no_body() {
        let request = Request::builder().method("TRACE").uri("/").header("host", "a");
        let request = request.body(Full::new(bytes::Bytes::from("x"))).unwrap();
        assert!(check(&request, &VIA_US).is_err());
    }
}
