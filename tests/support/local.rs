//! Services on this machine that share a port, and what a proxy in front of them shows of its discovery.
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{PATIENCE, Proxy, get, read_request};

/// Two services on one port, on 127.0.0.1 and 127.0.0.2, which answer with these texts.
pub fn one_port(bodies: [&'static str; 2]) -> [SocketAddr; 2] {
    let listeners = loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)) {
            break [first, second];
        }
    };
    let addresses = [0, 1].map(|number: usize| listeners[number].local_addr().unwrap());
    for (listener, body) in listeners.into_iter().zip(bodies) {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), answer) = (stream, answer.clone()) else { return };
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while read_request(&mut stream).is_some() {
                        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    addresses
}

/// Takes connections at this address from here on, and says nothing on them.
pub fn silent(at: SocketAddr) {
    let start = Instant::now();
    let listener = loop {
        match TcpListener::bind(at) {
            Ok(listener) => break listener,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::yield_now();
    };
    std::thread::spawn(move || {
        let _kept: Vec<_> = listener.incoming().map_while(Result::ok).collect();
    });
}

/// A proxy whose one upstream comes from `discover`, and takes turns.
pub fn yaml(discover: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: \
         [{{ to: articles }}] }}\nupstreams:\n  articles: {{ discover: {discover}, balance: round_robin }}\n"
    )
}

/// Asks until it is so; how long that took.
pub fn until(what: &str, reached: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
    start.elapsed()
}

/// Who answers at the moment, or with what status.
pub fn ask(proxy: &Proxy) -> String {
    let reply = get(proxy.address("outbound"), "/");
    if reply.status == 200 { reply.text() } else { reply.status.to_string() }
}

/// What was counted under this reason; under any where it is empty.
pub fn errors(proxy: &Proxy, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    let labels = if reason.is_empty() { &[][..] } else { &labels[..] };
    proxy.metrics().sum("outrigger_discovery_errors_total", labels)
}

/// What `/upstreams` says of the first upstream.
pub fn upstream(proxy: &Proxy) -> serde_json::Value {
    let page = get(proxy.address("admin"), "/upstreams").text();
    serde_json::from_str::<serde_json::Value>(&page).unwrap()[0].take()
}

/// How many endpoints the first upstream has.
pub fn endpoints(proxy: &Proxy) -> usize {
    upstream(proxy)["endpoints"].as_array().unwrap().len()
}
