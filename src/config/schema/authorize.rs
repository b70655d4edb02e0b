//! `authorize`.

use serde_json::{Value, json};

use super::parts::{any_of, boolean, map_of, object, one_or_more, text};
use super::route;

pub(super) fn authorize() -> Value {
    let rules = || json!({ "type": "array", "items": rule() });
    let long = object(
        "`authorize`",
        &[],
        vec![
            (
                "enforce",
                "`false` counts what would be denied and lets it pass. Default true.",
                boolean(),
            ),
            ("deny", "Asked first: a rule that holds denies.", rules()),
            ("allow", "A rule that holds allows; whatever none takes is denied.", rules()),
        ],
    );
    any_of(vec![rules(), long])
}

fn rule() -> Value {
    let path = any_of(vec![text(), route::expression()]);
    let mut rule = object(
        "an `authorize` rule",
        &[],
        vec![
            (
                "from",
                "Identities that a client certificate proves: `spiffe://td/ns/web/*`, `web.example`, `*.web.example`.",
                one_or_more(text()),
            ),
            ("source", "Networks, such as `10.0.0.0/8`.", one_or_more(text())),
            ("method", "Any of these.", one_or_more(text())),
            ("path", "As in `match`; any of these.", one_or_more(path)),
            ("headers", "As in `match`; all of these.", map_of(route::value())),
        ],
    );
    rule["type"] = json!("object");
    rule["minProperties"] = json!(1);
    rule
}
