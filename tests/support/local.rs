//! Services on this machine that share a port, and waiting for what they show.
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use tokio::time::Instant;

use crate::support::{PATIENCE, read_request};

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

/// Asks until it is so.
pub fn until(what: &str, reached: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}
