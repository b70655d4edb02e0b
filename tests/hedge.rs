//! A second attempt raced against a slow first one: when it is made, who wins, and who pays.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use support::{Connection, Metrics, PATIENCE, Proxy, Upstream, get, http, read_request};
use traffic::{Setup, answer, drain, ok, silent};

fn hedges(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("outrigger_hedges_total", &[("route", "r"), ("outcome", outcome)])
}

fn attempts(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("outrigger_upstream_attempts_total", &[("outcome", outcome)])
}

fn is(found: f64, wanted: u32) -> bool {
    (found - f64::from(wanted)).abs() < 0.5
}

/// Never answers; tells when a request has come, and when its caller has cancelled it.
struct Slow {
    upstream: Upstream,
    asked: Receiver<()>,
    cancelled: Receiver<()>,
}

impl Slow {
    fn new() -> Self {
        let (asking, asked) = channel();
        let (cancelling, cancelled) = channel();
        let told: Mutex<(Sender<()>, Sender<()>)> = Mutex::new((asking, cancelling));
        let upstream = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            while read_request(&mut stream).is_some() {
                told.lock().unwrap().0.send(()).unwrap();
                drain(&mut stream);
                told.lock().unwrap().1.send(()).unwrap();
            }
        });
        Self { upstream, asked, cancelled }
    }
}

/// Turns from one endpoint to the next, and a budget that pays for everything unless `keys` say otherwise.
fn setup(endpoints: &[SocketAddr], keys: &str) -> Setup {
    Setup::new(endpoints)
        .route(&format!("name: r, {keys}"))
        .upstream("balance: round_robin, limits: { retry_budget: 100% }")
}

#[test]
fn one_slow_endpoint_of_three_delays_nobody() {
    let slow = Slow::new();
    let fast: Vec<Upstream> = (0..2).map(|_| Upstream::ok("fast")).collect();
    let endpoints = [slow.upstream.address, fast[0].address, fast[1].address];
    let proxy = Proxy::start(&setup(&endpoints, "timeout: 15s, hedge: { after: 100ms }").yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..30 {
        caller.request("GET", "/", &[], b"");
        let reply = caller.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "fast"));
    }
    // Each that came to the slow one was cancelled there, and answered by another.
    let came = slow.asked.try_iter().count();
    assert!((5..=20).contains(&came), "{came}");
    for _ in 0..came {
        slow.cancelled.recv_timeout(PATIENCE).unwrap();
    }
    let metrics = proxy.metrics();
    let (won, lost) = (hedges(&metrics, "won"), hedges(&metrics, "lost"));
    // On a busy machine a fast one may be hedged as well; whichever loses is cancelled.
    assert!(won + lost >= f64::from(u32::try_from(came).unwrap()) - 0.5, "{}", metrics.text);
    assert!((attempts(&metrics, "cancelled") - won - lost).abs() < 0.5, "{}", metrics.text);
    assert!(is(attempts(&metrics, "success"), 30), "{}", metrics.text);
    assert!(is(metrics.sum("outrigger_upstream_retries_total", &[]), 0));
    assert!(is(metrics.sum("outrigger_upstream_in_flight", &[]), 0));
    let line = proxy.access_line(|line| line["attempts"] == 2);
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &serde_json::Value::Null));
    assert_ne!(line["endpoint"], slow.upstream.address.to_string());
}

#[test]
fn the_first_attempt_may_still_win_and_the_second_is_cancelled() {
    // Both are asked before either answers; the one that was asked first does.
    let (told, came) = channel::<(usize, Sender<bool>)>();
    let told = Arc::new(Mutex::new(told));
    let (over, ended) = channel();
    let over = Arc::new(Mutex::new(over));
    let endpoint = |number: usize| {
        let (told, over) = (Arc::clone(&told), Arc::clone(&over));
        Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            if read_request(&mut stream).is_none() {
                return;
            }
            let (go, going) = channel();
            told.lock().unwrap().send((number, go)).unwrap();
            if going.recv().unwrap_or(false) {
                stream.get_mut().write_all(&ok(&format!("from {number}"))).unwrap();
            }
            drain(&mut stream);
            let _whoever = over.lock().unwrap().send(number);
        })
    };
    let (a, b) = (endpoint(0), endpoint(1));
    let proxy = Proxy::start(&setup(&[a.address, b.address], "hedge: 30ms").yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    let (first, go) = came.recv_timeout(PATIENCE).unwrap();
    let (second, wait) = came.recv_timeout(PATIENCE).unwrap();
    assert_ne!(first, second);
    go.send(true).unwrap();
    assert_eq!(caller.reply().text(), format!("from {first}"));
    drop(wait);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), second, "the loser's connection was closed");
    let metrics = proxy.metrics();
    assert!(is(hedges(&metrics, "lost"), 1) && is(hedges(&metrics, "won"), 0), "{}", metrics.text);
    assert!(is(attempts(&metrics, "success"), 1) && is(attempts(&metrics, "cancelled"), 1));
}

#[test]
fn what_may_not_run_twice_is_sent_once() {
    let slow = [Slow::new(), Slow::new()];
    let endpoints = [slow[0].upstream.address, slow[1].upstream.address];
    let proxy =
        Proxy::start(&setup(&endpoints, "timeout: 500ms, retry: never, hedge: 20ms").yaml());
    let to = proxy.address("outbound");
    let asked = || slow.iter().map(|slow| slow.asked.try_iter().count()).sum::<usize>();
    assert_eq!(http(to, "POST", "/", &[], b"body").status, 504);
    assert_eq!(asked(), 1);
    assert!(is(proxy.metrics().sum("outrigger_hedges_total", &[]), 0));
    assert_eq!(http(to, "POST", "/", &[("Idempotency-Key", "k")], b"body").status, 504);
    assert_eq!(asked(), 2);
    assert!(is(hedges(&proxy.metrics(), "failed"), 1));
}

#[test]
fn a_body_that_came_whole_is_sent_twice_and_no_other() {
    let slow = Slow::new();
    let fast = Upstream::ok("fast");
    let keys = "timeout: 700ms, retry: { replay: 1KiB }, hedge: 250ms";
    let endpoints = [slow.upstream.address, fast.address];
    let proxy = Proxy::start(&setup(&endpoints, keys).yaml());
    let to = proxy.address("outbound");
    let put = |body: &[u8]| http(to, "PUT", "/", &[], body);
    let (mut twice, mut once) = (0, 0);
    for round in 0..6 {
        let body = vec![b'z'; if round % 2 == 0 { 1_000 } else { 2_000 }];
        // Two rounds of each size come to the slow one first or not, as the turn has it.
        let reply = put(&body);
        let came = slow.asked.try_iter().count() > 0;
        match (came, body.len()) {
            (true, 1_000) => {
                twice += 1;
                assert_eq!(reply.text(), "fast");
            }
            (true, _) => {
                once += 1;
                assert_eq!(reply.status, 504);
            }
            (false, _) => assert_eq!(reply.text(), "fast"),
        }
    }
    let metrics = proxy.metrics();
    assert!(is(hedges(&metrics, "won"), twice), "{}", metrics.text);
    assert!(is(hedges(&metrics, "body_not_kept"), once), "{}", metrics.text);
    assert!(twice + once >= 2);
    let whole = fast.requests().iter().filter(|request| request.ends_with('z')).count();
    assert_eq!(whole, fast.requests().len());
}

#[test]
fn the_retry_budget_pays() {
    let slow = Slow::new();
    let fast = Upstream::ok("fast");
    let keys = "timeout: 300ms, retry: never, hedge: 20ms";
    let mut setup = setup(&[slow.upstream.address, fast.address], keys);
    setup.upstream =
        "balance: round_robin, limits: { retry_budget: { ratio: 0%, floor: 0/s } }".to_owned();
    let proxy = Proxy::start(&setup.yaml());
    let statuses: Vec<u16> = (0..4).map(|_| get(proxy.address("outbound"), "/").status).collect();
    let failed = u32::try_from(statuses.iter().filter(|status| **status == 504).count()).unwrap();
    assert!(failed >= 1, "{statuses:?}");
    let metrics = proxy.metrics();
    let refused = hedges(&metrics, "retry_budget_empty");
    assert!(refused > f64::from(failed) - 0.5, "{}", metrics.text);
    assert!((metrics.sum("outrigger_hedges_total", &[]) - refused).abs() < 0.5, "nothing else");
}

#[test]
fn without_another_endpoint_or_a_place_there_is_no_second_attempt() {
    for (endpoints, limits, outcome) in
        [(1, "", "no_other_endpoint"), (2, ", in_flight: 1", "limit_reached")]
    {
        let silent: Vec<Upstream> = (0..endpoints).map(|_| silent()).collect();
        let addresses: Vec<SocketAddr> = silent.iter().map(|one| one.address).collect();
        let mut setup = setup(&addresses, "timeout: 300ms, retry: never, hedge: 20ms");
        setup.upstream = format!("limits: {{ retry_budget: 100%{limits} }}");
        let proxy = Proxy::start(&setup.yaml());
        assert_eq!(get(proxy.address("outbound"), "/").status, 504);
        let metrics = proxy.metrics();
        assert!(is(hedges(&metrics, outcome), 1), "{outcome}: {}", metrics.text);
        assert!(is(attempts(&metrics, "timeout"), 1));
    }
}

#[test]
fn a_bad_answer_waits_for_a_good_one() {
    // The first is slow and good, the second fast and bad; then the other way round.
    let slow_good = |body: &'static str| {
        Upstream::scripted(move |_| {
            traffic::pause(300);
            answer(200, "", body)
        })
    };
    let bad = Upstream::scripted(|_| answer(503, "", "bad"));
    let good = slow_good("good");
    let keys = "retry: never, hedge: 30ms";
    let proxy = Proxy::start(&setup(&[good.address, bad.address], keys).yaml());
    let replies: Vec<(u16, String)> = (0..4)
        .map(|_| {
            let reply = get(proxy.address("outbound"), "/");
            (reply.status, reply.text())
        })
        .collect();
    // Whoever comes to the bad one first gets its answer at once: that is a retry's business.
    for (status, text) in &replies {
        assert!(matches!((status, text.as_str()), (200, "good") | (503, "bad")), "{replies:?}");
    }
    let good_ones = replies.iter().filter(|(status, _)| *status == 200).count();
    assert!(good_ones >= 1, "{replies:?}");
    let metrics = proxy.metrics();
    let raced = hedges(&metrics, "lost") + hedges(&metrics, "won");
    assert!(is(raced, u32::try_from(good_ones).unwrap()), "{}", metrics.text);
}

#[test]
fn where_both_fail_the_retry_policy_decides() {
    let seen = Arc::new(Mutex::new(0));
    let failing = |seen: Arc<Mutex<usize>>| {
        Upstream::scripted(move |_| {
            let number = {
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                *seen
            };
            if number > 2 {
                return answer(200, "", "third");
            }
            traffic::pause(150);
            answer(503, "", "bad")
        })
    };
    let upstreams = [failing(Arc::clone(&seen)), failing(Arc::clone(&seen))];
    let endpoints = [upstreams[0].address, upstreams[1].address];
    let keys = "retry: { when: [gateway-error], attempts: 3, backoff: 1ms..1ms }, hedge: 30ms";
    let proxy = Proxy::start(&setup(&endpoints, keys).yaml());
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "third"));
    let line = proxy.access_line(|line| line["status"] == 200);
    assert_eq!(line["attempts"], 3);
    let metrics = proxy.metrics();
    assert!(is(hedges(&metrics, "failed"), 1), "{}", metrics.text);
    let retried = [("reason", "gateway_error")];
    assert!(is(metrics.sum("outrigger_upstream_retries_total", &retried), 1));
}

#[test]
fn a_percentile_is_learned_before_it_hedges() {
    let slow = Slow::new();
    let fast: Vec<Upstream> = (0..2).map(|_| Upstream::ok("fast")).collect();
    // The slow one is not there yet.
    let yaml =
        |endpoints: &[SocketAddr]| setup(endpoints, "timeout: 10s, hedge: { after: p90 }").yaml();
    let proxy = Proxy::start(&yaml(&[fast[0].address, fast[1].address]));
    let ask = |times: usize| {
        let mut caller = Connection::open(proxy.address("outbound"));
        for _ in 0..times {
            caller.request("GET", "/", &[], b"");
            let reply = caller.reply();
            assert_eq!(reply.text(), "fast", "{}", proxy.metrics().text);
        }
    };
    ask(200);
    // The percentile is looked up ten times a second.
    traffic::pause(110);
    assert_eq!(
        proxy.reload(&yaml(&[slow.upstream.address, fast[0].address, fast[1].address])).status,
        200
    );
    ask(12);
    let came = u32::try_from(slow.asked.try_iter().count()).unwrap();
    assert!(came >= 2, "{came}");
    let metrics = proxy.metrics();
    let raced = hedges(&metrics, "won") + hedges(&metrics, "lost");
    assert!(raced >= f64::from(came) - 0.5, "{raced} of {came}");
}

#[test]
fn a_caller_that_leaves_ends_both() {
    let slow = [Slow::new(), Slow::new()];
    let endpoints = [slow[0].upstream.address, slow[1].upstream.address];
    let proxy = Proxy::start(&setup(&endpoints, "timeout: 15s, hedge: 20ms").yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    slow.iter().for_each(|slow| slow.asked.recv_timeout(PATIENCE).unwrap());
    drop(caller);
    slow.iter().for_each(|slow| slow.cancelled.recv_timeout(PATIENCE).unwrap());
    let metrics = proxy.wait_metrics("the end", |metrics| is(attempts(metrics, "cancelled"), 2));
    assert!(is(hedges(&metrics, "cancelled"), 1), "{}", metrics.text);
    proxy.wait_metrics("nothing held", |metrics| {
        is(metrics.sum("outrigger_upstream_in_flight", &[]), 0)
    });
}

#[test]
fn on_http2_the_loser_is_told_to_cancel() {
    let (told, cancelled) = channel();
    let told = Mutex::new(told);
    let slow = Upstream::serve(move |_, stream| {
        let Some(mut raw) = http2::Raw::accept(stream, None) else { return };
        while raw.request().is_some() {
            let Some(reset) = raw.wait(http2::RST_STREAM) else { return };
            told.lock().unwrap().send(reset.payload).unwrap();
        }
    });
    let fast = Upstream::serve(|_, stream| {
        if let Some(mut raw) = http2::Raw::accept(stream, None) {
            raw.serve("fast");
        }
    });
    let mut setup = setup(&[slow.address, fast.address], "timeout: 15s, hedge: 40ms");
    setup.upstream =
        "protocol: http2, balance: round_robin, limits: { retry_budget: 100% }".to_owned();
    let proxy = Proxy::start(&setup.yaml());
    for _ in 0..4 {
        assert_eq!(get(proxy.address("outbound"), "/").text(), "fast");
    }
    let metrics = proxy.metrics();
    let won = hedges(&metrics, "won");
    assert!(won > 0.5, "{}", metrics.text);
    let mut came = 0.0;
    while came < won - 0.5 {
        let code = cancelled.recv_timeout(PATIENCE).unwrap();
        assert_eq!(code, http2::CANCEL.to_be_bytes());
        came += 1.0;
    }
}
