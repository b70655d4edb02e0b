//! What a field of a request must not be, as far as the field itself shows it (RFC 9113 §8.2, §8.3).

use http::Method;

/// The longest name that the http crate takes.
const NAME: usize = 65_535;

/// What is wrong with a field, in words for the log.
pub(in crate::io) type Fault = &'static str;

/// Of a field that says how a connection of HTTP/1 is used.
pub(super) const HOP: Fault = "a field of HTTP/1 connections";

/// What is wrong with a name, whatever its value.
pub(super) fn of_name(name: &[u8]) -> Option<Fault> {
    match name {
        b":method" | b":scheme" | b":authority" | b":path" | b":protocol" => None,
        [b':', ..] => Some("a pseudo-header that no request has"),
        [] => Some("a field without a name"),
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Some(HOP)
        }
        _ if name.len() > NAME => Some("a field name of over 65535 bytes"),
        _ if name.iter().copied().all(may_be_in_a_name) => None,
        _ if name.iter().any(u8::is_ascii_uppercase) => Some("a field name in upper case"),
        _ => Some("a character that no field name may have"),
    }
}

/// What is wrong with the value of the field `name`.
pub(super) fn of_value(name: &[u8], value: &[u8]) -> Option<Fault> {
    let (well_formed, fault) = match name {
        b":method" => (Method::from_bytes(value).is_ok(), "a method that is no token"),
        [b':', ..] => (str::from_utf8(value).is_ok(), "a pseudo-header that is not UTF-8"),
        b"te" => (value == b"trailers", "`te` other than `trailers`"),
        _ => {
            let well_formed = value.iter().copied().all(may_be_in_a_value);
            (well_formed, "a control character in a field's value")
        }
    };
    (!well_formed).then_some(fault)
}

/// Whether a lower-case name may have this byte (RFC 9110 §5.6.2).
const fn may_be_in_a_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether a value may have this byte (RFC 9110 §5.5).
const fn may_be_in_a_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Which pseudo-headers a block has had, and whether one may still come (RFC 9113 §8.3).
#[derive(Debug, Default)]
pub(in crate::io) struct Order {
    has_fields: bool,
    had: u8,
}

impl Order {
    /// What is wrong with a field called `name` at this place.
    pub(in crate::io) fn next(&mut self, name: &[u8]) -> Option<Fault> {
        let [b':', pseudo @ ..] = name else {
            self.has_fields = true;
            return None;
        };
        let bit = match pseudo {
            b"method" => 1,
            b"scheme" => 2,
            b"authority" => 4,
            b"path" => 8,
            b"protocol" => 16,
            _ => return of_name(name),
        };
        let is_again = self.had & bit != 0;
        self.had |= bit;
        if self.has_fields {
            Some("a pseudo-header behind a field")
        } else {
            is_again.then_some("a pseudo-header that comes twice")
        }
    }
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
                assert_eq!(of_name(text).is_none(), name, "{text:?}");
                let value = HeaderValue::from_bytes(text).is_ok();
                assert_eq!(of_value(b"x", text).is_none(), value, "{text:?}");
                let method = Method::from_bytes(text).is_ok();
                assert_eq!(of_value(b":method", text).is_none(), method, "{text:?}");
                let path = str::from_utf8(text).is_ok();
                assert_eq!(of_value(b":path", text).is_none(), path, "{text:?}");
            }
        }
        assert!(HeaderName::from_lowercase(&[b'x'; NAME]).is_ok());
        assert_eq!(of_name(&[b'x'; NAME]), None);
        assert!(HeaderName::from_lowercase(&[b'x'; NAME + 1]).is_err());
        assert!(of_name(&[b'x'; NAME + 1]).is_some());
        for name in [&b""[..], b":", b":x", b":status", b":Path", b":path ", b"upgrade"] {
            assert!(of_name(name).is_some(), "{name:?}");
        }
        assert_eq!(of_value(b"te", b"trailers"), None);
        assert!(of_value(b"te", b"gzip").is_some());
        assert!(of_value(b":method", b"").is_some());
    }

    #[test]
    fn pseudo_headers_come_once_and_before_all_else() {
        let mut order = Order::default();
        for name in [&b":path"[..], b":method", b":scheme", b":authority", b":protocol", b"x"] {
            assert_eq!(order.next(name), None, "{name:?}");
        }
        assert_eq!(order.next(b":path"), Some("a pseudo-header behind a field"));
        let mut order = Order::default();
        assert_eq!((order.next(b":path"), order.next(b":scheme")), (None, None));
        assert_eq!(order.next(b":path"), Some("a pseudo-header that comes twice"));
        assert_eq!(order.next(b":status"), Some("a pseudo-header that no request has"));
    }
}
