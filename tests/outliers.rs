//! Outlier detection: an endpoint that fails leaves traffic, is probed, and returns; callers notice nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/steady.rs"]
mod steady;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use steady::{RETRY, load};
use support::{Connection, Proxy, Upstream, get, refusing};
use tokio::time::Instant;
use traffic::{Setup, answer, ok, pause, silent};

/// Short ejections, so that a test of seconds sees several probes.
const SHORT: &str = "outliers: { eject: 1s }";

fn ejections(proxy: &Proxy, reason: &str, enforced: &str) -> u64 {
    let labels = [("reason", reason), ("enforced", enforced)];
    whole(proxy.metrics().sum("outrigger_upstream_ejections_total", &labels))
}

fn in_state(proxy: &Proxy, state: &str) -> u64 {
    whole(proxy.metrics().sum("outrigger_upstream_endpoints", &[("state", state)]))
}

fn whole(number: f64) -> u64 {
    // The sum of nothing is -0.
    format!("{:.0}", number.abs()).parse().unwrap()
}

fn endpoint(proxy: &Proxy, address: SocketAddr) -> Value {
    let page = get(proxy.address("admin"), "/upstreams").text();
    let page: Value = serde_json::from_str(&page).unwrap();
    let endpoints = page[0]["endpoints"].as_array().unwrap().clone();
    endpoints.into_iter().find(|e| e["address"] == address.to_string()).unwrap()
}

/// An upstream that does what it is told at the moment.
struct Switched {
    upstream: Upstream,
    broken: Arc<AtomicBool>,
}

impl Switched {
    /// Answers `bad` while it is broken; an empty answer closes the connection.
    fn new(bad: Vec<u8>) -> Self {
        let broken = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&broken);
        let upstream = Upstream::scripted(move |_| {
            if told.load(Ordering::SeqCst) { bad.clone() } else { ok("repaired") }
        });
        Self { upstream, broken }
    }

    fn repair(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }
}

/// One of three endpoints is `bad`: at 500 requests a second nearly nobody notices, its probes included.
fn one_of_three(bad: SocketAddr, reason: &str) {
    for balance in ["round_robin", "peak_ewma"] {
        let good: Vec<Upstream> = (0..2).map(|_| Upstream::ok("ok")).collect();
        let endpoints = [good[0].address, bad, good[1].address];
        let setup = Setup::new(&endpoints).route(&format!("timeout: 5s, {RETRY}"));
        let setup = setup.upstream(&format!("balance: {balance}, {SHORT}"));
        let proxy = Proxy::start(&setup.yaml());
        let seen = load(&proxy, 500, Duration::from_secs(3));
        assert!(seen.asked > 500, "{seen:?}");
        assert!(seen.failed * 1_000 <= seen.asked, "{seen:?}");
        assert!(seen.slowest < Duration::from_secs(5), "{seen:?}");
        let shown = endpoint(&proxy, bad);
        assert!(shown["requests"].as_u64().unwrap() < 50, "little was asked of it: {shown}");
        // Whether `peak_ewma` comes to the fifth failure in a row depends on how busy the machine is: it looks at latency.
        if balance == "round_robin" {
            assert_eq!(ejections(&proxy, reason, "true"), 1);
            // 1 s, 2 s, … (and up to a fifth more) after the first: one probe at least has failed.
            assert!(ejections(&proxy, "probe", "true") >= 1);
            assert!(shown["ejections"].as_u64().unwrap() >= 2, "{shown}");
            assert_eq!(shown["state"], "ejected", "{shown}");
        }
    }
}

#[test]
fn one_of_three_refuses() {
    one_of_three(refusing(), "local_origin");
}

#[test]
fn one_of_three_resets() {
    one_of_three(Upstream::scripted(|_| Vec::new()).address, "consecutive");
}

#[test]
fn one_of_three_hangs() {
    one_of_three(silent().address, "consecutive");
}

#[test]
fn one_of_three_answers_503() {
    one_of_three(Upstream::scripted(|_| answer(503, "", "no")).address, "gateway");
}

/// Nine lines: connects that are refused are sent elsewhere, whoever asks.
#[test]
fn with_nothing_configured_a_refusing_endpoint_is_not_noticed() {
    let good: Vec<Upstream> = (0..2).map(|_| Upstream::ok("ok")).collect();
    let setup = Setup::new(&[good[0].address, refusing(), good[1].address]);
    let proxy = Proxy::start(&setup.yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..500 {
        caller.request("GET", "/", &[], b"");
        assert_eq!(caller.reply().status, 200);
    }
}

/// A failing endpoint that is repaired returns through one probe.
#[test]
fn an_ejected_endpoint_returns_when_its_probe_succeeds() {
    let good = Upstream::ok("ok");
    let bad = Switched::new(answer(500, "", "no"));
    let setup = Setup::new(&[good.address, bad.upstream.address])
        .route("retry: { when: [5xx] }")
        .upstream("balance: round_robin, outliers: { eject: 1s }, slow_start: 60s, limits: { retry_budget: 100% }");
    let proxy = Proxy::start(&setup.yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    let mut ask = |times| {
        for _ in 0..times {
            caller.request("GET", "/", &[], b"");
            assert_eq!(caller.reply().status, 200);
        }
    };
    // By turns and with a retry after each failure: more than five of these go to the one that fails.
    for _ in 0..10 {
        ask(2);
    }
    assert_eq!(in_state(&proxy, "ejected"), 1);
    assert_eq!(bad.upstream.requests().len(), 5, "the fifth failure in a row was the last");
    bad.repair();
    let end = Instant::now() + support::PATIENCE;
    while bad.upstream.requests().len() < 6 {
        assert!(Instant::now() < end, "no probe came");
        ask(1);
    }
    proxy.log().wait("return", |line| line.contains("endpoint returned").then_some(()));
    assert_eq!(in_state(&proxy, "slow_start"), 1);
    let shown = endpoint(&proxy, bad.upstream.address);
    let share = shown["weight_share"].as_f64().unwrap();
    assert!((0.1..0.5).contains(&share), "{shown}");
    assert_eq!((&shown["state"], &shown["ejection"]), (&"slow_start".into(), &Value::Null));
}

/// `enforce: false` counts what would have happened, and `never` counts nothing.
#[test]
fn what_is_not_enforced_is_counted() {
    for (outliers, counted) in [("{ enforce: false }", 1), ("never", 0)] {
        let good = Upstream::ok("ok");
        let bad = Upstream::scripted(|_| answer(500, "", "no"));
        let setup = Setup::new(&[good.address, bad.address])
            .upstream(&format!("balance: round_robin, outliers: {outliers}"));
        let proxy = Proxy::start(&setup.yaml());
        let mut caller = Connection::open(proxy.address("outbound"));
        let mut failed = 0;
        for _ in 0..40 {
            caller.request("GET", "/", &[], b"");
            failed += u32::from(caller.reply().status == 500);
        }
        assert_eq!(failed, 20, "every second turn is its own");
        assert_eq!(ejections(&proxy, "consecutive", "false"), counted);
        assert_eq!(ejections(&proxy, "consecutive", "true"), 0);
        assert_eq!(in_state(&proxy, "ejected"), 0);
    }
}

/// However it fails, one endpoint alone stays: its answers are better than none.
#[test]
fn the_last_endpoint_is_never_ejected() {
    let bad = [
        Upstream::scripted(|_| answer(503, "", "a")),
        Upstream::scripted(|_| answer(503, "", "b")),
    ];
    let proxy = Proxy::start(&Setup::new(&[bad[0].address, bad[1].address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..40 {
        caller.request("GET", "/", &[], b"");
        let reply = caller.reply();
        assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, None));
    }
    assert_eq!((in_state(&proxy, "ejected"), in_state(&proxy, "ready")), (1, 1));
}

/// 429 and 4xx are answers.
#[test]
fn refusals_that_are_the_callers_fault_eject_nobody() {
    let upstreams = [429, 404].map(|status| Upstream::scripted(move |_| answer(status, "", "")));
    let proxy = Proxy::start(&Setup::new(&[upstreams[0].address, upstreams[1].address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..60 {
        caller.request("GET", "/", &[], b"");
        assert!(matches!(caller.reply().status, 429 | 404));
    }
    assert_eq!(in_state(&proxy, "ready"), 2);
}

/// The file is rewritten ten times a second, endpoints come and go, one fails: no request is lost, and the one that was
/// ejected stays so.
#[test]
fn endpoints_may_come_and_go_under_load() {
    let good: Vec<Upstream> = (0..4).map(|_| Upstream::ok("ok")).collect();
    let bad = refusing();
    let yaml = |turn: usize| {
        let stays = [good[0].address, good[1].address, bad];
        let comes = &good[2..][turn % 2..turn % 2 + 1];
        let endpoints: Vec<_> = stays.into_iter().chain(comes.iter().map(|u| u.address)).collect();
        Setup::new(&endpoints).upstream("balance: round_robin").yaml()
    };
    let proxy = Proxy::start(&yaml(0));
    let churning = AtomicBool::new(true);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while churning.load(Ordering::SeqCst) {
                turn += 1;
                assert_eq!(proxy.reload(&yaml(turn)).status, 200);
                pause(100);
            }
            assert!(turn > 20, "{turn} changes");
        });
        let seen = load(&proxy, 500, Duration::from_secs(4));
        churning.store(false, Ordering::SeqCst);
        seen
    });
    assert!(seen.asked > 1_000 && seen.failed == 0, "{seen:?}");
    assert_eq!(ejections(&proxy, "local_origin", "true"), 1, "it was ejected once, and stayed");
    assert_eq!(endpoint(&proxy, bad)["state"], "ejected");
}
