//! What holds of any bytes that a peer may send: for seeded tests and fuzz targets alike.

use bytes::Bytes;
use http::HeaderMap;

use super::chunked::{Chunked, Step};
use super::framing::{Malformed, Scan};
use super::request::{HeadLimits, Refusal, parse};

const LIMITS: HeadLimits = HeadLimits { fields: 10, bytes: 1_000 };

/// A request's head is found, or refused, alike in whatever pieces it comes. The first byte says in which. True where there is one.
pub fn request(bytes: &[u8]) -> bool {
    let Some((&size, text)) = bytes.split_first() else { return false };
    let whole = fed_head(text, text.len());
    let pieces = fed_head(text, usize::from(size));
    match (&whole, &pieces) {
        // In pieces another sign may come first, and a head is looked at again only where it may be complete.
        (Err(_), Err(_) | Ok(None)) => {}
        _ => assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(text)),
    }
    matches!(whole, Ok(Some(_)))
}

/// All that is said of a head, and what is left behind it.
fn fed_head(text: &[u8], size: usize) -> Result<Option<(String, usize)>, Refusal> {
    let (mut scan, mut end) = (Scan::default(), 0);
    while end < text.len() {
        end += size.clamp(1, text.len() - end);
        let mut unread = Bytes::copy_from_slice(&text[..end]);
        if let Some(head) = parse(&mut unread, &mut scan, &LIMITS)? {
            assert!(head.parts.headers.len() <= LIMITS.fields);
            return Ok(Some((format!("{head:?}"), unread.len() + text.len() - end)));
        }
    }
    Ok(None)
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
