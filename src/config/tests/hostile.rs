//! Whatever the bytes are, loading ends with findings, never with a panic.

use proptest::prelude::*;

use crate::base::rng::Rng;
use crate::config::{Severity, endpoints_from, load_str, render, render_json, scenario_from};

/// Loads, renders both ways, and prints: all that a file can reach.
fn survives(text: &str) {
    let loaded = load_str("f", text, &|_| Some("x: [".to_owned()));
    let failed = loaded.diagnostics.iter().any(|found| found.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), failed);
    render(&loaded.diagnostics, &loaded.source, true);
    render_json(&loaded.diagnostics, &loaded.source);
    let yaml = loaded.effective_yaml();
    if loaded.config.is_some() {
        let again = load_str("f", &yaml, &|_| None);
        assert_eq!(again.config, loaded.config, "{yaml}");
    }
}

/// The full file with some of its bytes, lines or words replaced: near enough to reach every reader.
fn mutated(edits: &[(usize, usize, String)]) -> String {
    let mut text = include_str!("../../../config/full.yaml").to_owned();
    for (at, length, with) in edits {
        let mut start = at % text.len();
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + length).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        text.replace_range(start..end, with);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn a_damaged_file_of_endpoints_survives(seed in any::<u64>()) {
        let whole = b"- 10.0.0.1:80\n- { address: \"[::1]:81\", weight: 5, zone: a, labels: { v: \"2\" } }\n";
        let text = Rng::from_seed(seed).damaged(whole, b"{}[]:,-&*\n \"09");
        if let Err(why) = endpoints_from("f", &String::from_utf8_lossy(&text)) {
            prop_assert!(why.starts_with("f:") && !why.contains('\n'), "{}", why);
        }
    }

    #[test]
    fn a_damaged_scenario_survives(seed in any::<u64>()) {
        let whole = include_bytes!("../../../config/scenarios/black-hole.yaml");
        let text = Rng::from_seed(seed).damaged(whole, b"{}[]:,-&*\n \"09s%");
        let loaded = scenario_from("f", &String::from_utf8_lossy(&text), &|_| None);
        prop_assert_eq!(
            loaded.scenario.is_none(),
            loaded.diagnostics.iter().any(|found| found.severity == Severity::Error)
        );
    }

    #[test]
    fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn anything_that_looks_like_yaml_survives(text in "[a-c0-2{}\\[\\],:&*!|>'\"%@`#?\\- \n\t$~<]{0,60}") {
        survives(&text);
    }

    #[test]
    fn a_damaged_file_survives(
        edits in proptest::collection::vec((any::<usize>(), 0..12_usize, "[a-z0-9{}\\[\\]:, *&\n$%\\-\"]{0,4}"), 1..6)
    ) {
        survives(&mutated(&edits));
    }
}
