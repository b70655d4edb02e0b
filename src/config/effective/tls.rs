//! `identity`, `tls`.

use crate::base::certificates::{Authorities, CertificateFiles};
use crate::config::node::Node;
use crate::config::{ClientCert, ListenerTls, PlainText, UpstreamTls};

use super::below;
use super::write::{Writer, list, quoted, text};

pub(super) fn identity(w: &mut Writer<'_>, files: Option<&CertificateFiles>, node: Option<&Node>) {
    match files {
        None => w.note("identity: none"),
        Some(set) => w.section("identity", |w| files_of(w, set, node, None)),
    }
}

pub(super) fn listener(
    w: &mut Writer<'_>,
    tls: Option<&ListenerTls>,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    let Some(tls) = tls else { return w.leaf("tls", "never", node) };
    w.section("tls", |w| {
        let client_cert = match tls.client_cert {
            ClientCert::None => "none",
            ClientCert::Optional => "optional",
            ClientCert::Required => "required",
        };
        w.leaf("client_cert", client_cert, below(node, "client_cert", ""));
        match tls.allow.is_empty() {
            true => w.note("allow: everyone that is vouched for"),
            false => w.leaf("allow", list(tls.allow.iter().map(quoted)), below(node, "allow", "")),
        }
        let plain_text = match tls.plain_text {
            PlainText::Refuse => "refuse",
            PlainText::Accept => "accept",
        };
        w.leaf("plain_text", plain_text, below(node, "plain_text", ""));
        files_of(w, &tls.files, node, identity);
    });
}

pub(super) fn upstream(
    w: &mut Writer<'_>,
    tls: Option<&UpstreamTls>,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    let Some(tls) = tls else { return w.leaf("tls", "never", node) };
    w.section("tls", |w| {
        match &tls.sni {
            None => w.note("sni: by `verify`, discovery or address"),
            Some(name) => w.leaf("sni", text(name), below(node, "sni", "")),
        }
        match tls.verify.is_empty() {
            true => w.note("verify: the name that is asked for"),
            false => {
                w.leaf("verify", list(tls.verify.iter().map(quoted)), below(node, "verify", ""));
            }
        }
        files_of(w, &tls.files, node, identity);
    });
}

/// The files in force: what is not written here is from `identity`.
fn files_of(
    w: &mut Writer<'_>,
    files: &CertificateFiles,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    let ca = files.ca.as_ref().map(|ca| match ca {
        Authorities::System => "system".to_owned(),
        Authorities::File(path) => quoted(path.display()),
    });
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| quoted(path.display()));
    let values = [
        ("cert", path(&files.cert)),
        ("key", path(&files.key)),
        ("ca", ca),
        ("crl", path(&files.crl)),
    ];
    for (key, value) in values {
        match value {
            None => w.note(&format!("{key}: none")),
            Some(value) => {
                let node = below(node, key, "").or_else(|| below(identity, key, ""));
                w.leaf(key, value, node);
            }
        }
    }
}
