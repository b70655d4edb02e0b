//! `request_headers` and `response_headers`.

use http::{HeaderName, HeaderValue};

use crate::config::HeaderEdits;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::source::Span;

use super::At;

/// Headers of one connection (RFC 9110 §7.6.1) and of the message's framing: the proxy writes them itself, and an
/// edit would split messages or desynchronise the two sides.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

pub(super) fn edits(at: At<'_>) -> Option<HeaderEdits> {
    let fields = at.fields(&keys::HEADERS)?;
    Some(HeaderEdits {
        set: fields.read("set", values).unwrap_or_default(),
        append: fields.read("append", values).unwrap_or_default(),
        remove: fields.read("remove", names).unwrap_or_default(),
    })
}

/// A header's name, for a match.
pub(super) fn name(at: &At<'_>, text: &str, span: Span) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        let message = format!("`{text}` is no header name");
        let right = match text.strip_prefix(':') {
            Some("path" | "authority" | "method") => "match `path`, `host` or `method` instead",
            _ => "letters, digits and `-`",
        };
        at.push(Diagnostic::error("bad-header", span, message).at(at.path).label(right));
    }
    name
}

/// A header that a claim may become: none that we write, or by which messages are framed, routed or believed.
pub(super) fn settable(at: &At<'_>, text: &str, span: Span) -> Option<HeaderName> {
    const BELIEVED: [&str; 16] = [
        "authorization",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "grpc-timeout",
        "idempotency-key",
        "proxy-authorization",
        "via",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
        "traceparent",
        "tracestate",
    ];
    let name = editable(at, text, span)?;
    let ours = name.as_str().starts_with("x-outrigger-") || name.as_str().starts_with("x-envoy-");
    if ours || BELIEVED.contains(&name.as_str()) {
        let message = format!("a claim cannot become `{name}`");
        let error = Diagnostic::error("bad-header", span, message).at(at.path);
        at.push(error.label("it has a meaning of its own: write another, such as `x-user`"));
        return None;
    }
    Some(name)
}

/// A header's name, for an edit.
fn editable(at: &At<'_>, text: &str, span: Span) -> Option<HeaderName> {
    let name = name(at, text, span)?;
    let (message, right) = match name.as_str() {
        "host" => ("`host` is not edited as a header".to_owned(), "use `rewrite: { host: … }`"),
        ours if OURS.contains(&ours) => (
            format!("`{ours}` belongs to one connection or to a message's framing"),
            "remove it: the proxy writes this header itself",
        ),
        _ => return Some(name),
    };
    at.push(Diagnostic::error("bad-header", span, message).at(at.path).label(right));
    None
}

fn values(at: At<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let pairs = at.pairs("a map from header names to values")?;
    let read = pairs.iter().filter_map(|(entry, at)| {
        let name = editable(at, &entry.key, entry.key_span);
        let value = at.parsed(|text| {
            HeaderValue::from_str(text).map_err(|_| "write one line of visible ASCII characters")
        });
        Some((name?, value?))
    });
    Some(read.collect())
}

fn names(at: At<'_>) -> Option<Vec<HeaderName>> {
    let items = at.one_or_more();
    Some(items.iter().filter_map(|item| editable(item, item.text()?, item.node.span)).collect())
}
