//! Keeps what is malformed in one HTTP/2 request from ending the connection.
//!
//! The h2 crate takes a name, a value or a method with a character that it must not have for an error of HPACK, which ends the
//! connection with all its streams; it is one of the stream only (RFC 9113 §8.1.1, §8.2.1). In a block of several frames, that crate
//! may also overlook or not survive what it does know to be malformed. So each field block is looked at as a whole before that crate
//! sees it: where something is wrong with its fields, another takes its place, which the crate answers by resetting the stream.
//!
//! From then on its HPACK table lacks what was in that block, and every later block of the connection is given to it spelled out.
//! A block is held back until it is whole; whatever else is read passes as it is.

mod block;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use super::frames::{self, FrameHead};
use super::hpack::{self, Fault, Order, Reader};
use block::{Block, Found};

/// What the h2 crate takes for malformed and answers with RST_STREAM: a field of HPACK's static table.
const MALFORMED: &[u8] = &[0x80 | hpack::TRANSFER_ENCODING];

/// What nobody can unpack: index 0 (RFC 7541 §6.1). The connection ends.
const BROKEN: &[u8] = &[0x80];

/// Stands between what a client sends and who reads it.
#[derive(Debug)]
pub struct FieldGuard {
    reader: Reader,
    /// Bytes of a head, unpacked, that the h2 crate accepts.
    limit: usize,
    /// Blocks are spelled out: the h2 crate's table is not the peer's any more.
    translates: bool,
    /// Bytes that pass before the next frame begins.
    skip: usize,
    /// What was read and not looked at, or is not whole: part of a frame's head, or of a block.
    held: BytesMut,
    /// Where in `held` the first frame begins that was not whole.
    seen: usize,
    /// What is to be read before anything else.
    ready: BytesMut,
    fault: Option<(u32, Fault)>,
}

/// How far what was read may pass.
#[derive(Debug, Default)]
struct Passed {
    /// So many bytes as they are,
    bytes: usize,
    /// and this
    instead: Vec<u8>,
    /// in the place of so many behind them.
    of: usize,
}

impl FieldGuard {
    /// For a client's connection from its preface on, where a head may have `limit` bytes.
    ///
    /// A block that takes more than that and one frame is not held. Where nothing was malformed before, the h2 crate is alone with it, and
    /// with all that follows; otherwise the connection ends.
    pub fn new(limit: usize) -> Self {
        Self {
            reader: Reader::new(),
            limit,
            translates: false,
            skip: frames::PREFACE,
            held: BytesMut::new(),
            seen: 0,
            ready: BytesMut::new(),
            fault: None,
        }
    }

    /// Whether something is held back, so that the next bytes belong behind it.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes `bytes` that nothing held back stands before: so many pass as they are, and the rest is taken.
    pub fn look_at(&mut self, bytes: &[u8]) -> usize {
        let passed = self.pass(bytes);
        if passed.bytes < bytes.len() {
            self.ready.extend_from_slice(&passed.instead);
            self.held.extend_from_slice(&bytes[passed.bytes + passed.of..]);
        }
        passed.bytes
    }

    /// Takes `bytes` that follow what is held back.
    pub fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Goes on with what is held back, by one block at most: what it becomes is to be read first. False: it takes more bytes.
    pub fn go_on(&mut self) -> bool {
        let mut held = std::mem::take(&mut self.held);
        let passed = self.pass(&held);
        self.ready.extend_from_slice(&held[..passed.bytes]);
        self.ready.extend_from_slice(&passed.instead);
        held.advance(passed.bytes + passed.of);
        if !held.is_empty() {
            self.held = held;
        }
        !self.ready.is_empty()
    }

    /// Puts what is to be read next into `buf`. False: there is nothing.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let now = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready[..now]);
        self.ready.advance(now);
        if self.ready.is_empty() {
            self.ready = BytesMut::new();
        }
        true
    }

    /// Which stream was malformed, and how, in what was looked at last.
    pub const fn take_fault(&mut self) -> Option<(u32, Fault)> {
        self.fault.take()
    }

    /// Goes over `bytes` up to what is not whole, or must not pass.
    fn pass(&mut self, bytes: &[u8]) -> Passed {
        let mut seen = std::mem::take(&mut self.seen);
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            let rest = &bytes[at..];
            let Some(head) = FrameHead::parse(rest) else {
                return Passed { bytes: at, ..Passed::default() };
            };
            let most = self.limit + block::FRAME;
            let (of, instead) = match head.kind {
                frames::HEADERS => match block::find(rest, std::mem::take(&mut seen)) {
                    Found::Whole(length) if length <= most => {
                        (length, self.judge(head, &rest[..length]))
                    }
                    Found::Part(seen) if rest.len() <= most => {
                        self.seen = seen;
                        return Passed { bytes: at, ..Passed::default() };
                    }
                    Found::Wrong => (0, Some(self.end(head))),
                    _ => (0, self.stand_aside(head)),
                },
                // Only servers push, and what a client would is not looked at (RFC 9113 §8.4).
                frames::PUSH_PROMISE => (0, Some(self.end(head))),
                _ => {
                    self.skip = frames::HEAD + head.length;
                    continue;
                }
            };
            match instead {
                Some(instead) => return Passed { bytes: at, instead, of },
                None => at += of,
            }
        }
    }

    /// What is to be read in the place of `frames`, which are one block and begin with `head`, if not they.
    fn judge(&mut self, head: FrameHead, frames: &[u8]) -> Option<Vec<u8>> {
        let Some(block) = Block::of(head, frames) else { return Some(self.end(head)) };
        let mut order = Order::default();
        let mut fault = block.depends_on_itself.then_some("a stream that depends on itself");
        let (limit, mut size, mut spelled) = (self.limit, 0, Vec::new());
        let read = self.reader.read(&block.fields, |field| {
            fault = fault.or(field.fault).or_else(|| order.next(field.name));
            // One field beyond the limit is enough: the h2 crate answers the rest of such a head with 431.
            if self.translates && fault.is_none() && size <= limit {
                let before = size;
                size += field.name.len() + field.value.len() + hpack::OVERHEAD;
                match field.index {
                    Some(index) => spelled.push(0x80 | index),
                    None if size <= limit => hpack::spell(field.name, field.value, &mut spelled),
                    None => hpack::spell(b"x", &vec![b'x'; limit - before], &mut spelled),
                }
            }
        });
        if read.is_err() {
            return Some(self.end(head));
        }
        if let Some(fault) = fault {
            self.fault = Some((head.stream, fault));
            self.translates = true;
            return Some(block.with(MALFORMED));
        }
        self.translates.then(|| block.with(&spelled))
    }

    /// Lets pass from here on, for a block that is too large: the h2 crate answers it with 431, or ends the connection. Once its table
    /// is not the peer's, that is no use: the connection ends.
    fn stand_aside(&mut self, head: FrameHead) -> Option<Vec<u8>> {
        self.skip = usize::MAX;
        self.translates.then(|| self.end(head))
    }

    /// What ends the connection. Whatever follows makes no difference.
    fn end(&mut self, head: FrameHead) -> Vec<u8> {
        self.skip = usize::MAX;
        Block::empty(head).with(BROKEN)
    }
}

#[cfg(test)]
mod tests;
