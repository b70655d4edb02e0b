//! Who may call what: the rules of one listener.
//!
//! Deny rules are asked first, then allow rules; whatever no allow rule takes is denied. A rule holds where each of its
//! conditions does, and a condition where any one of its values does.
//!
//! Invariant: ambiguity never opens. Where a request can be read in two ways, a deny rule holds if one of the readings fits,
//! and an allow rule only if all of them do: of a path that servers read differently (`paths`), of a header that was sent twice.
//! Envoy matches one reading of a path, and its security advisories are a list of the others.

mod paths;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use regex::Regex;

use crate::base::identity::{Identity, IdentityPattern};

pub use paths::{PathRule, Readings};

/// The rules, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Authorization {
    /// Asked first: one that holds denies.
    pub deny: Vec<Rule>,
    /// One that holds allows.
    pub allow: Vec<Rule>,
}

/// Conditions, all of which must hold; a list without items asks for nothing.
#[derive(Debug, Default)]
pub struct Rule {
    /// Who the caller has proved to be. A caller without identity is none of them.
    pub from: Vec<IdentityPattern>,
    /// Where the connection comes from. A peer on a unix socket has no address, and is in no network.
    pub source: Vec<IpNet>,
    /// The method.
    pub method: Vec<Method>,
    /// The path.
    pub path: Vec<PathRule>,
    /// Headers; each of these must hold.
    pub headers: Vec<(HeaderName, HeaderRule)>,
}

/// What is asked of one header's values.
#[derive(Debug)]
pub enum HeaderRule {
    /// The whole value.
    Exact(String),
    /// The beginning of the value.
    Prefix(String),
    /// Searched in the value; one that is not UTF-8 never matches.
    Regex(Regex),
    /// Whether there is such a header at all.
    Present(bool),
}

/// A request, or a connection whose bytes are passed on.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who the caller has proved to be.
    pub identity: Option<&'a Identity>,
    /// Where it comes from, IPv4 as IPv4; nothing on a unix socket.
    pub source: Option<IpAddr>,
    /// What it asks for; nothing of a TCP connection.
    pub request: Option<AskedFor<'a>>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct AskedFor<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as routes see it, without query. `*`, and the nothing of a CONNECT, are no path: no condition on one holds.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// By the allow rule of this index.
    Allowed(usize),
    /// By the deny rule of this index.
    DeniedBy(usize),
    /// No rule allows it.
    NotAllowed,
}

/// Whom a doubt serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Deny,
    Allow,
}

impl Authorization {
    /// Judges a request or connection.
    pub fn judge(&self, asked: &Asked<'_>) -> Verdict {
        let path = asked.request.map_or("", |request| request.path);
        let readings = Readings::new(path);
        if let Some(index) =
            self.deny.iter().position(|rule| rule.holds(asked, &readings, Side::Deny))
        {
            return Verdict::DeniedBy(index);
        }
        let allow = self.allow.iter().position(|rule| rule.holds(asked, &readings, Side::Allow));
        allow.map_or(Verdict::NotAllowed, Verdict::Allowed)
    }
}

impl Rule {
    fn holds(&self, asked: &Asked<'_>, path: &Readings<'_>, side: Side) -> bool {
        let any_or_none = |none: bool, any: bool| none || any;
        let from = || asked.identity.is_some_and(|peer| self.from.iter().any(|p| p.matches(peer)));
        let source =
            || asked.source.is_some_and(|at| self.source.iter().any(|net| net.contains(&at)));
        any_or_none(self.from.is_empty(), from())
            && any_or_none(self.source.is_empty(), source())
            && self.request_holds(asked.request.as_ref(), path, side)
    }

    fn request_holds(&self, asked: Option<&AskedFor<'_>>, path: &Readings<'_>, side: Side) -> bool {
        let Some(asked) = asked else {
            return self.method.is_empty() && self.path.is_empty() && self.headers.is_empty();
        };
        let path = || match side {
            Side::Deny => self.path.iter().any(|rule| rule.may_match(path)),
            Side::Allow => self.path.iter().any(|rule| rule.surely_matches(path)),
        };
        (self.method.is_empty() || self.method.contains(asked.method))
            && (self.path.is_empty() || path())
            && self.headers.iter().all(|(name, rule)| rule.holds(name, asked.headers, side))
    }
}

impl HeaderRule {
    fn holds(&self, name: &HeaderName, headers: &HeaderMap, side: Side) -> bool {
        if let Self::Present(wanted) = self {
            return headers.contains_key(name) == *wanted;
        }
        let mut values = headers.get_all(name).iter().peekable();
        match side {
            // Servers join values with commas, or part them there: each of the parts may be what is looked at.
            Side::Deny => values.any(|value| {
                let mut parts = value.as_bytes().split(|byte| *byte == b',');
                self.accepts(value.as_bytes()) || parts.any(|part| self.accepts(part.trim_ascii()))
            }),
            Side::Allow => {
                values.peek().is_some()
                    && values.map(HeaderValue::as_bytes).all(|value| self.accepts(value))
            }
        }
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == exact.as_bytes(),
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::Regex(regex) => str::from_utf8(value).is_ok_and(|text| regex.is_match(text)),
            Self::Present(present) => *present,
        }
    }
}

#[cfg(test)]
mod tests;
