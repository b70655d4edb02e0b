//! `breaker`, `adaptive` and `throttle` of an upstream.

use std::fmt::Display;

use crate::base::units::format_duration;
use crate::config::node::Node;
use crate::config::{Adaptive, Upstream};

use super::below;
use super::write::Writer;

pub(super) fn write(w: &mut Writer<'_>, upstream: &Upstream, node: Option<&Node>) {
    let at = |key| below(node, key, "");
    match &upstream.breaker {
        None => w.leaf("breaker", "never", at("breaker")),
        Some(breaker) => w.section("breaker", |w| {
            let node = at("breaker");
            let leaf = |w: &mut Writer<'_>, key: &str, value: &dyn Display| {
                w.leaf(key, value, below(node, key, "errors"));
            };
            leaf(w, "errors", &breaker.errors);
            match &breaker.slow {
                None => w.note("slow: not judged"),
                Some(slow) => w.section("slow", |w| {
                    let node = below(node, "slow", "");
                    w.leaf("share", slow.share, below(node, "share", ""));
                    w.leaf("over", format_duration(slow.over), below(node, "over", ""));
                }),
            }
            leaf(w, "window", &format_duration(breaker.window));
            leaf(w, "min_requests", &breaker.min_requests);
            leaf(w, "open_for", &format_duration(breaker.open_for));
            leaf(w, "probes", &breaker.probes);
        }),
    }
    let adaptive = match upstream.adaptive {
        None => "never",
        Some(Adaptive::Gradient) => "gradient",
    };
    w.leaf("adaptive", adaptive, at("adaptive"));
    match &upstream.throttle {
        None => w.leaf("throttle", "never", at("throttle")),
        Some(throttle) => w.section("throttle", |w| {
            w.leaf("k", throttle.k, below(at("throttle"), "k", "k"));
        }),
    }
}
