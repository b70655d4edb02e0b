//! Upstreams by SRV records, with dnsmasq as the name server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/dnsmasq.rs"]
mod dnsmasq;
#[path = "support/local.rs"]
mod local;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dnsmasq::{NameServer, one_and_two};
use local::until;
use support::{Metrics, Proxy, get};

fn yaml(server: &NameServer, port: u16) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\ndns: {{ servers: [\"127.0.0.1:{}\"], ttl: 1s..2s, search: [test] }}\nlisteners:\n  \
         srv: {{ bind: \"127.0.0.1:0\", routes: [{{ to: srv }}] }}\n  plain: {{ bind: \"127.0.0.1:0\", routes: [{{ to: plain }}] \
         }}\nupstreams:\n  srv: {{ discover: \"dns+srv://_http._tcp.web\", balance: round_robin }}\n  plain: {{ discover: \
         \"dns://one.test:{port}\", balance: round_robin }}\n",
        server.port
    )
}

/// `--srv-host` for `_http._tcp.web.test`.
fn record(target: &str, port: u16, priority: u16, weight: u16) -> String {
    format!("--srv-host=_http._tcp.web.test,{target},{port},{priority},{weight}")
}

fn endpoints(proxy: &Proxy) -> Vec<String> {
    let page = get(proxy.address("admin"), "/upstreams").text();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let srv = page.as_array().unwrap().iter().find(|upstream| upstream["name"] == "srv").unwrap();
    let shown = |e: &serde_json::Value| {
        assert_eq!(e["source"], "dns+srv://_http._tcp.web");
        assert!(e["age_seconds"].is_u64());
        let address = e["address"].as_str().unwrap().rsplit_once(':').unwrap();
        format!("{} p{} w{}", address.0, e["priority"], e["weight"])
    };
    srv["endpoints"].as_array().unwrap().iter().map(shown).collect()
}

fn errors(metrics: &Metrics, upstream: &str) -> f64 {
    metrics.sum("outrigger_discovery_errors_total", &[("upstream", upstream)])
}

#[test]
fn records_say_port_weight_and_priority_and_targets_are_followed() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 one.test\n127.0.0.2 two.test\n");
    server.arguments = vec![record("one.test", port, 0, 0), record("two.test", port, 10, 20)];
    server.start();
    let proxy = Proxy::start(&yaml(&server, port));
    let ask = || get(proxy.address("srv"), "/").text();
    until("the first answer", || ask() == "one");
    assert_eq!(endpoints(&proxy), ["127.0.0.1 p0 w1", "127.0.0.2 p10 w20"]);
    assert!((0..20).all(|_| ask() == "one"), "priority 10 waits");

    // An address of a target changes, by the target's TTL.
    server.names("127.0.0.2 one.test\n127.0.0.1 two.test\n");
    until("the target is followed", || ask() == "two");

    // Other records: one of weight 0 beside another of the same priority.
    server.stop();
    server.names("127.0.0.1 one.test\n127.0.0.2 two.test\n");
    server.arguments = vec![record("one.test", port, 5, 0), record("two.test", port, 5, 7)];
    server.start();
    let expected = ["127.0.0.1 p5 w1", "127.0.0.2 p5 w1000"];
    until("the records are followed", || endpoints(&proxy) == expected);

    // The name is taken back, and comes again.
    server.stop();
    server.arguments.clear();
    server.start();
    until("nothing is left", || endpoints(&proxy).is_empty());
    assert_eq!(get(proxy.address("srv"), "/").header("x-outrigger-reason"), Some("no_upstream"));
    server.stop();
    server.arguments = vec![record("two.test", port, 0, 0)];
    server.start();
    until("it is back", || ask() == "two");
}

#[test]
fn whatever_becomes_of_the_name_server_no_request_fails() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 one.test\n");
    server.arguments = vec![record("one.test", port, 0, 0)];
    server.start();
    let proxy = Proxy::start(&yaml(&server, port));
    let all = ["srv", "plain"];
    until("the first answers", || all.iter().all(|l| get(proxy.address(l), "/").status == 200));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for listener in all {
                    assert_eq!(get(proxy.address(listener), "/").status, 200, "{listener}");
                }
            }
        });
        let wait = |what: &str, more: f64| {
            let before = proxy.metrics();
            proxy.wait_metrics(what, |now| {
                all.iter().all(|upstream| errors(now, upstream) >= errors(&before, upstream) + more)
            });
        };
        server.stop();
        wait("a server that is down", 1.0);

        let socket = UdpSocket::bind(("127.0.0.1", server.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let over = AtomicBool::new(false);
        let servfail = AtomicBool::new(false);
        std::thread::scope(|inner| {
            inner.spawn(|| {
                let mut question = [0; 512];
                while !over.load(Ordering::Relaxed) {
                    let Ok((length, peer)) = socket.recv_from(&mut question) else { continue };
                    let answer = match servfail.load(Ordering::Relaxed) {
                        // The question as an answer, with the code 2.
                        true => {
                            (question[2], question[3]) = (question[2] | 0x80, 0x82);
                            &question[..length]
                        }
                        false => b"\xff\xfe this is no answer".as_slice(),
                    };
                    let _gone = socket.send_to(answer, peer);
                }
            });
            wait("garbage, which is as good as silence", 1.0);
            servfail.store(true, Ordering::Relaxed);
            proxy.wait_metrics("SERVFAIL", |now| {
                let labels = |upstream| [("upstream", upstream), ("reason", "servfail")];
                all.iter().all(|u| now.sum("outrigger_discovery_errors_total", &labels(u)) >= 1.0)
            });
            over.store(true, Ordering::Relaxed);
        });
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    proxy.wait_metrics("staleness", |metrics| {
        metrics.sum("outrigger_discovery_staleness_seconds", &[("upstream", "srv")]) >= 1.0
    });
}
