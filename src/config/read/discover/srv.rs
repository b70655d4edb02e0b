//! `dns+srv://_service._proto.name`, or `{ dns+srv: { name } }`.

use crate::config::{Discover, keys};

use super::super::{At, top};

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    Ok(Discover::Srv { name: name(rest)? })
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    let fields = at.fields(&keys::DISCOVER_SRV)?;
    let name = fields.required("name").and_then(|at| at.parsed(name))?;
    Some(Discover::Srv { name })
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.contains(':') {
        return Err("SRV records have the port: write `dns+srv://_http._tcp.name`");
    }
    top::host_name(text)
}
