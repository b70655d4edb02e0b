//! What the h2 crate makes of any bytes, with the guard before it and without: for seeded tests and fuzz targets alike.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::block::Block;
use crate::io::frame_watch::{FrameKind, FrameWatch, Judge};
use crate::io::frames::{FrameHead, HEAD, HEADERS};

/// Bytes that a head may have.
pub(super) const LIMIT: usize = 65_536;

/// What became of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Streams and what was asked on them, in the order in which they were accepted.
    pub(super) requests: Vec<(u32, String)>,
    /// Streams that were reset, and why.
    pub(super) resets: Vec<(u32, u32)>,
    /// Why the connection was ended, where it was.
    pub(super) ended: Option<u32>,
    /// How many requests the guard has found malformed.
    pub(super) faults: usize,
}

/// Whatever a client sends behind its preface: how it is cut makes no difference; with the guard nothing is accepted that is not
/// accepted without; and where the guard finds no fault, all that is. The first byte says in what pieces it comes.
pub fn fields(bytes: &[u8]) {
    let Some((&size, frames)) = bytes.split_first() else { return };
    let sent = [PREFACE, SETTINGS, frames].concat();
    let bare = served(pieces(&sent, sent.len()), false);
    let whole = served(pieces(&sent, sent.len()), true);
    let guarded = served(pieces(&sent, usize::from(size).max(1)), true);
    assert_eq!(whole.requests, guarded.requests);
    assert_eq!(whole.ended.is_some(), guarded.ended.is_some());
    assert!(whole.faults == guarded.faults || whole.ended.is_some());
    // That takes no more than three bytes of a frame that is too large, which the guard still holds.
    if bare.ended.is_some() || has_one_that_depends_on_itself(frames) {
        return;
    }
    assert!(whole.requests.iter().all(|it| bare.requests.contains(it)), "{bare:?}\n{whole:?}");
    if whole.faults == 0 && whole.ended.is_none() {
        assert_eq!(bare.requests, whole.requests);
    }
}

/// Whether a stream depends on itself: the h2 crate does not unpack its block, and takes those that follow for others than they are.
fn has_one_that_depends_on_itself(mut frames: &[u8]) -> bool {
    while let Some(head) = FrameHead::parse(frames) {
        let Some((frame, rest)) = frames.split_at_checked(HEAD + head.length) else { break };
        if head.kind == HEADERS
            && Block::of(head, frame).is_some_and(|block| block.depends_on_itself)
        {
            return true;
        }
        frames = rest;
    }
    false
}

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Without any setting.
pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn pieces(bytes: &[u8], size: usize) -> VecDeque<Vec<u8>> {
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

/// Serves a connection that sends `pieces` and then is silent, each read of one piece at most, and answers nothing.
pub(super) fn served(pieces: VecDeque<Vec<u8>>, guarded: bool) -> Served {
    let mut served = Served::default();
    let mut wire = Wire { pieces, written: Vec::new() };
    let faults = &mut served.faults;
    let requests = &mut served.requests;
    if guarded {
        accept(FrameWatch::new(&mut wire, Faults(faults), LIMIT), requests);
    } else {
        accept(&mut wire, requests);
    }
    let mut frames = &wire.written[..];
    while let Some(head) = FrameHead::parse(frames) {
        let (frame, rest) = frames.split_at(HEAD + head.length);
        let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|byte| frame[at + byte]));
        match head.kind {
            3 => served.resets.push((head.stream, number(9))),
            7 => served.ended = Some(number(13)),
            _ => {}
        }
        frames = rest;
    }
    served
}

fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S, requests: &mut Vec<(u32, String)>) {
    let mut cx = Context::from_waker(Waker::noop());
    let limit = u32::try_from(LIMIT).unwrap_or(u32::MAX);
    let handshake = h2::server::Builder::new().max_header_list_size(limit).handshake(io);
    let Poll::Ready(Ok(mut connection)) = pin!(handshake).poll(&mut cx) else { return };
    // What is dropped would be reset.
    let mut kept: Vec<h2::server::SendResponse<Bytes>> = Vec::new();
    while let Poll::Ready(Some(Ok((request, respond)))) = connection.poll_accept(&mut cx) {
        let (parts, body) = request.into_parts();
        let fields: Vec<_> = parts.headers.iter().collect();
        let text = format!("{} {} {fields:?}", parts.method, parts.uri);
        requests.push((body.stream_id().into(), text));
        kept.push(respond);
    }
}

struct Faults<'a>(&'a mut usize);

impl Judge for Faults<'_> {
    fn allows(&mut self, _: FrameKind) -> bool {
        true
    }

    fn malformed(&mut self, _: u32, _: &'static str) {
        *self.0 += 1;
    }
}

/// A client's end.
struct Wire {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(piece) = self.pieces.front_mut() else { return Poll::Pending };
        let now = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..now]);
        piece.drain(..now);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
