//! `jwt`.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};

use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::node::Value;
use crate::config::{Jwks, JwtIssuer, JwtMode, ListenerProtocol, Route};

use super::{At, headers};

const STANDARD_LEEWAY: Duration = Duration::from_secs(30);
/// More would keep tokens alive that their issuer has ended.
const MOST_LEEWAY: Duration = Duration::from_secs(300);

/// The issuers of a listener.
pub(super) fn issuers(at: &At<'_>, protocol: ListenerProtocol) -> Vec<JwtIssuer> {
    if protocol == ListenerProtocol::Tcp {
        if !at.node.inherited {
            let message = "`jwt` has no meaning on a `tcp` listener: no request is read there";
            let error = Diagnostic::error("tcp-jwt", at.place, message).at(at.path);
            at.push(error.label("remove it; `authorize` has `from` and `source` for connections"));
        }
        return Vec::new();
    }
    let items = match at.node.value {
        Value::Map(_) => vec![*at],
        _ => at.list("a list of issuers").unwrap_or_default(),
    };
    if matches!(&at.node.value, Value::List(items) if items.is_empty()) {
        let error = at.error("bad-value", "`jwt` is an empty list");
        at.push(
            error.label("write an issuer, or remove the key: without it, no tokens are asked for"),
        );
    }
    items.iter().filter_map(issuer).collect()
}

fn issuer(at: &At<'_>) -> Option<JwtIssuer> {
    let fields = at.fields(&keys::JWT)?;
    let issuer = fields.required("issuer").and_then(|at| {
        at.parsed(|text| {
            if text.is_empty() {
                Err("write what `iss` of its tokens says")
            } else {
                Ok(text.to_owned())
            }
        })
    });
    let jwks = fields.required("jwks").and_then(|at| at.parsed(jwks));
    let audience = fields.read("audience", |at| {
        Some(at.one_or_more().iter().filter_map(|item| item.text().map(str::to_owned)).collect())
    });
    let leeway = fields.read("leeway", |at| {
        let leeway = at.duration()?;
        if leeway > MOST_LEEWAY {
            let message = format!("{} is out of range", at.subject());
            at.push(at.error("out-of-range", message).label("write a duration from 0s to 5m"));
            return None;
        }
        Some(leeway)
    });
    let claims = fields.read("claims", |at| claims(&at)).unwrap_or_default();
    Some(JwtIssuer {
        issuer: issuer?,
        jwks: jwks?,
        audience: audience.unwrap_or_default(),
        leeway: leeway.unwrap_or(STANDARD_LEEWAY),
        claims,
    })
}

fn claims(at: &At<'_>) -> Option<Vec<(String, HeaderName)>> {
    let pairs = at.pairs("a map from claims to headers")?;
    let read = pairs.iter().filter_map(|(entry, at)| {
        let name = headers::settable(at, at.text()?, at.node.span)?;
        Some((entry.key.clone(), name))
    });
    Some(read.collect())
}

fn jwks(text: &str) -> Result<Jwks, &'static str> {
    const RIGHT: &str = "write `file:///path/jwks.json`, `https://host/path` or `http://host/path`";
    if let Some(path) = text.strip_prefix("file://") {
        return match path.starts_with('/') {
            true => Ok(Jwks::File(PathBuf::from(path))),
            false => Err("a file has an absolute path: `file:///certs/jwks.json`"),
        };
    }
    let uri: Uri = text.parse().map_err(|_| RIGHT)?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(RIGHT),
    };
    let authority = uri.authority().ok_or(RIGHT)?;
    if authority.as_str().contains('@') {
        return Err("an address holds no user and password");
    }
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty()
        || authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0)
    {
        return Err(RIGHT);
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Ok(Jwks::Http {
        tls,
        host: host.to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        target: target.to_owned(),
    })
}

/// A route's `jwt`.
pub(super) fn mode(at: &At<'_>) -> Option<JwtMode> {
    at.word(&[
        ("required", JwtMode::Required),
        ("optional", JwtMode::Optional),
        ("never", JwtMode::Never),
    ])
}

/// For a listener without `jwt`: a route of it that asks for tokens would let everyone in.
pub(super) fn need_issuers(routes: &At<'_>, read: &[Option<Route>]) {
    let Value::List(items) = &routes.node.value else { return };
    for (item, route) in items.iter().zip(read) {
        let entry = item.entry("jwt").filter(|entry| !entry.node.inherited);
        let asks = route.as_ref().is_some_and(|route| route.jwt != JwtMode::Never);
        if let Some(entry) = entry.filter(|_| asks) {
            let message = "`jwt` of a route says whether a token is needed; whose tokens are taken says the listener";
            let error = Diagnostic::error("missing-key", entry.key_span, message).at(routes.path);
            routes.push(error.label("add `jwt: [{ issuer: …, jwks: … }]` to the listener"));
        }
    }
}
