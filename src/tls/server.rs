//! TLS towards callers: which certificate is shown, and who is let in.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::time::Instant;

use crate::base::identity::IdentityPattern;

use super::files::Material;
use super::rotation::{Generation, Rotating};
use super::{peer, provider};

/// Whether callers show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// They are not asked for one.
    None,
    /// They are asked; one that is shown is verified.
    Optional,
    /// Without one that is verified the handshake fails.
    Required,
}

/// A listener's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Whether callers show a certificate.
    pub client_cert: ClientCert,
    /// Whose certificates are taken; empty: anyone's that an authority vouches for.
    pub allow: Vec<IdentityPattern>,
    /// HTTP is spoken: the protocols that are agreed on (ALPN) are h2 and http/1.1.
    pub http: bool,
    /// Connections that do not begin with TLS are served in clear, instead of being refused.
    pub plain_text: bool,
}

/// What the connections of one set of certificates are made with.
#[derive(Debug)]
pub struct ServerConfigs {
    /// The library's.
    pub config: Arc<ServerConfig>,
    /// The URI of our own certificate, where it has exactly one: what callers know us by.
    pub own_uri: Option<Box<str>>,
}

/// A listener's TLS: its rules and, of the certificates in force, what connections are made with. Shared by all workers.
#[derive(Debug)]
pub struct ServerTls {
    settings: ServerSettings,
    rotating: Rotating<ServerConfigs>,
}

impl ServerTls {
    /// Of a first set.
    ///
    /// # Errors
    /// What the library does not take.
    pub fn new(settings: ServerSettings, material: &Material) -> Result<Self, Error> {
        let rotating = Rotating::new(config(&settings, material)?);
        Ok(Self { settings, rotating })
    }

    /// Puts another set in force, for connections from `now` on.
    ///
    /// # Errors
    /// What the library does not take: nothing has changed then.
    pub fn rotate(&self, material: &Material, now: Instant) -> Result<(), Error> {
        self.rotating.replace(config(&self.settings, material)?, now);
        Ok(())
    }

    /// Other rules take the place of these: connections made with them end as after a rotation.
    pub fn retire(&self, now: Instant) {
        self.rotating.retire(now);
    }

    /// What a new connection is made with.
    pub fn current(&self) -> Arc<Generation<ServerConfigs>> {
        self.rotating.current()
    }

    /// Its rules.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }
}

fn config(settings: &ServerSettings, material: &Material) -> Result<ServerConfigs, Error> {
    let own = material.own.clone().ok_or(Error::NoCertificatesPresented)?;
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match settings.client_cert {
        ClientCert::None => builder.with_no_client_auth(),
        _ => builder.with_client_cert_verifier(verifier(settings, material)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from((*own).clone())));
    if settings.http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    // Tickets carry the session, sealed with keys that change every six hours and are forgotten with this set: nothing is kept
    // here for a caller that is away, every worker can open them, and a set that was replaced lets nobody back in.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Of the two that the library sends one is used: each costs a fourteenth of a handshake.
    config.send_tls13_tickets = 1;
    let own = own.end_entity_cert().ok().and_then(peer::identity);
    let own_uri = own.and_then(|own| own.uri().map(Box::from));
    Ok(ServerConfigs { config: Arc::new(config), own_uri })
}

fn verifier(
    settings: &ServerSettings,
    material: &Material,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = material.roots.clone().unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    // One list concerns one authority; what it does not know is not revoked by it.
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .with_crls(material.crls.iter().cloned())
        .allow_unknown_revocation_status();
    let builder = match settings.client_cert {
        ClientCert::Optional => builder.allow_unauthenticated(),
        ClientCert::None | ClientCert::Required => builder,
    };
    let chain = builder.build().map_err(|error| Error::General(error.to_string()))?;
    if settings.allow.is_empty() {
        return Ok(chain);
    }
    Ok(Arc::new(Allowed { chain, allow: settings.allow.clone() }))
}

/// Verifies the chain, and then who it is of.
#[derive(Debug)]
struct Allowed {
    chain: Arc<dyn ClientCertVerifier>,
    allow: Vec<IdentityPattern>,
}

impl ClientCertVerifier for Allowed {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if peer::is_named(end_entity, &self.allow) {
            return Ok(verified);
        }
        // Told as the alert `access_denied`.
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
