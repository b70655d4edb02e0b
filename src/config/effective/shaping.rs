//! What a route does to requests besides sending them on.

use crate::base::units::format_duration;
use crate::config::node::Node;
use crate::config::{Fault, RateLimit, RateLimitBy, Shaping};

use super::below;
use super::write::{Writer, quoted};

pub(super) fn shaping(w: &mut Writer<'_>, shaping: &Shaping, node: Option<&Node>) {
    rate_limit(w, shaping.rate_limit.as_ref(), below(node, "rate_limit", ""));
    fault(w, shaping.fault.as_ref(), below(node, "fault", ""));
}

fn fault(w: &mut Writer<'_>, fault: Option<&Fault>, node: Option<&Node>) {
    let Some(fault) = fault else {
        w.leaf("fault", "never", node);
        return;
    };
    w.section("fault", |w| {
        if let Some(delay) = &fault.delay {
            let node = below(node, "delay", "");
            w.section("delay", |w| {
                w.leaf("share", delay.share, below(node, "share", ""));
                w.leaf("for", format_duration(delay.time), below(node, "for", ""));
            });
        }
        if let Some(abort) = &fault.abort {
            let node = below(node, "abort", "");
            w.section("abort", |w| {
                w.leaf("share", abort.share, below(node, "share", ""));
                w.leaf("status", abort.status.as_u16(), below(node, "status", ""));
            });
        }
    });
}

fn rate_limit(w: &mut Writer<'_>, limit: Option<&RateLimit>, node: Option<&Node>) {
    let Some(limit) = limit else {
        w.leaf("rate_limit", "unlimited", node);
        return;
    };
    w.section("rate_limit", |w| {
        w.leaf("rate", limit.rate, below(node, "rate", "rate"));
        w.leaf("burst", limit.burst, below(node, "burst", ""));
        match &limit.by {
            RateLimitBy::Route => {
                w.note("by: one limit for the route");
                return;
            }
            RateLimitBy::Header(name) => {
                w.leaf("by", quoted(format_args!("header:{name}")), below(node, "by", ""));
            }
            RateLimitBy::Source => w.leaf("by", "source", below(node, "by", "")),
        }
        w.leaf("keys", limit.keys, below(node, "keys", ""));
    });
}
