//! `breaker`, `adaptive` and `throttle` of an upstream. Each is `never` where it is turned off against a default.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::units::{Ratio, format_duration};
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Adaptive, Breaker, SlowCalls, Throttle};

use super::{At, Fields};

/// `never`, and the words that mean it; `Some(true)` where it is written.
fn never(at: &At<'_>) -> Option<bool> {
    let Value::Scalar(scalar) = &at.node.value else { return Some(false) };
    match scalar.text.as_str() {
        "never" => Some(true),
        word @ ("off" | "no" | "none" | "false" | "disabled") => {
            at.bad_value(word, "turned off is written `never`");
            None
        }
        _ => Some(false),
    }
}

pub(super) fn breaker(at: At<'_>) -> Option<Breaker> {
    if never(&at)? {
        return None;
    }
    #[expect(clippy::expect_used, reason = "invariant: the literal is in range")]
    let half = Ratio::from_percent(50.0).expect("50% is a share");
    let standard = Breaker {
        errors: half,
        slow: None,
        window: Duration::from_secs(10),
        min_requests: 20,
        open_for: Duration::from_secs(5),
        probes: 3,
    };
    if let Value::Scalar(_) = at.node.value {
        return share(&at).map(|errors| Breaker { errors, ..standard });
    }
    let fields = at.fields(&keys::BREAKER)?;
    let (second, minutes) = (Duration::from_secs(1), Duration::from_secs(300));
    let open_for = time(&fields, "open_for", Duration::from_millis(100)..=minutes * 12);
    Some(Breaker {
        errors: fields.read("errors", |at| share(&at)).unwrap_or(half),
        slow: fields.read("slow", |at| slow(at, half)),
        window: time(&fields, "window", second..=minutes).unwrap_or(standard.window),
        min_requests: fields
            .read("min_requests", |at| at.number(1..=1_000_000))
            .unwrap_or(standard.min_requests),
        open_for: open_for.unwrap_or(standard.open_for),
        probes: fields.read("probes", |at| at.number(1..=100)).unwrap_or(standard.probes),
    })
}

fn slow(at: At<'_>, half: Ratio) -> Option<SlowCalls> {
    let fields = at.fields(&keys::SLOW)?;
    let share = fields.read("share", |at| share(&at)).unwrap_or(half);
    let over = fields.required("over")?.span_of_time()?;
    Some(SlowCalls { share, over })
}

/// A share of which there can be something.
fn share(at: &At<'_>) -> Option<Ratio> {
    let share = at.share()?;
    if share.fraction() < 0.01 {
        let message = format!("{} is out of range: `{share}`", at.subject());
        at.push(at.error("out-of-range", message).label("write a share from 1% to 100%"));
        return None;
    }
    Some(share)
}

/// A duration within a range.
fn time(fields: &Fields<'_>, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
    let at = fields.get(key)?;
    let time = at.span_of_time()?;
    if !range.contains(&time) {
        let message = format!("{} is out of range: `{}`", at.subject(), format_duration(time));
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        let right = format!("write a duration from {least} to {most}");
        at.push(at.error("out-of-range", message).label(right));
        return None;
    }
    Some(time)
}

/// `adaptive`, which stands in place of `limits.in_flight`: where one is the file's default and the other an upstream's
/// own, the own one holds; where both are of one origin, that is a contradiction.
pub(super) fn adaptive(fields: &Fields<'_>) -> Option<Adaptive> {
    let at = fields.get("adaptive")?;
    if never(&at)? {
        return None;
    }
    let adaptive = at.word(&[("gradient", Adaptive::Gradient)])?;
    let limits = fields.at.node.get("limits");
    let Some(other) = limits.and_then(|node| node.entry("in_flight")) else {
        return Some(adaptive);
    };
    if at.node.inherited != other.node.inherited {
        return Some(adaptive).filter(|_| other.node.inherited);
    }
    let message = "`adaptive` and `limits.in_flight` exclude each other";
    let label = "it finds the limit by itself: keep one of the two";
    let error = at.error("exclusive-keys", message).label(label);
    at.push(error.related(other.key_span, "the other one"));
    None
}

pub(super) fn throttle(at: At<'_>) -> Option<Throttle> {
    if never(&at)? {
        return None;
    }
    if let Value::Scalar(_) = at.node.value {
        return factor(&at).map(|k| Throttle { k });
    }
    let fields = at.fields(&keys::THROTTLE)?;
    let k = fields.get("k").map_or(Some(2.0), |at| factor(&at))?;
    Some(Throttle { k })
}

fn factor(at: &At<'_>) -> Option<f64> {
    const WANTED: &str = "a number from 1.1 to 10, such as `2`";
    let text = &at.scalar(WANTED)?.text;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let Some(k) = text.parse::<f64>().ok().filter(|_| plain) else {
        at.bad_value(text, &format!("write {WANTED}"));
        return None;
    };
    if !(1.1..=10.0).contains(&k) {
        let message = format!("{} is out of range: `{text}`", at.subject());
        at.push(at.error("out-of-range", message).label(format!("write {WANTED}")));
        return None;
    }
    Some(k)
}
