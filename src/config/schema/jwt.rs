//! `jwt`.

use serde_json::Value;

use super::parts::{any_of, duration, list, map_of, object, one_or_more, pattern, text};

pub(super) fn issuers() -> Value {
    any_of(vec![issuer(), list(issuer())])
}

fn issuer() -> Value {
    object(
        "`jwt`",
        &["issuer", "jwks"],
        vec![
            ("issuer", "What `iss` of its tokens says, exactly.", text()),
            (
                "jwks",
                "Its public keys: `file:///…`, `https://…` or `http://…`.",
                pattern("^(file:///|https?://)"),
            ),
            ("audience", "One of these must be in `aud`.", one_or_more(text())),
            ("leeway", "How far clocks may be apart, 0s to 5m. Default 30s.", duration()),
            ("claims", "From claims to the headers that they become.", map_of(text())),
        ],
    )
}
