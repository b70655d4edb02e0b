//! Where a listener is bound and where an endpoint is reached.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A TCP address or a unix socket: `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Address and port. Port 0 on a listener lets the system choose one.
    Tcp(SocketAddr),
    /// An absolute path, at most 107 bytes (the kernel's `sun_path`).
    Unix(PathBuf),
}

impl Address {
    /// True where the peer can only be on this machine: loopback and unix sockets.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                _ if !path.starts_with('/') => Err(AddressError::RelativePath),
                _ if path.len() > 107 => Err(AddressError::PathTooLong(path.len())),
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        match text.rsplit_once(':').unwrap_or((text, "")) {
            (text, "") if text.parse::<u16>().is_ok() => Err(AddressError::MissingHost),
            ("", port) if port.parse::<u16>().is_ok() => Err(AddressError::MissingHost),
            (_, "") => Err(AddressError::MissingPort),
            (_, port) if port.parse::<u16>().is_err() => Err(AddressError::BadPort),
            (host, _) if host.contains(':') && !host.starts_with('[') => {
                Err(AddressError::Unbracketed)
            }
            _ => Err(AddressError::NotAnIp),
        }
    }
}

/// Why an address could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a port nor `unix:`.
    #[error("the port is missing: write `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/app.sock`")]
    MissingPort,
    /// A port alone: `8080` or `:8080`.
    #[error(
        "the address before the port is missing: `127.0.0.1:8080`; `0.0.0.0:8080` is open to other machines"
    )]
    MissingHost,
    /// What follows the last colon is no port.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets: `[::1]:8080`")]
    Unbracketed,
    /// A host name where only an address fits.
    #[error(
        "not an IP address, such as `127.0.0.1:8080`; an upstream's name is looked up with `discover: dns://name:port`"
    )]
    NotAnIp,
    /// `unix:` with a relative path.
    #[error("a unix socket needs an absolute path: `unix:/run/app.sock`")]
    RelativePath,
    /// `unix:` with a path that no socket can have.
    #[error("a unix socket path has at most 107 bytes, this one has {0}")]
    PathTooLong(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write_back() {
        for text in ["127.0.0.1:80", "[::1]:0", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("127.0.0.1"), AddressError::MissingPort);
        assert_eq!(error("127.0.0.1:"), AddressError::MissingPort);
        assert_eq!(error(""), AddressError::MissingPort);
        assert_eq!(error("8080"), AddressError::MissingHost);
        assert_eq!(error(":8080"), AddressError::MissingHost);
        assert_eq!(error("127.0.0.1:x"), AddressError::BadPort);
        assert_eq!(error("::1:80"), AddressError::Unbracketed);
        assert_eq!(error("localhost:80"), AddressError::NotAnIp);
        assert_eq!(error("unix:run/a"), AddressError::RelativePath);
        assert!(matches!(
            error(&format!("unix:/{}", "a".repeat(107))),
            AddressError::PathTooLong(108)
        ));
    }
}
