//! `identity`, `tls`.

use rustls::pki_types::ServerName;

use crate::base::address::Address;
use crate::base::certificates::{Authorities, CertificateFiles};
use crate::base::identity::IdentityPattern;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::{ClientCert, Discover, ListenerTls, PlainText, Upstream, UpstreamTls};

use super::outliers::never_or;
use super::{At, Fields, top};

/// `identity`: a certificate with its key; who vouches for peers may be left out.
pub(super) fn identity(at: At<'_>) -> Option<CertificateFiles> {
    let fields = at.fields(&keys::IDENTITY)?;
    let files = files(&fields);
    for key in ["cert", "key"] {
        fields.required(key);
    }
    Some(files)
}

/// `never` as `None`.
pub(super) fn listener(at: At<'_>) -> Option<Option<ListenerTls>> {
    never_or(at, "a map with keys such as `client_cert`", |at| {
        let fields = at.fields(&keys::LISTENER_TLS)?;
        let words = [
            ("none", ClientCert::None),
            ("optional", ClientCert::Optional),
            ("required", ClientCert::Required),
        ];
        let client_cert = fields.read("client_cert", |at| at.word(&words));
        let plain = [("refuse", PlainText::Refuse), ("accept", PlainText::Accept)];
        let plain_text = fields.read("plain_text", |at| at.word(&plain));
        let allow = fields.read("allow", patterns);
        pair(&fields);
        Some(ListenerTls {
            files: files(&fields),
            client_cert: client_cert.unwrap_or(ClientCert::None),
            allow: allow.unwrap_or_default(),
            plain_text: plain_text.unwrap_or(PlainText::Refuse),
        })
    })
}

/// Puts what `identity` has where the listener has nothing, and says what is missing then.
pub(super) fn complete_listener(at: &At<'_>, mut tls: ListenerTls) -> ListenerTls {
    tls.files = tls.files.or(&at.reader.identity.borrow());
    let span = at.node.get("allow").map(|node| node.span);
    if let (Some(span), ClientCert::None) = (span, tls.client_cert) {
        let message = "`allow` names callers, and none is asked for a certificate";
        let error = Diagnostic::error("contradiction", span, message).at(at.path.key("allow"));
        at.push(error.label("add `client_cert: required`, or remove it"));
    }
    if tls.files.cert.is_none() {
        let error =
            Diagnostic::error("missing-key", at.place, "`tls` of a listener needs a certificate");
        at.push(
            error
                .at(at.path)
                .label("write `cert` and `key` here, or `identity` for the whole file"),
        );
    }
    if tls.files.ca.is_none() && tls.client_cert != ClientCert::None {
        let message = "nothing says who vouches for the certificates of callers";
        let error = Diagnostic::error("missing-key", at.place, message);
        at.push(error.at(at.path).label("write `ca` here or under `identity`"));
    }
    tls
}

/// `never` as `None`.
pub(super) fn upstream(at: At<'_>) -> Option<Option<UpstreamTls>> {
    never_or(at, "a map with keys such as `sni`", |at| {
        let fields = at.fields(&keys::UPSTREAM_TLS)?;
        pair(&fields);
        let sni = fields.read("sni", |at| at.parsed(server_name));
        let verify = fields.read("verify", patterns);
        let mut files = files(&fields).or(&at.reader.identity.borrow());
        files.ca.get_or_insert(Authorities::System);
        Some(UpstreamTls { files, sni, verify: verify.unwrap_or_default() })
    })
}

/// A host name that TLS can ask for.
fn server_name(text: &str) -> Result<String, &'static str> {
    let name = top::host_name(text)?;
    match ServerName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err("write a host name that a certificate can be for"),
    }
}

/// A unix socket has no address that a certificate could be for: somebody has to be named.
pub(super) fn name_of_sockets(fields: &Fields<'_>, upstream: &Upstream) {
    let (Some(tls), Some(at)) = (&upstream.tls, fields.get("tls")) else { return };
    let Discover::Endpoints(endpoints) = &upstream.discover else { return };
    let unix = endpoints.iter().any(|spec| matches!(spec.address, Address::Unix(_)));
    if unix && tls.sni.is_none() && tls.asked_name().is_none() {
        let message = "nothing says which name a unix socket is asked for";
        let error = Diagnostic::error("missing-key", at.place, message).at(at.path);
        at.push(error.label("write `sni`"));
    }
}

fn files(fields: &Fields<'_>) -> CertificateFiles {
    CertificateFiles {
        cert: fields.read("cert", top::absolute_path),
        key: fields.read("key", top::absolute_path),
        ca: fields.read("ca", |at| match at.text()? {
            "system" => Some(Authorities::System),
            _ => top::absolute_path(at).map(Authorities::File),
        }),
        crl: fields.read("crl", top::absolute_path),
    }
}

/// A certificate without its key is of no use, nor a key without its certificate.
fn pair(fields: &Fields<'_>) {
    for (key, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(at), None) = (fields.get(key), fields.get(other)) {
            let message = format!("`{key}` comes with `{other}`");
            let error = Diagnostic::error("missing-key", at.place, message).at(at.path);
            at.push(error.label(format!("write `{other}` beside it")));
        }
    }
}

fn patterns(at: At<'_>) -> Option<Vec<IdentityPattern>> {
    let items = at.one_or_more();
    if items.is_empty() {
        let error = at.error("missing-key", format!("{} names nobody", at.subject()));
        at.push(
            error.label("write at least one identity, such as `spiffe://trust-domain/ns/web/*`"),
        );
        return None;
    }
    let read = items.iter().filter_map(|item| item.parsed(IdentityPattern::parse));
    Some(read.collect())
}
