//! What is written into a head on its way upstream.
//!
//! Forwarding fields are written as far as the peer is trusted: an inbound peer is not unless it has proved who it is, so what it claims
//! about earlier hops is replaced by what we see. Hop-by-hop fields have ended before (`fields`).

use bytes::Bytes;
use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::base::rng::Rng;
use crate::snapshot::HeaderEdits;

use super::client_cert::CLIENT_CERT;
use super::connection::Downstream;
use super::fields::RequestFields;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields that are added to a request, at most: those below, and the time that it has left.
const ADDED: usize = 9;

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

/// The fields of a request on their way upstream.
///
/// What this hop adds is a list of its own: what came is hardly ever looked into, and to put a name into a map costs several times as
/// much as to write it behind the others.
#[derive(Debug)]
pub(super) struct Outbound<'a> {
    /// What came and goes on.
    pub(super) came: &'a mut HeaderMap,
    /// What is written behind it.
    pub(super) added: &'a mut Vec<(HeaderName, HeaderValue)>,
    /// The route has changed the fields: any may be there.
    pub(super) edited: bool,
}

impl Outbound<'_> {
    /// Removes what came by `name`. `there`: there is such a field.
    fn remove(&mut self, name: &HeaderName, there: bool) {
        if there || self.edited {
            self.came.remove(name);
        }
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.added.push((name, value));
    }

    /// Adds it in place of whatever came. `there`: there is such a field.
    fn replace(&mut self, name: HeaderName, value: HeaderValue, there: bool) {
        self.remove(&name, there);
        self.add(name, value);
    }

    /// Applies a route's edits, which are for all fields alike.
    pub(super) fn edit(&mut self, edits: &HeaderEdits) {
        if edits.is_empty() {
            return;
        }
        self.edited = true;
        for (name, value) in self.added.drain(..) {
            self.came.append(name, value);
        }
        edits.apply(self.came);
    }
}

/// Writes the forwarding fields of a request, its id and `Via`. Returns the id.
pub(super) fn forward(
    head: &mut Outbound<'_>,
    fields: &RequestFields,
    downstream: &Downstream,
    rng: &mut Rng,
) -> HeaderValue {
    head.added.reserve(ADDED);
    head.remove(&EXPECT, fields.expect);
    head.remove(&PROXY_AUTHORIZATION, fields.proxy_authorization);
    if downstream.local.inbound {
        forwarding(head, fields, downstream);
    }
    head.add(VIA, downstream.local.via.clone());
    let kept = fields.request_id.then(|| head.came.get(&REQUEST_ID).cloned()).flatten();
    let single = kept.is_some() && fields.request_ids == 1;
    let id = kept.unwrap_or_else(|| new_id(rng));
    if !single {
        head.replace(REQUEST_ID, id.clone(), fields.request_ids > 0);
    }
    id
}

/// The forwarding fields of an inbound request: those of a caller that has proved who it is are continued, those of others replaced.
fn forwarding(head: &mut Outbound<'_>, fields: &RequestFields, downstream: &Downstream) {
    let (x_forwarded, cert) = (fields.x_forwarded, fields.client_cert);
    let scheme = if downstream.secured.is_some() { "https" } else { "http" };
    if downstream.identity.is_some() {
        append(head, FORWARDED_FOR, downstream.forwarded_for.as_ref(), x_forwarded);
        append(head, CLIENT_CERT, downstream.client_cert.as_ref(), cert);
        let there =
            |head: &Outbound<'_>, name: &HeaderName| x_forwarded && head.came.contains_key(name);
        if let Some(host) = fields.host.as_ref().filter(|_| !there(head, &FORWARDED_HOST)) {
            head.add(FORWARDED_HOST, host.clone());
        }
        if !there(head, &FORWARDED_PROTO) {
            head.add(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        }
        return;
    }
    head.remove(&FORWARDED, fields.forwarded);
    head.remove(&CLIENT_CERT, cert);
    for name in &STEERING {
        head.remove(name, fields.control);
    }
    for name in [&FORWARDED_FOR, &FORWARDED_HOST, &FORWARDED_PROTO] {
        head.remove(name, x_forwarded);
    }
    if let Some(address) = &downstream.forwarded_for {
        head.add(FORWARDED_FOR, address.clone());
    }
    if let Some(host) = &fields.host {
        head.add(FORWARDED_HOST, host.clone());
    }
    head.add(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// Adds `value` behind those that came, in one field: some servers look at one alone.
fn append(head: &mut Outbound<'_>, name: HeaderName, value: Option<&HeaderValue>, there: bool) {
    let Some(value) = value else { return };
    let came: Vec<&[u8]> = if there {
        head.came.get_all(&name).iter().map(HeaderValue::as_bytes).collect()
    } else {
        Vec::new()
    };
    let joined = [came, vec![value.as_bytes()]].concat().join(&b", "[..]);
    head.replace(name, HeaderValue::from_bytes(&joined).unwrap_or_else(|_| value.clone()), there);
}

/// 128 random bits in hexadecimal.
fn new_id(rng: &mut Rng) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for half in text.chunks_exact_mut(16) {
        let bits = rng.bits().to_be_bytes();
        for (pair, byte) in half.chunks_exact_mut(2).zip(bits) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
    }
    let mut id = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"));
    // Tells HTTP/2 not to index it: each is seen once, and would push what repeats out of the table.
    id.set_sensitive(true);
    id
}

/// Brings the fields of a request into the form of HTTP/1.
pub(super) fn for_http1(
    head: &mut Outbound<'_>,
    fields: &RequestFields,
    host: Option<&HeaderValue>,
    written: bool,
    upgrade: Option<&HeaderValue>,
) {
    if !written {
        // HTTP/1.1 wants a Host, an empty one where there is none (RFC 9112 §3.2).
        let host = host.cloned().unwrap_or(HeaderValue::from_static(""));
        head.replace(HOST, host, fields.hosts > 0);
    }
    if let Some(protocol) = upgrade {
        head.replace(CONNECTION, HeaderValue::from_static("upgrade"), false);
        head.replace(UPGRADE, protocol.clone(), false);
    }
}

/// HTTP/2 may send a cookie in pieces; HTTP/1 knows one line only (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
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

/// Says that an HTTP/1 request's body of unknown length comes in chunks.
pub(super) fn frame(headers: &mut HeaderMap) {
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
}

/// Brings the fields of a request into the form of HTTP/2, and its target into the absolute form, from which hyper makes
/// `:scheme` and `:authority`.
pub(super) fn for_http2(
    head: &mut Outbound<'_>,
    fields: &RequestFields,
    target: &Uri,
    host: Option<&HeaderValue>,
    (tls, wants_trailers): (bool, bool),
) -> Uri {
    head.remove(&HOST, fields.hosts > 0);
    if wants_trailers {
        head.replace(TE, HeaderValue::from_static("trailers"), false);
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = target.path_and_query().cloned();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = host
        .and_then(|host| Authority::try_from(host.as_bytes()).ok())
        .or_else(|| Some(Authority::from_static("localhost")));
    Uri::from_parts(parts).unwrap_or_else(|_| target.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_a_seed_repeats_them() {
        let id = new_id(&mut Rng::from_seed(1));
        assert_eq!(id, new_id(&mut Rng::from_seed(1)));
        assert!(id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn pieces_of_a_cookie_become_one() {
        let cookies = |list: &[&'static str]| -> HeaderMap {
            list.iter().map(|value| (COOKIE, HeaderValue::from_static(value))).collect()
        };
        let mut pieces = cookies(&["a=1", "b=3; c=4"]);
        join_cookies(&mut pieces);
        assert_eq!(pieces, cookies(&["a=1; b=3; c=4"]));
        let mut whole = cookies(&["a=1; b=2"]);
        join_cookies(&mut whole);
        assert_eq!(whole, cookies(&["a=1; b=2"]));
    }

    #[test]
    fn http2_names_the_host_in_its_target() {
        let (mut came, mut added) = (HeaderMap::new(), Vec::new());
        came.insert(HOST, HeaderValue::from_static("a"));
        let fields = RequestFields::find(&came, &HeaderValue::from_static("via"));
        let mut head = Outbound { came: &mut came, added: &mut added, edited: false };
        let host = HeaderValue::from_static("articles:80");
        let target = Uri::from_static("/x?y");
        let absolute = for_http2(&mut head, &fields, &target, Some(&host), (false, true));
        assert_eq!(absolute, "http://articles:80/x?y");
        assert!(came.is_empty());
        assert_eq!(added, [(TE, HeaderValue::from_static("trailers"))]);
    }
}
