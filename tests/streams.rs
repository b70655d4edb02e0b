//! Answers that stay open: they pass at once, end by their limits, and hold nothing that nobody reads.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use http2::{Raw, ask, connect, get, run};
use support::{Connection, PATIENCE, Proxy, Upstream, read_request};
use traffic::{Setup, ok};

/// `/endless` is answered without an end, `/silent` with a head alone, everything else at once.
fn upstream() -> Upstream {
    Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let request = String::from_utf8_lossy(&request).into_owned();
            let out = stream.get_mut();
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
            match request.split(' ').nth(1).unwrap() {
                "/endless" => {
                    let mut sent = out.write_all(head);
                    while sent.is_ok() {
                        sent = out.write_all(&[b'x'; 65_536]);
                    }
                    return;
                }
                "/silent" => {
                    let _gone = out.write_all(head);
                    traffic::drain(&mut stream);
                }
                _ => drop(out.write_all(&ok("ok"))),
            }
        }
    })
}

fn in_flight(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("outrigger_upstream_in_flight", &[])
}

#[test]
fn a_stream_ends_by_its_limits_and_its_connection_goes_on() {
    let upstream = upstream();
    for (path, limits, reason) in [
        ("/silent", "timeout: unlimited, idle: 400ms", "stream_idle"),
        ("/silent", "timeout: 400ms", "timeout"),
        // Nobody reads: the answer stalls in our buffers.
        ("/endless", "timeout: unlimited, idle: 400ms", "stream_idle"),
        ("/endless", "timeout: 400ms", "timeout"),
    ] {
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limits).yaml());
        run(async {
            let start = Instant::now();
            let send = connect(proxy.address("outbound")).await;
            let mut ready = send.clone().ready().await.unwrap();
            let (response, _) = ready.send_request(get(path), true).unwrap();
            let response = response.await.unwrap();
            while in_flight(&proxy) > 0.5 {
                assert!(start.elapsed() < PATIENCE, "{path} with {limits} is still there");
                tokio::task::yield_now().await;
            }
            assert!(start.elapsed() >= Duration::from_millis(400), "{path} with {limits}");
            assert_eq!(ask(&send, get("/"), b"", None).await.unwrap().text(), "ok");
            let mut body = response.into_body();
            let broken = loop {
                match body.data().await {
                    Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
                    Some(Err(error)) => break error,
                    None => panic!("it ended as if it were whole"),
                }
            };
            assert!(broken.is_reset(), "{broken}");
        });
        let line = proxy.access_line(|line| line["path"] == path);
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &reason.into()), "{limits}");
    }
}

#[test]
fn who_reads_slowly_is_not_idle() {
    let upstream = upstream();
    let limits = "timeout: unlimited, idle: 700ms";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(limits).yaml());
    run(async {
        let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
        let (response, _) = send.send_request(get("/endless"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2_500) {
            let data = body.data().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    });
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/endless", &[], b"");
    caller.reply_head();
    for _ in 0..12 {
        traffic::pause(200);
        std::io::Read::read_exact(&mut caller.stream, &mut vec![0; 300_000]).unwrap();
    }
    assert!(in_flight(&proxy) > 0.5);
}

/// Sends an event each time it is told to.
fn events() -> (Upstream, Sender<&'static str>) {
    let (tell, told) = channel::<&str>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        if read_request(&mut stream).is_none() {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        while let Ok(event) = told.lock().unwrap().recv() {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            if stream.get_mut().write_all(chunk.as_bytes()).is_err() {
                return;
            }
            if event.is_empty() {
                return;
            }
        }
    });
    (upstream, tell)
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (upstream, tell) = events();
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[("accept", "text/event-stream")], b"");
    let head = caller.reply_head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        tell.send(event).unwrap();
        assert_eq!(caller.chunk().unwrap(), event.as_bytes());
    }
    tell.send("").unwrap();
    assert_eq!(caller.chunk(), None);

    let (upstream, tell) = events();
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    run(async {
        let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
        let (response, _) = send.send_request(get("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            tell.send(event).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), event.as_bytes());
        }
        tell.send("").unwrap();
        while let Some(more) = body.data().await {
            assert_eq!(more.unwrap(), b"".as_slice());
        }
    });
}

#[test]
fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on() {
    // HTTP/1 and HTTP/2 upstreams that refuse without reading the body.
    let refuses = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        if traffic::head_of(&mut stream).is_empty() {
            return;
        }
        stream.get_mut().write_all(&traffic::answer(403, "", "no")).unwrap();
        traffic::drain(&mut stream);
    });
    let answers = Upstream::serve(|_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        while let Some(frame) = raw.wait(http2::HEADERS) {
            raw.answer(frame.stream, "no");
        }
    });
    for (upstream, protocol, status) in [(refuses, "http1", 403), (answers, "http2", 200)] {
        let setup = Setup::new(&[upstream.address]).upstream(&format!("protocol: {protocol}"));
        let proxy = Proxy::start(&setup.yaml());
        run(async {
            let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
            let (response, mut stream) = send.send_request(http2::post("/"), false).unwrap();
            stream.send_data(bytes::Bytes::from_static(b"half"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), status);
            let mut body = response.into_body();
            let mut received = Vec::new();
            while let Some(data) = body.data().await {
                received.extend(data.unwrap());
            }
            assert_eq!(received, b"no", "{protocol}");
        });
        let line = proxy.access_line(|line| line["method"] == "POST");
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &serde_json::Value::Null));
    }
}
