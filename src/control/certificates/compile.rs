//! From `identity` and `tls` to what [`crate::tls`] takes.

use rustls::pki_types::ServerName;

use crate::base::certificates::CertificateFiles;
use crate::config::{self, Config, Discover, PlainText};
use crate::tls::{ClientCert, ClientSettings, ServerSettings};

use super::Owner;

pub(super) const IDENTITY: &str = "identity";

/// Every set of files in use, each with the first that wrote it down.
pub(super) fn sets(config: &Config) -> Vec<(CertificateFiles, Owner)> {
    let mut sets: Vec<(CertificateFiles, Owner)> = Vec::new();
    let mut add = |files: &CertificateFiles, kind, name: &str| {
        if !sets.iter().any(|(known, _)| known == files) {
            sets.push((files.clone(), Owner { kind, name: name.to_owned() }));
        }
    };
    if let Some(files) = &config.identity {
        add(files, IDENTITY, "");
    }
    for listener in &config.listeners {
        if let Some(tls) = &listener.tls {
            add(&tls.files, "listener", &listener.name);
        }
    }
    for upstream in &config.upstreams {
        if let Some(tls) = &upstream.tls {
            add(&tls.files, "upstream", &upstream.name);
        }
    }
    sets
}

pub(super) fn server(tls: &config::ListenerTls, http: bool) -> ServerSettings {
    ServerSettings {
        client_cert: match tls.client_cert {
            config::ClientCert::None => ClientCert::None,
            config::ClientCert::Optional => ClientCert::Optional,
            config::ClientCert::Required => ClientCert::Required,
        },
        allow: tls.allow.clone(),
        http,
        plain_text: tls.plain_text == PlainText::Accept,
    }
}

/// The TLS of an upstream with the name that is asked for, and its rules.
pub(super) fn client(upstream: &config::Upstream) -> Option<(config::UpstreamTls, ClientSettings)> {
    let mut tls = upstream.tls.clone()?;
    let verified = tls.asked_name();
    let looked_up = || match &upstream.discover {
        Discover::Dns { host, .. } => Some(host.clone()),
        _ => None,
    };
    tls.sni = tls.sni.clone().or(verified).or_else(looked_up);
    let name = tls.sni.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
    let settings = ClientSettings { name, verify: tls.verify.clone() };
    Some((tls, settings))
}
