//! A server that is asked for endpoints: its name is looked up by our own resolver, and it is spoken to in TLS where that is
//! wanted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::proto::rr::Name;
use tower::Service;

use super::ErrorKind;
use super::dns::{Resolver, ResolverError, parse_name};
use super::last_good::Trouble;
use crate::base::address::Address;
use crate::base::certificates::CertificateFiles;
use crate::io::socket::Socket;
use crate::net::{Connect, Target, TlsTarget};
use crate::tls::files::Vouched;
use crate::tls::{Alpn, ClientSettings, ClientTls, Material};

/// How a server is spoken to in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Read for each connection: certificates that are replaced are used with the next.
    pub files: CertificateFiles,
    /// Whom we want to find there.
    pub settings: ClientSettings,
}

/// Where it is, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Server {
    /// As `Host` has it, and messages.
    pub(super) address: String,
    host: Name,
    port: u16,
    tls: Option<ServerTls>,
    resolver: Arc<Resolver>,
}

impl Server {
    /// `host`: a name, or an address, in brackets where it is IPv6. It is looked up for each connection.
    ///
    /// # Errors
    /// The host is no name that DNS could have.
    pub(super) fn new(
        host: &str,
        port: u16,
        tls: Option<ServerTls>,
        resolver: Arc<Resolver>,
    ) -> Result<Self, ResolverError> {
        let name = parse_name(host.trim_start_matches('[').trim_end_matches(']'))?;
        Ok(Self { address: format!("{host}:{port}"), host: name, port, tls, resolver })
    }

    /// Its addresses at this moment, IPv4 first; at least one.
    ///
    /// # Errors
    /// What the name servers said.
    pub(super) async fn addresses(&self) -> Result<Vec<IpAddr>, Trouble> {
        self.resolver.addresses(&self.host).await
    }

    /// A connection to the first of `addresses` that takes one; each may take `timeout` for it.
    ///
    /// # Errors
    /// Why the last of them took none.
    pub(super) async fn connect(
        &self,
        addresses: Vec<IpAddr>,
        timeout: Duration,
        alpn: Alpn,
    ) -> Result<Socket, Trouble> {
        let tls = self.tls.as_ref().map(|tls| self.client(tls)).transpose()?;
        let mut failed = None;
        for ip in addresses {
            let address = Address::Tcp((ip, self.port).into());
            let tls = match &tls {
                None => None,
                Some(tls) => {
                    let unnamed = || self.trouble(ErrorKind::Other, &"TLS has no name to ask for");
                    let name = tls.name_of(&address).ok_or_else(unnamed)?;
                    Some(TlsTarget { config: tls.current().offering(alpn), name })
                }
            };
            match Connect.call(Target { address, timeout, tls }).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = Some(error),
            }
        }
        Err(match failed {
            Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.trouble(ErrorKind::Timeout, &"it does not let itself be connected to")
            }
            Some(error) => self.trouble(ErrorKind::Unreachable, &error),
            None => self.trouble(ErrorKind::Unreachable, &"its name has no address"),
        })
    }

    /// TLS with the files as they are at this moment.
    fn client(&self, tls: &ServerTls) -> Result<ClientTls, Trouble> {
        let material = Material::load(&tls.files, Vouched::Elsewhere, SystemTime::now());
        let material = material.map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            self.trouble(ErrorKind::Other, &first)
        })?;
        let made = ClientTls::new(tls.settings.clone(), &material);
        made.map_err(|error| self.trouble(ErrorKind::Other, &error))
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self, kind: ErrorKind, why: &dyn std::fmt::Display) -> Trouble {
        Trouble::new(kind, format!("{}: {why}", self.address))
    }
}
