//! Until when a request may take, and how that is told to the next hop.

use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::classify::is_grpc;

/// `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests").
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Ours: the time left to the caller, in milliseconds.
pub const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-outrigger-timeout-ms");
/// Envoy's timeout as its caller wishes it, in milliseconds; 0 means unlimited there.
pub const ENVOY_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// The timeout that an Envoy in front of us enforces, in milliseconds.
pub const ENVOY_EXPECTED_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What a caller said about its patience, over all headers that say it.
///
/// Anyone may ask for less time: it can only reduce work. Nobody can ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallerTimeout {
    /// The shortest of them. Zero: already expired.
    pub shortest: Option<Duration>,
    /// True where a readable `grpc-timeout` was among them.
    pub grpc: bool,
    /// Values that could not be read; they are ignored, and should be counted.
    pub malformed: u32,
}

impl CallerTimeout {
    /// Reads `grpc-timeout`, `x-outrigger-timeout-ms` and, with `compat_envoy`, Envoy's two.
    ///
    /// 0 is an expired deadline, but in Envoy's headers no wish at all, as Envoy reads it.
    pub fn read(headers: &HeaderMap, compat_envoy: bool) -> Self {
        let mut asked = Self::default();
        for value in headers.get_all(GRPC_TIMEOUT) {
            let timeout = parse_grpc_timeout(value.as_bytes());
            asked.grpc |= timeout.is_some();
            asked.note(timeout);
        }
        for value in headers.get_all(TIMEOUT_MS) {
            asked.note(parse_millis(value.as_bytes()));
        }
        if compat_envoy {
            for name in [ENVOY_TIMEOUT_MS, ENVOY_EXPECTED_MS] {
                for value in headers.get_all(name) {
                    match parse_millis(value.as_bytes()) {
                        Some(Duration::ZERO) => {}
                        timeout => asked.note(timeout),
                    }
                }
            }
        }
        asked
    }

    fn note(&mut self, timeout: Option<Duration>) {
        match (timeout, self.shortest) {
            (None, _) => self.malformed += 1,
            (Some(new), Some(known)) => self.shortest = Some(new.min(known)),
            (Some(new), None) => self.shortest = Some(new),
        }
    }
}

/// What kind of exchange a request opens, as far as its end is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A request and a response.
    Http,
    /// A gRPC call; without `grpc-timeout` it may be a stream that is meant to stay open.
    Grpc,
    /// CONNECT, or an upgrade: after the response's head there is no end to wait for.
    Tunnel,
}

impl Exchange {
    /// The kind by method and headers.
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        if method == Method::CONNECT || headers.contains_key(UPGRADE) {
            Self::Tunnel
        } else if is_grpc(headers) {
            Self::Grpc
        } else {
            Self::Http
        }
    }
}

/// Until when a request and all its attempts may take.
///
/// Starts when the request's head was received; backoff and retries are inside (else each hop's patience multiplies). Ends
/// at the last byte of the response, or at its head where [`Deadline::ends_at_head`]; the idle timeout rules after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// `None`: unlimited.
    pub overall: Option<Instant>,
    /// True for upgrades, CONNECT, `text/event-stream` responses, and gRPC calls without `grpc-timeout`.
    pub ends_at_head: bool,
}

impl Deadline {
    /// The earlier of the route's timeout and the caller's.
    pub fn new(
        received: Instant,
        route: Option<Duration>,
        caller: &CallerTimeout,
        exchange: Exchange,
    ) -> Self {
        let timeout = match (route, caller.shortest) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        let ends_at_head = match exchange {
            Exchange::Http => false,
            Exchange::Grpc => !caller.grpc,
            Exchange::Tunnel => true,
        };
        // An instant beyond what the clock can express is no deadline.
        Self { overall: timeout.and_then(|t| received.checked_add(t)), ends_at_head }
    }

    /// True where it has passed.
    pub fn expired(&self, now: Instant) -> bool {
        self.overall.is_some_and(|end| end <= now)
    }

    /// Time left, zero where it has passed; `None` where it is unlimited.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.overall.map(|end| end.saturating_duration_since(now))
    }

    /// When an attempt that starts `now` must have its head: the earlier of the deadline and `per_try`.
    pub fn of_attempt(&self, per_try: Option<Duration>, now: Instant) -> Option<Instant> {
        match (self.overall, per_try.and_then(|t| now.checked_add(t))) {
            (Some(overall), Some(per_try)) => Some(overall.min(per_try)),
            (overall, per_try) => overall.or(per_try),
        }
    }
}

/// True for `text/event-stream`: such an answer is meant to stay open, so its deadline ends at its head.
pub fn is_event_stream(content_type: &HeaderValue) -> bool {
    let kind = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Writes the time left as `grpc-timeout`: rounded down, at least `1u`, in the finest unit of µ that 8 digits can hold.
///
/// Never nanoseconds: two hops away nobody acts within one.
pub fn grpc_timeout(remaining: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let micros = remaining.as_micros().max(1);
    let units =
        [(b'u', 1), (b'm', 1_000), (b'S', 1_000_000), (b'M', 60_000_000), (b'H', 3_600_000_000)];
    let (unit, size) =
        units.into_iter().find(|(_, size)| micros / size <= MOST).unwrap_or(units[4]);
    written(u64::try_from((micros / size).min(MOST)).unwrap_or(u64::MAX), Some(unit))
}

/// Writes the time left in milliseconds: rounded down, at least 1.
pub fn timeout_ms(remaining: Duration) -> HeaderValue {
    let mut value = written(u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1), None);
    // Tells HTTP/2 not to index it: most are seen once, and would push what repeats out of the table.
    value.set_sensitive(true);
    value
}

/// Digits and unit by way of the stack: one allocation, the value's own.
fn written(mut number: u64, unit: Option<u8>) -> HeaderValue {
    let mut buffer = [0_u8; 21];
    let mut start = buffer.len();
    if let Some(unit) = unit {
        start -= 1;
        buffer[start] = unit;
    }
    loop {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    #[expect(clippy::expect_used, reason = "invariant: digits and a letter make a header value")]
    HeaderValue::from_bytes(&buffer[start..]).expect("invariant: digits and a letter")
}

fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let number = parse_digits(digits, 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn parse_millis(value: &[u8]) -> Option<Duration> {
    parse_digits(value, 15).map(Duration::from_millis)
}

/// A plain number of 1 to `most` digits; `most` is below 20, so that it cannot overflow.
fn parse_digits(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
