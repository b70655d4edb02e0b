//! An upstream.

mod health;

use serde_json::{Value, json};

use super::parts::{any_of, duration, integer, object, rate, share, unlimited_or, words};
use super::{Properties, balance, discover, gate, outliers, tls};

pub(super) fn upstream() -> Value {
    let mut upstream = object("an upstream", &[], upstream_keys());
    upstream["oneOf"] = json!([{ "required": ["endpoints"] }, { "required": ["discover"] }]);
    upstream
}

pub(super) fn upstream_keys() -> Properties {
    let mut keys = vec![
        ("endpoints", "A fixed list of addresses.", discover::endpoints()),
        (
            "discover",
            "Where endpoints are found: a URL, or a map with one key.",
            discover::discover(),
        ),
        ("protocol", "What is spoken to it. Default auto.", words(&["http1", "http2", "auto"])),
        ("tls", "TLS towards endpoints. Default never.", tls::upstream()),
        ("connect_timeout", "Default 1s, and 250ms to a loopback endpoint.", duration()),
        (
            "pool",
            "Connections kept for reuse, per worker and endpoint.",
            object(
                "`pool`",
                &[],
                vec![
                    (
                        "idle",
                        "How long an unused connection is kept. Default auto.",
                        any_of(vec![words(&["auto"]), duration()]),
                    ),
                    ("max_idle", "Unused connections kept. Default 100.", integer(0, 65_535)),
                    (
                        "max_requests",
                        "Requests on one connection. Default unlimited.",
                        unlimited_or(integer(1, u64::MAX)),
                    ),
                    (
                        "max_age",
                        "Age after which a connection takes no further request. Default unlimited.",
                        unlimited_or(duration()),
                    ),
                ],
            ),
        ),
        ("limits", "Circuit breaking by resource, over every worker.", upstream_limits()),
        ("health", "Active health checks. Default never.", health::health()),
    ];
    keys.extend(balance::upstream_keys());
    keys.extend(gate::keys());
    keys.extend(outliers::keys());
    keys
}

fn upstream_limits() -> Value {
    let count = |least| unlimited_or(integer(least, u32::MAX.into()));
    let budget = object(
        "`retry_budget`",
        &[],
        vec![
            ("ratio", "Retries per request. Default 20%.", share()),
            ("floor", "Retries allowed whatever the traffic. Default 3/s.", rate()),
            ("window", "Requests are counted over this time, 1s to 5m. Default 10s.", duration()),
        ],
    );
    object(
        "an upstream's `limits`",
        &[],
        vec![
            ("connections", "Connections at once. Default 1024.", count(1)),
            ("in_flight", "Requests at once. Default 1024.", count(1)),
            (
                "pending",
                "Requests that wait for a place; 0 turns waiting off. Default 256.",
                count(0),
            ),
            ("queue", "How long one waits. Default 1s.", duration()),
            (
                "retry_budget",
                "Caps retries: a share, or its map. Default 20%.",
                any_of(vec![share(), budget]),
            ),
        ],
    )
}
