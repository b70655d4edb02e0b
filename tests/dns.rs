//! Upstreams by name, with dnsmasq as the name server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::time::Instant;

use support::{PATIENCE, Proxy, get, read_request};
use traffic::{free_port, ok, program};

/// dnsmasq with one file of names, which it reads again when told to.
struct NameServer {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl NameServer {
    /// `None` where it is not installed. It does not run yet.
    fn new() -> Option<Self> {
        let program = program("OUTRIGGER_TEST_DNSMASQ", "dnsmasq", "dnsmasq-base")?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { program, dir, port: free_port(), running: None })
    }

    /// Writes the names, lines of `address name`, and has them read.
    fn names(&self, lines: &str) {
        std::fs::write(self.dir.path().join("hosts"), lines).unwrap();
        if let Some(child) = &self.running {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        }
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["-k", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"])
            .args(["--no-hosts", "--conf-file=/dev/null", "--local-ttl=1", "--local=/test/"])
            .args(["--user=root", "--pid-file="])
            .arg(format!("--port={}", self.port))
            .arg(format!("--addn-hosts={}", self.dir.path().join("hosts").display()))
            .stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two services on one port: `one` on 127.0.0.1 and `two` on 127.0.0.2. Returns the port.
fn one_and_two() -> u16 {
    let (first, second) = loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)) {
            break (first, second);
        }
    };
    let port = first.local_addr().unwrap().port();
    for (listener, body) in [(first, "one"), (second, "two")] {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while read_request(&mut stream).is_some() {
                        if stream.get_mut().write_all(&ok(body)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    port
}

fn yaml(server: &NameServer, port: u16) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\ndns: {{ servers: [\"127.0.0.1:{}\"], ttl: 1s..2s }}\nlisteners:\n  \
         outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: articles }}] }}\nupstreams:\n  articles: {{ discover: \
         \"dns://web.test:{port}\", balance: round_robin }}\n",
        server.port
    )
}

/// Asks until the answer is as wanted.
fn until(what: &str, reached: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn names_are_followed_and_a_dead_name_server_changes_nothing() {
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 web.test\n");
    server.start();
    let proxy = Proxy::start(&yaml(&server, port));
    let to = proxy.address("outbound");
    let ask = || get(to, "/").text();
    until("the first answer", || ask() == "one");
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
    let Some(mut server) = NameServer::new() else { return };
    let port = one_and_two();
    server.names("127.0.0.1 web.test\n");
    server.start();
    let proxy = Proxy::start(&yaml(&server, port));
    let to = proxy.address("outbound");
    until("the first answer", || get(to, "/").text() == "one");
    server.names("127.0.0.1 other.test\n");
    until("the name is gone", || get(to, "/").status == 503);
    let reply = get(to, "/");
    assert_eq!(reply.header("x-outrigger-reason"), Some("no_upstream"), "{}", reply.text());
    server.names("127.0.0.2 web.test\n");
    until("the name is back", || get(to, "/").text() == "two");
}
