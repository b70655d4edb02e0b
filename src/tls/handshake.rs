//! Running a handshake, and naming what went wrong with it.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, Error, HandshakeKind,
    ProtocolVersion, ServerConfig,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::metrics::{HandshakeFailure, Handshakes};

use super::der;

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct HandshakeError {
    /// Which of the closed list.
    pub reason: HandshakeFailure,
    /// For people; never quotes a peer's bytes.
    pub detail: String,
}

/// Does a handshake with a caller. The caller bounds the time.
///
/// # Errors
/// Why there is no session; the peer was sent the alert that says so, where it was there to hear it.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    socket: S,
) -> Result<server::TlsStream<S>, HandshakeError> {
    let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|error| failed(&error))?;
    resumed_in_time(stream.get_ref().1)?;
    Ok(stream)
}

/// Does a handshake with an endpoint. The caller bounds the time.
///
/// # Errors
/// Why there is no session.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: S,
) -> Result<client::TlsStream<S>, HandshakeError> {
    let connector = TlsConnector::from(config);
    let stream = connector.connect(name, socket).await.map_err(|error| failed(&error))?;
    resumed_in_time(stream.get_ref().1)?;
    Ok(stream)
}

/// A session that is resumed shows no certificate again: the one of the first handshake may have expired since.
fn resumed_in_time(session: &CommonState) -> Result<(), HandshakeError> {
    if session.handshake_kind() != Some(HandshakeKind::Resumed) {
        return Ok(());
    }
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match der::validity(leaf) {
        Some(validity) if now <= validity.not_after => Ok(()),
        _ => Err(HandshakeError {
            reason: HandshakeFailure::Expired,
            detail: "the certificate of the resumed session has expired".to_owned(),
        }),
    }
}

/// Counts a session. `mtls`: the peer knows us, or we know it, by certificate.
pub fn count(handshakes: &Handshakes, session: &CommonState, mtls: bool) {
    let tls13 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    handshakes.done(tls13, mtls, resumed);
}

/// True where HTTP/2 was agreed on; `None` where nothing was.
pub fn agreed_http2(session: &CommonState) -> Option<bool> {
    session.alpn_protocol().map(|protocol| protocol == b"h2")
}

/// Why the peer does not take us, where `error` is its alert to our part of the handshake. In TLS 1.3 ours is done before the
/// peer has looked at our certificate, so that its answer comes with the first read.
pub fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::AlertReceived(alert) = error else { return None };
    let about_us = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    );
    about_us.then(|| detail(error))
}

fn failed(error: &io::Error) -> HandshakeError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(tls) = tls else {
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
            kind => kind.to_string(),
        };
        return HandshakeError { reason: HandshakeFailure::Closed, detail: text };
    };
    HandshakeError { reason: reason(tls), detail: detail(tls) }
}

fn reason(error: &Error) -> HandshakeFailure {
    use HandshakeFailure as Failure;
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Failure::Expired,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Failure::UnknownAuthority
            }
            CertificateError::Revoked => Failure::Revoked,
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::ApplicationVerificationFailure => Failure::WrongIdentity,
            _ => Failure::BadCertificate,
        },
        Error::NoCertificatesPresented => Failure::NoCertificate,
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Failure::NoProtocol,
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Failure::Incompatible
        }
        Error::AlertReceived(_) => Failure::Refused,
        _ => Failure::Protocol,
    }
}

fn detail(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "the peer has shown no certificate".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority that we trust vouches for the peer's certificate".to_owned()
        }
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the peer's certificate is of none of those wanted".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer refused with the alert {alert:?}"),
        // What it presents are bytes of the peer.
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected, ..
        }) => {
            format!("the peer's certificate is not for {}", expected.to_str())
        }
        Error::InvalidCertificate(error) => format!("the peer's certificate: {error}"),
        error => error.to_string(),
    }
}
