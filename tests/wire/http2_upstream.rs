//! HTTP/1 callers before an HTTP/2 upstream.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::support::{Connection, Proxy, http};

/// What the upstream got, in words: the request line with scheme and authority, the fields sorted, body, trailers.
type Received = Arc<Mutex<Vec<String>>>;

/// An upstream that answers `/` with `hello` and the trailer `x-sum: 1`, and faultily elsewhere.
fn upstream() -> (SocketAddr, Received) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = Received::default();
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(stream, Arc::clone(&kept)));
            }
        });
    });
    (address, received)
}

async fn connection(stream: tokio::net::TcpStream, kept: Received) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(request, respond, Arc::clone(&kept)));
    }
}

async fn serve(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    kept: Received,
) {
    let (parts, mut body) = request.into_parts();
    let mut text = String::new();
    while let Some(Ok(piece)) = body.data().await {
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    kept.lock().unwrap().push(format!(
        "{} {}\n{}\n{text}\n{}",
        parts.method,
        parts.uri,
        lines(&parts.headers),
        lines(&trailers)
    ));
    let answer = Response::builder().header("trailer", "x-sum");
    match parts.uri.path() {
        "/short" => {
            let answer = answer.header("content-length", "10").body(()).unwrap();
            let mut body = respond.send_response(answer, false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        }
        "/reset" => {
            let mut body = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            // A reset takes back what was not sent: the connection's task, on this one thread, has its turns first.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        _ => {
            let mut body = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let sum = [("x-sum".parse().unwrap(), "1".parse().unwrap())];
            body.send_trailers(HeaderMap::from_iter(sum)).unwrap();
        }
    }
}

/// The fields, sorted, our own varying values as `*`.
fn lines(fields: &HeaderMap) -> String {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| match name.as_str() {
        "via" | "x-request-id" => format!("{name}: *"),
        _ => format!("{name}: {}", value.to_str().unwrap()),
    };
    let mut lines: Vec<String> = fields.iter().map(line).collect();
    lines.sort();
    lines.join(", ")
}

fn proxy(endpoint: SocketAddr) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0
runtime: {{ workers: 1 }}
defaults: {{ route: {{ timeout: unlimited }} }}
listeners: {{ out: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }} }}
upstreams: {{ app: {{ protocol: http2, endpoints: [\"{endpoint}\"] }} }}
"
    ))
}

#[test]
fn a_request_of_http1_becomes_one_of_http2() {
    let (address, received) = upstream();
    let proxy = proxy(address);
    for (name, sent, expected) in [
        (
            "the authority comes from Host, hop-by-hop fields end",
            "GET /x?y HTTP/1.1\r\nHost: A:81\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: x\r\n\r\n",
            "GET http://A:81/x?y\nvia: *, x-request-id: *\n\n",
        ),
        (
            "TE: trailers is made anew, other codings end",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip, trailers\r\n\r\n",
            "GET http://a/\nte: trailers, via: *, x-request-id: *\n\n",
        ),
        (
            "chunks become data, trailers pass, but for those that frame",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nConnection: close\r\nContent-Length: 9\r\n\r\n",
            "POST http://a/\nvia: *, x-request-id: *\nhello\nx-sum: 1",
        ),
        (
            "a length stays",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST http://a/\ncontent-length: 5, via: *, x-request-id: *\nhello\n",
        ),
        (
            "a length beside chunks goes",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "POST http://a/\nvia: *, x-request-id: *\nhello\n",
        ),
    ] {
        received.lock().unwrap().clear();
        let mut caller = Connection::open(proxy.address("out"));
        caller.send(sent);
        let reply = caller.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{name}");
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"), "{name}");
        assert_eq!(received.lock().unwrap().join("|"), expected, "{name}");
    }
}

#[test]
fn trailers_of_http2_reach_a_caller_of_http1_who_asked() {
    let (address, _) = upstream();
    let proxy = proxy(address);
    for (asked, expected) in [("TE: trailers\r\n", "0\r\nx-sum: 1\r\n\r\n"), ("", "0\r\n\r\n")] {
        let mut caller = Connection::open(proxy.address("out"));
        caller.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}Connection: close\r\n\r\n"));
        let got = String::from_utf8(caller.rest()).unwrap();
        assert!(got.ends_with(&format!("\r\n\r\n5\r\nhello\r\n{expected}")), "{got:?}");
    }
    let left_out = proxy.metrics().sum("outrigger_dropped_total", &[("reason", "trailers")]);
    assert!((left_out - 1.0).abs() < 0.1, "{left_out}");
}

#[test]
fn an_answer_of_http2_cut_short_is_cut_short_in_http1() {
    let (address, _) = upstream();
    let proxy = proxy(address);
    for (path, reason) in [("/short", "upstream_protocol_error"), ("/reset", "upstream_reset")] {
        let mut caller = Connection::open(proxy.address("out"));
        caller.request("GET", path, &[], b"");
        let got = String::from_utf8(caller.rest()).unwrap();
        let (_head, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(!body.ends_with("0\r\n\r\n"), "{path}: {got:?}");
        assert!(body.len() < 10 || path == "/reset", "{path}: {got:?}");
        proxy.wait_metrics(reason, |metrics| {
            metrics.sum("outrigger_rejected_total", &[("reason", reason)]) > 0.5
        });
    }
    // The connection upstream lives.
    assert_eq!(http(proxy.address("out"), "GET", "/", &[], b"").text(), "hello");
}
