//! What a field of a request must not be, as far as one field shows it.

use http::Method;

/// The longest name that the http crate takes.
const NAME: usize = 65_535;

/// What is wrong with a field (RFC 9113 §8.2, §8.3), if anything: all that the h2 crate ends the connection for, and what
/// belongs to a connection of HTTP/1.
pub(super) fn fault(name: &[u8], value: &[u8]) -> Option<&'static str> {
    match name {
        b":method" if Method::from_bytes(value).is_err() => Some("a method that is no token"),
        b":scheme" | b":authority" | b":path" | b":protocol" if str::from_utf8(value).is_err() => {
            Some("a pseudo-header that is not UTF-8")
        }
        b":method" | b":scheme" | b":authority" | b":path" | b":protocol" => None,
        [b':', ..] => Some("a pseudo-header that no request has"),
        [] => Some("a field without a name"),
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Some("a field of HTTP/1 connections")
        }
        b"te" if value != b"trailers" => Some("`te` other than `trailers`"),
        _ if name.iter().any(u8::is_ascii_uppercase) => Some("a field name in upper case"),
        _ if !name.iter().copied().all(is_of_a_name) => {
            Some("a character that no field name may have")
        }
        _ if name.len() > NAME => Some("a field name of over 65535 bytes"),
        _ if !value.iter().copied().all(is_of_a_value) => {
            Some("a control character in a field's value")
        }
        _ => None,
    }
}

/// Whether a lower-case name may have this byte (RFC 9110 §5.6.2).
const fn is_of_a_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether a value may have this byte (RFC 9110 §5.5).
const fn is_of_a_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_byte_is_at_fault_where_the_h2_crate_does_not_take_it() {
        for byte in 0..=255 {
            for text in [&[byte][..], &[b'x', byte], &[byte, b'x'], &[b'x', byte, b'x']] {
                // The http crate takes a quotation mark, which is no token.
                let token = text[0] != b':' && !text.contains(&b'"');
                let name = token && HeaderName::from_lowercase(text).is_ok();
                assert_eq!(fault(text, b"x").is_none(), name, "{text:?}");
                let value = HeaderValue::from_bytes(text).is_ok();
                assert_eq!(fault(b"x", text).is_none(), value, "{text:?}");
                let method = Method::from_bytes(text).is_ok();
                assert_eq!(fault(b":method", text).is_none(), method, "{text:?}");
                let path = str::from_utf8(text).is_ok();
                assert_eq!(fault(b":path", text).is_none(), path, "{text:?}");
            }
        }
        assert!(HeaderName::from_lowercase(&[b'x'; NAME]).is_ok());
        assert_eq!(fault(&[b'x'; NAME], b""), None);
        assert!(HeaderName::from_lowercase(&[b'x'; NAME + 1]).is_err());
        assert!(fault(&[b'x'; NAME + 1], b"").is_some());
        for name in [&b""[..], b":", b":x", b":status", b":Path", b":path ", b"te", b"upgrade"] {
            assert!(fault(name, b"x").is_some(), "{name:?}");
        }
        assert_eq!(fault(b"te", b"trailers"), None);
    }
}
