//! TLS towards endpoints: whom we want to find there, and what we show.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::identity::IdentityPattern;

use super::files::{Material, system_roots};
use super::rotation::{Generation, Rotating};
use super::{peer, provider};

/// Sessions remembered for resumption, over all workers: several for each of a hundred endpoints.
const SESSIONS: usize = 1024;

/// An upstream's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The name that is asked for (SNI), and that the certificate has to be for; `None`: the endpoint's address.
    pub name: Option<ServerName<'static>>,
    /// Who the endpoints are, in place of that name; empty: the name decides.
    pub verify: Vec<IdentityPattern>,
}

/// Which protocols are offered (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// None: the bytes are not ours to understand.
    None,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both: the endpoint chooses.
    Either,
}

/// One configuration for each [`Alpn`]. Sessions are resumed across them.
pub type ClientConfigs = [Arc<ClientConfig>; 4];

/// An upstream's TLS. Shared by all workers.
#[derive(Debug)]
pub struct ClientTls {
    settings: ClientSettings,
    rotating: Rotating<ClientConfigs>,
    has_certificate: bool,
}

impl ClientTls {
    /// Of a first set.
    ///
    /// # Errors
    /// What the library does not take.
    pub fn new(settings: ClientSettings, material: &Material) -> Result<Self, Error> {
        let rotating = Rotating::new(configs(&settings, material)?);
        Ok(Self { settings, rotating, has_certificate: material.own.is_some() })
    }

    /// Puts another set in force, for connections from `now` on.
    ///
    /// # Errors
    /// What the library does not take: nothing has changed then.
    pub fn rotate(&self, material: &Material, now: Instant) -> Result<(), Error> {
        self.rotating.replace(configs(&self.settings, material)?, now);
        Ok(())
    }

    /// What a new connection is made with.
    pub fn current(&self) -> Arc<Generation<ClientConfigs>> {
        self.rotating.current()
    }

    /// The name to ask an endpoint for. `None` where neither the file nor the address has one.
    pub fn name_of(&self, endpoint: &Address) -> Option<ServerName<'static>> {
        match (&self.settings.name, endpoint) {
            (Some(name), _) => Some(name.clone()),
            (None, Address::Tcp(address)) => Some(ServerName::IpAddress(address.ip().into())),
            (None, Address::Unix(_)) => None,
        }
    }

    /// We have a certificate to show to whoever asks for one.
    pub fn has_certificate(&self) -> bool {
        self.has_certificate
    }
}

impl Generation<ClientConfigs> {
    /// The one that offers `alpn`.
    pub fn offering(&self, alpn: Alpn) -> Arc<ClientConfig> {
        Arc::clone(&self.value[alpn as usize])
    }
}

fn configs(settings: &ClientSettings, material: &Material) -> Result<ClientConfigs, Error> {
    let roots = material.roots.clone().unwrap_or_else(|| Arc::new(system_roots()));
    let chain = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .with_crls(material.crls.iter().cloned())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = if settings.verify.is_empty() {
        builder.with_webpki_verifier(chain)
    } else {
        let verifier = Verified { chain, names: settings.verify.clone() };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = match &material.own {
        Some(own) => {
            let own = SingleCertAndKey::from((**own).clone());
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    let offering = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    };
    Ok([
        offering(&[]),
        offering(&[b"http/1.1"]),
        offering(&[b"h2"]),
        offering(&[b"h2", b"http/1.1"]),
    ])
}

/// Verifies the chain, and then that it is of one of those wanted, whatever name was asked for.
#[derive(Debug)]
struct Verified {
    chain: Arc<WebPkiServerVerifier>,
    names: Vec<IdentityPattern>,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at last, after chain, dates, use and revocation: only it is wrong. A test holds the library
            // to that order.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        if peer::is_named(end_entity, &self.names) {
            return Ok(ServerCertVerified::assertion());
        }
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
