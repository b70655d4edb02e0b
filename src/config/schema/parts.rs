//! The kinds of values that the format has. Each also takes a `${VAR}`, which is read as its kind when expanded.

#![expect(
    clippy::needless_pass_by_value,
    reason = "schemas are built inside out, each part used once"
)]

use serde_json::{Map, Value, json};

/// A map with fixed keys; an empty value stands for an empty map unless a key is required.
pub(super) fn object(
    title: &str,
    required: &[&str],
    properties: Vec<(&'static str, &'static str, Value)>,
) -> Value {
    let mut map = Map::new();
    for (key, description, mut schema) in properties {
        schema["description"] = Value::from(description);
        map.insert(key.to_owned(), schema);
    }
    let kinds = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    json!({
        "title": title, "type": kinds, "properties": map, "required": required,
        "additionalProperties": false,
    })
}

/// A map whose keys are the user's own.
pub(super) fn map_of(value: Value) -> Value {
    json!({ "type": ["object", "null"], "additionalProperties": value })
}

pub(super) fn list(item: Value) -> Value {
    json!({ "type": "array", "minItems": 1, "items": item })
}

/// One value, or a list of them.
pub(super) fn one_or_more(item: Value) -> Value {
    any_of(vec![item.clone(), list(item)])
}

pub(super) fn any_of(choices: Vec<Value>) -> Value {
    json!({ "anyOf": choices })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn pattern(regex: &str) -> Value {
    any_of(vec![json!({ "type": "string", "pattern": regex }), variable()])
}

/// A value that is known only when the environment is.
pub(super) fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

pub(super) fn words(words: &[&str]) -> Value {
    any_of(vec![json!({ "enum": words }), variable()])
}

pub(super) fn boolean() -> Value {
    any_of(vec![json!({ "type": "boolean" }), variable()])
}

pub(super) fn integer(least: u64, most: u64) -> Value {
    any_of(vec![json!({ "type": "integer", "minimum": least, "maximum": most }), variable()])
}

pub(super) fn unlimited_or(other: Value) -> Value {
    any_of(vec![json!({ "const": "unlimited" }), other])
}

pub(super) fn duration() -> Value {
    pattern(r"^[0-9][0-9.]*(us|ms|s|m|h)$")
}

pub(super) fn size() -> Value {
    pattern(r"^[0-9]+(B|KiB|MiB|GiB)$")
}

pub(super) fn share() -> Value {
    pattern(r"^[0-9][0-9.]*%$")
}

pub(super) fn rate() -> Value {
    pattern(r"^[0-9][0-9.]*/[smh]$")
}
