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
    use crate::base::rng::Rng;

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

    #[test]
    fn no_bytes_are_read_as_anything_but_plain_digits() {
        let mut rng = Rng::from_seed(11);
        for round in 0..20_000 {
            let bytes: Vec<u8> =
                (0..rng.below(13)).map(|_| b"0123456789 -+.,:GMTx\xff"[rng.below(21)]).collect();
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            let digits = std::str::from_utf8(&bytes).ok().filter(|text| {
                (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
            });
            let number = digits.map(|text| text.parse::<u64>().unwrap());
            let (name, expected) = match round % 2 {
                0 => ("retry-after", number.map(Duration::from_secs).map(Pushback::After)),
                _ => {
                    let after = number.map(Duration::from_millis).map(Pushback::After);
                    ("grpc-retry-pushback-ms", Some(after.unwrap_or(Pushback::Never)))
                }
            };
            let read = Pushback::read(&HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                value,
            )]));
            assert_eq!(read, expected.unwrap_or_default(), "{name}: {bytes:?}");
        }
    }
}
