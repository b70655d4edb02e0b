//! Active health checks: their rule is production's, what they find is what the servers' condition lets them find.
//!
//! In production one process checks an endpoint once, for all workers; so does each sidecar here.

use std::sync::Arc;

use tokio::time::Instant;

use super::events::{Time, What};
use super::faults::nanos;
use super::world::World;
use crate::balance::endpoint::{Endpoint, Health as Standing};
use crate::config::{HealthCheck, HealthProbe};
use crate::control::health_settings;
use crate::policy::health::{Health, Verdict};
use crate::upstream::Upstream;

/// The checks of one endpoint by one sidecar.
#[derive(Debug)]
pub(super) struct Checked {
    rule: Health,
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    hop: usize,
    server: usize,
    /// It asks for an answer, not only for a connection.
    answer: bool,
    timeout: Time,
    began: Time,
}

impl Checked {
    pub(super) fn new(
        check: &HealthCheck,
        upstream: &Arc<Upstream>,
        endpoint: &Arc<Endpoint>,
        (hop, server): (usize, usize),
        now: Instant,
    ) -> Self {
        endpoint.set_health(Standing::Unproven, now);
        Self {
            rule: Health::new(health_settings(check)),
            upstream: Arc::clone(upstream),
            endpoint: Arc::clone(endpoint),
            hop,
            server,
            answer: !matches!(check.probe, HealthProbe::Tcp),
            timeout: nanos(check.timeout),
            began: 0,
        }
    }
}

impl World {
    /// Gives every check its first time.
    pub(super) fn start_checks(&mut self) {
        for (number, checked) in (0..).zip(&self.checks) {
            let wait = checked.rule.before_first(self.chance.policy.get_mut());
            self.events.at(nanos(wait), What::Check(number));
        }
    }

    /// A check begins. It finds what holds now, after a connection's and an answer's time, or after its timeout.
    pub(super) fn check(&mut self, number: u32) {
        let checked = &mut self.checks[number as usize];
        checked.began = self.now;
        let hop = &self.hops[checked.hop];
        let server = &hop.servers[checked.server];
        let is = server.condition;
        let mut hit = |share: f64| share > 0.0 && self.chance.work.fraction() < share;
        let (passed, took) = if is.unreachable || (checked.answer && is.hanging) {
            (false, checked.timeout)
        } else if !is.up {
            (false, hop.rtt)
        } else {
            let fails = checked.answer && (hit(is.resets) || hit(is.errors.0));
            (!fails, hop.rtt * 2)
        };
        let (passed, took) =
            if took >= checked.timeout { (false, checked.timeout) } else { (passed, took) };
        self.events.at(self.now + took, What::Checked(number, passed));
    }

    /// A check ends.
    pub(super) fn checked(&mut self, number: u32, passed: bool) {
        let now = self.instant();
        let checked = &mut self.checks[number as usize];
        if let Some(verdict) = checked.rule.record(passed) {
            let standing = match verdict {
                Verdict::Unknown => Standing::Unproven,
                Verdict::Healthy => Standing::Healthy,
                Verdict::Unhealthy => Standing::Unhealthy,
            };
            checked.endpoint.set_health(standing, now);
            checked.upstream.review(now);
        }
        let began = self.base + std::time::Duration::from_nanos(checked.began);
        let next = checked.rule.next(began, now, self.chance.policy.get_mut());
        let at = nanos(next.saturating_duration_since(self.base));
        self.events.at(at, What::Check(number));
    }
}
