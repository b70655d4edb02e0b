//! Every value in force and where it comes from, as YAML that can be loaded again.

mod authorize;
mod balance;
mod discover;
mod gate;
mod health;
mod jwt;
mod outliers;
mod shaping;
mod tls;
mod write;

use std::fmt::Display;

use crate::base::units::format_duration;

use super::node::{Node, Value};
use super::source::Source;
use super::{
    AccessLog, Config, Direction, Listener, ListenerProtocol, LogFilter, LogTarget, PoolIdle,
    Upstream, UpstreamProtocol,
};
use write::{Writer, list, quoted, text, unlimited};

/// The tree of a file after `${}` and `defaults`: what tells written values from built-in ones.
#[derive(Debug, Default)]
pub struct Effective {
    root: Option<Node>,
}

impl Effective {
    pub(super) fn new(root: Node) -> Self {
        Self { root: Some(root) }
    }

    /// Where the value of the last of `keys` stands, each below the one before.
    pub(super) fn span(&self, keys: &[&str]) -> Option<super::source::Span> {
        let root = self.root.as_ref()?;
        keys.iter()
            .try_fold(root, |node, key| match (&node.value, key.parse::<usize>()) {
                (Value::List(items), Ok(index)) => items.get(index),
                _ => node.get(key),
            })
            .map(|node| node.span)
    }

    /// `config`, read from this tree of `source`, with an origin behind every value.
    pub(super) fn yaml(&self, config: &Config, source: &Source) -> String {
        let mut writer = Writer::new(source);
        file(&mut writer, config, self.root.as_ref());
        writer.finish()
    }
}

/// The node of `key` below `node`. In a short form, `main` is the key that its one value stands for.
fn below<'a>(node: Option<&'a Node>, key: &str, main: &str) -> Option<&'a Node> {
    let node = node?;
    match node.value {
        Value::Map(_) => node.get(key),
        Value::Null => None,
        Value::Scalar(_) | Value::List(_) => (key == main).then_some(node),
    }
}

fn file(w: &mut Writer<'_>, config: &Config, root: Option<&Node>) {
    let at = |key| below(root, key, "");
    w.leaf("service", text(&config.service), at("service"));
    w.leaf("zone", text(&config.zone), at("zone"));
    w.leaf("compat", if config.compat_envoy { "envoy" } else { "none" }, at("compat"));
    match &config.admin {
        None => w.note("admin: none"),
        Some(admin) => w.section("admin", |w| {
            w.leaf("bind", quoted(&admin.bind), below(at("admin"), "bind", "bind"));
            match &admin.token_file {
                None => w.note("token_file: none"),
                Some(path) => {
                    let node = below(at("admin"), "token_file", "bind");
                    w.leaf("token_file", quoted(path.display()), node);
                }
            }
        }),
    }
    runtime(w, config, at("runtime"));
    access_log(w, &config.access_log, at("access_log"));
    w.section("metrics", |w| {
        let buckets = config.metrics.buckets.iter().map(|bucket| format_duration(*bucket));
        w.leaf("buckets", list(buckets), below(at("metrics"), "buckets", ""));
    });
    w.section("dns", |w| {
        let at = |key| below(at("dns"), key, "");
        let (servers, search) = (&config.dns.servers, &config.dns.search);
        match servers.is_empty() {
            true => w.note("servers: those of the system"),
            false => w.leaf("servers", list(servers.iter().map(quoted)), at("servers")),
        }
        match search.is_empty() {
            true => w.note("search: that of the system"),
            false => w.leaf("search", list(search.iter().map(text)), at("search")),
        }
        let (least, most) = config.dns.ttl;
        w.leaf("ttl", range(least, most), at("ttl"));
    });
    tls::identity(w, config.identity.as_ref(), at("identity"));
    w.section("listeners", |w| {
        for listener in &config.listeners {
            let node = below(at("listeners"), &listener.name, "");
            one_listener(w, listener, node, at("identity"));
        }
    });
    if !config.upstreams.is_empty() {
        w.section("upstreams", |w| {
            for upstream in &config.upstreams {
                let node = below(at("upstreams"), &upstream.name, "");
                one_upstream(w, upstream, node, at("identity"));
            }
        });
    }
}

fn range(first: std::time::Duration, second: std::time::Duration) -> String {
    format!("{}..{}", format_duration(first), format_duration(second))
}

fn runtime(w: &mut Writer<'_>, config: &Config, node: Option<&Node>) {
    let runtime = &config.runtime;
    w.section("runtime", |w| {
        let workers =
            runtime.workers.map_or_else(|| "auto".to_owned(), |workers| workers.to_string());
        w.leaf("workers", workers, below(node, "workers", ""));
        let drain = below(node, "drain", "");
        w.section("drain", |w| {
            w.leaf("delay", format_duration(runtime.drain_delay), below(drain, "delay", ""));
            let deadline = format_duration(runtime.drain_deadline);
            w.leaf("deadline", deadline, below(drain, "deadline", ""));
        });
    });
}

fn access_log(w: &mut Writer<'_>, log: &AccessLog, node: Option<&Node>) {
    w.section("access_log", |w| {
        let to = match &log.to {
            LogTarget::Stdout => "stdout".to_owned(),
            LogTarget::Stderr => "stderr".to_owned(),
            LogTarget::File(path) => quoted(path.display()),
        };
        let only = match log.only {
            LogFilter::All => "all".to_owned(),
            LogFilter::Errors => "errors".to_owned(),
            LogFilter::Never => "never".to_owned(),
            LogFilter::Share(share) => share.to_string(),
        };
        w.leaf("to", to, below(node, "to", ""));
        w.leaf("format", "json", below(node, "format", ""));
        w.leaf("only", only, below(node, "only", ""));
    });
}

fn one_listener(
    w: &mut Writer<'_>,
    listener: &Listener,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    w.section(&quoted(&listener.name), |w| {
        let protocol = match listener.protocol {
            ListenerProtocol::Auto => "auto",
            ListenerProtocol::Http => "http",
            ListenerProtocol::Tcp => "tcp",
        };
        let direction = match listener.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        w.leaf("bind", quoted(&listener.bind), below(node, "bind", ""));
        w.leaf("protocol", protocol, below(node, "protocol", ""));
        w.leaf("direction", direction, below(node, "direction", ""));
        let original = below(node, "original_destination", "");
        w.leaf("original_destination", listener.original_destination, original);
        tls::listener(w, listener.tls.as_ref(), below(node, "tls", ""), identity);
        authorize::authorize(w, listener.authorize.as_ref(), below(node, "authorize", ""));
        jwt::issuers(w, &listener.jwt, below(node, "jwt", ""));
        let at = below(node, "limits", "");
        let limits = &listener.limits;
        w.section("limits", |w| {
            let mut leaf = |key: &str, value: String| w.leaf(key, value, below(at, key, ""));
            let time = |value: Option<_>| unlimited(value.map(format_duration));
            leaf("connections", unlimited(limits.connections));
            leaf("per_source", unlimited(limits.per_source));
            leaf("headers", limits.headers.to_string());
            leaf("header_bytes", limits.header_bytes.to_string());
            leaf("header_timeout", time(limits.header_timeout));
            leaf("body", unlimited(limits.body));
            leaf("body_timeout", time(limits.body_timeout));
            leaf("idle", time(limits.idle));
            leaf("max_age", time(limits.max_age));
            leaf("streams", limits.streams.to_string());
        });
        let routes = below(node, "routes", "");
        w.section("routes", |w| {
            for (index, route) in listener.routes.iter().enumerate() {
                let node = match routes.map(|node| &node.value) {
                    Some(Value::List(items)) => items.get(index),
                    _ => None,
                };
                w.item(|w| write::route(w, route, listener.protocol, node));
            }
        });
    });
}

fn one_upstream(
    w: &mut Writer<'_>,
    upstream: &Upstream,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    w.section(&quoted(&upstream.name), |w| {
        discover::source(w, &upstream.discover, node, identity);
        let protocol = match upstream.protocol {
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
            UpstreamProtocol::Auto => "auto",
        };
        w.leaf("protocol", protocol, below(node, "protocol", ""));
        tls::upstream(w, upstream.tls.as_ref(), below(node, "tls", ""), identity);
        match upstream.connect_timeout {
            None => w.note("connect_timeout: 1s, and 250ms to a loopback endpoint"),
            Some(time) => {
                let node = below(node, "connect_timeout", "");
                w.leaf("connect_timeout", format_duration(time), node);
            }
        }
        balance::upstream(w, upstream, node);
        let ramp = upstream.slow_start.map_or_else(|| "never".to_owned(), format_duration);
        w.leaf("slow_start", ramp, below(node, "slow_start", ""));
        pool(w, upstream, below(node, "pool", ""));
        limits(w, upstream, below(node, "limits", ""));
        gate::write(w, upstream, node);
        health::health(w, upstream.health.as_ref(), below(node, "health", ""));
        outliers::outliers(w, upstream.outliers.as_ref(), below(node, "outliers", ""));
    });
}

fn pool(w: &mut Writer<'_>, upstream: &Upstream, node: Option<&Node>) {
    let pool = &upstream.pool;
    w.section("pool", |w| {
        let idle = match pool.idle {
            PoolIdle::Auto => "auto".to_owned(),
            PoolIdle::After(time) => format_duration(time),
        };
        let mut leaf = |key: &str, value: String| w.leaf(key, value, below(node, key, ""));
        leaf("idle", idle);
        leaf("max_idle", pool.max_idle.to_string());
        leaf("max_requests", unlimited(pool.max_requests));
        leaf("max_age", unlimited(pool.max_age.map(format_duration)));
    });
}

fn limits(w: &mut Writer<'_>, upstream: &Upstream, node: Option<&Node>) {
    let limits = &upstream.limits;
    w.section("limits", |w| {
        let leaf = |w: &mut Writer<'_>, key: &str, value: String| {
            w.leaf(key, value, below(node, key, ""));
        };
        leaf(w, "connections", unlimited(limits.connections));
        match upstream.adaptive {
            Some(_) => w.note("in_flight: found by `adaptive`"),
            None => leaf(w, "in_flight", unlimited(limits.in_flight)),
        }
        leaf(w, "pending", unlimited(limits.pending));
        leaf(w, "queue", format_duration(limits.queue));
        let node = below(node, "retry_budget", "");
        let budget = &limits.retry_budget;
        w.section("retry_budget", |w| {
            let mut leaf = |key: &str, value: &dyn Display| {
                w.leaf(key, value, below(node, key, "ratio"));
            };
            leaf("ratio", &budget.ratio);
            leaf("floor", &budget.floor);
            leaf("window", &format_duration(budget.window));
        });
    });
}
