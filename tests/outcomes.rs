//! What an attempt counts as: once, and when its answer has told all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/calls.rs"]
mod calls;
#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::time::Instant;

use calls::{MESSAGE, call, end, server, succeed};
use http2::{DATA, Raw};
use support::{Connection, Metrics, Proxy, Upstream, get, read_request};
use traffic::{Setup, ok};

const WORDS: [&str; 7] =
    ["success", "failure", "connect_failed", "refused", "reset", "timeout", "cancelled"];

/// Attempts by how they ended; what is 0 is left out.
fn attempts(metrics: &Metrics) -> Vec<(&'static str, u32)> {
    let counted = |outcome: &'static str| {
        let sum = metrics.sum("outrigger_upstream_attempts_total", &[("outcome", outcome)]);
        (0_u32..).find(|&count| f64::from(count) > sum - 0.5).map(|count| (outcome, count)).unwrap()
    };
    WORDS.into_iter().map(counted).filter(|(_, count)| *count > 0).collect()
}

fn wait_for(proxy: &Proxy, wanted: &[(&str, u32)]) {
    proxy.wait_metrics("the attempts", |metrics| attempts(metrics) == wanted);
}

fn is_open(metrics: &Metrics) -> bool {
    metrics.sum("outrigger_upstream_breaker_state", &[("state", "open")]) > 0.5
}

/// One call over a connection of its own: its status, in trailers or in the head.
fn ask(proxy: &Proxy) -> String {
    let to = proxy.address("outbound");
    let answer = http2::run(async {
        let send = http2::connect(to).await;
        http2::ask(&send, call(), MESSAGE, None).await.unwrap()
    });
    let trailers = answer.trailers.as_ref().and_then(|fields| fields.get("grpc-status"));
    let status = trailers.or_else(|| answer.head.headers().get("grpc-status")).unwrap();
    status.to_str().unwrap().to_owned()
}

/// Fails after a head and a message that look well.
fn fail_late(raw: &mut Raw, stream: u32) {
    raw.answer_head(stream);
    raw.send(DATA, 0, stream, MESSAGE);
    end(raw, stream, "13", &[]);
}

/// An HTTP/1 upstream that announces ten bytes and sends four.
fn cut_off() -> Upstream {
    Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_some() {
            let _gone =
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        }
    })
}

/// A request over a connection of its own, whatever becomes of it.
fn send(proxy: &Proxy) {
    let mut connection = Connection::open(proxy.address("outbound"));
    connection.request("GET", "/", &[("Connection", "close")], b"");
    let _rest = connection.rest();
}

const BREAKER: &str = "breaker: { min_requests: 5, open_for: 1h }";

#[test]
fn calls_that_fail_in_their_trailers_open_the_breaker_and_count_once() {
    let upstream = server(|raw, stream, _| fail_late(raw, stream));
    let keys = format!("protocol: http2, {BREAKER}");
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(&keys).yaml());
    for _ in 0..5 {
        assert_eq!(ask(&proxy), "13");
    }
    assert!(is_open(&proxy.wait_metrics("an open breaker", is_open)));
    assert_eq!(ask(&proxy), "14", "our own refusal");
    wait_for(&proxy, &[("failure", 5)]);
}

#[test]
fn an_endpoint_that_fails_calls_in_their_trailers_is_ejected() {
    let bad = server(|raw, stream, _| fail_late(raw, stream));
    let good = server(|raw, stream, _| succeed(raw, stream));
    let endpoints = [bad.address, good.address];
    let keys = "protocol: http2, balance: round_robin, outliers: { consecutive: 5, eject: 5m }";
    let proxy = Proxy::start(&Setup::new(&endpoints).upstream(keys).yaml());
    let statuses: Vec<String> = (0..20).map(|_| ask(&proxy)).collect();
    assert_eq!(statuses.iter().filter(|status| *status == "13").count(), 5, "{statuses:?}");
    wait_for(&proxy, &[("success", 15), ("failure", 5)]);
    let ejected = proxy.metrics().sum(
        "outrigger_upstream_ejections_total",
        &[("reason", "consecutive"), ("enforced", "true")],
    );
    assert!((ejected - 1.0).abs() < 0.5);
}

#[test]
fn a_body_that_the_upstream_breaks_off_is_a_failure() {
    let upstream = cut_off();
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(BREAKER).yaml());
    (0..5).for_each(|_| send(&proxy));
    proxy.wait_metrics("an open breaker", is_open);
    wait_for(&proxy, &[("reset", 5)]);

    let (bad, good) = (cut_off(), Upstream::ok("fine"));
    let keys = "balance: round_robin, outliers: { consecutive: 5, eject: 5m }";
    let endpoints = [bad.address, good.address];
    let proxy = Proxy::start(&Setup::new(&endpoints).upstream(keys).yaml());
    (0..20).for_each(|_| send(&proxy));
    wait_for(&proxy, &[("success", 15), ("reset", 5)]);
}

#[test]
fn an_upstream_that_is_late_with_the_rest_of_its_body_has_failed() {
    let upstream = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).is_some() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            if stream.get_mut().write_all(head).is_err() {
                return;
            }
        }
    });
    for bound in ["timeout: 100ms", "idle: 100ms"] {
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(bound).yaml());
        send(&proxy);
        wait_for(&proxy, &[("timeout", 1)]);
    }
}

#[test]
fn a_caller_that_leaves_says_nothing_of_a_call_and_nothing_new_of_another_answer() {
    let upstream = server(|raw, stream, _| raw.answer_head(stream));
    let keys = "protocol: http2";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(keys).yaml());
    let to = proxy.address("outbound");
    http2::run(async {
        let mut send = http2::connect(to).await.ready().await.unwrap();
        let (answer, _stream) = send.send_request(call(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
    wait_for(&proxy, &[("cancelled", 1)]);

    let upstream = Upstream::serve(|_, mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        if read_request(&mut reader).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
            let _rest = traffic::drain(&mut reader);
        }
    });
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut connection = Connection::open(proxy.address("outbound"));
    connection.request("GET", "/", &[], b"");
    assert_eq!(connection.reply_head().status, 200);
    assert_eq!(attempts(&proxy.metrics()), [], "its end is open");
    drop(connection);
    wait_for(&proxy, &[("success", 1)]);
}

#[test]
fn events_count_at_their_head_and_other_streams_after_the_ordinary_timeout() {
    let events = Upstream::serve(|_, mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        if read_request(&mut reader).is_some() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let _rest = traffic::drain(&mut reader);
        }
    });
    let proxy = Proxy::start(&Setup::new(&[events.address]).yaml());
    let mut open = Connection::open(proxy.address("outbound"));
    open.request("GET", "/", &[], b"");
    assert_eq!(open.reply_head().status, 200);
    wait_for(&proxy, &[("success", 1)]);

    let upstream = server(|raw, stream, _| raw.answer_head(stream));
    let keys = "protocol: http2";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(keys).yaml());
    let to = proxy.address("outbound");
    let (ready, waited) = channel();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    let caller = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut send = http2::connect(to).await.ready().await.unwrap();
            let (answer, _stream) = send.send_request(call(), true).unwrap();
            let mut answer = answer.await.unwrap();
            ready.send(Instant::now()).unwrap();
            tokio::select! {
                _ = over => {}
                more = answer.body_mut().data() => panic!("{more:?}"),
            }
        });
    });
    let since = waited.recv_timeout(support::PATIENCE).unwrap();
    while attempts(&proxy.metrics()) != [("success", 1)] {
        assert!(since.elapsed() < Duration::from_secs(30), "never taken for a stream");
        traffic::pause(50);
    }
    assert!(since.elapsed() >= Duration::from_secs(14), "{:?}", since.elapsed());
    done.send(()).unwrap();
    caller.join().unwrap();
    wait_for(&proxy, &[("success", 1)]);
}

#[test]
fn a_stream_is_as_good_a_probe_as_any() {
    let calls = server(|raw, stream, number| match number {
        0..5 => fail_late(raw, stream),
        _ => raw.answer_head(stream),
    });
    let keys = "protocol: http2, breaker: { min_requests: 5, open_for: 200ms, probes: 1 }";
    let proxy = Proxy::start(&Setup::new(&[calls.address]).upstream(keys).yaml());
    (0..5).for_each(|_| assert_eq!(ask(&proxy), "13"));
    proxy.wait_metrics("an open breaker", is_open);
    let to = proxy.address("outbound");
    http2::run(async {
        let send = http2::connect(to).await;
        // Refused until the breaker asks: then a call is answered, and goes on for ever.
        let _endless = loop {
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _stream) = send.send_request(call(), true).unwrap();
            let answer = answer.await.unwrap();
            if !answer.headers().contains_key("grpc-status") {
                break answer;
            }
        };
        // Its caller stays.
        let metrics = tokio::task::spawn_blocking(move || {
            proxy.wait_metrics("a closed breaker", |metrics| {
                metrics.sum("outrigger_upstream_breaker_state", &[("state", "closed")]) > 0.5
            })
        });
        let metrics = metrics.await.unwrap();
        assert_eq!(attempts(&metrics), [("success", 1), ("failure", 5)]);
    });
}

/// An upstream that closes each connection when its second request comes; the one of `number` when its first does.
fn closes_when_reused(number: usize) -> Upstream {
    Upstream::serve(move |connection, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_none() || connection == number {
            return;
        }
        if stream.get_mut().write_all(&ok("fine")).is_ok() {
            let _second = read_request(&mut stream);
        }
    })
}

/// Waits until the breaker has seen so many requests: of them failed so many, for it and for the endpoint.
fn wait_failures(proxy: &Proxy, requests: u64, failed: u64) {
    let end = Instant::now() + support::PATIENCE;
    loop {
        let text = get(proxy.address("admin"), "/upstreams").text();
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        let breaker = &page[0]["breaker"]["window"];
        if breaker["requests"] == requests {
            assert_eq!(
                (&breaker["failed"], &page[0]["endpoints"][0]["failures"]),
                (&failed.into(), &failed.into())
            );
            return;
        }
        assert!(Instant::now() < end, "{page}");
    }
}

#[test]
fn the_keep_alive_race_says_nothing_of_the_endpoint_and_its_repetition_does() {
    let rich = "limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";
    let keys = format!("{rich}, breaker: {{ min_requests: 1000, open_for: 1h }}");
    let upstream = closes_when_reused(usize::MAX);
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(&keys).yaml());
    for _ in 0..2 {
        assert_eq!(get(proxy.address("outbound"), "/").status, 200);
    }
    wait_for(&proxy, &[("success", 2), ("reset", 1)]);
    wait_failures(&proxy, 2, 0);

    let upstream = closes_when_reused(1);
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(&keys).yaml());
    let to = proxy.address("outbound");
    assert_eq!((get(to, "/").status, get(to, "/").status), (200, 502));
    wait_for(&proxy, &[("success", 1), ("reset", 2)]);
    wait_failures(&proxy, 2, 1);
}
