//! Who may see and change what is not for everybody.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::text;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    Ip(SocketAddr),
    Unix,
}

/// Why somebody may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not on this machine, and there is no token that could be shown.
    Remote,
    /// A page in a browser on this machine.
    Browser,
    /// No token, or a wrong one.
    Token,
    /// The file of the token cannot be read.
    TokenFile,
}

impl Refusal {
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let (status, why) = match self {
            Self::Remote => (
                StatusCode::FORBIDDEN,
                "only peers on this machine may ask this: set admin.token_file to allow others\n",
            ),
            Self::Browser => (
                StatusCode::FORBIDDEN,
                "a page of another site may not ask this: call it by its address, or set admin.token_file\n",
            ),
            Self::Token => (StatusCode::UNAUTHORIZED, "a bearer token is wanted\n"),
            Self::TokenFile => {
                (StatusCode::INTERNAL_SERVER_ERROR, "admin.token_file cannot be read\n")
            }
        };
        let mut response = text(status, why);
        if self == Self::Token {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Lets in peers on this machine, or whoever has the token where one is set.
///
/// Without a token, a peer on this machine may be a browser that shows a page from elsewhere: that page's requests come
/// with an `Origin`, or, where its site's name was pointed at this machine (DNS rebinding), with that name as `Host`.
/// Neither is let in.
///
/// # Errors
/// [`Refusal`].
pub(super) fn authorise(
    peer: Peer,
    token_file: Option<&Path>,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let Some(path) = token_file else {
        return match peer {
            Peer::Ip(address) if !address.ip().to_canonical().is_loopback() => Err(Refusal::Remote),
            Peer::Ip(_) if !from_here(headers) => Err(Refusal::Browser),
            Peer::Ip(_) | Peer::Unix => Ok(()),
        };
    };
    // Read each time: a rotated token counts at once, and none is kept in memory.
    let token = std::fs::read_to_string(path).map_err(|_| Refusal::TokenFile)?;
    let token = Zeroizing::new(token);
    let token = token.trim().as_bytes();
    let given = headers.get(AUTHORIZATION).and_then(bearer);
    if !token.is_empty() && given.is_some_and(|given| equal(given, token)) {
        Ok(())
    } else {
        Err(Refusal::Token)
    }
}

/// True where no page of another site can have sent it: an address or a name without a dot, as no public site has, was
/// asked, by nobody or by its own page.
fn from_here(headers: &HeaderMap) -> bool {
    // HTTP/1.0 needs no Host, and no browser leaves it out.
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let own = |origin: &HeaderValue| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| Some(origin) == host)
    };
    host.is_none_or(is_near) && headers.get(ORIGIN).is_none_or(own)
}

fn is_near(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    !host.contains(['.', ':']) || bare.parse::<IpAddr>().is_ok()
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Compares in a time that depends on the lengths alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(peer: [u8; 4], fields: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        authorise(Peer::Ip(SocketAddr::from((peer, 1))), None, &headers)
    }

    #[test]
    fn only_this_machine_is_let_in() {
        assert_eq!(asked([127, 0, 0, 1], &[("host", "127.0.0.1:9901")]), Ok(()));
        assert_eq!(asked([127, 0, 0, 1], &[("host", "localhost:9901")]), Ok(()));
        assert_eq!(asked([127, 0, 0, 1], &[("host", "[::1]:9901")]), Ok(()));
        assert_eq!(asked([127, 0, 0, 1], &[("host", "sidecar:9901")]), Ok(()));
        assert_eq!(asked([127, 0, 0, 1], &[]), Ok(()));
        assert_eq!(asked([10, 0, 0, 1], &[("host", "127.0.0.1")]), Err(Refusal::Remote));
    }

    #[test]
    fn a_name_that_was_pointed_here_is_not_let_in() {
        for host in
            ["evil.test", "evil.test:9901", "localhost.evil.test", "127.0.0.1.evil.test", ""]
        {
            assert_eq!(asked([127, 0, 0, 1], &[("host", host)]), Err(Refusal::Browser), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_not_let_in() {
        let host = ("host", "127.0.0.1:9901");
        for origin in ["http://evil.test", "null", "https://127.0.0.1:9901", "http://127.0.0.1:80"]
        {
            let asked = asked([127, 0, 0, 1], &[host, ("origin", origin)]);
            assert_eq!(asked, Err(Refusal::Browser), "{origin}");
        }
        assert_eq!(asked([127, 0, 0, 1], &[host, ("origin", "http://127.0.0.1:9901")]), Ok(()));
    }

    #[test]
    fn damaged_hosts_and_tokens_are_judged_without_harm() {
        let mut rng = crate::base::rng::Rng::from_seed(37);
        for _ in 0..20_000 {
            let host = rng.damaged(b"[::1]:9900", b".:[]@%a0");
            // What is near has no dot, or is an address.
            let name =
                host.iter().all(|byte| byte.is_ascii_alphanumeric() || b".:-".contains(byte));
            let public = host.iter().any(u8::is_ascii_alphabetic) && host.contains(&b'.');
            assert!(!(is_near(&host) && name && public && !host.contains(&b':')), "{host:?}");
            let token = rng.damaged(b"Bearer secret", b" \tbB");
            if let Ok(value) = HeaderValue::from_bytes(&token) {
                assert!(bearer(&value).is_none_or(|found| found.len() + 7 <= token.len()));
            }
        }
    }
}
