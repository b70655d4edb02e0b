//! `listeners.<name>.jwt`.

use crate::config;
use crate::control::jwks;
use crate::metrics::Metrics;
use crate::policy::jwt::Issuer;
use crate::snapshot::{Jwt, JwtMode};

/// Whose tokens a listener takes; nothing where it asks for none.
pub(super) fn issuers(
    listener: &config::Listener,
    keys: &jwks::Plan,
    metrics: &Metrics,
) -> Option<Jwt> {
    let issuers: Vec<Issuer> = listener
        .jwt
        .iter()
        .map(|issuer| Issuer {
            name: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            leeway: issuer.leeway,
            claims: issuer.claims.clone(),
            keys: keys.of(&issuer.jwks),
        })
        .collect();
    let ours =
        issuers.iter().flat_map(|issuer| &issuer.claims).map(|(_, name)| name.clone()).collect();
    (!issuers.is_empty()).then(|| Jwt {
        issuers,
        ours,
        metrics: metrics.access.jwt(&listener.name, &reasons()),
    })
}

/// The words for why tokens are refused, in the order of their index.
pub(in crate::control) fn reasons() -> Vec<&'static str> {
    crate::policy::jwt::Refusal::ALL.iter().map(|refusal| refusal.word()).collect()
}

pub(super) fn mode(mode: config::JwtMode) -> JwtMode {
    match mode {
        config::JwtMode::Required => JwtMode::Required,
        config::JwtMode::Optional => JwtMode::Optional,
        config::JwtMode::Never => JwtMode::Never,
    }
}
