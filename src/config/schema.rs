//! The file format as a JSON Schema, for editors: completion, hints, and most mistakes underlined while typing.
//!
//! Built by hand rather than derived: short and long forms, units, `unlimited` and `${}` are in the format, not in
//! the types. What a schema cannot say (unknown upstreams, timeouts that contradict) only the loader tells.

mod authorize;
mod balance;
mod discover;
mod gate;
mod jwt;
mod outliers;
mod parts;
mod route;
mod shaping;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;

use serde_json::{Value, json};

use parts::{
    any_of, duration, integer, list, map_of, object, one_or_more, pattern, share, size, text,
    unlimited_or, words,
};
use route::{route, route_keys};
use upstream::{upstream, upstream_keys};

/// The schema of a configuration file (JSON Schema 2020-12).
pub fn schema() -> Value {
    let mut schema = object("the file", &["listeners"], file());
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("outrigger configuration");
    schema
}

type Properties = Vec<(&'static str, &'static str, Value)>;

fn file() -> Properties {
    vec![
        ("service", "Who we are: goes into logs and headers. Default: outrigger.", text()),
        ("zone", "Our own zone. Default: empty.", text()),
        (
            "compat",
            "`envoy`: also read the timeouts that Envoy's callers send. Default: none.",
            words(&["envoy", "none"]),
        ),
        ("admin", "The admin server: an address, or its map. Default: none.", admin()),
        ("runtime", "Threads and life cycle.", runtime()),
        ("access_log", "Where and what the access log writes.", access_log()),
        (
            "metrics",
            "Metrics.",
            object(
                "`metrics`",
                &[],
                vec![(
                    "buckets",
                    "Upper bounds of the latency histogram, ascending, 1 to 50 of them.",
                    list(duration()),
                )],
            ),
        ),
        ("dns", "The resolver for dns://.", dns()),
        ("identity", "Our certificate, and who vouches for peers.", tls::identity()),
        (
            "defaults",
            "Merged into every listener, route and upstream that does not say otherwise.",
            defaults(),
        ),
        ("listeners", "Bound addresses and their routes, by name.", map_of(listener())),
        ("upstreams", "Groups of endpoints and their policy, by name.", map_of(upstream())),
    ]
}

fn admin() -> Value {
    let long = object(
        "`admin`",
        &["bind"],
        vec![
            ("bind", "Address of the admin server.", text()),
            ("token_file", "A file with the token that callers from elsewhere send.", text()),
        ],
    );
    any_of(vec![text(), long])
}

fn runtime() -> Value {
    object(
        "`runtime`",
        &[],
        vec![
            (
                "workers",
                "Worker threads, or `auto`: the CPUs that the cgroup grants, at most 4.",
                any_of(vec![words(&["auto"]), integer(1, 64)]),
            ),
            (
                "drain",
                "What happens from SIGTERM on.",
                object(
                    "`drain`",
                    &[],
                    vec![
                        ("delay", "Until new connections are refused. Default 5s.", duration()),
                        (
                            "deadline",
                            "Until what is left is cut, the delay included. Default 25s.",
                            duration(),
                        ),
                    ],
                ),
            ),
        ],
    )
}

fn access_log() -> Value {
    object(
        "`access_log`",
        &[],
        vec![
            ("to", "`stdout`, `stderr` or an absolute path. Default stdout.", text()),
            ("format", "Default json.", words(&["json"])),
            (
                "only",
                "Which requests are written; a share adds every error. Default all.",
                any_of(vec![words(&["all", "errors", "never"]), share()]),
            ),
        ],
    )
}

fn dns() -> Value {
    object(
        "`dns`",
        &[],
        vec![
            ("servers", "Name servers. Default: the system's.", one_or_more(text())),
            ("search", "Search domains. Default: the system's.", one_or_more(text())),
            (
                "ttl",
                "Answers are asked again after their TTL, clamped to this range. Default 1s..60s.",
                pattern(r"^[^.]+\.\..+$"),
            ),
        ],
    )
}

fn defaults() -> Value {
    let keep = |properties: Properties, section: &crate::config::keys::Section| -> Properties {
        properties.into_iter().filter(|(key, ..)| section.keys.contains(key)).collect()
    };
    use crate::config::keys::{LISTENER_DEFAULTS, ROUTE_DEFAULTS, UPSTREAM_DEFAULTS};
    let part = |properties, section: &'static crate::config::keys::Section| {
        object(section.name, &[], keep(properties, section))
    };
    object(
        "`defaults`",
        &[],
        vec![
            (
                "listener",
                "What a listener may leave out.",
                part(listener_keys(), &LISTENER_DEFAULTS),
            ),
            ("route", "What a route may leave out.", part(route_keys(), &ROUTE_DEFAULTS)),
            (
                "upstream",
                "What an upstream may leave out.",
                part(upstream_keys(), &UPSTREAM_DEFAULTS),
            ),
        ],
    )
}

fn listener() -> Value {
    object("a listener", &["bind", "routes"], listener_keys())
}

fn listener_keys() -> Properties {
    vec![
        ("bind", "`127.0.0.1:8080`, `[::1]:8080` or `unix:/run/app.sock`.", text()),
        (
            "protocol",
            "Default auto: TLS, HTTP/2 and HTTP/1, told apart.",
            words(&["auto", "http", "tcp"]),
        ),
        (
            "direction",
            "Default: outbound on a loopback or unix address, inbound elsewhere.",
            words(&["inbound", "outbound"]),
        ),
        ("tls", "TLS towards callers. Default never.", tls::listener()),
        (
            "original_destination",
            "Connections are redirected here by the packet filter. Default false.",
            parts::boolean(),
        ),
        (
            "authorize",
            "Who may call what: a list of what is allowed, or its map. Default: everyone everything.",
            authorize::authorize(),
        ),
        (
            "jwt",
            "Whose tokens are taken: a request without a valid one is answered 401. Default: none are asked for.",
            jwt::issuers(),
        ),
        ("limits", "What a peer may use.", listener_limits()),
        (
            "routes",
            "First match wins.",
            json!({ "type": "array", "minItems": 1, "items": route() }),
        ),
    ]
}

fn listener_limits() -> Value {
    let time = || unlimited_or(duration());
    object(
        "a listener's `limits`",
        &[],
        vec![
            (
                "connections",
                "Connections at once. Default 10000.",
                unlimited_or(integer(1, u32::MAX.into())),
            ),
            (
                "per_source",
                "Connections at once from one address (IPv6: one /64). Default unlimited.",
                unlimited_or(integer(1, 65_535)),
            ),
            ("headers", "Headers in a request. Default 100.", integer(1, 1_000)),
            ("header_bytes", "Bytes of a request's head, 8KiB to 1MiB. Default 64KiB.", size()),
            ("header_timeout", "From a head's first byte to its last. Default 10s.", time()),
            ("body", "Bytes of a request's body. Default unlimited.", unlimited_or(size())),
            ("body_timeout", "Longest pause within a request's body. Default 60s.", time()),
            ("idle", "A connection without a request. Default 60s; 1h for tcp.", time()),
            (
                "max_age",
                "Age after which a connection is closed gracefully. Default unlimited.",
                time(),
            ),
            ("streams", "HTTP/2 streams at once on a connection. Default 256.", integer(1, 65_535)),
        ],
    )
}
