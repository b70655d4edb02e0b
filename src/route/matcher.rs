//! One route's match, compiled: what every candidate of the index is asked, and what `explain` tells.

use http::Method;

use super::{
    index::Told,
    pattern::{RouteMatch, ValueMatch},
    query::{self, Scratch},
    request::RequestView,
};

/// A [`RouteMatch`] made ready for requests.
#[derive(Debug)]
pub struct Matcher {
    pub(super) wants: RouteMatch,
    methods: MethodSet,
}

/// The part of a match that a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// None of the hosts.
    Host,
    /// Not the path.
    Path,
    /// Not gRPC, or not the service or method.
    Grpc,
    /// None of the methods.
    Method,
    /// The header at this place of the route's list.
    Header(usize),
    /// The query parameter at this place of the route's list.
    Query(usize),
}

impl Matcher {
    /// Compiles `wants`.
    pub fn new(wants: RouteMatch) -> Self {
        let methods = MethodSet::new(&wants.method);
        Self { wants, methods }
    }

    /// Whether everything holds.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.failed(request).is_none()
    }

    /// The same, without asking again what the index has `told`.
    pub(super) fn holds(&self, request: &RequestView<'_>, told: &Told<'_>) -> bool {
        self.first_failed(request, told).is_none()
    }

    /// The first condition that does not hold, in the order in which a match is written: host, path,
    /// gRPC, method, headers, query.
    pub fn failed(&self, request: &RequestView<'_>) -> Option<Condition> {
        self.first_failed(request, &Told::default())
    }

    fn first_failed(&self, request: &RequestView<'_>, told: &Told<'_>) -> Option<Condition> {
        let wants = &self.wants;
        if !wants.host.is_empty() && !wants.host.iter().any(|host| host.matches(request.host)) {
            return Some(Condition::Host);
        }
        let asked = wants.path.as_ref().filter(|path| !(told.path && path.is_expression()));
        if asked.is_some_and(|path| !path.matches(request.path)) {
            return Some(Condition::Path);
        }
        if wants.grpc.as_ref().is_some_and(|g| !request.grpc || !g.matches_path(request.path)) {
            return Some(Condition::Grpc);
        }
        if !self.methods.contains(request.method) {
            return Some(Condition::Method);
        }
        let header = (0..).zip(&wants.headers).position(|(place, (name, value))| {
            let known = matches!(value, ValueMatch::Regex(_)) && told.header(name);
            if known && wants.headers[..place].iter().all(|(earlier, _)| earlier != name) {
                return false;
            }
            let mut values = request.headers.get_all(name).iter().map(|v| v.as_bytes());
            if value.is_absence() {
                return values.next().is_some();
            }
            !values.any(|v| value.accepts(v))
        });
        header.map(Condition::Header).or_else(|| self.failed_query(request).map(Condition::Query))
    }

    fn failed_query(&self, request: &RequestView<'_>) -> Option<usize> {
        if self.wants.query.is_empty() {
            return None;
        }
        let raw = request.query.unwrap_or_default();
        let mut scratch = Scratch::new();
        self.wants
            .query
            .iter()
            .position(|(name, value)| !query_holds(raw, name, value, &mut scratch))
    }
}

fn query_holds(raw: &str, name: &str, wanted: &ValueMatch, scratch: &mut Scratch) -> bool {
    let mut values = query::pairs(raw).filter(|(n, _)| query::is_name(n, name)).map(|(_, v)| v);
    if wanted.is_absence() {
        return values.next().is_none();
    }
    values.any(|value| wanted.accepts(scratch.decode(value)))
}

/// A set of methods: one bit for each of the registered nine, a list for all others.
#[derive(Debug)]
struct MethodSet {
    standard: u16,
    custom: Vec<Method>,
    /// No list was given: whatever is not in the bits is in the set.
    any_custom: bool,
}

impl MethodSet {
    fn new(listed: &[Method]) -> Self {
        let bits = |methods: &[Method]| {
            methods.iter().filter_map(standard_index).fold(0, |bits, index| bits | 1 << index)
        };
        if listed.is_empty() {
            let connect = bits(&[Method::CONNECT]);
            return Self { standard: !connect, custom: Vec::new(), any_custom: true };
        }
        let custom = listed.iter().filter(|m| standard_index(m).is_none()).cloned().collect();
        Self { standard: bits(listed), custom, any_custom: false }
    }

    fn contains(&self, method: &Method) -> bool {
        match standard_index(method) {
            Some(index) => self.standard & 1 << index != 0,
            None => self.any_custom || self.custom.contains(method),
        }
    }
}

/// How many methods [`standard_index`] knows.
pub(super) const STANDARD_METHODS: usize = 9;

/// A dense number below [`STANDARD_METHODS`] for the methods of RFC 9110 §9.3 and RFC 5789.
pub(super) fn standard_index(method: &Method) -> Option<usize> {
    Some(match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
