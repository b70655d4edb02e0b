//! `identity`, and `tls:` of listeners and upstreams.

use crate::base::certificates::CertificateFiles;
use crate::base::identity::IdentityPattern;

/// `tls:` of a listener: callers are spoken to in TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// What is written here, and what `identity` has where it is not. `cert` and `key` are there; `ca` where callers show
    /// certificates.
    pub files: CertificateFiles,
    /// Default `none`.
    pub client_cert: ClientCert,
    /// Whose certificates are taken; empty: anyone's that an authority vouches for.
    pub allow: Vec<IdentityPattern>,
    /// Default `refuse`.
    pub plain_text: PlainText,
}

/// `client_cert:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// Callers are not asked for one.
    None,
    /// They are asked; one that is shown is verified.
    Optional,
    /// Without one that is verified the handshake fails.
    Required,
}

/// `plain_text:`: what becomes of a connection that does not begin with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainText {
    /// It is refused.
    Refuse,
    /// It is served in clear, its peer known by nothing: for the time in which callers move to TLS.
    Accept,
}

/// `tls:` of an upstream: endpoints are spoken to in TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// What is written here, and what `identity` has where it is not. Without `ca` the system's authorities count.
    pub files: CertificateFiles,
    /// The name that is asked for. Not written: a DNS name under `verify`, else the name that discovery looks up, else the
    /// endpoint's address.
    pub sni: Option<String>,
    /// Who the endpoints are; empty: whoever has a certificate for the name that is asked for.
    pub verify: Vec<IdentityPattern>,
}

impl UpstreamTls {
    /// The DNS name under `verify`, where there is one that names a single host: it is asked for where `sni` is not written.
    pub fn asked_name(&self) -> Option<String> {
        let mut names = self.verify.iter().map(ToString::to_string);
        names.find(|name| !name.contains(['*', '/']))
    }
}
