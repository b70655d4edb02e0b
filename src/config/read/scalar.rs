//! Single values: text, words, numbers, and numbers with a unit.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::address::{Address, AddressError};
use crate::base::units::{ByteSize, Rate, Ratio, UnitError, parse_duration};

use crate::config::diagnostic::{either, nearest};
use crate::config::node::{Scalar, Value, retyped};

use super::At;

impl<'a> At<'a> {
    /// The single value here, which must be one.
    pub(super) fn scalar(&self, wanted: &str) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => {
                self.wrong_type(wanted);
                None
            }
        }
    }

    /// Text. What another YAML tool would make a number or a boolean must be quoted.
    pub(super) fn text(&self) -> Option<&'a str> {
        let scalar = self.scalar("text")?;
        let other = retyped(&scalar.text).filter(|_| !scalar.quoted && !scalar.expanded);
        if let Some(other) = other {
            let message = format!(
                "{} is text, but other YAML tools read `{}` as {other}",
                self.subject(),
                scalar.text
            );
            let error = self.error("needs-quotes", message);
            self.push(error.label(format!("quote it: \"{}\"", scalar.text)));
            return None;
        }
        Some(&scalar.text)
    }

    /// Text that `parse` takes; its error is the rest of a sentence that begins with the value.
    pub(super) fn parsed<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text()?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.bad_value(text, &error.to_string());
                None
            }
        }
    }

    /// An address. A port alone is not called a number that lacks quotes: quotes would not help it.
    pub(super) fn address(&self) -> Option<Address> {
        let text = &self.scalar("an address like `127.0.0.1:8080`")?.text;
        text.parse().map_err(|error: AddressError| self.bad_value(text, &error.to_string())).ok()
    }

    /// Reports a value that does not fit, with what would.
    pub(super) fn bad_value(&self, found: &str, right: &str) {
        let message = format!("{} cannot be `{}`", self.subject(), shortened(found));
        self.push(self.error("bad-value", message).label(right));
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = &self.scalar(&either(&names))?.text;
        let value = words.iter().find(|(word, _)| word == found).map(|(_, value)| *value);
        if value.is_none() {
            let right = match nearest(found, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}", either(&names)),
            };
            self.bad_value(found, &right);
        }
        value
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.word(&[("true", true), ("false", false)])
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let text = &self.scalar(&wanted)?.text;
        let value = text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => {
                let code = if value.is_some() { "out-of-range" } else { "bad-value" };
                let message = match value {
                    Some(_) => format!("{} is out of range: `{text}`", self.subject()),
                    None => format!("{} cannot be `{}`", self.subject(), shortened(text)),
                };
                self.push(self.error(code, message).label(format!("write {wanted}")));
                None
            }
        }
    }

    /// As `integer`, for a type that holds the whole range.
    pub(super) fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        // The ranges that callers pass fit their types.
        self.integer(range).and_then(|value| T::try_from(value).ok())
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.unit("a duration like `250ms` or `2s`", parse_duration)
    }

    /// A duration above 0.
    pub(super) fn span_of_time(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            let message = format!("{} is out of range: `0`", self.subject());
            self.push(self.error("out-of-range", message).label("write a duration above 0"));
            return None;
        }
        Some(duration)
    }

    pub(super) fn size(&self) -> Option<ByteSize> {
        self.unit("a size like `64KiB`", str::parse)
    }

    pub(super) fn share(&self) -> Option<Ratio> {
        self.unit("a share like `20%`", str::parse)
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.unit("a rate like `100/s`", str::parse)
    }

    /// A size within a range.
    pub(super) fn size_within(&self, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let size = self.size()?;
        if !range.contains(&size) {
            let message = format!("{} is out of range: `{size}`", self.subject());
            let right = format!("write a size from {} to {}", range.start(), range.end());
            self.push(self.error("out-of-range", message).label(right));
            return None;
        }
        Some(size)
    }

    /// `unlimited` as `None`, or what `read` makes of anything else.
    pub(super) fn or_unlimited<T>(self, read: impl FnOnce(Self) -> Option<T>) -> Option<Option<T>> {
        const MEANT: [&str; 11] =
            ["0", "0s", "0ms", "-1", "none", "never", "no", "off", "false", "infinite", "infinity"];
        match &self.node.value {
            Value::Scalar(scalar) if scalar.text == "unlimited" => Some(None),
            Value::Scalar(scalar) if MEANT.contains(&scalar.text.as_str()) => {
                self.bad_value(&scalar.text, "no limit is written `unlimited`");
                None
            }
            Value::Scalar(scalar) if nearest(&scalar.text, ["unlimited"]).is_some() => {
                self.bad_value(&scalar.text, "did you mean `unlimited`?");
                None
            }
            _ => read(self).map(Some),
        }
    }

    /// `first..second`, each read by `parse`, in ascending order.
    pub(super) fn range_of_time(&self) -> Option<(Duration, Duration)> {
        let wanted = "two durations like `25ms..250ms`";
        let text = &self.scalar(wanted)?.text;
        let Some((first, second)) = text.split_once("..") else {
            self.bad_value(text, &format!("write {wanted}"));
            return None;
        };
        let parts = (parse_duration(first.trim()), parse_duration(second.trim()));
        match parts {
            (Ok(first), Ok(second)) if first <= second && !second.is_zero() => {
                Some((first, second))
            }
            (Ok(_), Ok(_)) => {
                self.bad_value(
                    text,
                    "the first duration is not above the second, which is above 0",
                );
                None
            }
            (Err(error), _) | (_, Err(error)) => {
                self.bad_unit(text, error);
                None
            }
        }
    }

    fn unit<T>(&self, wanted: &str, parse: impl FnOnce(&str) -> Result<T, UnitError>) -> Option<T> {
        let text = &self.scalar(wanted)?.text;
        parse(text).map_err(|error| self.bad_unit(text, error)).ok()
    }

    fn bad_unit(&self, text: &str, error: UnitError) {
        let subject = self.subject();
        let shown = shortened(text);
        let (code, message, label) = match error {
            // `abc` has no unit either, but that is not what is wrong with it.
            UnitError::Missing(wanted) if text.parse::<f64>().is_ok() => {
                let message = format!("{subject} lacks its unit: `{shown}`");
                ("missing-unit", message, format!("write {wanted}"))
            }
            UnitError::Missing(wanted) | UnitError::Malformed(wanted) => {
                ("bad-value", format!("{subject} cannot be `{shown}`"), format!("write {wanted}"))
            }
            UnitError::OutOfRange(range) => {
                ("out-of-range", format!("{subject} is out of range: `{shown}`"), range.to_owned())
            }
        };
        self.push(self.error(code, message).label(label));
    }
}

/// A value as one line, cut where it is long: the source line shows it whole.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(visible).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}
