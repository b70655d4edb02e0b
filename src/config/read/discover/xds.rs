//! `xds://host:port/resource`, or `{ xds: { address, resource, node, tls } }`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::node::Value;
use crate::config::{Discover, XdsSource, keys};

use super::super::{At, tls, top};

/// Longer names than this are a mistake, and every one is sent in each request.
const MAX_NAME: usize = 1024;

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    supported()?;
    let (address, name) = rest
        .split_once('/')
        .ok_or("the resource is missing: write `xds://control-plane:18000/articles`")?;
    let ((host, port), resource) = (host_and_port(address)?, resource(name)?);
    Ok(Discover::Xds(Box::new(XdsSource {
        host,
        port,
        resource,
        node: None,
        cluster: None,
        tls: None,
    })))
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    if let Err(right) = supported() {
        at.push(
            at.error("unsupported-key", "`discover: xds` is not part of this build").label(right),
        );
        return None;
    }
    let fields = at.fields(&keys::DISCOVER_XDS)?;
    let resource = fields.required("resource").and_then(|at| at.parsed(resource));
    let (node, cluster) = fields.read("node", |at| node(&at)).unwrap_or_default();
    let tls = fields.read("tls", tls::upstream).flatten();
    let (host, port) = fields.required("address").and_then(|at| at.parsed(host_and_port))?;
    Some(Discover::Xds(Box::new(XdsSource { host, port, resource: resource?, node, cluster, tls })))
}

/// The id alone, or a map.
fn node(at: &At<'_>) -> Option<(Option<String>, Option<String>)> {
    if let Value::Scalar(_) = &at.node.value {
        return Some((at.parsed(resource), None));
    }
    let fields = at.fields(&keys::DISCOVER_XDS_NODE)?;
    let [id, cluster] = ["id", "cluster"].map(|key| fields.read(key, |at| at.parsed(resource)));
    Some((id, cluster))
}

fn supported() -> Result<(), &'static str> {
    match cfg!(feature = "xds") {
        true => Ok(()),
        false => Err("this build has no `xds`: build with `--features xds`"),
    }
}

fn host_and_port(address: &str) -> Result<(String, u16), &'static str> {
    let (host, port) =
        address.rsplit_once(':').ok_or("the port is missing: write `control-plane:18000`")?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("the port is a number from 1 to 65535")?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if inner.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
        || host.parse::<Ipv4Addr>().is_ok()
    {
        return Ok((host.to_owned(), port));
    }
    Ok((top::host_name(host)?, port))
}

/// A name as control planes have them: any visible text.
fn resource(name: &str) -> Result<String, &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a name has 1 to 1024 bytes");
    }
    if name.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err("a name has no blanks and no control characters");
    }
    Ok(name.to_owned())
}
