//! Tokens that are taken too easily.

use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path, Value};
use crate::config::{Jwks, Listener};

/// Warns of issuers whose tokens for others are taken, and of keys that can be replaced on their way.
pub(super) fn issuers(
    listener: &Listener,
    node: Option<&Node>,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(list) = node.and_then(|node| node.get("jwt")) else { return };
    let nodes = match &list.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(list),
    };
    let path = path.key("jwt");
    for (index, (issuer, node)) in listener.jwt.iter().zip(nodes).enumerate() {
        let path = path.index(index);
        if issuer.audience.is_empty() {
            let message = format!(
                "every token of `{}` is taken, those for other services as well",
                issuer.issuer
            );
            let span = node.get("issuer").unwrap_or(node).span;
            let found = Diagnostic::warning("jwt-without-audience", span, message);
            out.push(
                found.at(path).label("add `audience`, what `aud` of tokens for this service says"),
            );
        }
        if let Jwks::Http { tls: false, host, .. } = &issuer.jwks
            && !is_local(host)
        {
            let message = format!(
                "the keys of `{}` come over plain text: who can change them can sign",
                issuer.issuer
            );
            let span = node.get("jwks").unwrap_or(node).span;
            let found = Diagnostic::warning("jwks-in-the-clear", span, message);
            out.push(found.at(path).label("write `https://`"));
        }
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
