//! State, ejection and slow start of an endpoint, as `/upstreams` has them.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::balance::endpoint_set::EndpointSet;
use crate::balance::{Balancer, PartView, Policy};
use crate::config::Balance;
use crate::control::Managed;
use crate::upstream::{Subset, Upstream};

use super::show::thousandths;

/// Adds the fields that say whether the endpoint is picked.
pub(super) fn add(shown: &mut Value, balancer: &Balancer, endpoint: &Endpoint, now: Instant) {
    let view = balancer.view(endpoint, now);
    let ejection = view.ejection.map(|ejection| {
        json!({
            "seconds_left": thousandths(ejection.left.as_secs_f64()),
            "probing": ejection.probing,
            "enforced": ejection.enforced,
        })
    });
    let fields = [
        ("state", json!(view.place.word())),
        ("ejection", json!(ejection)),
        ("ejections", json!(view.ejections)),
        ("weight_share", json!(view.share)),
    ];
    if let Value::Object(shown) = shown {
        shown.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
}

/// How its endpoints are picked.
pub(super) fn balance(managed: &Managed) -> Value {
    let balance = &managed.config.balance;
    let zone = managed.upstream.balancer.zone();
    let policy = managed.upstream.balancer.policy();
    let (word, bound) = match policy {
        Policy::PeakEwma => (Balance::PeakEwma, None),
        Policy::LeastRequest => (Balance::LeastRequest, None),
        Policy::RoundRobin => (Balance::RoundRobin, None),
        Policy::Random => (Balance::Random, None),
        Policy::RingHash(bound) => (Balance::RingHash, bound),
        Policy::Maglev => (Balance::Maglev, None),
    };
    let advice = managed.status.as_ref().and_then(|status| status.advised());
    let said = balance.advised && advice.is_some_and(|advice| advice.is_said());
    let by = if said { "control plane" } else { "configuration" };
    json!({ "policy": word.word(), "by": by, "zone": zone, "max_load_percent": bound })
}

/// Which of the endpoints that are known are used; null: all.
pub(super) fn subset(upstream: &Upstream) -> Value {
    let shown = |subset: &Subset| json!({ "labels": subset.labels(), "outside": subset.outside() });
    upstream.subset.as_ref().map_or(Value::Null, shown)
}

/// How much each priority, and each zone of it, gets; nothing where the set has no parts.
pub(super) fn shares(set: &EndpointSet) -> Option<Value> {
    let one = |part: PartView| json!({ "priority": part.priority, "zone": part.zone, "share": thousandths(part.share) });
    let all: Vec<Value> = set.shares().map(one).collect();
    (!all.is_empty()).then_some(Value::Array(all))
}
