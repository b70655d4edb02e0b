//! A response's head: from bytes to fields, and how its body is framed (RFC 9112 §6.3). Pure.
//!
//! Whatever two readers could understand differently is refused: what we took for the end of a body would be the
//! beginning of the next caller's answer. Values stay slices of what was read; nothing is copied.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use crate::io::http1::framing::{Framing, MAX_FIELDS, MAX_HEAD, Malformed, Said, Scan};

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
    let complete = ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        unread,
        &mut fields,
    )?;
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
    // And one more: whoever asks for a field by its entry, as hyper's HTTP/2 does, has the map make room first.
    headers.reserve(parsed.headers.len() + 1);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Malformed("a field's name is not one"))?;
        said.note(&name, field.value);
        let value = HeaderValue::from_maybe_shared(unread.slice_ref(field.value))
            .map_err(|_| Malformed("a field's value is not one"))?;
        headers.append(name, value);
    }
    let framing = framing(&said, status, head_only)?;
    let keep_alive = said.keep_alive() && framing != Framing::UntilClose;
    unread.advance(length);
    let headers = std::mem::take(headers);
    Ok(Some(Head { status, version, headers, reason, framing, keep_alive }))
}

fn incomplete(unread: &[u8], scan: &mut Scan) -> Result<Option<Head>, Malformed> {
    scan.in_vain(unread);
    if unread.len() > MAX_HEAD { Err(Malformed("the head is too large")) } else { Ok(None) }
}

/// Where the body of an answer ends.
fn framing(said: &Said, status: StatusCode, head_only: bool) -> Result<Framing, Malformed> {
    if head_only
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok(Framing::None);
    }
    match (said.codings, said.lengths) {
        (0, 0) => Ok(Framing::UntilClose),
        (0, 1) => match said.length {
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Malformed("Content-Length is not one number")),
        },
        (0, _) => Err(Malformed("Content-Length is not one number")),
        (_, 1..) => Err(Malformed("both Content-Length and Transfer-Encoding")),
        (1, 0) if said.chunked && said.version == Version::HTTP_11 => Ok(Framing::Chunked),
        (1, 0) if said.chunked => Err(Malformed("a Transfer-Encoding with HTTP/1.0")),
        _ => Err(Malformed("a Transfer-Encoding other than one `chunked`")),
    }
}

#[cfg(test)]
mod tests;
