//! What a route's requests are hashed by.

use http::HeaderName;

/// Where a key is looked for.
#[derive(Debug, Clone)]
pub enum HashBy {
    /// A header's first value.
    Header(HeaderName),
    /// A cookie, which is set where a request has none.
    Cookie(HashCookie),
    /// A parameter of the query.
    Query(String),
    /// The peer's address.
    SourceIp,
}

/// A cookie, compiled.
#[derive(Debug, Clone)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// What follows the value in `Set-Cookie`.
    pub attributes: String,
}
