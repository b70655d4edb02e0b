//! What the page of upstreams says of breakers, adaptive limits and throttles.

use serde_json::{Value, json};

use crate::upstream::GateView;

use super::show::thousandths;

/// `breaker`, `adaptive` and `throttle` of an upstream; `null` where they are off.
pub(super) fn fields(view: &GateView) -> [(&'static str, Value); 3] {
    let breaker = view.breaker.as_ref().map(|breaker| {
        json!({
            "state": breaker.state,
            "since_seconds": thousandths(breaker.since.as_secs_f64()),
            "at_most": breaker.at_most,
            "window": {
                "requests": breaker.requests,
                "failed": breaker.failed,
                "slow": breaker.slow,
            },
        })
    });
    let adaptive = view.adaptive.map(|(limit, normal)| {
        json!({ "limit": limit, "normal_ms": thousandths(normal.as_secs_f64() * 1e3) })
    });
    let throttle = view.throttle.map(|(probability, wanted, accepted)| {
        json!({
            "probability": thousandths(probability),
            "window": { "wanted": wanted, "accepted": accepted },
        })
    });
    [("breaker", json!(breaker)), ("adaptive", json!(adaptive)), ("throttle", json!(throttle))]
}
