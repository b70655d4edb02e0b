//! What passes over TLS, seen from outside: large bodies, half-closed connections, and what was cut.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "test code"
)]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use support::{Connection, Proxy, Upstream};
use tls::{Authority, open};

/// Two proxies in a row, TLS between them and before them: `protocol` on the first listener, the keys of both listeners, and
/// those of the upstream between.
fn in_a_row(ca: &Authority, listener: &str, between: &str, upstream: &Upstream) -> (Proxy, Proxy) {
    let own = ca.issue("server", &["localhost"]);
    let proxy = |tls: &str, endpoint: std::net::SocketAddr, upstream: &str| {
        Proxy::start(&format!(
            "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {tls}\n    {listener}\n    routes: [{{ to: next }}]\nupstreams:\n  next:\n    endpoints: [\"{endpoint}\"]\n    connect_timeout: 5s\n    {upstream}\n",
            own.yaml(),
            ca.ca().display(),
        ))
    };
    let far = proxy("{}", upstream.address, "");
    let near =
        proxy("never", far.address("in"), &format!("tls: {{ sni: localhost }}\n    {between}"));
    (near, far)
}

/// 3 MiB in which no two pieces are alike.
fn large() -> Vec<u8> {
    (0..786_432_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    let ca = Authority::new("ca");
    for protocol in ["http1", "http2"] {
        let upstream = Upstream::scripted(|_| {
            let body = large();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        });
        let (near, _far) = in_a_row(&ca, "", &format!("protocol: {protocol}"), &upstream);
        let mut connection = Connection::open(near.address("in"));
        for _ in 0..2 {
            connection.request("POST", "/", &[], &large());
            assert!(connection.reply().body == large(), "{protocol}");
        }
        for request in upstream.received.lock().unwrap().iter() {
            assert!(request.ends_with(&large()), "{protocol}: {} bytes", request.len());
        }
    }
}

#[test]
fn a_slow_reader_under_tls_gets_all_of_it() {
    let ca = Authority::new("ca");
    let upstream = Upstream::scripted(|_| {
        let body = large();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    });
    let (_near, far) = in_a_row(&ca, "", "", &upstream);
    let mut stream = open(far.address("in"), &Arc::new(ca.client(None)), "localhost");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut received = Vec::new();
    let mut piece = [0; 700];
    loop {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        received.extend_from_slice(&piece[..read]);
    }
    assert!(received.ends_with(&large()), "{} bytes", received.len());
}

#[test]
fn a_half_closed_connection_still_receives() {
    let ca = Authority::new("ca");
    let upstream = Upstream::serve(|_, mut stream| {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(format!("{} bytes", received.len()).as_bytes()).unwrap();
    });
    let (near, _far) = in_a_row(&ca, "protocol: tcp", "", &upstream);
    let mut stream = TcpStream::connect(near.address("in")).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(&large()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, format!("{} bytes", large().len()));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_only_when_the_end_was_said() {
    let ca = Authority::new("ca");
    let own = ca.issue("endpoint", &["localhost"]);
    for (notify, whole) in [(true, true), (false, false)] {
        let endpoint = own.serve(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec(), notify);
        let proxy = Proxy::start(&format!(
            "admin: 127.0.0.1:0\nlisteners:\n  in: {{ bind: 127.0.0.1:0, routes: [{{ to: next, retry: never }}] }}\nupstreams:\n  next: {{ endpoints: [\"{}\"], protocol: http1, connect_timeout: 5s, tls: {{ sni: localhost, ca: {} }} }}\n",
            endpoint.address,
            ca.ca().display(),
        ));
        let mut connection = Connection::open(proxy.address("in"));
        connection.request("GET", "/", &[], b"");
        let said = String::from_utf8_lossy(&{
            if whole { connection.reply().body } else { connection.rest() }
        })
        .into_owned();
        assert!(said.contains("all of it"), "{notify}: {said}");
        assert!(whole || !said.contains("\r\n0\r\n"), "a cut answer looks whole: {said}");
        if !whole {
            let line = proxy.access_line(|line| line["path"] == "/");
            assert_eq!(line["reason"], "upstream_reset", "{line}");
        }
    }
}
