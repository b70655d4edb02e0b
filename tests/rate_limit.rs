//! How many requests a route takes, from whom, and what the others are told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::SocketAddr;

use support::{Connection, Metrics, Proxy, Reply, Upstream, get, http};
use traffic::{Setup, pause};

fn count(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(&format!("outrigger_{name}"), &[])
}

fn is(found: f64, wanted: usize) -> bool {
    (found - wanted as f64).abs() < 0.5
}

fn admitted(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.status == 200).count()
}

/// One request of a tenant on a connection of its own.
fn of(to: SocketAddr, tenant: &str) -> Reply {
    http(to, "GET", "/", &[("x-tenant", tenant)], b"")
}

#[test]
fn the_burst_is_admitted_and_the_rest_is_told_when_to_come_again() {
    let upstream = Upstream::ok("ok");
    let setup =
        Setup::new(&[upstream.address]).route("name: r, rate_limit: { rate: 1/h, burst: 5 }");
    let proxy = Proxy::start(&setup.yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    let replies: Vec<Reply> = (0..8)
        .map(|_| {
            caller.request("POST", "/", &[], b"body");
            caller.reply()
        })
        .collect();
    assert_eq!(
        replies.iter().map(|reply| reply.status).collect::<Vec<_>>(),
        [200, 200, 200, 200, 200, 429, 429, 429]
    );
    for refused in &replies[5..] {
        assert_eq!(refused.header("x-outrigger-reason"), Some("rate_limited"));
        let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((3_580..=3_600).contains(&wait), "{wait}");
        assert!(refused.text().contains("5 at once"), "{}", refused.text());
    }
    assert_eq!(upstream.requests().len(), 5);
    let line = proxy.access_line(|line| line["status"] == 429);
    assert_eq!((&line["reason"], &line["flag"]), (&"rate_limited".into(), &"RL".into()));
    assert_eq!((&line["attempts"], &line["upstream"]), (&0.into(), &serde_json::Value::Null));
    let metrics = proxy.metrics();
    let of_route = [("listener", "outbound"), ("route", "r")];
    assert!(is(metrics.sum("outrigger_rate_limited_total", &of_route), 3), "{}", metrics.text);
    let reason = [("reason", "rate_limited")];
    assert!(is(metrics.sum("outrigger_rejected_total", &reason), 3), "{}", metrics.text);
    assert!(is(count(&metrics, "rate_limit_overflow_total"), 0));
}

#[test]
fn who_waits_as_long_as_told_is_admitted() {
    let upstream = Upstream::ok("ok");
    let limit = "rate_limit: { rate: 1/s, burst: 1 }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limit).yaml());
    let to = proxy.address("outbound");
    assert_eq!(get(to, "/").status, 200);
    let refused = get(to, "/");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    pause(1_000);
    assert_eq!(get(to, "/").status, 200);
    assert_eq!(get(to, "/").status, 429);
}

#[test]
fn four_workers_together_admit_the_burst() {
    let upstream = Upstream::ok("ok");
    let limit = "rate_limit: { rate: 1/h, burst: 50 }";
    for workers in [1, 4] {
        let setup = Setup::new(&[upstream.address]).route(limit).workers(workers);
        let proxy = Proxy::start(&setup.yaml());
        let to = proxy.address("outbound");
        let asking: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || -> Vec<Reply> {
                    (0..25).map(|_| get(to, "/")).collect()
                })
            })
            .collect();
        let replies: Vec<Reply> =
            asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect();
        assert_eq!(admitted(&replies), 50, "{workers} workers");
    }
}

#[test]
fn each_value_of_a_header_has_its_own_limit_over_all_workers() {
    let upstream = Upstream::ok("ok");
    let limit = "rate_limit: { rate: 1/h, burst: 3, by: \"header:X-Tenant\" }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limit).workers(4).yaml());
    let to = proxy.address("outbound");
    for tenant in ["a", "b", "A", "a, b", ""] {
        let replies: Vec<Reply> = (0..12).map(|_| of(to, tenant)).collect();
        assert_eq!(admitted(&replies), 3, "{tenant}");
    }
    let replies: Vec<Reply> = (0..12).map(|_| get(to, "/")).collect();
    assert_eq!(admitted(&replies), 3, "those without the header share one");
    let two = [("x-tenant", "a"), ("x-tenant", "b")];
    assert_eq!(http(to, "GET", "/", &two, b"").status, 200, "two values are another key");
}

#[test]
fn each_source_address_has_its_own_limit() {
    let upstream = Upstream::ok("ok");
    let limit = "rate_limit: { rate: 1/h, burst: 2, by: source }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limit).workers(2).yaml());
    let to = proxy.address("outbound");
    for source in ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"] {
        let replies: Vec<Reply> = (0..6)
            .map(|_| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                socket.bind(&source.parse::<SocketAddr>().unwrap().into()).unwrap();
                socket.connect(&to.into()).unwrap();
                let mut caller = Connection::over(socket.into());
                caller.request("GET", "/", &[("x-forwarded-for", "10.0.0.1")], b"");
                caller.reply()
            })
            .collect();
        assert_eq!(admitted(&replies), 2, "{source}");
    }
}

#[test]
fn more_keys_than_the_table_has_places_share_one_limit() {
    let upstream = Upstream::ok("ok");
    let limit = "rate_limit: { rate: 1/h, burst: 1, by: \"header:x-tenant\", keys: 8 }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limit).yaml());
    let to = proxy.address("outbound");
    // Eight keys have sixteen slots, and a window is as large.
    let replies: Vec<Reply> = (0..40).map(|number| of(to, &number.to_string())).collect();
    assert_eq!(admitted(&replies), 17);
    assert!(is(count(&proxy.metrics(), "rate_limit_overflow_total"), 24));
    assert_eq!(of(to, "0").status, 429, "nobody was pushed out");
}

#[test]
fn answers_of_the_route_itself_count_and_other_routes_do_not() {
    let upstream = Upstream::ok("ok");
    let mut setup = Setup::new(&[upstream.address]);
    setup.routes = vec![
        "{ match: { path: /reply }, respond: 204, rate_limit: { rate: 1/h, burst: 1 } }".to_owned(),
        "{ match: { path: /free }, to: articles, rate_limit: unlimited }".to_owned(),
        "{ to: articles }".to_owned(),
    ];
    setup.top = "defaults: { route: { rate_limit: { rate: 1/h, burst: 2 } } }\n".to_owned();
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let statuses = |path: &str| (0..3).map(|_| get(to, path).status).collect::<Vec<_>>();
    assert_eq!(statuses("/reply"), [204, 429, 429]);
    assert_eq!(statuses("/free"), [200, 200, 200]);
    assert_eq!(statuses("/"), [200, 200, 429]);
}

#[test]
fn a_reload_leaves_the_count_unless_the_limit_changes() {
    let upstream = Upstream::ok("ok");
    let setup = |burst: u32, timeout: &str| {
        let limit = format!("timeout: {timeout}, rate_limit: {{ rate: 1/h, burst: {burst} }}");
        Setup::new(&[upstream.address]).route(&limit).yaml()
    };
    let proxy = Proxy::start(&setup(2, "5s"));
    let to = proxy.address("outbound");
    assert_eq!([get(to, "/").status, get(to, "/").status], [200, 200]);
    assert_eq!(proxy.reload(&setup(2, "6s")).status, 200);
    assert_eq!(get(to, "/").status, 429);
    assert_eq!(proxy.reload(&setup(3, "6s")).status, 200);
    let statuses: Vec<u16> = (0..4).map(|_| get(to, "/").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(proxy.reload(&Setup::new(&[upstream.address]).yaml()).status, 200);
    assert_eq!(get(to, "/").status, 200);
    assert!(!proxy.metrics().text.contains("outrigger_rate_limited_total{"));
}

#[test]
fn a_call_of_grpc_is_told_in_its_own_way() {
    let setup = "admin: 127.0.0.1:0\nlisteners:\n  outbound: { bind: 127.0.0.1:0, routes: [{ to: a, rate_limit: { \
                 rate: 1/m, burst: 1 } }] }\nupstreams:\n  a: { endpoints: [127.0.0.1:1], protocol: http2 }\n";
    let proxy = Proxy::start(setup);
    let to = proxy.address("outbound");
    let refused = http2::run(async move {
        let send = http2::connect(to).await;
        let call = || {
            let mut request = http2::post("/blog.Articles/List");
            let kind = "application/grpc".parse().unwrap();
            request.headers_mut().insert("content-type", kind);
            request
        };
        let first = http2::ask(&send, call(), b"", None).await.unwrap();
        assert_eq!(first.header("x-outrigger-reason"), Some("connect_failed"));
        http2::ask(&send, call(), b"", None).await.unwrap()
    });
    assert_eq!((refused.status(), refused.header("grpc-status")), (200, Some("8")));
    assert_eq!(refused.header("x-outrigger-reason"), Some("rate_limited"));
    let wait: u64 = refused.header("grpc-retry-pushback-ms").unwrap().parse().unwrap();
    assert!((40_000..=60_000).contains(&wait), "{wait}");
}
