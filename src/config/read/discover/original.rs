//! `original://`, or `{ original: {} }`.

use crate::config::{Discover, keys};

use super::super::At;

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    match rest {
        "" => Ok(Discover::Original),
        _ => Err("the connection itself says where it was going: write `original://`".to_owned()),
    }
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    at.fields(&keys::DISCOVER_ORIGINAL)?;
    Some(Discover::Original)
}
