//! What changes in a head between one connection and the next.
//!
//! Hop-by-hop fields end here (RFC 9110 §7.6.1), with those that `Connection` names; forwarding fields are written as
//! far as the peer is trusted: an inbound peer is not, so what it claims about earlier hops is replaced by what we see.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::base::rng::Rng;

use super::connection::Downstream;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Control headers that steer or extend: taken only from outbound callers, stripped from others.
const STEERING: [HeaderName; 7] = [
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-outrigger-explain"),
];

/// A longer id is replaced: it would be copied into every log on the way.
const LONGEST_ID: usize = 128;

/// What the hop-by-hop fields of a head said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hop {
    /// `TE: trailers`.
    pub(crate) wants_trailers: bool,
    /// The protocol that `Connection: upgrade` asks for.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Seconds in `Keep-Alive: timeout=`.
    pub(crate) keep_alive: Option<u64>,
}

/// Removes the hop-by-hop fields of a head. One pass over the names finds what there is; ordinary heads have at most
/// `Connection`, and nothing is looked up that is not there.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Hop {
    let mut hop = Hop::default();
    let mut found = [false; 7];
    let names =
        [CONNECTION, TE, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, HTTP2_SETTINGS];
    for (name, value) in &*headers {
        let Some(index) = names.iter().position(|known| known == name) else { continue };
        found[index] = true;
        match index {
            1 => hop.wants_trailers |= has_token(value, b"trailers"),
            2 => hop.upgrade = Some(value.clone()),
            3 => hop.keep_alive = keep_alive_timeout(value),
            _ => {}
        }
    }
    let upgrades = found[0] && strip_named(headers);
    if !upgrades || hop.upgrade.as_ref().is_some_and(|to| has_token(to, b"h2c")) {
        hop.upgrade = None;
    }
    for (name, found) in names.iter().zip(found) {
        if found {
            headers.remove(name);
        }
    }
    hop
}

/// Removes what `Connection` names, but for what frames or addresses the message. True when it names `upgrade`.
fn strip_named(headers: &mut HeaderMap) -> bool {
    let mut upgrades = false;
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") || token.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            if token.eq_ignore_ascii_case(b"upgrade") {
                upgrades = true;
            } else if let Ok(name) = HeaderName::from_bytes(token) {
                named.push(name);
            }
        }
    }
    for name in named {
        if ![HOST, CONTENT_LENGTH, TRAILER].contains(&name) {
            headers.remove(name);
        }
    }
    upgrades
}

fn has_token(value: &HeaderValue, wanted: &[u8]) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|token| {
        let token = token.split(|byte| *byte == b';').next().unwrap_or_default();
        token.trim_ascii().eq_ignore_ascii_case(wanted)
    })
}

fn keep_alive_timeout(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.trim().parse().ok())
}

/// Writes the forwarding fields of a request, its id and `Via`. Returns the id.
pub(crate) fn forward(
    headers: &mut HeaderMap,
    downstream: &Downstream,
    host: Option<&HeaderValue>,
    rng: &mut Rng,
) -> HeaderValue {
    headers.remove(EXPECT);
    headers.remove(PROXY_AUTHORIZATION);
    if downstream.local.inbound {
        headers.remove(FORWARDED);
        for name in &STEERING {
            headers.remove(name);
        }
        set_or_remove(headers, FORWARDED_FOR, downstream.forwarded_for.as_ref());
        set_or_remove(headers, FORWARDED_HOST, host);
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    headers.append(VIA, downstream.local.via.clone());
    match headers.get(REQUEST_ID) {
        Some(id) if is_usable_id(id) => {
            let id = id.clone();
            if headers.get_all(REQUEST_ID).iter().nth(1).is_some() {
                headers.insert(REQUEST_ID, id.clone());
            }
            id
        }
        _ => {
            let id = new_id(rng);
            headers.insert(REQUEST_ID, id.clone());
            id
        }
    }
}

fn set_or_remove(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value.clone()),
        None => headers.remove(name),
    };
}

fn is_usable_id(id: &HeaderValue) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// 128 random bits in hexadecimal.
fn new_id(rng: &mut Rng) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(rng.bits()) << 64) | u128::from(rng.bits());
    let digit = |place: usize| HEX[usize::try_from(bits >> (4 * place) & 15).unwrap_or(0)];
    let text: [u8; 32] = std::array::from_fn(digit);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

/// Puts the head of a request into the form of the protocol that is spoken upstream.
pub(crate) fn address_request(
    parts: &mut http::request::Parts,
    host: Option<&HeaderValue>,
    http2: bool,
    wants_trailers: bool,
    upgrade: Option<&HeaderValue>,
) {
    if http2 {
        parts.headers.remove(HOST);
        parts.uri = absolute(&parts.uri, host);
        parts.version = Version::HTTP_2;
        if wants_trailers {
            parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        return;
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    // HTTP/1.1 wants a Host, an empty one where there is none (RFC 9112 §3.2).
    let host = host.cloned().unwrap_or(HeaderValue::from_static(""));
    parts.headers.insert(HOST, host);
    if let Some(protocol) = upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol.clone());
    }
}

/// HTTP/2 may send a cookie in pieces; HTTP/1 knows one line only (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

/// Says how an HTTP/1 request's body is framed. hyper would leave out one of unknown length where the method is GET or
/// HEAD.
pub(crate) fn frame_request(headers: &mut HeaderMap, has_body: bool) {
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// hyper makes `:scheme` and `:authority` from the absolute form.
fn absolute(uri: &http::Uri, host: Option<&HeaderValue>) -> http::Uri {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = host
        .and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok())
        .or_else(|| Some(http::uri::Authority::from_static("localhost")));
    http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// Removes from a response what ends at this hop.
pub(crate) fn strip_response(headers: &mut HeaderMap) -> Hop {
    let hop = strip_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    hop
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_names_are_removed() {
        let mut head = headers(&[
            ("connection", "X-Private, keep-alive, content-length, host"),
            ("x-private", "1"),
            ("keep-alive", "timeout=7, max=3"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip;q=1, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "3"),
            ("host", "a"),
            ("x-kept", "1"),
        ]);
        let hop = strip_hop_by_hop(&mut head);
        assert_eq!(hop, Hop { wants_trailers: true, upgrade: None, keep_alive: Some(7) });
        assert_eq!(head, headers(&[("content-length", "3"), ("host", "a"), ("x-kept", "1")]));
    }

    #[test]
    fn an_upgrade_is_known_only_with_connection_and_never_to_h2c() {
        let upgrade = |to| {
            let mut head = headers(&[("connection", "Upgrade"), ("upgrade", to)]);
            strip_hop_by_hop(&mut head).upgrade
        };
        assert_eq!(upgrade("websocket"), Some(HeaderValue::from_static("websocket")));
        assert_eq!(upgrade("h2c"), None);
        assert_eq!(strip_hop_by_hop(&mut headers(&[("upgrade", "websocket")])).upgrade, None);
    }

    #[test]
    fn pieces_of_a_cookie_become_one() {
        let mut head = headers(&[("cookie", "a=1"), ("x", "2"), ("cookie", "b=3; c=4")]);
        join_cookies(&mut head);
        assert_eq!(head, headers(&[("cookie", "a=1; b=3; c=4"), ("x", "2")]));
        let mut whole = headers(&[("cookie", "a=1; b=2")]);
        join_cookies(&mut whole);
        assert_eq!(whole, headers(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn ids_are_32_hex_digits_and_a_seed_repeats_them() {
        let id = new_id(&mut Rng::from_seed(1));
        assert_eq!(id, new_id(&mut Rng::from_seed(1)));
        assert!(id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit));
        assert!(is_usable_id(&id) && !is_usable_id(&HeaderValue::from_static("a b")));
    }
}
