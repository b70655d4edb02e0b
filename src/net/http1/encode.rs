//! A request's head, written in one form. Pure.

use std::io::Write as _;

use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};
use http_body::SizeHint;

use crate::io::http1::encode::{Encoding, Trailers, field};
use crate::net::RequestHead;

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
        field(out, name, value);
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
                Encoding::Chunked(Trailers::Announced(announced(head.fields)))
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

#[cfg(test)]
mod tests;
