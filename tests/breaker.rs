//! Circuit breaking by state: when it opens, what callers get then, how it closes, and what must not open it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Metrics, Proxy, Upstream, get, read_request};
use traffic::{Gate, Setup, answer, ok, pause};

/// An upstream that answers 500 or 200, as it is told.
struct Moody {
    upstream: Upstream,
    fails: Arc<AtomicBool>,
}

impl Moody {
    fn failing() -> Self {
        let fails = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&fails);
        let upstream = Upstream::scripted(move |_| match told.load(Ordering::SeqCst) {
            true => answer(500, "", "no"),
            false => ok("fine"),
        });
        Self { upstream, fails }
    }

    fn recover(&self) {
        self.fails.store(false, Ordering::SeqCst);
    }
}

fn state(metrics: &Metrics) -> Vec<&'static str> {
    let stands = |state: &&str| {
        let name = "outrigger_upstream_breaker_state";
        metrics.sum(name, &[("upstream", "articles"), ("state", state)]) > 0.5
    };
    ["closed", "open", "half_open"].into_iter().filter(stands).collect()
}

fn wait_for(proxy: &Proxy, wanted: &'static str) {
    proxy.wait_metrics(wanted, |metrics| state(metrics) == [wanted]);
}

fn transitions(metrics: &Metrics, to: &str) -> f64 {
    metrics.sum("outrigger_upstream_breaker_transitions_total", &[("state", to)])
}

/// The page of the one upstream.
fn page(proxy: &Proxy) -> serde_json::Value {
    let text = get(proxy.address("admin"), "/upstreams").text();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
}

fn start(upstream: &Upstream, breaker: &str) -> Proxy {
    let setup = Setup::new(&[upstream.address]).workers(2);
    Proxy::start(&setup.upstream(&format!("breaker: {{ {breaker} }}")).yaml())
}

#[test]
fn enough_failures_open_it_and_then_nothing_reaches_the_upstream() {
    let moody = Moody::failing();
    let proxy = start(&moody.upstream, "min_requests: 10, open_for: 1h");
    let to = proxy.address("outbound");
    wait_for(&proxy, "closed");
    for _ in 0..9 {
        assert_eq!(get(to, "/").status, 500);
    }
    assert_eq!(
        page(&proxy)["breaker"]["state"],
        "closed",
        "nine say nothing where ten are asked for"
    );
    assert_eq!(get(to, "/").status, 500);
    wait_for(&proxy, "open");
    let reached = moody.upstream.requests().len();
    for _ in 0..20 {
        let reply = get(to, "/");
        assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("breaker_open")));
    }
    assert_eq!(moody.upstream.requests().len(), reached);
    assert_eq!(proxy.access_line(|line| line["status"] == 503)["flag"], "BO");
    let metrics = proxy.metrics();
    for name in ["outrigger_rejected_total", "outrigger_upstream_rejected_total"] {
        let refused = metrics.sum(name, &[("reason", "breaker_open")]);
        assert!((refused - 20.0).abs() < 0.5, "{name}: {refused}");
    }
    let breaker = &page(&proxy)["breaker"];
    assert_eq!((&breaker["state"], &breaker["at_most"]), (&"open".into(), &0.into()), "{breaker}");
    assert_eq!(breaker["window"]["failed"], 10, "{breaker}");
    let line = proxy.log().wait("transition", |line| {
        line.contains("breaker changed").then(|| serde_json::from_str(line).unwrap())
    });
    let line: serde_json::Value = line;
    assert_eq!((&line["upstream"], &line["to"]), (&"articles".into(), &"open".into()), "{line}");
    assert_eq!((&line["requests"], &line["failed"]), (&10.into(), &10.into()), "{line}");
}

#[test]
fn it_closes_by_probes_and_a_ramp_when_the_upstream_works_again() {
    let moody = Moody::failing();
    let proxy = start(&moody.upstream, "min_requests: 5, open_for: 300ms, probes: 3");
    let to = proxy.address("outbound");
    while state(&proxy.metrics()) != ["open"] {
        get(to, "/");
    }
    // Its probes fail: open again, and again.
    proxy.wait_metrics("second opening", |metrics| {
        get(to, "/");
        transitions(metrics, "open") > 1.5
    });
    moody.recover();
    let recovered = Instant::now();
    proxy.wait_metrics("closed again", |metrics| {
        get(to, "/");
        state(metrics) == ["closed"]
    });
    // Open for 300 ms, a ramp of 1 s; the rest is what this machine takes.
    assert!(recovered.elapsed() < Duration::from_secs(10));
    let before = moody.upstream.requests().len();
    for _ in 0..50 {
        assert_eq!(get(to, "/").status, 200);
    }
    assert_eq!(moody.upstream.requests().len(), before + 50);
    let metrics = proxy.metrics();
    assert!(transitions(&metrics, "closed") > 0.5 && transitions(&metrics, "half_open") > 1.5);
}

#[test]
fn half_open_lets_one_probe_at_a_time_through_and_one_that_leaves_makes_room() {
    let gate = Gate::new("done");
    let proxy = start(&gate.upstream, "slow: { over: 1ms }, min_requests: 1, open_for: 6s");
    let to = proxy.address("outbound");
    let first = std::thread::spawn(move || get(to, "/"));
    gate.arrived();
    pause(5);
    gate.open(1);
    assert_eq!(first.join().unwrap().status, 200);
    wait_for(&proxy, "half_open");
    let refused = |metrics: &Metrics| {
        metrics.sum("outrigger_upstream_rejected_total", &[("reason", "breaker_open")])
    };
    for round in 0..3 {
        let mut probe = Connection::open(to);
        probe.request("GET", "/", &[], b"");
        gate.arrived();
        let before = refused(&proxy.metrics());
        let mut others: Vec<Connection> = (0..5).map(|_| Connection::open(to)).collect();
        others.iter_mut().for_each(|other| other.request("GET", "/", &[], b""));
        proxy.wait_metrics("five are refused", |metrics| refused(metrics) > before + 4.5);
        assert!(!gate.has_arrived(), "a second probe in round {round}");
        drop(probe);
        proxy.wait_metrics("left", |m| m.sum("outrigger_upstream_in_flight", &[]) < 0.5);
    }
}

#[test]
fn slow_answers_open_it() {
    let upstream = Upstream::scripted(|_| {
        pause(60);
        ok("late")
    });
    let proxy = start(&upstream, "slow: { over: 50ms }, min_requests: 5, open_for: 1h");
    let to = proxy.address("outbound");
    for _ in 0..5 {
        assert_eq!(get(to, "/").status, 200);
    }
    wait_for(&proxy, "open");
    let breaker = &page(&proxy)["breaker"]["window"];
    assert_eq!((&breaker["failed"], &breaker["slow"]), (&0.into(), &5.into()));
}

#[test]
fn callers_that_leave_and_our_own_refusals_do_not_open_it() {
    let upstream = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            if request.starts_with(b"GET /ok") {
                stream.get_mut().write_all(&ok("fine")).unwrap();
            }
        }
    });
    let keys = "breaker: { min_requests: 1 }, limits: { in_flight: 1, pending: 1, queue: 100ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(keys).yaml());
    let to = proxy.address("outbound");
    for _ in 0..5 {
        let mut leaving = Connection::open(to);
        leaving.request("GET", "/", &[], b"");
        proxy.wait_metrics("in flight", |m| m.sum("outrigger_upstream_in_flight", &[]) > 0.5);
        let reply = get(to, "/");
        assert_eq!(reply.header("x-outrigger-reason"), Some("queue_timeout"));
        drop(leaving);
        proxy.wait_metrics("left", |m| m.sum("outrigger_upstream_in_flight", &[]) < 0.5);
    }
    // One that counts: what came before it has been looked at, too.
    assert_eq!(get(to, "/ok").status, 200);
    let name = "outrigger_upstream_attempts_total";
    proxy.wait_metrics("the page shows it", |metrics| {
        metrics.sum(name, &[("outcome", "cancelled")]) > 4.5
            && page(&proxy)["breaker"]["window"]["requests"] != 0
    });
    let breaker = &page(&proxy)["breaker"];
    assert_eq!((&breaker["state"], &breaker["window"]["requests"]), (&"closed".into(), &1.into()));
    assert_eq!(breaker["window"]["failed"], 0);
}

#[test]
fn it_opens_on_connections_that_are_refused_and_stops_retries() {
    let retry = "retry: { attempts: 10, when: [5xx], backoff: 100ms..100ms }, timeout: 20s";
    let moody = Moody::failing();
    let keys = "breaker: { min_requests: 1, open_for: 1h }, limits: { retry_budget: 100% }";
    let setup = Setup::new(&[moody.upstream.address]).route(retry).upstream(keys);
    let proxy = Proxy::start(&setup.yaml());
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!(reply.status, 502, "an attempt may have run: {}", reply.text());
    assert!(moody.upstream.requests().len() < 10);
    let suppressed = [("reason", "breaker_open")];
    let metrics = proxy.metrics();
    let name = "outrigger_upstream_retries_suppressed_total";
    assert!((metrics.sum(name, &suppressed) - 1.0).abs() < 0.5, "{}", metrics.text);
    let line = proxy.access_line(|line| line["status"] == 502);
    assert_eq!(line["retry_suppressed"], "breaker_open", "{line}");
    // Nothing listens: as bad as a 500.
    let keys = "breaker: { min_requests: 3, open_for: 1h }";
    let setup = Setup::new(&[support::refusing()]).route("retry: never").upstream(keys);
    let proxy = Proxy::start(&setup.yaml());
    for _ in 0..3 {
        let reply = get(proxy.address("outbound"), "/");
        assert_eq!(reply.header("x-outrigger-reason"), Some("connect_failed"));
    }
    wait_for(&proxy, "open");
}

#[test]
fn those_who_wait_for_a_place_are_told_when_it_opens() {
    let gate = Gate::new("done");
    let keys = "breaker: { slow: { over: 1ms }, min_requests: 1, open_for: 1h }, \
                limits: { in_flight: 1, pending: 5, queue: 20s }";
    let setup = Setup::new(&[gate.upstream.address]).upstream(keys).route("timeout: 30s");
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let asks: Vec<_> = (0..4).map(|_| std::thread::spawn(move || get(to, "/"))).collect();
    gate.arrived();
    proxy.wait_metrics("three wait", |m| m.sum("outrigger_upstream_pending", &[]) > 2.5);
    pause(5);
    // The first is slow. The next may be let in before the tick, and is left hanging.
    gate.open(1);
    wait_for(&proxy, "open");
    gate.open(1);
    let replies: Vec<_> = asks.into_iter().map(|ask| ask.join().unwrap()).collect();
    let refused = replies.iter().filter(|r| r.header("x-outrigger-reason") == Some("breaker_open"));
    assert_eq!(refused.count(), 2, "{replies:?}");
}

#[test]
fn a_reload_that_turns_it_off_takes_its_series_away() {
    let moody = Moody::failing();
    let setup = Setup::new(&[moody.upstream.address]);
    let on = setup.clone().upstream("breaker: 50%, throttle: 2, adaptive: gradient");
    let proxy = Proxy::start(&on.yaml());
    wait_for(&proxy, "closed");
    let names =
        ["breaker_state", "breaker_transitions_total", "throttle_probability", "concurrency_limit"];
    let shown = |metrics: &Metrics| {
        let shows = |name: &&&str| metrics.text.contains(&format!("outrigger_upstream_{name}{{"));
        names.iter().filter(shows).count()
    };
    assert_eq!(shown(&proxy.metrics()), names.len());
    assert_eq!(proxy.reload(&setup.yaml()).status, 200);
    assert_eq!(shown(&proxy.metrics()), 0);
    assert!(page(&proxy)["breaker"].is_null());
}
