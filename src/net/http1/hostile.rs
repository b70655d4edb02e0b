//! What holds of any bytes that an upstream may send: for seeded tests and fuzz targets alike.

use bytes::Bytes;
use http::HeaderMap;

use crate::io::http1::framing::{MAX_FIELDS, MAX_HEAD, Malformed, Scan};

use super::head::{Head, parse};

/// A head is found, or refused, alike in whatever pieces it comes. The first byte says in which.
pub fn head(bytes: &[u8]) {
    let Some((&size, text)) = bytes.split_first() else { return };
    let seen = |size: usize| {
        let (head, left) = fed_head(text, std::iter::repeat(size)).ok().flatten()?;
        assert!(head.headers.len() <= MAX_FIELDS && left.len() <= text.len());
        Some((head.status, head.headers, head.framing, head.keep_alive, left))
    };
    assert!(text.len() > MAX_HEAD || seen(text.len()) == seen(usize::from(size).max(1)));
}

/// Feeds a head in pieces, as the connection does. Returns it with what is left.
pub(super) fn fed_head(
    text: &[u8],
    pieces: impl Iterator<Item = usize>,
) -> Result<Option<(Head, Bytes)>, Malformed> {
    let (mut unread, mut scan, mut headers) = (Bytes::new(), Scan::default(), HeaderMap::new());
    let mut rest = text;
    for piece in pieces {
        let (piece, after) = rest.split_at(piece.min(rest.len()));
        unread = Bytes::from([&unread[..], piece].concat());
        rest = after;
        if let Some(head) = parse(&mut unread, &mut scan, false, &mut headers)? {
            return Ok(Some((head, Bytes::from([&unread[..], rest].concat()))));
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(None)
}
