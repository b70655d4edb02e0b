//! What is sent again, what never is, and who is told about it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Proxy, Upstream, get, http, read_request, refusing};
use traffic::{Setup, answer, ok};

/// Fails the first request for each path as the path's last segment says, and answers all others on fresh connections.
fn failing_first() -> Upstream {
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let close = "Connection: close\r\n";
    Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        let Some(request) = read_request(&mut stream) else { return };
        let request = String::from_utf8_lossy(&request).into_owned();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let times = {
            let mut seen = seen.lock().unwrap();
            let times = seen.entry(path.clone()).or_default();
            *times += 1;
            *times
        };
        let answer = match path.rsplit('/').next().unwrap() {
            _ if times > 1 => answer(200, close, "second"),
            "reset" => return,
            "hang" => {
                traffic::drain(&mut stream);
                return;
            }
            "grpc14" => answer(200, "Connection: close\r\ngrpc-status: 14\r\n", ""),
            "grpc13" => answer(200, "Connection: close\r\ngrpc-status: 13\r\n", ""),
            status => answer(status.parse().unwrap(), close, "first"),
        };
        let _gone = stream.get_mut().write_all(&answer);
    })
}

#[test]
fn each_word_of_when_retries_what_it_names_and_nothing_else() {
    let ends =
        ["reset", "hang", "409", "429", "500", "502", "503", "504", "501", "grpc14", "grpc13"];
    let words: [(&str, &str, &[&str]); 8] = [
        ("safe", "safe", &[]),
        ("reset", "reset", &["reset"]),
        ("gateway", "gateway-error", &["502", "503", "504"]),
        ("5xx", "5xx", &["500", "501", "502", "503", "504"]),
        ("slow", "per-try-timeout", &["hang"]),
        ("conflict", "409", &["409"]),
        ("unavailable", "{ grpc: [unavailable] }", &["grpc14"]),
        ("several", "429, reset, { grpc: [internal] }", &["429", "reset", "grpc13"]),
    ];
    let upstream = failing_first();
    let mut setup = Setup::new(&[upstream.address]);
    for (name, word, _) in &words {
        let retry = format!("{{ when: [{word}], per_try: 1s, backoff: 1ms..1ms }}");
        setup = setup.route(&format!("match: {{ path: \"/{name}/*\" }}, retry: {retry}"));
    }
    setup.upstream = "protocol: http1, limits: { retry_budget: 100% }".to_owned();
    let proxy = Proxy::start(&setup.yaml());
    let mut wanted = 0;
    for (name, word, retried) in &words {
        for end in ends {
            let path = format!("/{name}/{end}");
            // A status of gRPC counts in an answer to a gRPC call only.
            let kind = if end.starts_with("grpc") { "application/grpc" } else { "text/plain" };
            let reply =
                http(proxy.address("outbound"), "GET", &path, &[("content-type", kind)], b"");
            let expected = retried.contains(&end);
            wanted += usize::from(expected);
            assert_eq!(reply.text() == "second", expected, "{word} on {end}: {reply:?}");
        }
    }
    for (name, word, retried) in &words {
        for end in ends {
            let (path, expected) = (format!("/{name}/{end}"), retried.contains(&end));
            let line = proxy.access_line(|line| line["path"] == path);
            assert_eq!(line["attempts"], 1 + u32::from(expected), "{word} on {end}: {line}");
            let reason = match end {
                _ if expected => serde_json::Value::Null,
                "reset" => "upstream_closed".into(),
                "hang" => "per_try_timeout".into(),
                _ => serde_json::Value::Null,
            };
            assert_eq!(line["reason"], reason, "{word} on {end}");
        }
    }
    let metrics = proxy.metrics();
    let retries =
        |reason: &str| metrics.sum("outrigger_upstream_retries_total", &[("reason", reason)]);
    let counted = [
        ("reset", 2.0),
        ("gateway_error", 6.0),
        ("server_error", 2.0),
        ("per_try_timeout", 1.0),
        ("status", 2.0),
        ("grpc", 2.0),
        ("safe", 0.0),
        ("keep_alive_race", 0.0),
    ];
    for (reason, count) in counted {
        assert!((retries(reason) - count).abs() < 0.5, "{reason}: {}", metrics.text);
    }
    assert_eq!(wanted, 15);
}

#[test]
fn retry_never_turns_the_safe_ones_off_too() {
    let good = Upstream::ok("good");
    let setup = Setup::new(&[refusing(), good.address]).route("retry: never");
    let proxy = Proxy::start(&setup.upstream("balance: round_robin").yaml());
    let statuses: Vec<u16> = (0..10).map(|_| get(proxy.address("outbound"), "/").status).collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(refused, 5, "{statuses:?}");
    let metrics = proxy.metrics();
    assert!(metrics.sum("outrigger_upstream_retries_total", &[]) < 0.5);
    let line = proxy.access_line(|line| line["status"] == 503);
    assert_eq!((&line["reason"], &line["attempts"]), (&"connect_failed".into(), &1.into()));
}

#[test]
fn attempts_go_to_different_endpoints_and_the_last_answer_is_passed_on() {
    let numbered = |number: usize| {
        let text = format!("answer of {number}");
        Upstream::scripted(move |_| answer(503, "X-From: upstream\r\n", &text))
    };
    let upstreams: Vec<Upstream> = (0..3).map(numbered).collect();
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let retry = "retry: { when: [gateway-error], attempts: 3, backoff: 1ms..1ms }";
    let budget = "limits: { retry_budget: { ratio: 100%, floor: 100/s } }";
    let setup = Setup::new(&addresses).route(retry).upstream(budget);
    let proxy = Proxy::start(&setup.yaml());
    for request in 1..=5 {
        let reply = http(proxy.address("outbound"), "PUT", "/", &[], b"body");
        assert_eq!((reply.status, reply.header("x-from")), (503, Some("upstream")));
        assert!(reply.text().starts_with("answer of "));
        assert_eq!(reply.header("x-outrigger-reason"), None, "it is not ours");
        for upstream in &upstreams {
            assert_eq!(upstream.requests().len(), request, "one attempt each");
            assert!(upstream.requests().iter().all(|sent| sent.ends_with("\r\n\r\nbody")));
        }
    }
    let line = proxy.access_line(|line| line["status"] == 503);
    let told = (&line["attempts"], &line["retry_suppressed"], &line["reason"]);
    assert_eq!(told, (&3.into(), &"retries_exhausted".into(), &serde_json::Value::Null));
    let exhausted = [("reason", "retries_exhausted")];
    let exhausted = proxy.metrics().sum("outrigger_upstream_retries_suppressed_total", &exhausted);
    assert!((exhausted - 5.0).abs() < 0.5, "{exhausted}");
}

/// Reads each request and closes, so that nobody knows whether it ran; `spare` requests of each connection are answered.
fn closing(spare: usize) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let executed: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&executed);
    let upstream = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        for number in 0.. {
            let Some(request) = read_request(&mut stream) else { return };
            kept.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            if number >= spare || stream.get_mut().write_all(&ok("done")).is_err() {
                return;
            }
        }
    });
    (upstream, executed)
}

#[test]
fn a_post_that_may_have_run_is_never_sent_twice() {
    // On a fresh connection, and on one that was used before (the keep-alive race).
    for spare in [0, 1] {
        let (upstream, executed) = closing(spare);
        let setup = Setup::new(&[upstream.address]).route("retry: { when: [reset] }");
        let proxy = Proxy::start(&setup.upstream("limits: { retry_budget: 100% }").yaml());
        let mut caller = Connection::open(proxy.address("outbound"));
        let (mut sent, mut refused) = (0, 0);
        for number in 0..20 {
            let body = format!("order {number};");
            caller.request("POST", "/", &[], body.as_bytes());
            sent += 1;
            let reply = caller.reply();
            if reply.status != 200 {
                let reason = reply.header("x-outrigger-reason");
                assert_eq!((reply.status, reason), (502, Some("upstream_closed")));
                refused += 1;
            }
        }
        // Kept connections are trusted no more after a race.
        assert_eq!(refused, if spare == 0 { 20 } else { 1 });
        let executed = executed.lock().unwrap();
        for number in 0..sent {
            let body = format!("order {number};");
            let times = executed.iter().filter(|request| request.ends_with(&body)).count();
            assert_eq!(times, 1, "{body}");
        }
        let unsafe_ones = [("reason", "retry_not_safe")];
        let metrics = proxy.metrics();
        let counted = metrics.sum("outrigger_upstream_retries_suppressed_total", &unsafe_ones);
        assert!((counted - f64::from(refused)).abs() < 0.5, "{counted} {refused}");
    }
}

#[test]
fn a_post_may_be_repeated_where_its_key_or_the_route_says_so() {
    for (methods, headers, twice) in [
        ("idempotent", &[("Idempotency-Key", "8e03978e")][..], true),
        ("any", &[], true),
        ("[POST]", &[], true),
        ("[GET]", &[], false),
        ("idempotent", &[], false),
    ] {
        let (upstream, executed) = closing(0);
        let retry =
            format!("{{ when: [reset], attempts: 2, methods: {methods}, backoff: 1ms..1ms }}");
        let setup = Setup::new(&[upstream.address]).route(&format!("retry: {retry}"));
        let proxy = Proxy::start(&setup.yaml());
        let reply = http(proxy.address("outbound"), "POST", "/", headers, b"body");
        assert_eq!(reply.status, 502);
        let executed = executed.lock().unwrap();
        assert_eq!(executed.len(), 1 + usize::from(twice), "methods: {methods}");
        assert!(executed.iter().all(|request| request.ends_with("\r\n\r\nbody")));
    }
}

/// The body of a chunked request.
fn dechunked(request: &[u8]) -> Vec<u8> {
    let end_of_line =
        |from: usize| from + request[from..].windows(2).position(|pair| pair == b"\r\n").unwrap();
    let mut at = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let mut body = Vec::new();
    loop {
        let end = end_of_line(at);
        let size = std::str::from_utf8(&request[at..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&request[end + 2..end + 2 + size]);
        at = end + 2 + size + 2;
    }
}

#[test]
fn a_method_that_is_not_listed_is_not_sent_again_and_that_is_counted() {
    let upstream = Upstream::scripted(|_| answer(503, "", "no"));
    let retry = "retry: { when: [gateway-error], methods: [GET], backoff: 1ms..1ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(retry).yaml());
    let to = proxy.address("outbound");
    assert_eq!(http(to, "PUT", "/put", &[], b"x").status, 503);
    assert_eq!(http(to, "GET", "/get", &[], b"").status, 503);
    let line = proxy.access_line(|line| line["path"] == "/put");
    assert_eq!(
        (&line["attempts"], &line["retry_suppressed"]),
        (&1.into(), &"method_not_listed".into())
    );
    assert_eq!(proxy.access_line(|line| line["path"] == "/get")["attempts"], 3);
    let suppressed = proxy
        .metrics()
        .sum("outrigger_upstream_retries_suppressed_total", &[("reason", "method_not_listed")]);
    assert!((suppressed - 1.0).abs() < 0.5, "{suppressed}");
}

#[test]
fn bodies_are_sent_again_whole_up_to_replay_and_not_beyond() {
    let upstream = Upstream::scripted(|number| match number % 2 {
        0 => answer(503, "", "first"),
        _ => ok("second"),
    });
    let retry = "retry: { when: [gateway-error], replay: 64KiB, backoff: 1ms..1ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(retry).yaml());
    let body: Vec<u8> = (0..65_536_u32).map(|at| (at % 251) as u8).collect();
    let reply = http(proxy.address("outbound"), "PUT", "/", &[], &body);
    assert_eq!(reply.text(), "second");
    // Chunked, so that nobody knows its size before.
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(10_000) {
        caller.send(format!("{:x}\r\n", part.len()));
        caller.send(part);
        caller.send("\r\n");
    }
    caller.send("0\r\n\r\n");
    assert_eq!(caller.reply().text(), "second");
    let received = upstream.received.lock().unwrap().clone();
    assert_eq!(received.len(), 4);
    for request in &received[..2] {
        assert!(request.ends_with(&body), "sent whole");
    }
    for request in &received[2..] {
        assert!(dechunked(request) == body, "sent whole");
    }

    let one_more = [&body[..], b"x"].concat();
    let reply = http(proxy.address("outbound"), "PUT", "/large", &[], &one_more);
    assert_eq!((reply.status, reply.text().as_str()), (503, "first"));
    let line = proxy.access_line(|line| line["path"] == "/large");
    assert_eq!(line["retry_suppressed"], "body_too_large_to_replay");
    let too_large = [("reason", "body_too_large_to_replay")];
    let metrics = proxy.metrics();
    let counted = metrics.sum("outrigger_upstream_retries_suppressed_total", &too_large);
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
}

#[test]
fn retry_after_is_waited_for_where_it_fits_the_deadline() {
    let upstream = Upstream::scripted(|number| match number {
        0 => answer(503, "Retry-After: 1\r\n", "first"),
        2 => answer(503, "Retry-After: 60\r\n", "much later"),
        4 => answer(503, "grpc-retry-pushback-ms: -1\r\n", "never"),
        _ => ok("second"),
    });
    let route = "timeout: 10s, retry: { when: [gateway-error], backoff: 1ms..1ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(route).yaml());
    let start = Instant::now();
    assert_eq!(get(proxy.address("outbound"), "/").text(), "second");
    assert!(start.elapsed() >= Duration::from_secs(1));
    for (path, text, why) in [("/late", "much later", "timeout"), ("/never", "never", "pushback")] {
        let reply = get(proxy.address("outbound"), path);
        assert_eq!((reply.status, reply.text().as_str()), (503, text));
        let line = proxy.access_line(|line| line["path"] == path);
        assert_eq!((&line["attempts"], &line["retry_suppressed"]), (&1.into(), &why.into()));
        // The script goes on with the next even number.
        assert_eq!(get(proxy.address("outbound"), "/").text(), "second");
    }
}

#[test]
fn what_may_have_run_is_never_answered_503() {
    let (closing, _) = closing(0);
    let retry = "retry: { when: [reset], attempts: 2, methods: any, backoff: 1ms..1ms }";
    let setup = Setup::new(&[closing.address, refusing()]).route(retry);
    let upstream = "balance: random, outliers: never, limits: { retry_budget: 100% }";
    let proxy = Proxy::start(&setup.upstream(upstream).yaml());
    let reasons: Vec<String> = (0..30)
        .map(|_| {
            let reply = http(proxy.address("outbound"), "POST", "/", &[], b"x");
            assert_eq!(reply.status, 502, "{}", reply.text());
            reply.header("x-outrigger-reason").unwrap().to_owned()
        })
        .collect();
    assert!(reasons.contains(&"retries_exhausted".to_owned()), "{reasons:?}");
    assert!(reasons.contains(&"upstream_closed".to_owned()), "{reasons:?}");
}

#[test]
fn a_retry_that_finds_no_place_is_counted_with_its_reason() {
    for (limits, word) in [
        ("in_flight: 1, pending: 0", "limit_reached"),
        ("in_flight: 1, pending: 5, queue: 50ms", "queue_timeout"),
    ] {
        let (occupied, waits) = std::sync::mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let upstream = Upstream::scripted(move |number| match number {
            0 => answer(503, "Retry-After: 1\r\n", "come back"),
            _ => {
                let _over = waits.lock().unwrap().recv_timeout(support::PATIENCE);
                ok("at last")
            }
        });
        let setup = Setup::new(&[upstream.address]).route("retry: { when: [503] }");
        let limits = format!("limits: {{ {limits}, retry_budget: {{ floor: 100/s }} }}");
        let proxy = Proxy::start(&setup.upstream(&limits).yaml());
        let to = proxy.address("outbound");
        let first = std::thread::spawn(move || get(to, "/first"));
        // It gives its place up while it waits, and another request takes it.
        proxy.wait_metrics("the first attempt's end", |metrics| {
            metrics.sum("outrigger_upstream_attempts_total", &[("outcome", "failure")]) > 0.5
                && metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
        });
        let other = std::thread::spawn(move || get(to, "/other"));
        let reply = first.join().unwrap();
        assert_eq!(
            (reply.status, reply.header("x-outrigger-reason")),
            (502, Some("retries_exhausted")),
            "{word}"
        );
        occupied.send(()).unwrap();
        assert_eq!(other.join().unwrap().status, 200);
        let line = proxy.access_line(|line| line["path"] == "/first");
        assert_eq!((&line["attempts"], &line["retry_suppressed"]), (&1.into(), &word.into()));
        let metrics = proxy.metrics();
        let suppressed = "outrigger_upstream_retries_suppressed_total";
        let suppressed = metrics.sum(suppressed, &[("reason", word)]);
        let made = metrics.sum("outrigger_upstream_retries_total", &[]);
        assert_eq!((suppressed.round(), made.round()), (1.0, 0.0), "not made, so not counted");
    }
}
