//! From what the user wrote to what requests run on: the only place that turns configuration into runtime types.
//!
//! Names become references, words become enums, metric handles are resolved: nothing is looked up by a string later.

mod authorize;
mod balance;
mod gate;
mod health;
mod jwt;
mod route;
mod shaping;
mod upstream;

use std::sync::Arc;

use tokio::time::Instant;

use crate::base::rng::Rng;
use crate::config;
use crate::metrics::Metrics;
use crate::policy::outlier::Cause;
use crate::policy::retry::SuppressedReason;
use crate::policy::sources::Sources;
use crate::snapshot::{Listener, ListenerLimits, ListenerTls, LogFilter, Route, Snapshot};

use super::resolve::Plan;
use super::{ApplyError, certificates, jwks};

pub(super) use balance::{advised, knows_zones, policy};
pub(super) use gate::features;
pub(super) use health::health;
pub use health::settings as health_settings;
pub(super) use jwt::reasons as token_refusals;
pub(super) use upstream::upstream;

/// The route label of requests that no route took.
pub(super) const UNROUTED: &str = "none";

/// What listeners and routes are compiled with.
pub(super) struct Given<'a> {
    pub(super) certificates: &'a certificates::Plan,
    pub(super) upstreams: &'a Plan,
    pub(super) keys: &'a jwks::Plan,
    pub(super) metrics: &'a Metrics,
    /// Lends what listeners and routes of the same name count.
    pub(super) before: &'a Snapshot,
    pub(super) now: Instant,
}

/// The snapshot of a valid configuration.
pub(super) fn snapshot(config: &config::Config, given: &Given<'_>) -> Result<Snapshot, ApplyError> {
    let listeners = config
        .listeners
        .iter()
        .map(|listener| compile_listener(listener, given).map(Arc::new))
        .collect::<Result<_, _>>()?;
    Ok(Snapshot {
        generation: given.before.generation + 1,
        service: config.service.as_str().into(),
        compat_envoy: config.compat_envoy,
        log: match config.access_log.only {
            config::LogFilter::All => LogFilter::All,
            config::LogFilter::Errors => LogFilter::Errors,
            config::LogFilter::Share(share) => LogFilter::Share(share),
            config::LogFilter::Never => LogFilter::Never,
        },
        listeners,
        upstreams: given.upstreams.upstreams().cloned().collect(),
        listening: Vec::new(),
    })
}

/// What a worker would run on with `config`, its upstreams without endpoints: nothing is bound, nothing is looked up.
///
/// For whoever drives the policies by other means than sockets.
///
/// # Errors
/// A part that `check` should have refused.
pub fn compiled(
    config: &config::Config,
    metrics: &Metrics,
    rng: &mut Rng,
    now: Instant,
) -> Result<Snapshot, ApplyError> {
    let before = Snapshot {
        generation: 0,
        service: config.service.as_str().into(),
        compat_envoy: false,
        log: LogFilter::All,
        listeners: Vec::new(),
        upstreams: Vec::new(),
        listening: Vec::new(),
    };
    let given = Given {
        certificates: &certificates::Plan::default(),
        upstreams: &Plan::without_discovery(config, metrics, rng, now),
        keys: &jwks::Plan::default(),
        metrics,
        before: &before,
        now,
    };
    snapshot(config, &given)
}

fn compile_listener(
    listener: &config::Listener,
    given: &Given<'_>,
) -> Result<Listener, ApplyError> {
    let &Given { keys, metrics, before, .. } = given;
    let name = listener.name.as_str();
    let routes = listener
        .routes
        .iter()
        .map(|route| route::compile(name, route, given))
        .collect::<Result<_, _>>()?;
    let tls = given.certificates.listener(name);
    let limits = &listener.limits;
    Ok(Listener {
        name: name.into(),
        inbound: listener.direction == config::Direction::Inbound,
        original_destination: listener.original_destination,
        tls: tls.map(|server| ListenerTls { server, handshakes: metrics.tls.listener(name) }),
        authorize: authorize::authorize(listener, metrics)?,
        jwt: jwt::issuers(listener, keys, metrics),
        limits: ListenerLimits {
            connections: limits.connections,
            per_source: limits.per_source,
            headers: limits.headers,
            header_bytes: limits.header_bytes,
            header_timeout: limits.header_timeout,
            body: limits.body,
            body_timeout: limits.body_timeout,
            idle: limits.idle,
            max_age: limits.max_age,
            streams: limits.streams,
        },
        connections: before
            .listener(name)
            .map_or_else(Arc::default, |before| Arc::clone(&before.connections)),
        sources: limits.per_source.map(|_| sources(limits.connections, before.listener(name))),
        table: route::table(listener)?,
        routes,
        metrics: metrics.downstream.listener(name),
        unrouted: metrics.downstream.route(name, UNROUTED),
    })
}

/// The table that was in force, so that a reload forgets no connection; else one for so many connections.
fn sources(connections: Option<u32>, before: Option<&Arc<Listener>>) -> Arc<Sources> {
    const UNLIMITED: usize = 1 << 16;
    if let Some(sources) = before.and_then(|before| before.sources.as_ref()) {
        return Arc::clone(sources);
    }
    let connections = connections.and_then(|max| usize::try_from(max).ok()).unwrap_or(UNLIMITED);
    Arc::new(Sources::new(connections, Rng::from_entropy().bits()))
}

/// The words for why an endpoint is ejected, in the order of their index.
pub(super) fn ejection_words() -> Vec<&'static str> {
    Cause::ALL.iter().map(|cause| cause.word()).collect()
}

/// The route of these names that was in force.
fn same_name<'a>(before: &'a Snapshot, listener: &str, route: &str) -> Option<&'a Route> {
    before.listener(listener)?.routes.iter().find(|before| &*before.name == route)
}

/// The words for retries not made, in the order of their index.
pub(super) fn suppressed_words() -> Vec<&'static str> {
    SuppressedReason::ALL.iter().map(|reason| reason.word()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::rate_limit::Verdict;

    /// Simulations give the same result with the same seed only where nothing that is compiled reads a clock.
    #[test]
    fn what_is_compiled_for_a_time_knows_no_other() {
        let yaml = "listeners: { out: { bind: 127.0.0.1:1, routes: [{ to: app, rate_limit: { rate: 1/s } }] } }
upstreams: { app: { endpoints: [127.0.0.1:2] } }
";
        let config = config::load_str("f", yaml, &|_| None).config.unwrap();
        let metrics = Metrics::new(&config.metrics.buckets).unwrap();
        let now = Instant::now() + Duration::from_secs(1_000);
        let snapshot = compiled(&config, &metrics, &mut Rng::from_seed(1), now).unwrap();
        let limit = snapshot.listeners[0].routes[0].rate_limit.as_ref().unwrap();
        let take = |at| limit.limiter.take(0, at).verdict;
        assert_eq!(take(now - Duration::from_secs(500)), Verdict::Admitted);
        // Both are its beginning: no time has passed in which another could be earned.
        assert!(take(now) != Verdict::Admitted);
    }
}
