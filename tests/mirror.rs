//! Copies of requests: what a shadow gets, and that nobody else notices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;

use support::{Connection, Metrics, PATIENCE, Proxy, Upstream, get, http, read_request, refusing};
use traffic::{Setup, answer, field, silent};

fn mirrored(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("outrigger_mirrored_total", &[("route", "r"), ("outcome", outcome)])
}

fn is(found: f64, wanted: u32) -> bool {
    (found - f64::from(wanted)).abs() < 0.5
}

/// A route named `r` to `real`, with copies of `share` for `shadow`.
fn yaml(real: SocketAddr, shadow: SocketAddr, share: &str, keys: &str) -> String {
    let route = format!("name: r, mirror: {{ shadow: {share} }}");
    let setup = Setup::new(&[real]).route(&route);
    format!("{}  shadow: {{ endpoints: [\"{shadow}\"]{keys} }}\n", setup.yaml())
}

fn wait_requests(upstream: &Upstream, count: usize) -> Vec<String> {
    let end = tokio::time::Instant::now() + PATIENCE;
    while upstream.requests().len() < count {
        assert!(tokio::time::Instant::now() < end, "{} of {count}", upstream.requests().len());
        std::thread::yield_now();
    }
    upstream.requests()
}

#[test]
fn a_shadow_gets_the_request_and_its_answer_is_nobodys() {
    let real = Upstream::ok("real");
    let shadow = Upstream::scripted(|_| answer(500, "", "shadow"));
    let proxy = Proxy::start(&yaml(real.address, shadow.address, "100%", ""));
    let mut caller = Connection::open(proxy.address("outbound"));
    for round in 1..=3 {
        caller.request("POST", "/a?b=c", &[("Host", "articles"), ("X-Own", "1")], b"the body");
        let reply = caller.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "real"));
        let copy = &wait_requests(&shadow, round)[round - 1];
        let (head, body) = copy.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /a?b=c HTTP/1.1"), "{head}");
        assert_eq!((body, field(head, "host")), ("the body", Some("articles")));
        assert_eq!(
            (field(head, "x-own"), field(head, "x-outrigger-mirror")),
            (Some("1"), Some("r"))
        );
        let original = &real.requests()[round - 1];
        assert_eq!(field(head, "x-request-id"), field(original, "x-request-id"));
        assert_eq!(field(original, "x-outrigger-mirror"), None);
    }
    let metrics =
        proxy.wait_metrics("three copies", |metrics| is(mirrored(metrics, "answered"), 3));
    let attempts = |upstream, outcome| {
        let labels = [("upstream", upstream), ("outcome", outcome)];
        metrics.sum("outrigger_upstream_attempts_total", &labels)
    };
    assert!(is(attempts("shadow", "failure"), 3) && is(attempts("articles", "success"), 3));
    assert!(is(metrics.sum("outrigger_downstream_requests_total", &[("listener", "outbound")]), 3));
    // One connection for all of them: an answer that is discarded is read to its end.
    let connects = [("upstream", "shadow")];
    assert!(is(metrics.sum("outrigger_upstream_connects_total", &connects), 1), "{}", metrics.text);
}

#[test]
fn a_shadow_that_hangs_holds_nobody_up_and_copies_are_bounded() {
    let real = Upstream::ok("real");
    let shadow = silent();
    let proxy = Proxy::start(&yaml(real.address, shadow.address, "100%", ""));
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..130 {
        caller.request("GET", "/", &[], b"");
        assert_eq!(caller.reply().text(), "real");
    }
    let metrics = proxy.metrics();
    assert!(is(mirrored(&metrics, "too_many"), 30), "{}", metrics.text);
    let shadows = metrics.sum("outrigger_upstream_in_flight", &[("upstream", "shadow")]);
    assert!(is(shadows, 100), "{shadows}");
    assert!(is(metrics.sum("outrigger_upstream_in_flight", &[("upstream", "articles")]), 0));
}

#[test]
fn the_shadows_own_limits_hold_for_copies() {
    let real = Upstream::ok("real");
    let shadow = silent();
    let limits = ", limits: { in_flight: 2 }";
    let proxy = Proxy::start(&yaml(real.address, shadow.address, "100%", limits));
    for _ in 0..5 {
        assert_eq!(get(proxy.address("outbound"), "/").text(), "real");
    }
    assert!(is(mirrored(&proxy.metrics(), "too_many"), 3));
}

#[test]
fn a_shadow_that_refuses_or_breaks_off_is_counted_and_that_is_all() {
    let real = Upstream::ok("real");
    let breaking = Upstream::serve(|_, mut stream| {
        let _some = stream.read(&mut [0; 64]);
        let _half = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    });
    for shadow in [refusing(), breaking.address] {
        let proxy = Proxy::start(&yaml(real.address, shadow, "100%", ""));
        for _ in 0..10 {
            let reply = http(proxy.address("outbound"), "PUT", "/", &[], b"body");
            assert_eq!((reply.status, reply.text().as_str()), (200, "real"));
        }
        let metrics = proxy.wait_metrics("ten", |metrics| is(mirrored(metrics, "failed"), 10));
        assert!(is(metrics.sum("outrigger_upstream_retries_total", &[]), 0));
        assert!(is(metrics.sum("outrigger_rejected_total", &[]), 0));
    }
}

#[test]
fn a_shadow_that_does_not_read_loses_the_copy_and_not_the_request() {
    let real = Upstream::ok("real");
    let (told, arrived) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let lazy = Upstream::serve(move |_, stream| {
        // Reads nothing, for as long as the test takes.
        told.lock().unwrap().send(stream).unwrap();
    });
    let proxy = Proxy::start(&yaml(real.address, lazy.address, "100%", ""));
    let body = vec![b'x'; 32 << 20];
    let reply = http(proxy.address("outbound"), "POST", "/", &[], &body);
    assert_eq!(reply.text(), "real");
    assert!(real.requests()[0].len() > body.len());
    proxy.wait_metrics("one behind", |metrics| is(mirrored(metrics, "behind"), 1));
    drop(arrived);
}

#[test]
fn a_body_that_comes_in_pieces_is_copied_whole() {
    let (real, shadow) = (Upstream::ok("real"), Upstream::ok("shadow"));
    let proxy = Proxy::start(&yaml(real.address, shadow.address, "100%", ""));
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..40 {
        caller.send(format!("400\r\n{}\r\n", "y".repeat(1024)));
    }
    caller.send("0\r\n\r\n");
    assert_eq!(caller.reply().text(), "real");
    let copy = wait_requests(&shadow, 1).remove(0);
    assert_eq!(copy.matches('y').count(), real.requests()[0].matches('y').count());
    assert_eq!(copy.matches('y').count(), 40 * 1024);
    proxy.wait_metrics("one copy", |metrics| is(mirrored(metrics, "answered"), 1));
}

#[test]
fn a_request_that_is_sent_again_is_copied_once() {
    let real = Upstream::scripted(|number| match number {
        0 => answer(503, "", "no"),
        _ => answer(200, "", "real"),
    });
    let shadow = Upstream::ok("shadow");
    let setup = Setup::new(&[real.address]).route(
        "name: r, retry: { when: [gateway-error], backoff: 1ms..1ms }, mirror: { shadow: 100%, other: 100% }",
    );
    let shadows = format!(
        "  shadow: {{ endpoints: [\"{0}\"] }}\n  other: {{ endpoints: [\"{0}\"] }}\n",
        shadow.address
    );
    let proxy = Proxy::start(&format!("{}{shadows}", setup.yaml()));
    let reply = http(proxy.address("outbound"), "PUT", "/", &[], b"body");
    assert_eq!((reply.text().as_str(), real.requests().len()), ("real", 2));
    proxy.wait_metrics("a copy for each", |metrics| is(mirrored(metrics, "answered"), 2));
    assert!(shadow.requests().iter().all(|copy| copy.ends_with("\r\n\r\nbody")));
}

#[test]
fn shares_are_kept_and_never_means_none() {
    let (real, shadow) = (Upstream::ok("real"), Upstream::ok("shadow"));
    for (share, least, most) in [("0%", 0.0, 0.0), ("30%", 60.0, 180.0)] {
        let proxy = Proxy::start(&yaml(real.address, shadow.address, share, ""));
        let mut caller = Connection::open(proxy.address("outbound"));
        for _ in 0..400 {
            caller.request("GET", "/", &[], b"");
            assert_eq!(caller.reply().status, 200);
        }
        // Six standard deviations of 120 are 55.
        let copies = mirrored(&proxy.metrics(), "answered");
        assert!((least..=most).contains(&copies), "{share}: {copies}");
    }
}

#[test]
fn users_of_envoy_find_its_suffix() {
    let (real, shadow) = (Upstream::ok("real"), Upstream::ok("shadow"));
    let yaml = format!("compat: envoy\n{}", yaml(real.address, shadow.address, "100%", ""));
    let proxy = Proxy::start(&yaml);
    let reply = http(proxy.address("outbound"), "GET", "/", &[("Host", "articles:80")], b"");
    assert_eq!(reply.status, 200);
    let copy = wait_requests(&shadow, 1).remove(0);
    assert_eq!(field(&copy, "host"), Some("articles-shadow:80"));
    assert_eq!(field(&real.requests()[0], "host"), Some("articles:80"));
}

#[test]
fn a_shadow_may_speak_another_protocol() {
    let (told, asked) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let http2 = Upstream::serve(move |_, stream| {
        let Some(mut raw) = http2::Raw::accept(stream, None) else { return };
        while let Some(stream) = raw.request() {
            told.lock().unwrap().send(()).unwrap();
            raw.answer(stream, "shadow");
        }
    });
    let real = Upstream::ok("real");
    let proxy = Proxy::start(&yaml(real.address, http2.address, "100%", ", protocol: http2"));
    let reply = http(proxy.address("outbound"), "POST", "/", &[], b"body");
    assert_eq!(reply.text(), "real");
    asked.recv_timeout(PATIENCE).unwrap();
    proxy.wait_metrics("one copy", |metrics| is(mirrored(metrics, "answered"), 1));

    // And the other way round: the request goes upstream in HTTP/2, its copy in HTTP/1.
    let shadow = Upstream::ok("shadow");
    let setup = Setup::new(&[http2.address])
        .upstream("protocol: http2")
        .route("name: r, mirror: { shadow: 100% }");
    let yaml = format!("{}  shadow: {{ endpoints: [\"{}\"] }}\n", setup.yaml(), shadow.address);
    let proxy = Proxy::start(&yaml);
    let to = proxy.address("outbound");
    let answered = http2::run(async move {
        let send = http2::connect(to).await;
        http2::ask(&send, http2::post("/x"), b"a body without a length", None).await.unwrap()
    });
    assert_eq!(answered.text(), "shadow", "as the HTTP/2 upstream calls itself");
    let copy = wait_requests(&shadow, 1).remove(0);
    assert!(copy.starts_with("POST /x HTTP/1.1\r\n"), "{copy}");
    assert!(
        copy.contains("a body without a length") && field(&copy, "host") == Some("test"),
        "{copy}"
    );
    proxy.wait_metrics("one copy", |metrics| is(mirrored(metrics, "answered"), 1));
}

#[test]
fn an_upgrade_is_not_copied() {
    let real = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_some() {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello";
            let _gone = stream.get_mut().write_all(switch);
            traffic::drain(&mut stream);
        }
    });
    let shadow = Upstream::ok("shadow");
    let proxy = Proxy::start(&yaml(real.address, shadow.address, "100%", ""));
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[("Connection", "upgrade"), ("Upgrade", "echo")], b"");
    assert_eq!(caller.reply_head().status, 101);
    caller.stream.read_exact(&mut [0; 5]).unwrap();
    assert!(is(proxy.metrics().sum("outrigger_mirrored_total", &[]), 0));
    assert!(shadow.requests().is_empty());
}
