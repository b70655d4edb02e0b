//! `retry`.

use std::time::Duration;

use crate::base::units::ByteSize;
use crate::config::diagnostic::nearest;
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{BackoffRange, Retry, RetryMethods, RetryWhen};

use super::{At, matches};

/// Codes of gRPC from 0, as its documentation spells them.
pub(in crate::config) const GRPC: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// What holds where `retry` is not written: only what provably did not run is sent again.
pub(super) fn standard() -> Retry {
    Retry {
        when: RetryWhen::default(),
        attempts: 3,
        per_try: None,
        backoff: BackoffRange { first: Duration::from_millis(25), max: Duration::from_millis(250) },
        methods: RetryMethods::Idempotent,
        replay: ByteSize::kib(64),
    }
}

/// `never` as `None`.
pub(super) fn retry(at: At<'_>) -> Option<Option<Retry>> {
    if let Value::Scalar(scalar) = &at.node.value {
        let word = scalar.text.as_str();
        if word == "never" {
            return Some(None);
        }
        let right = match word {
            "off" | "no" | "none" | "false" | "disabled" | "0" => {
                "no retries at all are written `never`"
            }
            _ => "write `never`, or a map with keys such as `when` and `attempts`",
        };
        at.bad_value(word, right);
        return None;
    }
    let standard = standard();
    let fields = at.fields(&keys::RETRY)?;
    let backoff = fields.read("backoff", |at| at.range_of_time());
    Some(Some(Retry {
        when: fields.read("when", when).unwrap_or(standard.when),
        attempts: fields.read("attempts", |at| at.number(1..=10)).unwrap_or(standard.attempts),
        per_try: fields.read("per_try", |at| at.span_of_time()),
        backoff: backoff.map_or(standard.backoff, |(first, max)| BackoffRange { first, max }),
        methods: fields.read("methods", methods).unwrap_or(standard.methods),
        replay: fields
            .read("replay", |at| at.size_within(ByteSize(0)..=ByteSize::kib(16 * 1024)))
            .unwrap_or(standard.replay),
    }))
}

fn when(at: At<'_>) -> Option<RetryWhen> {
    let mut when = RetryWhen::default();
    for item in at.one_or_more() {
        match &item.node.value {
            Value::Map(_) => grpc(&item, &mut when),
            _ => condition(&item, &mut when),
        }
    }
    when.statuses.sort_unstable();
    when.statuses.dedup();
    when.grpc.sort_unstable();
    when.grpc.dedup();
    Some(when)
}

fn condition(at: &At<'_>, when: &mut RetryWhen) {
    const WORDS: [&str; 5] = ["safe", "reset", "gateway-error", "5xx", "per-try-timeout"];
    const WANTED: &str = "a word such as `gateway-error`, or a status from 400 to 599";
    let Some(scalar) = at.scalar(WANTED) else { return };
    match scalar.text.as_str() {
        "safe" => {}
        "reset" => when.reset = true,
        "gateway-error" => when.gateway_error = true,
        "5xx" => when.server_error = true,
        "per-try-timeout" => when.per_try_timeout = true,
        status if status.bytes().all(|byte| byte.is_ascii_digit()) && !status.is_empty() => {
            when.statuses.extend(at.number::<u16>(400..=599));
        }
        other => {
            let right = match nearest(other, WORDS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}, or a status from 400 to 599", super::either(&WORDS)),
            };
            at.bad_value(other, &right);
        }
    }
}

fn grpc(at: &At<'_>, when: &mut RetryWhen) {
    let Some(fields) = at.fields(&keys::RETRY_GRPC) else { return };
    let Some(at) = fields.required("grpc") else { return };
    for item in at.one_or_more() {
        let Some(scalar) = item.scalar("the name of a gRPC status") else { continue };
        let word = scalar.text.to_ascii_lowercase().replace('_', "-");
        let named = GRPC.iter().position(|name| *name == word);
        let code = named.or_else(|| word.parse().ok()).and_then(|code| u8::try_from(code).ok());
        match code {
            Some(code @ 1..=16) => when.grpc.push(code),
            Some(0) => item.bad_value(&word, "a call that ended well is not sent again"),
            _ => {
                let right = match nearest(&word, GRPC) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "write a status of gRPC, such as `unavailable`".to_owned(),
                };
                item.bad_value(&scalar.text, &right);
            }
        }
    }
}

fn methods(at: At<'_>) -> Option<RetryMethods> {
    if let Value::Scalar(_) = at.node.value {
        let words = [("idempotent", false), ("any", true)];
        return at.word(&words).map(|any| match any {
            true => RetryMethods::Any,
            false => RetryMethods::Idempotent,
        });
    }
    at.list("`idempotent`, `any` or a list of methods")?;
    Some(RetryMethods::Listed(matches::methods(&at)))
}
