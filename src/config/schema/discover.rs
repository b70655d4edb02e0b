//! `discover` of an upstream: one entry for each provider.

use serde_json::{Value, json};

use super::parts::{any_of, boolean, integer, object, one_or_more, pattern, text};

pub(super) fn discover() -> Value {
    let mut long = object(
        "`discover`",
        &[],
        vec![
            ("dns", "A and AAAA records of a name.", dns()),
            ("consul", "Healthy instances of a service in Consul.", consul()),
        ],
    );
    long["minProperties"] = json!(1);
    long["maxProperties"] = json!(1);
    any_of(vec![
        pattern("^dns://.+:[0-9]+$"),
        pattern("^consul://.+:[0-9]+/[^/?#&=%]+([?].*)?$"),
        long,
    ])
}

fn dns() -> Value {
    object(
        "`discover.dns`",
        &["host", "port"],
        vec![
            ("host", "The name; the search domains of `dns` apply.", text()),
            ("port", "Of every address.", integer(1, 65_535)),
        ],
    )
}

fn consul() -> Value {
    object(
        "`discover.consul`",
        &["address", "service"],
        vec![
            ("address", "The agent, such as `127.0.0.1:8500`.", text()),
            ("service", "Its name in Consul.", text()),
            ("tags", "All of these an instance must have.", one_or_more(text())),
            ("datacenter", "Default: the agent's own.", text()),
            ("passing", "Without instances that have a warning. Default false.", boolean()),
            ("token_file", "Where the ACL token stands; read with each question.", text()),
        ],
    )
}
