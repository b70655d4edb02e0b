//! What follows from a caller's certificate: what it may do, what the application hears of it, what it is limited by.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use support::{Proxy, Upstream};
use tls::{Authority, curl, open};
use traffic::Setup;

const CART: &str = "spiffe://blog/ns/web/sa/cart";

/// A listener that asks for certificates, with more keys.
fn start(ca: &Authority, upstream: &Upstream, more: &str, route: &str) -> Proxy {
    let own = ca.issue("server", &["localhost", "spiffe://blog/ns/orders/sa/app"]);
    let keys = format!(
        "direction: inbound, tls: {{ client_cert: optional, {}, ca: {} }}{more}",
        own.yaml(),
        ca.ca().display()
    );
    Proxy::start(&Setup::new(&[upstream.address]).listener(&keys).route(route).yaml())
}

fn caller(ca: &Authority, file: &str, names: &[&str]) -> Arc<ClientConfig> {
    Arc::new(ca.client(Some(&ca.issue(file, names))))
}

/// The status of a GET with more header lines, each with its line end.
fn status(to: SocketAddr, who: &Arc<ClientConfig>, path: &str, fields: &str) -> String {
    let mut stream = open(to, who, "localhost");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

/// The one field of that name in a request.
fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let mut found = request.lines().filter_map(|line| {
        let (known, value) = line.split_once(": ")?;
        known.eq_ignore_ascii_case(name).then_some(value)
    });
    let first = found.next();
    assert_eq!(found.next(), None, "{name} twice in {request}");
    first
}

#[test]
fn rules_are_for_identities_that_are_proved() {
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let rules = ", authorize: { deny: [{ from: \"spiffe://blog/ns/web/sa/old\" }, { path: \"/admin/*\" }], allow: [{ from: [\"spiffe://blog/ns/web/*\", \"*.jobs.blog\"] }] }";
    let proxy = start(&ca, &upstream, rules, "name: r");
    let to = proxy.address("outbound");
    for (file, names, want) in [
        ("cart", &[CART][..], "200"),
        ("old", &["spiffe://blog/ns/web/sa/old"], "403"),
        ("jobs", &["spiffe://blog/ns/jobs/sa/a"], "403"),
        ("half", &["spiffe://blog/ns/web-2/sa/cart"], "403"),
        ("other", &["spiffe://other/ns/web/sa/cart"], "403"),
        ("two", &[CART, "spiffe://blog/ns/jobs/sa/a"], "403"),
        ("dns", &["a.jobs.blog"], "200"),
        ("above", &["jobs.blog"], "403"),
    ] {
        assert_eq!(status(to, &caller(&ca, file, names), "/", ""), want, "{names:?}");
    }
    assert_eq!(status(to, &caller(&ca, "cart", &[CART]), "/x/../admin/y", ""), "403");
    let nobody = Arc::new(ca.client(None));
    let claim = format!("X-Forwarded-Client-Cert: URI={CART}\r\n");
    assert_eq!(status(to, &nobody, "/", &claim), "403");
    let line = proxy.access_line(|line| line["identity"] == "spiffe://blog/ns/web/sa/old");
    assert_eq!((&line["denied_by"], &line["reason"]), (&"deny[0]".into(), &"denied".into()));
    let line = proxy.access_line(|line| line["identity"] == CART && line["status"] == 403);
    assert_eq!(line["denied_by"], "deny[1]");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn curl_is_let_in_with_the_right_certificate() {
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let rules = ", authorize: [{ from: \"spiffe://blog/ns/web/*\" }]";
    let proxy = start(&ca, &upstream, rules, "name: r");
    let to = proxy.address("outbound");
    for (file, name, want) in
        [("cart", CART, "200 "), ("jobs", "spiffe://blog/ns/jobs/sa/a", "403 ")]
    {
        let own = ca.issue(file, &[name]);
        let (cert, key) = (own.cert.to_str().unwrap(), own.key.to_str().unwrap());
        let Some(said) = curl(to, &ca.ca(), "/", &["--cert", cert, "--key", key]) else { return };
        assert!(said.contains(want), "{said}");
    }
}

#[test]
fn the_application_hears_who_calls_and_nothing_that_is_made_up() {
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let proxy = start(&ca, &upstream, "", "name: r");
    let to = proxy.address("outbound");
    let claims = "X-Forwarded-Client-Cert: Hash=00;URI=spiffe://blog/ns/a\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: gopher\r\nForwarded: for=x\r\nX-Envoy-Max-Retries: 9\r\n";
    assert_eq!(status(to, &Arc::new(ca.client(None)), "/", claims), "200");
    let sent = upstream.requests().pop().unwrap();
    for (name, want) in [
        ("x-forwarded-client-cert", None),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("forwarded", None),
        ("x-envoy-max-retries", None),
    ] {
        assert_eq!(field(&sent, name), want, "{sent}");
    }
    // Who has proved who it is may say whom it speaks for; its own element stands last.
    let cart = caller(&ca, "cart", &[CART, "cart.web"]);
    assert_eq!(status(to, &cart, "/", claims), "200");
    let sent = upstream.requests().pop().unwrap();
    for (name, want) in [
        ("x-forwarded-for", "10.9.9.9, 127.0.0.1"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "for=x"),
        ("x-envoy-max-retries", "9"),
    ] {
        assert_eq!(field(&sent, name), Some(want), "{sent}");
    }
    let elements = field(&sent, "x-forwarded-client-cert").unwrap();
    let (theirs, ours) = elements.split_once(", ").unwrap();
    assert_eq!(theirs, "Hash=00;URI=spiffe://blog/ns/a");
    // Envoy's order: whose certificate it was shown, then its own.
    let (by, rest) = ours.split_once(';').unwrap();
    assert_eq!(by, "By=spiffe://blog/ns/orders/sa/app");
    let (hash, names) = rest.strip_prefix("Hash=").unwrap().split_once(';').unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(names, format!("URI={CART};DNS=cart.web"));
    assert_eq!(status(to, &cart, "/", ""), "200");
    let alone = upstream.requests().pop().unwrap();
    assert_eq!(field(&alone, "x-forwarded-client-cert"), Some(ours));
    assert_eq!(field(&alone, "x-forwarded-proto"), Some("https"));
}

#[test]
fn each_identity_has_a_limit_of_its_own() {
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let limit = "name: r, rate_limit: { rate: 1/h, burst: 2, by: identity }";
    let proxy = start(&ca, &upstream, "", limit);
    let to = proxy.address("outbound");
    let cart = caller(&ca, "cart", &[CART]);
    let renewed = caller(&ca, "renewed", &[CART]);
    let jobs = caller(&ca, "jobs", &["spiffe://blog/ns/jobs/sa/a"]);
    let nobody = Arc::new(ca.client(None));
    for (who, want) in [
        (&cart, "200"),
        (&renewed, "200"),
        (&cart, "429"),
        (&renewed, "429"),
        (&jobs, "200"),
        (&nobody, "200"),
        (&nobody, "200"),
        (&nobody, "429"),
        (&jobs, "200"),
        (&jobs, "429"),
    ] {
        assert_eq!(status(to, who, "/", ""), want);
    }
}

#[test]
fn a_tcp_connection_is_judged_by_its_certificate() {
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let rules = ", protocol: tcp, authorize: [{ from: \"spiffe://blog/ns/web/*\" }]";
    let proxy = start(&ca, &upstream, rules, "retry: {}");
    let to = proxy.address("outbound");
    let mut allowed = open(to, &caller(&ca, "cart", &[CART]), "localhost");
    allowed.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 15];
    allowed.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let mut refused = open(to, &caller(&ca, "jobs", &["spiffe://blog/ns/jobs/sa/a"]), "localhost");
    let _closed = refused.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
    let line = proxy.access_line(|line| line["denied_by"] == "no_rule");
    assert_eq!(line["identity"], "spiffe://blog/ns/jobs/sa/a");
    assert_eq!(upstream.requests().len(), 1);
}
