//! Keeps what is malformed in one HTTP/2 request from ending the connection.
//!
//! The h2 crate takes a name, a value or a method with a character that it must not have for an error of HPACK, which ends the
//! connection with all its streams; it is one of the stream only (RFC 9113 §8.1.1, §8.2.1). So each field block is looked at before
//! that crate sees it: where such a field stands in it, another block takes its place, which the crate answers by resetting the stream.
//!
//! From then on its HPACK table lacks what was in that block, and every later block of the connection is given to it spelled out.
//! A block is held back until it is whole; whatever else is read passes as it is.

mod block;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;
mod rules;

use std::borrow::Cow;

use tokio::io::ReadBuf;

use super::frames::{self, FrameHead};
use super::hpack::{self, Field, Reader};
use block::{Block, Found};

/// What the h2 crate takes for malformed and answers with RST_STREAM: `transfer-encoding`, of HPACK's static table.
const MALFORMED: &[u8] = &[0x80 | 57];

/// What nobody can unpack: index 0 (RFC 7541 §6.1).
const BROKEN: &[u8] = &[0x80];

/// How many times the allowed size of a head may be unpacked before the h2 crate ends the connection.
const ABUSE: usize = 4;

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
    /// What was read and is not whole: part of a frame's head, or of a block.
    held: Vec<u8>,
    /// Where in `held` the first frame begins that was not whole.
    seen: usize,
    /// What is to be read before anything else, and how much of it was.
    ready: (Vec<u8>, usize),
    fault: Option<&'static str>,
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
    /// A block of much more is refused by the h2 crate unseen, and what is malformed behind it ends the connection.
    pub const fn new(limit: usize) -> Self {
        Self {
            reader: Reader::new(),
            limit,
            translates: false,
            skip: frames::PREFACE,
            held: Vec::new(),
            seen: 0,
            ready: (Vec::new(), 0),
            fault: None,
        }
    }

    /// Whether something is held back, so that the next bytes belong behind it.
    pub const fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes `bytes` that nothing held back stands before: so many pass as they are, and the rest is taken.
    pub fn look_at(&mut self, bytes: &[u8]) -> usize {
        let passed = self.pass(bytes);
        if passed.bytes == bytes.len() {
            return passed.bytes;
        }
        self.ready.0.extend(passed.instead);
        self.take(&bytes[passed.bytes + passed.of..]);
        passed.bytes
    }

    /// Takes `bytes` that follow what is held back.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut held = std::mem::take(&mut self.held);
        held.extend(bytes);
        let mut rest = &held[..];
        while !rest.is_empty() {
            let passed = self.pass(rest);
            self.ready.0.extend(&rest[..passed.bytes]);
            self.ready.0.extend(&passed.instead);
            rest = &rest[passed.bytes + passed.of..];
            if passed.instead.is_empty() {
                break;
            }
        }
        let gone = held.len() - rest.len();
        held.drain(..gone);
        self.held = held;
    }

    /// Nothing follows what is held back: it passes as it is.
    pub fn end(&mut self) {
        self.ready.0.append(&mut self.held);
    }

    /// Puts what is to be read next into `buf`. False: there is nothing.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let (ready, given) = &mut self.ready;
        let rest = &ready[*given..];
        if rest.is_empty() {
            return false;
        }
        let now = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..now]);
        *given += now;
        if *given == ready.len() {
            self.ready = (Vec::new(), 0);
        }
        true
    }

    /// What was malformed in the last request that was.
    pub const fn take_fault(&mut self) -> Option<&'static str> {
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
            if head.kind != frames::HEADERS {
                self.skip = frames::HEAD + head.length;
                continue;
            }
            let (length, instead) = match block::find(rest, std::mem::take(&mut seen)) {
                Found::Whole(length) => (length, self.judge(&rest[..length])),
                Found::Part(seen) if rest.len() <= self.limit + block::FRAME => {
                    self.seen = seen;
                    return Passed { bytes: at, ..Passed::default() };
                }
                Found::Part(_) | Found::Wrong => (0, self.stand_aside(head)),
            };
            match instead {
                Some(instead) => return Passed { bytes: at, instead, of: length },
                None => at += length,
            }
        }
    }

    /// What is to be read in the place of `frames`, which are one block, if not they.
    fn judge(&mut self, frames: &[u8]) -> Option<Vec<u8>> {
        let (head, block) = (FrameHead::parse(frames)?, Block::of(frames));
        let Some(block) = block else { return self.stand_aside(head) };
        let (translates, most) = (self.translates, self.limit.saturating_mul(ABUSE));
        let mut fault = block.depends_on_itself().then_some("a stream that depends on itself");
        let (mut spelled, mut size) = (Vec::new(), 0);
        let read = self.reader.read(&block.fields, |field| {
            let (name, value) = match field {
                Field::Static(index) if translates => return spelled.push(0x80 | index),
                Field::Again(name, value) if translates => (name, value),
                Field::New(name, value) => (name, value),
                Field::Static(_) | Field::Again(..) => return,
            };
            fault = fault.or_else(|| rules::fault(name, value));
            if translates && size <= most {
                size += name.len() + value.len() + hpack::OVERHEAD;
                hpack::spell(name, value, &mut spelled);
            }
        });
        if read.is_err() {
            return Some(block.with(BROKEN));
        }
        if fault.is_some() {
            self.fault = fault;
            self.translates = true;
            return Some(block.with(MALFORMED));
        }
        match &block.fields {
            _ if translates => Some(block.with(&spelled)),
            // In one piece, what the h2 crate finds malformed itself does not end the connection either.
            Cow::Owned(fields) if fields.len() <= block::FRAME => Some(block.with(fields)),
            _ => None,
        }
    }

    /// Lets pass from here on what the h2 crate ends the connection for, or would not hold either. Once its table is not the peer's,
    /// that is no use: then it gets what ends the connection.
    fn stand_aside(&mut self, head: FrameHead) -> Option<Vec<u8>> {
        self.skip = usize::MAX;
        self.translates.then(|| Block::empty(head).with(BROKEN))
    }
}

#[cfg(test)]
mod tests;
