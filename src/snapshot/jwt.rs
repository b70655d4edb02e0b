//! Whose tokens a listener takes, and which of its routes need one.

use http::HeaderName;

use crate::metrics::JwtMetrics;
use crate::policy::jwt::Issuer;

/// Whose tokens a listener takes.
#[derive(Debug)]
pub struct Jwt {
    /// In the order of the configuration; at least one.
    pub issuers: Vec<Issuer>,
    /// Headers that claims become: removed from every request first, so that nobody sets them himself.
    pub ours: Vec<HeaderName>,
    /// Handles resolved once.
    pub metrics: JwtMetrics,
}

/// Whether a route needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JwtMode {
    /// A valid one.
    #[default]
    Required,
    /// None, or a valid one.
    Optional,
    /// It is not looked at.
    Never,
}
