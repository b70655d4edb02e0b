//! State, ejection and slow start of an endpoint, as `/upstreams` has them.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::balance::endpoint::Endpoint;
use crate::balance::endpoint_set::EndpointSet;

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

/// How much each priority gets; nothing where there is one only.
pub(super) fn priorities(set: &EndpointSet) -> Option<Value> {
    let one = |(priority, share)| json!({ "priority": priority, "share": thousandths(share) });
    let all: Vec<Value> = set.priorities().map(one).collect();
    (!all.is_empty()).then_some(Value::Array(all))
}
