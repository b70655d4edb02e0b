//! An answer's head and the framing of its body, written in one form. Pure.

use std::io::Write as _;

use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;

use super::encode::{Encoding, Trailers, field};
use super::framing::names;
use super::request::Asked;

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) encoding: Encoding,
    /// The connection may carry another request.
    pub(super) keep_alive: bool,
    /// What follows is no HTTP.
    pub(super) tunnel: bool,
    /// A body follows.
    pub(super) body: bool,
}

/// Writes a head, and says how the body is to be framed. `body`: its size, where there is one.
pub(super) fn head(
    out: &mut Vec<u8>,
    asked: &Asked,
    parts: &Parts,
    body: Option<&SizeHint>,
) -> Written {
    let status = parts.status;
    start(out, asked, parts);
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || asked.connect && status.is_success();
    // No length either (RFC 9110 §8.6). A 304 may have one, of what it stands for; readers that wait for such a body do exist.
    let lengthless = tunnel
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let bodiless = lengthless || asked.head_only;
    let mut keep_alive = asked.keep_alive;
    let (mut length, mut says_close) = (None, false);
    for (name, value) in &parts.headers {
        if name == TRANSFER_ENCODING || name == CONTENT_LENGTH && lengthless {
            continue;
        }
        if name == CONTENT_LENGTH {
            length = value.to_str().ok().and_then(|length| length.parse().ok());
        } else if name == CONNECTION && names(value.as_bytes(), b"close") {
            says_close = true;
            keep_alive = false;
        }
        field(out, name, value);
    }
    let encoding = match body {
        _ if bodiless => Encoding::Length(0),
        None => {
            if length.is_none() {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Encoding::Length(length.unwrap_or(0))
        }
        Some(size) => match length.or_else(|| size.exact()) {
            Some(owed) => {
                if length.is_none() {
                    let _infallible = write!(out, "content-length: {owed}\r\n");
                }
                Encoding::Length(owed)
            }
            None if asked.old => {
                keep_alive = false;
                Encoding::UntilClose
            }
            None => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Encoding::Chunked(Trailers::Any)
            }
        },
    };
    if !tunnel && !keep_alive && !says_close && !asked.old {
        out.extend_from_slice(b"connection: close\r\n");
    } else if keep_alive && asked.old {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Written { encoding, keep_alive, tunnel, body: body.is_some() && !bodiless }
}

fn start(out: &mut Vec<u8>, asked: &Asked, parts: &Parts) {
    let reason = parts.extensions.get::<ReasonPhrase>();
    if parts.status == StatusCode::OK && !asked.old && reason.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    let version = if asked.old { &b"HTTP/1.0 "[..] } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(match reason {
        Some(reason) => reason.as_bytes(),
        None => parts.status.canonical_reason().unwrap_or_default().as_bytes(),
    });
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
