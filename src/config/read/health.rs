//! `health`.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery};

use crate::base::units::format_duration;
use crate::config::diagnostic::{Diagnostic, nearest};
use crate::config::keys;
use crate::config::node::{Entry, Value};
use crate::config::{HealthCheck, HealthProbe};

use super::{At, Fields};

/// What may stand alone in place of a map.
const WANTED: &str = "a path such as `/healthz`, `tcp`, `grpc`, `never`, or a map";

/// The kinds of checks: exactly one is written.
const KINDS: [&str; 3] = ["http", "tcp", "grpc"];

/// A longer path or name is a mistake, and is sent with every check.
const MAX_TEXT: usize = 1024;

/// What holds where only the kind of check is written.
fn standard(probe: HealthProbe) -> HealthCheck {
    HealthCheck {
        probe,
        host: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    }
}

fn http(path: String) -> HealthProbe {
    HealthProbe::Http { path, status: vec![(200, 299)] }
}

/// `never` as `None`.
pub(super) fn health(at: At<'_>) -> Option<Option<HealthCheck>> {
    if let Value::Scalar(scalar) = &at.node.value {
        return short(&at, &scalar.text);
    }
    let fields = at.fields(&keys::HEALTH)?;
    let probe = probe(&fields);
    let standard = standard(HealthProbe::Tcp);
    let read = HealthCheck {
        host: host(&fields, probe.as_ref()),
        interval: within(&fields, "interval", Duration::from_millis(10), Duration::from_secs(3600))
            .unwrap_or(standard.interval),
        timeout: within(&fields, "timeout", Duration::from_millis(1), Duration::from_secs(60))
            .unwrap_or(standard.timeout),
        rise: fields.read("rise", |at| at.number(1..=100)).unwrap_or(standard.rise),
        fall: fields.read("fall", |at| at.number(1..=100)).unwrap_or(standard.fall),
        probe: probe?,
    };
    Some(Some(read))
}

fn short(at: &At<'_>, word: &str) -> Option<Option<HealthCheck>> {
    match word {
        "never" => Some(None),
        "tcp" => Some(Some(standard(HealthProbe::Tcp))),
        "grpc" => Some(Some(standard(HealthProbe::Grpc { service: String::new() }))),
        path if path.starts_with('/') => {
            let path = at.parsed(self::path)?;
            Some(Some(standard(http(path))))
        }
        _ => {
            let right = match word {
                "off" | "no" | "none" | "false" | "disabled" | "0" => {
                    "no health check is written `never`".to_owned()
                }
                _ => match nearest(word, ["tcp", "grpc", "never"]) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("write {WANTED}"),
                },
            };
            at.bad_value(word, &right);
            None
        }
    }
}

/// The one kind of check that is written. An upstream's own wins over one from `defaults`.
fn probe(fields: &Fields<'_>) -> Option<HealthProbe> {
    let kinds = fields.entries.iter().filter(|entry| KINDS.contains(&entry.key.as_str()));
    let own: Vec<&Entry> = kinds.filter(|entry| !entry.node.inherited).collect();
    let found = match own.as_slice() {
        [only] => fields.get(&only.key)?,
        _ => fields.exactly_one(&KINDS)?,
    };
    let kind = found.subject();
    let kind = kind.trim_matches('`');
    if kind != "http" {
        has_no_meaning(fields, "status", kind);
    }
    if kind == "tcp" {
        has_no_meaning(fields, "host", kind);
    }
    match kind {
        "http" => {
            let status = fields.read("status", statuses).unwrap_or_else(|| vec![(200, 299)]);
            let path = found.parsed(path)?;
            Some(HealthProbe::Http { path, status })
        }
        "tcp" => match found.boolean()? {
            true => Some(HealthProbe::Tcp),
            false => {
                found.bad_value("false", "write `tcp: true`, or another kind of check");
                None
            }
        },
        _ => found.parsed(service).map(|service| HealthProbe::Grpc { service }),
    }
}

/// Reports a key that goes with another kind of check. One from `defaults` is merely not used.
fn has_no_meaning(fields: &Fields<'_>, key: &str, kind: &str) {
    let Some(at) = fields.get(key).filter(|at| !at.node.inherited) else { return };
    let message = format!("`{key}` has no meaning for a check of `{kind}`");
    let error = Diagnostic::error("exclusive-keys", at.place, message).at(at.path);
    at.push(error.label("remove it"));
}

fn path(text: &str) -> Result<String, &'static str> {
    const RIGHT: &str = "write a path such as `/healthz`";
    let parsed = text.parse::<PathAndQuery>().map_err(|_| RIGHT)?;
    // The parser drops a fragment, and takes `*`.
    if !text.starts_with('/') || parsed.as_str() != text {
        return Err(RIGHT);
    }
    if text.len() > MAX_TEXT {
        return Err("a path here has at most 1024 bytes");
    }
    Ok(text.to_owned())
}

fn service(text: &str) -> Result<String, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("a name here has at most 1024 bytes");
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        true => Ok(text.to_owned()),
        false => Err("write a service such as `blog.Articles`, or `\"\"` for the whole server"),
    }
}

fn host(fields: &Fields<'_>, probe: Option<&HealthProbe>) -> Option<String> {
    if matches!(probe, Some(HealthProbe::Tcp)) {
        return None;
    }
    fields.read("host", |at| {
        at.parsed(|text| match text.parse::<Authority>() {
            Ok(host) if !text.contains('@') => Ok(host.as_str().to_owned()),
            _ => Err("write a host such as `articles.internal` or `articles.internal:8080`"),
        })
    })
}

/// One status, a range with both its ends, or a list of these; sorted.
fn statuses(at: At<'_>) -> Option<Vec<(u16, u16)>> {
    let mut statuses: Vec<_> = at.one_or_more().iter().filter_map(status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    (!statuses.is_empty()).then_some(statuses)
}

fn status(at: &At<'_>) -> Option<(u16, u16)> {
    let text = &at.scalar("a status such as `200`, or a range such as `200..299`")?.text;
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| match text.trim().parse::<u16>() {
        Ok(status @ 200..=599) => Some(status),
        _ => None,
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => {
            at.bad_value(
                text,
                "write a status from 200 to 599, or a range of them like `200..299`",
            );
            None
        }
    }
}

/// A duration in a range, both ends included.
fn within(fields: &Fields<'_>, key: &str, least: Duration, most: Duration) -> Option<Duration> {
    let at = fields.get(key)?;
    let time = at.span_of_time()?;
    if !(least..=most).contains(&time) {
        let message = format!("`{key}` is out of range: `{}`", format_duration(time));
        let (least, most) = (format_duration(least), format_duration(most));
        let label = format!("write a duration from {least} to {most}");
        at.push(at.error("out-of-range", message).label(label));
        return None;
    }
    Some(time)
}
