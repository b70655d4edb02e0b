//! A request's head and the framing of its body, written in one form. Pure.

use std::io::Write as _;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};
use http_body::SizeHint;

use crate::net::RequestHead;

/// What may not stand in trailers, announced or not (RFC 9110 §6.5.1).
const NOT_TRAILERS: [HeaderName; 13] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Behind a chunk; behind the last one that holds something.
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK_END: &[u8] = b"\r\n0\r\n\r\n";

/// How a request's body is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// So many bytes are still owed; 0 where there is no body.
    Length(u64),
    /// In chunks, and the trailers that the head has announced.
    Chunked(Vec<HeaderName>),
}

/// The body is not as long as the head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongLength;

/// Writes a head, and says how the body is to be framed. `body`: its size, where there is one. What the head says of the
/// framing holds, chunks before a length; where it says nothing, the size decides.
pub(super) fn head(out: &mut Vec<u8>, head: &RequestHead<'_>, body: Option<&SizeHint>) -> Encoding {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.target.path_and_query().map_or("", |target| target.as_str());
    if target.is_empty() || target.starts_with('?') {
        // The absolute form may leave it out, this one may not.
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let chunked = body.is_some() && head.fields.contains_key(TRANSFER_ENCODING);
    let mut length = None;
    for (name, value) in head.all_fields() {
        if *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONTENT_LENGTH {
            if chunked {
                continue;
            }
            length = value.to_str().ok().and_then(|length| length.parse().ok());
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let encoding = match (body, length) {
        (None, _) => Encoding::Length(0),
        (Some(_), Some(length)) => Encoding::Length(length),
        (Some(size), None) => match size.exact().filter(|_| !chunked) {
            Some(length) => {
                let _infallible = write!(out, "content-length: {length}\r\n");
                Encoding::Length(length)
            }
            None => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Encoding::Chunked(announced(head.fields))
            }
        },
    };
    out.extend_from_slice(b"\r\n");
    encoding
}

fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(TRAILER).into_iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect()
}

impl Encoding {
    /// Frames a piece of `length` bytes, not 0: writes what stands before it and returns what stands behind.
    ///
    /// # Errors
    /// [`WrongLength`].
    pub(super) fn piece(
        &mut self,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<&'static [u8], WrongLength> {
        match self {
            Self::Length(owed) => {
                *owed = owed.checked_sub(length as u64).ok_or(WrongLength)?;
                Ok(b"")
            }
            Self::Chunked(_) => {
                let _infallible = write!(out, "{length:X}\r\n");
                Ok(CHUNK_END)
            }
        }
    }

    /// Frames the end. `behind`: the last piece's own end, which has not been written and becomes the body's.
    ///
    /// # Errors
    /// [`WrongLength`].
    pub(super) fn end(
        &mut self,
        behind: &mut &'static [u8],
        trailers: Option<&HeaderMap>,
        out: &mut Vec<u8>,
    ) -> Result<(), WrongLength> {
        match self {
            Self::Length(0) => Ok(()),
            Self::Length(_) => Err(WrongLength),
            Self::Chunked(_) if !behind.is_empty() => {
                *behind = LAST_CHUNK_END;
                Ok(())
            }
            Self::Chunked(announced) => {
                let fields = trailers
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| announced.contains(name) && !NOT_TRAILERS.contains(name));
                out.extend_from_slice(b"0\r\n");
                for (name, value) in fields {
                    out.extend_from_slice(name.as_str().as_bytes());
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
