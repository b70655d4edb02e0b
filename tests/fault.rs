//! Failures on purpose: who is delayed, who is refused, and how it is told from real ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Metrics, Proxy, Upstream, get, http};
use traffic::Setup;

fn faults(metrics: &Metrics, kind: &str) -> f64 {
    metrics.sum("outrigger_faults_total", &[("route", "r"), ("kind", kind)])
}

fn is(found: f64, wanted: u32) -> bool {
    (found - f64::from(wanted)).abs() < 0.5
}

#[test]
fn an_aborted_request_never_reaches_the_upstream() {
    let upstream = Upstream::ok("ok");
    let setup = Setup::new(&[upstream.address])
        .route("name: r, match: { path: /a }, fault: { abort: { share: 100%, status: 418 } }")
        .route("name: rest, fault: never");
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let mut caller = Connection::open(to);
    for _ in 0..3 {
        caller.request("POST", "/a", &[], b"body");
        let reply = caller.reply();
        assert_eq!((reply.status, reply.header("x-outrigger-reason")), (418, Some("fault_abort")));
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(get(to, "/b").status, 200);
    let line = proxy.access_line(|line| line["status"] == 418);
    assert_eq!((&line["reason"], &line["flag"]), (&"fault_abort".into(), &"FI".into()));
    assert_eq!((&line["attempts"], line.get("fault")), (&0.into(), None));
    let metrics = proxy.metrics();
    assert!(
        is(faults(&metrics, "abort"), 3) && is(faults(&metrics, "delay"), 0),
        "{}",
        metrics.text
    );
    assert!(is(metrics.sum("outrigger_rejected_total", &[("reason", "fault_abort")]), 3));
    assert!(is(metrics.sum("outrigger_upstream_attempts_total", &[]), 1));
    proxy
        .log()
        .wait("a warning", |line| line.contains("failures are injected on purpose").then_some(()));
}

#[test]
fn a_delayed_request_waits_first_and_its_upstream_is_not_blamed() {
    let upstream = Upstream::ok("ok");
    let fault = "name: r, fault: { delay: { share: 100%, for: 400ms } }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(fault).yaml());
    let start = Instant::now();
    let body = vec![b'x'; 300_000];
    let reply = http(proxy.address("outbound"), "POST", "/", &[], &body);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert!(upstream.requests()[0].len() > 300_000);
    let line = proxy.access_line(|line| line["status"] == 200);
    assert_eq!((&line["fault"], &line["flag"]), (&"delay".into(), &"DI".into()));
    assert!(line["reason"].is_null(), "{line}");
    let metrics = proxy.metrics();
    assert!(is(faults(&metrics, "delay"), 1) && is(faults(&metrics, "abort"), 0));
    // Without the delay, the exchange takes milliseconds: what the upstream is charged with has no part of it.
    let charged = metrics.sum("outrigger_upstream_attempt_duration_seconds_sum", &[]);
    let whole = metrics.sum("outrigger_downstream_request_duration_seconds_sum", &[]);
    assert!(whole >= 0.4 && charged <= whole - 0.399, "{charged} of {whole}");
}

#[test]
fn a_delay_counts_against_the_deadline_of_the_route_and_of_the_caller() {
    let upstream = Upstream::ok("ok");
    for (keys, header) in [("timeout: 300ms", "x-none"), ("timeout: 20s", "x-outrigger-timeout-ms")]
    {
        let fault = format!("name: r, {keys}, fault: {{ delay: {{ share: 100%, for: 15s }} }}");
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(&fault).yaml());
        let start = Instant::now();
        let reply = http(proxy.address("outbound"), "GET", "/", &[(header, "300")], b"");
        let took = start.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&took), "{took:?}");
        assert_eq!((reply.status, reply.header("x-outrigger-reason")), (504, Some("timeout")));
        let line = proxy.access_line(|line| line["status"] == 504);
        assert_eq!((&line["fault"], &line["flag"]), (&"delay".into(), &"UT".into()));
        assert!(is(faults(&proxy.metrics(), "delay"), 1));
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn shares_are_kept_and_every_one_is_counted() {
    let upstream = Upstream::ok("ok");
    let fault =
        "name: r, fault: { delay: { share: 20%, for: 1ms }, abort: { share: 50%, status: 500 } }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(fault).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    let mut aborted: u32 = 0;
    for _ in 0..400 {
        caller.request("GET", "/", &[], b"");
        aborted += u32::from(caller.reply().status == 500);
    }
    // Six standard deviations of 200 are 60, of 80 they are 48.
    assert!((140..=260).contains(&aborted), "{aborted}");
    let metrics = proxy.metrics();
    assert!(is(faults(&metrics, "abort"), aborted), "{}", metrics.text);
    let delayed = faults(&metrics, "delay");
    assert!((32.0..=128.0).contains(&delayed), "{delayed}");
    assert_eq!(upstream.requests().len(), 400 - usize::try_from(aborted).unwrap());
}

#[test]
fn a_caller_that_leaves_during_the_delay_leaves_nothing_behind() {
    let upstream = Upstream::ok("ok");
    let fault = "name: r, timeout: unlimited, fault: { delay: { share: 100%, for: 1h }, abort: { share: 100% } }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(fault).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    proxy.wait_metrics("a delay", |metrics| is(faults(metrics, "delay"), 1));
    drop(caller);
    let metrics = proxy.wait_metrics("the end", |metrics| {
        is(metrics.sum("outrigger_rejected_total", &[("reason", "client_gone")]), 1)
            && is(metrics.sum("outrigger_downstream_in_flight", &[]), 0)
    });
    assert!(is(faults(&metrics, "abort"), 0), "it was gone before");
}

#[test]
fn a_reload_ends_it() {
    let upstream = Upstream::ok("ok");
    let with = Setup::new(&[upstream.address]).route("fault: { abort: { share: 100% } }");
    let proxy = Proxy::start(&with.yaml());
    let to = proxy.address("outbound");
    assert_eq!(get(to, "/").status, 503);
    assert_eq!(proxy.reload(&Setup::new(&[upstream.address]).yaml()).status, 200);
    assert_eq!(get(to, "/").status, 200);
    assert!(!proxy.metrics().text.contains("outrigger_faults_total{"));
}

#[test]
fn calls_of_grpc_get_the_status_that_their_clients_would_make_of_it() {
    let setup = |status: u16| {
        format!(
            "admin: 127.0.0.1:0\nlisteners:\n  outbound: {{ bind: 127.0.0.1:0, routes: [{{ to: a, fault: {{ abort: {{ share: 100%, \
             status: {status} }} }} }}] }}\nupstreams:\n  a: {{ endpoints: [127.0.0.1:1] }}\n"
        )
    };
    for (status, code) in [(503, "14"), (429, "14"), (403, "7"), (500, "2")] {
        let proxy = Proxy::start(&setup(status));
        let to = proxy.address("outbound");
        let answer = http2::run(async move {
            let send = http2::connect(to).await;
            let mut call = http2::post("/blog.Articles/List");
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            http2::ask(&send, call, b"", None).await.unwrap()
        });
        assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some(code)), "{status}");
        let line = proxy.access_line(|line| line["reason"] == "fault_abort");
        assert_eq!(line["grpc_status"].to_string(), code);
    }
}
