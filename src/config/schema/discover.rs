//! `discover` of an upstream: one entry for each provider.

use serde_json::{Value, json};

use super::parts::{any_of, integer, object, pattern, text};

pub(super) fn discover() -> Value {
    let mut long = object(
        "`discover`",
        &[],
        vec![(
            "dns",
            "A and AAAA records of a name.",
            object(
                "`discover.dns`",
                &["host", "port"],
                vec![
                    ("host", "The name; the search domains of `dns` apply.", text()),
                    ("port", "Of every address.", integer(1, 65_535)),
                ],
            ),
        )],
    );
    long["minProperties"] = json!(1);
    long["maxProperties"] = json!(1);
    any_of(vec![pattern("^dns://.+:[0-9]+$"), long])
}
