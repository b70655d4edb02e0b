//! A gRPC server at the level of frames: what it says of a call, and where it says it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;

use crate::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw};
use crate::support::Upstream;

/// A server that does with each call what `script` says to its number, counted from 0 over all connections.
pub fn server(script: impl Fn(&mut Raw, u32, usize) + Send + Sync + 'static) -> Upstream {
    let calls = Arc::new(AtomicUsize::new(0));
    Upstream::serve(move |_, stream| {
        let Some(mut raw) = Raw::accept(stream, None) else { return };
        while let Some(stream) = raw.request() {
            script(&mut raw, stream, calls.fetch_add(1, Ordering::Relaxed));
        }
    })
}

/// Literal fields without indexing (RFC 7541 §6.2.2).
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    list.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

pub fn end(raw: &mut Raw, stream: u32, status: &str, more: &[(&str, &str)]) {
    let payload = [fields(&[("grpc-status", status)]), fields(more)].concat();
    raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &payload);
}

pub const MESSAGE: &[u8] = b"\0\0\0\0\x02ok";

pub fn succeed(raw: &mut Raw, stream: u32) {
    raw.answer_head(stream);
    raw.send(DATA, 0, stream, MESSAGE);
    end(raw, stream, "0", &[]);
}

/// Trailers-only: the status stands in the head.
pub fn refuse(raw: &mut Raw, stream: u32, status: &str) {
    let payload = [vec![0x88], fields(&[("grpc-status", status)])].concat();
    raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &payload);
}

/// The status stands in trailers, with nothing before them but a head.
pub fn fail(raw: &mut Raw, stream: u32, status: &str, more: &[(&str, &str)]) {
    raw.answer_head(stream);
    end(raw, stream, status, more);
}

/// A unary call.
pub fn call() -> Request<()> {
    let request = Request::post("http://test/a.B/C").header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}
