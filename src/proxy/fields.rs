//! What stands in a head, found in one pass over its fields.
//!
//! A lookup in a header map hashes the name; the request path would make forty of them for fields that are hardly ever
//! there. One pass that compares names by their length and bytes replaces them all: what it has not found is neither
//! looked up nor removed.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::classify::is_grpc_type;
use crate::policy::deadline::is_event_stream;

/// A longer request id is replaced: it would be copied into every log on the way.
const LONGEST_ID: usize = 128;

/// The fields that end at this hop, by the place of their bit (RFC 9110 §7.6.1).
const HOP: [HeaderName; 7] = [
    http::header::CONNECTION,
    http::header::TE,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TRANSFER_ENCODING,
    HeaderName::from_static("http2-settings"),
];
const CONNECTION: usize = 0;
const TE: usize = 1;
const UPGRADE: usize = 2;
const KEEP_ALIVE: usize = 3;
const PROXY_CONNECTION: usize = 4;
const TRANSFER_ENCODING: usize = 5;
const HTTP2_SETTINGS: usize = 6;

/// Hop-by-hop fields of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hop(u8);

impl Hop {
    fn note(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Takes `ours` out of what `Connection` names: a caller must not have removed what was set for him.
    pub(super) fn keep(self, headers: &mut HeaderMap, ours: &[HeaderName]) {
        let named = |token: &[u8]| {
            ours.iter().any(|name| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        if !self.has(CONNECTION)
            || !headers.get_all(&HOP[CONNECTION]).iter().flat_map(tokens).any(named)
        {
            return;
        }
        let left: Vec<&[u8]> = headers
            .get_all(&HOP[CONNECTION])
            .iter()
            .flat_map(tokens)
            .filter(|token| !named(token))
            .collect();
        let left = HeaderValue::from_bytes(&left.join(&b", "[..]));
        // Parts of a value, joined, are a value.
        headers.insert(&HOP[CONNECTION], left.unwrap_or(HeaderValue::from_static("close")));
    }

    /// Removes them, and what `Connection` names. The protocol of a `Connection: upgrade`, where there is one.
    pub(super) fn strip(self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        if self.0 == 0 {
            return None;
        }
        let mut upgrade = headers.get(&HOP[UPGRADE]).filter(|_| self.has(UPGRADE)).cloned();
        let upgrades = self.has(CONNECTION) && strip_named(headers);
        // HTTP/2 is told by its first bytes or by ALPN; an upgrade to it has been a way to smuggle.
        if !upgrades || upgrade.as_ref().is_some_and(|to| has_token(to, b"h2c")) {
            upgrade = None;
        }
        for (place, name) in HOP.iter().enumerate() {
            if self.has(place) {
                headers.remove(name);
            }
        }
        upgrade
    }
}

/// Removes what `Connection` names, but for what frames or addresses the message. True when it names `upgrade`.
fn strip_named(headers: &mut HeaderMap) -> bool {
    let mut upgrades = false;
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(&HOP[CONNECTION]) {
        for token in tokens(value) {
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
        if !matches!(name.as_str(), "host" | "content-length" | "trailer") {
            headers.remove(name);
        }
    }
    upgrades
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &HeaderValue, wanted: &[u8]) -> bool {
    tokens(value).any(|token| {
        let token = token.split(|byte| *byte == b';').next().unwrap_or_default();
        token.trim_ascii().eq_ignore_ascii_case(wanted)
    })
}

/// What a request's head has.
#[derive(Debug, Default)]
pub(super) struct RequestFields {
    /// Ends at this hop.
    pub(super) hop: Hop,
    /// `TE: trailers`.
    pub(super) wants_trailers: bool,
    /// The first `Host`, and how many there are. Once the head was checked: whom it is for, wherever that was written.
    pub(super) host: Option<HeaderValue>,
    pub(super) hosts: u32,
    /// `Transfer-Encoding`s, and whether one of them is other than `chunked`.
    pub(super) codings: u32,
    pub(super) unknown_coding: bool,
    /// `Content-Length`s, and whether one of them is no number.
    pub(super) lengths: u32,
    pub(super) malformed_length: bool,
    /// `Expect`, and whether it is other than `100-continue`.
    pub(super) expect: bool,
    pub(super) unknown_expectation: bool,
    /// `Via` has this listener.
    pub(super) looped: bool,
    /// A gRPC call.
    pub(super) grpc: bool,
    /// `Idempotency-Key`.
    pub(super) idempotency_key: bool,
    /// A deadline of the caller's, in any of the forms that `policy::deadline` knows.
    pub(super) deadline: bool,
    /// Some `x-envoy-` or `x-outrigger-` field.
    pub(super) control: bool,
    /// `Forwarded`, and some of `X-Forwarded-For`, `-Host` and `-Proto`.
    pub(super) forwarded: bool,
    pub(super) x_forwarded: bool,
    /// `X-Forwarded-Client-Cert`.
    pub(super) client_cert: bool,
    /// `Proxy-Authorization`.
    pub(super) proxy_authorization: bool,
    /// The first `x-request-id` may be kept, and how many there are.
    pub(super) request_id: bool,
    pub(super) request_ids: u32,
    /// `Cookie`s.
    pub(super) cookies: u32,
    /// `Trailer`.
    pub(super) trailer: bool,
}

impl RequestFields {
    /// Looks at every field once. `via` is what this listener adds to `Via`.
    pub(super) fn find(headers: &HeaderMap, via: &HeaderValue) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            found.note(name.as_str(), value, via);
        }
        found
    }

    fn note(&mut self, name: &str, value: &HeaderValue, via: &HeaderValue) {
        match name {
            "host" => {
                self.hosts += 1;
                if self.host.is_none() {
                    self.host = Some(value.clone());
                }
            }
            "transfer-encoding" => {
                self.hop.note(TRANSFER_ENCODING);
                self.codings += 1;
                self.unknown_coding |= !value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            "content-length" => {
                self.lengths += 1;
                let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
                self.malformed_length |= !digits || value.is_empty();
            }
            "connection" => self.hop.note(CONNECTION),
            "te" => {
                self.hop.note(TE);
                self.wants_trailers |= has_token(value, b"trailers");
            }
            "upgrade" => self.hop.note(UPGRADE),
            "keep-alive" => self.hop.note(KEEP_ALIVE),
            "proxy-connection" => self.hop.note(PROXY_CONNECTION),
            "http2-settings" => self.hop.note(HTTP2_SETTINGS),
            "expect" => {
                self.expect = true;
                let known = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                self.unknown_expectation |= !known;
            }
            "via" => self.looped |= tokens(value).any(|hop| hop == via.as_bytes()),
            "content-type" => self.grpc = is_grpc_type(value),
            "idempotency-key" => self.idempotency_key = true,
            "grpc-timeout" => self.deadline = true,
            "forwarded" => self.forwarded = true,
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => self.x_forwarded = true,
            "x-forwarded-client-cert" => self.client_cert = true,
            "proxy-authorization" => self.proxy_authorization = true,
            "x-request-id" => {
                self.request_ids += 1;
                if self.request_ids == 1 {
                    self.request_id = is_usable_id(value);
                }
            }
            "cookie" => self.cookies += 1,
            "trailer" => self.trailer = true,
            _ if name.starts_with("x-envoy-") || name.starts_with("x-outrigger-") => {
                self.control = true;
                self.deadline = true;
            }
            _ => {}
        }
    }
}

/// What a response's head has.
#[derive(Debug, Default)]
pub(super) struct ResponseFields {
    /// Ends at this hop.
    pub(super) hop: Hop,
    /// Seconds in `Keep-Alive: timeout=`.
    pub(super) keep_alive: Option<u64>,
    /// `Trailer`.
    pub(super) trailer: bool,
    /// `Proxy-Authenticate`.
    pub(super) proxy_authenticate: bool,
    /// An event stream.
    pub(super) events: bool,
}

impl ResponseFields {
    /// Looks at every field once.
    pub(super) fn find(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "connection" => found.hop.note(CONNECTION),
                "te" => found.hop.note(TE),
                "upgrade" => found.hop.note(UPGRADE),
                "keep-alive" => {
                    found.hop.note(KEEP_ALIVE);
                    found.keep_alive = keep_alive_timeout(value);
                }
                "proxy-connection" => found.hop.note(PROXY_CONNECTION),
                "transfer-encoding" => found.hop.note(TRANSFER_ENCODING),
                "content-type" => found.events = is_event_stream(value),
                "trailer" => found.trailer = true,
                "proxy-authenticate" => found.proxy_authenticate = true,
                _ => {}
            }
        }
        found
    }
}

fn keep_alive_timeout(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.trim().parse().ok())
}

fn is_usable_id(id: &HeaderValue) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn find(headers: &HeaderMap) -> RequestFields {
        RequestFields::find(headers, &HeaderValue::from_static("1.1 outrigger (a.b)"))
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
        let found = find(&head);
        assert!(found.wants_trailers);
        assert_eq!(ResponseFields::find(&head).keep_alive, Some(7));
        assert_eq!(found.hop.strip(&mut head), None);
        assert_eq!(head, headers(&[("content-length", "3"), ("host", "a"), ("x-kept", "1")]));
    }

    #[test]
    fn a_caller_cannot_have_removed_what_is_ours() {
        let mut head = headers(&[
            ("connection", "keep-alive, X-User"),
            ("connection", "x-b"),
            ("x-user", "1"),
            ("x-b", "2"),
        ]);
        let found = find(&head);
        found.hop.keep(&mut head, &[HeaderName::from_static("x-user")]);
        assert_eq!(found.hop.strip(&mut head), None);
        assert_eq!(head, headers(&[("x-user", "1")]));
    }

    #[test]
    fn an_upgrade_is_known_only_with_connection_and_never_to_h2c() {
        let upgrade = |list| {
            let mut head = headers(list);
            find(&head).hop.strip(&mut head)
        };
        let websocket = Some(HeaderValue::from_static("websocket"));
        assert_eq!(upgrade(&[("connection", "Upgrade"), ("upgrade", "websocket")]), websocket);
        assert_eq!(upgrade(&[("connection", "Upgrade"), ("upgrade", "h2c")]), None);
        assert_eq!(upgrade(&[("upgrade", "websocket")]), None);
    }

    #[test]
    fn everything_is_found_in_one_pass() {
        let found = find(&headers(&[
            ("host", "a"),
            ("host", "b"),
            ("content-length", "1"),
            ("content-length", "+1"),
            ("via", "1.0 x, 1.1 outrigger (a.b)"),
            ("content-type", "application/grpc+proto"),
            ("expect", "tea"),
            ("x-outrigger-timeout-ms", "5"),
            ("x-request-id", "not usable"),
        ]));
        assert_eq!((found.hosts, found.lengths, found.codings), (2, 2, 0));
        assert_eq!(found.host, Some(HeaderValue::from_static("a")));
        assert!(found.malformed_length && found.looped && found.grpc && found.deadline);
        assert!(found.control && found.unknown_expectation && !found.request_id);
    }
}
