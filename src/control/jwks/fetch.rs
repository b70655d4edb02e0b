//! One question for a set of keys: a GET on a connection of its own, bounded in time and size. Redirects are not followed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use crate::base::address::Address;
use crate::config::Jwks;
use crate::discovery::dns::Resolver;
use crate::io::socket::Socket;
use crate::net::{Connect, Target};

/// All of it: the name, the connection, the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// One address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there are no new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The name could not be looked up.
    Lookup,
    /// No address could be connected.
    Connect,
    /// The server's certificate, or TLS itself.
    Tls,
    /// It took longer than 5 s.
    Timeout,
    /// Another status than 200.
    Status,
    /// More than 256 KiB.
    TooLarge,
    /// No valid HTTP/1, or an end in the middle of it.
    Protocol,
    /// Not a set of keys.
    Malformed,
    /// None that can be used.
    NoKeys,
    /// A file that cannot be read.
    Unreadable,
}

impl Trouble {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Lookup, "lookup"),
        (Self::Connect, "connect"),
        (Self::Tls, "tls"),
        (Self::Timeout, "timeout"),
        (Self::Status, "status"),
        (Self::TooLarge, "too_large"),
        (Self::Protocol, "protocol"),
        (Self::Malformed, "malformed"),
        (Self::NoKeys, "no_keys"),
        (Self::Unreadable, "unreadable"),
    ];

    pub(super) fn words() -> Vec<&'static str> {
        Self::ALL.iter().map(|(_, word)| *word).collect()
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    pub(super) fn word(self) -> &'static str {
        Self::ALL.get(self.index()).map_or("", |(_, word)| word)
    }
}

/// Asks once. Names are looked up as those of upstreams are.
pub(super) async fn fetch(
    jwks: &Jwks,
    resolver: &Resolver,
    most: usize,
) -> Result<Vec<u8>, Trouble> {
    let Jwks::Http { tls, host, port, target } = jwks else { return Err(Trouble::Unreadable) };
    let asking = Box::pin(async {
        let socket = connect(host, *port, resolver).await?;
        let authority = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        if !tls {
            return ask(socket, &authority, target, most).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| Trouble::Tls)?;
        let connector = tokio_rustls::TlsConnector::from(client()?);
        let stream = connector.connect(name, socket).await.map_err(|_| Trouble::Tls)?;
        ask(stream, &authority, target, most).await
    });
    tokio::time::timeout(TIMEOUT, asking).await.unwrap_or(Err(Trouble::Timeout))
}

async fn connect(host: &str, port: u16, resolver: &Resolver) -> Result<Socket, Trouble> {
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver.host(host).await,
    };
    if addresses.is_empty() {
        return Err(Trouble::Lookup);
    }
    for address in addresses {
        let address = Address::Tcp(SocketAddr::new(address, port));
        let target = Target { address, timeout: CONNECT_TIMEOUT, tls: None };
        if let Ok(socket) = Connect.call(target).await {
            return Ok(socket);
        }
    }
    Err(Trouble::Connect)
}

/// Trusts the certificate authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
fn client() -> Result<Arc<rustls::ClientConfig>, Trouble> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Trouble::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn ask<S>(socket: S, authority: &str, target: &str, most: usize) -> Result<Vec<u8>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "outrigger")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Trouble::Protocol)?;
    let (mut send, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|_| Trouble::Protocol)?;
    let asking = async {
        let answer = send.send_request(request).await.map_err(|_| Trouble::Protocol)?;
        if answer.status() != StatusCode::OK {
            return Err(Trouble::Status);
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Trouble::TooLarge,
            false => Trouble::Protocol,
        })?;
        Ok(body.to_bytes().to_vec())
    };
    let (mut asking, mut connection) = (Box::pin(asking), Box::pin(connection));
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        // The answer may have come together with the end.
        _ended = &mut connection => asking.await,
    }
}
