//! What is written into a head on its way upstream.
//!
//! Forwarding fields are written as far as the peer is trusted: an inbound peer is not, so what it claims about earlier
//! hops is replaced by what we see. Hop-by-hop fields have ended before (`fields`).

use http::header::{CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHORIZATION, TE, UPGRADE, VIA};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::base::rng::Rng;

use super::connection::Downstream;
use super::fields::RequestFields;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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

/// Writes the forwarding fields of a request, its id and `Via`. Returns the id.
pub(super) fn forward(
    headers: &mut HeaderMap,
    fields: &mut RequestFields,
    downstream: &Downstream,
    host: Option<&HeaderValue>,
    rng: &mut Rng,
) -> HeaderValue {
    // As many as are added below: the map grows once.
    headers.reserve(6);
    if fields.expect {
        headers.remove(EXPECT);
    }
    if fields.proxy_authorization {
        headers.remove(PROXY_AUTHORIZATION);
    }
    if downstream.local.inbound {
        if fields.forwarded {
            headers.remove(FORWARDED);
        }
        if fields.control {
            for name in &STEERING {
                headers.remove(name);
            }
        }
        set_or_remove(headers, FORWARDED_FOR, downstream.forwarded_for.as_ref());
        set_or_remove(headers, FORWARDED_HOST, host);
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    headers.append(VIA, downstream.local.via.clone());
    fields.request_id.take().unwrap_or_else(|| {
        let id = new_id(rng);
        headers.insert(REQUEST_ID, id.clone());
        id
    })
}

fn set_or_remove(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value.clone()),
        None => headers.remove(name),
    };
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
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

/// Brings the fields of a request into the form of HTTP/1.
pub(super) fn for_http1(
    headers: &mut HeaderMap,
    host: Option<&HeaderValue>,
    written: bool,
    upgrade: Option<&HeaderValue>,
) {
    if let Some(host) = host
        && !written
    {
        headers.insert(HOST, host.clone());
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// Brings the fields of a request into the form of HTTP/2, and its target into the absolute form, from which hyper makes
/// `:scheme` and `:authority`.
pub(super) fn for_http2(
    headers: &mut HeaderMap,
    target: &Uri,
    host: Option<&HeaderValue>,
    wants_trailers: bool,
) -> Uri {
    headers.remove(HOST);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = target.path_and_query().cloned();
    parts.scheme = Some(Scheme::HTTP);
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
    fn http2_names_the_host_in_its_target() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a"));
        let host = HeaderValue::from_static("articles:80");
        let target = Uri::from_static("/x?y");
        let absolute = for_http2(&mut headers, &target, Some(&host), true);
        assert_eq!(absolute, "http://articles:80/x?y");
        assert_eq!((headers.get(HOST), headers.get(TE).is_some()), (None, true));
    }
}
