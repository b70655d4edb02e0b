//! HTTP/2: malformed requests by hand-made frames, translation by the `h2` crate as a caller.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream as AsyncStream;

use super::case::normal;
use super::support::{Metrics, PATIENCE, Proxy, Upstream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: u32 = 1;

fn proxy(endpoint: SocketAddr) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0
runtime: {{ workers: 1 }}
defaults: {{ route: {{ timeout: unlimited }} }}
listeners: {{ out: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }} }}
upstreams: {{ app: {{ endpoints: [\"{endpoint}\"] }} }}
"
    ))
}

/// A connection that speaks frames.
struct Frames {
    stream: TcpStream,
    next: u32,
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Reset(u32),
    ConnectionEnded,
}

impl Frames {
    fn open(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Self { stream, next: 1 };
        frames.send(SETTINGS, 0, 0, b"");
        frames
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream.write_all(&frame(kind, flags, stream, payload)).unwrap();
    }

    /// Sends a request without a body, its fields as literals, and waits for its end.
    fn request(&mut self, fields: &[(&str, &str)]) -> Outcome {
        let stream = self.begin(END_STREAM, fields);
        self.outcome(stream)
    }

    /// Sends a request's head with these flags, and says on which stream.
    fn begin(&mut self, flags: u8, fields: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(HEADERS, flags | END_HEADERS, stream, &block(0, fields));
        stream
    }

    fn outcome(&mut self, wanted: u32) -> Outcome {
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).is_err() {
                return Outcome::ConnectionEnded;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).unwrap();
            let code = || u32::from_be_bytes(payload[..4].try_into().unwrap());
            match head[3] {
                RST_STREAM if stream == wanted => return Outcome::Reset(code()),
                GOAWAY => return Outcome::ConnectionEnded,
                SETTINGS if head[4] == 0 => self.send(SETTINGS, 1, 0, b""),
                _ if stream == wanted && head[4] & END_STREAM != 0 => return Outcome::Answered,
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals, `representation` before each: 0 for those that enter no table, 0x40 for those that do (RFC 7541 §6.2).
fn block(representation: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(representation);
        for text in [name, value] {
            // Latin-1, so that any byte can be written.
            let bytes: Vec<u8> = text.chars().map(|char| u8::try_from(char).unwrap()).collect();
            // RFC 7541 §5.1: a length below 127 is one byte.
            block.push(u8::try_from(bytes.len()).ok().filter(|length| *length < 127).unwrap());
            block.extend(bytes);
        }
    }
    block
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/");
const GOOD: [(&str, &str); 4] = [METHOD, SCHEME, AUTHORITY, PATH];

/// One line: what is wrong, and the fields. `GOOD` stands before a single field that is wrong.
const MALFORMED: &[(&str, &[(&str, &str)])] = &[
    ("Connection", &[("connection", "keep-alive")]),
    ("Keep-Alive", &[("keep-alive", "timeout=5")]),
    ("Proxy-Connection", &[("proxy-connection", "close")]),
    ("Transfer-Encoding", &[("transfer-encoding", "chunked")]),
    ("Upgrade", &[("upgrade", "websocket")]),
    ("TE other than trailers", &[("te", "gzip")]),
    ("a pseudo-header of answers", &[(":status", "200")]),
    ("a pseudo-header behind a field", &[("x", "1"), (":path", "/b")]),
    ("a path twice", &[(":path", "/b")]),
    ("an authority twice", &[(":authority", "a")]),
    ("Host against the authority", &[("host", "b")]),
    ("two Hosts", &[("host", "a"), ("host", "a")]),
    ("a length without a body", &[("content-length", "5")]),
    ("a length that is no number", &[("content-length", "x")]),
    ("two lengths", &[("content-length", "0"), ("content-length", "0")]),
    ("no method", &[SCHEME, AUTHORITY, PATH]),
    ("no scheme", &[METHOD, AUTHORITY, PATH]),
    ("no path", &[METHOD, SCHEME, AUTHORITY]),
    ("an empty path", &[METHOD, SCHEME, AUTHORITY, (":path", "")]),
    ("a path without a slash", &[METHOD, SCHEME, AUTHORITY, (":path", "x")]),
    ("* with GET", &[METHOD, SCHEME, AUTHORITY, (":path", "*")]),
    ("a space in the path", &[METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1")]),
    ("a line end in the path", &[METHOD, SCHEME, AUTHORITY, (":path", "/\r\nhost: b")]),
    ("an escaped NUL in the path", &[METHOD, SCHEME, AUTHORITY, (":path", "/%00")]),
    ("a backslash in the path", &[METHOD, SCHEME, AUTHORITY, (":path", "/\\x")]),
    ("an absolute form in the path", &[METHOD, SCHEME, AUTHORITY, (":path", "http://b/")]),
    ("no authority and no Host", &[METHOD, SCHEME, PATH]),
    ("an authority that names a user", &[METHOD, SCHEME, (":authority", "u@a"), PATH]),
    ("an authority with a space", &[METHOD, SCHEME, (":authority", "a b"), PATH]),
    ("an authority with a path", &[METHOD, SCHEME, (":authority", "a/b"), PATH]),
    ("an authority with no number for a port", &[METHOD, SCHEME, (":authority", "a:b"), PATH]),
    ("another scheme", &[METHOD, (":scheme", "ftp"), AUTHORITY, PATH]),
    ("upper case in a name", &[("X-Upper", "1")]),
    ("a space in a name", &[("x y", "1")]),
    ("a colon in a name", &[("x:y", "1")]),
    ("a control byte in a name", &[("x\u{1}", "1")]),
    ("CR in a value", &[("x", "1\r2")]),
    ("LF in a value", &[("x", "1\nhost: b")]),
    ("NUL in a value", &[("x", "1\0")]),
    ("a control byte in a value", &[("x", "1\u{1}")]),
    ("an unknown pseudo-header", &[(":x", "1")]),
    ("a method that is no token", &[(":method", "G T"), SCHEME, AUTHORITY, PATH]),
    ("a line end in the method", &[(":method", "GET / HTTP/1.1\r\n"), SCHEME, AUTHORITY, PATH]),
    ("a field without a name", &[("", "1")]),
    ("a path that is not UTF-8", &[METHOD, SCHEME, AUTHORITY, (":path", "/\u{ff}")]),
];

#[test]
fn a_malformed_request_resets_its_stream_and_is_counted_and_the_connection_lives() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    let mut wrong = Vec::new();
    let mut frames = Frames::open(proxy.address("out"));
    for (name, fields) in MALFORMED {
        let whole = fields[0].0.starts_with(':') && fields.len() >= 3;
        let fields = if whole { fields.to_vec() } else { [&GOOD, *fields].concat() };
        // As the first request of a connection, and behind other malformed ones.
        let mut fresh = Frames::open(proxy.address("out"));
        for frames in [&mut fresh, &mut frames] {
            let before = rejected_in(&proxy.metrics());
            let outcome = frames.request(&fields);
            if outcome == Outcome::ConnectionEnded {
                *frames = Frames::open(proxy.address("out"));
            }
            let counted = proxy.metrics_when(|metrics| rejected_in(metrics) > before + 0.5);
            let counted = rejected_in(&counted) - before;
            if outcome != Outcome::Reset(PROTOCOL_ERROR) || (counted - 1.0).abs() > 0.1 {
                wrong.push(format!("{name}: {outcome:?}, counted {counted}"));
            }
        }
    }
    for request in upstream.requests() {
        wrong.push(format!("the upstream got {request:?}"));
    }
    if frames.request(&GOOD) != Outcome::Answered {
        wrong.push("the connection is dead".to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_malformed_costs_its_own_stream_only_and_the_log_says_what_it_was() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    let mut frames = Frames::open(proxy.address("out"));
    // One that is under way, and whose fields are in the client's table.
    let mut pushed = block(0x40, &GOOD);
    pushed.extend(block(0x40, &[("x-kept", "1")]));
    frames.send(HEADERS, END_HEADERS, 1, &pushed);
    // Two that are malformed: by what enters the table, and then by what stands there. In pieces, the second.
    let mut wrong = b"\xc2\xc1\xc0\xbf\xbe".to_vec();
    wrong.extend(block(0x40, &[("X-Upper", "1")]));
    frames.send(HEADERS, END_STREAM | END_HEADERS, 3, &wrong);
    assert_eq!(frames.outcome(3), Outcome::Reset(PROTOCOL_ERROR));
    frames.send(HEADERS, END_STREAM, 5, b"\xc3\xc2");
    frames.send(CONTINUATION, END_HEADERS, 5, b"\xc1\xc0\xbf\xbe");
    assert_eq!(frames.outcome(5), Outcome::Reset(PROTOCOL_ERROR));
    // One whose trailers are malformed, all of it at once so that it is not answered before.
    let trailers = block(0, &[("x-sum", "1\r\n2")]);
    let mut both = frame(HEADERS, END_HEADERS, 7, b"\xc3\xc2\xc1\xc0");
    both.extend(frame(HEADERS, END_STREAM | END_HEADERS, 7, &trailers));
    frames.stream.write_all(&both).unwrap();
    assert_eq!(frames.outcome(7), Outcome::Reset(PROTOCOL_ERROR));
    // The first ends, and another is sent by what the table had before and got since.
    frames.send(DATA, END_STREAM, 1, b"body");
    assert_eq!(frames.outcome(1), Outcome::Answered);
    let mut last = b"\xc3\xc2\xc1\xc0\xbf".to_vec();
    last.extend(block(0x40, &[("x-last", "2")]));
    frames.send(HEADERS, END_STREAM | END_HEADERS, 9, &last);
    assert_eq!(frames.outcome(9), Outcome::Answered);
    frames.send(HEADERS, END_STREAM | END_HEADERS, 11, b"\xc4\xc3\xc2\xc1\xc0\xbe");
    assert_eq!(frames.outcome(11), Outcome::Answered);
    // Two in one write: each is told by its own name.
    let mut both = frame(HEADERS, END_STREAM | END_HEADERS, 13, b"\xc4\xc3\xc2\xc1\xc1");
    both.extend(frame(HEADERS, END_STREAM | END_HEADERS, 15, &block(0, &[("te", "gzip")])));
    frames.stream.write_all(&both).unwrap();
    assert_eq!(frames.outcome(13), Outcome::Reset(PROTOCOL_ERROR));
    assert_eq!(frames.outcome(15), Outcome::Reset(PROTOCOL_ERROR));
    let requests = upstream.requests();
    let has = |name: &str| requests.iter().filter(|request| request.contains(name)).count();
    assert_eq!((has("x-kept: 1\r\n"), has("x-last: 2\r\n")), (3, 2));
    let faults = [
        "a field name in upper case",
        "a control character in a field's value",
        "a pseudo-header that comes twice",
        "`te` other than `trailers`",
    ];
    for fault in faults {
        proxy.log().wait(fault, |line| line.contains(fault).then_some(()));
    }
}

fn rejected_in(metrics: &Metrics) -> f64 {
    metrics.sum("outrigger_rejected_total", &[])
}

type Sender = h2::client::SendRequest<Bytes>;

/// Runs a conversation on one HTTP/2 connection.
fn talk<F: Future>(to: SocketAddr, conversation: impl FnOnce(Sender) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = AsyncStream::connect(to).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let said = tokio::time::timeout(PATIENCE, conversation(send)).await.unwrap();
        connection.abort();
        said
    })
}

/// Sends a request with `body` in one piece each, and `trailers`.
async fn exchange(
    send: Sender,
    request: Request<()>,
    body: &[&'static str],
    trailers: Option<HeaderMap>,
) -> Result<(Response<String>, Option<HeaderMap>), h2::Error> {
    let mut send = send.ready().await?;
    let (response, mut sender) =
        send.send_request(request, body.is_empty() && trailers.is_none())?;
    for (index, piece) in body.iter().enumerate() {
        let last = index + 1 == body.len() && trailers.is_none();
        sender.send_data(Bytes::from_static(piece.as_bytes()), last)?;
    }
    if let Some(trailers) = trailers {
        sender.send_trailers(trailers)?;
    }
    let (head, mut body) = response.await?.into_parts();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        text.extend(piece);
    }
    let trailers = body.trailers().await?;
    Ok((Response::from_parts(head, String::from_utf8(text).unwrap()), trailers))
}

fn request(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// What the upstream must get of a request over HTTP/2: method, target, fields, pieces of the body; then the bytes.
type Translation = (
    &'static str,
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]),
    &'static str,
);

const TRANSLATIONS: &[Translation] = &[
    (
        "Host comes from the authority, in the spelling of the caller",
        ("GET", "http://A.example:81/x?y", &[("x", "1")], &[]),
        "GET /x?y HTTP/1.1\r\nhost: A.example:81\r\nx: 1\r\n[ours]\r\n",
    ),
    (
        "Host beside an authority that agrees is one Host",
        ("GET", "http://a/", &[("host", "a")], &[]),
        "GET / HTTP/1.1\r\nhost: a\r\n[ours]\r\n",
    ),
    (
        "pieces of a cookie are joined",
        ("GET", "http://a/", &[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")], &[]),
        "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2; c=3; d=4\r\n[ours]\r\n",
    ),
    (
        "a body of unknown length is chunked",
        ("POST", "http://a/", &[], &["hello"]),
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n[ours]\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "so is that of a GET",
        ("GET", "http://a/", &[], &["hello"]),
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n[ours]\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a body of known length keeps it",
        ("POST", "http://a/", &[("content-length", "5")], &["he", "llo"]),
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n[ours]\r\nhello",
    ),
    (
        "TE stays on this hop",
        ("GET", "http://a/", &[("te", "trailers")], &[]),
        "GET / HTTP/1.1\r\nhost: a\r\n[ours]\r\n",
    ),
    (
        "the path is normalised, the query is not",
        ("GET", "http://a/x/../%7Ey//%2f?/../", &[], &[]),
        "GET /~y//%2F?/../ HTTP/1.1\r\nhost: a\r\n[ours]\r\n",
    ),
];

#[test]
fn a_request_over_http2_becomes_one_of_http1() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    for (name, (method, uri, fields, body), expected) in TRANSLATIONS {
        upstream.received.lock().unwrap().clear();
        let request = request(method, uri, fields);
        let answered = talk(proxy.address("out"), |send| exchange(send, request, body, None));
        let (response, _) = answered.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (response.status().as_u16(), response.body().as_str()),
            (200, "hello"),
            "{name}"
        );
        let expected = expected.replace("[ours]", "via: 1.1 outrigger (*)\r\nx-request-id: *\r\n");
        let got = normal(&upstream.received.lock().unwrap().concat());
        assert_eq!(got, normal(expected.as_bytes()), "{name}");
    }
}

#[test]
fn an_answer_of_http1_becomes_one_of_http2() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=9\r\nX-Hop: 1\r\n\
                  Transfer-Encoding: chunked\r\nX-Kept: 2\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 3\r\nContent-Length: 9\r\n\r\n";
    let upstream = Upstream::scripted(move |_| answer.as_bytes().to_vec());
    let proxy = proxy(upstream.address);
    let get = request("GET", "http://a/", &[]);
    let answered = talk(proxy.address("out"), |send| exchange(send, get, &[], None));
    let (response, trailers) = answered.unwrap();
    let names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-kept"]);
    assert_eq!(response.body(), "hello");
    let trailers = trailers.unwrap();
    assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"3".parse().unwrap()));
    assert!(proxy.metrics().sum("outrigger_rejected_total", &[]) < 0.5);
}

#[test]
fn trailers_of_a_request_reach_http1_where_they_were_announced() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    for (announced, expected) in [(true, "0\r\nx-sum: 1\r\n\r\n"), (false, "0\r\n\r\n")] {
        let fields: &[_] = if announced { &[("trailer", "x-sum")] } else { &[] };
        let post = request("POST", "http://a/", fields);
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        let talked =
            talk(proxy.address("out"), |send| exchange(send, post, &["hello"], Some(trailers)));
        assert_eq!(talked.unwrap().0.status(), 200);
        let got = upstream.requests().pop().unwrap();
        assert!(got.ends_with(&format!("5\r\nhello\r\n{expected}")), "{got:?}");
    }
    let left_out = proxy.metrics().sum("outrigger_dropped_total", &[("reason", "trailers")]);
    assert!((left_out - 1.0).abs() < 0.1, "{left_out}");
}

#[test]
fn an_answer_cut_short_resets_its_stream_and_leaves_the_others() {
    let upstream = Upstream::scripted(|number| match number {
        0 => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        1 => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"
            .to_vec(),
        2 => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain".to_vec(),
    });
    let proxy = proxy(upstream.address);
    talk(proxy.address("out"), |send| async move {
        let get = || request("GET", "http://a/", &[]);
        let answer = |send: Sender| async { exchange(send, get(), &[], None).await };
        assert_eq!(answer(send.clone()).await.unwrap().0.body(), "hello");
        let cut = answer(send.clone()).await.unwrap_err();
        assert!(cut.is_reset() && cut.is_remote(), "{cut}");
        let (refused, _) = answer(send.clone()).await.unwrap();
        assert_eq!(refused.status(), 502);
        assert_eq!(refused.headers()["x-outrigger-reason"], "upstream_protocol_error");
        assert!(!refused.headers().contains_key("connection"));
        assert_eq!(answer(send).await.unwrap().0.body(), "again");
    });
}

#[test]
fn what_is_well_formed_and_not_to_be_met_is_answered() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    let expectation = request("POST", "http://a/", &[("expect", "tea")]);
    let answered = talk(proxy.address("out"), |send| exchange(send, expectation, &[], None));
    assert_eq!(answered.unwrap().0.status(), 417);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_body_that_breaks_its_length_resets_the_stream_and_never_looks_whole() {
    let upstream = Upstream::ok("hello");
    let proxy = proxy(upstream.address);
    talk(proxy.address("out"), |send| async move {
        for body in [&["hell"][..], &["hello", "!"]] {
            let post = request("POST", "http://a/", &[("content-length", "5")]);
            let error = exchange(send.clone(), post, body, None).await.unwrap_err();
            assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{body:?}: {error}");
        }
        let get = request("GET", "http://a/", &[]);
        assert_eq!(exchange(send, get, &[], None).await.unwrap().0.body(), "hello");
    });
    assert!(upstream.requests().iter().all(|request| request.starts_with("GET")));
    let counted = [("reason", "downstream_protocol_error")];
    assert!((proxy.metrics().sum("outrigger_rejected_total", &counted) - 2.0).abs() < 0.1);
}
