//! Places at an upstream: who gets one, who waits, who is refused, and that every one is given back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Metrics, Proxy, Reply, Upstream, get, read_request};
use traffic::{Gate, Setup, silent};

fn asks(to: SocketAddr, count: usize) -> Vec<JoinHandle<Reply>> {
    (0..count).map(|_| std::thread::spawn(move || get(to, "/"))).collect()
}

fn statuses(replies: Vec<JoinHandle<Reply>>) -> Vec<u16> {
    replies.into_iter().map(|reply| reply.join().unwrap().status).collect()
}

fn gauge(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(&format!("outrigger_{name}"), &[])
}

/// Every gauge of requests and connections is back at 0.
fn nothing_is_held(proxy: &Proxy) {
    proxy.wait_metrics("all gauges at 0", |metrics| {
        let names = [
            "upstream_in_flight",
            "upstream_pending",
            "upstream_connections",
            "downstream_in_flight",
            "downstream_connections",
        ];
        names.iter().all(|name| gauge(metrics, name).abs() < 0.5)
    });
}

#[test]
fn the_excess_waits_then_is_refused_and_the_waiting_get_in() {
    let gate = Gate::new("done");
    let limits = "pool: { idle: 100ms }, limits: { in_flight: 2, pending: 3, queue: 15s }";
    let setup = Setup::new(&[gate.upstream.address]).upstream(limits).workers(2);
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let running = asks(to, 2);
    gate.arrived();
    gate.arrived();
    let waiting = asks(to, 3);
    proxy.wait_metrics("three wait", |metrics| gauge(metrics, "upstream_pending") > 2.5);
    let reply = get(to, "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("limit_reached")));
    assert_eq!(proxy.access_line(|line| line["status"] == 503)["flag"], "UO");
    gate.open(5);
    assert_eq!(statuses(running), [200; 2]);
    assert_eq!(statuses(waiting), [200; 3]);
    nothing_is_held(&proxy);
    let most = proxy.metrics().sum("outrigger_rejected_total", &[("reason", "limit_reached")]);
    assert!((most - 1.0).abs() < 0.5, "{most}");
}

#[test]
fn a_place_that_frees_up_on_another_worker_is_found() {
    let gate = Gate::new("done");
    let limits = "limits: { in_flight: 1, pending: 100, queue: 15s }";
    let setup = Setup::new(&[gate.upstream.address]).upstream(limits).workers(2);
    let proxy = Proxy::start(&setup.yaml());
    // Sixteen connections, so that both workers have some.
    let asking = asks(proxy.address("outbound"), 16);
    proxy.wait_metrics("fifteen wait", |metrics| gauge(metrics, "upstream_pending") > 14.5);
    for _ in 0..16 {
        gate.arrived();
        let metrics = proxy.metrics();
        assert!(gauge(&metrics, "upstream_in_flight") < 1.5, "{}", metrics.text);
        gate.open(1);
    }
    assert_eq!(statuses(asking), [200; 16]);
}

#[test]
fn who_may_not_wait_is_refused_and_who_waits_too_long_is_told_so() {
    for (limits, route, status, reason, least) in [
        ("pending: 0", "timeout: 15s", 503, "limit_reached", 0),
        ("queue: 400ms", "timeout: 15s", 503, "queue_timeout", 400),
        ("queue: 15s", "timeout: 400ms", 504, "timeout", 400),
    ] {
        let upstream = silent();
        let holding = "match: { path: /hold }, timeout: 20s";
        let setup = Setup::new(&[upstream.address])
            .route(holding)
            .route(route)
            .upstream(&format!("limits: {{ in_flight: 1, {limits} }}"));
        let proxy = Proxy::start(&setup.yaml());
        let mut holder = Connection::open(proxy.address("outbound"));
        holder.request("GET", "/hold", &[], b"");
        proxy.wait_metrics("one in flight", |metrics| gauge(metrics, "upstream_in_flight") > 0.5);
        let start = Instant::now();
        let reply = get(proxy.address("outbound"), "/");
        assert!(start.elapsed() >= Duration::from_millis(least), "{limits}");
        assert_eq!((reply.status, reply.header("x-outrigger-reason")), (status, Some(reason)));
        drop(holder);
        nothing_is_held(&proxy);
    }
}

#[test]
fn at_the_limit_of_connections_the_next_request_takes_the_one_that_comes_back() {
    let gate = Gate::new("done");
    let setup = Setup::new(&[gate.upstream.address]);
    let proxy = Proxy::start(&setup.upstream("limits: { connections: 1, queue: 15s }").yaml());
    let first = asks(proxy.address("outbound"), 1);
    gate.arrived();
    let others = asks(proxy.address("outbound"), 3);
    proxy.wait_metrics("three wait", |metrics| gauge(metrics, "upstream_pending") > 2.5);
    gate.open(4);
    assert_eq!(statuses(first), [200]);
    assert_eq!(statuses(others), [200; 3]);
    let metrics = proxy.metrics();
    assert!((gauge(&metrics, "upstream_connects_total") - 1.0).abs() < 0.5, "{}", metrics.text);
}

#[test]
fn connections_that_are_kept_give_way_to_other_endpoints_and_workers() {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::ok("ok")).collect();
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.address).collect();
    let limits = "balance: round_robin, limits: { connections: 1, pending: 5, queue: 15s }";
    for workers in [1, 2] {
        let proxy = Proxy::start(&Setup::new(&addresses).upstream(limits).workers(workers).yaml());
        for _ in 0..12 {
            assert_eq!(get(proxy.address("outbound"), "/").status, 200);
            let open = gauge(&proxy.metrics(), "upstream_connections");
            assert!(open < 1.5, "{open}");
        }
    }
    assert!(upstreams.iter().all(|upstream| upstream.requests().len() >= 8));
}

#[test]
fn a_listener_takes_so_many_connections_and_the_next_when_one_has_ended() {
    let upstream = Upstream::ok("ok");
    let setup = Setup::new(&[upstream.address]).listener("limits: { connections: 2 }").workers(2);
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let mut open: Vec<Connection> = (0..2).map(|_| Connection::open(to)).collect();
    for connection in &mut open {
        connection.request("GET", "/", &[], b"");
        assert_eq!(connection.reply().status, 200);
    }
    assert_eq!(Connection::open(to).rest(), b"", "the third is closed at once");
    let refused = proxy.metrics().sum("outrigger_rejected_total", &[("reason", "limit_reached")]);
    assert!((refused - 1.0).abs() < 0.5, "{refused}");
    drop(open.pop());
    let connections = "outrigger_downstream_connections";
    proxy.wait_metrics("one open", |metrics| metrics.sum(connections, &[]) < 1.5);
    assert_eq!(get(to, "/").status, 200);
}

#[test]
fn callers_that_leave_at_any_point_leave_nothing_behind() {
    // Answers with a head and half a body, and then never goes on.
    let halves = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_some() {
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
            if stream.get_mut().write_all(half).is_ok() {
                traffic::drain(&mut stream);
            }
        }
    });
    let limits = "pool: { idle: 100ms }, limits: { in_flight: 4, connections: 4, pending: 8 }";
    let setup = Setup::new(&[halves.address]).upstream(limits).workers(2);
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    for round in 0..3 {
        let mut reading: Vec<Connection> = (0..4).map(|_| Connection::open(to)).collect();
        for connection in &mut reading {
            connection.request("POST", "/", &[], b"body");
            connection.reply_head();
            connection.stream.read_exact(&mut [0; 5]).unwrap();
        }
        // Waits, and leaves while it does; another leaves in the middle of its own body, another before it said anything.
        let mut waiting = Connection::open(to);
        waiting.request("GET", "/", &[], b"");
        proxy.wait_metrics("one waits", |metrics| gauge(metrics, "upstream_pending") > 0.5);
        let mut sending = Connection::open(to);
        sending.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
        let silent = Connection::open(to);
        proxy.wait_metrics("two wait", |metrics| gauge(metrics, "upstream_pending") > 1.5);
        drop((waiting, sending, silent, reading));
        nothing_is_held(&proxy);
        let gone = proxy.metrics().sum("outrigger_rejected_total", &[("reason", "client_gone")]);
        assert!((gone - 6.0 * f64::from(round + 1)).abs() < 0.5, "{gone} in round {round}");
    }
    let line = proxy.access_line(|line| line["status"] == 499);
    assert_eq!((&line["reason"], &line["flag"]), (&"client_gone".into(), &"DC".into()));
}

#[test]
fn what_waits_in_our_queue_is_not_charged_to_the_endpoint() {
    let gate = Gate::new("done");
    let limits = "limits: { in_flight: 1, pending: 4, queue: 10s }";
    let setup = Setup::new(&[gate.upstream.address]).upstream(limits).route("timeout: 15s");
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let running = asks(to, 1);
    gate.arrived();
    let late = support::http(to, "GET", "/", &[("x-outrigger-timeout-ms", "200")], b"");
    assert_eq!((late.status, late.header("x-outrigger-reason")), (504, Some("timeout")));
    gate.open(1);
    assert_eq!(statuses(running), [200]);
    let pages = get(proxy.address("admin"), "/upstreams").text();
    let pages: serde_json::Value = serde_json::from_str(&pages).unwrap();
    let endpoint = &pages[0]["endpoints"][0];
    assert_eq!((&endpoint["requests"], &endpoint["failures"]), (&1.into(), &0.into()), "{pages}");
    let metrics = proxy.metrics();
    let attempts = metrics.sum("outrigger_upstream_attempts_total", &[]);
    assert!((attempts - 1.0).abs() < 0.5, "{attempts}");
}

#[test]
fn an_attempt_whose_caller_left_is_counted() {
    let upstream = silent();
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    proxy.wait_metrics("in flight", |metrics| gauge(metrics, "upstream_in_flight") > 0.5);
    drop(caller);
    let cancelled = [("outcome", "cancelled")];
    proxy.wait_metrics("counted", |metrics| {
        metrics.sum("outrigger_upstream_attempts_total", &cancelled) > 0.5
    });
    nothing_is_held(&proxy);
}
