//! Which fields may stand behind a body.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Fields that frame, address or route a message, or end at a hop. Who merges trailers into the head (RFC 9110 §6.5.1
/// allows it) would read the message anew by them; an HTTP/2 peer takes the hop-by-hop ones for a malformed message.
const FORBIDDEN: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what trailers must not hold.
pub fn strip(trailers: &mut HeaderMap) {
    for name in &FORBIDDEN {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_what_says_nothing_about_the_message_is_left() {
        let mut trailers = HeaderMap::new();
        for name in ["content-length", "host", "x-sum", "keep-alive", "grpc-status"] {
            trailers.append(name, HeaderValue::from_static("1"));
        }
        strip(&mut trailers);
        let left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 2);
        assert!(left.contains(&"x-sum") && left.contains(&"grpc-status"));
    }
}
