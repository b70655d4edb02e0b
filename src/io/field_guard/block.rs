//! A field block in its frames: HEADERS, and the CONTINUATIONs that follow it (RFC 9113 §6.2, §6.10).

use std::borrow::Cow;

use crate::io::frames::{CONTINUATION, FrameHead, HEAD, HEADERS, STREAM};

/// The largest payload that a peer may send: our SETTINGS do not allow more (RFC 9113 §6.5.2).
pub(super) const FRAME: usize = 16_384;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The length of what PRIORITY stands for.
const PRIORITY_LENGTH: usize = 5;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A block, its frames so many bytes.
    Whole(usize),
    /// Part of one, whose first frame that is not whole begins there.
    Part(usize),
    /// None: something else comes before its end.
    Wrong,
    /// A frame that is larger than it may be.
    TooLarge,
}

/// Finds the end of the block that `bytes` begin with; up to `seen`, its frames are whole.
pub(super) fn find(bytes: &[u8], seen: usize) -> Found {
    let stream = FrameHead::parse(bytes).map(|first| first.stream);
    let mut at = seen;
    loop {
        let Some(head) = FrameHead::parse(&bytes[at..]) else { return Found::Part(at) };
        let belongs = at == 0 || head.kind == CONTINUATION && Some(head.stream) == stream;
        if !belongs {
            return Found::Wrong;
        }
        if head.length > FRAME {
            return Found::TooLarge;
        }
        let end = at + HEAD + head.length;
        if end > bytes.len() {
            return Found::Part(at);
        }
        if head.flags & END_HEADERS != 0 {
            return Found::Whole(end);
        }
        at = end;
    }
}

/// A block, taken out of its frames.
#[derive(Debug)]
pub(super) struct Block<'a> {
    head: FrameHead,
    /// Its stream is to wait for itself (RFC 7540 §5.3.1): the h2 crate would reset it, and not unpack the block.
    pub(super) depends_on_itself: bool,
    /// What HPACK made of the fields.
    pub(super) fields: Cow<'a, [u8]>,
}

impl<'a> Block<'a> {
    /// One without fields, with the head of `head`.
    pub(super) const fn empty(head: FrameHead) -> Self {
        Self { head, depends_on_itself: false, fields: Cow::Borrowed(&[]) }
    }

    /// That of `frames`, a whole block that begins with `head`. `None`: there is more padding than payload.
    pub(super) fn of(head: FrameHead, frames: &'a [u8]) -> Option<Self> {
        let (mut payload, mut more) = frames[HEAD..].split_at_checked(head.length)?;
        if head.flags & PADDED != 0 {
            let (padding, padded) = payload.split_first()?;
            payload = &padded[..padded.len().checked_sub(usize::from(*padding))?];
        }
        let priority = if head.flags & PRIORITY == 0 { 0 } else { PRIORITY_LENGTH };
        let (priority, first) = payload.split_at_checked(priority)?;
        let mut fields = Cow::Borrowed(first);
        while let Some(head) = FrameHead::parse(more) {
            let (payload, rest) = more[HEAD..].split_at_checked(head.length)?;
            fields.to_mut().extend(payload);
            more = rest;
        }
        let on = priority.first_chunk().map(|on| u32::from_be_bytes(*on) & STREAM);
        Some(Self { head, depends_on_itself: on == Some(head.stream), fields })
    }

    /// The same block with these fields, in as few frames as they take, and without a priority: nobody asks for it.
    pub(super) fn with(&self, fields: &[u8]) -> Vec<u8> {
        let mut frames = Vec::with_capacity(HEAD + fields.len());
        let (kind, flags) = (HEADERS, self.head.flags & END_STREAM);
        let mut head = FrameHead { kind, flags, ..self.head };
        let mut rest = fields;
        loop {
            let now;
            (now, rest) = rest.split_at(rest.len().min(FRAME));
            head.length = now.len();
            if rest.is_empty() {
                head.flags |= END_HEADERS;
            }
            frames.extend(head.bytes());
            frames.extend(now);
            if rest.is_empty() {
                return frames;
            }
            (head.kind, head.flags) = (CONTINUATION, 0);
        }
    }
}
