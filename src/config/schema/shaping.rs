//! What a route does to requests besides sending them on.

use serde_json::{Value, json};

use super::Properties;
use super::parts::{
    any_of, duration, integer, map_of, object, pattern, rate, share, unlimited_or, words,
};

pub(super) fn shaping_keys() -> Properties {
    let limit = object(
        "`rate_limit`",
        &["rate"],
        vec![
            ("rate", "Requests admitted for ever, 1/h to 1000000/s.", rate()),
            (
                "burst",
                "Requests admitted at once. Default: what the rate earns in a second, at least 1.",
                integer(1, 1_000_000),
            ),
            (
                "by",
                "Who has a limit of his own: `header:NAME`, `source` or `identity`. Default: the route has one.",
                pattern("^(header:.+|source|identity)$"),
            ),
            ("keys", "Keys told apart at once. Default 10000.", integer(1, 1_000_000)),
        ],
    );
    vec![
        (
            "rate_limit",
            "Requests per second, over all workers; more are answered 429. Default unlimited.",
            unlimited_or(any_of(vec![rate(), limit])),
        ),
        ("fault", "Failures on purpose. Default never.", any_of(vec![words(&["never"]), fault()])),
        (
            "mirror",
            "Upstreams that get copies, each with its share of the requests. Default never.",
            any_of(vec![words(&["never"]), map_of(share())]),
        ),
        (
            "hedge",
            "When a second attempt is raced against a slow first one. Default never.",
            any_of(vec![words(&["never"]), after(), hedge()]),
        ),
    ]
}

fn fault() -> Value {
    let delay = object(
        "`delay`",
        &["share", "for"],
        vec![
            ("share", "Of the route's requests.", share()),
            ("for", "Counted against the timeout.", duration()),
        ],
    );
    let abort = object(
        "`abort`",
        &["share"],
        vec![
            ("share", "Of the route's requests.", share()),
            ("status", "200 to 599. Default 503.", integer(200, 599)),
        ],
    );
    let mut fault = object(
        "`fault`",
        &[],
        vec![
            ("delay", "A share of the requests waits.", delay),
            ("abort", "A share of the requests is answered with an error.", abort),
        ],
    );
    fault["minProperties"] = json!(1);
    fault
}

fn after() -> Value {
    any_of(vec![pattern(r"^p[0-9][0-9.]*$"), duration()])
}

fn hedge() -> Value {
    let text = "A percentile of first attempts, `p50` to `p99.9`, or a duration.";
    object("`hedge`", &["after"], vec![("after", text, after())])
}
