//! Values that carry their unit, so that a bare number never has to be guessed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A share between 0 and 1, written `20%` by users. Dimensionless; invariant: `0.0 <= ratio <= 1.0`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// The share of `percent` hundredths.
    ///
    /// Returns `None` outside `0.0..=100.0` and for NaN.
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0))
    }

    /// The share as a fraction, `0.0..=1.0`.
    pub fn fraction(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to hide the binary fraction: 0.07 * 100 is 7.000000000000001.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl FromStr for Ratio {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text.strip_suffix('%').ok_or(UnitError::Missing("a share like `20%`"))?;
        let percent = decimal(number).ok_or(UnitError::Malformed("a share like `20%`"))?;
        Self::from_percent(percent).ok_or(UnitError::OutOfRange("0% to 100%"))
    }
}

/// A size in bytes, written `64KiB` by users (`B`, `KiB`, `MiB`, `GiB`: powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `kib` × 1024 bytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// The size as an index type; saturates on a platform with narrower addresses.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const WANTED: &str = "a size like `64KiB` (B, KiB, MiB, GiB)";
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")] {
            if let Some(number) = text.strip_suffix(unit) {
                let number: u64 = number.parse().map_err(|_| UnitError::Malformed(WANTED))?;
                return number
                    .checked_mul(1 << shift)
                    .map(Self)
                    .ok_or(UnitError::OutOfRange("up to 2^64 bytes"));
            }
        }
        Err(UnitError::Missing(WANTED))
    }
}

/// Events per second, written `100/s` (or `/m`, `/h`) by users. Finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// `per_second` events each second; `None` unless finite and at least 0.
    pub fn per_second_of(per_second: f64) -> Option<Self> {
        (per_second.is_finite() && per_second >= 0.0).then_some(Self(per_second))
    }

    /// Events per second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const WANTED: &str = "a rate like `100/s` (/s, /m, /h)";
        let (number, unit) = text.split_once('/').ok_or(UnitError::Missing(WANTED))?;
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(UnitError::Malformed(WANTED)),
        };
        let number = decimal(number).ok_or(UnitError::Malformed(WANTED))?;
        Self::per_second_of(number / seconds).ok_or(UnitError::OutOfRange("a finite rate"))
    }
}

/// Reads a duration like `250ms`, `2s`, `1.5s`, `1m`, `1h` (also `us`). At most one year.
///
/// # Errors
/// A missing unit, a malformed number, or a value beyond a year.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const WANTED: &str = "a duration like `250ms`, `2s` or `1m` (us, ms, s, m, h)";
    const YEAR_SECS: f64 = 365.0 * 24.0 * 3600.0;
    // Longest suffix first, so that `ms` is not read as minutes of seconds.
    for (unit, seconds) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)] {
        let Some(number) = text.strip_suffix(unit) else { continue };
        let number = decimal(number).ok_or(UnitError::Malformed(WANTED))?;
        if number * seconds > YEAR_SECS {
            return Err(UnitError::OutOfRange("at most one year (8760h)"));
        }
        // Nanoseconds are rounded: 0.3 s as a binary fraction would otherwise read 299.999999 ms.
        return Ok(Duration::from_secs_f64((number * seconds * 1e9).round() / 1e9));
    }
    Err(UnitError::Missing(WANTED))
}

/// Writes a duration as its users do: the largest unit that needs no fraction.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    for (unit, size) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] {
        if micros != 0 && micros.is_multiple_of(size) {
            return format!("{}{unit}", micros / size);
        }
    }
    if micros == 0 { "0s".to_owned() } else { format!("{micros}us") }
}

/// Why a value with a unit could not be read; each variant carries what would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No unit was written.
    #[error("the unit is missing: write {0}")]
    Missing(&'static str),
    /// The number in front of the unit cannot be read.
    #[error("not {0}")]
    Malformed(&'static str),
    /// Readable, but outside the allowed range.
    #[error("out of range: {0}")]
    OutOfRange(&'static str),
}

/// A plain non-negative decimal (`1`, `2.5`): no sign, exponent, `inf` or `nan`, which `f64` would take.
fn decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_back() {
        for text in ["250ms", "2s", "1m", "36h", "15us", "1500ms", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn a_bare_number_names_the_missing_unit() {
        assert!(matches!(parse_duration("250"), Err(UnitError::Missing(_))));
        assert!(matches!("64".parse::<ByteSize>(), Err(UnitError::Missing(_))));
        assert!(matches!("20".parse::<Ratio>(), Err(UnitError::Missing(_))));
        assert!(matches!("100".parse::<Rate>(), Err(UnitError::Missing(_))));
    }

    #[test]
    fn numbers_that_f64_takes_and_people_do_not_are_refused() {
        for text in ["-1s", "+1s", "1e3s", "infs", "nans", "s", ".s", "1..2s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!("101%".parse::<Ratio>().is_err());
        assert!("99999h".parse::<ByteSize>().is_err());
        assert_eq!(parse_duration("9999h"), Err(UnitError::OutOfRange("at most one year (8760h)")));
    }

    #[test]
    fn sizes_and_shares_write_as_read() {
        for text in ["64KiB", "1MiB", "3B", "0B", "2GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["20%", "7%", "0.5%", "100%"] {
            assert_eq!(text.parse::<Ratio>().unwrap().to_string(), text);
        }
    }
}
