//! Other targets for a request: `rewrite: { prefix }` towards the upstream, `redirect:` towards the caller.
//!
//! Both put text of the request into a line of a message, so every byte that is not visible ASCII, or
//! that ends a path or query early, is escaped on the way out: no CR, LF or space passes, whatever came in.

use http::{StatusCode, uri::Authority, uri::PathAndQuery};

use super::path::{Class, PathError, class, normalise_path, push_escaped};

/// What cannot be a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A written path or prefix.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A relative `Location` of this kind would name another host.
    #[error("path begins with two slashes")]
    DoubleSlash,
    /// Neither `http` nor `https`.
    #[error("scheme is neither http nor https")]
    Scheme,
    /// Not `host` or `host:port`.
    #[error("host is no authority")]
    Host,
    /// None of 301, 302, 303, 307, 308.
    #[error("status is none of 301, 302, 303, 307, 308")]
    Status,
    /// Both `path` and `prefix`, or nothing that would lead elsewhere.
    #[error("a redirect needs scheme, host, or one of path and prefix")]
    Parts,
    /// The request names no host, and the redirect needs one.
    #[error("the request names no host to redirect to")]
    NoAuthority,
    /// Longer than a request target can be here (65,534 bytes).
    #[error("rewritten path is too long")]
    TooLong,
}

/// What stands in place of the fixed part of a pattern that ends in `/*`.
///
/// `/new` and `/new/` mean the same: the slash between prefix and rest is the rest's own, so that
/// `/old` becomes `/new`, `/old/` becomes `/new/`, and `/old/x` becomes `/new/x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewritePrefix(
    /// Normalised, without slashes at the end; empty for `/`.
    String,
);

impl RewritePrefix {
    /// Reads `prefix`, which begins with one slash.
    ///
    /// # Errors
    ///
    /// Where it is no path.
    pub fn new(prefix: &str) -> Result<Self, RewriteError> {
        Ok(Self(written_path(prefix)?.trim_end_matches('/').to_owned()))
    }

    /// The path and query to send, where `rest` is what `/*` stood for
    /// ([`PathPattern::rest`](super::PathPattern::rest)).
    ///
    /// # Errors
    ///
    /// [`RewriteError::TooLong`].
    pub fn apply(&self, rest: &str, query: Option<&str>) -> Result<PathAndQuery, RewriteError> {
        let mut target = String::new();
        self.push(&mut target, rest);
        push_query(&mut target, query);
        PathAndQuery::try_from(target).map_err(|_| RewriteError::TooLong)
    }

    /// Slashes at the beginning of `rest` become one: `/old//evil.example` under prefix `/` must not
    /// become `//evil.example`, which as a `Location` is another host.
    fn push(&self, target: &mut String, rest: &str) {
        target.push_str(&self.0);
        if !rest.is_empty() || self.0.is_empty() {
            target.push('/');
        }
        push_path(target, rest.trim_start_matches('/'));
    }
}

/// A compiled `redirect:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    status: StatusCode,
    scheme: Option<String>,
    host: Option<String>,
    target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// The request's own path and query.
    Kept,
    /// This path; the query is the request's unless the path was written with one.
    Path { path: String, query: Option<String> },
    /// The request's path under another prefix, and its query.
    Prefix(RewritePrefix),
}

/// What a `Location` may take over from a request.
#[derive(Debug, Clone, Copy)]
pub struct RedirectFrom<'a> {
    /// How the request came: `http` or `https`.
    pub scheme: &'a str,
    /// `Host` or `:authority`, with its port; empty where there is none.
    pub authority: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// What `/*` stood for; empty where the pattern does not end in it.
    pub rest: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// Compiles the parts: at least one of the last four, and at most one of `path` and `prefix`.
    ///
    /// # Errors
    ///
    /// Where a part is malformed or the parts do not fit together.
    pub fn new(
        status: StatusCode,
        scheme: Option<&str>,
        host: Option<&str>,
        path: Option<&str>,
        prefix: Option<&str>,
    ) -> Result<Self, RewriteError> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(RewriteError::Status);
        }
        if scheme.is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
            return Err(RewriteError::Scheme);
        }
        if host.is_some_and(|host| host.contains('@') || host.parse::<Authority>().is_err()) {
            return Err(RewriteError::Host);
        }
        let target = match (path, prefix) {
            (Some(path), None) => Target::path(path)?,
            (None, Some(prefix)) => Target::Prefix(RewritePrefix::new(prefix)?),
            (None, None) if scheme.is_some() || host.is_some() => Target::Kept,
            _ => return Err(RewriteError::Parts),
        };
        Ok(Self {
            status,
            scheme: scheme.map(str::to_owned),
            host: host.map(str::to_owned),
            target,
        })
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer's `Location`: visible ASCII, so it always is a header value.
    ///
    /// Absolute where `scheme` or `host` is set; what is not set is the request's. The request's port is
    /// left out where the scheme changes, since it belongs to the old one. Else a path, which leaves
    /// scheme, host and port to the caller, who knows better than we how it reached us (RFC 9110
    /// §10.2.2).
    ///
    /// # Errors
    ///
    /// [`RewriteError::NoAuthority`].
    pub fn location(&self, from: &RedirectFrom<'_>) -> Result<String, RewriteError> {
        let mut location = String::new();
        if self.scheme.is_some() || self.host.is_some() {
            let scheme = self.scheme.as_deref().unwrap_or(from.scheme);
            location.push_str(scheme);
            location.push_str("://");
            match &self.host {
                Some(host) => location.push_str(host),
                None => push_authority(&mut location, from, scheme)?,
            }
        }
        let query = match &self.target {
            Target::Kept => {
                push_path(&mut location, from.path);
                from.query
            }
            Target::Path { path, query } => {
                location.push_str(path);
                query.as_deref().or(from.query)
            }
            Target::Prefix(prefix) => {
                prefix.push(&mut location, from.rest);
                from.query
            }
        };
        push_query(&mut location, query);
        Ok(location)
    }
}

impl Target {
    fn path(written: &str) -> Result<Self, RewriteError> {
        let (path, query) = match written.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (written, None),
        };
        Ok(Self::Path { path: written_path(path)?, query })
    }
}

fn written_path(path: &str) -> Result<String, RewriteError> {
    let path = normalise_path(path)?;
    if path.starts_with("//") {
        return Err(RewriteError::DoubleSlash);
    }
    Ok(path.into_owned())
}

fn push_authority(
    out: &mut String,
    from: &RedirectFrom<'_>,
    scheme: &str,
) -> Result<(), RewriteError> {
    let authority: Authority = from.authority.parse().map_err(|_| RewriteError::NoAuthority)?;
    // What `host` returns has no user information, and `Authority` allows no control, space or slash.
    out.push_str(authority.host());
    if let Some(port) = authority.port().filter(|_| scheme == from.scheme) {
        out.push(':');
        out.push_str(port.as_str());
    }
    Ok(())
}

fn push_path(out: &mut String, path: &str) {
    for byte in path.bytes() {
        match class(byte) {
            Class::Plain | Class::Slash | Class::Percent => out.push(char::from(byte)),
            Class::Escape | Class::Control | Class::Delimiter => push_escaped(out, byte),
        }
    }
}

/// Less strict than a path: what peers send in a query beyond RFC 3986 (`|`, `{`) goes on unchanged.
fn push_query(out: &mut String, query: Option<&str>) {
    let Some(query) = query else { return };
    out.push('?');
    for byte in query.bytes() {
        match byte {
            b'"' | b'#' | b'<' | b'>' => push_escaped(out, byte),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => push_escaped(out, byte),
        }
    }
}

#[cfg(test)]
mod tests;
