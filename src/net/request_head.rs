//! The head of a request as it goes upstream.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// The head of a request as it goes upstream, borrowed from the request's record: another attempt may need it again.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// As it came.
    pub method: &'a Method,
    /// A path; for HTTP/2 with scheme and authority.
    pub target: &'a Uri,
    /// What came and goes on.
    pub fields: &'a HeaderMap,
    /// What this hop adds, written behind it. A list: to put a name into a map costs several times as much.
    pub added: &'a [(HeaderName, HeaderValue)],
}

impl<'a> RequestHead<'a> {
    /// Every field, in the order in which they are written.
    pub fn all_fields(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> + use<'a> {
        self.fields.iter().chain(self.added.iter().map(|(name, value)| (name, value)))
    }

    /// All fields in a map, for who needs one.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len() + self.added.len());
        for (name, value) in self.all_fields() {
            map.append(name.clone(), value.clone());
        }
        map
    }
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(head: &'a Parts) -> Self {
        Self { method: &head.method, target: &head.uri, fields: &head.headers, added: &[] }
    }
}
