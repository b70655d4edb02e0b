//! What the admin pages say.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::base::units::format_duration;
use crate::control::{Applied, Control, Managed};

use super::gate;
use super::standing;

/// For `/` and for pages that do not exist.
pub(super) const INDEX: &str = "\
outrigger admin
  GET  /metrics     Prometheus text
  GET  /ready       200 when traffic may come
  GET  /live        200 while the process runs
  GET  /config      every value in force, with its origin
  GET  /upstreams   each endpoint: address, state, in flight, latency, source
  GET  /services    services and where they are; /services/events streams changes
  POST /reload      read the file again
  POST /drain       end all traffic and exit
  PUT  /log-level   error, warn, info, debug, trace, or a filter
";

/// The values in force, under a head that says which generation they are and where listeners are bound.
pub(super) fn config(control: &Control) -> String {
    let mut text = format!("# generation {}\n", control.generation());
    if let Some(error) = control.last_error() {
        text.push_str("# the newest file was refused:\n");
        for line in error.lines() {
            text.push_str(&format!("#   {line}\n"));
        }
    }
    for bound in control.bound() {
        text.push_str(&format!("# listener {} is bound to {}\n", bound.name, bound.address));
    }
    text.push_str(&control.effective());
    text
}

/// What a reload has changed.
pub(super) fn applied(applied: &Applied) -> Value {
    json!({
        "generation": applied.generation,
        "listeners_bound": applied.listeners_bound,
        "listeners_closed": applied.listeners_closed,
        "upstreams_changed": applied.upstreams_changed,
        "upstreams_removed": applied.upstreams_removed,
        "needs_restart": applied.needs_restart,
    })
}

/// Enough digits for people.
pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Every upstream with its endpoints.
pub(super) fn upstreams(control: &Control) -> Value {
    let now = Instant::now();
    control.with_upstreams(|upstreams| {
        let page = |managed| upstream(managed, &upstreams.draining(&managed.upstream.name), now);
        Value::Array(upstreams.iter().map(|managed| page(managed)).collect())
    })
}

fn upstream(managed: &Managed, draining: &[Arc<Endpoint>], now: Instant) -> Value {
    let upstream = &managed.upstream;
    let limits: serde_json::Map<String, Value> = upstream
        .usage()
        .into_iter()
        .map(|(name, current, maximum)| {
            (name.to_owned(), json!({ "current": current, "maximum": maximum }))
        })
        .collect();
    let source = managed.config.discover.source();
    let endpoints: Vec<Value> = upstream
        .endpoints()
        .members()
        .iter()
        .map(|member| {
            let endpoint = &member.endpoint;
            let latency = endpoint.latency(now).as_secs_f64() * 1e3;
            let mut shown = json!({
                "address": endpoint.address.to_string(),
                "health": super::health::endpoint(managed, endpoint.id, now),
                "weight": member.weight,
                "priority": member.priority,
                "zone": endpoint.zone,
                "labels": endpoint.labels,
                "in_flight": endpoint.in_flight(),
                "requests": endpoint.requests(),
                "failures": endpoint.failures(),
                "ewma_ms": thousandths(latency),
                "source": source,
                "age_seconds": age(endpoint, now),
            });
            standing::add(&mut shown, &upstream.balancer, endpoint, now);
            shown
        })
        .collect();
    let endpoints = match &upstream.originals {
        None => endpoints,
        Some(originals) => originals.endpoints().iter().map(|e| passing(e, now)).collect(),
    };
    let mut page = json!({
        "name": &*upstream.name,
        "resolved": upstream.is_resolved(),
        "panic": upstream.balancer.is_panicking(),
        "balance": standing::balance(managed),
        "subset": standing::subset(upstream),
        "discovery": discovery(managed, &source, now),
        "limits": limits,
        "endpoints": endpoints,
    });
    let draining = draining.iter().map(|endpoint| {
        json!({
            "address": endpoint.address.to_string(),
            "state": "draining",
            "in_flight": endpoint.in_flight(),
            "age_seconds": age(endpoint, now),
        })
    });
    page["draining"] = draining.collect();
    if let Some(shares) = standing::shares(&upstream.endpoints()) {
        page["shares"] = shares;
    }
    for (key, value) in gate::fields(&upstream.gate.view(now)) {
        page[key] = value;
    }
    page
}

/// A destination of redirected connections.
fn passing(endpoint: &Endpoint, now: Instant) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "source": "original://",
        "in_flight": endpoint.in_flight(),
        "requests": endpoint.requests(),
        "failures": endpoint.failures(),
        "age_seconds": age(endpoint, now),
    })
}

/// Whole seconds since an endpoint was first known.
fn age(endpoint: &Endpoint, now: Instant) -> u64 {
    now.saturating_duration_since(endpoint.since).as_secs()
}

fn discovery(managed: &Managed, source: &str, now: Instant) -> Value {
    let Some(status) = &managed.status else { return json!({ "source": source }) };
    let error = status.last_error().map(|error| {
        let age = now.saturating_duration_since(error.at);
        json!({ "reason": error.kind.word(), "text": error.text, "age": format_duration(age) })
    });
    json!({
        "source": source,
        "state": status.standing().word(),
        "age_seconds": status.staleness(now).as_secs(),
        "updates": status.updates(),
        "last_error": error,
    })
}
