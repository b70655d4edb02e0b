//! HTTP/1 in several turns: who waits for whom, who leaves when, and what is left on a connection.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::support::{Connection, Proxy, Upstream, get, http, refusing};

fn proxy(endpoint: SocketAddr) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0
runtime: {{ workers: 1 }}
listeners: {{ out: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }} }}
upstreams: {{ app: {{ endpoints: [\"{endpoint}\"] }} }}
"
    ))
}

/// What an upstream's connection reports to the test.
fn reports() -> (Arc<Mutex<mpsc::Sender<String>>>, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    (Arc::new(Mutex::new(tell)), told)
}

fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return head;
        }
    }
    head
}

fn wait_rejected(proxy: &Proxy, reason: &str) {
    proxy.wait_metrics(reason, |metrics| {
        metrics.sum("outrigger_rejected_total", &[("reason", reason)]) > 0.5
    });
}

/// Reads one byte; true where the connection has ended instead.
fn has_ended(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_hundred_is_sent_when_the_attempt_has_started() {
    let (tell, told) = reports();
    let upstream = Upstream::serve(move |_, stream| {
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader);
        tell.lock().unwrap().send(head).unwrap();
        let mut body = [0; 5];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(HELLO).unwrap();
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(caller.reply_head().head, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(!told.recv().unwrap().to_ascii_lowercase().contains("expect"));
    caller.send("hello");
    assert_eq!(caller.reply().text(), "hello");
}

#[test]
fn a_hundred_is_not_sent_where_no_attempt_gets_that_far() {
    let proxy = proxy(refusing());
    let mut caller = Connection::open(proxy.address("out"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(caller.reply().status, 503);
}

#[test]
fn a_fin_of_the_caller_cancels_its_request() {
    let (tell, told) = reports();
    let upstream = Upstream::serve(move |_, stream| {
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader);
        tell.lock().unwrap().send(head).unwrap();
        let ended = has_ended(&mut reader);
        tell.lock().unwrap().send(ended.to_string()).unwrap();
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.request("GET", "/", &[], b"");
    assert!(told.recv().unwrap().starts_with("GET / "));
    caller.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv().unwrap(), "true");
    assert_eq!(caller.rest(), b"");
    wait_rejected(&proxy, "client_gone");
    let line = proxy.access_line(|line| line["reason"] == "client_gone");
    assert_eq!(line["status"], 499);
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_an_answer_ends_it_upstream() {
    let (tell, told) = reports();
    let upstream = Upstream::serve(move |_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        tell.lock().unwrap().send(has_ended(&mut reader).to_string()).unwrap();
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.request("GET", "/", &[], b"");
    assert_eq!(caller.reply_head().status, 200);
    drop(caller);
    assert_eq!(told.recv().unwrap(), "true");
    wait_rejected(&proxy, "client_gone");
}

/// Answers the first request of its first connection, and closes under the second.
fn closes_under_the_second() -> Upstream {
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    let served = Upstream::serve(move |number, stream| {
        let mut reader = BufReader::new(stream);
        loop {
            let Some(request) = super::support::read_request(&mut reader) else { return };
            kept.lock().unwrap().push(request);
            if number == 0 && kept.lock().unwrap().len() == 2 {
                return;
            }
            reader.get_mut().write_all(HELLO).unwrap();
        }
    });
    Upstream { received, ..served }
}

#[test]
fn a_get_that_loses_the_keep_alive_race_is_sent_once_more() {
    let upstream = closes_under_the_second();
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    for _ in 0..2 {
        caller.request("GET", "/", &[], b"");
        assert_eq!(caller.reply().text(), "hello");
    }
    assert_eq!(upstream.requests().len(), 3);
    let retries = [("reason", "keep_alive_race")];
    assert!(proxy.metrics().sum("outrigger_upstream_retries_total", &retries) > 0.5);
}

#[test]
fn a_post_that_loses_the_keep_alive_race_is_never_sent_again() {
    let upstream = closes_under_the_second();
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.request("POST", "/", &[], b"x");
    assert_eq!(caller.reply().text(), "hello");
    caller.request("POST", "/", &[], b"x");
    let reply = caller.reply();
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (502, Some("upstream_closed")));
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_post_after_the_upstream_has_closed_its_idle_connection_arrives() {
    let upstream = Upstream::serve(|_, stream| {
        let mut reader = BufReader::new(stream);
        if super::support::read_request(&mut reader).is_some() {
            reader.get_mut().write_all(HELLO).unwrap();
        }
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    for _ in 0..3 {
        caller.request("POST", "/", &[], b"x");
        assert_eq!(caller.reply().text(), "hello");
        proxy.wait_metrics("the end of the idle connection", |metrics| {
            metrics.sum("outrigger_upstream_connections", &[]) < 0.5
        });
    }
}

/// The first answer on the first connection is followed by bytes that look like the answer to the next request.
fn answers_too_much(first: &'static str) -> Upstream {
    const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let count = Mutex::new(0);
    Upstream::serve(move |_, stream| {
        let mut reader = BufReader::new(stream);
        while super::support::read_request(&mut reader).is_some() {
            *count.lock().unwrap() += 1;
            let too_much = *count.lock().unwrap() == 1;
            let answer = if too_much {
                [first.as_bytes(), SMUGGLED.as_bytes()].concat()
            } else {
                HELLO.to_vec()
            };
            if reader.get_mut().write_all(&answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    for (method, first) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 49\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n"),
    ] {
        let upstream = answers_too_much(first);
        let proxy = proxy(upstream.address);
        let mut caller = Connection::open(proxy.address("out"));
        caller.request(method, "/", &[], b"");
        assert!(matches!(caller.reply().status, 200 | 204 | 304), "{first:?}");
        for _ in 0..3 {
            caller.request("POST", "/", &[], b"x");
            assert_eq!(caller.reply().text(), "hello", "{first:?}");
        }
    }
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    let upstream = Upstream::serve(|_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        reader.get_mut().write_all(head).unwrap();
        for _ in 0..10 {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            reader.get_mut().write_all(&byte).unwrap();
        }
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert_eq!(caller.reply_head().status, 200);
    for byte in b'0'..=b'9' {
        caller.send([byte]);
        let mut echoed = [0];
        caller.stream.read_exact(&mut echoed).unwrap();
        assert_eq!(echoed[0], byte);
    }
}

#[test]
fn a_caller_may_send_all_before_it_reads_an_answer_that_has_begun() {
    const SIZE: usize = 32 << 20;
    let upstream = Upstream::serve(|_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader);
        let mut out = reader.get_ref().try_clone().unwrap();
        let answering = std::thread::spawn(move || {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            out.write_all(head.as_bytes()).unwrap();
            out.write_all(&vec![b'x'; SIZE]).unwrap();
        });
        reader.read_exact(&mut vec![0; SIZE]).unwrap();
        answering.join().unwrap();
    });
    let proxy = proxy(upstream.address);
    let mut caller = Connection::open(proxy.address("out"));
    caller.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
    caller.send(vec![b'y'; SIZE]);
    assert_eq!(caller.reply().body.len(), SIZE);
}

#[test]
fn a_request_that_has_passed_this_listener_is_refused() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    assert_eq!(get(proxy.address("out"), "/").status, 200);
    let request = upstream.requests().remove(0);
    let via = request.lines().find_map(|line| line.strip_prefix("via: ")).unwrap();
    for seen in [via.to_owned(), format!("1.0 fred, {via}, 1.1 other")] {
        let reply = http(proxy.address("out"), "GET", "/", &[("Via", &seen)], b"");
        assert_eq!(
            (reply.status, reply.header("x-outrigger-reason")),
            (508, Some("loop_detected"))
        );
    }
    assert_eq!(upstream.requests().len(), 1);
    let refused = [("reason", "loop_detected")];
    assert!(proxy.metrics().sum("outrigger_rejected_total", &refused) > 1.5);
}

#[test]
fn a_body_that_stays_away_after_a_refusal_holds_nothing() {
    let proxy = proxy(refusing());
    let mut caller = Connection::open(proxy.address("out"));
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 100\r\n\r\nhello");
    assert_eq!(caller.reply().status, 400);
    assert_eq!(caller.rest(), b"");
}

#[test]
fn a_tunnel_begins_behind_the_head_and_keeps_what_came_with_it() {
    let upstream = Upstream::serve(|_, stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst";
        reader.get_mut().write_all(answer).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        reader.get_mut().write_all(&rest).unwrap();
    });
    let proxy = proxy(upstream.address);
    let mut caller = TcpStream::connect(proxy.address("out")).unwrap();
    let head =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwith the head";
    caller.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(caller.try_clone().unwrap());
    let head = read_head(&mut reader);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: echo\r\n"), "{head}");
    let mut first = [0; 5];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    caller.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "with the head");
}
