//! The schema and the reader know the same keys, and take the same files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::config::keys;
use crate::config::load;
use crate::config::node::{Node, Scalar, Value};
use crate::config::source::Source;

use super::schema;

/// A tree as another YAML tool would read it.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(Scalar { text, quoted: true, .. }) => Json::from(text.as_str()),
        Value::Scalar(Scalar { text, .. }) => match (text.parse::<u64>(), text.as_str()) {
            (Ok(number), _) => Json::from(number),
            (_, "true") => Json::from(true),
            (_, "false") => Json::from(false),
            (_, text) => text.parse::<f64>().map_or_else(|_| Json::from(text), Json::from),
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect()
        }
    }
}

fn fits(text: &str) -> Result<(), String> {
    let mut out = Vec::new();
    let root = load::tree(&Source::new("f", text), &mut out).unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    validator
        .validate(&json(&root))
        .map_err(|error| format!("{error} at {}", error.instance_path()))
}

/// The keys of every map with fixed keys, by its title.
fn keys_of(schema: &Json, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match schema {
        Json::Object(map) => {
            if let (Some(Json::String(title)), Some(Json::Object(keys))) =
                (map.get("title"), map.get("properties"))
            {
                assert_eq!(map.get("additionalProperties"), Some(&Json::Bool(false)), "{title}");
                let known = found.entry(title.clone()).or_default();
                known.extend(keys.keys().cloned());
                for (key, value) in keys {
                    assert!(value.get("description").is_some(), "{title}: {key}");
                }
            }
            map.values().for_each(|value| keys_of(value, found));
        }
        Json::Array(items) => items.iter().for_each(|item| keys_of(item, found)),
        _ => {}
    }
}

#[test]
fn schema_and_reader_know_the_same_keys() {
    let mut found = BTreeMap::new();
    let mut schema = schema();
    schema["title"] = Json::from(keys::FILE.name);
    keys_of(&schema, &mut found);
    let wanted: BTreeMap<String, BTreeSet<String>> = keys::ALL
        .iter()
        .map(|s| (s.name.to_owned(), s.keys.iter().map(|key| (*key).to_owned()).collect()))
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn good_files_fit_the_schema() {
    assert_eq!(fits(crate::config::tests::NINE), Ok(()));
    assert_eq!(fits(include_str!("../../../config/full.yaml")), Ok(()));
}

#[test]
fn bad_files_do_not() {
    let nine = crate::config::tests::NINE;
    for (good, bad) in [
        ("to: articles", "too: articles"),
        ("to: articles", "timeout: 2s"),
        ("to: articles", "{ to: articles, respond: 404 }"),
        ("to: articles", "{ to: articles, timeout: 2 }"),
        ("to: articles", "{ to: articles, match: { path: /a, grpc: a.B } }"),
        ("discover:", "endpoints: [127.0.0.1:1]\n    discover:"),
        ("bind: 127.0.0.1:8080", "protocol: auto"),
    ] {
        let text = nine.replace(good, bad);
        assert_ne!(text, nine);
        assert!(fits(&text).is_err(), "{text}");
    }
}
