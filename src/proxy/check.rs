//! What a request must not be: anything that two parsers could read differently.
//!
//! What is not HTTP at all was refused where it was read (`io/http1/request.rs`, hyper for HTTP/2; see `docs/SECURITY.md`); here stands
//! what HTTP allows. Whatever passes is written anew in one form, so no ambiguity of ours reaches an upstream.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Version};

use crate::base::error::Reason;

use super::fields::RequestFields;

/// Why a request is refused, for the log and the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: &'static str,
}

const fn refuse(reason: Reason, detail: &'static str) -> Refusal {
    Refusal { reason, detail }
}

/// Well-formed, but not to be met: answered on HTTP/2, too.
pub(super) const EXPECTATION: &str = "only `Expect: 100-continue` is known";

/// Checks a request's head. `bodiless`: no body follows it.
///
/// Returns the authority that the request is for, as it was written; only HTTP/1.0 may do without.
///
/// # Errors
/// The first reason to refuse it.
pub(super) fn check(
    head: &Parts,
    fields: &RequestFields,
    bodiless: bool,
) -> Result<Option<HeaderValue>, Refusal> {
    check_framing(head, fields, bodiless)?;
    check_target(head)?;
    if fields.unknown_expectation {
        return Err(refuse(Reason::BadHeader, EXPECTATION));
    }
    if fields.looped {
        return Err(refuse(Reason::Loop, "the request has passed this listener before"));
    }
    check_host(head, fields)
}

fn check_framing(head: &Parts, fields: &RequestFields, bodiless: bool) -> Result<(), Refusal> {
    if fields.codings > 0 && head.version == Version::HTTP_10 {
        return Err(refuse(Reason::BadHeader, "HTTP/1.0 has no Transfer-Encoding"));
    }
    if fields.codings > 1 || fields.unknown_coding {
        return Err(refuse(Reason::BadHeader, "the only Transfer-Encoding is one `chunked`"));
    }
    if fields.lengths > 1 || fields.malformed_length {
        return Err(refuse(Reason::BadHeader, "Content-Length is not one number"));
    }
    let wants_none = matches!(head.method, Method::TRACE | Method::CONNECT);
    if wants_none && !bodiless && head.version != Version::HTTP_2 {
        return Err(refuse(Reason::BadHeader, "TRACE and CONNECT have no body"));
    }
    Ok(())
}

fn check_target(head: &Parts) -> Result<(), Refusal> {
    let uri = &head.uri;
    if head.method == Method::CONNECT {
        return match uri.authority() {
            Some(authority) if authority.port_u16().is_some() => Ok(()),
            _ => Err(refuse(Reason::BadHeader, "CONNECT wants `host:port`")),
        };
    }
    match uri.path_and_query() {
        Some(path) if path.as_str() == "*" && head.method == Method::OPTIONS => Ok(()),
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

fn check_host(head: &Parts, fields: &RequestFields) -> Result<Option<HeaderValue>, Refusal> {
    if fields.hosts > 1 {
        return Err(refuse(Reason::BadHeader, "more than one Host"));
    }
    let header = fields.host.as_ref();
    if header.is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(refuse(Reason::BadHeader, "Host is not `name` or `name:port`"));
    }
    let written = head.uri.authority().map(Authority::as_str);
    if written.is_some_and(|authority| !is_authority(authority.as_bytes())) {
        return Err(refuse(Reason::BadHeader, "the target's authority is malformed"));
    }
    match (written, header) {
        (Some(authority), Some(host))
            if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err(refuse(Reason::BadHeader, "Host contradicts the target"))
        }
        (Some(authority), _) => HeaderValue::from_str(authority)
            .map(Some)
            .map_err(|_| refuse(Reason::BadHeader, "the target's authority is malformed")),
        (None, Some(host)) => Ok(Some(host.clone())),
        (None, None) if head.version == Version::HTTP_10 => Ok(None),
        (None, None) => Err(refuse(Reason::BadHeader, "Host is missing")),
    }
}

/// True for `name`, `name:port` and `[v6]:port`, without user information. `Authority` takes an empty name and any text
/// for a port, too. A plain name is told without the parser.
fn is_authority(host: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let name = host.iter().take_while(|byte| plain(byte)).count();
    match &host[name..] {
        [] => name > 0,
        [b':', port @ ..] => name > 0 && is_port(port),
        // A bracketed IPv6 address is the only other form: names with other characters are lists and worse.
        [b'[', ..] if name == 0 => {
            Authority::try_from(host).is_ok_and(|authority| is_sound(&authority))
        }
        _ => false,
    }
}

/// 0 to 65535 in digits.
fn is_port(port: &[u8]) -> bool {
    let value = port.iter().try_fold(0_u32, |value, digit| {
        (digit.is_ascii_digit() && value < 65_536).then(|| value * 10 + u32::from(digit - b'0'))
    });
    !port.is_empty() && value.is_some_and(|value| value < 65_536)
}

fn is_sound(authority: &Authority) -> bool {
    let (whole, host) = (authority.as_str(), authority.host());
    let port = whole.get(host.len()..).unwrap_or_default();
    !host.is_empty()
        && whole.starts_with(host)
        && (port.is_empty() || port.strip_prefix(':').is_some_and(|port| is_port(port.as_bytes())))
}

/// What holds of any head that is one, here as `METHOD target` and lines of fields: what passes names one host, in a form that
/// cannot be taken for two.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(bytes: &[u8]) -> bool {
    let Some(request) = request_of(bytes) else { return false };
    let (mut head, ()) = request.into_parts();
    let via = HeaderValue::from_static("1.1 outrigger (a.b)");
    let fields = RequestFields::find(&head.headers, &via);
    let Ok(host) = check(&head, &fields, false) else { return false };
    let sound = |host: &HeaderValue| !host.as_bytes().iter().any(|byte| b"@, \t/?#".contains(byte));
    assert!(host.as_ref().is_none_or(sound), "{host:?}");
    assert!(host.is_some() || head.version == Version::HTTP_10);
    assert!(head.headers.get_all("content-length").iter().count() <= 1);
    let _upgrade = fields.hop.strip(&mut head.headers);
    assert!(
        !head.headers.contains_key("connection") && !head.headers.contains_key("transfer-encoding")
    );
    true
}

#[cfg(any(test, feature = "fuzzing"))]
fn request_of(bytes: &[u8]) -> Option<http::Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = http::Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn checked(head: &Parts, bodiless: bool) -> Result<Option<HeaderValue>, Refusal> {
        let via = HeaderValue::from_static("1.1 outrigger (a.b)");
        check(head, &RequestFields::find(&head.headers, &via), bodiless)
    }

    fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        checked(&head(method, uri, headers), true).err().map(|refusal| refusal.detail)
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
            ("GET", "/", vec![("host", "u@a")], "Host is not `name` or `name:port`"),
            ("GET", "http://u@a/", vec![host], "the target's authority is malformed"),
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
        let mut old = head("GET", "/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(checked(&old, true), Ok(None));
        let chunked = HeaderValue::from_static("chunked");
        old.headers.insert(http::header::TRANSFER_ENCODING, chunked);
        assert!(checked(&old, true).is_err());
    }

    #[test]
    fn trace_has_no_body() {
        let trace = head("TRACE", "/", &[("host", "a")]);
        assert!(checked(&trace, true).is_ok() && checked(&trace, false).is_err());
    }

    #[test]
    fn whatever_passes_has_one_host_and_one_length() {
        let mut rng = crate::base::rng::Rng::from_seed(31);
        let heads = [
            "GET /a?b=c\nhost: a.b:80\nconnection: x, close\nx: y\nte: trailers",
            "POST http://[::1]:8080/\ncontent-length: 12\nhost: [::1]:8080",
            "PUT /\nhost: a\ntransfer-encoding: chunked\ncookie: a=b; c=d\nvia: 1.1 x, 1.0 y",
            "OPTIONS *\nhost: a_b\nexpect: 100-continue\nkeep-alive: timeout=5",
        ];
        let mut passed = 0;
        for _ in 0..20_000 {
            let head = heads[rng.below(4)];
            passed += usize::from(hostile(&rng.damaged(head.as_bytes(), b"\n: ,;[]@%/?#09")));
        }
        assert!(passed > 1_000, "{passed} passed");
    }
}
