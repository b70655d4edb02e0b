//! What is wrong with the files that a configuration names: for `check`, and before the first start.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::config::{Diagnostic, Loaded};
use crate::tls::Material;

use super::compile;

/// What is wrong with certificates: each file once, where it is written.
pub(in crate::control) fn findings(loaded: &Loaded) -> Vec<Diagnostic> {
    let Some(config) = &loaded.config else { return Vec::new() };
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for (files, owner) in compile::sets(config) {
        let Err(errors) = Material::load(&files, owner.vouched(), SystemTime::now()) else {
            continue;
        };
        for error in errors {
            let text = error.to_string();
            if !told.insert(text.clone()) {
                continue;
            }
            let own: &[&str] = match owner.kind {
                "listener" => &["listeners", &owner.name, "tls", error.key],
                "upstream" => &["upstreams", &owner.name, "tls", error.key],
                _ => &["identity", error.key],
            };
            // What is not written there is from the identity, or is the system's.
            let places = [own, &["identity", error.key], &own[..own.len() - 1]];
            let place = places.iter().find_map(|keys| Some((loaded.span(keys)?, keys.join("."))));
            let (span, path) = place.unwrap_or_default();
            found.push(Diagnostic::error("bad-certificate", span, text).at(path));
        }
    }
    found
}
