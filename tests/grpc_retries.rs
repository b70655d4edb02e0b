//! Retries on gRPC statuses, wherever in an answer they stand, as long as the caller has seen nothing of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/calls.rs"]
mod calls;
#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use calls::{MESSAGE, call, end, fail, refuse, server, succeed};
use http2::{Answer, DATA, HEADERS, Raw};
use tokio::time::Instant;

use support::{PATIENCE, Proxy, Upstream};
use traffic::Setup;

fn proxy(upstream: &Upstream, retry: &str) -> Proxy {
    let retry = format!("retry: {{ {retry}, methods: any, backoff: 1ms..1ms }}");
    let rich = "protocol: http2, limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";
    Proxy::start(&Setup::new(&[upstream.address]).route(&retry).upstream(rich).yaml())
}

const UNAVAILABLE: &str = "when: [{ grpc: [unavailable] }]";

fn ask(proxy: &Proxy) -> Answer {
    let to = proxy.address("outbound");
    http2::run(async {
        let send = http2::connect(to).await;
        http2::ask(&send, call(), MESSAGE, None).await.unwrap()
    })
}

/// The status and where it stood: in the trailers or in the head.
fn status(answer: &Answer) -> (&str, &str) {
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned().leak() as &str;
    let in_trailers = answer.trailers.as_ref().and_then(|fields| fields.get("grpc-status"));
    match in_trailers {
        Some(value) => (text(value), "trailers"),
        None => (answer.header("grpc-status").unwrap(), "head"),
    }
}

#[test]
fn a_status_is_a_ground_wherever_it_stands_before_the_first_message() {
    type Script = fn(&mut Raw, u32);
    let cases: [(&str, Script, usize); 6] = [
        ("in the head", |raw, stream| refuse(raw, stream, "14"), 2),
        ("in trailers", |raw, stream| fail(raw, stream, "14", &[]), 2),
        (
            "in trailers that come later",
            |raw, stream| {
                raw.answer_head(stream);
                traffic::pause(100);
                end(raw, stream, "14", &[]);
            },
            2,
        ),
        ("of another kind", |raw, stream| fail(raw, stream, "5", &[]), 1),
        (
            "behind a message",
            |raw, stream| {
                raw.answer_head(stream);
                raw.send(DATA, 0, stream, MESSAGE);
                end(raw, stream, "14", &[]);
            },
            1,
        ),
        ("of success without a message", |raw, stream| fail(raw, stream, "0", &[]), 1),
    ];
    for (what, first, attempts) in cases {
        let upstream = server(move |raw, stream, number| match number {
            0 => first(raw, stream),
            _ => succeed(raw, stream),
        });
        let proxy = proxy(&upstream, UNAVAILABLE);
        let answer = ask(&proxy);
        let line = proxy.access_line(|line| line["path"] == "/a.B/C");
        assert_eq!(line["attempts"], attempts, "{what}");
        let expected = match what {
            "of another kind" => ("5", "trailers"),
            "behind a message" => ("14", "trailers"),
            _ => ("0", "trailers"),
        };
        assert_eq!(status(&answer), expected, "{what}");
        assert_eq!(line["grpc_status"], expected.0.parse::<u8>().unwrap(), "{what}");
        let empty = matches!(what, "of another kind" | "of success without a message");
        assert_eq!(answer.body, if empty { b"" } else { MESSAGE }, "{what}");
        let retried = proxy.metrics();
        let retried = retried.sum("outrigger_upstream_retries_total", &[("reason", "grpc")]);
        assert!((retried + 1.0 - f64::from(u32::try_from(attempts).unwrap())).abs() < 0.5);
    }
}

#[test]
fn the_last_of_the_attempts_is_passed_on_with_its_trailers() {
    let upstream = server(|raw, stream, _| fail(raw, stream, "14", &[("x-why", "no room")]));
    let proxy = proxy(&upstream, UNAVAILABLE);
    let answer = ask(&proxy);
    assert_eq!((answer.status(), status(&answer)), (200, ("14", "trailers")));
    assert_eq!(answer.trailers.as_ref().unwrap()["x-why"], "no room");
    assert_eq!(answer.header("x-outrigger-attempts"), Some("3"));
    let line = proxy.access_line(|line| line["path"] == "/a.B/C");
    let told = (&line["attempts"], &line["retry_suppressed"], &line["grpc_status"]);
    assert_eq!(told, (&3.into(), &"retries_exhausted".into(), &14.into()));
    proxy.wait_metrics("nothing in flight", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
    });
}

#[test]
fn pushback_is_heard_in_trailers_too() {
    let upstream = server(|raw, stream, number| match number {
        0 => fail(raw, stream, "14", &[("grpc-retry-pushback-ms", "300")]),
        1 => succeed(raw, stream),
        _ => fail(raw, stream, "14", &[("grpc-retry-pushback-ms", "-1")]),
    });
    let proxy = proxy(&upstream, UNAVAILABLE);
    let start = Instant::now();
    assert_eq!(status(&ask(&proxy)).0, "0");
    assert!(start.elapsed() >= Duration::from_millis(300));
    let answer = ask(&proxy);
    assert_eq!(status(&answer), ("14", "trailers"));
    assert_eq!(answer.trailers.as_ref().unwrap()["grpc-retry-pushback-ms"], "-1");
    let line = proxy.access_line(|line| line["grpc_status"] == 14);
    assert_eq!((&line["attempts"], &line["retry_suppressed"]), (&1.into(), &"pushback".into()));
}

#[test]
fn a_stream_that_breaks_behind_its_head_is_a_reset_that_nobody_has_seen() {
    for (when, attempts) in [("reset, ", 2), ("", 1)] {
        let upstream = server(|raw, stream, number| match number {
            0 => {
                raw.answer_head(stream);
                raw.reset(stream, 2);
            }
            _ => succeed(raw, stream),
        });
        let proxy = proxy(&upstream, &format!("when: [{when}{{ grpc: [unavailable] }}]"));
        let answer = ask(&proxy);
        let expected = if attempts == 2 { ("0", "trailers") } else { ("2", "head") };
        assert_eq!(status(&answer), expected);
        let line = proxy.access_line(|line| line["path"] == "/a.B/C");
        assert_eq!(line["attempts"], attempts);
    }
}

/// A server that answers with a head, and goes on when it is told to.
fn in_two_steps() -> (Upstream, std::sync::mpsc::Sender<()>) {
    let (go, goes_on) = channel::<()>();
    let goes_on: Mutex<Receiver<()>> = Mutex::new(goes_on);
    let upstream = Upstream::serve(move |_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        let Some(head) = raw.wait(HEADERS) else { return };
        raw.answer_head(head.stream);
        goes_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        raw.send(DATA, 0, head.stream, MESSAGE);
        end(&mut raw, head.stream, "0", &[]);
        while raw.next().is_some() {}
    });
    (upstream, go)
}

/// Sends a call, waits for its head, lets the server go on, and reads the rest.
fn head_first(proxy: &Proxy, go: &std::sync::mpsc::Sender<()>, whole: bool) -> Duration {
    let to = proxy.address("outbound");
    http2::run(async {
        let mut send = http2::connect(to).await.ready().await.unwrap();
        let start = Instant::now();
        let (response, mut request) = send.send_request(call(), false).unwrap();
        request.send_data(Bytes::from_static(MESSAGE), whole).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let waited = start.elapsed();
        assert_eq!(head.status, 200);
        go.send(()).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), MESSAGE);
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        waited
    })
}

/// Less than the route's timeout, which would end the wait as well.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn a_caller_in_the_middle_of_its_stream_gets_the_head_at_once() {
    let (upstream, go) = in_two_steps();
    let proxy = proxy(&upstream, UNAVAILABLE);
    assert!(head_first(&proxy, &go, false) < AT_ONCE);
}

#[test]
fn a_head_is_held_back_only_where_its_route_looks_at_grpc_statuses() {
    let (upstream, go) = in_two_steps();
    let proxy = proxy(&upstream, "when: [gateway-error]");
    assert!(head_first(&proxy, &go, true) < AT_ONCE);
}

#[test]
fn a_head_is_held_back_no_longer_than_an_attempt_may_take() {
    let (upstream, go) = in_two_steps();
    let retry = format!("{UNAVAILABLE}, per_try: 300ms");
    let proxy = proxy(&upstream, &retry);
    let waited = head_first(&proxy, &go, true);
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    let line = proxy.access_line(|line| line["path"] == "/a.B/C");
    assert_eq!((&line["attempts"], &line["grpc_status"]), (&1.into(), &0.into()));
}
