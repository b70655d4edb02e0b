//! `rate_limit`, `fault`, `mirror` and `hedge`.

use std::num::NonZeroU32;

use crate::base::units::{Rate, Ratio};
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Fault, FaultAbort, FaultDelay, Hedge, RateLimit, RateLimitBy, Shaping};

use super::{At, Fields, action};

/// All of it, of a route or of `defaults.route`.
pub(super) fn shaping(fields: &Fields<'_>) -> Shaping {
    Shaping {
        rate_limit: fields.read("rate_limit", rate_limit).flatten(),
        fault: fields.read("fault", fault).flatten(),
        mirror: fields.read("mirror", mirror).flatten().unwrap_or_default(),
        hedge: fields.read("hedge", hedge).flatten(),
    }
}

/// `never` as `None`, or what `read` makes of anything else.
fn or_never<T>(at: At<'_>, read: impl FnOnce(&At<'_>) -> Option<T>) -> Option<Option<T>> {
    const MEANT: [&str; 8] = ["off", "no", "none", "false", "disabled", "0", "0%", "unlimited"];
    match &at.node.value {
        Value::Scalar(scalar) if scalar.text == "never" => Some(None),
        Value::Scalar(scalar) if MEANT.contains(&scalar.text.as_str()) => {
            at.bad_value(&scalar.text, "what is off is written `never`");
            None
        }
        _ => read(&at).map(Some),
    }
}

fn hedge(at: At<'_>) -> Option<Option<Hedge>> {
    or_never(at, |at| match &at.node.value {
        Value::Scalar(_) => after(at),
        _ => {
            let fields = at.fields(&keys::HEDGE)?;
            fields.required("after").and_then(|at| after(&at))
        }
    })
}

fn after(at: &At<'_>) -> Option<Hedge> {
    const RIGHT: &str = "write a percentile from `p50` to `p99.9`, such as `p95`, or a duration";
    let text = at.scalar("a percentile such as `p95`, or a duration")?.text.as_str();
    let Some(percent) = text.strip_prefix('p') else {
        return at.span_of_time().map(Hedge::After);
    };
    let digits = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share = percent.parse().ok().filter(|percent| digits && (50.0..=99.9).contains(percent));
    let share = share.and_then(Ratio::from_percent);
    if share.is_none() {
        at.bad_value(text, RIGHT);
    }
    share.map(Hedge::Percentile)
}

fn mirror(at: At<'_>) -> Option<Option<Vec<(String, Ratio)>>> {
    or_never(at, |at| {
        let pairs = at.pairs("a map from upstreams to shares, such as `{ shadow: 5% }`")?;
        let targets = pairs.iter().map(|(entry, share)| {
            let known = action::known(share, &entry.key, entry.key_span);
            let share = share.share();
            known.and(share).map(|share| (entry.key.clone(), share))
        });
        // All of them are read, so that all mistakes are told.
        let targets: Vec<_> = targets.collect();
        targets.into_iter().collect()
    })
}

fn fault(at: At<'_>) -> Option<Option<Fault>> {
    or_never(at, |at| {
        let fields = at.fields(&keys::FAULT)?;
        if fields.get("delay").is_none() && fields.get("abort").is_none() {
            fields.missing("`delay`, `abort`, or both");
            return None;
        }
        Some(Fault { delay: fields.read("delay", delay), abort: fields.read("abort", abort) })
    })
}

fn delay(at: At<'_>) -> Option<FaultDelay> {
    let fields = at.fields(&keys::FAULT_DELAY)?;
    let share = fields.required("share").and_then(|at| at.share());
    let time = fields.required("for").and_then(|at| at.span_of_time());
    Some(FaultDelay { share: share?, time: time? })
}

fn abort(at: At<'_>) -> Option<FaultAbort> {
    let fields = at.fields(&keys::FAULT_ABORT)?;
    let share = fields.required("share").and_then(|at| at.share());
    let status = fields.read("status", |at| at.number(200..=599)).unwrap_or(503);
    Some(FaultAbort { share: share?, status: http::StatusCode::from_u16(status).ok()? })
}

/// `unlimited` as `None`.
fn rate_limit(at: At<'_>) -> Option<Option<RateLimit>> {
    at.or_unlimited(|at| match &at.node.value {
        Value::Scalar(_) => rate(&at).map(|rate| RateLimit {
            rate,
            burst: standard_burst(rate),
            by: RateLimitBy::Route,
            keys: STANDARD_KEYS,
        }),
        _ => {
            let fields = at.fields(&keys::RATE_LIMIT)?;
            let rate = fields.required("rate").and_then(|at| rate(&at));
            let burst = fields.read("burst", |at| at.number(1..=1_000_000));
            let by = fields.read("by", by);
            let keys = fields.read("keys", |at| at.number(1..=1_000_000));
            if let (Some(keys), None) = (fields.get("keys"), fields.get("by")) {
                let message = "`keys` without `by`: there are no keys to be told apart";
                keys.push(keys.error("contradiction", message).label("remove it, or add `by`"));
            }
            let rate = rate?;
            Some(RateLimit {
                rate,
                burst: burst.and_then(NonZeroU32::new).unwrap_or_else(|| standard_burst(rate)),
                by: by.unwrap_or(RateLimitBy::Route),
                keys: keys.and_then(NonZeroU32::new).unwrap_or(STANDARD_KEYS),
            })
        }
    })
}

/// More keys than a service has tenants or callers, in half a MiB.
const STANDARD_KEYS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

/// A second's worth: callers send in bursts, and one that keeps to its rate should not notice the limit.
fn standard_burst(rate: Rate) -> NonZeroU32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1 000 000")]
    let burst = rate.per_second().ceil().clamp(1.0, 1e6) as u32;
    NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)
}

fn rate(at: &At<'_>) -> Option<Rate> {
    let rate = at.rate()?;
    if !(1.0 / 3600.0..=1e6).contains(&rate.per_second()) {
        let message = format!("{} is out of range: `{rate}`", at.subject());
        let right = "write a rate from `1/h` to `1000000/s`";
        at.push(at.error("out-of-range", message).label(right));
        return None;
    }
    Some(rate)
}

fn by(at: At<'_>) -> Option<RateLimitBy> {
    const RIGHT: &str = "write `header:NAME`, `source` or `identity`";
    let text = at.scalar("`header:NAME`, `source` or `identity`")?.text.as_str();
    let right = match text.split_once(':') {
        None if text == "source" => return Some(RateLimitBy::Source),
        None if text == "identity" => return Some(RateLimitBy::Identity),
        None if text == "header" => "name the header, such as `header:x-tenant`",
        Some(("header", name)) => match http::HeaderName::from_bytes(name.trim().as_bytes()) {
            Ok(name) => return Some(RateLimitBy::Header(name)),
            Err(_) => "write the name of a header, such as `header:x-tenant`",
        },
        _ => RIGHT,
    };
    at.bad_value(text, right);
    None
}
