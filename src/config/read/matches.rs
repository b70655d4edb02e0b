//! `match`: which requests a route takes.

use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use crate::config::keys;
use crate::config::node::Value;
use crate::config::{GrpcMatch, HostPattern, PathPattern, RouteMatch, ValueMatch};

use super::{At, headers, top};

/// Bytes of a compiled expression: bounds the memory and the time of building one.
const MAX_REGEX: usize = 1 << 20;

pub(super) fn all(at: At<'_>) -> Option<RouteMatch> {
    let fields = at.fields(&keys::MATCH)?;
    fields.at_most_one(&["path", "grpc"]);
    Some(RouteMatch {
        host: fields.read("host", |at| Some(hosts(&at))).unwrap_or_default(),
        path: fields.read("path", path),
        grpc: fields.read("grpc", |at| at.parsed(grpc)),
        method: fields.read("method", |at| Some(methods(&at))).unwrap_or_default(),
        headers: fields.read("headers", by_header).unwrap_or_default(),
        query: fields.read("query", by_parameter).unwrap_or_default(),
    })
}

fn hosts(at: &At<'_>) -> Vec<HostPattern> {
    not_empty(at, "a host");
    at.one_or_more().iter().filter_map(|item| item.parsed(host)).collect()
}

/// A list that matches nothing is a mistake, and one that is taken for "everything" would be worse.
pub(super) fn not_empty(at: &At<'_>, what: &str) {
    if matches!(&at.node.value, Value::List(items) if items.is_empty()) {
        let message = format!("{} is an empty list", at.subject());
        at.push(at.error("bad-value", message).label(format!("write {what}, or remove the key")));
    }
}

fn host(text: &str) -> Result<HostPattern, &'static str> {
    let is_address = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match text {
        "*" => return Err("remove `host`: without it, every host matches"),
        _ if is_address.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()) => {
            return Ok(HostPattern::Exact(text.to_ascii_lowercase()));
        }
        _ if text.contains(':') => return Err("write the host without port"),
        _ => {}
    }
    match text.strip_prefix("*.") {
        Some(suffix) => top::host_name(suffix).map(|name| HostPattern::Suffix(format!(".{name}"))),
        None if text.contains('*') => Err("`*` stands for whole labels at the start: `*.example`"),
        None => top::host_name(text).map(HostPattern::Exact),
    }
}

pub(super) fn path(at: At<'_>) -> Option<PathPattern> {
    if let Value::Map(_) = at.node.value {
        let fields = at.fields(&keys::PATH)?;
        return fields.required("regex").and_then(|at| regex(&at)).map(PathPattern::Regex);
    }
    at.parsed(path_pattern)
}

/// `/v2/*`, `/v2/x`, `/users/{id}`.
fn path_pattern(text: &str) -> Result<PathPattern, String> {
    let Some(inside) = text.strip_prefix('/') else {
        return Err("write a path that begins with `/`".to_owned());
    };
    let (fixed, rest) = match inside.strip_suffix('*') {
        Some("") => ("", true),
        Some(before) if before.ends_with('/') => (&before[..before.len() - 1], true),
        _ => (inside, false),
    };
    if fixed.contains('*') {
        return Err("`*` stands only at the end, after a `/`; else use `{ regex: … }`".to_owned());
    }
    if let Some(odd) = fixed.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
        return Err(match odd {
            '?' => "a path holds no query: use `match.query`".to_owned(),
            '#' => "a path holds no fragment: requests never carry one".to_owned(),
            odd if odd.is_control() => "control characters are refused in requests".to_owned(),
            odd => {
                let mut bytes = [0; 4];
                let bytes = odd.encode_utf8(&mut bytes).bytes();
                let escaped: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
                format!("write `{odd}` as requests carry it: `{escaped}`")
            }
        });
    }
    let segments: Vec<&str> =
        if rest && fixed.is_empty() { Vec::new() } else { fixed.split('/').collect() };
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err("`.` and `..` are resolved before a route is looked for".to_owned());
    }
    let segments = segments.into_iter().map(segment).collect::<Result<Vec<_>, String>>()?;
    if segments.iter().any(Option::is_none) {
        return Ok(PathPattern::Template { segments, rest });
    }
    let fixed: String = segments.into_iter().flatten().map(|s| format!("/{s}")).collect();
    Ok(if rest { PathPattern::Prefix(fixed) } else { PathPattern::Exact(fixed) })
}

/// One segment: `None` for `{name}`.
fn segment(text: &str) -> Result<Option<String>, String> {
    if !text.contains(['{', '}']) {
        return normalised(text).map(Some);
    }
    let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match name {
        Some(name) if !name.is_empty() && name.chars().all(plain) => Ok(None),
        _ => Err("`{name}` stands for a whole segment; else use `{ regex: … }`".to_owned()),
    }
}

/// As requests' paths are before they are matched: unreserved characters decoded, other escapes in upper case
/// (RFC 3986 §6.2.2). A pattern in another form would never match.
fn normalised(segment: &str) -> Result<String, String> {
    let mut result = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        let digits = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else {
            return Err("`%` is followed by two hexadecimal digits, as in `%20`".to_owned());
        };
        match byte {
            b'-' | b'.' | b'_' | b'~' => result.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => result.push(char::from(byte)),
            0..0x20 | 0x7f => return Err("control characters are refused in requests".to_owned()),
            _ => result.push_str(&format!("%{byte:02X}")),
        }
        rest = &after[2..];
    }
    result.push_str(rest);
    Ok(result)
}

fn grpc(text: &str) -> Result<GrpcMatch, &'static str> {
    const RIGHT: &str = "write `package.Service` or `package.Service/Method`";
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (service, method) = match text.split_once('/') {
        Some((service, method)) => (service, Some(method)),
        None => (text, None),
    };
    let service_fits = service.split('.').all(|part| !part.is_empty() && part.chars().all(word));
    let method_fits = method.is_none_or(|method| !method.is_empty() && method.chars().all(word));
    match service_fits && method_fits {
        true => Ok(GrpcMatch { service: service.to_owned(), method: method.map(str::to_owned) }),
        false => Err(RIGHT),
    }
}

/// One method or a list of them.
pub(super) fn methods(at: &At<'_>) -> Vec<Method> {
    not_empty(at, "a method");
    at.one_or_more().iter().filter_map(|item| item.parsed(method)).collect()
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) if text != upper => Err(format!("methods are in upper case: `{upper}`")),
        Ok(method) => Ok(method),
        Err(_) => Err("write a method such as `GET`".to_owned()),
    }
}

pub(super) fn by_header(at: At<'_>) -> Option<Vec<(HeaderName, ValueMatch)>> {
    let pairs = at.pairs("a map from header names to values")?;
    let read = pairs.iter().filter_map(|(entry, at)| {
        let name = headers::name(at, &entry.key, entry.key_span)?;
        if name == http::header::HOST {
            let error = at.error("bad-header", "the host is matched by `match.host`");
            at.push(error.label("HTTP/2 requests have no `host` header"));
            return None;
        }
        Some((name, value(at)?))
    });
    Some(read.collect())
}

fn by_parameter(at: At<'_>) -> Option<Vec<(String, ValueMatch)>> {
    let pairs = at.pairs("a map from query parameters to values")?;
    Some(pairs.iter().filter_map(|(entry, at)| Some((entry.key.clone(), value(at)?))).collect())
}

fn value(at: &At<'_>) -> Option<ValueMatch> {
    let Value::Map(_) = at.node.value else {
        return at.text().map(|text| ValueMatch::Exact(text.to_owned()));
    };
    let fields = at.fields(&keys::VALUE)?;
    let which = fields.exactly_one(&["present", "prefix", "regex"])?;
    match which.path.steps().last() {
        Some(crate::config::node::Step::Key("present")) => which.boolean().map(ValueMatch::Present),
        Some(crate::config::node::Step::Key("prefix")) => {
            which.text().map(|text| ValueMatch::Prefix(text.to_owned()))
        }
        _ => regex(&which).map(ValueMatch::Regex),
    }
}

fn regex(at: &At<'_>) -> Option<Regex> {
    at.parsed(|text| {
        RegexBuilder::new(text).size_limit(MAX_REGEX).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("it compiles to more than {} KiB: write a simpler one", MAX_REGEX >> 10)
            }
            // The last line says what is wrong; those above draw the place, which we underline ourselves.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        })
    })
}
