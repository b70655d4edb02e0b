//! What is wrong with the files of keys that a configuration names: for `check`, and before the first start.

use crate::config::{Diagnostic, Jwks, Loaded};

use super::load;

/// Each file that cannot be read or holds no keys, where it is written. An address is not asked: it may be out of reach here, and
/// keys that come later are no mistake.
pub(in crate::control) fn findings(loaded: &Loaded) -> Vec<Diagnostic> {
    let Some(config) = &loaded.config else { return Vec::new() };
    let mut found = Vec::new();
    for listener in &config.listeners {
        for (index, issuer) in listener.jwt.iter().enumerate() {
            let Jwks::File(path) = &issuer.jwks else { continue };
            let Err(error) = load(path) else { continue };
            let index = index.to_string();
            let listed = ["listeners", &listener.name, "jwt", &index, "jwks"];
            let alone = ["listeners", &listener.name, "jwt", "jwks"];
            let listed = loaded.span(&listed).map(|span| (span, format!("[{index}]")));
            let place = listed.or_else(|| Some((loaded.span(&alone)?, String::new())));
            let (span, index) = place.unwrap_or_default();
            let path = format!("listeners.{}.jwt{index}.jwks", listener.name);
            found.push(Diagnostic::error("bad-jwks", span, error).at(path));
        }
    }
    found
}
