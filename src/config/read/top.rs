//! The file's own keys: everything but listeners and upstreams.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::node::{Node, Value};
use crate::config::{
    AccessLog, Admin, Config, Dns, Listener, LogFilter, LogTarget, Metrics, Runtime,
};

use super::{At, Fields, Reader, listener, tls, upstream};

/// Everything that can be read of the file; whole only where nothing was reported.
pub(in crate::config) fn config(reader: &Reader<'_>, root: &Node) -> Option<Config> {
    let at = At::root(reader, root);
    let fields = at.fields(&keys::FILE)?;
    // Before what they are merged into, so that a mistake in them is told with its own place.
    fields.read("defaults", defaults);
    let identity = fields.read("identity", tls::identity);
    reader.identity.replace(identity.clone().unwrap_or_default());
    let mut config = Config {
        service: fields.read("service", label).unwrap_or_else(|| "outrigger".to_owned()),
        zone: fields.read("zone", label).unwrap_or_default(),
        compat_envoy: fields
            .read("compat", |at| at.word(&[("envoy", true), ("none", false)]))
            .unwrap_or(false),
        admin: fields.read("admin", admin),
        runtime: runtime(fields.get("runtime")),
        access_log: access_log(fields.get("access_log")),
        metrics: metrics(fields.get("metrics")),
        dns: dns(fields.get("dns")),
        identity,
        listeners: listeners(&fields),
        upstreams: fields.read("upstreams", upstream::all).unwrap_or_default(),
    };
    for upstream in config.upstreams.iter_mut().filter(|upstream| upstream.balance.zone_aware) {
        upstream.balance.zone.clone_from(&config.zone);
    }
    one_place_each(&fields, &config);
    Some(config)
}

/// What `defaults` may hold, read only for its mistakes.
fn defaults(at: At<'_>) -> Option<()> {
    let fields = at.fields(&keys::DEFAULTS)?;
    fields.read("listener", listener::defaults);
    fields.read("route", super::action::defaults);
    fields.read("upstream", upstream::defaults);
    Some(())
}

fn listeners(fields: &Fields<'_>) -> Vec<Listener> {
    let listeners = fields.required("listeners").and_then(listener::all);
    let listeners = listeners.unwrap_or_default();
    if let Some(at) = fields.get("listeners")
        && matches!(&at.node.value, Value::Map(entries) if entries.is_empty()) | at.node.is_null()
    {
        let error = Diagnostic::error("missing-key", at.place, "`listeners` holds no listener");
        at.push(error.at(at.path));
    }
    listeners
}

/// Goes into headers, logs and metric labels.
fn label(at: At<'_>) -> Option<String> {
    at.parsed(|text| {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.len() {
            _ if !visible => Err("write visible ASCII characters without spaces"),
            129.. => Err("write at most 128 characters"),
            _ => Ok(text.to_owned()),
        }
    })
}

fn admin(at: At<'_>) -> Option<Admin> {
    if let Value::Scalar(_) = at.node.value {
        return Some(Admin { bind: at.address()?, token_file: None });
    }
    let fields = at.fields(&keys::ADMIN)?;
    let token_file = fields.read("token_file", absolute_path);
    let bind = fields.required("bind")?.address()?;
    Some(Admin { bind, token_file })
}

pub(super) fn absolute_path(at: At<'_>) -> Option<PathBuf> {
    at.parsed(|text| match text.starts_with('/') && !text.contains('\0') {
        true => Ok(PathBuf::from(text)),
        false => Err("write an absolute path, such as `/run/outrigger/token`"),
    })
}

fn runtime(at: Option<At<'_>>) -> Runtime {
    let mut runtime = Runtime {
        workers: None,
        drain_delay: Duration::from_secs(5),
        drain_deadline: Duration::from_secs(25),
    };
    let Some(at) = at else { return runtime };
    let Some(fields) = at.fields(&keys::RUNTIME) else { return runtime };
    runtime.workers = fields.read("workers", workers);
    let Some(at) = fields.get("drain") else { return runtime };
    let Some(fields) = at.fields(&keys::DRAIN) else { return runtime };
    if let Some(delay) = fields.read("delay", |at| at.duration()) {
        runtime.drain_delay = delay;
    }
    if let Some(deadline) = fields.read("deadline", |at| at.duration()) {
        runtime.drain_deadline = deadline;
    }
    if runtime.drain_deadline < runtime.drain_delay {
        let message = "the drain's `deadline` includes its `delay` and is not shorter";
        let mut error = Diagnostic::error("contradiction", at.place, message).at(at.path);
        for key in ["delay", "deadline"] {
            if let Some(at) = fields.get(key) {
                error = error.related(at.node.span, key);
            }
        }
        at.push(error.label("both count from SIGTERM; the defaults are 5s and 25s"));
    }
    runtime
}

fn workers(at: At<'_>) -> Option<usize> {
    match &at.scalar("`auto` or a whole number from 1 to 64")?.text {
        word if word == "auto" => None,
        _ => at.number(1..=64),
    }
}

fn access_log(at: Option<At<'_>>) -> AccessLog {
    let mut log = AccessLog { to: LogTarget::Stdout, only: LogFilter::All };
    let Some(at) = at else { return log };
    let Some(fields) = at.fields(&keys::ACCESS_LOG) else { return log };
    log.to = fields.read("to", log_target).unwrap_or(log.to);
    fields.read("format", |at| at.word(&[("json", ())]));
    log.only = fields.read("only", log_filter).unwrap_or(log.only);
    log
}

fn log_target(at: At<'_>) -> Option<LogTarget> {
    at.parsed(|text| match text {
        "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        path if path.starts_with('/') && !path.contains('\0') => {
            Ok(LogTarget::File(PathBuf::from(path)))
        }
        _ => Err("write `stdout`, `stderr` or a file's absolute path"),
    })
}

fn log_filter(at: At<'_>) -> Option<LogFilter> {
    match at.scalar("`all`, `errors`, `never` or a share")? {
        share if share.text.starts_with(|c: char| c.is_ascii_digit()) => {
            at.share().map(LogFilter::Share)
        }
        _ => at.word(&[
            ("all", LogFilter::All),
            ("errors", LogFilter::Errors),
            ("never", LogFilter::Never),
        ]),
    }
}

/// 1 ms to 30 s: what a request inside a cluster takes, to what a timeout of 15 s may stretch to.
const BUCKETS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];

fn metrics(at: Option<At<'_>>) -> Metrics {
    let standard = || Metrics { buckets: BUCKETS.map(Duration::from_millis).to_vec() };
    let Some(at) = at else { return standard() };
    let Some(fields) = at.fields(&keys::METRICS) else { return standard() };
    fields.read("buckets", buckets).map_or_else(standard, |buckets| Metrics { buckets })
}

fn buckets(at: At<'_>) -> Option<Vec<Duration>> {
    let items = at.list("a list of durations")?;
    if !(1..=50).contains(&items.len()) {
        let message = format!("`buckets` holds {} durations", items.len());
        at.push(at.error("out-of-range", message).label("write 1 to 50 of them"));
        return None;
    }
    let mut buckets = Vec::with_capacity(items.len());
    for item in &items {
        let bucket = item.span_of_time()?;
        if buckets.last().is_some_and(|last| *last >= bucket) {
            let message = "`buckets` ascend; this one is not above the one before it";
            item.push(item.error("contradiction", message));
            return None;
        }
        buckets.push(bucket);
    }
    Some(buckets)
}

fn dns(at: Option<At<'_>>) -> Dns {
    let ttl = (Duration::from_secs(1), Duration::from_secs(60));
    let mut dns = Dns { servers: Vec::new(), search: Vec::new(), ttl };
    let Some(at) = at else { return dns };
    let Some(fields) = at.fields(&keys::DNS) else { return dns };
    let servers = fields.read("servers", |at| {
        Some(at.one_or_more().iter().filter_map(|item| item.parsed(name_server)).collect())
    });
    let search = fields.read("search", |at| {
        Some(at.one_or_more().iter().filter_map(|item| item.parsed(host_name)).collect())
    });
    dns.servers = servers.unwrap_or_default();
    dns.search = search.unwrap_or_default();
    dns.ttl = fields.read("ttl", |at| at.range_of_time()).unwrap_or(ttl);
    dns
}

/// An address with or without port; 53 stands for a missing one, as in `/etc/resolv.conf`.
fn name_server(text: &str) -> Result<SocketAddr, &'static str> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    match bare.or_else(|_| text.parse::<SocketAddr>()) {
        Ok(server) if server.port() != 0 => Ok(server),
        _ => Err("write an IP address with port, such as `10.0.0.10:53`"),
    }
}

/// A DNS name, in lower case and without trailing dot (RFC 1035 §2.3.4, with the `_` that real zones use).
pub(super) fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("write a host name: letters, digits and `-`, in parts between dots");
    }
    Ok(name)
}

/// No two sockets at one address.
fn one_place_each(fields: &Fields<'_>, config: &Config) {
    let mut taken: Vec<(&Address, String, crate::config::source::Span)> = Vec::new();
    let admin_span =
        fields.get("admin").map(|at| at.node.get("bind").map_or(at.node.span, |n| n.span));
    if let (Some(admin), Some(span)) = (&config.admin, admin_span) {
        taken.push((&admin.bind, "`admin`".to_owned(), span));
    }
    let Some(listeners) = fields.get("listeners") else { return };
    for listener in &config.listeners {
        let Some(bind) = listeners.node.get(&listener.name).and_then(|node| node.get("bind"))
        else {
            continue;
        };
        let name = format!("the listener `{}`", listener.name);
        if let Some((_, other, span)) = taken.iter().find(|(at, ..)| overlap(at, &listener.bind)) {
            let message = format!("{name} is bound where {other} already is");
            let path = listeners.path.key(&listener.name);
            let error = Diagnostic::error("duplicate-bind", bind.span, message)
                .at(path.key("bind"))
                .label("choose another port")
                .related(*span, format!("{other} is bound here"));
            fields.at.push(error);
        }
        taken.push((&listener.bind, name, bind.span));
    }
}

/// Whether the kernel would refuse the second of two sockets. Port 0 is another port each time; a wildcard address
/// takes the port on every address of its family.
fn overlap(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Tcp(a), Address::Tcp(b)) => {
            a.port() == b.port()
                && a.port() != 0
                && (a.ip() == b.ip()
                    || a.is_ipv4() == b.is_ipv4()
                        && (a.ip().is_unspecified() || b.ip().is_unspecified()))
        }
        _ => a == b,
    }
}
