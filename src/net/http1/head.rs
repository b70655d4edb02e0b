//! A response's head: from bytes to fields, and how its body is framed (RFC 9112 §6.3). Pure.
//!
//! Whatever two readers could understand differently is refused: what we took for the end of a body would be the
//! beginning of the next caller's answer. Values stay slices of what was read; nothing is copied.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

/// Bytes of a response's head; more is an error of the upstream. The same as for requests.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Fields of a response's head, and of its trailers. The same as for requests.
pub(super) const MAX_FIELDS: usize = 100;

/// What is not HTTP, or could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Where the body of a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the head says: HEAD, 1xx, 204, 304.
    None,
    /// After this many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// A response's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Where it is not the usual one.
    pub(super) reason: Option<ReasonPhrase>,
    pub(super) framing: Framing,
    /// The connection may carry another request.
    pub(super) keep_alive: bool,
}

/// What is remembered between two looks at a head that is not complete.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes that were looked at in vain.
    seen: usize,
}

impl Scan {
    /// Whether another look is worth its while: a head that comes byte by byte must not be parsed at every byte.
    fn may_be_complete(&mut self, bytes: &[u8]) -> bool {
        if self.seen == 0 {
            return true;
        }
        let start = self.seen.saturating_sub(3);
        self.seen = bytes.len();
        let new = &bytes[start.min(bytes.len())..];
        new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
    }
}

/// Takes a head off the front of `unread`; `None`: more is needed. `headers` is an empty map to be filled; `head_only`: the
/// request was HEAD.
///
/// # Errors
/// [`Malformed`].
pub(super) fn parse(
    unread: &mut Bytes,
    scan: &mut Scan,
    head_only: bool,
    headers: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    if !scan.may_be_complete(unread) {
        return incomplete(unread, scan);
    }
    let complete = ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, unread, &mut fields)
        .map_err(|error| Malformed(what(error)))?;
    let Status::Complete(length) = complete else { return incomplete(unread, scan) };
    if length > MAX_HEAD {
        return Err(Malformed("the head is too large"));
    }
    let code = parsed.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| Malformed("the status is not one"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = parsed
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        .and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let mut said = Said::new(version);
    headers.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Malformed("a field's name is not one"))?;
        said.note(&name, field.value);
        let value = HeaderValue::from_maybe_shared(unread.slice_ref(field.value))
            .map_err(|_| Malformed("a field's value is not one"))?;
        headers.append(name, value);
    }
    let framing = said.framing(status, head_only)?;
    let keep_alive = said.keep_alive && framing != Framing::UntilClose;
    unread.advance(length);
    let headers = std::mem::take(headers);
    Ok(Some(Head { status, version, headers, reason, framing, keep_alive }))
}

fn incomplete(unread: &[u8], scan: &mut Scan) -> Result<Option<Head>, Malformed> {
    scan.seen = unread.len();
    if unread.len() > MAX_HEAD { Err(Malformed("the head is too large")) } else { Ok(None) }
}

fn what(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field's name is not one",
        httparse::Error::HeaderValue => "a field's value is not one",
        httparse::Error::NewLine => "a line does not end as it must",
        httparse::Error::Status => "the status line is not one",
        httparse::Error::Token => "a byte that may not stand in a head",
        httparse::Error::TooManyHeaders => "the head has too many fields",
        httparse::Error::Version => "this is not HTTP/1",
    }
}

/// What the fields say about the message and the connection.
struct Said {
    version: Version,
    lengths: u32,
    length: Option<u64>,
    codings: u32,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    fn new(version: Version) -> Self {
        Self {
            version,
            lengths: 0,
            length: None,
            codings: 0,
            chunked: false,
            close: false,
            keep_alive: version == Version::HTTP_11,
        }
    }

    fn note(&mut self, name: &HeaderName, value: &[u8]) {
        if *name == CONTENT_LENGTH {
            self.lengths += 1;
            self.length = digits(value);
        } else if *name == TRANSFER_ENCODING {
            self.codings += 1;
            self.chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if *name == CONNECTION {
            let names = |word: &[u8]| {
                value
                    .split(|&byte| byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
            };
            // Once any line asks to close, a later `keep-alive` does not undo it.
            self.close |= names(b"close");
            self.keep_alive = !self.close && (self.keep_alive || names(b"keep-alive"));
        }
    }

    fn framing(&self, status: StatusCode, head_only: bool) -> Result<Framing, Malformed> {
        if head_only
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Ok(Framing::None);
        }
        match (self.codings, self.lengths) {
            (0, 0) => Ok(Framing::UntilClose),
            (0, 1) => match self.length {
                Some(length) => Ok(Framing::Length(length)),
                None => Err(Malformed("Content-Length is not one number")),
            },
            (0, _) => Err(Malformed("Content-Length is not one number")),
            (_, 1..) => Err(Malformed("both Content-Length and Transfer-Encoding")),
            (1, 0) if self.chunked && self.version == Version::HTTP_11 => Ok(Framing::Chunked),
            (1, 0) if self.chunked => Err(Malformed("a Transfer-Encoding with HTTP/1.0")),
            _ => Err(Malformed("a Transfer-Encoding other than one `chunked`")),
        }
    }
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

#[cfg(test)]
mod tests;
