//! `listeners.<name>.jwt`, and a route's `jwt`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One issuer whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// `iss`, compared exactly.
    pub issuer: String,
    /// Where its public keys are.
    pub jwks: Jwks,
    /// One of these must be in `aud`. Empty: not asked for.
    pub audience: Vec<String>,
    /// How far clocks may be apart. Default 30 s, at most 5 min.
    pub leeway: Duration,
    /// From claims to the headers that they become.
    pub claims: Vec<(String, http::HeaderName)>,
}

/// `jwks:`, a set of public keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Jwks {
    /// `file:///…`, watched by content.
    File(PathBuf),
    /// `http://…` or `https://…`, asked again from time to time.
    Http {
        /// `https`.
        tls: bool,
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// 80 or 443 where it is not written.
        port: u16,
        /// The path, with the query.
        target: String,
    },
}

impl fmt::Display for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Http { tls, host, port, target } => {
                let scheme = if *tls { "https" } else { "http" };
                let standard = if *tls { 443 } else { 80 };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]")?,
                    false => write!(f, "{scheme}://{host}")?,
                }
                if *port != standard {
                    write!(f, ":{port}")?;
                }
                f.write_str(target)
            }
        }
    }
}

/// `jwt:` of a route whose listener has `jwt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JwtMode {
    /// A request without a valid token is refused. The default.
    #[default]
    Required,
    /// A request may come without a token; one that it brings must be valid.
    Optional,
    /// Tokens are not looked at.
    Never,
}
