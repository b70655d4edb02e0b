//! `outliers`, `slow_start`.

use std::time::Duration;

use crate::base::units::format_duration as shown;
use crate::config::node::Value;
use crate::config::outliers::{Outliers, SuccessRate};
use crate::config::{diagnostic::nearest, keys};

use super::{At, Fields};

/// The shortest ejection: below it, probing costs more than ejecting saves.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest first ejection, and the longest that any grows to.
const LONGEST: Duration = Duration::from_secs(300);

/// The longest slow start.
const LONGEST_RAMP: Duration = Duration::from_secs(3600);

/// `never` as `None`.
pub(super) fn outliers(at: At<'_>) -> Option<Option<Outliers>> {
    never_or(at, "a map with keys such as `consecutive`", |at| map(&at))
}

/// `never` as `None`.
pub(super) fn slow_start(at: At<'_>) -> Option<Option<Duration>> {
    never_or(at, "a duration", |at| within(&at, Duration::from_secs(1), LONGEST_RAMP))
}

/// `never` as `None`, or what `read` makes of anything else.
pub(super) fn never_or<'a, T>(
    at: At<'a>,
    wanted: &str,
    read: impl FnOnce(At<'a>) -> Option<T>,
) -> Option<Option<T>> {
    const MEANT: [&str; 8] = ["none", "no", "off", "false", "disabled", "null", "0", "unlimited"];
    match &at.node.value {
        Value::Scalar(scalar) if scalar.text == "never" => Some(None),
        Value::Scalar(scalar) if MEANT.contains(&scalar.text.as_str()) => {
            at.bad_value(&scalar.text, &format!("write `never`, or {wanted}"));
            None
        }
        Value::Scalar(scalar) if nearest(&scalar.text, ["never"]).is_some() => {
            at.bad_value(&scalar.text, "did you mean `never`?");
            None
        }
        _ => read(at).map(Some),
    }
}

fn map(at: &At<'_>) -> Option<Outliers> {
    let standard = Outliers::default();
    let fields = at.fields(&keys::OUTLIERS)?;
    let row = |key, standard| {
        let read = |at| never_or(at, "how many in a row", |at| at.number(1..=1_000));
        fields.read(key, read).unwrap_or(standard)
    };
    Some(Outliers {
        consecutive: row("consecutive", standard.consecutive),
        gateway: row("gateway", standard.gateway),
        local_origin: row("local_origin", standard.local_origin),
        success_rate: fields.read("success_rate", success_rate).unwrap_or(standard.success_rate),
        eject: fields.read("eject", |at| within(&at, SHORTEST, LONGEST)).unwrap_or(standard.eject),
        max_ejected: fields.read("max_ejected", |at| at.share()).unwrap_or(standard.max_ejected),
        enforce: fields.read("enforce", |at| at.boolean()).unwrap_or(standard.enforce),
    })
}

fn success_rate(at: At<'_>) -> Option<Option<SuccessRate>> {
    let standard = SuccessRate::default();
    never_or(at, "a map with keys such as `stdev`", |at| {
        let fields: Fields<'_> = at.fields(&keys::SUCCESS_RATE)?;
        Some(SuccessRate {
            stdev: fields.read("stdev", |at| deviations(&at)).unwrap_or(standard.stdev),
            min_hosts: fields
                .read("min_hosts", |at| at.number(2..=1_000))
                .unwrap_or(standard.min_hosts),
            min_requests: fields
                .read("min_requests", |at| at.number(1..=1_000_000))
                .unwrap_or(standard.min_requests),
        })
    })
}

/// A number of standard deviations.
fn deviations(at: &At<'_>) -> Option<f64> {
    const RIGHT: &str = "write a number from 0.1 to 10, such as 1.9";
    let text = &at.scalar("a number like `1.9`")?.text;
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    match text.parse::<f64>().ok().filter(|_| plain) {
        Some(value) if (0.1..=10.0).contains(&value) => Some(value),
        Some(_) => {
            let message = format!("{} is out of range: `{text}`", at.subject());
            at.push(at.error("out-of-range", message).label(RIGHT));
            None
        }
        None => {
            at.bad_value(text, RIGHT);
            None
        }
    }
}

fn within(at: &At<'_>, least: Duration, most: Duration) -> Option<Duration> {
    let time = at.span_of_time()?;
    if !(least..=most).contains(&time) {
        let message = format!("{} is out of range: `{}`", at.subject(), shown(time));
        let right = format!("write a duration from {} to {}", shown(least), shown(most));
        at.push(at.error("out-of-range", message).label(right));
        return None;
    }
    Some(time)
}
