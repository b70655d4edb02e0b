//! More than an upstream can take: what is served, what is refused, and what is not wasted; throttle and adaptive limit.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/overload.rs"]
mod overload;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use overload::{Slots, offer};
use support::{Connection, Metrics, Proxy, Upstream, get};
use traffic::{Setup, answer, ok, silent};

fn page(proxy: &Proxy) -> serde_json::Value {
    let text = get(proxy.address("admin"), "/upstreams").text();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
}

#[test]
fn at_three_times_the_capacity_no_work_is_wasted_and_the_excess_is_refused() {
    for (name, keys) in [
        ("fixed", "limits: { in_flight: 8, pending: 256, queue: 200ms }"),
        ("gradient", "adaptive: gradient, limits: { pending: 256, queue: 200ms }"),
    ] {
        let slots = Slots::new(8, Duration::from_millis(40));
        let setup = Setup::new(&[slots.upstream.address]).upstream(keys).workers(2);
        let proxy = Proxy::start(&setup.yaml());
        let rate = slots.capacity() * 3.0;
        let offered = offer(proxy.address("outbound"), rate, Duration::from_secs(3), 120);
        assert_eq!(offered.served + offered.refused.len(), offered.all, "{name}");
        // Whatever the upstream has done has reached a caller.
        assert_eq!(offered.served, slots.served.load(Ordering::SeqCst) as usize, "{name}");
        let most = slots.most.load(Ordering::SeqCst);
        // What latency finds is as high as the latencies of this machine: its bound is held in virtual time.
        assert!(most <= if name == "fixed" { 8 } else { 119 }, "{name}: {most} of 120 at once");
        let early = |(_, reason): &&(Duration, String)| reason == "limit_reached";
        let at_once = offered.refused.iter().filter(early).count();
        assert!(at_once > 0, "{name}: nobody was refused at its arrival");
        let capacity = slots.capacity() * offered.elapsed.as_secs_f64();
        let goodput = offered.served as f64 / capacity;
        let (used, median) = (slots.used(offered.elapsed), offered.median_refusal());
        println!("{name}: {goodput:.2} of the capacity, {used:.2} used, refused in {median:?}");
        // The bar itself is held in virtual time (src/upstream/tests.rs) and by benches/overload.rs; this machine may starve.
        assert!(used > 0.2, "{name}: {used} of its time in use, {goodput} of the capacity");
        let metrics = proxy.wait_metrics("nothing waits", |metrics| {
            metrics.sum("outrigger_upstream_pending", &[]) < 0.5
                && metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
        });
        let rejected = metrics.sum("outrigger_upstream_rejected_total", &[]);
        assert!((rejected - offered.refused.len() as f64).abs() < 0.5, "{name}: {rejected}");
        if name == "gradient" {
            let limit = metrics.sum("outrigger_upstream_concurrency_limit", &[]);
            assert_eq!(page(&proxy)["limits"]["in_flight"]["maximum"].as_f64(), Some(limit));
            assert!((3.0..=1_024.0).contains(&limit), "{limit}");
        }
    }
}

#[test]
fn behind_an_upstream_that_hangs_nobody_joins_a_queue_that_does_not_move() {
    let keys = "limits: { in_flight: 1, pending: 256, queue: 1s }";
    let proxy = Proxy::start(&Setup::new(&[silent().address]).upstream(keys).yaml());
    let to = proxy.address("outbound");
    // One has the place, one waits for it.
    let mut asks: Vec<Connection> = (0..2).map(|_| Connection::open(to)).collect();
    asks.iter_mut().for_each(|ask| ask.request("GET", "/", &[], b""));
    proxy.wait_metrics("one waits", |m| m.sum("outrigger_upstream_pending", &[]) > 0.5);
    let patient = support::http(to, "GET", "/", &[("x-outrigger-timeout-ms", "1")], b"");
    assert_eq!(patient.status, 503, "{}", patient.text());
    let reason = patient.header("x-outrigger-reason");
    assert_eq!(reason, Some("limit_reached"), "its deadline was lost when it came");
}

#[test]
fn an_upstream_that_turns_requests_away_is_spared_some_and_all_of_them_return() {
    let refuses = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refuses);
    let upstream = Upstream::scripted(move |_| match told.load(Ordering::SeqCst) {
        true => answer(503, "", "not now"),
        false => ok("fine"),
    });
    let setup = Setup::new(&[upstream.address]).upstream("throttle: { k: 2 }").workers(2);
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let probability =
        |metrics: &Metrics| metrics.sum("outrigger_upstream_throttle_probability", &[]);
    for _ in 0..20 {
        assert_eq!(get(to, "/").status, 200);
    }
    assert!(probability(&proxy.metrics()).abs() < 1e-9);
    refuses.store(true, Ordering::SeqCst);
    proxy.wait_metrics("throttled", |metrics| {
        get(to, "/");
        probability(metrics) > 0.4
    });
    let reached = upstream.requests().len();
    let spared = |reason: Option<&str>| reason == Some("overload");
    let replies: Vec<_> = (0..100).map(|_| get(to, "/")).collect();
    let refused = replies.iter().filter(|r| spared(r.header("x-outrigger-reason"))).count();
    assert!(replies.iter().all(|reply| reply.status == 503));
    assert_eq!(upstream.requests().len() - reached + refused, 100);
    assert!((20..100).contains(&refused), "{refused}");
    assert_eq!(proxy.access_line(|line| line["reason"] == "overload")["flag"], "OM");
    let throttle = &page(&proxy)["throttle"];
    assert!(throttle["window"]["wanted"].as_u64() > throttle["window"]["accepted"].as_u64());
    refuses.store(false, Ordering::SeqCst);
    proxy.wait_metrics("all of them again", |metrics| {
        get(to, "/");
        probability(metrics).abs() < 1e-9
    });
    for _ in 0..50 {
        assert_eq!(get(to, "/").status, 200);
    }
}
