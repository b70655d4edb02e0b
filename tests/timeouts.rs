//! Each kind of time limit, from outside: who ends what, when at the earliest, and what everybody is told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Proxy, Upstream, get, http, read_request};
use traffic::{BlackHole, Gate, Setup, drain, field, pause, silent, write_slowly};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Answers each request with the pieces, each after its pause (in ms).
fn slow(pieces: &'static [(u64, &'static [u8])]) -> Upstream {
    Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).is_some() && write_slowly(stream.get_mut(), pieces) {}
    })
}

fn reason_of(proxy: &Proxy, path: &str) -> (u64, String) {
    let line = proxy.access_line(|line| line["path"] == path);
    (line["status"].as_u64().unwrap(), line["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_timeout_covers_all_attempts_together() {
    let upstream = silent();
    let retry =
        "retry: { when: [per-try-timeout], per_try: 200ms, attempts: 10, backoff: 1ms..1ms }";
    let route = format!("timeout: 500ms, {retry}");
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(&route).yaml());
    let start = Instant::now();
    let reply = get(proxy.address("outbound"), "/");
    assert!(start.elapsed() >= MS(500));
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (504, Some("timeout")));
    let line = proxy.access_line(|line| line["status"] == 504);
    assert_eq!((&line["flag"], &line["attempts"]), (&"UT".into(), &3.into()));
    let metrics = proxy.metrics();
    let timeouts = metrics.sum("outrigger_upstream_attempts_total", &[("outcome", "timeout")]);
    assert!((timeouts - 3.0).abs() < 0.5, "{timeouts}");
}

#[test]
fn the_timeout_covers_the_body_to_its_last_byte() {
    let upstream = slow(&[(0, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")]);
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route("timeout: 400ms").yaml());
    let start = Instant::now();
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/half", &[], b"");
    assert_eq!(caller.reply_head().status, 200);
    assert_eq!(caller.rest(), b"0123456789");
    assert!(start.elapsed() >= MS(400));
    assert_eq!(reason_of(&proxy, "/half"), (200, "timeout".to_owned()));
}

#[test]
fn a_body_that_nobody_reads_is_cut_off_as_well() {
    let upstream = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_some() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
            let stream = stream.get_mut();
            let mut sent = stream.write_all(head);
            while sent.is_ok() {
                sent = stream.write_all(&[0; 65_536]);
            }
        }
    });
    for (limits, reason) in
        [("timeout: 400ms", "timeout"), ("timeout: unlimited, idle: 400ms", "stream_idle")]
    {
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limits).yaml());
        let mut caller = Connection::open(proxy.address("outbound"));
        caller.request("GET", "/unread", &[], b"");
        assert_eq!(caller.reply_head().status, 200);
        assert_eq!(reason_of(&proxy, "/unread"), (200, reason.to_owned()));
        proxy.wait_metrics("no attempt in flight", |metrics| {
            metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
        });
    }
}

#[test]
fn per_try_ends_one_attempt_and_another_endpoint_answers() {
    let (silent, good) = (silent(), Upstream::ok("good"));
    let retry = "retry: { when: [per-try-timeout], per_try: 250ms, backoff: 1ms..1ms }";
    let setup = Setup::new(&[silent.address, good.address]).route(retry);
    let proxy = Proxy::start(&setup.upstream("balance: round_robin").yaml());
    for _ in 0..2 {
        assert_eq!(get(proxy.address("outbound"), "/").text(), "good");
    }
    let line = proxy.access_line(|line| line["attempts"] == 2);
    assert!(line["duration_ms"].as_f64().unwrap() >= 250.0, "{line}");
    let alone = Setup::new(&[silent.address]).route("retry: { per_try: 250ms }");
    let proxy = Proxy::start(&alone.yaml());
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (504, Some("per_try_timeout")));
}

#[test]
fn a_connect_into_a_black_hole_ends_and_another_endpoint_is_tried() {
    let hole = BlackHole::new();
    let proxy = Proxy::start(&Setup::new(&[hole.address]).route("retry: never").yaml());
    let start = Instant::now();
    let reply = get(proxy.address("outbound"), "/");
    // The default for an endpoint on this machine.
    assert!(start.elapsed() >= MS(250));
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("connect_failed")));
    assert!(reply.text().contains("no connection within 250 ms"), "{}", reply.text());
    let timeouts = [("outcome", "timeout")];
    assert!(proxy.metrics().sum("outrigger_upstream_connects_total", &timeouts) > 0.5);

    let good = Upstream::ok("good");
    let setup = Setup::new(&[hole.address, good.address])
        .upstream("connect_timeout: 300ms, balance: round_robin");
    let proxy = Proxy::start(&setup.yaml());
    for _ in 0..2 {
        assert_eq!(http(proxy.address("outbound"), "POST", "/", &[], b"body").text(), "good");
    }
    assert_eq!(good.requests().len(), 2);
}

#[test]
fn unlimited_means_no_timeout() {
    let upstream = slow(&[(700, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), (300, b"ok")]);
    let mut setup = Setup::new(&[upstream.address]);
    setup.top = "defaults: { route: { timeout: 200ms } }\n".to_owned();
    setup.routes.push("{ match: { path: /limited }, to: articles }".to_owned());
    let proxy = Proxy::start(&setup.route("timeout: unlimited").yaml());
    assert_eq!(get(proxy.address("outbound"), "/limited").status, 504);
    assert_eq!(get(proxy.address("outbound"), "/").text(), "ok");
}

/// Sends `request`, and expects the pieces of `slow` although they take longer than the timeout, then the end by `idle`.
fn ends_at_the_head(request: &str, wanted: &str, pieces: &'static [(u64, &'static [u8])]) {
    let upstream = slow(pieces);
    let route = "match: { method: [GET, POST] }, timeout: 400ms, idle: 600ms";
    let setup = Setup::new(&[upstream.address]).route(route).upstream("protocol: http1");
    let proxy = Proxy::start(&setup.yaml());
    let start = Instant::now();
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send(request);
    caller.reply_head();
    let rest = caller.rest();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.matches(wanted).count() == 3, "{text}");
    assert!(start.elapsed() >= MS(900 + 600), "{:?}", start.elapsed());
    let line = proxy.access_line(|line| line["path"] == "/stream");
    assert_eq!(line["reason"], "stream_idle", "{line}");
}

#[test]
fn event_streams_end_by_idle_and_not_by_timeout() {
    let pieces: &[(u64, &[u8])] = &[
        (0, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (300, b"8\r\ndata: a\n\r\n"),
        (300, b"8\r\ndata: a\n\r\n"),
        (300, b"8\r\ndata: a\n\r\n"),
    ];
    ends_at_the_head("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", "data: a", pieces);
}

#[test]
fn grpc_without_a_timeout_ends_by_idle() {
    let pieces: &[(u64, &[u8])] = &[
        (0, b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (300, b"4\r\nmore\r\n"),
        (300, b"4\r\nmore\r\n"),
        (300, b"4\r\nmore\r\n"),
    ];
    let head = "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n";
    ends_at_the_head(head, "more", pieces);
}

#[test]
fn upgrades_end_by_idle() {
    let pieces: &[(u64, &[u8])] = &[
        (0, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n"),
        (300, b"hello"),
        (300, b"hello"),
        (300, b"hello"),
    ];
    let head = "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n";
    ends_at_the_head(head, "hello", pieces);
}

#[test]
fn connect_tunnels_end_by_idle() {
    let upstream = Upstream::serve(|_, mut stream| {
        if write_slowly(&mut stream, &[(300, b"hello"), (300, b"hello"), (300, b"hello")]) {
            drain(&mut stream);
        }
    });
    let route = "match: { method: [CONNECT] }, timeout: 400ms, idle: 600ms";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(route).yaml());
    let start = Instant::now();
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    assert_eq!(caller.reply_head().status, 200);
    assert_eq!(caller.rest(), b"hellohellohello");
    assert!(start.elapsed() >= MS(1500));
    let line = proxy.access_line(|line| line["method"] == "CONNECT");
    assert_eq!((&line["reason"], &line["sent_bytes"]), (&"stream_idle".into(), &15.into()));
}

#[test]
fn idle_ends_a_stream_on_which_nothing_moves_and_no_other() {
    let upstream = silent();
    let route = "timeout: unlimited, idle: 400ms";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(route).yaml());
    let start = Instant::now();
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (504, Some("stream_idle")));
    assert!(start.elapsed() >= MS(400));

    // A slow upload moves, although nothing comes back for longer than `idle`.
    let upstream = Upstream::ok("thanks");
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(route).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    for _ in 0..6 {
        pause(200);
        caller.send("x");
    }
    assert_eq!(caller.reply().text(), "thanks");
}

#[test]
fn a_head_that_trickles_in_is_cut_off() {
    let upstream = Upstream::ok("ok");
    let limits = "limits: { header_timeout: 500ms, idle: 20s }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(limits).yaml());
    // A first request; one after another; one whose beginning came together with the end of the one before it.
    for before in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGE"] {
        let mut caller = Connection::open(proxy.address("outbound"));
        let start = Instant::now();
        if !before.is_empty() {
            caller.send(before);
            assert_eq!(caller.reply().status, 200);
        }
        let socket = caller.stream.get_ref().try_clone().unwrap();
        let trickle = std::thread::spawn(move || {
            let mut socket = socket;
            let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
            let sent = if before.ends_with("GE") { head.len() } else { 0 };
            for byte in &head[sent..] {
                if socket.write_all(&[*byte]).is_err() {
                    return;
                }
                pause(50);
            }
        });
        let rest = caller.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
        let took = start.elapsed();
        assert!(took >= MS(500) && took < MS(2_000), "{took:?}");
        drop(caller);
        trickle.join().unwrap();
    }
    let timeouts =
        proxy.metrics().sum("outrigger_rejected_total", &[("reason", "request_timeout")]);
    assert!((timeouts - 3.0).abs() < 0.5, "{timeouts}");
}

#[test]
fn a_body_that_stops_is_a_408() {
    let upstream = Upstream::ok("ok");
    let limits = "limits: { body_timeout: 400ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(limits).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("POST /stops HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..4 {
        // The pause counts, not the whole.
        pause(150);
        caller.send("x");
    }
    let start = Instant::now();
    let reply = caller.reply();
    assert!(start.elapsed() >= MS(350));
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (408, Some("request_timeout")));
    assert_eq!(caller.rest(), b"", "the connection ends");
    assert_eq!(reason_of(&proxy, "/stops"), (408, "request_timeout".to_owned()));
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let gate = Gate::new("late");
    let limits = "limits: { idle: 400ms }";
    let proxy = Proxy::start(&Setup::new(&[gate.upstream.address]).listener(limits).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    gate.arrived();
    pause(800);
    gate.open(1);
    let answered = Instant::now();
    assert_eq!(caller.reply().text(), "late");
    assert_eq!(caller.rest(), b"");
    assert!(answered.elapsed() >= MS(400));
    // One that never sends anything.
    let start = Instant::now();
    assert_eq!(Connection::open(proxy.address("outbound")).rest(), b"");
    assert!(start.elapsed() >= MS(400));
}

#[test]
fn max_age_ends_a_connection_between_two_requests() {
    let upstream = Upstream::ok("ok");
    let limits = "limits: { max_age: 500ms }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(limits).yaml());
    let start = Instant::now();
    let mut caller = Connection::open(proxy.address("outbound"));
    let rest = loop {
        let mut stream = caller.stream.get_ref();
        if stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
            break Vec::new();
        }
        if std::io::BufRead::fill_buf(&mut caller.stream).map_or(0, <[u8]>::len) == 0 {
            break Vec::new();
        }
        let reply = caller.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "never half an answer");
        if reply.header("connection") == Some("close") {
            break caller.rest();
        }
    };
    assert_eq!(rest, b"");
    assert!(start.elapsed() >= MS(500));
}

#[test]
fn a_callers_deadline_shortens_ours_and_goes_on_with_what_remains() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = seen.clone();
    let upstream = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            kept.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
        }
    });
    let retry =
        "retry: { when: [per-try-timeout], per_try: 200ms, backoff: 1ms..1ms, attempts: 2 }";
    let setup = Setup::new(&[upstream.address]).route(&format!("timeout: 15s, {retry}"));
    let proxy = Proxy::start(&setup.upstream("protocol: http1").yaml());
    let to = proxy.address("outbound");
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "450m")];
    for (headers, name) in [
        (&[("x-outrigger-timeout-ms", "450")][..], "x-outrigger-timeout-ms"),
        (&grpc[..], "grpc-timeout"),
    ] {
        let start = Instant::now();
        let reply = http(to, "GET", "/", headers, b"");
        assert!(
            start.elapsed() >= MS(400) && start.elapsed() < MS(10_000),
            "{:?}",
            start.elapsed()
        );
        let reason = reply.header("x-outrigger-reason").unwrap();
        assert!(["timeout", "per_try_timeout"].contains(&reason), "{reason}");
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let told = |head: &String| {
            let value = field(head, name).unwrap();
            let (number, unit) = value.split_at(value.trim_end_matches(char::is_alphabetic).len());
            number.parse::<u64>().unwrap() / if unit == "u" { 1000 } else { 1 }
        };
        let told: Vec<u64> = seen.iter().map(told).collect();
        assert!(told.len() == 2 && told[0] <= 450 && told[1] <= 250 && told[1] > 0, "{told:?}");
    }
}

#[test]
fn envoys_timeout_headers_count_only_where_they_are_asked_for() {
    let upstream = slow(&[(500, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]);
    for (top, status) in [("", 200), ("compat: envoy\n", 504)] {
        let mut setup = Setup::new(&[upstream.address]);
        setup.top = top.to_owned();
        let proxy = Proxy::start(&setup.yaml());
        for name in ["x-envoy-upstream-rq-timeout-ms", "x-envoy-expected-rq-timeout-ms"] {
            let reply = http(proxy.address("outbound"), "GET", "/", &[(name, "200")], b"");
            assert_eq!(reply.status, status, "{name} with {top:?}");
        }
    }
}

#[test]
fn an_expired_deadline_is_answered_at_once_and_a_malformed_one_is_ignored() {
    let upstream = Upstream::ok("ok");
    let setup = Setup::new(&[upstream.address]).upstream("protocol: http1");
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let reply = http(to, "POST", "/", &[("x-outrigger-timeout-ms", "0")], b"x");
    let reason = Some("deadline_already_expired");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (504, reason));
    let expired = [("content-type", "application/grpc"), ("grpc-timeout", "0n")];
    let reply = http(to, "POST", "/", &expired, b"x");
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("4")));
    assert_eq!(upstream.requests().len(), 0, "nothing was sent");
    for value in ["soon", "-1", "1.5", "99999999999999999999"] {
        assert_eq!(http(to, "GET", "/", &[("x-outrigger-timeout-ms", value)], b"").status, 200);
    }
    let dropped = [("reason", "malformed_timeout_header")];
    let dropped = proxy.metrics().sum("outrigger_dropped_total", &dropped);
    assert!((dropped - 4.0).abs() < 0.5, "{dropped}");
    let told = |head: &String| field(head, "x-outrigger-timeout-ms").map(str::parse::<u64>);
    assert!(upstream.requests().iter().map(told).all(|ms| ms.unwrap().unwrap() <= 15_000));
}
