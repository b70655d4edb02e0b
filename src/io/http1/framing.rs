//! What a head says of the message behind it: where its body ends, and whether the connection goes on (RFC 9112 §6.3, §9.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Version};

/// Bytes of a response's head; more is an error of the upstream. The same as for requests by default.
pub const MAX_HEAD: usize = 64 * 1024;

/// Fields of a response's head, and of trailers. The same as for requests by default.
pub const MAX_FIELDS: usize = 100;

/// What is not HTTP, or could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<httparse::Error> for Malformed {
    fn from(error: httparse::Error) -> Self {
        Self(match error {
            httparse::Error::HeaderName => "a field's name is not one",
            httparse::Error::HeaderValue => "a field's value is not one",
            httparse::Error::NewLine => "a line does not end as it must",
            httparse::Error::Status => "the status line is not one",
            httparse::Error::Token => "a byte that may not stand in a head",
            httparse::Error::TooManyHeaders => "the head has too many fields",
            httparse::Error::Version => "this is not HTTP/1",
        })
    }
}

/// Where the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, whatever the head says: answers to HEAD, 1xx, 204, 304; requests that say nothing.
    None,
    /// After this many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection: answers that say nothing.
    UntilClose,
}

/// What is remembered between two looks at a head that is not complete.
#[derive(Debug, Default)]
pub struct Scan {
    /// Bytes that were looked at in vain.
    seen: usize,
}

impl Scan {
    /// Whether another look is worth its while: a head that comes byte by byte must not be parsed at every byte.
    pub fn may_be_complete(&mut self, bytes: &[u8]) -> bool {
        if self.seen == 0 {
            return true;
        }
        let start = self.seen.saturating_sub(3);
        self.seen = bytes.len();
        let new = &bytes[start.min(bytes.len())..];
        new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
    }

    /// The head is not complete.
    pub fn in_vain(&mut self, bytes: &[u8]) {
        self.seen = bytes.len();
    }
}

/// What the fields say about the message and the connection.
#[derive(Debug)]
pub struct Said {
    /// The message's version.
    pub version: Version,
    /// `Content-Length`s.
    pub lengths: u32,
    /// The last of them, where it is a number.
    pub length: Option<u64>,
    /// True where two of them differ, or one is no number.
    pub contradicts: bool,
    /// `Transfer-Encoding`s.
    pub codings: u32,
    /// The last of them is `chunked` alone.
    pub chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    /// Of a message of which no field was looked at.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            lengths: 0,
            length: None,
            contradicts: false,
            codings: 0,
            chunked: false,
            close: false,
            keep_alive: version == Version::HTTP_11,
        }
    }

    /// Looks at a field.
    pub fn note(&mut self, name: &HeaderName, value: &[u8]) {
        if *name == CONTENT_LENGTH {
            let length = digits(value);
            self.contradicts |= length.is_none() || self.lengths > 0 && length != self.length;
            self.lengths += 1;
            self.length = length;
        } else if *name == TRANSFER_ENCODING {
            self.codings += 1;
            self.chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if *name == CONNECTION {
            // Once any line asks to close, a later `keep-alive` does not undo it.
            self.close |= names(value, b"close");
            self.keep_alive = !self.close && (self.keep_alive || names(value, b"keep-alive"));
        }
    }

    /// Whether the connection may carry another message.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }
}

/// True when a list has a token.
pub fn names(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// A number of digits alone: no sign, no list, no space, and none that does not fit.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
