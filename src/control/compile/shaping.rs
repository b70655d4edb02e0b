//! What a route does to requests besides sending them on.

use std::sync::Arc;

use http::HeaderValue;

use crate::base::units::Ratio;
use crate::config;
use crate::control::ApplyError;
use crate::control::resolve::Plan;
use crate::metrics::Metrics;
use crate::policy::fault::{Abort, Fault};
use crate::policy::hedge::{After, Hedge};
use crate::policy::rate_limit::{Quota, RateLimiter};
use crate::snapshot::{
    FaultInjection, Hedging, Mirror, MirrorTarget, RateLimit, RateLimitBy, RateLimitSettings, Route,
};

use super::Given;

/// A rate limit. Where `before`, the route of that name, has the same, its count goes on.
pub(super) fn rate_limit(
    listener: &str,
    route: &config::Route,
    before: Option<&Route>,
    given: &Given<'_>,
) -> Result<Option<RateLimit>, ApplyError> {
    let Some(limit) = &route.shaping.rate_limit else { return Ok(None) };
    let settings = RateLimitSettings {
        per_second: limit.rate.per_second(),
        burst: limit.burst,
        by: match &limit.by {
            config::RateLimitBy::Route => RateLimitBy::Route,
            config::RateLimitBy::Header(name) => RateLimitBy::Header(name.clone()),
            config::RateLimitBy::Source => RateLimitBy::Source,
            config::RateLimitBy::Identity => RateLimitBy::Identity,
        },
        keys: limit.keys,
    };
    let before = before.and_then(|route| route.rate_limit.as_ref());
    let limiter = match before.filter(|before| before.settings == settings) {
        Some(before) => Arc::clone(&before.limiter),
        None => {
            let quota = Quota::new(settings.per_second, settings.burst).ok_or_else(|| {
                let name = &route.name;
                ApplyError::Invalid(format!("route {name} of listener {listener}: rate_limit"))
            })?;
            let keys = (settings.by != RateLimitBy::Route).then_some(settings.keys);
            Arc::new(RateLimiter::new(quota, keys, given.now))
        }
    };
    let metrics = given.metrics.route.rate_limit(listener, &route.name);
    Ok(Some(RateLimit { settings, limiter, metrics }))
}

/// Failures on purpose: said in the log each time they take force, since nobody should have to guess.
pub(super) fn fault(
    listener: &str,
    route: &config::Route,
    metrics: &Metrics,
) -> Option<FaultInjection> {
    let fault = route.shaping.fault.as_ref()?;
    let delay = fault.delay.map(|delay| (delay.share, delay.time));
    let abort = fault.abort.map(|abort| {
        let status = abort.status.as_u16();
        (abort.share, Abort { status, grpc: Abort::grpc_of(status) })
    });
    tracing::warn!(
        listener, route = %route.name,
        delayed = delay.map(|(share, _)| tracing::field::display(share)),
        aborted = abort.map(|(share, _)| tracing::field::display(share)),
        "failures are injected on purpose"
    );
    let metrics = metrics.route.faults(listener, &route.name);
    Some(FaultInjection { policy: Fault { delay, abort }, metrics })
}

/// The upstreams that get copies.
pub(super) fn mirror(
    listener: &str,
    route: &config::Route,
    upstreams: &Plan,
    metrics: &Metrics,
) -> Result<Option<Mirror>, ApplyError> {
    if route.shaping.mirror.is_empty() {
        return Ok(None);
    }
    let target = |(name, share): &(String, Ratio)| {
        let upstream = upstreams.get(name).ok_or_else(|| {
            ApplyError::Invalid(format!("route {}: no upstream {name}", route.name))
        })?;
        Ok(MirrorTarget { upstream: Arc::clone(upstream), share: *share })
    };
    let targets = route.shaping.mirror.iter().map(target).collect::<Result<_, ApplyError>>()?;
    // Names are of characters that a header may have.
    let name = HeaderValue::from_str(&route.name).unwrap_or(HeaderValue::from_static("route"));
    let metrics = Arc::new(metrics.route.mirror(listener, &route.name));
    Ok(Some(Mirror { targets, name, metrics }))
}

/// Second attempts. Where `before` waited as long, what it has learned stays.
pub(super) fn hedging(
    listener: &str,
    route: &config::Route,
    before: Option<&Route>,
    given: &Given<'_>,
) -> Option<Hedging> {
    let after = match route.shaping.hedge? {
        config::Hedge::After(delay) => After::Fixed(delay),
        config::Hedge::Percentile(share) => After::Percentile(share),
    };
    let before = before.and_then(|route| route.hedging.as_ref());
    let policy = match before.filter(|before| before.policy.after() == after) {
        Some(before) => Arc::clone(&before.policy),
        None => Arc::new(Hedge::new(after, given.now)),
    };
    Some(Hedging { policy, metrics: given.metrics.route.hedge(listener, &route.name) })
}
