//! Runs cases: one proxy for a file, one case after the other, each with an upstream that keeps what it gets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::case::{self, Case, End, Expected, Upstream};
use super::support::{Metrics, PATIENCE, Proxy, http};

/// What the recording upstream shares with the test.
#[derive(Default)]
struct Recorder {
    answer: Vec<u8>,
    upstream: Option<Upstream>,
    /// What came on each connection, and whether it was a whole request.
    received: Vec<(Vec<u8>, bool)>,
    kept: Vec<TcpStream>,
}

type Shared = Arc<Mutex<Recorder>>;

/// Runs every case of a file and reports all that fail.
pub(crate) fn all(file: &str, text: &str) {
    let cases = case::parse(file, text);
    let (recorder, upstream) = record();
    let proxy = Proxy::start(&yaml(upstream));
    let failures: Vec<String> =
        cases.iter().filter_map(|case| run(&proxy, &recorder, case)).collect();
    let panics = proxy.log().all().iter().filter(|line| line.contains("panicked")).count();
    assert_eq!(panics, 0, "{file}: the proxy has panicked");
    let (failed, all) = (failures.len(), cases.len());
    assert!(failures.is_empty(), "{file}: {failed} of {all} cases\n\n{}", failures.join("\n\n"));
}

/// Three listeners before one upstream. No deadline, so that no header tells the time that is left.
fn yaml(upstream: SocketAddr) -> String {
    let routes = "[{ match: { path: /sentinel }, to: sentinel }, { to: app }]";
    format!(
        "admin: 127.0.0.1:0
runtime: {{ workers: 1 }}
defaults: {{ route: {{ timeout: unlimited }} }}
listeners:
  out: {{ bind: 127.0.0.1:0, routes: {routes} }}
  in: {{ bind: 127.0.0.1:0, direction: inbound, routes: {routes} }}
  small:
    bind: 127.0.0.1:0
    limits: {{ headers: 5, header_bytes: 8KiB, header_timeout: 100ms, body: 8B }}
    routes: {routes}
upstreams:
  app: {{ endpoints: [\"{upstream}\"] }}
  sentinel: {{ endpoints: [\"{upstream}\"] }}
"
    )
}

/// An upstream that serves one connection after the other, so that what came before is known to be over.
fn record() -> (Shared, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let recorder = Shared::default();
    let shared = Arc::clone(&recorder);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            serve(&shared, stream);
        }
    });
    (recorder, address)
}

fn serve(recorder: &Shared, stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut request = Vec::new();
    let mut whole = read_head(&mut reader, &mut request);
    if whole && request.starts_with(b"GET /sentinel ") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nsentinel";
        let _gone = reader.get_mut().write_all(answer);
        return;
    }
    let (answer, upstream) = {
        let recorder = recorder.lock().unwrap();
        (recorder.answer.clone(), recorder.upstream.unwrap_or(Upstream::Closes))
    };
    if upstream == Upstream::Early && whole {
        let _gone = reader.get_mut().write_all(&answer);
    }
    whole = whole && read_body(&mut reader, &mut request);
    recorder.lock().unwrap().received.push((request, whole));
    if upstream != Upstream::Early && whole {
        let _gone = reader.get_mut().write_all(&answer);
    }
    let stream = reader.into_inner();
    match upstream {
        // Over loopback the answer stands in the peer's queue before the reset does, and is read first.
        Upstream::Resets | Upstream::Aborts => {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        Upstream::Holds => {
            let _closed = (&stream).read(&mut [0]);
        }
        Upstream::Keeps => recorder.lock().unwrap().kept.push(stream),
        _ => {}
    }
}

fn read_head(reader: &mut impl BufRead, request: &mut Vec<u8>) -> bool {
    while !request.ends_with(b"\r\n\r\n") {
        match reader.read_until(b'\n', request) {
            Ok(read) if read > 0 => {}
            _ => return false,
        }
    }
    true
}

/// Reads a body as RFC 9112 frames it. False: it broke off.
fn read_body(reader: &mut impl BufRead, request: &mut Vec<u8>) -> bool {
    let head = String::from_utf8_lossy(request).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let start = request.len();
    if let Some(length) = field("content-length:") {
        let length: u64 = length.parse().unwrap();
        reader.take(length).read_to_end(request).is_ok() && (request.len() - start) as u64 == length
    } else if field("transfer-encoding:").is_some() {
        loop {
            let line_at = request.len();
            if !matches!(reader.read_until(b'\n', request), Ok(read) if read > 0) {
                return false;
            }
            let line = String::from_utf8_lossy(&request[line_at..]).trim().to_owned();
            let size = u64::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                let mut end = Vec::new();
                while !end.ends_with(b"\r\n\r\n") && end != b"\r\n" {
                    if !matches!(reader.read_until(b'\n', &mut end), Ok(read) if read > 0) {
                        return false;
                    }
                }
                request.extend(end);
                return true;
            }
            let chunk_at = request.len();
            let read = reader.take(size + 2).read_to_end(request);
            if read.is_err() || (request.len() - chunk_at) as u64 != size + 2 {
                return false;
            }
        }
    } else {
        true
    }
}

/// What a case came to.
struct Seen {
    upstream: Vec<(Vec<u8>, bool)>,
    caller: Vec<u8>,
    end: Option<End>,
}

fn run(proxy: &Proxy, recorder: &Shared, case: &Case) -> Option<String> {
    {
        let mut recorder = recorder.lock().unwrap();
        recorder.answer = case.upstream_answers.clone();
        recorder.upstream = Some(case.upstream);
        recorder.received.clear();
    }
    let before = proxy.metrics();
    let (address, caller, end) = call(proxy, case);
    // What is answered after all that went before proves that nothing more of the case is under way.
    let after = http(proxy.address("out"), "GET", "/sentinel", &[("Connection", "close")], b"");
    let seen =
        Seen { upstream: std::mem::take(&mut recorder.lock().unwrap().received), caller, end };
    recorder.lock().unwrap().kept.clear();
    let mut wrong = Vec::new();
    if after.text() != "sentinel" {
        wrong.push(format!("the next request got {after:?}"));
    }
    check_upstream(case, &seen, &mut wrong);
    check_caller(case, &seen, &mut wrong);
    let rejected = |metrics: &Metrics, reason: &str| {
        metrics.sum("outrigger_rejected_total", &[("reason", reason)])
    };
    let all = |metrics: &Metrics| metrics.sum("outrigger_rejected_total", &[]);
    let all_counted = |metrics: &Metrics| {
        let grown = |reason: &String| rejected(metrics, reason) > rejected(&before, reason) + 0.5;
        case.rejected.iter().all(grown)
    };
    let grown = proxy.metrics_when(all_counted);
    let more = all(&grown) - all(&before);
    if !all_counted(&grown) || (more - case.rejected.len() as f64).abs() > 0.5 {
        let found = difference(&before.text, &grown.text);
        wrong.push(format!("counted: expected {:?}, found {found}", case.rejected));
    }
    let left_out = |metrics: &Metrics| {
        let reason = case.left_out.as_deref().unwrap_or_default();
        metrics.sum("outrigger_dropped_total", &[("reason", reason)])
    };
    if case.left_out.is_some() && left_out(&grown) < left_out(&before) + 0.5 {
        wrong.push(format!("not counted as left out: {:?}", case.left_out));
    }
    if let Expected::Ours(_, reason) = &case.expected {
        let peer = address.to_string();
        proxy.access_line(|line| line["peer"] == *peer && line["reason"] == *reason);
    }
    if wrong.is_empty() {
        return None;
    }
    Some(format!("== {}\n{}", case.name, wrong.join("\n")))
}

/// The counters of refusals that differ.
fn difference(before: &str, after: &str) -> String {
    let refusals = |line: &&str| line.starts_with("outrigger_rejected_total");
    let old: Vec<&str> = before.lines().filter(refusals).collect();
    let new: Vec<&str> =
        after.lines().filter(refusals).filter(|line| !old.contains(line)).collect();
    if new.is_empty() { "nothing".to_owned() } else { new.join(", ") }
}

/// Sends the case's bytes and reads to the end of the connection.
fn call(proxy: &Proxy, case: &Case) -> (SocketAddr, Vec<u8>, Option<End>) {
    let mut stream = TcpStream::connect(proxy.address(&case.listener)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut sent = case.sent.clone();
    if case.end == End::Open {
        // The last request on the connection: its answer must stand right behind the case's own.
        sent.extend(b"GET /sentinel HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n");
    }
    // Where the proxy has refused the beginning already, the rest meets a closed connection.
    let _refused = stream.write_all(&sent);
    if case.caller_closes {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut received = Vec::new();
    let mut end = match stream.read_to_end(&mut received) {
        Ok(_) => Some(End::Closed),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
        Err(_) => None,
    };
    if case.end == End::Open
        && end == Some(End::Closed)
        && let Some(own) = without_sentinel(&received)
    {
        received.truncate(own);
        end = Some(End::Open);
    }
    (stream.local_addr().unwrap(), received, end)
}

/// Where the sentinel's answer begins, if the bytes end in it.
fn without_sentinel(received: &[u8]) -> Option<usize> {
    let text: String = received.iter().map(|&byte| char::from(byte)).collect();
    let start = text.rfind("HTTP/1.1 200 OK\r\n")?;
    text[start..].ends_with("\r\n\r\nsentinel").then_some(start)
}

fn check_upstream(case: &Case, seen: &Seen, wrong: &mut Vec<String>) {
    let Some(expected) = &case.upstream_gets else { return };
    let got: Vec<u8> = seen.upstream.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    let whole = seen.upstream.iter().all(|(_, whole)| *whole);
    let (expected, got) = (case::normal(expected), case::normal(&got));
    let same =
        if case.broken { expected.starts_with(&got) || got == expected } else { got == expected };
    if !same {
        wrong.push(sides("upstream", &expected, &got));
    }
    if case.broken == whole && !seen.upstream.is_empty() {
        wrong.push(format!("upstream: whole is {whole}"));
    }
}

fn check_caller(case: &Case, seen: &Seen, wrong: &mut Vec<String>) {
    match &case.expected {
        Expected::Bytes(expected) => {
            let (expected, got) = (case::normal(expected), case::normal(&seen.caller));
            if got != expected {
                wrong.push(sides("caller", &expected, &got));
            }
        }
        Expected::Ours(status, reason) => {
            let got = case::normal(&seen.caller);
            let header = format!("\r\nx-outrigger-reason: {reason}\r\n");
            let as_told = got.starts_with(&format!("HTTP/1.1 {status} "))
                || got.starts_with(&format!("HTTP/1.0 {status} "));
            if !as_told || !got.contains(&header) {
                wrong.push(sides("caller", &format!("{status}{header}"), &got));
            }
        }
    }
    if seen.end != Some(case.end) {
        wrong.push(format!("the connection: expected {:?}, found {:?}", Some(case.end), seen.end));
    }
}

fn sides(who: &str, expected: &str, got: &str) -> String {
    let shown = |text: &str| {
        let text = if text.len() > 2_000 { &text[..2_000] } else { text };
        text.escape_debug().to_string().replace("\\r\\n", "\\r\\n\n    ").replace("\\\"", "\"")
    };
    format!("  {who} expected:\n    {}\n  {who} got:\n    {}", shown(expected), shown(got))
}
