//! `outliers`.

use serde_json::{Value, json};

use super::Properties;
use super::parts::{any_of, boolean, duration, integer, object, share, variable};

/// The keys of an upstream that say which of its endpoints get how much.
pub(super) fn keys() -> Properties {
    vec![
        (
            "slow_start",
            "How long an endpoint that joins or returns takes to its whole weight. Default never.",
            never_or(duration()),
        ),
        (
            "outliers",
            "`never`, or when an endpoint is taken out of traffic for its failures.",
            outliers(),
        ),
    ]
}

/// `never`, or what stands instead.
fn never_or(other: Value) -> Value {
    any_of(vec![json!({ "const": "never" }), other])
}

fn outliers() -> Value {
    let row = || never_or(integer(1, 1_000));
    let stdev = json!({ "type": "number", "minimum": 0.1, "maximum": 10 });
    let success_rate = object(
        "`success_rate`",
        &[],
        vec![
            (
                "stdev",
                "Standard deviations below the mean. Default 1.9.",
                any_of(vec![stdev, variable()]),
            ),
            ("min_hosts", "Endpoints with enough requests. Default 5.", integer(2, 1_000)),
            ("min_requests", "Requests of an endpoint in 10s. Default 100.", integer(1, 1_000_000)),
        ],
    );
    never_or(object(
        "`outliers`",
        &[],
        vec![
            ("consecutive", "Failures in a row. Default 5.", row()),
            ("gateway", "502, 503, 504 and UNAVAILABLE in a row. Default 5.", row()),
            (
                "success_rate",
                "Comparison with the other endpoints, every 10s.",
                never_or(success_rate),
            ),
            ("local_origin", "Failed connects in a row. Default 5.", row()),
            (
                "eject",
                "The first ejection, 100ms to 5m; the n-th in a row lasts n times as long. Default 10s.",
                duration(),
            ),
            ("max_ejected", "The share that may be out at once. Default 50%.", share()),
            ("enforce", "`false` counts and ejects nothing. Default true.", boolean()),
        ],
    ))
}
