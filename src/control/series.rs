//! Series of what a configuration no longer names: dropped, so that churn cannot grow `/metrics`.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::upstream::{breaker_words, rejection_words};

use super::{compile, resolve};

/// Drops the series of the listeners, routes and upstreams that `gone` has and `kept` has not.
pub(super) fn forget(metrics: &Metrics, gone: &Config, kept: &Config) {
    for old in &gone.listeners {
        let names = old.routes.iter().map(|route| &*route.name);
        match kept.listeners.iter().find(|new| new.name == old.name) {
            None => {
                let names = names.chain([compile::UNROUTED]);
                metrics.downstream.forget_listener(&old.name, names);
            }
            Some(new) => {
                let is_kept = |name: &str| {
                    name == compile::UNROUTED || new.routes.iter().any(|route| route.name == name)
                };
                for name in names.filter(|name| !is_kept(name)) {
                    metrics.downstream.forget_route(&old.name, name);
                }
            }
        }
    }
    let suppressed = compile::suppressed_words();
    for old in &gone.upstreams {
        match kept.upstreams.iter().find(|new| new.name == old.name) {
            Some(new) => {
                metrics.gate.forget_unless(&old.name, compile::features(new), &breaker_words());
            }
            None => {
                metrics.upstream.forget(&old.name, &suppressed, &resolve::error_words());
                metrics.gate.forget(&old.name, &breaker_words(), &rejection_words());
            }
        }
    }
}
