//! HTTP/2 on either side and on both: what passes, what is retried, what is given up.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use http2::{
    ACK, CANCEL, DATA, HEADERS, PING, REFUSED_STREAM, RST_STREAM, Raw, ask, connect, get, post, run,
};
use support::{Connection, PATIENCE, Proxy, Upstream, http, read_request};
use traffic::{Setup, drain, field, ok, program};

/// A proxy whose upstream speaks HTTP/2.
fn to_http2(address: SocketAddr) -> Setup {
    Setup::new(&[address]).upstream("protocol: http2")
}

/// An HTTP/2 upstream that sends each body back, with its request's trailers and the number of its connection.
fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                drop(tokio::task::spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        drop(tokio::task::spawn_local(async move {
                            let _reset = echo_one(request, respond).await;
                        }));
                    }
                }));
            }
        });
    });
    (address, connections)
}

async fn echo_one(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let mut response = http::Response::builder().header("x-path", parts.uri.path());
    for (name, value) in &parts.headers {
        response = response.header(format!("x-sent-{name}"), value);
    }
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
    let response = response.header("x-authority", authority).body(()).unwrap();
    let mut stream = respond.send_response(response, false)?;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        http2::send_all(&mut stream, data, false).await?;
    }
    match body.trailers().await? {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

fn trailers() -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(
        http::HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("abc"),
    )]))
}

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).cycle().take(count).collect()
}

#[test]
fn messages_pass_whole_between_any_two_versions() {
    let body = bytes(1_500_000);
    let (echo, _) = echo();
    let proxy = Proxy::start(&to_http2(echo).yaml());
    let to = proxy.address("outbound");
    run(async {
        let send = connect(to).await;
        let request = http::Request::put("http://shop.test:81/a%20b?q=1").header("x-kept", "1");
        let answer = ask(&send, request.body(()).unwrap(), &body, trailers()).await.unwrap();
        assert!(answer.body == body, "h2 to h2");
        assert_eq!(answer.header("x-authority"), Some("shop.test:81"));
        assert_eq!(answer.header("x-sent-x-kept"), Some("1"));
        assert_eq!(answer.trailers, trailers());
    });
    let reply = http(to, "POST", "/", &[("host", "shop.test")], &body);
    assert!(reply.body == body, "h1 to h2");
    assert_eq!(reply.header("x-authority"), Some("shop.test"));
    assert_eq!(reply.header("x-sent-connection"), None);

    let upstream = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let at = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let head = String::from_utf8_lossy(&request[..at]).into_owned();
            let host = field(&head, "host").unwrap();
            let cookies = head.lines().filter(|line| line.starts_with("cookie:")).count();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Host: {host}\r\nX-Cookies: {cookies}\r\nX-Cookie: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                field(&head, "cookie").unwrap_or_default(),
                request.len() - at
            );
            let answer = [answer.as_bytes(), &request[at..], b"\r\n0\r\nX-Checksum: abc\r\n\r\n"];
            stream.get_mut().write_all(&answer.concat()).unwrap();
        }
    });
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    run(async {
        let send = connect(proxy.address("outbound")).await;
        let request = http::Request::post("http://shop.test:81/")
            .header("content-length", body.len())
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let answer = ask(&send, request.body(()).unwrap(), &body, None).await.unwrap();
        assert!(answer.body == body, "h2 to h1");
        assert_eq!(answer.header("x-host"), Some("shop.test:81"));
        // RFC 9113 §8.2.3: crumbs are put together again.
        assert_eq!(
            (answer.header("x-cookies"), answer.header("x-cookie")),
            (Some("1"), Some("a=1; b=2"))
        );
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.trailers, trailers());
    });
}

#[test]
fn trailers_reach_an_http1_caller_that_wants_them() {
    let upstream = Upstream::serve(|_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        while let Some(stream) = raw.request() {
            // `:status: 200` and `trailer: x-checksum`; literals that are not indexed.
            let head = b"\x88\x00\x07trailer\x0ax-checksum";
            raw.send(HEADERS, http2::END_HEADERS, stream, head);
            raw.send(DATA, 0, stream, b"body");
            raw.send(
                HEADERS,
                http2::END_HEADERS | http2::END_STREAM,
                stream,
                b"\x00\x0ax-checksum\x03abc",
            );
        }
    });
    let proxy = Proxy::start(&to_http2(upstream.address).yaml());
    for (te, dropped) in [("trailers", 0.0), ("gzip", 1.0)] {
        let mut caller = Connection::open(proxy.address("outbound"));
        caller.request("GET", "/", &[("TE", te), ("Connection", "close, TE")], b"");
        let reply = caller.reply_head();
        assert_eq!(reply.status, 200);
        let rest = String::from_utf8_lossy(&caller.rest()).into_owned();
        assert!(rest.contains("body"), "{rest}");
        assert_eq!(rest.contains("x-checksum: abc"), te == "trailers", "{rest}");
        let count = proxy.metrics().sum("outrigger_dropped_total", &[("reason", "trailers")]);
        assert!((count - dropped).abs() < 0.5, "{te}: {count}");
    }
}

#[test]
fn many_streams_share_one_connection_to_the_upstream() {
    let (echo, connections) = echo();
    let proxy = Proxy::start(&to_http2(echo).yaml());
    run(async {
        let send = connect(proxy.address("outbound")).await;
        let asking: Vec<_> = (0..1000)
            .map(|number| {
                let send = send.clone();
                tokio::task::spawn_local(async move {
                    let path = format!("/{number}");
                    let answer = ask(&send, post(&path), path.as_bytes(), None).await.unwrap();
                    assert_eq!(
                        (answer.text(), answer.header("x-path")),
                        (path.clone(), Some(&*path))
                    );
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
    });
    // 256 streams at once downstream, 200 upstream: one connection, at most a second one.
    assert!(connections.load(Ordering::Relaxed) <= 2);
    let metrics = proxy.metrics();
    let well = metrics.sum("outrigger_downstream_requests_total", &[("code", "2xx")]);
    assert!((well - 1000.0).abs() < 0.5, "{well}");
}

#[test]
fn who_does_not_read_holds_back_who_sends() {
    // More than any buffer and window on the way, which must not all be taken in.
    const MUCH: usize = 40 << 20;
    const BOUND: usize = 24 << 20;
    for protocol in ["http1", "http2"] {
        // Upload: the upstream reads the head, and the body only when told to.
        let (go, told) = std::sync::mpsc::channel::<()>();
        let told = Mutex::new(told);
        let (echo, _) = echo();
        let slow = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            let head = traffic::head_of(&mut stream);
            assert!(head.starts_with("POST"), "{head}");
            told.lock().unwrap().recv().unwrap();
            let mut left = MUCH;
            let mut piece = vec![0; 1 << 16];
            while left > 0 {
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0);
                left -= read;
            }
            stream.get_mut().write_all(&ok("all")).unwrap();
        });
        if protocol == "http1" {
            let proxy = Proxy::start(&Setup::new(&[slow.address]).route("timeout: 60s").yaml());
            run(async {
                let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
                let request = http::Request::post("http://a/").header("content-length", MUCH);
                let (response, mut stream) =
                    send.send_request(request.body(()).unwrap(), false).unwrap();
                let sent = send_until_held(&mut stream, MUCH).await;
                assert!(sent < BOUND, "{sent} bytes were taken in");
                go.send(()).unwrap();
                http2::send_all(&mut stream, Bytes::from(vec![0; MUCH - sent]), true)
                    .await
                    .unwrap();
                assert_eq!(response.await.unwrap().status(), 200);
            });
        } else {
            // Download: the echo sends back what it gets, and the caller takes none of it.
            let proxy = Proxy::start(&to_http2(echo).route("timeout: 60s").yaml());
            run(async {
                let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
                let (response, mut stream) = send.send_request(post("/"), false).unwrap();
                let mut body = response.await.unwrap().into_body();
                let sent = send_until_held(&mut stream, MUCH).await;
                assert!(sent < BOUND, "{sent} bytes were taken in");
                let rest = tokio::task::spawn_local(async move {
                    http2::send_all(&mut stream, Bytes::from(vec![0; MUCH - sent]), true)
                        .await
                        .unwrap();
                });
                let mut received = 0;
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    received += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                rest.await.unwrap();
                assert_eq!(received, MUCH);
            });
        }
    }
}

/// Sends until nothing more is taken for a while; returns how much went out.
async fn send_until_held(stream: &mut h2::SendStream<Bytes>, most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        stream.reserve_capacity(1 << 16);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_millis(700), room).await {
            Err(_) => return sent,
            Ok(room) => {
                let room = room.unwrap().unwrap();
                stream.send_data(Bytes::from(vec![0; room]), false).unwrap();
                sent += room;
            }
        }
    }
    sent
}

#[test]
fn at_the_upstreams_limit_of_streams_another_connection_is_made() {
    let held: Arc<AtomicUsize> = Arc::default();
    let most: Arc<AtomicUsize> = Arc::default();
    let (counted, seen) = (Arc::clone(&held), Arc::clone(&most));
    let connections: Arc<AtomicUsize> = Arc::default();
    let opened = Arc::clone(&connections);
    // Holds every request until it is told to answer them all.
    let (go, told) = std::sync::mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::serve(move |_, stream| {
        opened.fetch_add(1, Ordering::Relaxed);
        let Some(mut raw) = Raw::accept(stream, Some(4)) else { return };
        let mut streams = Vec::new();
        while streams.len() < 4 {
            let Some(stream) = raw.request() else { return };
            streams.push(stream);
            counted.fetch_add(1, Ordering::Relaxed);
            seen.fetch_max(streams.len(), Ordering::Relaxed);
        }
        told.lock().unwrap().recv().unwrap();
        for stream in streams {
            raw.answer(stream, "ok");
        }
        raw.serve("ok");
    });
    let proxy = Proxy::start(&to_http2(upstream.address).yaml());
    let to = proxy.address("outbound");
    let asking: Vec<_> =
        (0..12).map(|_| std::thread::spawn(move || support::get(to, "/").status)).collect();
    let end = tokio::time::Instant::now() + PATIENCE;
    while held.load(Ordering::Relaxed) < 12 {
        let held = held.load(Ordering::Relaxed);
        assert!(tokio::time::Instant::now() < end, "only {held} of 12 have arrived");
        std::thread::yield_now();
    }
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    let statuses: Vec<u16> = asking.into_iter().map(|asked| asked.join().unwrap()).collect();
    assert_eq!(statuses, [200; 12]);
    assert_eq!((connections.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (3, 4));
}

#[test]
fn at_the_limit_of_connections_a_request_waits_for_a_stream() {
    let (go, told) = std::sync::mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::serve(move |_, stream| {
        let Some(mut raw) = Raw::accept(stream, Some(1)) else { return };
        while let Some(stream) = raw.request() {
            told.lock().unwrap().recv().unwrap();
            raw.answer(stream, "ok");
        }
    });
    let limits = "protocol: http2, limits: { connections: 1, queue: 15s }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(limits).yaml());
    let to = proxy.address("outbound");
    let asking: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || support::get(to, "/").status)).collect();
    proxy.wait_metrics("all are there", |metrics| {
        metrics.sum("outrigger_upstream_in_flight", &[]) > 3.5
    });
    for _ in 0..4 {
        go.send(()).unwrap();
    }
    let statuses: Vec<u16> = asking.into_iter().map(|asked| asked.join().unwrap()).collect();
    assert_eq!(statuses, [200; 4]);
}

/// What the first connection of an upstream does to its first request; the others answer.
fn first_then_ok(
    first: impl Fn(&mut Raw, u32) + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicUsize>) {
    let requests: Arc<AtomicUsize> = Arc::default();
    let counted = Arc::clone(&requests);
    let upstream = Upstream::serve(move |number, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        while let Some(stream) = raw.request() {
            let request = counted.fetch_add(1, Ordering::Relaxed);
            if number == 0 && request == 0 {
                first(&mut raw, stream);
            } else {
                raw.answer(stream, "ok");
            }
        }
    });
    (upstream, requests)
}

#[test]
fn what_provably_did_not_run_is_sent_again_even_a_post() {
    let refused = |raw: &mut Raw, stream: u32| raw.reset(stream, REFUSED_STREAM);
    let going = |raw: &mut Raw, _: u32| raw.go_away(0, 0);
    let gone = |raw: &mut Raw, _: u32| {
        raw.go_away(0, 2);
        while raw.next().is_some() {}
    };
    type First = fn(&mut Raw, u32);
    for (name, first) in
        [("REFUSED_STREAM", refused as First), ("GOAWAY", going), ("GOAWAY with an error", gone)]
    {
        let (upstream, requests) = first_then_ok(first);
        let proxy = Proxy::start(&to_http2(upstream.address).yaml());
        let reply = http(proxy.address("outbound"), "POST", "/", &[], b"order");
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{name}");
        assert_eq!(requests.load(Ordering::Relaxed), 2, "{name}");
        let line = proxy.access_line(|line| line["status"] == 200);
        assert_eq!(line["attempts"], 2, "{name}");
        let safe = proxy.metrics().sum("outrigger_upstream_retries_total", &[("reason", "safe")]);
        assert!((safe - 1.0).abs() < 0.5, "{name}: {safe}");
    }
}

#[test]
fn what_may_have_run_is_not_sent_again() {
    let lost = |raw: &mut Raw, _: u32| drop(std::mem::replace(raw, closed()));
    // The stream was looked at: below the last one of the GOAWAY.
    let going = |raw: &mut Raw, stream: u32| {
        raw.go_away(stream, 0);
        *raw = closed();
    };
    let failing = |raw: &mut Raw, stream: u32| {
        raw.go_away(stream, 2);
        *raw = closed();
    };
    let reset = |raw: &mut Raw, stream: u32| raw.reset(stream, 2);
    type First = fn(&mut Raw, u32);
    for (name, first) in [
        ("lost", lost as First),
        ("GOAWAY", going),
        ("GOAWAY with an error", failing),
        ("RST_STREAM", reset),
    ] {
        let (upstream, requests) = first_then_ok(first);
        let route = "retry: { when: [reset], backoff: 1ms..1ms }";
        let proxy = Proxy::start(&to_http2(upstream.address).route(route).yaml());
        let to = proxy.address("outbound");
        let reply = http(to, "POST", "/", &[], b"order");
        assert_eq!(reply.status, 502, "{name}: {}", reply.text());
        let reason = reply.header("x-outrigger-reason").unwrap();
        assert!(["upstream_closed", "upstream_reset"].contains(&reason), "{name}: {reason}");
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{name}");
        assert_eq!(http(to, "POST", "/", &[], b"order").status, 200, "{name}: the next is served");

        let (upstream, requests) = first_then_ok(first);
        let proxy = Proxy::start(&to_http2(upstream.address).route(route).yaml());
        assert_eq!(support::get(proxy.address("outbound"), "/").status, 200, "{name}: a GET is");
        assert_eq!(requests.load(Ordering::Relaxed), 2, "{name}");
    }
}

/// A connection that has ended.
fn closed() -> Raw {
    Raw::ended()
}

#[test]
fn a_lost_connection_fails_all_its_streams_and_no_other() {
    let upstream = Upstream::serve(|number, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        if number > 0 {
            return raw.serve("ok");
        }
        let streams: Vec<u32> = (0..10).map_while(|_| raw.request()).collect();
        raw.answer_head(streams[0]);
        raw.answer_head(streams[1]);
        raw.send(DATA, 0, streams[1], b"half");
    });
    let proxy = Proxy::start(&to_http2(upstream.address).yaml());
    run(async {
        let send = connect(proxy.address("outbound")).await;
        let asking: Vec<_> = (0..10)
            .map(|_| {
                let send = send.clone();
                tokio::task::spawn_local(async move { ask(&send, post("/"), b"x", None).await })
            })
            .collect();
        let (mut broken, mut answered) = (0, 0);
        for asked in asking {
            match asked.await.unwrap() {
                Ok(answer) => {
                    assert_eq!(answer.status(), 502, "{answer:?}");
                    answered += 1;
                }
                // The head was out already: only a reset tells.
                Err(error) => {
                    assert!(error.is_reset(), "{error}");
                    broken += 1;
                }
            }
        }
        assert_eq!((broken, answered), (2, 8));
        assert_eq!(ask(&send, get("/"), b"", None).await.unwrap().text(), "ok");
    });
}

#[test]
fn an_upstream_that_speaks_no_http2_is_told_apart() {
    let speaks_http1 = Upstream::serve(|_, mut stream| {
        let mut first = [0; 1000];
        let _some = stream.read(&mut first);
        drop(stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ));
    });
    let closes = Upstream::serve(|_, mut stream| drop(stream.read(&mut [0; 24])));
    for (upstream, name) in [(speaks_http1, "HTTP/1"), (closes, "closes")] {
        let proxy = Proxy::start(&to_http2(upstream.address).yaml());
        let reply = http(proxy.address("outbound"), "POST", "/", &[], b"x");
        assert!([502, 503].contains(&reply.status), "{name}: {}", reply.text());
        let line = proxy.access_line(|line| line["method"] == "POST");
        assert!(line["detail"].as_str().unwrap().contains("articles"), "{name}: {line}");
    }
}

#[test]
fn a_caller_that_resets_its_stream_cancels_the_upstreams() {
    let (told, heard) = std::sync::mpsc::channel();
    let upstream = Upstream::serve(move |_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        let Some(stream) = raw.request() else { return };
        raw.answer_head(stream);
        let reset = raw.wait(RST_STREAM).unwrap();
        assert_eq!(reset.stream, stream);
        told.send(reset.payload).unwrap();
        raw.serve("ok");
    });
    let proxy = Proxy::start(&to_http2(upstream.address).yaml());
    run(async {
        let send = connect(proxy.address("outbound")).await;
        let mut ready = send.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(get("/cancelled"), true).unwrap();
        let response = response.await.unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop((response, stream));
        // Its connection is driven by this thread as well.
        let code = loop {
            match heard.try_recv() {
                Ok(code) => break code,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(code, CANCEL.to_be_bytes());
        assert_eq!(ask(&send, get("/"), b"", None).await.unwrap().text(), "ok", "the others go on");
    });
    let line = proxy.access_line(|line| line["path"] == "/cancelled");
    assert_eq!(line["reason"], "client_gone");

    // HTTP/1 has no other way than to end the connection.
    let (told, heard) = std::sync::mpsc::channel();
    let upstream = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).unwrap();
        told.send(drain(&mut stream)).unwrap();
    });
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    run(async {
        let send = connect(proxy.address("outbound")).await;
        let mut ready = send.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(get("/"), true).unwrap();
        // Its connection is driven by this thread as well.
        while proxy.metrics().sum("outrigger_upstream_in_flight", &[]) < 0.5 {
            tokio::task::yield_now().await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        while proxy.metrics().sum("outrigger_upstream_in_flight", &[]) > 0.5 {
            tokio::task::yield_now().await;
        }
    });
    heard.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn curl_and_h2load_are_served() {
    let (echo, _) = echo();
    let proxy = Proxy::start(&to_http2(echo).workers(2).yaml());
    let url = format!("http://{}/", proxy.address("outbound"));
    if let Some(curl) = program("OUTRIGGER_TEST_CURL", "curl", "curl") {
        let body = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(body.path(), bytes(3_000_000)).unwrap();
        for version in ["--http2-prior-knowledge", "--http1.1"] {
            let data = format!("@{}", body.path().display());
            let mut command = Command::new(&curl);
            command.args(["-sS", version, "--data-binary", &data, &url]);
            let output = command.output().unwrap();
            assert!(output.stdout == bytes(3_000_000), "{version}: {:?}", output.status);
        }
    }
    if let Some(h2load) = program("OUTRIGGER_TEST_H2LOAD", "h2load", "nghttp2-client") {
        for streams in ["1", "50"] {
            let mut command = Command::new(&h2load);
            command.args(["-n", "2000", "-c", "4", "-m", streams, &url]);
            let output = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
            assert!(output.contains("2000 succeeded, 0 failed, 0 errored"), "{output}");
        }
    }
}

#[test]
fn many_small_frames_for_a_slow_reader_do_not_end_the_connection() {
    // The h2 crate ends the connection where some 8 000 frames below 256 B wait to be read.
    const FRAMES: usize = 6_000;
    let (all_sent, sent) = std::sync::mpsc::channel();
    let upstream = Upstream::serve(move |_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        while let Some(stream) = raw.request() {
            raw.answer_head(stream);
            for _ in 0..FRAMES {
                raw.send(DATA, 0, stream, b"0123456789");
            }
            raw.send(DATA, http2::END_STREAM, stream, b"");
            // Answered behind all frames: the proxy has taken them in.
            raw.send(PING, 0, 0, b"all sent");
            if raw.wait(PING).is_some_and(|frame| frame.flags & ACK != 0) {
                all_sent.send(()).unwrap();
            }
        }
    });
    let proxy = Proxy::start(&to_http2(upstream.address).yaml());
    run(async {
        let mut send = connect(proxy.address("outbound")).await.ready().await.unwrap();
        let (response, _) = send.send_request(get("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        // Nothing is read before the proxy has all of it.
        let told = tokio::task::spawn_blocking(move || sent.recv_timeout(PATIENCE));
        told.await.unwrap().unwrap();
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            received += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(received, FRAMES * 10);
    });
}

/// A caller that resets its stream in the middle of a body, whatever the code, has not sent all of it.
#[test]
fn an_upload_that_is_reset_does_not_look_whole_to_the_upstream() {
    for code in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let (told, heard) = std::sync::mpsc::channel();
        let upstream = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            assert!(traffic::head_of(&mut stream).contains("transfer-encoding: chunked"));
            let mut half = [0; 9];
            stream.read_exact(&mut half).unwrap();
            assert_eq!(&half, b"4\r\nhalf\r\n");
            told.send(Vec::new()).unwrap();
            told.send(drain(&mut stream)).unwrap();
        });
        let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
        run(async {
            let send = connect(proxy.address("outbound")).await;
            let mut ready = send.clone().ready().await.unwrap();
            let (response, mut stream) = ready.send_request(post("/"), false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            // Its connection is driven by this thread as well.
            while heard.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            stream.send_reset(code);
            let rest = loop {
                match heard.try_recv() {
                    Ok(rest) => break rest,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            assert_eq!(rest, b"", "{code}");
            drop(response);
        });
        let line = proxy.access_line(|line| line["method"] == "POST");
        assert_eq!(line["reason"], "client_gone", "{code}: {line}");
    }
}

#[test]
fn an_answer_that_is_reset_does_not_look_whole_to_the_caller() {
    for code in [CANCEL, 0] {
        let (seen, go_on) = std::sync::mpsc::channel();
        let go_on = Mutex::new(go_on);
        let upstream = Upstream::serve(move |_, stream| {
            let Some(mut raw) = Raw::accept(stream, None) else { return };
            while let Some(stream) = raw.request() {
                raw.answer_head(stream);
                raw.send(DATA, 0, stream, b"half");
                go_on.lock().unwrap().recv().unwrap();
                raw.reset(stream, code);
            }
        });
        let proxy = Proxy::start(&to_http2(upstream.address).yaml());
        let mut connection = Connection::open(proxy.address("outbound"));
        connection.send(b"GET /one HTTP/1.1\r\nhost: articles\r\n\r\n");
        connection.reply_head();
        assert_eq!(connection.chunk().unwrap(), b"half");
        seen.send(()).unwrap();
        assert_eq!(connection.rest(), b"", "{code}");
        run(async {
            let send = connect(proxy.address("outbound")).await;
            let mut ready = send.clone().ready().await.unwrap();
            let (response, _) = ready.send_request(get("/two"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            seen.send(()).unwrap();
            body.data().await.unwrap().unwrap_err();
        });
        for path in ["/one", "/two"] {
            let line = proxy.access_line(|line| line["path"] == path);
            assert_eq!(line["reason"], "upstream_reset", "{code}: {line}");
        }
    }
}
