//! Walks over the frames of an HTTP/2 connection: nine bytes of head each, and into no payload but the code of RST_STREAM.
//!
//! Pure: it is fed with what was read or written, in any pieces, and keeps thirteen bytes. No bytes are wrong for it: what is no HTTP/2
//! is frames of some length, and the h2 crate is who refuses it.

/// Length (3), type (1), flags (1), stream (4): RFC 9113 §4.1.
pub const HEAD: usize = 9;

/// The type of the frame that a field block begins in (RFC 9113 §6.2).
pub const HEADERS: u8 = 1;
/// That of those that it goes on in (RFC 9113 §6.10).
pub const CONTINUATION: u8 = 9;

/// The payload of RST_STREAM (RFC 9113 §6.4).
const CODE: usize = 4;

/// That of the frame that only servers send (RFC 9113 §6.6).
pub const PUSH_PROMISE: u8 = 5;

/// The bits of a stream's number; the one before them is reserved.
pub const STREAM: u32 = u32::MAX >> 1;

/// What a client sends before its first frame.
pub const PREFACE: usize = 24;

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy)]
pub struct FrameHead {
    /// Bytes of the payload, below 2^24.
    pub length: usize,
    /// The frame's type.
    pub kind: u8,
    /// What they mean depends on the type.
    pub flags: u8,
    /// The stream's number.
    pub stream: u32,
}

impl FrameHead {
    /// That of the frame that `bytes` begin with. `None`: it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self::of)
    }

    fn of([high, middle, low, kind, flags, stream @ ..]: [u8; HEAD]) -> Self {
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & STREAM }
    }

    /// As it is sent.
    pub fn bytes(self) -> [u8; HEAD] {
        let [.., high, middle, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }
}

/// A frame's type (RFC 9113 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// HEADERS: a request, or trailers.
    Headers,
    /// DATA, CONTINUATION, WINDOW_UPDATE: they come with what is transferred.
    Transfer,
    /// RST_STREAM.
    Reset {
        /// The stream's number.
        stream: u32,
        /// Why (RFC 9113 §7).
        code: u32,
    },
    /// Everything else, and a RST_STREAM that is too short for a code.
    Control,
}

/// Where in the stream of frames a reader or writer is.
#[derive(Debug)]
pub struct Frames {
    /// Bytes to pass over before the next frame's head.
    skip: usize,
    head: [u8; HEAD + CODE],
    filled: usize,
}

impl Frames {
    /// A server's: they begin with the connection.
    pub const fn of_server() -> Self {
        Self { skip: 0, head: [0; HEAD + CODE], filled: 0 }
    }

    /// A client's: its preface comes first.
    pub const fn of_client() -> Self {
        Self { skip: PREFACE, head: [0; HEAD + CODE], filled: 0 }
    }

    /// Tells `judge` of each frame whose head (of RST_STREAM: whose code) ends in `bytes`. False as soon as it says so: the walk is over.
    pub fn see(&mut self, mut bytes: &[u8], mut judge: impl FnMut(FrameKind) -> bool) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.wanted() - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled >= HEAD && self.filled == self.wanted() {
                self.skip = self.frame().length - (self.filled - HEAD);
                self.filled = 0;
                if !judge(self.kind()) {
                    return false;
                }
            }
        }
        true
    }

    /// Bytes of the frame that are looked at.
    fn wanted(&self) -> usize {
        let has_code = self.filled >= HEAD && self.is_reset();
        if has_code { HEAD + CODE } else { HEAD }
    }

    fn is_reset(&self) -> bool {
        let frame = self.frame();
        frame.kind == 3 && frame.length >= CODE
    }

    fn frame(&self) -> FrameHead {
        let [head @ .., _, _, _, _] = self.head;
        FrameHead::of(head)
    }

    fn kind(&self) -> FrameKind {
        let [.., a, b, c, d] = self.head;
        let FrameHead { kind, stream, .. } = self.frame();
        match kind {
            HEADERS => FrameKind::Headers,
            0 | 8 | CONTINUATION => FrameKind::Transfer,
            _ if self.is_reset() => {
                FrameKind::Reset { stream, code: u32::from_be_bytes([a, b, c, d]) }
            }
            _ => FrameKind::Control,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    /// Frames of each kind, and what could be taken for one: a reset as data, and resets that are too short and too long.
    fn stream() -> Vec<u8> {
        let reset = frame(3, &[0, 0, 0, 1]);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        [
            preface,
            frame(4, &[]),
            frame(1, b"x"),
            frame(0, &reset),
            reset,
            frame(8, &[0; 4]),
            frame(3, &[]),
            frame(3, &[0, 0, 0, 8, 3, 3, 3]),
            frame(0xfa, b"?"),
        ]
        .concat()
    }

    fn kinds<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<FrameKind> {
        let (mut found, mut frames) = (Vec::new(), Frames::of_client());
        for piece in pieces {
            frames.see(piece, |kind| {
                found.push(kind);
                true
            });
        }
        found
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        use FrameKind::{Control, Headers, Transfer};
        let reset = |code| FrameKind::Reset { stream: 1, code };
        for size in 1..=stream().len() {
            assert_eq!(
                kinds(stream().chunks(size)),
                [Control, Headers, Transfer, reset(1), Transfer, Control, reset(8), Control],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn any_bytes_are_the_same_frames_in_any_pieces() {
        let mut rng = Rng::from_seed(17);
        for _ in 0..5_000 {
            let mut bytes = stream();
            for _ in 0..=rng.below(6) {
                let at = rng.below(bytes.len());
                match rng.below(3) {
                    0 => bytes[at] = rng.bits().to_le_bytes()[0],
                    1 => bytes.insert(at, [0, 3, 4, 9][rng.below(4)]),
                    _ => drop(bytes.remove(at)),
                }
            }
            let size = 1 + rng.below(20);
            assert_eq!(kinds(bytes.chunks(size)), kinds(std::iter::once(&bytes[..])), "{bytes:?}");
        }
    }
}
