//! Upstreams by name, with dnsmasq as the name server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/dnsmasq.rs"]
mod dnsmasq;
#[path = "support/local.rs"]
mod local;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::Instant;

use dnsmasq::{NameServer, one_and_two};
use local::until;
use support::{Proxy, get};

fn yaml(server: &NameServer, port: u16) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\ndns: {{ servers: [\"127.0.0.1:{}\"], ttl: 1s..2s }}\nlisteners:\n  \
         outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: articles }}] }}\nupstreams:\n  articles: {{ discover: \
         \"dns://web.test:{port}\", balance: round_robin }}\n",
        server.port
    )
}

/// A name server that knows the name as the first of two, and a proxy that has heard so.
fn following() -> Option<(NameServer, Proxy)> {
    let mut server = NameServer::new()?;
    let port = one_and_two();
    server.names("127.0.0.1 web.test\n");
    server.start();
    let proxy = Proxy::start(&yaml(&server, port));
    until("the first answer", || get(proxy.address("outbound"), "/").text() == "one");
    Some((server, proxy))
}

#[test]
fn names_are_followed_and_a_dead_name_server_changes_nothing() {
    let Some((mut server, proxy)) = following() else { return };
    let to = proxy.address("outbound");
    let ask = || get(to, "/").text();
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200);

    server.names("127.0.0.2 web.test\n");
    until("the changed name is followed", || ask() == "two");
    assert_eq!(ask(), "two");

    server.stop();
    proxy.wait_metrics("failed look-ups", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("upstream", "articles")]) >= 2.0
    });
    assert_eq!(ask(), "two", "the last good set stays");
    proxy.log().wait("a warning", |line| line.contains("last good set is kept").then_some(()));
    proxy.wait_metrics("staleness", |metrics| {
        metrics.sum("outrigger_discovery_staleness_seconds", &[]) >= 1.0
    });
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200, "stale is not unready");

    server.names("127.0.0.1 web.test\n127.0.0.2 web.test\n");
    server.start();
    proxy.wait_metrics("both addresses", |metrics| {
        metrics.sum("outrigger_upstream_endpoints", &[("state", "ready")]) > 1.5
    });
    let mut both = [ask(), ask()];
    both.sort();
    assert_eq!(both, ["one", "two"]);
}

#[test]
fn until_a_name_is_known_requests_are_told_so_and_the_proxy_is_not_ready() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    let proxy = Proxy::start(&yaml(&server, port));
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("dns_failed")));
    assert!(reply.text().contains("articles"), "{}", reply.text());
    let ready = get(proxy.address("admin"), "/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("waiting for endpoints of articles"), "{}", ready.text());
    server.names("127.0.0.1 web.test\n");
    server.start();
    until("the name is known", || get(proxy.address("outbound"), "/").text() == "one");
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200);
}

#[test]
fn a_name_that_is_taken_back_loses_its_endpoints() {
    let Some((server, proxy)) = following() else { return };
    let to = proxy.address("outbound");
    server.names("127.0.0.1 other.test\n");
    until("the name is gone", || get(to, "/").status == 503);
    let reply = get(to, "/");
    assert_eq!(reply.header("x-outrigger-reason"), Some("no_upstream"), "{}", reply.text());
    server.names("127.0.0.2 web.test\n");
    until("the name is back", || get(to, "/").text() == "two");
}

#[test]
fn a_changed_name_reaches_requests_within_its_ttl_and_a_second() {
    let Some((server, proxy)) = following() else { return };
    let to = proxy.address("outbound");
    let mut took = Vec::new();
    for (address, body) in [("127.0.0.2", "two"), ("127.0.0.1", "one"), ("127.0.0.2", "two")] {
        let start = Instant::now();
        server.names(&format!("{address} web.test\n"));
        until("the change", || get(to, "/").text() == body);
        took.push(start.elapsed());
    }
    took.sort();
    // The name server says 1 s.
    assert!(took[1] < Duration::from_secs(2), "{took:?}");
}

/// A server that has failed, whatever it is asked: dnsmasq passes its answers on.
fn failing() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            // An answer, with the code of a server's failure (RFC 1035 §4.1.1).
            packet[2] |= 0x80;
            packet[3] = packet[3] & 0xf0 | 2;
            let _gone = socket.send_to(&packet[..length], from);
        }
    });
    address
}

#[test]
fn a_name_server_that_fails_fails_no_request() {
    let Some((mut server, proxy)) = following() else { return };
    let to = proxy.address("outbound");
    let failed = [("reason", "servfail")];
    let errors = || proxy.metrics().sum("outrigger_discovery_errors_total", &failed);
    server.stop();
    server.names("");
    let asked = failing();
    server.arguments = vec![format!("--server=/web.test/{}#{}", asked.ip(), asked.port())];
    server.start();
    let before = errors();
    until("failures", || {
        assert_eq!(get(to, "/").text(), "one");
        errors() > before + 1.5
    });
    server.stop();
    server.arguments.clear();
    server.names("127.0.0.2 web.test\n");
    server.start();
    until("it is well again", || get(to, "/").text() == "two");
}
