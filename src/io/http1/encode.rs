//! The framing of a body that is written: a length, chunks, or the end of the connection. Pure.

use std::io::Write as _;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

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
pub enum Encoding {
    /// So many bytes are still owed; 0 where there is no body.
    Length(u64),
    /// In chunks, and the trailers that the peer takes.
    Chunked(Trailers),
    /// With the end of the connection: HTTP/1.0 knows no chunks.
    UntilClose,
}

/// Which trailers a peer takes.
#[derive(Debug, PartialEq, Eq)]
pub enum Trailers {
    /// Those that the head has announced.
    Announced(Vec<HeaderName>),
    /// All that may be trailers.
    Any,
}

impl Trailers {
    fn take(&self, name: &HeaderName) -> bool {
        let wanted = match self {
            Self::Announced(names) => names.contains(name),
            Self::Any => true,
        };
        wanted && !NOT_TRAILERS.contains(name)
    }
}

/// The body is not as long as the head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLength;

/// Writes a field.
pub fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Encoding {
    /// Frames a piece of `length` bytes, not 0: writes what stands before it and returns what stands behind.
    ///
    /// # Errors
    /// [`WrongLength`].
    pub fn piece(
        &mut self,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<&'static [u8], WrongLength> {
        match self {
            Self::Length(owed) => {
                *owed = owed.checked_sub(length as u64).ok_or(WrongLength)?;
                Ok(b"")
            }
            Self::UntilClose => Ok(b""),
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
    pub fn end(
        &mut self,
        behind: &mut &'static [u8],
        trailers: Option<&HeaderMap>,
        out: &mut Vec<u8>,
    ) -> Result<(), WrongLength> {
        match self {
            Self::Length(0) | Self::UntilClose => Ok(()),
            Self::Length(_) => Err(WrongLength),
            Self::Chunked(_) if !behind.is_empty() => {
                *behind = LAST_CHUNK_END;
                Ok(())
            }
            Self::Chunked(taken) => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if taken.take(name) {
                        field(out, name, value);
                    }
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_kept_to() {
        let mut owed = Encoding::Length(5);
        let (mut out, mut behind) = (Vec::new(), &b""[..]);
        assert_eq!(owed.piece(3, &mut out), Ok(&b""[..]));
        assert_eq!(owed.end(&mut behind, None, &mut out), Err(WrongLength));
        assert_eq!(owed.piece(3, &mut out), Err(WrongLength));
        assert_eq!(owed.piece(2, &mut out), Ok(&b""[..]));
        assert_eq!(owed.end(&mut behind, None, &mut out), Ok(()));
        assert!(out.is_empty());
    }
}
