//! `upstreams.<name>`.

use tokio::time::Instant;

use crate::balance::outliers::Outliers;
use crate::base::rng::Rng;
use crate::config;
use crate::metrics::Metrics;
use crate::policy::limits::LimitSettings;
use crate::policy::outlier::{OutlierPolicy, SuccessRate};
use crate::upstream::{BudgetPolicy, Originals, PoolPolicy, Protocol, Upstream, UpstreamPolicy};

use super::{balance, ejection_words, gate, suppressed_words};

/// A new upstream, without endpoints.
pub(in crate::control) fn upstream(
    config: &config::Upstream,
    metrics: &Metrics,
    rng: &mut Rng,
    now: Instant,
) -> Upstream {
    let limits = &config.limits;
    let original = config.discover == config::Discover::Original;
    let upstream = Upstream::new(
        &config.name,
        UpstreamPolicy {
            protocol: match config.protocol {
                config::UpstreamProtocol::Http1 => Protocol::Http1,
                config::UpstreamProtocol::Http2 => Protocol::Http2,
                config::UpstreamProtocol::Auto => Protocol::Auto,
            },
            connect_timeout: config.connect_timeout,
            pool: PoolPolicy {
                idle: match config.pool.idle {
                    config::PoolIdle::Auto => None,
                    config::PoolIdle::After(idle) => Some(idle),
                },
                max_idle: config.pool.max_idle,
                max_requests: config.pool.max_requests,
                max_age: config.pool.max_age,
            },
            queue: limits.queue,
            budget: BudgetPolicy {
                ratio: limits.retry_budget.ratio.fraction(),
                floor_per_second: limits.retry_budget.floor.per_second(),
                window: limits.retry_budget.window,
            },
        },
        LimitSettings {
            connections: limits.connections,
            in_flight: gate::in_flight(config),
            pending: limits.pending,
        },
        gate::gate(config, metrics, now),
        balance::balancer(config, rng),
        metrics.upstream.upstream(
            &config.name,
            &suppressed_words(),
            &ejection_words(),
            config.outliers.is_none_or(|outliers| outliers.enforce),
        ),
        now,
    )
    // There is no other endpoint that could take the part of one that fails.
    .with_outliers(
        config.outliers.as_ref().filter(|_| !original).map(outlier_policy).map(Outliers::new),
    )
    .with_originals(original.then(Originals::default));
    balance::parts(upstream, config, metrics)
}

fn outlier_policy(outliers: &config::outliers::Outliers) -> OutlierPolicy {
    OutlierPolicy {
        consecutive: outliers.consecutive,
        gateway: outliers.gateway,
        local_origin: outliers.local_origin,
        success_rate: outliers.success_rate.map(|rule| SuccessRate {
            stdev: rule.stdev,
            min_hosts: rule.min_hosts,
            min_requests: rule.min_requests,
        }),
        eject: outliers.eject,
        max_ejected: outliers.max_ejected.fraction(),
        enforce: outliers.enforce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_defaults_are_the_policys() {
        let written = config::outliers::Outliers::default();
        assert_eq!(outlier_policy(&written), OutlierPolicy::default());
        let half = 0.5 - crate::balance::PANIC_BELOW;
        assert!(half.abs() < f64::EPSILON);
    }
}
