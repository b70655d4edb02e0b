//! What an upstream's answer says about when to come back.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};

/// An upstream's word on retrying the answer that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushback {
    /// It says nothing.
    #[default]
    None,
    /// Not earlier than after this.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// Reads `grpc-retry-pushback-ms` (gRFC A6: negative or unreadable is never), else `retry-after` in seconds.
    ///
    /// A `retry-after` with a date needs a wall clock that agrees with the upstream's: it is ignored.
    pub fn read(headers: &HeaderMap) -> Self {
        if let Some(value) = headers.get("grpc-retry-pushback-ms") {
            return match number(value) {
                Some(millis) => Self::After(Duration::from_millis(millis)),
                None => Self::Never,
            };
        }
        match headers.get(RETRY_AFTER).and_then(number) {
            Some(seconds) => Self::After(Duration::from_secs(seconds)),
            None => Self::None,
        }
    }
}

fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Pushback {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Pushback::read(&headers)
    }

    #[test]
    fn waits_are_read_and_dates_are_not() {
        assert_eq!(Pushback::read(&HeaderMap::new()), Pushback::None);
        assert_eq!(read("retry-after", "2"), Pushback::After(Duration::from_secs(2)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), Pushback::None);
        assert_eq!(read("retry-after", "-1"), Pushback::None);
        assert_eq!(
            read("grpc-retry-pushback-ms", "15"),
            Pushback::After(Duration::from_millis(15))
        );
    }

    #[test]
    fn a_negative_or_unreadable_grpc_pushback_means_never() {
        for value in ["-1", "soon", ""] {
            assert_eq!(read("grpc-retry-pushback-ms", value), Pushback::Never);
        }
    }
}
