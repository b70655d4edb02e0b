//! Series of what a configuration no longer names: dropped, so that churn cannot grow `/metrics`.

use crate::config::{Config, Route, Shaping};
use crate::metrics::Metrics;
use crate::upstream::{breaker_words, rejection_words};

use super::{compile, providers};

/// Drops the series of the listeners, routes and upstreams that `gone` has and `kept` has not.
pub(super) fn forget(metrics: &Metrics, gone: &Config, kept: &Config) {
    for old in &gone.listeners {
        let names = old.routes.iter().map(|route| &*route.name);
        match kept.listeners.iter().find(|new| new.name == old.name) {
            None => {
                metrics.tls.forget_listener(&old.name);
                let names = names.chain([compile::UNROUTED]);
                metrics.downstream.forget_listener(&old.name, names);
            }
            Some(new) => {
                if old.tls.is_some() && new.tls.is_none() {
                    metrics.tls.forget_listener(&old.name);
                }
                let is_kept = |name: &str| {
                    name == compile::UNROUTED || new.routes.iter().any(|route| route.name == name)
                };
                for name in names.filter(|name| !is_kept(name)) {
                    metrics.downstream.forget_route(&old.name, name);
                }
            }
        }
    }
    forget_access(metrics, gone, kept);
    forget_shaping(metrics, gone, kept);
    let is_checked = |name: &str| {
        kept.upstreams.iter().any(|upstream| upstream.name == name && upstream.health.is_some())
    };
    for old in gone.upstreams.iter().filter(|old| !is_checked(&old.name)) {
        metrics.health.forget(&old.name);
    }
    let suppressed = compile::suppressed_words();
    for old in &gone.upstreams {
        match kept.upstreams.iter().find(|new| new.name == old.name) {
            Some(new) => {
                if old.tls.is_some() && new.tls.is_none() {
                    metrics.tls.forget_upstream(&old.name);
                }
                metrics.gate.forget_unless(&old.name, compile::features(new), &breaker_words());
                let zones = compile::knows_zones(new);
                metrics.balance.forget_unless(&old.name, zones, !new.subset.is_empty());
            }
            None => {
                metrics.tls.forget_upstream(&old.name);
                metrics.upstream.forget(&old.name, &suppressed, &providers::error_words());
                metrics.balance.forget_unless(&old.name, false, false);
                metrics.upstream.forget_ejections(&old.name, &compile::ejection_words());
                metrics.gate.forget(&old.name, &breaker_words(), &rejection_words());
            }
        }
    }
}

/// Drops the series of what listeners asked for and do no more.
fn forget_access(metrics: &Metrics, gone: &Config, kept: &Config) {
    for old in &gone.listeners {
        let new = kept.listeners.iter().find(|new| new.name == old.name);
        if let Some(rules) = &old.authorize
            && new
                .and_then(|new| new.authorize.as_ref())
                .is_none_or(|new| new.enforce != rules.enforce)
        {
            metrics.access.forget_denied(&old.name, rules.enforce);
        }
        if !old.jwt.is_empty() && new.is_none_or(|new| new.jwt.is_empty()) {
            metrics.access.forget_jwt(&old.name, &compile::token_refusals());
        }
    }
}

/// Drops the series of what routes did and do no more.
fn forget_shaping(metrics: &Metrics, gone: &Config, kept: &Config) {
    let shaped = routes(gone).filter(|(_, route)| route.shaping != Shaping::default());
    for (listener, route) in shaped {
        let same = routes(kept).find(|(at, new)| *at == listener && new.name == route.name);
        let kept = same.map(|(_, route)| &route.shaping);
        if route.shaping.rate_limit.is_some() && kept.is_none_or(|kept| kept.rate_limit.is_none()) {
            metrics.route.forget_rate_limit(listener, &route.name);
        }
        if route.shaping.fault.is_some() && kept.is_none_or(|kept| kept.fault.is_none()) {
            metrics.route.forget_faults(listener, &route.name);
        }
        if !route.shaping.mirror.is_empty() && kept.is_none_or(|kept| kept.mirror.is_empty()) {
            metrics.route.forget_mirror(listener, &route.name);
        }
        if route.shaping.hedge.is_some() && kept.is_none_or(|kept| kept.hedge.is_none()) {
            metrics.route.forget_hedge(listener, &route.name);
        }
    }
}

fn routes(config: &Config) -> impl Iterator<Item = (&str, &Route)> {
    let listeners = config.listeners.iter();
    listeners.flat_map(|listener| listener.routes.iter().map(|route| (&*listener.name, route)))
}
