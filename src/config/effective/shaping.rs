//! What a route does to requests besides sending them on.

use crate::base::units::{Ratio, format_duration};
use crate::config::node::Node;
use crate::config::{Fault, Hedge, RateLimit, RateLimitBy, Shaping};

use super::below;
use super::write::{Writer, quoted, text};

pub(super) fn shaping(w: &mut Writer<'_>, shaping: &Shaping, node: Option<&Node>) {
    rate_limit(w, shaping.rate_limit.as_ref(), below(node, "rate_limit", ""));
    fault(w, shaping.fault.as_ref(), below(node, "fault", ""));
    mirror(w, &shaping.mirror, below(node, "mirror", ""));
    let node = below(node, "hedge", "");
    match shaping.hedge {
        None => w.leaf("hedge", "never", node),
        Some(hedge) => w.section("hedge", |w| {
            let node = below(node, "after", "after");
            match hedge {
                Hedge::After(delay) => w.leaf("after", format_duration(delay), node),
                Hedge::Percentile(share) => {
                    let percent = (share.fraction() * 1e5).round() / 1e3;
                    w.leaf("after", format_args!("p{percent}"), node);
                }
            }
        }),
    }
}

fn mirror(w: &mut Writer<'_>, mirror: &[(String, Ratio)], node: Option<&Node>) {
    if mirror.is_empty() {
        w.leaf("mirror", "never", node);
        return;
    }
    w.section("mirror", |w| {
        for (name, share) in mirror {
            w.leaf(&text(name), share, below(node, name, ""));
        }
    });
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
            RateLimitBy::Identity => w.leaf("by", "identity", below(node, "by", "")),
        }
        w.leaf("keys", limit.keys, below(node, "keys", ""));
    });
}
