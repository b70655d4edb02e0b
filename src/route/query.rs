//! Query parameters, read where they stand: `application/x-www-form-urlencoded` without a copy.
//!
//! Pairs are split at `&`, names from values at the first `=`; `+` is a space, `%XX` a byte, and a
//! malformed escape stands for itself (WHATWG URL §5.1). Names and values are bytes, not always UTF-8.

/// Decoded values up to this many bytes take no allocation.
const INLINE: usize = 256;

/// The pairs of a query, still encoded. A name without `=` has the empty value.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether the encoded name `raw` means `name`.
pub(super) fn is_name(raw: &str, name: &str) -> bool {
    raw == name && !is_encoded(raw) || is_encoded(raw) && Decoded(raw.as_bytes()).eq(name.bytes())
}

/// What `read` makes of the decoded value of the first parameter `name`; nothing where there is none.
pub fn query_value<T>(query: &str, name: &str, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let (_, raw) = pairs(query).find(|(known, _)| is_name(known, name))?;
    Some(read(Scratch::new().decode(raw)))
}

/// Room for one decoded value.
pub(super) struct Scratch {
    inline: [u8; INLINE],
    heap: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { inline: [0; INLINE], heap: Vec::new() }
    }

    /// The decoded form of `raw`: `raw` itself where nothing is encoded, else in this room.
    pub(super) fn decode<'a>(&'a mut self, raw: &'a str) -> &'a [u8] {
        if !is_encoded(raw) {
            return raw.as_bytes();
        }
        let decoded = Decoded(raw.as_bytes());
        if raw.len() > INLINE {
            self.heap.clear();
            self.heap.extend(decoded);
            return &self.heap;
        }
        let mut len = 0;
        for (slot, byte) in self.inline.iter_mut().zip(decoded) {
            *slot = byte;
            len += 1;
        }
        self.inline.get(..len).unwrap_or_default()
    }
}

fn is_encoded(raw: &str) -> bool {
    raw.bytes().any(|byte| matches!(byte, b'%' | b'+'))
}

/// The decoded bytes of what is left.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, left) = match *self.0 {
            [b'%', high, low, ref left @ ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, left),
                _ => (b'%', self.0.get(1..).unwrap_or_default()),
            },
            [b'+', ref left @ ..] => (b' ', left),
            [byte, ref left @ ..] => (byte, left),
            [] => return None,
        };
        self.0 = left;
        Some(byte)
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_empty_values_and_drop_empty_pairs() {
        let got: Vec<_> = pairs("a=1&&b&=x&c=d=e&").collect();
        assert_eq!(got, [("a", "1"), ("b", ""), ("", "x"), ("c", "d=e")]);
    }

    #[test]
    fn values_decode_escapes_and_plus_and_keep_malformed_escapes() {
        for (raw, want) in [
            ("plain", &b"plain"[..]),
            ("a+b", b"a b"),
            ("a%2Bb", b"a+b"),
            ("%41%5a", b"AZ"),
            ("%zz%2", b"%zz%2"),
            ("%%41", b"%A"),
            ("%ff", b"\xff"),
        ] {
            assert_eq!(Scratch::new().decode(raw), want, "{raw}");
        }
    }

    #[test]
    fn values_beyond_the_inline_room_decode_the_same() {
        let raw = "%41".repeat(INLINE);
        assert_eq!(Scratch::new().decode(&raw), "A".repeat(INLINE).as_bytes());
    }

    #[test]
    fn names_compare_decoded() {
        assert!(is_name("a%62c", "abc") && is_name("a+b", "a b") && is_name("abc", "abc"));
        assert!(!is_name("a+b", "a+b") && !is_name("ab", "abc") && !is_name("a%62", "abc"));
    }

    #[test]
    fn any_query_is_read_and_no_value_grows() {
        let mut rng = crate::base::rng::Rng::from_seed(41);
        for _ in 0..20_000 {
            let text = rng.damaged(b"a=1&b%20c=%41+x&d&=e&%zz=%", b"%+&=0aF");
            let Ok(query) = std::str::from_utf8(&text) else { continue };
            for (name, value) in pairs(query) {
                assert!(Scratch::new().decode(value).len() <= value.len());
                let plain = String::from_utf8_lossy(Scratch::new().decode(name)).into_owned();
                assert!(is_name(name, &plain) || plain.contains('\u{fffd}'), "{name}");
            }
        }
    }
}
