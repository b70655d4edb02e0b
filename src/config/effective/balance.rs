//! `balance` and `subset` of an upstream, `hash` of a route.

use crate::base::units::format_duration;
use crate::config::node::Node;
use crate::config::{Balance, HashBy, Upstream};

use super::below;
use super::write::{Writer, list, quoted, text, unlimited};

pub(super) fn upstream(w: &mut Writer<'_>, upstream: &Upstream, node: Option<&Node>) {
    if !upstream.subset.is_empty() {
        let node = below(node, "subset", "");
        w.section("subset", |w| {
            for (label, value) in &upstream.subset {
                w.leaf(&text(label), text(value), below(node, label, ""));
            }
        });
    }
    let balance = &upstream.balance;
    if balance.advised {
        return w.note("balance: as the control plane's cluster says, else `peak_ewma`");
    }
    let node = below(node, "balance", "");
    w.section("balance", |w| {
        w.leaf("policy", balance.policy.word(), below(node, "policy", "policy"));
        w.leaf("panic", balance.panic, below(node, "panic", "policy"));
        w.leaf("zone_aware", balance.zone_aware, below(node, "zone_aware", ""));
        if balance.policy == Balance::RingHash {
            let most = balance.max_load.map(|percent| format!("{percent}%"));
            w.leaf("max_load", unlimited(most), below(node, "max_load", ""));
        }
    });
}

pub(super) fn hash(w: &mut Writer<'_>, hash: &[HashBy], node: Option<&Node>) {
    if hash.is_empty() {
        return;
    }
    let item = |item: &HashBy| match item {
        HashBy::Header(name) => quoted(format_args!("header:{name}")),
        HashBy::Query(name) => quoted(format_args!("query:{name}")),
        HashBy::SourceIp => "source_ip".to_owned(),
        HashBy::Cookie { name, ttl } => {
            let ttl = ttl.map(|ttl| format!(", ttl: {}", format_duration(ttl))).unwrap_or_default();
            format!("{{ cookie: {{ name: {}{ttl} }} }}", text(name))
        }
    };
    w.leaf("hash", list(hash.iter().map(item)), below(node, "hash", ""));
}
