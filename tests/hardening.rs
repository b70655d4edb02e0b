//! Peers that mean harm, on raw sockets: each is ended or held to its limit with a reason, memory stays bounded, and others
//! are served all the while.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use support::{Connection, PATIENCE, Proxy, Upstream, get, read_request};
use tls::Authority;

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What an attack may add to the process, KiB. Buffers, arenas of the allocator and a busy machine's noise fit well within;
/// what the attacks send, or would have us keep, does not.
const GROWTH: u64 = 64 << 10;

fn proxy_with(upstream: SocketAddr, limits: &str, route: &str) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nlisteners: {{ outbound: {{ bind: 127.0.0.1:0, limits: {{ {limits} }}, routes: [ {{ to: app{route} }} ] }} }}\nupstreams: {{ app: {{ endpoints: [\"{upstream}\"] }} }}\n"
    ))
}

/// Resident memory of the proxy, KiB.
fn resident(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs `attack`; another caller is served before, and after, and memory has not grown beyond [`GROWTH`].
fn under_attack<T>(proxy: &Proxy, attack: impl FnOnce(SocketAddr) -> T) -> T {
    let to = proxy.address("outbound");
    assert_eq!(get(to, "/").status, 200);
    let before = resident(proxy);
    let seen = attack(to);
    let after = resident(proxy);
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    assert_eq!(get(to, "/").status, 200, "others are served");
    seen
}

/// Waits until `count` connections or requests were refused for `reason`.
fn refused(proxy: &Proxy, reason: &str, count: f64) {
    proxy.wait_metrics(reason, |metrics| {
        metrics.sum("outrigger_rejected_total", &[("reason", reason)]) >= count
    });
}

/// An HTTP/2 caller by hand; what it is answered is read away by a thread.
struct Attacker {
    stream: TcpStream,
}

impl Attacker {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut answers = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while matches!(answers.read(&mut buffer), Ok(read) if read > 0) {}
        });
        let mut attacker = Self { stream };
        let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])];
        assert!(attacker.send(&opening.concat()));
        attacker
    }

    /// False once the connection was ended.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends `frames` again and again, `most` times at the most; how often until the connection was ended.
    fn flood(&mut self, most: usize, mut frames: impl FnMut(u32) -> Vec<u8>) -> Option<usize> {
        (0..most).find(|&count| !self.send(&frames(u32::try_from(count).unwrap())))
    }
}

/// An HTTP/2 caller by hand that waits until what it has sent was seen.
struct Polite {
    stream: BufReader<TcpStream>,
}

impl Polite {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut polite = Self { stream: BufReader::new(stream) };
        let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])];
        polite.send_and_wait(&opening.concat()).unwrap();
        polite
    }

    /// Sends `frames` and a PING, and reads until that is answered; an error once the connection was ended.
    fn send_and_wait(&mut self, frames: &[u8]) -> io::Result<()> {
        let ping = frame(PING, 0, 0, b"12345678");
        self.stream.get_mut().write_all(&[frames, &ping].concat())?;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            io::copy(&mut (&mut self.stream).take(u64::from(length)), &mut io::sink())?;
            if (head[3], head[4]) == (PING, ACK) {
                return Ok(());
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET / http` to `a`, by indices of the static table, and nothing that goes into the dynamic one.
const REQUEST: &[u8] = &[0x82, 0x84, 0x86, 0x01, 1, b'a'];
/// `GET /large`.
const LARGE: &[u8] = &[0x82, 0x04, 6, b'/', b'l', b'a', b'r', b'g', b'e', 0x86, 0x01, 1, b'a'];
/// `POST /`.
const UPLOAD: &[u8] = &[0x83, 0x84, 0x86, 0x01, 1, b'a'];

/// The number of the caller's `count`th stream.
fn stream(count: u32) -> u32 {
    count * 2 + 1
}

#[test]
fn rapid_resets_end_the_connection() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "", "");
    let pairs = under_attack(&proxy, |to| {
        Attacker::open(to).flood(200_000, |count| {
            let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream(count), REQUEST);
            [ask, frame(RST_STREAM, 0, stream(count), &[0, 0, 0, 8])].concat()
        })
    });
    assert!(pairs.is_some(), "it was let go on");
    refused(&proxy, "flood", 1.0);
}

/// Resets of requests that are already under way: the h2 crate counts only those that came before it had handed the request
/// on, so that nothing but our allowance ends these.
#[test]
fn resets_of_requests_under_way_end_the_connection() {
    const AT_ONCE: u32 = 10;
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "", "");
    let rounds = under_attack(&proxy, |to| {
        let mut attacker = Polite::open(to);
        (0..20_000).find(|round| {
            let streams = (round * AT_ONCE..).take(AT_ONCE as usize).map(stream);
            let asks = streams.clone().flat_map(|s| frame(HEADERS, END_HEADERS, s, UPLOAD));
            let asks: Vec<u8> = asks.collect();
            let resets = streams.flat_map(|s| frame(RST_STREAM, 0, s, &[0, 0, 0, 8]));
            let resets: Vec<u8> = resets.collect();
            attacker.send_and_wait(&asks).and_then(|()| attacker.send_and_wait(&resets)).is_err()
        })
    });
    assert!(rounds.is_some(), "it was let go on");
    refused(&proxy, "flood", 1.0);
}

#[test]
fn floods_of_frames_end_the_connection() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "", "");
    let floods = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0xfa, 0, 0, &[0; 100])),
    ];
    for (number, (name, flood)) in floods.into_iter().enumerate() {
        let sent = under_attack(&proxy, |to| Attacker::open(to).flood(500_000, |_| flood.clone()));
        assert!(sent.is_some(), "{name}: it was let go on");
        refused(&proxy, "flood", f64::from(u32::try_from(number + 1).unwrap()));
    }
}

#[test]
fn empty_data_and_endless_heads_end_the_connection() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "", "");
    let empty = under_attack(&proxy, |to| {
        let mut attacker = Attacker::open(to);
        assert!(attacker.send(&frame(HEADERS, END_HEADERS, 1, UPLOAD)));
        attacker.flood(500_000, |_| frame(0, 0, 1, &[]))
    });
    assert!(empty.is_some(), "empty DATA: it was let go on");
    refused(&proxy, "flood", 1.0);
    // CVE-2024-27316: a head that has no end.
    let endless = under_attack(&proxy, |to| {
        let mut attacker = Attacker::open(to);
        assert!(attacker.send(&frame(HEADERS, 0, 1, REQUEST)));
        // Literals that are not indexed: a name of one byte, a value of 100.
        let field = [&[0, 1, b'x', 100][..], &[b'v'; 100]].concat();
        let fields = field.repeat(150);
        attacker.flood(20_000, |_| frame(CONTINUATION, 0, 1, &fields))
    });
    assert!(endless.is_some(), "CONTINUATION: it was let go on");
    let empty_frames = under_attack(&proxy, |to| {
        let mut attacker = Attacker::open(to);
        assert!(attacker.send(&frame(HEADERS, 0, 1, REQUEST)));
        attacker.flood(500_000, |_| frame(CONTINUATION, 0, 1, &[]))
    });
    assert!(empty_frames.is_some(), "empty CONTINUATION: it was let go on");
    proxy
        .wait_metrics("all of them", |metrics| metrics.sum("outrigger_rejected_total", &[]) >= 3.0);
}

/// One frame of 16 KiB that means 64 MiB: a value of 4 000 bytes in the dynamic table, and 16 000 references to it. And between
/// those, what the h2 crate alone would let through: 300 references, 1.2 MB.
#[test]
fn a_head_that_unpacks_to_megabytes_is_refused() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "", "");
    under_attack(&proxy, |to| {
        let attackers: Vec<_> = (0..8)
            .map(|_| {
                let mut attacker = Attacker::open(to);
                // Length 4000 is 127 + 3873, in groups of seven bits.
                let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
                let first = [REQUEST, &entry].concat();
                attacker.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &first));
                for count in 1..20 {
                    let references = if count % 2 == 0 { 16_000 } else { 300 };
                    let bomb = [REQUEST, &vec![0xbe; references]].concat();
                    if !attacker.send(&frame(
                        HEADERS,
                        END_STREAM | END_HEADERS,
                        stream(count),
                        &bomb,
                    )) {
                        break;
                    }
                }
                attacker
            })
            .collect();
        proxy.wait_metrics("refusals", |metrics| {
            metrics.sum("outrigger_rejected_total", &[]) >= 8.0
        });
        drop(attackers);
    });
    assert!(upstream.requests().iter().all(|request| request.len() < 64 << 10));
}

#[test]
fn heads_that_are_too_large_or_have_too_many_fields_are_refused() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "header_bytes: 16KiB, headers: 50", "");
    under_attack(&proxy, |to| {
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(20_000));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: v\r\n".repeat(60));
        for head in [large, many] {
            let mut connection = Connection::open(to);
            let _reset = connection.stream.get_mut().write_all(head.as_bytes());
            assert_eq!(connection.reply().status, 431);
        }
        // It never ends: we stop reading, whatever comes.
        let mut endless = TcpStream::connect(to).unwrap();
        endless.set_write_timeout(Some(PATIENCE)).unwrap();
        endless.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
        let ended = (0..10_000).any(|_| endless.write_all(&[b'x'; 8_192]).is_err());
        assert!(ended, "80 MiB of head were taken");
    });
    refused(&proxy, "too_large", 3.0);
}

#[test]
fn slow_heads_are_ended_by_their_time() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "header_timeout: 1s, idle: 2s", "");
    under_attack(&proxy, |to| {
        let mut slow: Vec<TcpStream> = (0..300)
            .map(|_| {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
                stream
            })
            .collect();
        // One byte at a time buys none: the time counts from the head's first byte.
        proxy.wait_metrics("ended, all the while they send", |metrics| {
            slow.iter().for_each(|mut stream| drop(stream.write_all(b"x")));
            metrics.sum("outrigger_rejected_total", &[("reason", "request_timeout")]) >= 300.0
        });
        for stream in &mut slow {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut rest = Vec::new();
            let _reset = stream.read_to_end(&mut rest);
        }
        // Nothing at all: `idle`.
        let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(to).unwrap()).collect();
        for mut stream in silent {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Closed, not that we have waited in vain.
            match stream.read(&mut [0; 100]) {
                Ok(read) => assert_eq!(read, 0),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
    });
}

#[test]
fn slow_bodies_are_ended_by_their_time() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "body_timeout: 1s", "");
    under_attack(&proxy, |to| {
        let mut slow: Vec<_> = (0..100)
            .map(|_| {
                let mut connection = Connection::open(to);
                connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
                connection
            })
            .collect();
        refused(&proxy, "request_timeout", 100.0);
        for connection in &mut slow {
            let answer = String::from_utf8(connection.rest()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        }
    });
}

#[test]
fn who_does_not_read_makes_us_keep_little() {
    // Far more than the buffers of both kernels: a hundred of them are far beyond what may be kept.
    const LENGTH: usize = 64 << 20;
    let upstream = Upstream::serve(|_, stream| {
        let mut connection = BufReader::new(stream);
        while let Some(request) = read_request(&mut connection) {
            let length = if request.starts_with(b"GET /large") { LENGTH } else { 0 };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let to = connection.get_mut();
            let mut pieces = (0..length / 65_536).map(|_| [b'x'; 65_536]);
            let sent = to
                .write_all(head.as_bytes())
                .and_then(|()| pieces.try_for_each(|piece| to.write_all(&piece)));
            if sent.is_err() {
                return;
            }
        }
    });
    let proxy = proxy_with(upstream.address, "", ", timeout: 2s");
    under_attack(&proxy, |to| {
        let mut http1: Vec<_> = (0..60).map(|_| Connection::open(to)).collect();
        for connection in &mut http1 {
            connection.request("GET", "/large", &[], b"");
        }
        // HTTP/2 with a window that is never opened further than it is at the start.
        let mut http2: Vec<_> = (0..4)
            .map(|_| {
                let stream = TcpStream::connect(to).unwrap();
                Attacker { stream }
            })
            .collect();
        for attacker in &mut http2 {
            let open = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])];
            attacker.send(&open.concat());
            for count in 0..10 {
                attacker.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream(count), LARGE));
            }
        }
        refused(&proxy, "timeout", 100.0);
        for attacker in http2 {
            let _gone = attacker.stream.shutdown(Shutdown::Both);
        }
    });
}

/// Callers that ask for a handshake and say nothing more, all at once: a request of an open connection waits for few of them.
#[test]
fn a_flood_of_handshakes_leaves_open_connections_their_turn() {
    const FLOOD: usize = 600;
    let (ca, upstream) = (Authority::new("ca"), Upstream::ok("ok"));
    let own = ca.issue("server", &["localhost"]);
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners: {{ outbound: {{ bind: 127.0.0.1:0, tls: {{ {} }}, limits: {{ header_timeout: 60s }}, routes: [ {{ to: app }} ] }} }}\nupstreams: {{ app: {{ endpoints: [\"{}\"] }} }}\n",
        own.yaml(),
        upstream.address,
    ));
    let to = proxy.address("outbound");
    let client = Arc::new(ca.client(None));
    let mut open = tls::open(to, &client, "localhost");
    let mut ask = || {
        open.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        let read = open.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
    };
    ask();
    let before = resident(&proxy);
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(client, name).unwrap().write_tls(&mut hello).unwrap();
    // All but the last byte, so that they have all come before the first can be answered.
    let (last, most) = hello.split_last().unwrap();
    let mut flood: Vec<_> = (0..FLOOD)
        .map(|_| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(most).unwrap();
            stream
        })
        .collect();
    for stream in &mut flood {
        stream.write_all(&[*last]).unwrap();
    }
    ask();
    let answered = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0]), Ok(1))
    };
    let done = flood.iter().filter(|stream| answered(stream)).count();
    println!("{done} of {FLOOD} handshakes before a request");
    assert!(done < FLOOD / 2, "{done} of {FLOOD} handshakes were answered before a request");
    let after = resident(&proxy);
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    drop(flood);
    proxy.wait_metrics("the end of the flood", |metrics| {
        let reason = [("reason", "closed")];
        metrics.sum("outrigger_downstream_tls_handshake_failures_total", &reason) >= 600.0
    });
    ask();
}

#[test]
fn a_source_has_so_many_connections_and_others_have_theirs() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "per_source: 5", "");
    let to = proxy.address("outbound");
    let mut kept: Vec<_> = (0..5).map(|_| Connection::open(to)).collect();
    for connection in &mut kept {
        connection.request("GET", "/", &[], b"");
        assert_eq!(connection.reply().status, 200);
    }
    let mut sixth = Connection::open(to);
    assert_eq!(sixth.rest(), b"", "closed at once");
    refused(&proxy, "limit_reached", 1.0);
    // Another source: the whole of 127.0.0.0/8 is this machine.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    other.connect(&to.into()).unwrap();
    let mut other = Connection::over(other.into());
    other.request("GET", "/", &[], b"");
    assert_eq!(other.reply().status, 200);
    // One that ends makes room.
    drop(kept.pop());
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut next = Connection::open(to);
        let asked = next
            .stream
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        if asked.is_ok() && next.rest().starts_with(b"HTTP/1.1 200 ") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "no room");
    }
}

#[test]
fn many_connections_cost_little_and_those_beyond_the_limit_nothing() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy_with(upstream.address, "connections: 500", "");
    let to = proxy.address("outbound");
    assert_eq!(get(to, "/").status, 200);
    let before = resident(&proxy);
    let held: Vec<_> = (0..900).map(|_| TcpStream::connect(to).unwrap()).collect();
    refused(&proxy, "limit_reached", 400.0);
    let after = resident(&proxy);
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    drop(held);
}
