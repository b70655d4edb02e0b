//! `balance` and `subset` of an upstream, `hash` of a route.

use serde_json::{Value, json};

use super::Properties;
use super::parts::{
    any_of, boolean, duration, map_of, object, pattern, share, text, unlimited_or, words,
};
use crate::config::Balance;

pub(super) fn upstream_keys() -> Properties {
    let policies = || words(&Balance::WORDS.map(|(word, _)| word));
    let balance = object(
        "`balance`",
        &["policy"],
        vec![
            ("policy", "How an endpoint is picked.", policies()),
            (
                "panic",
                "Below this share of healthy endpoints, unhealthy ones are used too. Default 50%.",
                share(),
            ),
            (
                "zone_aware",
                "Requests stay in our `zone` as far as it has capacity. Default false.",
                boolean(),
            ),
            (
                "max_load",
                "Of `ring_hash`: requests in flight at an endpoint, of the mean, 100% to 1000%. Default 125%.",
                unlimited_or(share()),
            ),
        ],
    );
    vec![
        (
            "balance",
            "How an endpoint is picked. Default peak_ewma.",
            any_of(vec![policies(), balance]),
        ),
        ("subset", "Only endpoints with these labels.", subset()),
    ]
}

fn subset() -> Value {
    let mut subset = map_of(text());
    subset["type"] = json!("object");
    subset["minProperties"] = json!(1);
    subset
}

pub(super) fn hash() -> Value {
    let cookie = object(
        "`cookie`",
        &["name"],
        vec![
            ("name", "Of the cookie.", text()),
            ("ttl", "Whole seconds. Default: until the browser is closed.", duration()),
        ],
    );
    let named = pattern("^((header|query|cookie):.+|source_ip)$");
    let cookie = object("`hash`", &["cookie"], vec![("cookie", "Set if absent.", cookie)]);
    let item = any_of(vec![named, cookie]);
    any_of(vec![
        item.clone(),
        json!({ "type": "array", "minItems": 1, "maxItems": 8, "items": item }),
    ])
}
