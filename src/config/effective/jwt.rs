//! `jwt`.

use crate::base::units::format_duration;
use crate::config::node::{Node, Value};
use crate::config::{JwtIssuer, JwtMode};

use super::below;
use super::write::{Writer, list, quoted, text};

pub(super) fn issuers(w: &mut Writer<'_>, issuers: &[JwtIssuer], node: Option<&Node>) {
    if issuers.is_empty() {
        w.note("jwt: none, no tokens are asked for");
        return;
    }
    w.section("jwt", |w| {
        for (index, issuer) in issuers.iter().enumerate() {
            let node = match node.map(|node| &node.value) {
                Some(Value::List(items)) => items.get(index),
                _ => node,
            };
            w.item(|w| one(w, issuer, node));
        }
    });
}

fn one(w: &mut Writer<'_>, issuer: &JwtIssuer, node: Option<&Node>) {
    w.leaf("issuer", text(&issuer.issuer), below(node, "issuer", ""));
    w.leaf("jwks", quoted(&issuer.jwks), below(node, "jwks", ""));
    if !issuer.audience.is_empty() {
        w.leaf("audience", list(issuer.audience.iter().map(text)), below(node, "audience", ""));
    }
    w.leaf("leeway", format_duration(issuer.leeway), below(node, "leeway", ""));
    if !issuer.claims.is_empty() {
        let node = below(node, "claims", "");
        w.section("claims", |w| {
            for (claim, name) in &issuer.claims {
                w.leaf(&text(claim), quoted(name), below(node, claim, ""));
            }
        });
    }
}

/// A route's own word, where it is not the standard one.
pub(super) fn mode(w: &mut Writer<'_>, mode: JwtMode, node: Option<&Node>) {
    let word = match mode {
        JwtMode::Required => return,
        JwtMode::Optional => "optional",
        JwtMode::Never => "never",
    };
    w.leaf("jwt", word, below(node, "jwt", ""));
}
