//! Who is at the other end, as its verified certificate says.

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::base::identity::{Identity, IdentityPattern};

/// The identity in a certificate whose chain was verified. `None` where it cannot be read.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    Some(Identity::new(parsed.valid_uri_names(), parsed.valid_dns_names()))
}

/// Whether one of `patterns` names who the certificate is of.
pub(super) fn is_named(certificate: &CertificateDer<'_>, patterns: &[IdentityPattern]) -> bool {
    let identity = identity(certificate);
    identity.is_some_and(|identity| patterns.iter().any(|pattern| pattern.matches(&identity)))
}

/// The identity of a session's peer, with the fingerprint of its certificate; `None` where it has shown none.
pub fn of_session(session: &CommonState) -> Option<Identity> {
    let certificate = session.peer_certificates()?.first()?;
    let identity = identity(certificate)?;
    Some(match sha256(certificate) {
        Some(fingerprint) => identity.with_fingerprint(fingerprint),
        None => identity,
    })
}

fn sha256(data: &[u8]) -> Option<[u8; 32]> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    suite.tls13()?.common.hash_provider.hash(data).as_ref().try_into().ok()
}
