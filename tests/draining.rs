//! Endpoints and upstreams that are removed while they are in use.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::io::BufReader;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use support::{Connection, Metrics, PATIENCE, Proxy, Upstream, get, read_request};
use traffic::{Gate, Setup};

fn yaml(path: &std::path::Path) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: \
         articles }}] }}\nupstreams:\n  articles: {{ discover: \"file://{}\" }}\n",
        path.display()
    )
}

fn endpoints(metrics: &Metrics, state: &str) -> f64 {
    metrics.sum("outrigger_upstream_endpoints", &[("upstream", "articles"), ("state", state)])
}

fn page(proxy: &Proxy) -> serde_json::Value {
    serde_json::from_str(&get(proxy.address("admin"), "/upstreams").text()).unwrap()
}

fn write(path: &std::path::Path, addresses: &[SocketAddr]) {
    let next = path.with_extension("next");
    let list: String = addresses.iter().map(|address| format!("- {address}\n")).collect();
    fs::write(&next, list).unwrap();
    fs::rename(next, path).unwrap();
}

#[test]
fn a_removed_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let gate = Gate::new("slow");
    let other = Upstream::ok("other");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("articles.yaml");
    write(&path, &[gate.upstream.address]);
    let proxy = Proxy::start(&yaml(&path));
    let to = proxy.address("outbound");
    proxy.wait_metrics("the endpoint", |metrics| endpoints(metrics, "ready") > 0.5);
    let mut waiting = Connection::open(to);
    waiting.request("GET", "/slow", &[], b"");
    gate.arrived();

    write(&path, &[other.address]);
    let metrics = proxy.wait_metrics("draining", |metrics| endpoints(metrics, "draining") > 0.5);
    assert!((endpoints(&metrics, "ready") - 1.0).abs() < 0.1);
    let draining = page(&proxy)[0]["draining"].take();
    assert_eq!(draining[0]["address"], gate.upstream.address.to_string());
    assert_eq!(draining[0]["state"], "draining");
    assert_eq!(draining[0]["in_flight"], 1);
    assert!((0..50).all(|_| get(to, "/").text() == "other"), "nothing new goes there");

    gate.open(1);
    assert_eq!(waiting.reply().text(), "slow");
    proxy.wait_metrics("drained", |metrics| endpoints(metrics, "draining") < 0.5);
    assert_eq!(page(&proxy)[0]["draining"], serde_json::json!([]));
}

/// Until a connection to an endpoint that was removed is closed. A second is what is promised; a busy machine may take longer.
const BOUND: Duration = Duration::from_secs(8);

/// What an endpoint tells of.
#[derive(Debug, PartialEq)]
enum Told {
    /// A request to `/slow` has come.
    Slow,
    /// A connection was closed.
    Closed,
}

/// An endpoint that answers `old`, to `/slow` when it may, and tells of it.
fn telling() -> (Upstream, Receiver<Told>, Arc<Mutex<()>>) {
    let (told, hears) = channel();
    let (told, hold) = (Mutex::new(told), Arc::new(Mutex::new(())));
    let held = Arc::clone(&hold);
    let old = Upstream::serve(move |_, stream| {
        let tell = |what| told.lock().unwrap().send(what).unwrap();
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            if request.starts_with(b"GET /slow") {
                tell(Told::Slow);
                drop(held.lock().unwrap());
            }
            std::io::Write::write_all(stream.get_mut(), &traffic::ok("old")).unwrap();
        }
        tell(Told::Closed);
    });
    (old, hears, hold)
}

#[test]
fn connections_to_a_removed_endpoint_are_closed_within_seconds() {
    let (old, hears, hold) = telling();
    let other = Upstream::ok("other");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("articles.yaml");
    write(&path, &[old.address]);
    // Kept far longer than this test takes.
    let yaml = yaml(&path).replace("\" }", "\", pool: { idle: 1h } }");
    let proxy = Proxy::start(&yaml);
    let to = proxy.address("outbound");
    proxy.wait_metrics("the endpoint", |metrics| endpoints(metrics, "ready") > 0.5);
    let held = hold.lock().unwrap();
    let mut slow = Connection::open(to);
    slow.request("GET", "/slow", &[], b"");
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(Told::Slow));
    // Another connection, which rests.
    assert_eq!(get(to, "/").text(), "old");
    write(&path, &[other.address]);
    let removed = proxy.wait_metrics("draining", |metrics| endpoints(metrics, "draining") > 0.5);
    assert!((endpoints(&removed, "ready") - 1.0).abs() < 0.1);
    assert_eq!(hears.recv_timeout(BOUND), Ok(Told::Closed), "the one that rests");
    // The one in use is not, until its request is answered.
    assert!(hears.try_recv().is_err());
    drop(held);
    assert_eq!(slow.reply().text(), "old");
    assert_eq!(hears.recv_timeout(BOUND), Ok(Told::Closed), "the one that was in use");
}

#[test]
fn an_upstream_that_is_replaced_or_removed_drains() {
    let gate = Gate::new("slow");
    let setup = Setup::new(&[gate.upstream.address]);
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let mut waiting = Connection::open(to);
    waiting.request("GET", "/slow", &[], b"");
    gate.arrived();
    // Another policy is another upstream of the same name.
    let other = Upstream::ok("other");
    let changed = Setup::new(&[other.address]).upstream("balance: random");
    assert_eq!(proxy.reload(&changed.yaml()).status, 200);
    proxy.wait_metrics("draining", |metrics| endpoints(metrics, "draining") > 0.5);
    assert_eq!(page(&proxy)[0]["draining"][0]["address"], gate.upstream.address.to_string());
    assert_eq!(get(to, "/").text(), "other");
    proxy.log().wait("a line", |line| line.contains("the old endpoints drain").then_some(()));
    let gone = changed.yaml().replace("to: articles", "respond: 204").replace("upstreams:", "");
    let gone = gone.lines().filter(|line| !line.starts_with("  articles:")).collect::<Vec<_>>();
    assert_eq!(proxy.reload(&(gone.join("\n") + "\n")).status, 200);
    let start = Instant::now();
    gate.open(1);
    assert_eq!(waiting.reply().text(), "slow");
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(get(to, "/").status, 204);
}
