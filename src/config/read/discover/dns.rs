//! `dns://host:port`, or `{ dns: { host, port } }`.

use std::net::IpAddr;

use crate::config::{Discover, keys};

use super::super::{At, top};

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    let (host, port) =
        rest.rsplit_once(':').ok_or("the port is missing: write `dns://name:port`")?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("the port is a number from 1 to 65535")?;
    Ok(Discover::Dns { host: name(host)?, port })
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    let fields = at.fields(&keys::DISCOVER_DNS)?;
    let port = fields.required("port").and_then(|at| at.number(1..=65_535));
    let host = fields.required("host").and_then(|at| at.parsed(name));
    Some(Discover::Dns { host: host?, port: port? })
}

fn name(host: &str) -> Result<String, &'static str> {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<IpAddr>().is_ok() {
        return Err("an IP address needs no DNS: write `endpoints: [address:port]`");
    }
    top::host_name(host)
}
