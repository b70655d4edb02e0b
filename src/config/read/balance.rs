//! `balance` and `subset` of an upstream, `hash` of a route.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use crate::config::balance::{Balance, Balancing, HashBy, MAX_LOAD};
use crate::config::keys;
use crate::config::node::Value;

use super::At;

/// Items of `hash`: each is looked for in every request.
const MOST_ITEMS: usize = 8;

/// `max_load`, in percent of the mean.
const MAX_LOADS: std::ops::RangeInclusive<u32> = 100..=1_000;

/// A policy's word, or the map. Who stands in which zone is told by the file.
pub(super) fn balancing(at: At<'_>) -> Option<Balancing> {
    let standard = Balancing::default();
    if !matches!(at.node.value, Value::Map(_)) {
        return at.word(&Balance::WORDS).map(|policy| Balancing { policy, ..standard });
    }
    let fields = at.fields(&keys::BALANCE)?;
    let panic = fields.read("panic", |at| at.share());
    let zone_aware = fields.read("zone_aware", |at| at.boolean());
    let max_load = fields.read("max_load", |at| at.or_unlimited(|at| max_load(&at)));
    let policy = fields.required("policy")?.word(&Balance::WORDS)?;
    if let Some(at) = fields.get("max_load").filter(|_| policy != Balance::RingHash) {
        let message = format!("`max_load` means nothing to `{}`", policy.word());
        at.push(at.error("contradiction", message).label("remove it, or use `ring_hash`"));
    }
    Some(Balancing {
        policy,
        panic: panic.unwrap_or(standard.panic),
        zone_aware: zone_aware.unwrap_or(false),
        zone: String::new(),
        max_load: max_load.unwrap_or(Some(MAX_LOAD)),
        advised: false,
    })
}

fn max_load(at: &At<'_>) -> Option<u32> {
    const RIGHT: &str = "write a share from `100%` to `1000%`, or `unlimited`";
    let text = &at.scalar("a share like `125%`, or `unlimited`")?.text;
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let percent = percent.filter(|percent| MAX_LOADS.contains(percent));
    if percent.is_none() {
        at.bad_value(text, RIGHT);
    }
    percent
}

/// At least one label with its value.
pub(super) fn subset(at: At<'_>) -> Option<BTreeMap<String, String>> {
    let pairs = at.pairs("a map from labels to values")?;
    if pairs.is_empty() {
        let message = "`subset` names no label";
        at.push(at.error("missing-key", message).label("write a label, such as `version: v2`"));
        return None;
    }
    let read = pairs.iter().filter_map(|(e, at)| Some((e.key.clone(), at.text()?.to_owned())));
    Some(read.collect())
}

/// One item, or a list of them.
pub(super) fn hash(at: At<'_>) -> Option<Vec<HashBy>> {
    let items = at.one_or_more();
    if items.is_empty() || items.len() > MOST_ITEMS {
        let message = match items.len() {
            0 => "`hash` is an empty list".to_owned(),
            many => format!("`hash` has {many} items, at most {MOST_ITEMS} are looked for"),
        };
        at.push(at.error("out-of-range", message).label("write one to eight items"));
        return None;
    }
    Some(items.iter().filter_map(item).collect())
}

fn item(at: &At<'_>) -> Option<HashBy> {
    const RIGHT: &str =
        "write `header:NAME`, `query:NAME`, `source_ip`, or `{ cookie: { name: NAME, ttl: 1h } }`";
    if let Value::Map(_) = at.node.value {
        return cookie(&at.fields(&keys::HASH)?.required("cookie")?);
    }
    let text = at.scalar("an item such as `header:x-user`")?.text.as_str();
    let right = match text.split_once(':') {
        None if text == "source_ip" => return Some(HashBy::SourceIp),
        None if text == "source" => "did you mean `source_ip`?",
        Some(("header", name)) => match HeaderName::from_bytes(name.trim().as_bytes()) {
            Ok(name) => return Some(HashBy::Header(name)),
            Err(_) => "write the name of a header, such as `header:x-user`",
        },
        Some(("query", name)) if !name.trim().is_empty() => {
            return Some(HashBy::Query(name.trim().to_owned()));
        }
        Some(("query", _)) => "write the name of a parameter, such as `query:id`",
        Some(("cookie", name)) if is_token(name) => {
            return Some(HashBy::Cookie { name: name.to_owned(), ttl: None });
        }
        Some(("cookie", _)) => "write the name of a cookie, such as `cookie:sid`",
        _ => RIGHT,
    };
    at.bad_value(text, right);
    None
}

fn cookie(at: &At<'_>) -> Option<HashBy> {
    const RIGHT: &str = "letters, digits and any of !#$%&'*+-.^_`|~ make the name of a cookie";
    let fields = at.fields(&keys::COOKIE)?;
    let ttl = fields.read("ttl", |at| ttl(&at));
    let name = fields.required("name")?.parsed(|name| match is_token(name) {
        true => Ok(name.to_owned()),
        false => Err(RIGHT),
    })?;
    Some(HashBy::Cookie { name, ttl })
}

/// `Max-Age` counts whole seconds.
fn ttl(at: &At<'_>) -> Option<Duration> {
    let ttl = at.span_of_time()?;
    if ttl.subsec_nanos() != 0 {
        at.bad_value(&crate::base::units::format_duration(ttl), "write whole seconds, at least 1s");
        return None;
    }
    Some(ttl)
}

fn is_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(token)
}
