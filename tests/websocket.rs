//! Upgrades with the websockets package on both sides; CONNECT, the absolute form and `OPTIONS *` by hand.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::process::Command;

use support::{Connection, Proxy, Upstream};
use traffic::{PythonServer, Setup, drain, field, ok};

fn service() -> Option<PythonServer> {
    PythonServer::start("websockets", "ws_server.py")
}

/// Runs a scenario of `ws_client.py`.
fn run(service: &PythonServer, to: SocketAddr, scenario: &str) {
    let mut command = Command::new(&service.python);
    command.arg(traffic::client("ws_client.py")).arg(to.to_string()).arg(scenario);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {text}");
}

#[test]
fn frames_and_closes_pass_through_one_proxy_and_through_two() {
    let Some(service) = service() else { return };
    let second = Proxy::start(&Setup::new(&[service.address]).yaml());
    let first = Proxy::start(&Setup::new(&[second.address("outbound")]).workers(2).yaml());
    for proxy in [&second, &first] {
        for scenario in ["echo", "closes", "many"] {
            run(&service, proxy.address("outbound"), scenario);
        }
        let line = proxy.access_line(|line| line["path"] == "/bye");
        assert_eq!((&line["status"], &line["reason"]), (&101.into(), &serde_json::Value::Null));
        assert_eq!(line["upstream"], "articles");
        let line = proxy.access_line(|line| {
            line["path"] == "/echo" && line["sent_bytes"].as_u64() > Some(8 * 1024 * 1024)
        });
        assert!(line["received_bytes"].as_u64() > Some(8 * 1024 * 1024), "{line}");
        proxy.wait_metrics("nothing is held", |metrics| {
            [
                "downstream_connections",
                "downstream_in_flight",
                "upstream_in_flight",
                "upstream_connections",
            ]
            .iter()
            .all(|name| metrics.sum(&format!("outrigger_{name}"), &[]) < 0.5)
        });
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let Some(service) = service() else { return };
    let proxy = Proxy::start(&Setup::new(&[service.address]).yaml());
    run(&service, proxy.address("outbound"), "refused");
    let line = proxy.access_line(|line| line["path"] == "/forbidden");
    assert_eq!((&line["status"], &line["reason"]), (&403.into(), &serde_json::Value::Null));
}

#[test]
fn idle_ends_a_silent_socket() {
    let Some(service) = service() else { return };
    let setup = Setup::new(&[service.address]).route("idle: 500ms, timeout: 300ms");
    let proxy = Proxy::start(&setup.yaml());
    run(&service, proxy.address("outbound"), "idle");
    let line = proxy.access_line(|line| line["path"] == "/idle");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"stream_idle".into()));
}

#[test]
fn an_upgrade_keeps_its_headers_and_bytes_sent_at_once() {
    let upstream = Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        let head = traffic::head_of(&mut stream);
        assert_eq!(field(&head, "connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
        assert_eq!(field(&head, "upgrade"), Some("talk/1"));
        assert_eq!(field(&head, "x-kept"), Some("1"));
        // The head and the first bytes of the new protocol in one piece.
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk/1\r\nX-Back: 2\r\n\r\nfirst";
        stream.get_mut().write_all(answer).unwrap();
        let mut said = vec![0; 6];
        std::io::Read::read_exact(&mut stream, &mut said).unwrap();
        stream.get_mut().write_all(&said).unwrap();
    });
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Hop\r\nUpgrade: talk/1\r\nX-Kept: 1\r\nX-Hop: 1\r\n\r\nsecond");
    let reply = caller.reply_head();
    assert_eq!((reply.status, reply.header("upgrade")), (101, Some("talk/1")));
    assert_eq!(reply.header("x-back"), Some("2"));
    assert_eq!(String::from_utf8_lossy(&caller.rest()), "firstsecond");
}

#[test]
fn connect_is_refused_unless_a_route_lists_it_and_then_it_is_a_tunnel() {
    let upstream = Upstream::serve(|_, mut stream| {
        let said = drain(&mut stream);
        stream.write_all(&[b"heard ", &said[..]].concat()).unwrap();
    });
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\n");
    let reply = caller.reply();
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (405, Some("method_refused")));
    assert!(reply.header("allow").is_some());

    let route = "match: { method: [CONNECT], host: db.test }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).route(route).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\nquestion");
    let reply = caller.reply_head();
    assert_eq!((reply.status, reply.header("content-length")), (200, None), "{}", reply.head);
    assert_eq!(reply.header("transfer-encoding"), None);
    caller.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(String::from_utf8_lossy(&caller.rest()), "heard question");
    let line = proxy.access_line(|line| line["method"] == "CONNECT");
    assert_eq!(
        (&line["status"], &line["received_bytes"], &line["sent_bytes"]),
        (&200.into(), &8.into(), &14.into())
    );
    assert_eq!(line["endpoint"], upstream.address.to_string());
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.send("CONNECT other.test:5432 HTTP/1.1\r\nHost: other.test:5432\r\n\r\n");
    assert_eq!(caller.reply().status, 405);
}

#[test]
fn the_absolute_form_and_options_for_all_go_upstream_in_their_proper_form() {
    let upstream = Upstream::scripted(|_| ok("ok"));
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).yaml());
    let mut caller = Connection::open(proxy.address("outbound"));
    for request in [
        "GET http://shop.test:81/cart?id=1 HTTP/1.1\r\nHost: shop.test:81\r\n\r\n",
        "GET http://shop.test HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ] {
        caller.send(request);
        assert_eq!(caller.reply().status, 200, "{request}");
    }
    let seen = upstream.requests();
    let line = |number: usize| seen[number].lines().next().unwrap();
    assert_eq!(line(0), "GET /cart?id=1 HTTP/1.1");
    assert_eq!(field(&seen[0], "host"), Some("shop.test:81"));
    assert_eq!(line(1), "GET / HTTP/1.1");
    assert_eq!(line(2), "OPTIONS * HTTP/1.1");
}
