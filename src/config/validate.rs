//! What can take force but is probably not meant: warnings, each with its place and its arithmetic.

mod authorize;
mod balance;
mod gate;
mod health;
mod jwt;
mod outliers;
mod shadow;
mod shaping;
mod tls;

use std::collections::HashSet;
use std::time::Duration;

use http::Method;

use crate::base::units::format_duration;

use super::diagnostic::Diagnostic;
use super::node::{Node, Path, Value};
use super::source::Span;
use super::{Action, Config, Listener, ListenerProtocol, PoolIdle, Retry, RetryMethods, Route};

/// Kubernetes' `terminationGracePeriodSeconds` where a pod does not say otherwise; then comes SIGKILL.
const GRACE: Duration = Duration::from_secs(30);

/// Where Node.js and uvicorn close an idle connection; other servers wait longer.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The warnings of a valid configuration; `root` is the tree that it was read from.
pub(super) fn warnings(config: &Config, root: &Node) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    open_admin(config, root, &mut out);
    long_drain(config, root, &mut out);
    let listeners = Path::ROOT.key("listeners");
    for listener in &config.listeners {
        let node = root.get("listeners").and_then(|node| node.get(&listener.name));
        let path = listeners.key(&listener.name);
        if let Some(node) = node {
            tls::open_listener(listener, node, &path, &mut out);
        }
        authorize::rules(listener, node, &path, &mut out);
        jwt::issuers(listener, node, &path, &mut out);
        let routes = path.key("routes");
        let nodes = match node.and_then(|node| node.get("routes")).map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.as_slice(),
            _ => &[],
        };
        for (index, (route, node)) in listener.routes.iter().zip(nodes).enumerate() {
            let path = routes.index(index);
            let place = Place { node, path };
            route_warnings(listener, route, &place, &mut out);
            shaping::shaping(config, route, &place, &mut out);
            balance::hash(config, route, place.node, &place.path, &mut out);
        }
        shadow::shadowed(&listener.routes, nodes, &routes, &mut out);
    }
    upstreams(config, root, &mut out);
    out
}

/// A node and its path.
struct Place<'a> {
    node: &'a Node,
    path: Path<'a>,
}

impl Place<'_> {
    /// The value of the last of `keys`, each below the one before; else the nearest that is written.
    fn span(&self, keys: &[&str]) -> Span {
        let mut node = self.node;
        for key in keys {
            match node.get(key) {
                Some(below) => node = below,
                None => break,
            }
        }
        node.span
    }
}

fn open_admin(config: &Config, root: &Node, out: &mut Vec<Diagnostic>) {
    let Some(admin) = &config.admin else { return };
    let Some(node) = root.get("admin") else { return };
    if admin.bind.is_local() || admin.token_file.is_some() {
        return;
    }
    let message = format!("the admin address {} is open to other machines", admin.bind);
    let span = node.get("bind").unwrap_or(node).span;
    out.push(
        Diagnostic::warning("open-admin", span, message)
            .at("admin")
            .label("bind it to 127.0.0.1, or set `token_file`")
            .help("without a token, others are served /metrics, /ready and /live only"),
    );
}

fn long_drain(config: &Config, root: &Node, out: &mut Vec<Diagnostic>) {
    let deadline = config.runtime.drain_deadline;
    let node = root.get("runtime").and_then(|node| node.get("drain"));
    let Some(node) = node.and_then(|node| node.get("deadline")) else { return };
    if deadline > GRACE {
        let message = format!(
            "a drain of {} is longer than the 30s that Kubernetes grants before it kills",
            format_duration(deadline)
        );
        out.push(
            Diagnostic::warning("long-drain", node.span, message)
                .at("runtime.drain.deadline")
                .label("stay below `terminationGracePeriodSeconds`, or raise that as well"),
        );
    }
}

fn route_warnings(
    listener: &Listener,
    route: &Route,
    place: &Place<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let Some(retry) = &route.retry else { return };
    let written = place.node.get("retry").is_some();
    if !written || listener.protocol == ListenerProtocol::Tcp {
        return;
    }
    if !matches!(route.action, Action::To(_)) {
        if place.node.get("retry").is_some_and(|node| !node.inherited) {
            let span = place.span(&["retry"]);
            let message = "`retry` has no effect: this route answers by itself";
            out.push(warning("retry-never-fires", span, message, place).label("remove it"));
        }
        return;
    }
    retry_fits(route, retry, place, out);
    retry_fires(route, retry, place, out);
    unsafe_retry(route, retry, place, out);
}

fn warning(
    code: &'static str,
    span: Span,
    message: impl Into<String>,
    place: &Place<'_>,
) -> Diagnostic {
    Diagnostic::warning(code, span, message).at(place.path.key("retry"))
}

/// per-try × attempts + back-off against the timeout, at the longest waits.
fn retry_fits(route: &Route, retry: &Retry, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    let (Some(per_try), Some(timeout)) = (retry.per_try, route.timeout) else { return };
    let mut waits = Duration::ZERO;
    let mut wait = retry.backoff.first;
    for _ in 1..retry.attempts {
        waits = waits.saturating_add(wait.min(retry.backoff.max));
        wait = wait.saturating_mul(2);
    }
    let whole = per_try.saturating_mul(retry.attempts).saturating_add(waits);
    if whole <= timeout {
        return;
    }
    let message = format!(
        "{} attempts × {} + {} of back-off = {}, more than the `timeout` of {}",
        retry.attempts,
        format_duration(per_try),
        format_duration(waits),
        format_duration(whole),
        format_duration(timeout)
    );
    let fits = timeout.saturating_sub(waits) / retry.attempts;
    let label = match Duration::from_millis(u64::try_from(fits.as_millis()).unwrap_or(u64::MAX)) {
        Duration::ZERO => "the last attempts may be cut short: raise `timeout`".to_owned(),
        fits => format!(
            "the last attempts may be cut short: at most {} fits here",
            format_duration(fits)
        ),
    };
    let span = place.span(&["retry", "per_try"]);
    let mut found = warning("retry-does-not-fit", span, message, place).label(label);
    if let Some(node) = place.node.get("timeout") {
        found = found.related(node.span, "the whole request");
    }
    out.push(found);
}

/// Retries that nothing sets off.
fn retry_fires(route: &Route, retry: &Retry, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    let when = &retry.when;
    let unsafe_words = may_have_run(retry);
    let mut push = |keys: &[&str], message: String, label: &str| {
        let span = place.span(keys);
        out.push(warning("retry-never-fires", span, message, place).label(label));
    };
    if retry.attempts == 1 {
        let message = "`attempts: 1` is the first attempt alone: nothing is ever sent again";
        push(&["retry", "attempts"], message.to_owned(), "write `retry: never`, or 2 and more");
        return;
    }
    if when.per_try_timeout && retry.per_try.is_none() {
        let message = "`per-try-timeout` never happens: `per_try` is not set";
        push(&["retry", "when"], message.to_owned(), "add `per_try`, below `timeout`");
    }
    if retry.per_try.is_some() && !when.per_try_timeout {
        let message = "an attempt that `per_try` ends is not sent again";
        push(&["retry", "per_try"], message.to_owned(), "add `per-try-timeout` to `when`");
    }
    let methods = &route.matches.method;
    let taken = methods.iter().any(|method| retried(&retry.methods, method));
    if unsafe_words && !methods.is_empty() && !taken {
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let message = format!(
            "`when` adds nothing for {}: `methods` leaves it out, unless a request has an `Idempotency-Key`",
            names.join(", ")
        );
        push(&["retry", "when"], message, "name the method in `methods` if it may run twice");
    }
}

fn retried(methods: &RetryMethods, method: &Method) -> bool {
    match methods {
        RetryMethods::Any => true,
        RetryMethods::Idempotent => method.is_idempotent(),
        RetryMethods::Listed(listed) => listed.contains(method),
    }
}

/// Whether `when` names a failure after which a request may have run.
fn may_have_run(retry: &Retry) -> bool {
    let when = &retry.when;
    when.reset
        || when.gateway_error
        || when.server_error
        || when.per_try_timeout
        || !when.statuses.is_empty()
        || !when.grpc.is_empty()
}

/// Methods that do something anew each time, sent again although the first may have done it.
fn unsafe_retry(route: &Route, retry: &Retry, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    if !may_have_run(retry) {
        return;
    }
    let harmful = |method: &Method| !method.is_idempotent();
    let methods = &route.matches.method;
    let harm =
        match &retry.methods {
            RetryMethods::Idempotent => return,
            RetryMethods::Any if methods.is_empty() => vec!["POST and others".to_owned()],
            RetryMethods::Any => names(methods.iter().filter(|method| harmful(method))),
            RetryMethods::Listed(listed) => names(listed.iter().filter(|method| {
                harmful(method) && (methods.is_empty() || methods.contains(method))
            })),
        };
    if harm.is_empty() {
        return;
    }
    let message = format!(
        "{} may run twice: `when` names failures after which a request may have run",
        harm.join(", ")
    );
    let span = place.span(&["retry", "methods"]);
    let label = "keep `idempotent`; an `Idempotency-Key` header lets single requests through";
    out.push(warning("unsafe-retry", span, message, place).label(label));
}

fn names<'a>(methods: impl Iterator<Item = &'a Method>) -> Vec<String> {
    methods.map(Method::to_string).collect()
}

fn upstreams(config: &Config, root: &Node, out: &mut Vec<Diagnostic>) {
    let routes = config.listeners.iter().flat_map(|listener| &listener.routes);
    let copied = routes.clone().flat_map(|route| &route.shaping.mirror);
    let used: HashSet<&str> = routes
        .filter_map(|route| match &route.action {
            Action::To(targets) => Some(targets),
            Action::Redirect(_) | Action::Respond(_) => None,
        })
        .flatten()
        .map(|(name, _)| name.as_str())
        .chain(copied.map(|(name, _)| name.as_str()))
        .collect();
    let all = Path::ROOT.key("upstreams");
    for upstream in &config.upstreams {
        let Some(entry) = root.get("upstreams").and_then(|node| node.entry(&upstream.name)) else {
            continue;
        };
        let path = all.key(&upstream.name);
        if !used.contains(upstream.name.as_str()) {
            let message = format!("no route leads to the upstream `{}`", upstream.name);
            let unused = Diagnostic::warning("unused-upstream", entry.key_span, message);
            out.push(unused.at(path).label("remove it, or name it in a route's `to`"));
        }
        gate::warnings(config, upstream, &entry.node, &path, out);
        balance::upstream(config, upstream, &entry.node, &path, out);
        let idle = entry.node.get("pool").and_then(|node| node.get("idle"));
        if let (PoolIdle::After(time), Some(node)) = (upstream.pool.idle, idle)
            && time >= SHORTEST_KEEP_ALIVE
        {
            let message = format!(
                "connections are kept for {}, and some servers (Node.js, uvicorn) close theirs after 5s",
                format_duration(time)
            );
            let found = Diagnostic::warning("pool-idle", node.span, message);
            let pool = path.key("pool");
            out.push(
                found
                    .at(pool.key("idle"))
                    .label("`auto` learns the peer's time and stays below it"),
            );
        }
        health::slow(upstream, &entry.node, &path, out);
        health::blind(upstream, &entry.node, &path, out);
        tls::plain_upstream(config, upstream, &entry.node, &path, out);
        outliers::ejection_share(upstream, &entry.node, &path, out);
        if let (Some(connect), Some(node)) =
            (upstream.connect_timeout, entry.node.get("connect_timeout"))
        {
            connect_within_timeout(config, upstream, connect, node.span, &path, out);
        }
    }
}

/// A connect timeout that the whole request's timeout always forestalls.
fn connect_within_timeout(
    config: &Config,
    upstream: &super::Upstream,
    connect: Duration,
    span: Span,
    path: &Path<'_>,
    out: &mut Vec<Diagnostic>,
) {
    let leads_here = |route: &&Route| match &route.action {
        Action::To(targets) => targets.iter().any(|(name, _)| *name == upstream.name),
        Action::Redirect(_) | Action::Respond(_) => false,
    };
    let http = config.listeners.iter().filter(|l| l.protocol != ListenerProtocol::Tcp);
    let mut routes = http.flat_map(|listener| &listener.routes).filter(leads_here);
    let forestalled = routes.find(|route| route.timeout.is_some_and(|whole| whole <= connect));
    if let Some(route) = forestalled {
        let whole = route.timeout.map(format_duration).unwrap_or_default();
        let message = format!(
            "connecting may take {}, but the route `{}` gives the whole request {whole}",
            format_duration(connect),
            route.name
        );
        let found = Diagnostic::warning("connect-outlasts-timeout", span, message);
        let label = "lower it, so that another endpoint can be tried in time";
        out.push(found.at(path.key("connect_timeout")).label(label));
    }
}
