//! Who a peer is, as its verified certificate says, and patterns that name such peers.
//!
//! An [`Identity`] is made only of a certificate whose chain was verified; nothing that a peer merely claims (a header, SNI)
//! becomes one. SPIFFE's rules (SPIFFE-ID §2, X509-SVID §2): `spiffe://trust-domain/path`, the trust domain of lower-case
//! letters, digits, `.`, `-` and `_`, the path of whole, non-empty segments, case counts, nothing is escaped; a certificate
//! has exactly one URI, so that one with two of them has no SPIFFE ID here, rather than two that may be chosen from.
//!
//! A pattern never matches across trust domains, and never half a segment or half a label.

use std::fmt;

/// SPIFFE-ID §2.3: what an implementation must be able to read, and what none should write.
const LONGEST_ID: usize = 2048;
/// The longest trust domain (SPIFFE-ID §2.3), and the longest DNS name in text (RFC 1035 §2.3.4 has 253 without the final dot).
const LONGEST_DOMAIN: usize = 255;

/// A verified peer. Made once per connection and shared by its requests as an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    spiffe: Option<SpiffeId>,
    uris: Box<[Box<str>]>,
    dns: Box<[Box<str>]>,
    fingerprint: Option<[u8; 32]>,
}

impl Identity {
    /// Of the URIs and DNS names in a certificate's subject alternative names.
    ///
    /// There is a SPIFFE ID where the only URI is a valid one. DNS names are put into lower case, without a trailing dot; what is
    /// no DNS name, a wildcard included, is left out: it names a set of servers, not a peer.
    pub fn new<'a>(
        uris: impl IntoIterator<Item = &'a str>,
        dns: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let uris: Box<[Box<str>]> = uris.into_iter().map(Box::from).collect();
        let spiffe = match &*uris {
            [uri] => SpiffeId::parse(uri).ok(),
            _ => None,
        };
        let dns = dns.into_iter().filter_map(dns_name).map(String::into_boxed_str).collect();
        Self { spiffe, uris, dns, fingerprint: None }
    }

    /// The same, with the SHA-256 of the certificate (DER): what `Hash=` of `x-forwarded-client-cert` says.
    #[must_use]
    pub fn with_fingerprint(mut self, sha256: [u8; 32]) -> Self {
        self.fingerprint = Some(sha256);
        self
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Option<&[u8; 32]> {
        self.fingerprint.as_ref()
    }

    /// The SPIFFE ID: where the certificate has exactly one URI, and that is a valid one.
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        self.spiffe.as_ref()
    }

    /// Every URI, as written.
    pub fn uris(&self) -> impl ExactSizeIterator<Item = &str> {
        self.uris.iter().map(|uri| &**uri)
    }

    /// Every DNS name, in lower case.
    pub fn dns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.dns.iter().map(|name| &**name)
    }

    /// The URI, where there is exactly one.
    pub fn uri(&self) -> Option<&str> {
        match &*self.uris {
            [uri] => Some(uri),
            _ => None,
        }
    }

    /// What the peer is called in logs and counted as: its SPIFFE ID, else its first DNS name, else its only URI. Nothing
    /// where the certificate has none of them: it is verified, but nobody in particular.
    pub fn name(&self) -> Option<&str> {
        let spiffe = self.spiffe.as_ref().map(SpiffeId::as_str);
        spiffe.or_else(|| self.dns().next()).or_else(|| self.uri())
    }
}

/// A valid SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    /// Where the path begins: at its slash, or at the end of the text.
    path: usize,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Reads one.
    ///
    /// # Errors
    /// What SPIFFE-ID §2 does not allow.
    pub fn parse(text: &str) -> Result<Self, IdentityPatternError> {
        let path = spiffe_parts(text)?;
        if let Some(path) = text.get(path..).and_then(|path| path.strip_prefix('/')) {
            path.split('/').try_for_each(segment)?;
        }
        Ok(Self { text: text.into(), path })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// The path: empty, or from its slash on.
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Names peers: `spiffe://td/ns/web/sa/cart`, `spiffe://td/ns/web/*`, `web.example`, `*.web.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Spiffe(SpiffeId),
    /// Every ID of that trust domain that has this path, a slash, and at least one more segment.
    SpiffeBelow(SpiffeId),
    Dns(Box<str>),
    /// `.suffix`: at least one label in front of it.
    DnsBelow(Box<str>),
}

impl IdentityPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, IdentityPatternError> {
        use IdentityPatternError as Error;
        if text == "*" {
            return Err(Error::Everyone);
        }
        if text.contains("://") || text.starts_with("spiffe:") {
            return match text.strip_suffix("/*") {
                Some(above) if above.contains('*') => Err(Error::StarInside),
                Some(above) => Ok(Self(Kind::SpiffeBelow(SpiffeId::parse(above)?))),
                None if text.contains('*') => Err(Error::StarInside),
                None => Ok(Self(Kind::Spiffe(SpiffeId::parse(text)?))),
            };
        }
        let (suffix, below) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        if suffix.contains('*') {
            return Err(Error::StarInName);
        }
        if text.parse::<std::net::IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok() {
            return Err(Error::Address);
        }
        let name = dns_name(suffix).ok_or(Error::NotAName)?;
        let kind =
            if below { Kind::DnsBelow(format!(".{name}").into()) } else { Kind::Dns(name.into()) };
        Ok(Self(kind))
    }

    /// Whether `peer` is one of those named.
    pub fn matches(&self, peer: &Identity) -> bool {
        match &self.0 {
            Kind::Spiffe(id) => peer.spiffe() == Some(id),
            Kind::SpiffeBelow(above) => peer.spiffe().is_some_and(|id| {
                let rest = id.as_str().strip_prefix(above.as_str());
                rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
            }),
            Kind::Dns(name) => peer.dns().any(|dns| *dns == **name),
            Kind::DnsBelow(suffix) => {
                peer.dns().any(|dns| dns.len() > suffix.len() && dns.ends_with(&**suffix))
            }
        }
    }

    /// Whether every peer that `other` names is one of ours, for certain.
    pub fn covers(&self, other: &Self) -> bool {
        let below = |above: &SpiffeId, id: &SpiffeId, same: bool| {
            let rest = id.as_str().strip_prefix(above.as_str());
            rest.is_some_and(|rest| if rest.is_empty() { same } else { rest.starts_with('/') })
        };
        match (&self.0, &other.0) {
            (Kind::SpiffeBelow(above), Kind::Spiffe(id)) => below(above, id, false),
            (Kind::SpiffeBelow(above), Kind::SpiffeBelow(id)) => below(above, id, true),
            (Kind::DnsBelow(suffix), Kind::Dns(name)) => {
                name.len() > suffix.len() && name.ends_with(&**suffix)
            }
            (Kind::DnsBelow(suffix), Kind::DnsBelow(other)) => other.ends_with(&**suffix),
            (ours, other) => ours == other,
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Spiffe(id) => id.fmt(f),
            Kind::SpiffeBelow(id) => write!(f, "{id}/*"),
            Kind::Dns(name) => f.write_str(name),
            Kind::DnsBelow(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl std::str::FromStr for IdentityPattern {
    type Err = IdentityPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What is wrong with an identity or a pattern, and what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityPatternError {
    /// `*` alone.
    #[error("`*` names nobody in particular: leave the key out to mean everyone")]
    Everyone,
    /// Another scheme.
    #[error("write `spiffe://trust-domain/path`, or a DNS name without scheme")]
    OtherScheme,
    /// No trust domain.
    #[error("the trust domain is missing: `spiffe://trust-domain/path`")]
    NoTrustDomain,
    /// A trust domain with other characters.
    #[error("a trust domain has lower-case letters, digits, `.`, `-` and `_`, no port and no user")]
    TrustDomain,
    /// A slash at the end, or two in a row.
    #[error(
        "a path has no empty segment and no slash at its end: `spiffe://trust-domain/a/b`, or `/a/*` for all below"
    )]
    EmptySegment,
    /// `.` or `..`.
    #[error("`.` and `..` are no segments of a SPIFFE ID")]
    DotSegment,
    /// Another character in a path.
    #[error(
        "a segment has letters, digits, `.`, `-` and `_`: SPIFFE IDs hold no escapes, queries or fragments"
    )]
    Segment,
    /// A star elsewhere in a SPIFFE ID.
    #[error("`*` stands only at the end, for whole segments: `spiffe://trust-domain/ns/web/*`")]
    StarInside,
    /// A star elsewhere in a name.
    #[error("`*` stands only at the start, for whole labels: `*.web.example`")]
    StarInName,
    /// An address or a network.
    #[error("this is an address, no identity: callers are told apart by address with `source`")]
    Address,
    /// Not a DNS name either.
    #[error("write `spiffe://trust-domain/path` or a DNS name such as `web.example`")]
    NotAName,
    /// Longer than an ID may be.
    #[error("a SPIFFE ID has at most 2048 bytes, its trust domain 255")]
    TooLong,
}

/// Checks scheme and trust domain; returns where the path begins.
fn spiffe_parts(text: &str) -> Result<usize, IdentityPatternError> {
    use IdentityPatternError as Error;
    let rest = text.strip_prefix(SCHEME).ok_or(Error::OtherScheme)?;
    let domain = rest.split('/').next().unwrap_or_default();
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    match domain {
        "" => Err(Error::NoTrustDomain),
        _ if domain.len() > LONGEST_DOMAIN || text.len() > LONGEST_ID => Err(Error::TooLong),
        _ if !domain.bytes().all(allowed) => Err(Error::TrustDomain),
        _ => Ok(SCHEME.len() + domain.len()),
    }
}

fn segment(segment: &str) -> Result<(), IdentityPatternError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match segment {
        "" => Err(IdentityPatternError::EmptySegment),
        "." | ".." => Err(IdentityPatternError::DotSegment),
        _ if segment.bytes().all(allowed) => Ok(()),
        _ => Err(IdentityPatternError::Segment),
    }
}

/// In lower case and without a trailing dot; `None` for what is no DNS name of whole labels.
fn dns_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let fits = (1..LONGEST_DOMAIN).contains(&name.len()) && name.split('.').all(label);
    fits.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
