use super::{MAX_BYTES, tree};
use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Value};
use crate::config::source::Source;

fn read(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut out = Vec::new();
    let root = tree(&Source::new("f", text), &mut out);
    (root, out)
}

fn codes(text: &str) -> Vec<&'static str> {
    read(text).1.iter().map(|diagnostic| diagnostic.code).collect()
}

fn scalar(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(scalar) => &scalar.text,
        _ => "",
    }
}

#[test]
fn every_key_and_value_knows_its_place() {
    let text = "é: 1\nlist:\n  - { a: \"b\" }\n";
    let (root, out) = read(text);
    let root = root.unwrap();
    assert_eq!(out, []);
    let list = root.entry("list").unwrap();
    assert_eq!(&text[list.key_span.range()], "list");
    let Value::List(items) = &list.node.value else { panic!("a list") };
    assert_eq!(&text[items[0].span.range()], "{ a: \"b\" }");
    let value = items[0].get("a").unwrap();
    assert_eq!(&text[value.span.range()], "\"b\"");
    assert!(matches!(&value.value, Value::Scalar(scalar) if scalar.quoted));
}

#[test]
fn all_duplicate_keys_are_told() {
    assert_eq!(codes("a: 1\na: 2\nb: { c: 1, c: 2 }\na: 3\n"), ["duplicate-key"; 3]);
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let (root, out) = read("base: &base { a: 1, b: 2 }\nuse: { <<: *base, b: 3 }\nall: *base\n");
    let root = root.unwrap();
    assert_eq!(out, []);
    let used = root.get("use").unwrap();
    assert_eq!((scalar(used.get("a").unwrap()), scalar(used.get("b").unwrap())), ("1", "3"));
    assert_eq!(root.get("all").unwrap().entries().len(), 2);
}

#[test]
fn a_file_is_bounded_in_size_nesting_and_values() {
    assert_eq!(codes(&"a".repeat(MAX_BYTES + 1)), ["too-large"]);
    assert_eq!(codes(&format!("{}{}", "[".repeat(100), "]".repeat(100))), ["too-large"]);
    assert_eq!(codes(&"- a\n".repeat(50_001)), ["too-large"]);
    // Each line repeats the one before ten times: a billion values in ten lines.
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..10 {
        let item = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [item.as_str(); 10].join(", ")));
    }
    assert_eq!(codes(&bomb), ["too-large"]);
    // Aliases nest what is nested already.
    let deep = format!(
        "a: &a {}{}\nb: {}*a{}\n",
        "[".repeat(20),
        "]".repeat(20),
        "[".repeat(20),
        "]".repeat(20)
    );
    assert_eq!(codes(&deep), ["too-large"]);
}

#[test]
fn what_yaml_1_1_would_retype_is_no_key() {
    assert_eq!(codes("on: 1\n\"off\": 2\n"), ["needs-quotes"]);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_taken() {
    let (root, out) = read("\u{feff}a: 1\r\nb:\r\n  c: \"2\"\r\n");
    let root = root.unwrap();
    assert_eq!(out, []);
    assert_eq!(scalar(root.get("a").unwrap()), "1");
    assert_eq!(scalar(root.get("b").and_then(|node| node.get("c")).unwrap()), "2");
}
