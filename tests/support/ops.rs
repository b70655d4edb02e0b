//! What tests of running the proxy need: unix sockets, held requests, raw HTTP/2, what `/config` says.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tokio::time::Instant;

use crate::support::{Connection, PATIENCE, Proxy, Reply, Upstream, get, read_request};

/// Where a listener is bound now, as `/config` says.
pub fn bound(proxy: &Proxy, listener: &str) -> Option<SocketAddr> {
    let head = format!("# listener {listener} is bound to ");
    let config = get(proxy.address("admin"), "/config").text();
    config.lines().find_map(|line| line.strip_prefix(&head)).map(|at| at.parse().unwrap())
}

/// Asks until `reached` gives something.
pub fn wait_for<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = reached() {
            return found;
        }
        assert!(Instant::now() < end, "{what} not reached");
        std::thread::yield_now();
    }
}

/// Tries until nobody listens at `address`.
pub fn wait_refused(address: SocketAddr) {
    wait_for("a refused connection", || TcpStream::connect(address).is_err().then_some(()));
}

/// A door that requests wait before.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    /// Counts itself and waits for the opening.
    pub fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.0 += 1;
        changed.notify_all();
        while !state.1 {
            state = changed.wait(state).unwrap();
        }
    }

    /// Waits until `count` have come.
    pub fn wait_waiting(&self, count: usize) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.0 < count {
            let (next, timeout) = changed.wait_timeout(state, PATIENCE).unwrap();
            assert!(!timeout.timed_out(), "{} of {count} at the gate", next.0);
            state = next;
        }
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

/// Answers `body` to each request once the gate is open.
pub fn gated(gate: &Gate, body: &str) -> Upstream {
    let (gate, answer) = (gate.clone(), ok(body));
    Upstream::scripted(move |_| {
        gate.pass();
        answer.clone()
    })
}

/// A whole answer.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers each request on a unix socket.
pub fn unix_upstream(path: &Path, body: &str) {
    let (listener, answer) = (UnixListener::bind(path).unwrap(), ok(body));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while read_request(&mut stream).is_some() {
                    if stream.get_mut().write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// One request over a unix socket; `None` where nobody answers there.
pub fn try_unix(path: &Path, method: &str, target: &str) -> Option<Reply> {
    let mut stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    Some(Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        head: head.clone(),
        body: answer[end..].to_vec(),
    })
}

/// One request over a unix socket.
pub fn unix(path: &Path, method: &str, target: &str) -> Reply {
    wait_for("an answer on the unix socket", || try_unix(path, method, target))
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

/// A raw HTTP/2 connection: what it gets is exactly what was sent.
pub struct Http2 {
    stream: TcpStream,
}

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Http2 {
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self { stream };
        connection.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        connection.send(SETTINGS, 0, 0, &[]);
        connection
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// `GET /` on a stream.
    pub fn get(&mut self, stream: u32) {
        // RFC 7541 appendix A: 2 is GET, 6 is http, 4 is `/`, 1 is :authority with a literal value.
        let head = [&[0x82, 0x86, 0x84, 0x41, 4][..], b"test"].concat();
        self.send(HEADERS, 0x5, stream, &head);
    }

    /// The next frame that is not about the connection's own upkeep, which is answered; `None` at the end.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS if frame.flags == 0 => self.send(SETTINGS, 1, 0, &[]),
                PING if frame.flags == 0 => self.send(PING, 1, 0, &frame.payload),
                DATA | HEADERS | GOAWAY => return Some(frame),
                _ => {}
            }
        }
    }
}

/// Sends a request on a connection of its own and leaves it there.
pub fn begin(to: SocketAddr, path: &str) -> Connection {
    let mut connection = Connection::open(to);
    connection.request("GET", path, &[], b"");
    connection
}

/// A program on the PATH, or in the variable that `tests/run` sets; else says that the test is skipped.
pub fn component(program: &str, package: &str) -> Option<String> {
    let named = std::env::var(format!("OUTRIGGER_TEST_{}", program.to_uppercase()));
    let path = named.unwrap_or_else(|_| program.to_owned());
    if std::process::Command::new(&path).arg("--version").output().is_ok() {
        return Some(path);
    }
    println!("skipped: {program} is not installed (apt install {package})");
    None
}
