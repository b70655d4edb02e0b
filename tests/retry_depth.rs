//! Sidecars in a row: what they tell each other of attempts and of time, and that their retries do not multiply.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::{Proxy, Reply, Upstream, get, http, read_request};
use traffic::{Setup, answer, field, ok};

/// Pays for every retry: what holds the numbers down in these tests is not the budget.
const RICH: &str = "limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";

const THRICE: &str = "retry: { when: [gateway-error], attempts: 3, backoff: 1ms..1ms }";

/// A sidecar in front of `next`.
fn hop(next: SocketAddr, route: &str) -> Proxy {
    Proxy::start(&Setup::new(&[next]).route(route).upstream(RICH).yaml())
}

/// `count` sidecars in a row in front of `upstream`; the last of the list is the one to ask.
fn chain(upstream: SocketAddr, count: usize, route: &str) -> Vec<Proxy> {
    let mut hops: Vec<Proxy> = Vec::new();
    for _ in 0..count {
        let next = hops.last().map_or(upstream, |hop| hop.address("outbound"));
        hops.push(hop(next, route));
    }
    hops
}

fn ask(hops: &[Proxy], method: &str, headers: &[(&str, &str)]) -> Reply {
    http(hops.last().unwrap().address("outbound"), method, "/", headers, b"")
}

fn down() -> Upstream {
    Upstream::scripted(|_| answer(503, "", "down"))
}

fn suppressed(hop: &Proxy, reason: &str) -> f64 {
    hop.metrics().sum("outrigger_upstream_retries_suppressed_total", &[("reason", reason)])
}

#[test]
fn three_hops_with_three_attempts_are_three_requests_at_a_failing_upstream() {
    for count in 1..=3 {
        let upstream = down();
        let hops = chain(upstream.address, count, THRICE);
        for request in 1..=20 {
            let reply = ask(&hops, "GET", &[]);
            assert_eq!((reply.status, reply.text().as_str()), (503, "down"));
            assert_eq!(reply.header("x-outrigger-attempts"), Some("3"), "{count} hops");
            assert_eq!(upstream.requests().len(), 3 * request, "{count} hops");
        }
        let told: Vec<_> = upstream.requests().iter().map(|head| attempt_of(head)).collect();
        for request in told.chunks(3) {
            assert_eq!(request, [None, Some(2), Some(3)]);
        }
        assert!((suppressed(&hops[0], "retries_exhausted") - 20.0).abs() < 0.5);
        for above in &hops[1..] {
            assert!((suppressed(above, "tried_below") - 20.0).abs() < 0.5, "each is counted");
            let line = above.access_line(|line| line["status"] == 503);
            let told = (&line["attempts"], &line["retry_suppressed"]);
            assert_eq!(told, (&1.into(), &"tried_below".into()));
        }
    }
}

fn attempt_of(head: &str) -> Option<u32> {
    field(head, "x-outrigger-attempts").map(|number| number.parse().unwrap())
}

/// A proxy that knows nothing of us: passes requests and answers on, all their fields or none of ours.
fn stranger(next: SocketAddr, passes_on: bool) -> Upstream {
    let keeps = move |head: &[u8]| {
        let text = String::from_utf8(head.to_vec()).unwrap();
        let lines = text.split_inclusive("\r\n");
        lines.filter(|line| passes_on || !line.starts_with("x-outrigger-")).collect::<String>()
    };
    Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let mut upstream = TcpStream::connect(next).unwrap();
            let head = keeps(&request).replacen("\r\n", "\r\nConnection: close\r\n", 1);
            upstream.write_all(head.as_bytes()).unwrap();
            let mut reply = Vec::new();
            upstream.read_to_end(&mut reply).unwrap();
            if stream.get_mut().write_all(keeps(&reply).as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_hop_that_is_not_ours_loses_nothing_but_the_knowledge() {
    for (passes_on, each) in [(true, 3), (false, 9)] {
        let upstream = down();
        let below = hop(upstream.address, THRICE);
        let between = stranger(below.address("outbound"), passes_on);
        let above = hop(between.address, THRICE);
        for request in 1..=5 {
            assert_eq!(get(above.address("outbound"), "/").status, 503);
            assert_eq!(upstream.requests().len(), each * request, "passes on: {passes_on}");
        }
    }
    // And where all is well, nobody notices.
    let upstream = Upstream::ok("fine");
    let below = hop(upstream.address, THRICE);
    let between = stranger(below.address("outbound"), true);
    let above = hop(between.address, THRICE);
    let reply = get(above.address("outbound"), "/");
    assert_eq!((reply.text().as_str(), reply.header("x-outrigger-attempts")), ("fine", None));
}

#[test]
fn an_attempt_that_was_given_up_above_is_not_multiplied_below() {
    let silent = traffic::silent();
    let impatient = "retry: { when: [per-try-timeout, gateway-error], attempts: 3, per_try: 250ms, \
                     backoff: 1ms..1ms }";
    let hops = chain(silent.address, 3, impatient);
    let reply = ask(&hops, "GET", &[]);
    assert_eq!(reply.status, 504);
    let lowest = hops[0].wait_metrics("all ended", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
    });
    let attempts = lowest.sum("outrigger_upstream_attempts_total", &[]);
    // The first is tried thrice below at most, each of two more of the topmost once.
    assert!((3.0..=5.0).contains(&attempts), "{attempts}");
}

#[test]
fn a_refused_connection_is_tried_by_the_hop_that_sees_it_and_by_no_other() {
    let hops = chain(support::refusing(), 3, THRICE);
    let reply = ask(&hops, "POST", &[]);
    let told = (reply.status, reply.header("x-outrigger-attempts"));
    assert_eq!(told, (503, Some("3")));
    assert_eq!(reply.header("x-outrigger-reason"), Some("connect_failed"));
    let connects = |hop: &Proxy| hop.metrics().sum("outrigger_upstream_attempts_total", &[]);
    let made: Vec<f64> = hops.iter().map(connects).collect();
    assert_eq!(made.iter().map(|count| count.round()).collect::<Vec<_>>(), [3.0, 1.0, 1.0]);
}

#[test]
fn an_empty_budget_below_is_not_filled_from_above() {
    let upstream = down();
    let poor = "limits: { retry_budget: { ratio: 0%, floor: 0/s } }";
    let below = Setup::new(&[upstream.address]).route(THRICE).upstream(poor);
    let below = Proxy::start(&below.yaml());
    let above = hop(below.address("outbound"), THRICE);
    let reply = get(above.address("outbound"), "/");
    let told = (reply.status, reply.header("x-outrigger-attempts"));
    assert_eq!((told, upstream.requests().len()), ((503, Some("1")), 1));
    assert!((suppressed(&below, "retry_budget_empty") - 1.0).abs() < 0.5);
    assert!((suppressed(&above, "tried_below") - 1.0).abs() < 0.5);
}

#[test]
fn anyone_may_say_that_a_request_is_a_retry_and_only_saves_work_by_it() {
    let upstream = down();
    let hops = chain(upstream.address, 1, THRICE);
    for (value, attempts) in [("2", 1), ("1", 3), ("0", 3), ("many", 3), ("-1", 3), ("99999999", 1)]
    {
        let before = upstream.requests().len();
        ask(&hops, "GET", &[("x-outrigger-attempts", value)]);
        assert_eq!(upstream.requests().len() - before, attempts, "{value}");
    }
    assert!((suppressed(&hops[0], "tried_above") - 2.0).abs() < 0.5);
    // Of a listener that faces others, too.
    let inbound = Setup::new(&[upstream.address]).route(THRICE).upstream(RICH);
    let inbound = Proxy::start(&inbound.listener("direction: inbound").yaml());
    let before = upstream.requests().len();
    let twice = [("x-outrigger-attempts", "2")];
    http(inbound.address("outbound"), "GET", "/", &twice, b"");
    assert_eq!(upstream.requests().len() - before, 1);
}

#[test]
fn only_attempts_that_may_have_run_count_below() {
    let upstream = Upstream::scripted(|number| match number {
        0 => answer(503, "", "down"),
        _ => ok("fine"),
    });
    let below = hop(upstream.address, THRICE);
    let endpoints = [support::refusing(), below.address("outbound")];
    let setup = Setup::new(&endpoints).route("retry: { attempts: 3 }");
    let above = Proxy::start(&setup.upstream("balance: round_robin").yaml());
    // One of two goes to the one that refuses first; the hop below must still try again for both.
    for _ in 0..2 {
        assert_eq!(get(above.address("outbound"), "/").text(), "fine");
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn each_attempt_tells_the_next_hop_the_time_that_is_left() {
    let upstream = Upstream::scripted(|number| match number {
        0 => answer(503, "", "down"),
        _ => ok("fine"),
    });
    let paused = "timeout: 10s, retry: { when: [503], backoff: 100ms..100ms }";
    let hops = chain(upstream.address, 2, paused);
    assert_eq!(ask(&hops, "GET", &[]).text(), "fine");
    let told =
        |head: &String| -> u64 { field(head, "x-outrigger-timeout-ms").unwrap().parse().unwrap() };
    let told: Vec<u64> = upstream.requests().iter().map(told).collect();
    assert!(told.len() == 2 && told[0] <= 10_000 && told[1] <= told[0], "{told:?}");
    // A caller that has less time is the one that counts; one that has more is not.
    for (asked, most) in [("700", 700), ("60000", 10_000)] {
        ask(&hops, "GET", &[("x-outrigger-timeout-ms", asked)]);
        let head = upstream.requests().pop().unwrap();
        let told: u64 = field(&head, "x-outrigger-timeout-ms").unwrap().parse().unwrap();
        assert!((1..=most).contains(&told), "{asked}: {told}");
    }
    // Without a limit there is nothing to tell, and no call gets a deadline that its caller did not set.
    let hops = chain(upstream.address, 1, "timeout: unlimited");
    ask(&hops, "GET", &[]);
    assert_eq!(field(&upstream.requests().pop().unwrap(), "x-outrigger-timeout-ms"), None);
}
