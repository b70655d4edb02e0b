//! What holds of any bytes that an upstream may send: for seeded tests and fuzz targets alike.

use bytes::Bytes;
use http::HeaderMap;

use super::chunked::{Chunked, Step};
use super::head::{Head, MAX_FIELDS, MAX_HEAD, Malformed, Scan, parse};

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

/// A body in chunks ends, or is refused, alike in whatever pieces it comes, and is no longer than what was sent. The first byte says
/// in which.
pub fn chunked(bytes: &[u8]) {
    let Some((&size, text)) = bytes.split_first() else { return };
    let whole = fed_chunks(text, || usize::MAX);
    assert!(
        whole.as_ref().is_ok_and(|(data, _, left)| data.len() + left.len() < text.len())
            || whole.is_err()
    );
    assert_eq!(fed_chunks(text, || usize::from(size)), whole);
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

/// Data, trailers, and what is left. `Err(None)`: it does not end.
pub(super) type ReadBody = Result<(Vec<u8>, Option<HeaderMap>, Vec<u8>), Option<Malformed>>;

/// Reads a body that comes in the given pieces.
pub(super) fn fed_chunks(text: &[u8], mut piece: impl FnMut() -> usize) -> ReadBody {
    let (mut chunks, mut unread, mut rest) = (Chunked::default(), Bytes::new(), text);
    let mut data = Vec::new();
    loop {
        match chunks.next(&mut unread).map_err(Some)? {
            Step::Data(piece) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
                if chunks.ends_with(&mut unread) {
                    return Ok((data, None, [&unread[..], rest].concat()));
                }
            }
            Step::End(trailers) => return Ok((data, trailers, [&unread[..], rest].concat())),
            Step::More if rest.is_empty() => return Err(None),
            Step::More => {
                assert!(unread.is_empty());
                let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
                unread = Bytes::copy_from_slice(now);
                rest = later;
            }
        }
    }
}
