//! A route.

use serde_json::{Value, json};

use super::Properties;
use super::balance::hash;
use super::parts::{
    any_of, boolean, duration, integer, list, map_of, object, one_or_more, pattern, size, text,
    unlimited_or, variable, words,
};
use super::shaping::shaping_keys;

pub(super) fn route() -> Value {
    let mut route = object("a route", &[], route_keys());
    route["oneOf"] = json!([
        { "required": ["to"] }, { "required": ["redirect"] }, { "required": ["respond"] }
    ]);
    route
}

pub(super) fn route_keys() -> Properties {
    let to = any_of(vec![text(), map_of(integer(0, 1_000_000))]);
    let respond = any_of(vec![
        integer(200, 599),
        object(
            "`respond`",
            &["status"],
            vec![
                ("status", "200 to 599.", integer(200, 599)),
                ("body", "At most 64KiB. Default empty.", text()),
                ("content_type", "Default `text/plain; charset=utf-8`.", text()),
            ],
        ),
    ]);
    let mut keys = vec![
        ("name", "A metric label, unique in the listener. Default: listener[index].", text()),
        ("match", "All of it must hold. Default: everything.", matches()),
        ("to", "An upstream, or a map from upstreams to weights.", to),
        ("redirect", "Answers with another address.", redirect()),
        ("respond", "Answers by itself: a status, or its map.", respond),
        (
            "rewrite",
            "Changes path and host before the request is sent on.",
            object(
                "`rewrite`",
                &[],
                vec![
                    ("prefix", "In place of what stands before the match's `/*`.", text()),
                    ("host", "In place of the host.", text()),
                ],
            ),
        ),
        ("request_headers", "Edits before the request is sent on.", headers()),
        ("response_headers", "Edits before the answer is passed back.", headers()),
        ("timeout", "All attempts together. Default 15s.", unlimited_or(duration())),
        ("idle", "A stream on which nothing moves. Default 5m.", unlimited_or(duration())),
        (
            "retry",
            "`never`, or when and how a failed attempt is sent again.",
            any_of(vec![words(&["never"]), retry()]),
        ),
    ];
    keys.push((
        "jwt",
        "Whether a token is needed where the listener has `jwt`. Default required.",
        words(&["required", "optional", "never"]),
    ));
    keys.extend(shaping_keys());
    keys.push(("hash", "What ring_hash and maglev choose by: the first that is there.", hash()));
    keys
}

/// `{ regex: … }` of a path.
pub(super) fn expression() -> Value {
    let text = ("regex", "A regular expression; anchored only where it says so.", text());
    object("`path`", &["regex"], vec![text])
}

/// What is asked of a header or query parameter.
pub(super) fn value() -> Value {
    let mut value = object(
        "a value to match",
        &[],
        vec![
            ("present", "Whether it is there at all.", boolean()),
            ("prefix", "How it begins.", text()),
            ("regex", "A regular expression; anchored only where it says so.", text()),
        ],
    );
    value["minProperties"] = json!(1);
    value["maxProperties"] = json!(1);
    any_of(vec![text(), value])
}

fn matches() -> Value {
    let value = value();
    let path = any_of(vec![text(), expression()]);
    let mut matches = object(
        "`match`",
        &[],
        vec![
            ("host", "Any of these; `*.` stands for one or more labels.", one_or_more(text())),
            ("path", "`/v2/*`, `/v2/x`, `/users/{id}`, or { regex: … }.", path),
            ("grpc", "`package.Service` or `package.Service/Method`.", text()),
            ("method", "Any of these. Default: all but CONNECT.", one_or_more(text())),
            ("headers", "All of these.", map_of(value.clone())),
            ("query", "All of these query parameters.", map_of(value)),
        ],
    );
    matches["not"] = json!({ "required": ["path", "grpc"] });
    matches
}

fn redirect() -> Value {
    let mut redirect = object(
        "`redirect`",
        &[],
        vec![
            (
                "status",
                "Default 308, which keeps method and body.",
                words_or_numbers(&[301, 302, 303, 307, 308]),
            ),
            ("scheme", "Default: as the request came.", words(&["http", "https"])),
            ("host", "Host, with port where wanted.", text()),
            ("path", "The whole path.", text()),
            ("prefix", "In place of what stands before the match's `/*`.", text()),
        ],
    );
    redirect["not"] = json!({ "required": ["path", "prefix"] });
    redirect["anyOf"] = json!([
        { "required": ["scheme"] }, { "required": ["host"] }, { "required": ["path"] }, { "required": ["prefix"] }
    ]);
    redirect
}

fn words_or_numbers(numbers: &[u16]) -> Value {
    any_of(vec![json!({ "enum": numbers }), variable()])
}

fn headers() -> Value {
    object(
        "header edits",
        &[],
        vec![
            ("set", "Replaces every value of a name.", map_of(text())),
            ("append", "Adds a value beside those there are.", map_of(text())),
            ("remove", "Removes every value of a name.", one_or_more(text())),
        ],
    )
}

fn retry() -> Value {
    let grpc = object(
        "`when`",
        &["grpc"],
        vec![(
            "grpc",
            "Statuses of gRPC, such as `unavailable`.",
            one_or_more(any_of(vec![text(), integer(1, 16)])),
        )],
    );
    let condition = any_of(vec![
        words(&["safe", "reset", "gateway-error", "5xx", "per-try-timeout"]),
        integer(400, 599),
        grpc,
    ]);
    object(
        "`retry`",
        &[],
        vec![
            ("when", "Beyond `safe`, which is always included.", one_or_more(condition)),
            ("attempts", "In all, 1 to 10. Default 3.", integer(1, 10)),
            (
                "per_try",
                "One attempt; below `timeout`. Default: only the timeout bounds it.",
                duration(),
            ),
            (
                "backoff",
                "Bound of the first wait and of every wait, with full jitter. Default 25ms..250ms.",
                pattern(r"^[^.]+\.\..+$"),
            ),
            (
                "methods",
                "Which methods may be sent again beyond `safe`. Default idempotent.",
                any_of(vec![words(&["idempotent", "any"]), list(text())]),
            ),
            (
                "replay",
                "Request body kept for another attempt, up to 16MiB. Default 64KiB.",
                size(),
            ),
        ],
    )
}
