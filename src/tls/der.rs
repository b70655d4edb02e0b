//! The validity of a certificate: the one thing that is needed of it and that the libraries keep to themselves.

/// From when until when a certificate is good, in seconds since 1970; both ends are within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version.
const VERSION: u8 = 0xa0;

/// The validity in a certificate's DER (RFC 5280 §4.1). `None` where it does not have that form. Walks the first six fields and
/// no further; reads nothing outside `certificate`, whatever lengths it claims.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (fields, _) = expect(certificate, SEQUENCE)?;
    let rest = expect(fields, VERSION).map_or(fields, |(_, rest)| rest);
    let (_serial, rest) = expect(rest, INTEGER)?;
    let (_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Validity { not_before, not_after })
}

/// The content of the next element, which has this tag, and what follows it.
fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(input)?;
    (found == tag).then_some((content, rest))
}

fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // At most four bytes of length: no certificate has 4 GiB.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A time as RFC 5280 §4.1.2.5 has it: in UTC, with seconds.
fn time(input: &[u8]) -> Option<(u64, &[u8])> {
    let (tag, text, rest) = element(input)?;
    let (year, text) = match tag {
        // Two digits: 1950 to 2049.
        UTC_TIME => {
            let (year, text) = number(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        GENERALIZED_TIME => number(text, 4)?,
        _ => return None,
    };
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    if !valid || second > 60 || text != b"Z" {
        return None;
    }
    // What began before 1970 began long enough ago.
    let days = days_since_1970(year, month, day).unwrap_or(0);
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second, rest))
}

fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let digit = |sum: u64, byte: &u8| match byte {
        b'0'..=b'9' => Some(sum * 10 + u64::from(byte - b'0')),
        _ => None,
    };
    Some((number.iter().try_fold(0, digit)?, rest))
}

/// Days from 1970-01-01 in the Gregorian calendar; nothing before it. Source: H. Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`: years begin in March, so that the day that may not be there is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + days).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::tls::testing::Authority;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), Some(0)),
            ((2000, 2, 29), Some(11_016)),
            ((2026, 11, 21), Some(20_778)),
            ((9999, 12, 31), Some(2_932_896)),
            ((1969, 12, 31), None),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn both_forms_of_a_time_are_read_and_others_refused() {
        let with = |tag: u8, text: &str| {
            let input = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            time(&input).map(|(time, _)| time)
        };
        assert_eq!(with(UTC_TIME, "700101000001Z"), Some(1));
        assert_eq!(with(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(with(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(with(UTC_TIME, "500101000000Z"), Some(0), "1950");
        for wrong in
            ["", "70010100000Z", "701301000000Z", "7001010000000", "700101000000+", "70010100/000Z"]
        {
            assert_eq!(with(UTC_TIME, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_certificate_says_how_long_it_is_good() {
        let ca = Authority::new("ca");
        let leaf = ca.issue(|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 2);
            params.not_after = rcgen::date_time_ymd(2051, 3, 4);
        });
        let expected = Validity { not_before: 1_577_923_200, not_after: 2_561_500_800 };
        assert_eq!(validity(leaf.cert.der()), Some(expected));
    }

    /// Whatever bytes are wrong or missing: an answer, and no panic.
    #[test]
    fn broken_certificates_are_read_without_harm() {
        let leaf = Authority::new("ca").issue(|_| {});
        let whole = leaf.cert.der().to_vec();
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length}");
        }
        let mut rng = Rng::from_seed(7);
        for _ in 0..20_000 {
            let mut broken = whole.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(broken.len().min(200));
                broken[at] = u8::try_from(rng.below(256)).unwrap();
            }
            let _any = validity(&broken);
        }
    }
}
