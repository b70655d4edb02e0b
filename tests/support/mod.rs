//! What the tests from outside share: the real binary, scripted upstreams, raw and HTTP callers, parsed metrics.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy with its file, its logs and its resolved addresses.
pub struct Proxy {
    child: Child,
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
    log: Arc<Lines>,
    access: Arc<Lines>,
}

/// Lines that a thread collects.
#[derive(Default)]
pub struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Lines {
    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let lines = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.lines.lock().unwrap().push(line);
                lines.more.notify_all();
            }
        });
    }

    /// Waits for a line that `wanted` takes, and returns what it made of it.
    pub fn wait<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(found) = lines.iter().find_map(|line| wanted(line)) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} in:\n{}", lines.join("\n"));
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn all(&self) -> Vec<String> {
        // A failed `wait` has poisoned it, and its lines are wanted all the more.
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Proxy {
    /// Starts the binary on `yaml`, which binds port 0 everywhere, and waits until it runs.
    pub fn start(yaml: &str) -> Self {
        let proxy = Self::spawn(yaml, |command| command);
        proxy.log.wait("start", |line| line.contains("outrigger is running").then_some(()));
        proxy
    }

    /// Starts the binary, with changes to its command, and does not wait.
    pub fn spawn(yaml: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("outrigger.yaml");
        std::fs::write(&config, yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.arg("run").arg("-c").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = with(&mut command).spawn().unwrap();
        let (log, access) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        log.collect(child.stderr.take().unwrap());
        access.collect(child.stdout.take().unwrap());
        Self { child, dir, config, log, access }
    }

    /// The proxy's own log.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// The access log.
    pub fn access(&self) -> &Lines {
        &self.access
    }

    /// Waits for an access log line that `wanted` takes.
    pub fn access_line(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        self.access.wait("access log line", |line| {
            let line = serde_json::from_str(line).ok()?;
            wanted(&line).then_some(line)
        })
    }

    /// Where a listener is bound (`admin` for the admin server): the newest place, after a reload.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.log.wait(&format!("listener {listener}"), |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["listener"] == listener)
                .then(|| line["address"].as_str().unwrap().parse().unwrap())
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, like `TERM`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let status = kill.arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end and returns the exit code.
    pub fn wait_exit(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "the proxy does not end");
            std::thread::yield_now();
        }
    }

    /// Replaces the file and asks for a reload; the answer of `/reload`.
    pub fn reload(&self, yaml: &str) -> Reply {
        std::fs::write(&self.config, yaml).unwrap();
        http(self.address("admin"), "POST", "/reload", &[], b"")
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&http(self.address("admin"), "GET", "/metrics", &[], b"").text())
    }

    /// Asks for the metrics until `reached` holds.
    pub fn wait_metrics(&self, what: &str, reached: impl Fn(&Metrics) -> bool) -> Metrics {
        let end = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if reached(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < end, "{what} not reached in:\n{}", metrics.text);
            std::thread::yield_now();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        if std::thread::panicking() {
            println!("--- log\n{}", self.log.all().join("\n"));
            println!("--- access log\n{}", self.access.all().join("\n"));
        }
    }
}

/// The text of `/metrics`, to be asked by name and labels.
pub struct Metrics {
    pub text: String,
    series: HashMap<String, f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect();
        Self { text: text.to_owned(), series }
    }

    /// The sum of the series of `name` that have all of `labels`; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        self.series
            .iter()
            .filter(|(series, _)| {
                series.split('{').next() == Some(name)
                    && wanted.iter().all(|label| series.contains(label))
            })
            .map(|(_, value)| value)
            .sum()
    }
}

/// An HTTP/1 answer, read from the wire.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// The head as it was sent, with its empty line.
    pub head: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own.
pub fn http(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut connection = Connection::open(to);
    connection.request(method, path, headers, body);
    connection.reply()
}

/// A GET on a connection of its own.
pub fn get(to: SocketAddr, path: &str) -> Reply {
    http(to, "GET", path, &[], b"")
}

/// A raw connection.
pub struct Connection {
    pub stream: BufReader<TcpStream>,
    head_request: bool,
}

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    /// On a socket that is connected already.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), head_request: false }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request with `Host: test` (unless given) and a length where there is a body.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: test\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.head_request = method == "HEAD";
        self.send([head.as_bytes(), b"\r\n", body].concat());
    }

    /// Reads one answer: by length, by chunks, or to the end of the connection.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.reply_head();
        let bodiless = self.head_request || matches!(reply.status, 100..=199 | 204 | 304);
        if bodiless {
            return reply;
        }
        if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut reply.body).unwrap();
        } else if reply.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        } else {
            self.stream.read_to_end(&mut reply.body).unwrap();
        }
        reply
    }

    /// Reads the head of an answer.
    pub fn reply_head(&mut self) -> Reply {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).unwrap();
            assert!(read > 0, "the connection ended after {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": ").or_else(|| line.split_once(':')))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Reply { status, head, headers, body: Vec::new() }
    }

    /// The next chunk of a chunked body; `None` after the last one, whose trailers stay unread but for the empty line.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.stream.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            let mut line = String::new();
            while self.stream.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            return None;
        }
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        Some(chunk)
    }

    /// Everything until the connection ends; an error (a reset) ends it as well.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _reset = self.stream.read_to_end(&mut rest);
        rest
    }
}

/// An upstream whose every connection is served by a function.
pub struct Upstream {
    pub address: SocketAddr,
    pub received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    /// Serves each connection on a thread of its own. The function gets the connection's number, from 0.
    pub fn serve(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let each = Arc::new(each);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (Ok(stream), each) = (stream, Arc::clone(&each)) else { return };
                stream.set_nodelay(true).unwrap();
                std::thread::spawn(move || each(number, stream));
            }
        });
        Self { address, received: Arc::default() }
    }

    /// Reads requests (by their length or chunks), keeps their very bytes, and answers each with what `answer` says to its
    /// number, counted over all connections from 0. An empty answer closes the connection.
    pub fn scripted(answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&received);
        let served = Self::serve(move |_, stream| {
            let mut connection = BufReader::new(stream);
            while let Some(request) = read_request(&mut connection) {
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    kept.len() - 1
                };
                let answer = answer(number);
                if answer.is_empty() || connection.get_mut().write_all(&answer).is_err() {
                    return;
                }
            }
        });
        Self { received, ..served }
    }

    /// Answers every request with 200 and `body`.
    pub fn ok(body: &str) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Self::scripted(move |_| answer.clone().into_bytes())
    }

    /// The requests so far, as text.
    pub fn requests(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }
}

/// The bytes of one request, head and body as they came; `None` at the end of the connection.
pub fn read_request(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut request).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    if let Some(length) = field("content-length:") {
        let start = request.len();
        request.resize(start + length.parse::<usize>().unwrap(), 0);
        from.read_exact(&mut request[start..]).ok()?;
    } else if field("transfer-encoding:").is_some() {
        while !(request.ends_with(b"\r\n\r\n") && has_last_chunk(&request)) {
            if from.read_until(b'\n', &mut request).ok()? == 0 {
                return None;
            }
        }
    }
    Some(request)
}

fn has_last_chunk(request: &[u8]) -> bool {
    request.windows(5).any(|window| window == b"\r\n0\r\n")
}

/// An address on which nobody listens.
pub fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Proxy {
    /// The metrics as soon as `reached` holds; where it does not come to it in two seconds, as they are then.
    pub fn metrics_when(&self, reached: impl Fn(&Metrics) -> bool) -> Metrics {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let metrics = self.metrics();
            if reached(&metrics) || Instant::now() > end {
                return metrics;
            }
            std::thread::yield_now();
        }
    }
}
