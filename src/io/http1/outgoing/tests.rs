use super::super::encode::Trailers;
use super::*;
use crate::base::rng::Rng;
use crate::io::body_error::BodyError;
use http::{HeaderMap, HeaderValue};
use std::collections::VecDeque;
use std::task::Waker;
use tokio::io::AsyncWrite;

/// A body in pieces; "wait" is none yet.
struct Pieces {
    pieces: VecDeque<Result<Frame<Bytes>, BodyError>>,
    waits: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waits = !self.waits;
        if self.waits { Poll::Pending } else { Poll::Ready(self.pieces.pop_front()) }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl Splice for Pieces {
    type Error = BodyError;
}

impl SpliceTo for Narrow {}

fn body(pieces: &[&'static str]) -> Pieces {
    let data = |piece: &&'static str| Ok(Frame::data(Bytes::from_static(piece.as_bytes())));
    Pieces { pieces: pieces.iter().map(data).collect(), waits: false }
}

/// Takes a few bytes at a time, and often none.
struct Narrow(Vec<u8>, Rng);

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = self.1.below(5);
        if room == 0 {
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        self.0.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = self.1.below(40);
        let before = self.0.len();
        for part in parts {
            let taken = room.min(part.len());
            self.0.extend_from_slice(&part[..taken]);
            room -= taken;
        }
        match self.0.len() - before {
            0 => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const HEAD: &str = "POST / HTTP/1.1\r\n\r\n";

const CHUNKED: Encoding = Encoding::Chunked(Trailers::Any);

fn sent(encoding: Encoding, body: Pieces, seed: u64) -> (String, Outgoing<Pieces>) {
    let mut outgoing = Outgoing::new(HEAD.into(), Some(body), encoding);
    let mut socket = Narrow(Vec::new(), Rng::from_seed(seed));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(!outgoing.has_begun());
    for _ in 0..10_000 {
        if outgoing.poll(&mut cx, &mut socket).is_ready() {
            break;
        }
        assert_eq!(outgoing.has_begun(), !socket.0.is_empty());
    }
    assert!(!outgoing.is_open());
    (String::from_utf8(socket.0).unwrap(), outgoing)
}

#[test]
fn a_request_goes_out_whole_however_little_the_socket_takes() {
    for seed in 0..200 {
        let (text, outgoing) = sent(Encoding::Length(11), body(&["hello", "", " ", "world"]), seed);
        assert_eq!(text, format!("{HEAD}hello world"));
        assert!(outgoing.is_complete());
        let (text, outgoing) = sent(CHUNKED, body(&["hello", "", " world"]), seed);
        let chunks = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        assert_eq!(text, format!("{HEAD}{chunks}"));
        assert!(outgoing.is_complete());
    }
}

#[test]
fn trailers_end_a_body() {
    let mut with_trailers = body(&["hello"]);
    let trailers: HeaderMap =
        [(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]
            .into_iter()
            .collect();
    with_trailers.pieces.push_back(Ok(Frame::trailers(trailers)));
    let (text, _) = sent(CHUNKED, with_trailers, 1);
    assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"), "{text}");
}

#[test]
fn an_empty_last_piece_is_no_chunk() {
    let (text, outgoing) = sent(CHUNKED, body(&["hello", ""]), 1);
    assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
    assert!(outgoing.is_complete());
}

#[test]
fn a_body_that_breaks_off_or_has_another_length_never_looks_whole() {
    let mut broken = body(&["hello"]);
    broken.pieces.push_back(Err(BodyError::ClientGone));
    let (text, outgoing) = sent(CHUNKED, broken, 1);
    assert!(format!("{HEAD}5\r\nhello\r\n").starts_with(&text), "{text}");
    assert!(outgoing.body_failed());
    for pieces in [&["hello"][..], &["hello", "world"]] {
        let (text, outgoing) = sent(Encoding::Length(7), body(pieces), 1);
        assert!(format!("{HEAD}hello").starts_with(&text), "{text}");
        assert!(outgoing.body_failed());
    }
}
