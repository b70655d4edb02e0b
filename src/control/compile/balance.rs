//! `balance` and `subset` of an upstream, `hash` of a route.

use crate::balance::{Balancer, Policy};
use crate::base::rng::Rng;
use crate::config::{self, Balance};
use crate::discovery::AdvisedBalance;
use crate::metrics::Metrics;
use crate::snapshot::{HashBy, HashCookie};
use crate::upstream::{Subset, Upstream};

/// How the upstream's endpoints are picked.
pub(super) fn balancer(config: &config::Upstream, rng: &mut Rng) -> Balancer {
    let balance = &config.balance;
    // Many sidecars that start together must not all begin with the same endpoint.
    Balancer::starting_at(policy(balance), rng.bits())
        .panic_below(balance.panic.fraction())
        .slow_start(config.slow_start)
        .zone_aware(zone(config))
}

/// What is written.
pub(in crate::control) fn policy(balance: &config::Balancing) -> Policy {
    match balance.policy {
        Balance::PeakEwma => Policy::PeakEwma,
        Balance::LeastRequest => Policy::LeastRequest,
        Balance::RoundRobin => Policy::RoundRobin,
        Balance::Random => Policy::Random,
        Balance::RingHash => Policy::RingHash(balance.max_load),
        Balance::Maglev => Policy::Maglev,
    }
}

/// What a source of endpoints says, where nothing is written; `None`: nothing either.
pub(in crate::control) fn advised(advice: AdvisedBalance) -> Option<Policy> {
    match advice {
        AdvisedBalance::Unsaid => None,
        AdvisedBalance::LeastRequest => Some(Policy::LeastRequest),
        AdvisedBalance::RoundRobin => Some(Policy::RoundRobin),
        AdvisedBalance::Random => Some(Policy::Random),
        AdvisedBalance::RingHash { max_load } => Some(Policy::RingHash(max_load)),
        AdvisedBalance::Maglev => Some(Policy::Maglev),
    }
}

/// Our zone, where it matters.
fn zone(config: &config::Upstream) -> Option<&str> {
    let zone = &*config.balance.zone;
    (config.balance.zone_aware && !zone.is_empty()).then_some(zone)
}

/// True where its attempts are counted by zone.
pub(in crate::control) fn knows_zones(config: &config::Upstream) -> bool {
    zone(config).is_some()
}

/// What of the endpoints is used, and what is counted of zones.
pub(super) fn parts(upstream: Upstream, config: &config::Upstream, metrics: &Metrics) -> Upstream {
    let families = &metrics.balance;
    let subset = (!config.subset.is_empty())
        .then(|| Subset::new(config.subset.clone(), families.outside_subset(&config.name)));
    let zones = zone(config).map(|_| families.zones(&config.name));
    upstream.with_parts(subset, zones)
}

/// One item of `hash`.
pub(super) fn hash_by(by: &config::HashBy) -> HashBy {
    match by {
        config::HashBy::Header(name) => HashBy::Header(name.clone()),
        config::HashBy::Query(name) => HashBy::Query(name.clone()),
        config::HashBy::SourceIp => HashBy::SourceIp,
        config::HashBy::Cookie { name, ttl } => {
            let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs())).unwrap_or_default();
            let attributes = format!("; Path=/{age}; HttpOnly; SameSite=Lax");
            HashBy::Cookie(HashCookie { name: name.clone(), attributes })
        }
    }
}
