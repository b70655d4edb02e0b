//! What a route does to requests besides sending them on.

use super::Properties;
use super::parts::{any_of, integer, object, pattern, rate, unlimited_or};

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
                "Who has a limit of his own: `header:NAME` or `source`. Default: the route has one.",
                pattern("^(header:.+|source)$"),
            ),
            ("keys", "Keys told apart at once. Default 10000.", integer(1, 1_000_000)),
        ],
    );
    vec![(
        "rate_limit",
        "Requests per second, over all workers; more are answered 429. Default unlimited.",
        unlimited_or(any_of(vec![rate(), limit])),
    )]
}
