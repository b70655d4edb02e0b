//! `health` of an upstream.

use std::fmt::Display;

use crate::base::units::format_duration;
use crate::config::node::Node;
use crate::config::{HealthCheck, HealthProbe};

use super::below;
use super::write::{Writer, list, text};

pub(super) fn health(w: &mut Writer<'_>, health: Option<&HealthCheck>, node: Option<&Node>) {
    let Some(health) = health else { return w.leaf("health", "never", node) };
    w.section("health", |w| {
        let kind = match &health.probe {
            HealthProbe::Http { .. } => "http",
            HealthProbe::Tcp => "tcp",
            HealthProbe::Grpc { .. } => "grpc",
        };
        let mut leaf = |key: &str, value: &dyn Display| w.leaf(key, value, below(node, key, kind));
        match &health.probe {
            HealthProbe::Http { path, status } => {
                leaf("http", &text(path));
                leaf("status", &statuses(status));
            }
            HealthProbe::Tcp => leaf("tcp", &"true"),
            HealthProbe::Grpc { service } => leaf("grpc", &text(service)),
        }
        if let Some(host) = &health.host {
            leaf("host", &text(host));
        }
        leaf("interval", &format_duration(health.interval));
        leaf("timeout", &format_duration(health.timeout));
        leaf("rise", &health.rise);
        leaf("fall", &health.fall);
        if health.host.is_none() && health.probe != HealthProbe::Tcp {
            w.note("host: the name that discovery looks up, else the endpoint's address");
        }
    });
}

fn statuses(statuses: &[(u16, u16)]) -> String {
    let one = |&(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}..{last}"),
    };
    match statuses {
        [only] => one(only),
        several => list(several.iter().map(one)),
    }
}
