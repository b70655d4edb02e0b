//! `authorize`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::base::identity::IdentityPattern;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Authorize, AuthorizeRule, ListenerProtocol};

use super::{At, Fields, matches};

/// The long form, or a bare list, which is `allow`.
pub(super) fn authorize(at: &At<'_>, protocol: ListenerProtocol) -> Option<Authorize> {
    if let Value::List(_) = at.node.value {
        return Some(Authorize { enforce: true, deny: Vec::new(), allow: rules(at, protocol) });
    }
    let fields = at.fields(&keys::AUTHORIZE)?;
    let list = |key| fields.get(key).map(|at| rules(&at, protocol)).unwrap_or_default();
    Some(Authorize {
        enforce: fields.read("enforce", |at| at.boolean()).unwrap_or(true),
        deny: list("deny"),
        allow: list("allow"),
    })
}

fn rules(at: &At<'_>, protocol: ListenerProtocol) -> Vec<AuthorizeRule> {
    let items = at.list("a list of rules").unwrap_or_default();
    items.iter().filter_map(|item| rule(item, protocol)).collect()
}

fn rule(at: &At<'_>, protocol: ListenerProtocol) -> Option<AuthorizeRule> {
    let fields = at.fields(&keys::AUTHORIZE_RULE)?;
    if at.node.is_null() || matches!(&at.node.value, Value::Map(entries) if entries.is_empty()) {
        let error = Diagnostic::error(
            "empty-rule",
            at.place,
            "a rule without conditions would hold for everyone",
        );
        at.push(
            error.at(at.path).label("if that is meant, write `{ source: [0.0.0.0/0, \"::/0\"] }`"),
        );
        return None;
    }
    if protocol == ListenerProtocol::Tcp {
        only_of_connections(&fields);
    }
    Some(AuthorizeRule {
        from: fields
            .read("from", |at| Some(any_of(&at, "an identity", identity)))
            .unwrap_or_default(),
        source: fields
            .read("source", |at| Some(any_of(&at, "a network", source)))
            .unwrap_or_default(),
        method: fields.read("method", |at| Some(matches::methods(&at))).unwrap_or_default(),
        path: fields
            .read("path", |at| Some(any_of(&at, "a path", |at| matches::path(*at))))
            .unwrap_or_default(),
        headers: fields.read("headers", matches::by_header).unwrap_or_default(),
    })
}

/// One value or a list of them, not empty.
fn any_of<T>(at: &At<'_>, what: &str, read: impl Fn(&At<'_>) -> Option<T>) -> Vec<T> {
    matches::not_empty(at, what);
    at.one_or_more().iter().filter_map(read).collect()
}

fn identity(at: &At<'_>) -> Option<IdentityPattern> {
    at.parsed(IdentityPattern::parse)
}

fn source(at: &At<'_>) -> Option<IpNet> {
    at.parsed(network)
}

/// `10.0.0.0/8`, `fd00::/8`, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    const RIGHT: &str = "write a network such as `10.0.0.0/8` or `fd00::/8`, or an address";
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| RIGHT.to_owned())?,
    };
    if network.trunc() != network {
        return Err(format!(
            "the network is `{}`; the address alone is `{}`",
            network.trunc(),
            network.addr()
        ));
    }
    match network {
        IpNet::V6(network)
            if network.addr().to_ipv4_mapped().is_some() && network.prefix_len() >= 96 =>
        {
            Err("IPv4 peers are matched as such, also on an IPv6 socket: write the network of IPv4"
                .to_owned())
        }
        _ => Ok(network),
    }
}

/// Nothing but identity and source is known of a connection whose bytes are passed on.
fn only_of_connections(fields: &Fields<'_>) {
    for key in ["method", "path", "headers"] {
        let Some(at) = fields.get(key) else { continue };
        let message =
            format!("`{key}` has no meaning on a `tcp` listener: no request is read there");
        let error = Diagnostic::error("tcp-authorize", at.place, message).at(at.path);
        at.push(error.label("remove it; `from` and `source` are known of a connection"));
    }
}
