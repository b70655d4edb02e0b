//! `breaker`, `adaptive` and `throttle` of an upstream.

use serde_json::{Value, json};

use super::Properties;
use super::parts::{any_of, duration, integer, object, share, variable, words};

pub(super) fn keys() -> Properties {
    let factor =
        any_of(vec![json!({ "type": "number", "minimum": 1.1, "maximum": 10 }), variable()]);
    let throttle = object(
        "`throttle`",
        &[],
        vec![(
            "k",
            "How many times what it accepts it is sent, 1.1 to 10. Default 2.",
            factor.clone(),
        )],
    );
    vec![
        (
            "breaker",
            "Circuit breaking by state: `never`, a share of failures, or a map. Default never.",
            any_of(vec![words(&["never"]), share(), breaker()]),
        ),
        (
            "adaptive",
            "A limit of requests at once that is found by latency, in place of `limits.in_flight`. Default never.",
            words(&["gradient", "never"]),
        ),
        (
            "throttle",
            "Client-side throttling: `never`, its factor, or a map. Default never.",
            any_of(vec![words(&["never"]), factor, throttle]),
        ),
    ]
}

fn breaker() -> Value {
    let slow = object(
        "`slow`",
        &["over"],
        vec![
            ("share", "Opens at this share of slow answers, 1% to 100%. Default 50%.", share()),
            ("over", "An answer whose head takes longer is slow.", duration()),
        ],
    );
    object(
        "`breaker`",
        &[],
        vec![
            ("errors", "Opens at this share of failures, 1% to 100%. Default 50%.", share()),
            ("slow", "Opens at a share of slow answers, too. Default: not.", slow),
            ("window", "What the shares are shares of, 1s to 5m. Default 10s.", duration()),
            ("min_requests", "Fewer in the window say nothing. Default 20.", integer(1, 1_000_000)),
            ("open_for", "How long everything is refused, 100ms to 1h. Default 5s.", duration()),
            (
                "probes",
                "Requests that must succeed in a row, one at a time, before more pass. Default 3.",
                integer(1, 100),
            ),
        ],
    )
}
