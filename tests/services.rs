//! `/services` and its stream of changes, as an application would use them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use support::{PATIENCE, Proxy, get, http};

/// Two upstreams, one of them from a file.
fn yaml(path: &Path, more: &str) -> String {
    format!(
        "admin: {{ bind: \"127.0.0.1:0\"{more} }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ to: {{ articles: 1, \
         fixed: 1 }} }}] }}\nupstreams:\n  articles: {{ discover: \"file://{}\" }}\n  fixed: {{ endpoints: [{{ address: 127.0.0.1:9, zone: \
         eu-1a, priority: 1 }}] }}\n",
        path.display()
    )
}

fn write(path: &Path, list: &Value) {
    let next = path.with_extension("next");
    fs::write(&next, list.to_string()).unwrap();
    fs::rename(next, path).unwrap();
}

/// A stream of events.
struct Events(BufReader<TcpStream>);

#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Events {
    /// The head of the answer has been read; `Err` has its status.
    fn open(proxy: &Proxy, headers: &str) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(proxy.address("admin")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /services/events HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut events = Self(BufReader::new(stream));
        let head = events.line();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut is_stream = false;
        loop {
            let line = events.line().to_ascii_lowercase();
            is_stream |= line == "content-type: text/event-stream";
            if line.is_empty() {
                break;
            }
        }
        if status == 200 && is_stream { Ok(events) } else { Err(status) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next line that says something: chunks' sizes and comments are passed over.
    fn next(&mut self) -> Event {
        let mut event = Event { id: String::new(), name: String::new(), data: Value::Null };
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).unwrap();
                    return event;
                }
                _ => {}
            }
        }
    }

    /// The next event of `service`.
    fn of(&mut self, service: &str) -> Event {
        loop {
            let event = self.next();
            if event.data["service"] == service {
                return event;
            }
        }
    }
}

#[test]
fn services_are_listed_with_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("articles.json");
    write(
        &path,
        &json!([{ "address": "127.0.0.1:1", "weight": 3, "labels": { "version": "v2" } }]),
    );
    let proxy = Proxy::start(&yaml(&path, ""));
    proxy.wait_metrics("both", |metrics| metrics.sum("outrigger_upstream_endpoints", &[]) > 1.5);
    let reply = get(proxy.address("admin"), "/services");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let page: Value = serde_json::from_str(&reply.text()).unwrap();
    let expected = json!({ "services": [
        {
            "name": "articles",
            "source": format!("file://{}", path.display()),
            "state": "fresh",
            "endpoints": [{
                "address": "127.0.0.1:1", "weight": 3, "priority": 0, "zone": null, "state": "ready",
                "labels": { "version": "v2" },
            }],
        },
        {
            "name": "fixed",
            "source": "endpoints",
            "state": "fresh",
            "endpoints": [{
                "address": "127.0.0.1:9", "weight": 1, "priority": 1, "zone": "eu-1a", "state": "ready", "labels": {},
            }],
        },
    ]});
    assert_eq!(page, expected);
    assert_eq!(http(proxy.address("admin"), "POST", "/services", &[], b"").status, 405);
    assert_eq!(http(proxy.address("admin"), "POST", "/services/events", &[], b"").status, 405);
}

#[test]
fn changes_are_told_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("articles.json");
    write(&path, &json!(["127.0.0.1:1", "127.0.0.1:2"]));
    let proxy = Proxy::start(&yaml(&path, ""));
    proxy.wait_metrics("all", |metrics| metrics.sum("outrigger_upstream_endpoints", &[]) > 2.5);
    let mut events = Events::open(&proxy, "").unwrap();
    let first = events.next();
    assert_eq!(first.name, "snapshot");
    let page: Value =
        serde_json::from_str(&get(proxy.address("admin"), "/services").text()).unwrap();
    assert_eq!(first.data, page);

    write(&path, &json!(["127.0.0.1:2", "127.0.0.1:3"]));
    let event = events.of("articles");
    assert_eq!(event.name, "changed");
    assert_ne!(event.id, first.id);
    assert_eq!(event.data["left"], json!(["127.0.0.1:1"]));
    assert_eq!(event.data["joined"][0]["address"], "127.0.0.1:3");
    assert_eq!(event.data["changed"], json!([]));

    // Who comes back with the last id is spared the whole list; with any other it begins anew.
    let mut known = Events::open(&proxy, &format!("Last-Event-ID: {}\r\n", event.id)).unwrap();
    let mut unknown = Events::open(&proxy, "Last-Event-ID: 0-1\r\n").unwrap();
    assert_eq!(unknown.next().name, "snapshot");
    write(&path, &json!(["127.0.0.1:2"]));
    assert_eq!(known.next().data["left"], json!(["127.0.0.1:3"]));
    assert_eq!(unknown.next().data["left"], json!(["127.0.0.1:3"]));

    // A source that fails is told of, and an upstream that goes.
    fs::write(&path, "{").unwrap();
    assert_eq!(known.of("articles").data["state"], "stale");
    let text = fs::read_to_string(&proxy.config).unwrap();
    let text = text.replace("{ articles: 1, fixed: 1 }", "articles");
    let text = text.lines().filter(|line| !line.starts_with("  fixed:")).collect::<Vec<_>>();
    assert_eq!(proxy.reload(&(text.join("\n") + "\n")).status, 200);
    let event = known.of("fixed");
    assert_eq!((event.name.as_str(), event.data), ("removed", json!({ "service": "fixed" })));
}

#[test]
fn only_those_who_may_listen_do_and_not_more_than_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("articles.json");
    write(&path, &json!(["127.0.0.1:1"]));
    let token = dir.path().join("token");
    fs::write(&token, "secret\n").unwrap();
    let proxy = Proxy::start(&yaml(&path, &format!(", token_file: {}", token.display())));
    assert_eq!(get(proxy.address("admin"), "/services").status, 401);
    assert_eq!(Events::open(&proxy, "").err(), Some(401));
    let headers = "Authorization: Bearer secret\r\n";
    let mut listening: Vec<Events> =
        (0..16).map(|_| Events::open(&proxy, headers).unwrap()).collect();
    assert_eq!(Events::open(&proxy, headers).err(), Some(503));
    // The rest of the server goes on, and a place that is given up is free again.
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200);
    drop(listening.pop());
    let end = tokio::time::Instant::now() + PATIENCE;
    while Events::open(&proxy, headers).is_err() {
        assert!(tokio::time::Instant::now() < end, "no place is given back");
        std::thread::yield_now();
    }
    assert!(listening.iter_mut().all(|events| events.next().name == "snapshot"));
}
