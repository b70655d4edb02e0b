//! What a request is hashed by, so that equal ones go to the same endpoint.

use std::net::IpAddr;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::balance::Key;
use crate::route::query_value;
use crate::snapshot::{HashBy, HashCookie, Route};
use crate::upstream::Upstream;

use super::connection::{Downstream, Peer};
use super::exchange::Exchange;
use super::headers::FORWARDED_PROTO;

/// The key of a request, where the route has one and `upstream` chooses by it: the first item of `hash` that the request
/// has. A cookie that is absent is made, and set on the way back.
pub(super) fn key(exchange: &mut Exchange, route: &Route, upstream: &Upstream) -> Option<Key> {
    if route.hash.is_empty() || !upstream.balancer.policy().hashes() {
        return None;
    }
    let headers = &exchange.head.headers;
    for by in &route.hash {
        let found = match by {
            HashBy::Header(name) => headers.get(name).map(HeaderValue::as_bytes).and_then(of),
            HashBy::Query(name) => {
                let query = exchange.head.uri.query().unwrap_or_default();
                query_value(query, name, of).flatten()
            }
            HashBy::SourceIp => of_peer(&exchange.downstream.peer),
            HashBy::Cookie(cookie) => match cookie_value(headers, &cookie.name) {
                Some(value) => of(value),
                None => {
                    let bits = {
                        let mut rng = exchange.downstream.worker.rng.borrow_mut();
                        (rng.bits(), rng.bits())
                    };
                    let value = format!("{:016x}{:016x}", bits.0, bits.1);
                    let secure = came_over_tls(headers, &exchange.downstream);
                    exchange.set_cookie = set_cookie(cookie, &value, secure).map(Box::new);
                    of(value.as_bytes())
                }
            },
        };
        if found.is_some() {
            exchange.key = found;
            return found;
        }
    }
    None
}

/// The key of a TCP connection: of what a route may hash, only the address is known.
pub(super) fn of_connection(route: &Route, upstream: &Upstream, peer: &Peer) -> Option<Key> {
    let by_source = route.hash.iter().any(|by| matches!(by, HashBy::SourceIp));
    (by_source && upstream.balancer.policy().hashes()).then(|| of_peer(peer)).flatten()
}

/// Adds the cookie that was made for the request to its answer.
pub(super) fn finish(exchange: &mut Exchange, headers: &mut HeaderMap) {
    if let Some(cookie) = exchange.set_cookie.take() {
        headers.append(SET_COOKIE, *cookie);
    }
}

/// What is empty tells nobody apart.
fn of(value: &[u8]) -> Option<Key> {
    (!value.is_empty()).then(|| Key::of(value))
}

fn of_peer(peer: &Peer) -> Option<Key> {
    match peer {
        Peer::Unix => None,
        Peer::Ip(address) => match address.ip().to_canonical() {
            IpAddr::V4(address) => of(&address.octets()),
            IpAddr::V6(address) => of(&address.octets()),
        },
    }
}

/// The first cookie of that name that has a value.
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(is(b';')));
    let mut values = pairs.filter_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=").filter(|value| !value.is_empty())
    });
    values.next()
}

fn is(byte: u8) -> impl Fn(&u8) -> bool {
    move |other| *other == byte
}

fn set_cookie(cookie: &HashCookie, value: &str, secure: bool) -> Option<HeaderValue> {
    let HashCookie { name, attributes } = cookie;
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{name}={value}{attributes}{secure}")).ok()
}

/// True where a cookie marked `Secure` comes back: whoever will keep it used TLS. Between sidecars TLS says nothing of the browser in
/// front; there the word of a peer that has proved who it is counts.
fn came_over_tls(headers: &HeaderMap, downstream: &Downstream) -> bool {
    let told = downstream.identity.as_ref().and_then(|_| headers.get(&FORWARDED_PROTO));
    match told {
        Some(scheme) => scheme.as_bytes().eq_ignore_ascii_case(b"https"),
        None => downstream.secured.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_field() {
        let mut headers = HeaderMap::new();
        for value in ["a=1; xsid=no;sid=", " sid =no; sid=yes; sid=later", "sid=last"] {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        assert_eq!(cookie_value(&headers, "sid"), Some(&b"yes"[..]));
        assert_eq!(cookie_value(&headers, "si"), None);
        assert_eq!(cookie_value(&HeaderMap::new(), "sid"), None);
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let key = |text: &str| of_peer(&Peer::Ip(text.parse().unwrap()));
        assert_eq!(key("10.0.0.1:80"), key("[::ffff:10.0.0.1]:9"));
        assert_ne!(key("10.0.0.1:80"), key("10.0.0.2:80"));
        assert_eq!(of_peer(&Peer::Unix), None);
    }
}
