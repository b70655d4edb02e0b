//! The main job: requests go to upstreams and answers come back, with metrics and a log line for each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use support::{Connection, Proxy, Upstream, get, http, refusing};

fn yaml(endpoints: &[std::net::SocketAddr]) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2 }}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:0\n    routes:\n      - \
         to: articles\nupstreams:\n  articles:\n    endpoints: {endpoints:?}\n"
    )
}

#[test]
fn nine_lines_forward_count_and_log() {
    let upstream = Upstream::ok("hello");
    let proxy = Proxy::start(&yaml(&[upstream.address]));
    let reply = get(proxy.address("outbound"), "/x?y=1");
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let line = proxy.access_line(|line| line["path"] == "/x?y=1");
    assert_eq!((&line["status"], &line["attempts"]), (&200.into(), &1.into()));
    assert_eq!(line["upstream"], "articles");
    let metrics = proxy.metrics();
    let labels = [("listener", "outbound"), ("code", "2xx")];
    assert!(metrics.sum("outrigger_downstream_requests_total", &labels) > 0.5);
    assert!(upstream.requests()[0].starts_with("GET /x?y=1 HTTP/1.1\r\n"));
}

#[test]
fn a_refusing_endpoint_is_never_seen_by_the_caller() {
    let upstream = Upstream::ok("hello");
    let proxy = Proxy::start(&yaml(&[refusing(), upstream.address, refusing()]));
    let mut connection = Connection::open(proxy.address("outbound"));
    for _ in 0..100 {
        connection.request("POST", "/", &[], b"body");
        assert_eq!(connection.reply().status, 200);
    }
    let retries = proxy.metrics().sum("outrigger_upstream_retries_total", &[("reason", "safe")]);
    assert!(retries >= 1.0, "{retries}");
    assert!(upstream.requests().iter().all(|request| request.ends_with("\r\n\r\nbody")));
}

#[test]
fn nobody_listening_is_a_503_that_says_so() {
    let proxy = Proxy::start(&yaml(&[refusing()]));
    let reply = http(proxy.address("outbound"), "GET", "/", &[], b"");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("connect_failed")));
    assert!(reply.text().contains("connection refused"), "{}", reply.text());
}
