//! What the traffic tests share beyond `support`: short configurations, upstreams that misbehave on purpose.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::support::{Upstream, read_request};

/// A file with one listener, `outbound`, and one upstream, `articles`; what is not said is left out of the file.
#[derive(Default, Clone)]
pub struct Setup {
    pub workers: u32,
    /// More at the top level, with its newline.
    pub top: String,
    /// More of the listener, in flow style.
    pub listener: String,
    /// The routes, in flow style; the default is one to `articles`.
    pub routes: Vec<String>,
    /// More of the upstream, in flow style.
    pub upstream: String,
    pub endpoints: Vec<String>,
}

impl Setup {
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        Self { workers: 1, endpoints, ..Self::default() }
    }

    /// One route to `articles` with more keys.
    pub fn route(mut self, keys: &str) -> Self {
        self.routes.push(format!("{{ to: articles, {keys} }}"));
        self
    }

    pub fn upstream(mut self, keys: &str) -> Self {
        self.upstream = keys.to_owned();
        self
    }

    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = keys.to_owned();
        self
    }

    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    pub fn yaml(&self) -> String {
        let routes = match &self.routes[..] {
            [] => "{ to: articles }".to_owned(),
            routes => routes.join(", "),
        };
        format!(
            "admin: 127.0.0.1:0\nruntime: {{ workers: {} }}\n{}listeners:\n  outbound: {{ bind: \
             \"127.0.0.1:0\", {}, routes: [{routes}] }}\nupstreams:\n  articles: {{ endpoints: [{}], {} }}\n",
            self.workers,
            self.top,
            or_nothing(&self.listener, "direction: outbound"),
            self.endpoints.iter().map(|at| format!("\"{at}\"")).collect::<Vec<_>>().join(", "),
            or_nothing(&self.upstream, "protocol: auto"),
        )
    }
}

fn or_nothing<'a>(keys: &'a str, default: &'a str) -> &'a str {
    if keys.is_empty() { default } else { keys }
}

/// A 200 with a length.
pub fn ok(body: &str) -> Vec<u8> {
    answer(200, "", body)
}

/// An answer with more header lines (each with its line end).
pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Text\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// Reads a request and never answers; ends when its caller does.
pub fn silent() -> Upstream {
    Upstream::serve(|_, stream| {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).is_some() {}
    })
}

/// Answers each request only after it was told to: `Gate::open` lets that many go.
pub struct Gate {
    pub upstream: Upstream,
    tickets: Sender<()>,
    arrived: Receiver<String>,
}

impl Gate {
    pub fn new(body: &'static str) -> Self {
        let (tickets, taken) = channel::<()>();
        let (told, arrived) = channel();
        let (taken, told) = (std::sync::Mutex::new(taken), std::sync::Mutex::new(told));
        let upstream = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            while let Some(request) = read_request(&mut stream) {
                let request = String::from_utf8_lossy(&request).into_owned();
                let _gone = told.lock().unwrap().send(request);
                if taken.lock().unwrap().recv().is_err() {
                    return;
                }
                if stream.get_mut().write_all(&ok(body)).is_err() {
                    return;
                }
            }
        });
        Self { upstream, tickets, arrived }
    }

    /// Waits for the next request.
    pub fn arrived(&self) -> String {
        self.arrived.recv_timeout(crate::support::PATIENCE).unwrap()
    }

    /// True when there is a next request; it counts as seen.
    pub fn has_arrived(&self) -> bool {
        self.arrived.try_recv().is_ok()
    }

    /// Answers `count` requests, those that wait and those to come.
    pub fn open(&self, count: usize) {
        for _ in 0..count {
            self.tickets.send(()).unwrap();
        }
    }
}

/// A listener whose queue is full: connecting to it is not refused and never ends.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl BlackHole {
    pub fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The queue takes one or two more than it was asked to.
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&address, Duration::from_millis(200));
            waiting.push(socket);
            if connected.is_err() {
                break;
            }
            assert!(waiting.len() < 50, "the queue does not fill up");
        }
        let address = address.as_socket().unwrap();
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// A peer that takes its time, in ms: the behaviour under test, never a way to wait for something.
#[expect(clippy::disallowed_methods, reason = "a thread of a test, not a worker")]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Writes `pieces`, each after its pause; false when the peer is gone.
pub fn write_slowly(to: &mut TcpStream, pieces: &[(u64, &[u8])]) -> bool {
    pieces.iter().all(|(before, piece)| {
        pause(*before);
        to.write_all(piece).is_ok()
    })
}

/// Reads to the end of a connection; a reset ends it as well.
pub fn drain(from: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    let _reset = from.read_to_end(&mut rest);
    rest
}

/// The head of a request (or an answer) as text; empty at the end of the connection.
pub fn head_of(from: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).unwrap_or(0) == 0 {
            return head;
        }
    }
    head
}

/// A field of a head as text.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A program of the system, or the one that `variable` names; `None` after saying what is missing.
pub fn program(variable: &str, name: &str, package: &str) -> Option<std::path::PathBuf> {
    let from_variable = std::env::var_os(variable).map(Into::into);
    let places = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];
    let on_path = std::env::var("PATH").unwrap_or_default();
    let found = from_variable.or_else(|| {
        on_path
            .split(':')
            .chain(places)
            .map(|place| std::path::Path::new(place).join(name))
            .find(|path| path.is_file())
    });
    if found.is_none() {
        println!("skipped: {name} is not installed (apt install {package})");
    }
    found
}

/// Python with `module`, from `OUTRIGGER_TEST_PYTHON` or the path; `None` after saying what is missing.
pub fn python(module: &str) -> Option<std::path::PathBuf> {
    let python: std::path::PathBuf =
        std::env::var_os("OUTRIGGER_TEST_PYTHON").map_or_else(|| "python3".into(), Into::into);
    let mut command = Command::new(&python);
    let found = command.arg("-c").arg(format!("import {module}")).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: {module} for Python is not installed (tests/run prepares it)");
    None
}

/// Binds and forgets: a port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A script under `tests/clients`.
pub fn client(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A server of another implementation: a script that prints its port and serves until its standard input ends.
pub struct PythonServer {
    pub python: std::path::PathBuf,
    pub address: SocketAddr,
    child: std::process::Child,
}

impl PythonServer {
    /// `None` where `module` is not installed.
    pub fn start(module: &str, script: &str) -> Option<Self> {
        let python = python(module)?;
        let piped = std::process::Stdio::piped;
        let mut command = Command::new(&python);
        let mut child = command.arg(client(script)).stdin(piped()).stdout(piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = format!("127.0.0.1:{}", port.trim()).parse().unwrap();
        Some(Self { python, address, child })
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
