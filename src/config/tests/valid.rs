//! Files that load, and what they load to.

use super::{NINE, load};

/// Every supported key.
const FULL: &str = include_str!("../../../config/full.yaml");

#[test]
fn the_nine_lines_load_without_a_finding() {
    let loaded = load(NINE);
    assert_eq!(loaded.diagnostics, []);
    assert!(loaded.config.is_some());
}

#[test]
fn the_full_file_loads_without_a_finding() {
    let loaded = load(FULL);
    let text = crate::config::render(&loaded.diagnostics, &loaded.source, false);
    assert!(loaded.diagnostics.is_empty(), "{text}");
    assert!(loaded.config.is_some());
}

#[test]
fn what_is_printed_as_effective_loads_to_the_same() {
    for text in [NINE, FULL] {
        let first = load(text);
        let yaml = first.effective_yaml();
        let second = load(&yaml);
        let found = crate::config::render(&second.diagnostics, &second.source, false);
        assert!(second.diagnostics.is_empty(), "{found}\n{yaml}");
        assert!(first.config == second.config, "{yaml}");
        assert_eq!(yaml.lines().count(), second.effective_yaml().lines().count());
    }
}
