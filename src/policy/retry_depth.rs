//! What sidecars in a row tell each other of attempts, so that their retries do not multiply.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Ours, in both directions: how many attempts there were.
pub const ATTEMPTS: HeaderName = HeaderName::from_static("x-outrigger-attempts");

/// More than this is not told apart.
const MOST: u32 = 1_000;

/// Attempts that other hops have told of.
///
/// Three hops with three attempts each are 27 times the load of an outage. What stops that is knowledge: of all hops that
/// could try again, one does, and the others learn of it.
///
/// *In an answer* the number says how many attempts below ended with this failure: somebody closer has tried what could be
/// tried, so nobody above tries again. *In a request* it says which time this is that the request may run; absent is the
/// first. From the second on, somebody above is trying again, so nobody below does: that covers the hop above that gave an
/// attempt up (`per_try`) before the answer with its number came.
///
/// It can only make less work, so it is believed from anyone (as `grpc-timeout` is). A hop that does not know the header
/// either passes it on, and nothing is lost, or drops it, and its two sides multiply as they did before.
/// Source: "only the layer immediately above retries" (Site Reliability Engineering, ch. 22, "Retries"); gRFC A6 has a
/// request header of this kind (`grpc-previous-rpc-attempts`), which no proxy acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryDepth(u32);

impl RetryDepth {
    /// The largest number that `headers` tell; none where no value is 1 to 9 digits, or it is 0.
    pub fn read(headers: &HeaderMap) -> Self {
        let numbers = headers.get_all(ATTEMPTS).iter().filter_map(|value| parse(value.as_bytes()));
        Self(numbers.max().unwrap_or(0).min(MOST))
    }

    /// A request that may run for more than the first time: a hop above is trying again.
    pub fn retried_above(self) -> bool {
        self.0 > 1
    }

    /// An answer to attempts that were made below: another one up here would repeat them all.
    pub fn tried_below(self) -> bool {
        self.0 > 0
    }

    /// What the next attempt of a request that came with `self` is told: `ran` of ours may have run before it.
    pub fn of_next_attempt(self, ran: u32) -> Self {
        Self(self.0.max(1).saturating_add(ran).min(MOST))
    }

    /// What the caller is told where `attempts` of ours ended with an answer that came with `self`.
    pub fn of_failure(self, attempts: u32) -> Self {
        Self(self.0.saturating_sub(1).saturating_add(attempts.max(1)).min(MOST))
    }

    /// As a field.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from(self.0)
    }
}

fn parse(value: &[u8]) -> Option<u32> {
    if value.is_empty() || value.len() > 9 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn read(values: &[&'static str]) -> RetryDepth {
        let fields = values.iter().map(|value| (ATTEMPTS, HeaderValue::from_static(value)));
        RetryDepth::read(&fields.collect())
    }

    #[test]
    fn the_largest_number_counts_and_what_is_none_is_ignored() {
        for (values, number) in [
            (&[][..], 0),
            (&["1"], 1),
            (&["3"], 3),
            (&["2", "5", "4"], 5),
            (&["007"], 7),
            (&["999999999"], MOST),
            (&["0"], 0),
            (&["", "-2", "+2", " 2", "2.0", "two", "0x2", "1000000000"], 0),
            (&["none", "2"], 2),
        ] {
            assert_eq!(read(values), RetryDepth(number), "{values:?}");
        }
    }

    #[test]
    fn a_first_attempt_is_no_retry_but_one_attempt_below_was_one() {
        let told = |number| (RetryDepth(number).retried_above(), RetryDepth(number).tried_below());
        assert_eq!(
            [0, 1, 2, 3].map(told),
            [(false, false), (false, true), (true, true), (true, true)]
        );
    }

    #[test]
    fn numbers_add_up_along_a_chain() {
        // Two of ours may have run; nobody above has tried again, or is at the second time.
        assert_eq!(RetryDepth(0).of_next_attempt(2), RetryDepth(3));
        assert_eq!(RetryDepth(1).of_next_attempt(2), RetryDepth(3));
        assert_eq!(RetryDepth(2).of_next_attempt(1), RetryDepth(3));
        // One attempt of ours ended with an answer that cost three below; three of ours with one that said nothing.
        assert_eq!(RetryDepth(3).of_failure(1), RetryDepth(3));
        assert_eq!(RetryDepth(0).of_failure(3), RetryDepth(3));
        assert_eq!(RetryDepth(3).of_failure(2), RetryDepth(4));
        assert_eq!(RetryDepth(0).of_failure(0), RetryDepth(1));
    }

    #[test]
    fn what_is_written_is_read_back_and_no_bytes_break_the_reader() {
        let mut rng = Rng::from_seed(9);
        for _ in 0..20_000 {
            let length = rng.below(14);
            let bytes: Vec<u8> =
                (0..length).map(|_| b"0123456789 -+x\xff"[rng.below(15)]).collect();
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            let depth = RetryDepth::read(&HeaderMap::from_iter([(ATTEMPTS, value)]));
            let plain = std::str::from_utf8(&bytes).ok().filter(|text| {
                (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
            });
            let expected = plain.map_or(0, |text| text.parse::<u32>().unwrap().min(MOST));
            assert_eq!(depth, RetryDepth(expected), "{bytes:?}");
            let (next, failed) = (depth.of_next_attempt(u32::MAX), depth.of_failure(u32::MAX));
            assert_eq!((next, failed), (RetryDepth(MOST), RetryDepth(MOST)));
            let again = HeaderMap::from_iter([(ATTEMPTS, depth.value())]);
            assert_eq!(RetryDepth::read(&again), depth);
        }
    }
}
