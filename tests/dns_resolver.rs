//! How names are looked up: families, time, size, servers, search list; with dnsmasq as the name server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/dnsmasq.rs"]
mod dnsmasq;
#[path = "support/local.rs"]
mod local;
#[path = "support/namespace.rs"]
mod namespace;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::time::Duration;

use tokio::time::Instant;

use dnsmasq::{NameServer, one_and_two};
use local::{ask, endpoints, until, upstream};
use support::Proxy;

fn yaml(server: &NameServer, port: u16) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\ndns: {{ servers: [\"127.0.0.1:{}\"], ttl: 1s..2s }}\nlisteners:\n  \
         outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: articles }}] }}\nupstreams:\n  articles: {{ discover: \
         \"dns://web.test:{port}\", balance: round_robin }}\n",
        server.port
    )
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    let Some(mut server) = NameServer::new() else { return };
    server.arguments = vec!["--edns-packet-max=512".to_owned()];
    let names: String = (1..=200).map(|n| format!("127.0.1.{n} web.test\n")).collect();
    server.names(&names);
    server.start();
    let proxy = Proxy::start(&yaml(&server, 1));
    proxy.wait_metrics("all addresses", |metrics| {
        metrics.sum("outrigger_upstream_endpoints", &[("upstream", "articles")]) > 199.5
    });
}

fn addresses(proxy: &Proxy) -> Vec<String> {
    let shown = upstream(proxy);
    let endpoints = shown["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn both_families_of_a_name_are_used() {
    let Some(mut server) = NameServer::new() else { return };
    server.names("127.0.0.1 web.test\n::1 web.test\n");
    server.start();
    let proxy = Proxy::start(&yaml(&server, 8));
    until("both", || addresses(&proxy) == ["127.0.0.1:8", "[::1]:8"]);
    server.names("::1 web.test\n");
    until("IPv6 alone, once confirmed", || addresses(&proxy) == ["[::1]:8"]);
}

#[test]
fn the_range_of_ttls_bounds_what_the_name_server_says() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 web.test\n");
    // Far too long, and cut to 1 s.
    server.ttl = 3_600;
    server.start();
    let range = |range: &str| yaml(&server, port).replace("1s..2s", range);
    let proxy = Proxy::start(&range("1s..1s"));
    until("the first answer", || ask(&proxy) == "one");
    server.names("127.0.0.2 web.test\n");
    until("the change", || ask(&proxy) == "two");
    drop(proxy);
    // Too short, and stretched to 4 s, a tenth more or less.
    let mut server = NameServer::new().unwrap();
    server.names("127.0.0.1 web.test\n");
    server.ttl = 0;
    server.start();
    let start = Instant::now();
    let proxy = Proxy::start(&yaml(&server, port).replace("1s..2s", "4s..60s"));
    until("the first answer", || ask(&proxy) == "one");
    server.names("127.0.0.2 web.test\n");
    until("the change", || ask(&proxy) == "two");
    assert!(start.elapsed() > Duration::from_millis(3_500), "{:?}", start.elapsed());
}

#[test]
fn a_name_server_that_does_not_answer_is_passed_over() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 web.test\n");
    server.start();
    // Takes questions and says nothing.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("\"{}\"", socket.local_addr().unwrap());
    let own = format!("\"127.0.0.1:{}\"", server.port);
    let alone = Proxy::start(&yaml(&server, port).replace(&own, &silent));
    let proxy = Proxy::start(&yaml(&server, port).replace(&own, &format!("{silent}, {own}")));
    until("the answer of the second", || ask(&proxy) == "one");
    alone.wait_metrics("a timeout", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("reason", "timeout")]) >= 1.0
    });
    assert_eq!(ask(&alone), "503");
}

/// `/etc` and the network are the test's own: a name server on port 53, and a `resolv.conf` that names it.
#[test]
fn without_a_word_names_are_those_of_the_system() {
    let name = "without_a_word_names_are_those_of_the_system";
    let setup = "ip link set lo up && mount -t tmpfs tmpfs /etc";
    // Where it is installed is asked for outside: the files that say so are hidden inside.
    if !namespace::is_inside(name, &["--net", "--mount"], setup) {
        return;
    }
    let Some(mut server) = NameServer::new() else { return };
    let write = |file: &str, text: &str| std::fs::write(format!("/etc/{file}"), text).unwrap();
    write("passwd", "root:x:0:0:root:/root:/bin/sh\n");
    write("group", "root:x:0:\ndip:x:30:\n");
    write("hosts", "127.0.0.2 in-a-file\n");
    write("resolv.conf", "nameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:2\n");
    let port = one_and_two();
    (server.port, server.ttl) = (53, 1);
    // Fewer than two dots: the search list comes first, and with two the name itself.
    server.names(
        "127.0.0.1 web.b.test\n127.0.0.1 one.dot.a.test\n127.0.0.9 one.dot\n127.0.0.1 two.dots.test\n127.0.0.9 two.dots.test.a.test\n",
    );
    server.start();
    let with = |host: &str| {
        local::yaml(&format!("\"dns://{host}:{port}\""))
            .replace("upstreams:", "dns: { ttl: 1s..1s }\nupstreams:")
    };
    let proxy = Proxy::start(&with("web"));
    until("the second domain of the search list", || ask(&proxy) == "one");
    for (host, body) in [("in-a-file", "two"), ("one.dot", "one"), ("two.dots.test", "one")] {
        assert_eq!(proxy.reload(&with(host)).status, 200);
        until(host, || upstream(&proxy)["discovery"]["source"] == format!("dns://{host}:{port}"));
        until(host, || upstream(&proxy)["discovery"]["state"] == "fresh" && ask(&proxy) == body);
        assert_eq!(endpoints(&proxy), 1);
    }
    // The files are read again when they change.
    assert_eq!(proxy.reload(&with("web")).status, 200);
    server.names("127.0.0.1 web.b.test\n127.0.0.2 web.c.test\n");
    write("resolv.conf", "nameserver 127.0.0.1\nsearch c.test\n");
    until("another search list", || ask(&proxy) == "two");
}
