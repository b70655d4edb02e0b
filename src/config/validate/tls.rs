//! TLS that is not what it looks like.

use crate::config::diagnostic::Diagnostic;
use crate::config::node::{Node, Path};
use crate::config::{ClientCert, Config, Discover, Listener, PlainText, Upstream};

/// Traffic in clear to other machines, beside an identity that could protect it.
pub(super) fn plain_upstream(
    config: &Config,
    upstream: &Upstream,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let local = match &upstream.discover {
        Discover::Endpoints(endpoints) => endpoints.iter().all(|spec| spec.address.is_local()),
        _ => false,
    };
    // Whoever writes `never` has thought of it.
    if config.identity.is_none() || upstream.tls.is_some() || local || node.get("tls").is_some() {
        return;
    }
    let message =
        format!("`{}` is spoken to in clear, although there is an identity", upstream.name);
    let found = Diagnostic::warning("plain-text", node.span, message).at(path.key("tls"));
    out.push(found.label("add `tls: {}`, or `tls: never` where this is meant"));
}

/// A listener whose certificates protect from nobody.
pub(super) fn open_listener(
    listener: &Listener,
    node: &Node,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(tls) = &listener.tls else { return };
    if tls.client_cert != ClientCert::Required || tls.plain_text != PlainText::Accept {
        return;
    }
    let Some(node) = node.get("tls") else { return };
    let span = node.get("plain_text").unwrap_or(node).span;
    let message = "callers that speak no TLS are served without a certificate";
    let found = Diagnostic::warning("plain-text", span, message);
    out.push(
        found
            .at(path.key("tls").key("plain_text"))
            .label("remove it when the last of them speaks TLS"),
    );
}
