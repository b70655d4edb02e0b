//! TCP listeners and unix sockets: bytes pass as they are.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::time::Instant;

use support::{PATIENCE, Proxy, Upstream, refusing};
use traffic::{Setup, drain};

fn tcp(endpoints: &[SocketAddr], limits: &str) -> Setup {
    let limits = if limits.is_empty() { "protocol: tcp" } else { limits };
    Setup::new(endpoints).listener(limits).route("retry: {}").upstream("balance: round_robin")
}

fn open(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address("outbound")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).cycle().take(count).collect()
}

#[test]
fn much_passes_both_ways_and_is_counted() {
    let upstream = Upstream::serve(|_, mut stream| {
        let mut copy = stream.try_clone().unwrap();
        let _copied = std::io::copy(&mut copy, &mut stream);
        let _gone = stream.shutdown(Shutdown::Write);
    });
    let proxy = Proxy::start(&tcp(&[upstream.address], "").yaml());
    let mut caller = open(&proxy);
    let sent = bytes(3_000_000);
    let mut writer = caller.try_clone().unwrap();
    let written = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&written).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert!(drain(&mut caller) == sent);
    writing.join().unwrap();
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert_eq!(
        (&line["received_bytes"], &line["sent_bytes"]),
        (&3_000_000.into(), &3_000_000.into())
    );
    assert_eq!((&line["upstream"], &line["attempts"]), (&"articles".into(), &1.into()));
    assert_eq!(line["endpoint"], upstream.address.to_string());
    assert_eq!(line["reason"], serde_json::Value::Null);
    let metrics = proxy.wait_metrics("the end", |metrics| {
        metrics.sum("outrigger_downstream_connections", &[]) < 0.5
            && metrics.sum("outrigger_upstream_connections", &[]) < 0.5
            && metrics.sum("outrigger_upstream_in_flight", &[]) < 0.5
    });
    for name in ["received", "sent"] {
        let count = metrics.sum(&format!("outrigger_downstream_{name}_bytes_total"), &[]);
        assert!((count - 3e6).abs() < 0.5, "{name}: {count}");
    }
}

#[test]
fn each_side_may_close_its_half_and_still_receive() {
    let (told, heard) = channel();
    let upstream = Upstream::serve(move |number, mut stream| {
        if number == 0 {
            // The caller closes first.
            let request = drain(&mut stream);
            stream.write_all(&[b"got ", &request[..]].concat()).unwrap();
        } else {
            // We do.
            stream.write_all(b"bye").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            told.send(drain(&mut stream)).unwrap();
        }
    });
    let proxy = Proxy::start(&tcp(&[upstream.address], "").yaml());
    let mut caller = open(&proxy);
    caller.write_all(b"question").unwrap();
    caller.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut caller), b"got question");
    let mut caller = open(&proxy);
    assert_eq!(drain(&mut caller), b"bye");
    caller.write_all(b"one more thing").unwrap();
    drop(caller);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"one more thing");
}

#[test]
fn another_endpoint_is_tried_where_one_cannot_be_reached() {
    let upstream = Upstream::serve(|_, mut stream| drop(stream.write_all(b"hello")));
    let proxy = Proxy::start(&tcp(&[refusing(), upstream.address], "").yaml());
    for _ in 0..4 {
        assert_eq!(drain(&mut open(&proxy)), b"hello");
    }
    let line = proxy.access_line(|line| line["attempts"] == 2);
    assert_eq!(line["endpoint"], upstream.address.to_string());
    let safe = [("reason", "safe")];
    assert!(proxy.metrics().sum("outrigger_upstream_retries_total", &safe) >= 1.0);

    let proxy = Proxy::start(&tcp(&[refusing()], "").yaml());
    assert_eq!(drain(&mut open(&proxy)), b"");
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert_eq!((&line["reason"], &line["attempts"]), (&"connect_failed".into(), &3.into()));
}

#[test]
fn a_silent_connection_ends_after_idle() {
    let upstream = Upstream::serve(|_, mut stream| drop(drain(&mut stream)));
    let limits = "protocol: tcp, limits: { idle: 500ms }";
    let proxy = Proxy::start(&tcp(&[upstream.address], limits).yaml());
    let start = Instant::now();
    let mut caller = open(&proxy);
    traffic::pause(300);
    caller.write_all(b"x").unwrap();
    assert_eq!(drain(&mut caller), b"");
    assert!(start.elapsed() >= Duration::from_millis(800));
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert_eq!((&line["reason"], &line["flag"]), (&"stream_idle".into(), &"SI".into()));
}

#[test]
fn a_connection_that_breaks_off_does_not_end_as_if_all_had_arrived() {
    let upstream = Upstream::serve(|_, mut stream| {
        stream.write_all(b"half").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let proxy = Proxy::start(&tcp(&[upstream.address], "").yaml());
    let mut caller = open(&proxy);
    caller.read_exact(&mut [0; 4]).unwrap();
    caller.write_all(b"x").unwrap();
    let end = caller.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert_eq!(line["reason"], "upstream_reset");
}

#[test]
fn unix_sockets_serve_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let app = UnixListener::bind(at("app.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in app.incoming() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            std::thread::spawn(move || {
                while support::read_request(&mut stream).is_some() {
                    if stream.get_mut().write_all(&traffic::ok("over unix")).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let path = |name: &str| at(name).display().to_string();
    let yaml = format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2 }}\nlisteners:\n  http: {{ bind: \"unix:{}\", routes: [{{ to: app }}] }}\n  \
         raw: {{ bind: \"unix:{}\", protocol: tcp, routes: [{{ to: app }}] }}\nupstreams:\n  app: {{ endpoints: [\"unix:{}\"] \
         }}\n",
        path("http.sock"),
        path("raw.sock"),
        path("app.sock"),
    );
    let proxy = Proxy::start(&yaml);
    for name in ["http.sock", "raw.sock"] {
        for _ in 0..4 {
            let mut caller = UnixStream::connect(at(name)).unwrap();
            caller.set_read_timeout(Some(PATIENCE)).unwrap();
            caller
                .write_all(b"GET /unix HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut reply = vec![0; 15];
            caller.read_exact(&mut reply).unwrap();
            assert_eq!(reply, b"HTTP/1.1 200 Te", "{name}");
        }
    }
    let line = proxy.access_line(|line| line["path"] == "/unix");
    assert_eq!((&line["peer"], &line["listener"]), (&"unix".into(), &"http".into()));
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert!(line["endpoint"].as_str().unwrap().contains("app.sock"), "{line}");
}
