//! `file:///path`, or `{ file: { path } }`.

use std::path::PathBuf;

use crate::config::{Discover, keys};

use super::super::At;

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    Ok(Discover::File { path: path(rest)? })
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    let fields = at.fields(&keys::DISCOVER_FILE)?;
    let path = fields.required("path").and_then(|at| at.parsed(path))?;
    Some(Discover::File { path })
}

/// Relative to what would be anybody's guess: the configuration, or the folder that the proxy was started in.
fn path(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err("the path is absolute: write `file:///etc/outrigger/articles.yaml`");
    }
    if text.ends_with('/') {
        return Err("a folder is no list of endpoints: name a file in it");
    }
    Ok(path)
}
