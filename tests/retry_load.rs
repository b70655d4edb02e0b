//! What retries must save and may cost, counted over thousands of requests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use outrigger::base::rng::Rng;
use tokio::time::Instant;

use http2::Raw;
use support::{Connection, Metrics, Proxy, Upstream, read_request, refusing};
use traffic::{Setup, answer, ok};

/// Sends `requests` in all from `callers` at once, each on one connection, and returns how often each status came.
fn send(
    to: SocketAddr,
    method: &'static str,
    callers: usize,
    requests: usize,
    body: impl Fn(usize) -> String + Send + Sync + 'static,
) -> HashMap<u16, Vec<usize>> {
    let body = Arc::new(body);
    let callers: Vec<_> = (0..callers)
        .map(|first| {
            let body = Arc::clone(&body);
            std::thread::spawn(move || {
                let mut caller = Connection::open(to);
                let numbers = (first..requests).step_by(callers);
                numbers
                    .map(|number| {
                        caller.request(method, "/", &[], body(number).as_bytes());
                        (caller.reply().status, number)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut statuses: HashMap<u16, Vec<usize>> = HashMap::new();
    for caller in callers {
        for (status, number) in caller.join().unwrap() {
            statuses.entry(status).or_default().push(number);
        }
    }
    statuses
}

fn count(statuses: &HashMap<u16, Vec<usize>>, status: u16) -> usize {
    statuses.get(&status).map_or(0, Vec::len)
}

fn retries(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("outrigger_upstream_retries_total", &[("reason", reason)])
}

#[test]
fn one_of_three_endpoints_that_refuses_is_never_seen_by_a_get() {
    let good = [Upstream::ok("good"), Upstream::ok("good")];
    let yaml = format!(
        "admin: 127.0.0.1:0\n\n\
         listeners:\n  outbound:\n    bind: 127.0.0.1:0\n    routes:\n      - to: articles\n\n\
         upstreams:\n  articles:\n    endpoints: [\"{}\", \"{}\", \"{}\"]\n",
        good[0].address,
        refusing(),
        good[1].address
    );
    let proxy = Proxy::start(&yaml);
    let statuses = send(proxy.address("outbound"), "GET", 4, 4_000, |_| String::new());
    assert_eq!(count(&statuses, 200), 4_000, "{:?}", statuses.keys());
    let served: usize = good.iter().map(|upstream| upstream.requests().len()).sum();
    assert_eq!(served, 4_000, "each ran once");
}

/// Answers one request of each connection and ends it just as the next one arrives: read or unread, by FIN or by RST.
fn racing() -> (Upstream, Arc<AtomicUsize>) {
    let executed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executed);
    let upstream = Upstream::serve(move |number, stream| {
        let mut stream = BufReader::new(stream);
        let serve = |stream: &mut BufReader<TcpStream>| {
            read_request(stream)?;
            counted.fetch_add(1, Ordering::Relaxed);
            Some(())
        };
        if serve(&mut stream).is_none() || stream.get_mut().write_all(&ok("ok")).is_err() {
            return;
        }
        match number % 3 {
            // At once: the end and the next request pass each other.
            0 => {}
            // When it arrives, unread: RST.
            1 => drop(stream.get_ref().peek(&mut [0])),
            // When it was read: FIN.
            _ => drop(serve(&mut stream)),
        }
    });
    (upstream, executed)
}

#[test]
fn an_upstream_that_closes_under_each_reuse_is_never_seen_by_a_get() {
    // With nothing but the default budget.
    for (workers, callers, requests) in [(1, 1, 3_000), (4, 16, 10_000)] {
        let (upstream, executed) = racing();
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).workers(workers).yaml());
        let to = proxy.address("outbound");
        let statuses = send(to, "GET", callers, requests, |_| String::new());
        if count(&statuses, 200) < requests {
            println!("{}", proxy.access_line(|line| line["status"] != 200));
        }
        assert_eq!(count(&statuses, 200), requests, "{callers} callers: {:?}", statuses.keys());
        let metrics = proxy.wait_metrics("the count of rests", |metrics| {
            metrics.sum("outrigger_upstream_reuse_rests_total", &[]) > 0.5
        });
        let raced = retries(&metrics, "keep_alive_race");
        assert!((1.0..200.0).contains(&raced), "the race happened, and ended: {raced}");
        let executed = executed.load(Ordering::Relaxed);
        assert!((requests..requests + 200).contains(&executed), "{executed}");
    }
}

#[test]
fn a_post_in_the_keep_alive_race_runs_at_most_once_and_seldom_fails() {
    let (upstream, executed) = racing();
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let statuses = send(proxy.address("outbound"), "POST", 2, 5_000, |number| number.to_string());
    let (answered, unclear) = (count(&statuses, 200), count(&statuses, 502));
    assert_eq!(answered + unclear, 5_000, "{:?}", statuses.keys());
    assert!(unclear < 50, "the race ends for them, too: {unclear}");
    let executed = executed.load(Ordering::Relaxed);
    assert!((answered..=5_000).contains(&executed), "{answered} answered, {executed} executed");
}

/// Serves requests and ends connections at random: before, during and after a request's bytes. What it has read whole
/// is executed, and noted under the request's body.
fn unreliable(seed: u64, executed: &Arc<Mutex<HashMap<String, usize>>>) -> Upstream {
    let executed = Arc::clone(executed);
    Upstream::serve(move |number, stream| {
        let mut rng = Rng::from_seed(seed + 1_000 * number as u64);
        let mut stream = BufReader::new(stream);
        loop {
            match rng.below(20) {
                // Before: as soon as it is there, or as soon as the next request's first byte is.
                0 => return,
                1 => return drop(stream.get_ref().peek(&mut [0])),
                // During.
                2 => return drop(stream.read_exact(&mut vec![0; 1 + rng.below(150)])),
                _ => {}
            }
            let Some(request) = read_request(&mut stream) else { return };
            let request = String::from_utf8(request).unwrap();
            let (_, id) = request.split_once("\r\n\r\n").unwrap();
            *executed.lock().unwrap().entry(id.to_owned()).or_default() += 1;
            // After.
            if rng.below(20) == 0 || stream.get_mut().write_all(&ok("done")).is_err() {
                return;
            }
        }
    })
}

#[test]
fn no_post_ever_runs_twice_and_what_did_not_run_succeeds_elsewhere() {
    const SEED: u64 = 20_261_121;
    let executed: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let upstreams: Vec<Upstream> =
        (0..3).map(|number| unreliable(SEED + number, &executed)).collect();
    let mut endpoints: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    endpoints.push(refusing());
    // Every ground is listed: nothing but the method holds a second run back.
    let route = "retry: { when: [reset, 5xx, per-try-timeout], backoff: 1ms..1ms }";
    // Ejection would keep traffic away from what this is about.
    let upstream = "balance: round_robin, outliers: never, limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";
    let setup = Setup::new(&endpoints).workers(2).route(route).upstream(upstream);
    let proxy = Proxy::start(&setup.yaml());
    let statuses = send(proxy.address("outbound"), "POST", 8, 10_000, |number| {
        format!("order {number};{}", ".".repeat(number % 300))
    });
    let executed = executed.lock().unwrap();
    let times: Vec<usize> = (0..10_000)
        .map(|number| {
            let id = format!("order {number};{}", ".".repeat(number % 300));
            executed.get(&id).copied().unwrap_or(0)
        })
        .collect();
    assert_eq!(times.iter().max(), Some(&1), "seed {SEED}");
    for (status, least, most) in [(200, 1, 1), (502, 0, 1), (503, 0, 0)] {
        for number in statuses.get(&status).into_iter().flatten() {
            let range = least..=most;
            assert!(range.contains(&times[*number]), "{status} for {number}, seed {SEED}");
        }
    }
    let (answered, unclear, not_run) =
        (count(&statuses, 200), count(&statuses, 502), count(&statuses, 503));
    assert_eq!(answered + unclear + not_run, 10_000, "{:?}", statuses.keys());
    assert!(unclear > 100, "there were resets: {unclear}");
    let metrics = proxy.metrics();
    let elsewhere = retries(&metrics, "safe");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let not_run = not_run as f64;
    assert!(elsewhere > 100.0, "there were refusals: {elsewhere}");
    assert!(not_run <= 0.01 * elsewhere, "{not_run} of {elsewhere} did not succeed elsewhere");
    let repeated: f64 = ["reset", "keep_alive_race", "per_try_timeout"]
        .map(|reason| retries(&metrics, reason))
        .iter()
        .sum();
    assert!(repeated < 0.5, "{repeated}");
    proxy.wait_metrics("every place given back", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
            && metrics.sum("outrigger_upstream_pending", &[]) < 0.5
    });
}

/// The same over HTTP/2: refuses streams before it looks at them, resets them when they have run, goes away in between.
fn unreliable_http2(seed: u64, executed: &Arc<Mutex<HashMap<String, usize>>>) -> Upstream {
    const WINDOW_UPDATE: u8 = 8;
    let executed = Arc::clone(executed);
    Upstream::serve(move |number, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        let mut rng = Rng::from_seed(seed + 1_000 * number as u64);
        let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
        while let Some(frame) = raw.next() {
            match frame.kind {
                http2::HEADERS if rng.below(20) == 0 => {
                    raw.reset(frame.stream, http2::REFUSED_STREAM);
                }
                http2::HEADERS if rng.below(200) == 0 => {
                    // Neither this one nor any after it.
                    raw.go_away(frame.stream - 2, 0);
                    return;
                }
                http2::HEADERS => drop(bodies.insert(frame.stream, Vec::new())),
                http2::DATA if !frame.payload.is_empty() => {
                    let length = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                    raw.send(WINDOW_UPDATE, 0, 0, &length);
                    if let Some(body) = bodies.get_mut(&frame.stream) {
                        body.extend(frame.payload);
                    }
                }
                _ => {}
            }
            if frame.flags & http2::END_STREAM == 0 || frame.kind != http2::DATA {
                continue;
            }
            let Some(id) = bodies.remove(&frame.stream) else { continue };
            *executed.lock().unwrap().entry(String::from_utf8(id).unwrap()).or_default() += 1;
            match rng.below(20) {
                0 => raw.reset(frame.stream, http2::CANCEL),
                _ => raw.answer(frame.stream, "done"),
            }
        }
    })
}

#[test]
fn no_post_runs_twice_over_http2_either() {
    const SEED: u64 = 7;
    let executed: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let upstreams: Vec<Upstream> =
        (0..3).map(|number| unreliable_http2(SEED + number, &executed)).collect();
    let endpoints: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let route = "retry: { when: [reset, 5xx, per-try-timeout], attempts: 4, backoff: 1ms..1ms }";
    let upstream = "protocol: http2, outliers: never, limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";
    let setup = Setup::new(&endpoints).workers(2).route(route).upstream(upstream);
    let proxy = Proxy::start(&setup.yaml());
    let id = |number: usize| format!("order {number};{}", ".".repeat(number % 300));
    let statuses = send(proxy.address("outbound"), "POST", 8, 10_000, id);
    let executed = executed.lock().unwrap();
    assert_eq!(executed.values().max(), Some(&1), "seed {SEED}");
    let ran = |number: usize| executed.get(&id(number)).copied().unwrap_or(0);
    for (status, least, most) in [(200, 1, 1), (502, 0, 1), (503, 0, 0)] {
        for number in statuses.get(&status).into_iter().flatten() {
            let times = ran(*number);
            assert!((least..=most).contains(&times), "{status} for {number}, seed {SEED}");
        }
    }
    let (unclear, not_run) = (count(&statuses, 502), count(&statuses, 503));
    assert_eq!(count(&statuses, 200) + unclear + not_run, 10_000, "{:?}", statuses.keys());
    assert!(unclear > 100, "there were resets: {unclear}");
    let elsewhere = retries(&proxy.metrics(), "safe");
    assert!(elsewhere > 300.0, "there were refusals: {elsewhere}");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let not_run = not_run as f64;
    assert!(not_run <= 0.01 * elsewhere, "{not_run} of {elsewhere} did not succeed elsewhere");
}

/// Attempts that a proxy of `setup` makes for `requests` of eight callers, which all get 503, and the most that they may be.
fn attempts_in_outage(setup: &Setup, requests: usize) -> (f64, f64) {
    let proxy = Proxy::start(&setup.yaml());
    let start = Instant::now();
    let statuses = send(proxy.address("outbound"), "GET", 8, requests, |_| String::new());
    assert_eq!(count(&statuses, 503), requests);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let most = 1.2 * requests as f64 + 3.0 * start.elapsed().as_secs_f64() + 3.0;
    (proxy.metrics().sum("outrigger_upstream_attempts_total", &[]), most)
}

#[test]
fn an_outage_of_refused_connections_costs_no_more_than_the_budget() {
    for workers in [1, 4] {
        for endpoints in 1..=3 {
            let endpoints: Vec<_> = (0..endpoints).map(|_| refusing()).collect();
            let setup = Setup::new(&endpoints).workers(workers);
            let (attempts, most) = attempts_in_outage(&setup, 1_000);
            assert!(attempts <= most, "{workers} workers: {attempts} attempts, at most {most}");
            assert!(attempts >= 1_150.0, "the budget is used: {attempts}");
        }
    }
}

#[test]
fn while_one_endpoint_takes_connections_nobody_sees_that_others_do_not() {
    let good = Upstream::scripted(|_| ok("done"));
    let endpoints = [refusing(), good.address, refusing()];
    // Nothing but what is on without a word, and not even a budget or an ejection.
    let upstream = "outliers: never, balance: round_robin, limits: { retry_budget: { ratio: 0%, floor: 0/s } }";
    for upstream in ["balance: peak_ewma", upstream] {
        for workers in [1, 4] {
            let setup = Setup::new(&endpoints).upstream(upstream).workers(workers);
            let proxy = Proxy::start(&setup.yaml());
            for method in ["GET", "POST"] {
                let statuses = send(proxy.address("outbound"), method, 8, 400, |_| String::new());
                assert_eq!(count(&statuses, 200), 400, "{:?}", statuses.keys());
            }
        }
    }
}

#[test]
fn a_total_outage_costs_no_more_than_the_budget() {
    for workers in [1, 4] {
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let upstream = Upstream::scripted(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(503, "", "down")
        });
        let route = "retry: { when: [gateway-error], attempts: 5, backoff: 1ms..1ms }";
        let setup = Setup::new(&[upstream.address]).route(route).workers(workers);
        let proxy = Proxy::start(&setup.yaml());
        let start = Instant::now();
        let statuses = send(proxy.address("outbound"), "GET", 8, 2_000, |_| String::new());
        assert_eq!(count(&statuses, 503), 2_000);
        let seconds = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let attempts = attempts.load(Ordering::Relaxed) as f64;
        let most = 1.2 * 2_000.0 + 3.0 * seconds + 3.0;
        assert!(attempts <= most, "{workers} workers: {attempts} attempts, at most {most}");
        assert!(attempts >= 2_350.0, "the budget is used: {attempts}");
        let suppressed = "outrigger_upstream_retries_suppressed_total";
        let suppressed = proxy.metrics().sum(suppressed, &[]);
        assert!((suppressed - 2_000.0).abs() < 0.5, "each wanted one more: {suppressed}");
    }
}
