//! `consul://address:port/service?passing&tag=…&dc=…`, or `{ consul: { address, service, … } }`.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::diagnostic::nearest;
use crate::config::{ConsulService, Discover, keys};

use super::super::{At, tls, top};

const RIGHT: &str = "write `consul://127.0.0.1:8500/service`";

/// Bytes of a service's name, a tag, a datacenter.
const MAX_NAME: usize = 512;

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    let (agent, rest) =
        rest.split_once('/').ok_or_else(|| format!("the service is missing: {RIGHT}"))?;
    let (host, port) = address(agent)?;
    let (service, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut found = ConsulService {
        host,
        port,
        service: plain(service, "the service")?,
        tags: Vec::new(),
        datacenter: None,
        passing: false,
        token_file: None,
        tls: None,
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            None if parameter == "passing" => found.passing = true,
            Some(("tag", tag)) => found.tags.push(plain(tag, "a tag")?),
            Some(("dc", datacenter)) => found.datacenter = Some(plain(datacenter, "`dc`")?),
            _ => {
                let name = parameter.split('=').next().unwrap_or_default();
                return Err(match nearest(name, ["passing", "tag", "dc"]) {
                    Some("passing") => "write `passing` without a value".to_owned(),
                    Some(meant) => format!("did you mean `{meant}=…`?"),
                    None => "behind `?` stand `passing`, `tag=…` and `dc=…`".to_owned(),
                });
            }
        }
    }
    Ok(Discover::Consul(Box::new(found)))
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    let fields = at.fields(&keys::DISCOVER_CONSUL)?;
    let tags = fields.read("tags", |at| {
        Some(
            at.one_or_more()
                .iter()
                .filter_map(|at| at.parsed(|text| name(text, "a tag")))
                .collect(),
        )
    });
    let datacenter = fields.read("datacenter", |at| at.parsed(|text| name(text, "this")));
    let passing = fields.read("passing", |at| at.boolean());
    let token_file = fields.read("token_file", top::absolute_path);
    let tls = fields.read("tls", tls::upstream).flatten();
    let address = fields.required("address").and_then(|at| at.parsed(address));
    let service = fields.required("service").and_then(|at| at.parsed(|text| name(text, "this")));
    let (host, port) = address?;
    Some(Discover::Consul(Box::new(ConsulService {
        host,
        port,
        service: service?,
        tags: tags.unwrap_or_default(),
        datacenter,
        passing: passing.unwrap_or(false),
        token_file,
        tls,
    })))
}

fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) =
        text.rsplit_once(':').ok_or("the agent's port is missing, such as `127.0.0.1:8500`")?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("the port is a number from 1 to 65535")?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => host.to_owned(),
        None if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) => host.to_owned(),
        _ => top::host_name(host)?,
    };
    Ok((host, port))
}

/// A name that stands in a URL as it is.
fn plain(text: &str, what: &str) -> Result<String, String> {
    let special = |c: char| c.is_whitespace() || "/?#&=%".contains(c);
    if text.contains(special) {
        return Err(format!("{what} with such characters is written in the long form"));
    }
    name(text, what)
}

fn name(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
        return Err(format!("{what} is text of 1 to {MAX_NAME} bytes"));
    }
    Ok(text.to_owned())
}
