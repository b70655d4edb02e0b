//! Consul for tests: a scripted agent whose answers are those of Consul 1.8.7, and the real one where it is installed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{PATIENCE, http, read_request};
use crate::traffic::{free_port, program};

/// An instance as Consul answers it, with changes.
pub fn instance(at: SocketAddr, change: impl FnOnce(&mut Value)) -> Value {
    let mut instance = json!({
        "Node": {
            "ID": "b8024a88-3963-0001-94c1-8ee1522ca486", "Node": "vm", "Address": "127.0.0.1", "Datacenter": "dc1",
            "TaggedAddresses": { "lan": "127.0.0.1", "wan": "127.0.0.1" },
            "Meta": { "consul-network-segment": "" }, "CreateIndex": 10, "ModifyIndex": 12
        },
        "Service": {
            "ID": format!("articles-{}", at.port()), "Service": "articles", "Tags": ["prod"],
            "Address": at.ip().to_string(), "Port": at.port(), "Meta": null,
            "Weights": { "Passing": 1, "Warning": 1 }, "EnableTagOverride": false,
            "Proxy": { "MeshGateway": {}, "Expose": {} }, "Connect": {}, "CreateIndex": 13, "ModifyIndex": 13
        },
        "Checks": [
            { "Node": "vm", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing",
              "Output": "Agent alive and reachable", "Definition": {}, "CreateIndex": 10, "ModifyIndex": 10 }
        ]
    });
    change(&mut instance);
    instance
}

pub fn instances(at: &[SocketAddr]) -> Vec<Value> {
    at.iter().map(|at| instance(*at, |_| {})).collect()
}

/// What a scripted agent knows and has seen.
struct Book {
    index: u64,
    body: String,
    /// In place of what it knows.
    instead: Option<Vec<u8>>,
    flood: bool,
    token: Option<String>,
    asked: Vec<String>,
    connections: usize,
    /// Questions that wait.
    blocked: usize,
    /// Raised to end what is under way.
    era: u64,
    listening: bool,
    open: Vec<TcpStream>,
}

/// A scripted agent. Blocks as Consul does: until its index is another than the one asked with, or the time is up.
pub struct Fake {
    pub address: SocketAddr,
    book: Arc<(Mutex<Book>, Condvar)>,
}

impl Fake {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let book = Book {
            index: 10,
            body: "[]".to_owned(),
            instead: None,
            flood: false,
            token: None,
            asked: Vec::new(),
            connections: 0,
            blocked: 0,
            era: 0,
            listening: true,
            open: Vec::new(),
        };
        let fake = Self { address, book: Arc::new((Mutex::new(book), Condvar::new())) };
        fake.listen(listener);
        fake
    }

    fn listen(&self, listener: TcpListener) {
        let book = Arc::clone(&self.book);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut known = book.0.lock().unwrap();
                if !known.listening {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                known.connections += 1;
                known.open.push(stream.try_clone().unwrap());
                let book = Arc::clone(&book);
                std::thread::spawn(move || serve(&book, stream));
            }
        });
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.book());
        self.book.1.notify_all();
    }

    /// From here on the service has these instances; the index moves on.
    pub fn set(&self, instances: &[Value]) {
        let index = self.index() + 1;
        self.set_at(index, instances);
    }

    pub fn set_at(&self, index: u64, instances: &[Value]) {
        let body = Value::from(instances).to_string();
        self.change(|book| (book.index, book.body) = (index, body));
    }

    pub fn index(&self) -> u64 {
        self.book().index
    }

    /// Answers everything with these bytes, waiting questions too, and closes; `None`: answers as it should.
    pub fn answer_with(&self, bytes: Option<&[u8]>) {
        self.change(|book| {
            book.instead = bytes.map(<[u8]>::to_vec);
            book.era += 1;
        });
    }

    /// Sends an answer that does not end, once.
    pub fn flood(&self) {
        self.change(|book| {
            book.flood = true;
            book.era += 1;
        });
    }

    pub fn want_token(&self, token: &str) {
        self.change(|book| book.token = Some(token.to_owned()));
    }

    /// The targets of all questions.
    pub fn asked(&self) -> Vec<String> {
        self.book().asked.clone()
    }

    pub fn connections(&self) -> usize {
        self.book().connections
    }

    /// Waits until a question waits.
    pub fn until_blocked(&self) {
        let (book, more) = &*self.book;
        let waited =
            more.wait_timeout_while(book.lock().unwrap(), PATIENCE, |book| book.blocked == 0);
        assert!(!waited.unwrap().1.timed_out(), "no question waits");
    }

    /// Closes everything; the port refuses connections.
    pub fn stop(&self) {
        self.change(|book| {
            book.listening = false;
            book.era += 1;
            for stream in book.open.drain(..) {
                let _gone = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        // Wakes the listener, which ends.
        let _refused = TcpStream::connect(self.address);
    }

    /// Listens again at the same place, as one that knows nothing, with this index.
    pub fn restart(&self, index: u64) {
        let end = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::yield_now();
        };
        self.change(|book| {
            (book.listening, book.index, book.body) = (true, index, "[]".to_owned());
        });
        self.listen(listener);
    }
}

fn serve(book: &(Mutex<Book>, Condvar), stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let request = String::from_utf8_lossy(&request).into_owned();
        let target = request.split(' ').nth(1).unwrap().to_owned();
        let (answer, last) = answer(book, &request, &target);
        if stream.get_mut().write_all(&answer).is_err() || last {
            // Another handle of it is kept.
            let _gone = stream.get_mut().shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// What is answered, and whether the connection ends with it.
fn answer(book: &(Mutex<Book>, Condvar), request: &str, target: &str) -> (Vec<u8>, bool) {
    let (known, more) = book;
    let mut known = known.lock().unwrap();
    known.asked.push(target.to_owned());
    let parameter = |name: &str| {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let wanted = known.token.clone();
    let shown = request.lines().find_map(|line| line.strip_prefix("x-consul-token: "));
    if wanted.is_some() && wanted.as_deref() != shown {
        return (plain("403 Forbidden", "", "ACL not found"), false);
    }
    if let Some(index) = parameter("index").map(|index| index.parse::<u64>().unwrap()) {
        let wait = parameter("wait").unwrap();
        let wait = Duration::from_secs(wait.trim_end_matches('s').parse().unwrap());
        let era = known.era;
        known.blocked += 1;
        more.notify_all();
        let same = |book: &mut Book| {
            // An index of 0 never blocks, which is the fault that is played with it.
            book.index == index && book.index != 0 && book.era == era && book.instead.is_none()
        };
        known = more.wait_timeout_while(known, wait, same).unwrap().0;
        known.blocked -= 1;
    }
    if let Some(instead) = &known.instead {
        return (instead.clone(), true);
    }
    let index = known.index;
    if std::mem::take(&mut known.flood) {
        let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\n\r\n[");
        let mut flood = head.into_bytes();
        flood.resize(40 * 1024 * 1024, b' ');
        return (flood, true);
    }
    let head = format!("X-Consul-Index: {index}\r\nX-Consul-Knownleader: true\r\n");
    (plain("200 OK", &head, &known.body), false)
}

fn plain(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// A real agent in development mode: one server, nothing kept.
pub struct Agent {
    pub address: SocketAddr,
    program: PathBuf,
    hcl: String,
    dir: tempfile::TempDir,
    token: Mutex<Option<String>>,
    running: Option<Child>,
}

impl Agent {
    /// Starts one with more configuration, and waits until it leads. `None` where it is not installed.
    pub fn start(hcl: &str) -> Option<Self> {
        let program = program("OUTRIGGER_TEST_CONSUL", "consul", "Consul 1.8.7 of Debian 11")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let dir = tempfile::tempdir().unwrap();
        let hcl = format!("disable_update_check = true {hcl}");
        let mut agent = Self { address, program, hcl, dir, token: Mutex::default(), running: None };
        agent.restart();
        Some(agent)
    }

    pub fn restart(&mut self) {
        let ports: Vec<String> = (0..3).map(|_| free_port().to_string()).collect();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1"])
            .args(["-disable-host-node-id", "-dns-port", "-1", "-grpc-port", "-1"])
            .args(["-http-port", &self.address.port().to_string(), "-server-port", &ports[0]])
            .args(["-serf-lan-port", &ports[1], "-serf-wan-port", &ports[2], "-hcl", &self.hcl])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(log);
        self.running = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        while !self.leads() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(Instant::now() < end, "Consul does not start:\n{log}");
            std::thread::yield_now();
        }
    }

    fn leads(&self) -> bool {
        let Ok(stream) = TcpStream::connect(self.address) else { return false };
        let mut connection = crate::support::Connection::over(stream);
        connection.request("GET", "/v1/status/leader", &[], b"");
        connection.reply().text().contains(':')
    }

    pub fn with_token(&self, token: &str) {
        *self.token.lock().unwrap() = Some(token.to_owned());
    }

    /// Tells it something; it must take it.
    pub fn put(&self, path: &str, body: &str) {
        let end = Instant::now() + PATIENCE;
        let token = self.token.lock().unwrap().clone();
        let token = token.as_ref().map(|token| ("X-Consul-Token", token.as_str()));
        let headers: Vec<_> = token.into_iter().collect();
        loop {
            let reply = http(self.address, "PUT", path, &headers, body.as_bytes());
            if reply.status == 200 {
                return;
            }
            // Right after its start an agent does not know its own tokens yet.
            assert!(Instant::now() < end, "{path}: {} {}", reply.status, reply.text());
            std::thread::yield_now();
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}
