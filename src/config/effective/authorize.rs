//! `authorize`.

use crate::config::node::{Node, Value};
use crate::config::{Authorize, AuthorizeRule};

use super::below;
use super::write::{Writer, list, named, path, quoted, text, value};

pub(super) fn authorize(w: &mut Writer<'_>, authorize: Option<&Authorize>, node: Option<&Node>) {
    let Some(authorize) = authorize else {
        w.note("authorize: none, everyone may call everything");
        return;
    };
    w.section("authorize", |w| {
        w.leaf("enforce", authorize.enforce, below(node, "enforce", ""));
        rules(w, "deny", &authorize.deny, below(node, "deny", ""));
        rules(w, "allow", &authorize.allow, below(node, "allow", "allow"));
    });
}

fn rules(w: &mut Writer<'_>, key: &str, rules: &[AuthorizeRule], node: Option<&Node>) {
    if rules.is_empty() {
        w.leaf(key, "[]", node);
        return;
    }
    w.section(key, |w| {
        for (index, rule) in rules.iter().enumerate() {
            let node = match node.map(|node| &node.value) {
                Some(Value::List(items)) => items.get(index),
                _ => None,
            };
            w.item(|w| conditions(w, rule, node));
        }
    });
}

fn conditions(w: &mut Writer<'_>, rule: &AuthorizeRule, node: Option<&Node>) {
    let lists = [
        ("from", rule.from.iter().map(quoted).collect()),
        ("source", rule.source.iter().map(quoted).collect()),
        ("method", rule.method.iter().map(quoted).collect()),
        ("path", rule.path.iter().map(path).collect::<Vec<String>>()),
    ];
    for (key, items) in lists {
        if !items.is_empty() {
            w.leaf(key, list(items.iter()), below(node, key, ""));
        }
    }
    if !rule.headers.is_empty() {
        let node = below(node, "headers", "");
        w.section("headers", |w| {
            for (name, wanted) in &rule.headers {
                let node = node.and_then(|node| named(node, name.as_str()));
                w.leaf(&text(name.as_str()), value(wanted), node);
            }
        });
    }
}
