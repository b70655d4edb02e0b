//! A request's head: from bytes to fields, and how its body is framed (RFC 9112 §6.3). Pure.
//!
//! What is not HTTP, or where a reader could take the end of the body for another, is refused here. What a head means is
//! checked by who answers it. A head is copied once, into memory of its own: it lives as long as its request, and would keep the whole
//! block that it was read into from being used again.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use httparse::{ParserConfig, Status};

use crate::base::error::Reason;

use super::framing::{Framing, MAX_FIELDS, Malformed, Said, Scan};

/// The longest target that an address may have (`http::Uri`).
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// What a request's head may have.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Fields.
    pub fields: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Why a request is refused before anybody can answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// For metrics, log and answer.
    pub reason: Reason,
    /// Of the answer.
    pub status: StatusCode,
    /// For people.
    pub detail: &'static str,
}

/// Of a head that has begun to come, and stays away.
pub const LATE: Refusal = Refusal {
    reason: Reason::RequestTimeout,
    status: StatusCode::REQUEST_TIMEOUT,
    detail: "the request's head did not arrive in time",
};

impl Refusal {
    const fn too_large(status: StatusCode, detail: &'static str) -> Self {
        Self { reason: Reason::TooLarge, status, detail }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self { reason: Reason::DownstreamProtocol, status, detail: malformed.0 }
    }
}

/// A request's head, and what its connection has to know of it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    pub(super) asked: Asked,
    /// `Expect: 100-continue`.
    pub(super) expects: bool,
    /// It wants to leave HTTP behind.
    pub(super) upgrades: bool,
}

/// What an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// HEAD: the answer has no body.
    pub(super) head_only: bool,
    /// CONNECT: behind an answer that grants it is a tunnel.
    pub(super) connect: bool,
    /// HTTP/1.0: no chunks, and the connection ends unless both say otherwise.
    pub(super) old: bool,
    /// The caller may send another request.
    pub(super) keep_alive: bool,
}

/// Takes a head off the front of `unread`; `None`: more is needed.
///
/// # Errors
/// [`Refusal`]: nothing behind it can be read.
pub(super) fn parse(
    unread: &mut Bytes,
    scan: &mut Scan,
    limits: &HeadLimits,
) -> Result<Option<Head>, Refusal> {
    if !scan.may_be_complete(unread) {
        return incomplete(unread, scan, limits);
    }
    let mut usual = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut many = Vec::new();
    let fields = if limits.fields <= MAX_FIELDS {
        &mut usual[..limits.fields]
    } else {
        many.resize(limits.fields, MaybeUninit::uninit());
        &mut many[..]
    };
    let mut parsed = httparse::Request::new(&mut []);
    let complete =
        ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, unread, fields);
    let length = match complete.map_err(|error| refused(error, &parsed))? {
        Status::Complete(length) => length,
        Status::Partial => return incomplete(unread, scan, limits),
    };
    if length > limits.bytes {
        return Err(HEAD_TOO_LARGE);
    }
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| Malformed("the method is not one"))?;
    let target = parsed.path.unwrap_or_default();
    if target.len() > MAX_TARGET {
        return Err(Refusal::too_large(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    let own = Bytes::copy_from_slice(&unread[..length]);
    let start = unread.as_ptr().addr();
    let copied = |part: &[u8]| {
        let at = part.as_ptr().addr().wrapping_sub(start);
        // An empty value may stand anywhere.
        if part.is_empty() { Bytes::new() } else { own.slice(at..at + part.len()) }
    };
    let target = Uri::from_maybe_shared(copied(target.as_bytes()))
        .map_err(|_| Malformed("the target is not one"))?;
    let mut said = Said::new(version);
    let (mut expects, mut upgrades, mut codes_end) = (false, method == Method::CONNECT, false);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Malformed("a field's name is not one"))?;
        let value = HeaderValue::from_maybe_shared(copied(field.value))
            .map_err(|_| Malformed("a field's value is not one"))?;
        said.note(&name, field.value);
        if name == CONTENT_LENGTH && said.lengths > 1 {
            // Where they say the same, one is enough; where they do not, none is needed.
            continue;
        } else if name == TRANSFER_ENCODING {
            let last = field.value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            codes_end = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if name == EXPECT {
            expects =
                version == Version::HTTP_11 && field.value.eq_ignore_ascii_case(b"100-continue");
        } else if name == UPGRADE {
            upgrades |= version == Version::HTTP_11;
        }
        headers.append(name, value);
    }
    let framing = framing(&said, codes_end)?;
    let mut keep_alive = said.keep_alive();
    if said.codings > 0 && said.lengths > 0 {
        // The length is not looked at by whoever goes by the RFC, and the sender may not be one of them.
        headers.remove(CONTENT_LENGTH);
        keep_alive = false;
    }
    let asked = Asked {
        head_only: method == Method::HEAD,
        connect: method == Method::CONNECT,
        old: version == Version::HTTP_10,
        keep_alive,
    };
    unread.advance(length);
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (method, target, version, headers);
    Ok(Some(Head { parts, framing, asked, expects, upgrades }))
}

const HEAD_TOO_LARGE: Refusal = Refusal::too_large(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "the head is larger than the listener allows",
);

fn incomplete(
    unread: &[u8],
    scan: &mut Scan,
    limits: &HeadLimits,
) -> Result<Option<Head>, Refusal> {
    scan.in_vain(unread);
    if unread.len() > limits.bytes { Err(HEAD_TOO_LARGE) } else { Ok(None) }
}

fn refused(error: httparse::Error, parsed: &httparse::Request<'_, '_>) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::too_large(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the head has more fields than the listener allows",
        ),
        httparse::Error::Token if parsed.method.is_none() => {
            Malformed("the method is not one").into()
        }
        httparse::Error::Token => Malformed("the target is not one").into(),
        error => Malformed::from(error).into(),
    }
}

/// Where the body of a request ends. `codes_end`: the last coding is `chunked`.
fn framing(said: &Said, codes_end: bool) -> Result<Framing, Refusal> {
    match (said.codings, said.lengths) {
        (0, 0) => Ok(Framing::None),
        (0, _) => match said.length {
            // A reader that counts with a sign would take it for another length.
            Some(length) if !said.contradicts && i64::try_from(length).is_err() => {
                let detail = "Content-Length is more than any body has";
                Err(Refusal::too_large(StatusCode::PAYLOAD_TOO_LARGE, detail))
            }
            Some(length) if !said.contradicts => Ok(Framing::Length(length)),
            _ => Err(Malformed("Content-Length is not one number").into()),
        },
        _ if said.version == Version::HTTP_10 => {
            Err(Malformed("a Transfer-Encoding with HTTP/1.0").into())
        }
        _ if codes_end => Ok(Framing::Chunked),
        _ => Err(Malformed("a Transfer-Encoding that does not end in `chunked`").into()),
    }
}

#[cfg(test)]
mod tests;
