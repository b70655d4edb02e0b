//! `outliers`.

use std::fmt::Display;

use crate::base::units::format_duration;
use crate::config::node::Node;
use crate::config::outliers::Outliers;

use super::below;
use super::write::Writer;

pub(super) fn outliers(w: &mut Writer<'_>, outliers: Option<&Outliers>, node: Option<&Node>) {
    let Some(outliers) = outliers else {
        w.leaf("outliers", "never", node);
        return;
    };
    w.section("outliers", |w| {
        let mut leaf = |key: &str, value: String| w.leaf(key, value, below(node, key, ""));
        leaf("consecutive", never(outliers.consecutive));
        leaf("gateway", never(outliers.gateway));
        leaf("local_origin", never(outliers.local_origin));
        leaf("eject", format_duration(outliers.eject));
        leaf("max_ejected", outliers.max_ejected.to_string());
        leaf("enforce", outliers.enforce.to_string());
        let node = below(node, "success_rate", "");
        let Some(rule) = &outliers.success_rate else {
            w.leaf("success_rate", "never", node);
            return;
        };
        w.section("success_rate", |w| {
            let mut leaf = |key: &str, value: &dyn Display| {
                w.leaf(key, value, below(node, key, ""));
            };
            leaf("stdev", &rule.stdev);
            leaf("min_hosts", &rule.min_hosts);
            leaf("min_requests", &rule.min_requests);
        });
    });
}

fn never(row: Option<u16>) -> String {
    row.map_or_else(|| "never".to_owned(), |row| row.to_string())
}
