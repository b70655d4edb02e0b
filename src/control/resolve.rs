//! Upstreams and where their endpoints come from: carried over a reload where nothing about them changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::balance::Policy;
use crate::balance::endpoint::{Endpoint, Health};
use crate::balance::endpoint_set::EndpointSet;
use crate::base::rng::Rng;
use crate::config::{self, Discover};
use crate::discovery::{self, ErrorKind, Provider, ProviderStatus, Subscription};
use crate::health::{CheckTls, Checks};
use crate::metrics::Metrics;
use crate::upstream::{Upstream, UpstreamTls};

use super::checks::UpstreamHealth;
use super::providers::{Shared, Surroundings, same_policy, same_tls};
use super::{Applied, ApplyError, certificates, compile};

/// The upstreams in force, by name.
#[derive(Debug)]
pub struct Upstreams {
    metrics: Metrics,
    checks: Rc<Checks>,
    managed: BTreeMap<String, Rc<Managed>>,
    /// Replaced or removed, as long as they have requests.
    gone: RefCell<Vec<Arc<Upstream>>>,
    /// Told when a set was published or a configuration took force.
    changes: Rc<Notify>,
    /// What providers have in common.
    shared: Shared,
}

/// An upstream, what it was made from, and the task that keeps its endpoints up to date.
#[derive(Debug)]
pub struct Managed {
    /// As it was written.
    pub config: config::Upstream,
    /// As it runs.
    pub upstream: Arc<Upstream>,
    /// Where discovery stands; `None` for written endpoints.
    pub status: Option<Arc<ProviderStatus>>,
    /// What its endpoints are checked for; `None`: they are not.
    pub health: Option<Rc<UpstreamHealth>>,
    surroundings: Surroundings,
    follow: Option<AbortHandle>,
    reported: RefCell<Reported>,
}

/// What of a provider's counts is in the metrics already. A provider counts from 0, its upstream's series go on.
#[derive(Debug, Default)]
struct Reported {
    updates: u64,
    errors: [u64; ErrorKind::ALL.len()],
}

impl Drop for Managed {
    fn drop(&mut self) {
        if let Some(follow) = &self.follow {
            follow.abort();
        }
    }
}

/// What a reload will do to the upstreams. Nothing has happened yet.
#[derive(Debug)]
pub(super) struct Plan {
    planned: BTreeMap<String, Planned>,
    order: Vec<String>,
    shared: Shared,
}

#[derive(Debug)]
enum Planned {
    /// Unchanged.
    Keep(Rc<Managed>),
    /// The same upstream with other endpoints, or other checks of them.
    Rediscover { from: Rc<Managed>, wanted: Wanted },
    /// New, or changed in more than that.
    Make { upstream: Arc<Upstream>, wanted: Wanted },
}

/// What is to be started.
#[derive(Debug)]
struct Wanted {
    config: config::Upstream,
    provider: Option<Provider>,
    surroundings: Surroundings,
}

impl Plan {
    /// Every upstream of `config` anew; whoever asks gives them their endpoints.
    pub(super) fn without_discovery(
        config: &config::Config,
        metrics: &Metrics,
        rng: &mut Rng,
        now: Instant,
    ) -> Self {
        let order = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        let planned = config.upstreams.iter().map(|wanted| {
            let upstream = Arc::new(compile::upstream(wanted, metrics, rng, now));
            let surroundings = Surroundings::of(wanted, config);
            let config = wanted.clone();
            let wanted = Wanted { config, provider: None, surroundings };
            (upstream.name.to_string(), Planned::Make { upstream, wanted })
        });
        Self { planned: planned.collect(), order, shared: Shared::default() }
    }

    /// The upstream of that name, as it will be.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.planned.get(name).map(Planned::upstream)
    }

    /// All of them, in the order of the file.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.order.iter().filter_map(|name| self.get(name))
    }
}

impl Planned {
    fn upstream(&self) -> &Arc<Upstream> {
        match self {
            Self::Keep(managed) | Self::Rediscover { from: managed, .. } => &managed.upstream,
            Self::Make { upstream, .. } => upstream,
        }
    }
}

impl Upstreams {
    /// None yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        let checks = Rc::new(Checks::new(Rng::from_entropy()));
        Self {
            metrics,
            checks,
            managed: BTreeMap::new(),
            gone: RefCell::default(),
            changes: Rc::default(),
            shared: Shared::default(),
        }
    }

    /// Compares the configuration with what is in force.
    pub(super) fn plan(
        &self,
        config: &config::Config,
        certificates: &certificates::Plan,
    ) -> Result<Plan, ApplyError> {
        let mut shared = self.shared.clone();
        let mut planned = BTreeMap::new();
        let (mut rng, now) = (Rng::from_entropy(), Instant::now());
        for wanted in &config.upstreams {
            let surroundings = Surroundings::of(wanted, config);
            let mut start = || {
                let provider = shared.provider(wanted, config)?;
                let surroundings = surroundings.clone();
                Ok(Wanted { config: wanted.clone(), provider, surroundings })
            };
            let plan = match self.managed.get(&wanted.name) {
                Some(managed)
                    if managed.config == *wanted && managed.surroundings == surroundings =>
                {
                    Planned::Keep(Rc::clone(managed))
                }
                Some(managed)
                    if same_policy(&managed.config, wanted)
                        && same_tls(&managed.upstream, certificates) =>
                {
                    Planned::Rediscover { from: Rc::clone(managed), wanted: start()? }
                }
                _ => Planned::Make {
                    upstream: Arc::new(
                        compile::upstream(wanted, &self.metrics, &mut rng, now)
                            .with_tls(self.tls(wanted, certificates)),
                    ),
                    wanted: start()?,
                },
            };
            planned.insert(wanted.name.clone(), plan);
        }
        let order = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        Ok(Plan { planned, order, shared })
    }

    fn tls(
        &self,
        wanted: &config::Upstream,
        certificates: &certificates::Plan,
    ) -> Option<UpstreamTls> {
        let client = certificates.upstream(&wanted.name)?;
        Some(UpstreamTls::new(client, self.metrics.tls.upstream(&wanted.name)))
    }

    /// Does it: starts and ends discovery, publishes written endpoints.
    pub(super) fn commit(&mut self, plan: Plan, applied: &mut Applied) {
        self.shared = plan.shared;
        let mut before = std::mem::take(&mut self.managed);
        for (name, planned) in plan.planned {
            let old = before.remove(&name);
            let managed = match planned {
                Planned::Keep(managed) => managed,
                Planned::Rediscover { from, wanted } => {
                    applied.upstreams_changed.push(name.clone());
                    Rc::new(self.start(wanted, Arc::clone(&from.upstream)))
                }
                Planned::Make { upstream, wanted } => {
                    applied.upstreams_changed.push(name.clone());
                    // Before the old one goes: checks that both want go on.
                    let made = Rc::new(self.start(wanted, upstream));
                    if let Some(old) = old {
                        self.retire(&old);
                    }
                    made
                }
            };
            self.managed.insert(name, managed);
        }
        for (name, old) in before {
            self.retire(&old);
            applied.upstreams_removed.push(name);
        }
        self.changes.notify_one();
    }

    fn start(&self, wanted: Wanted, upstream: Arc<Upstream>) -> Managed {
        let Wanted { config, provider, surroundings } = wanted;
        let reported = RefCell::default();
        let health = self.start_checks(&config, &upstream);
        if !config.balance.advised {
            upstream.balancer.adopt(compile::policy(&config.balance));
        }
        match &config.discover {
            Discover::Endpoints(specs) => publish(&upstream, specs, health.as_deref()),
            // Nothing to wait for.
            Discover::Original => publish(&upstream, &[], health.as_deref()),
            _ => {}
        }
        let Some(provider) = provider else {
            let (status, follow) = (None, None);
            return Managed { config, upstream, status, health, surroundings, follow, reported };
        };
        let subscription = discovery::spawn(provider, Rng::from_entropy());
        let status = Some(Arc::clone(&subscription.status));
        let of = (Arc::clone(&upstream), compile::policy(&config.balance));
        let follow = follow(subscription, of, health.clone(), self.changes());
        let follow = Some(tokio::task::spawn_local(follow).abort_handle());
        Managed { config, upstream, status, health, surroundings, follow, reported }
    }

    /// Checks the endpoints that the upstream has already, or forgets what earlier checks said of them.
    fn start_checks(
        &self,
        config: &config::Upstream,
        upstream: &Arc<Upstream>,
    ) -> Option<Rc<UpstreamHealth>> {
        let set = upstream.endpoints();
        let Some(mut check) = compile::health(config) else {
            let now = Instant::now();
            for member in set.members() {
                member.endpoint.set_health(Health::Unknown, now);
            }
            return None;
        };
        check.tls = upstream.tls.as_ref().map(|tls| CheckTls(Arc::clone(tls.client())));
        let metrics = self.metrics.health.upstream(&config.name);
        let health = UpstreamHealth::new(&self.checks, check, metrics);
        health.follow(upstream, &set);
        Some(Rc::new(health))
    }

    /// Its requests finish where they are; nothing new goes there.
    fn retire(&self, old: &Managed) {
        old.upstream.retire();
        let draining = old.upstream.draining().len();
        if draining > 0 {
            let upstream = &*old.upstream.name;
            tracing::info!(upstream, endpoints = draining, "the old endpoints drain");
            self.gone.borrow_mut().push(Arc::clone(&old.upstream));
        }
    }

    /// Endpoints that upstreams of this name no longer have and that still have requests.
    pub fn draining(&self, name: &str) -> Vec<Arc<Endpoint>> {
        let mut gone = self.gone.borrow_mut();
        gone.retain(|upstream| !upstream.draining().is_empty());
        let managed = self.managed.get(name).map(|managed| &managed.upstream);
        let gone = gone.iter().filter(|upstream| &*upstream.name == name);
        managed.into_iter().chain(gone).flat_map(|upstream| upstream.draining()).collect()
    }

    /// Told when there is something else to see here. For one listener.
    pub fn changes(&self) -> Rc<Notify> {
        Rc::clone(&self.changes)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Managed>> {
        self.managed.values()
    }

    /// Names of those whose endpoints are not known yet.
    pub(super) fn unresolved(&self) -> Vec<&str> {
        self.managed
            .iter()
            .filter(|(_, managed)| !managed.upstream.is_resolved())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Names of those whose endpoints are known and have not all been checked once.
    pub(super) fn undecided(&self) -> Vec<&str> {
        let waits = |managed: &Managed| {
            managed.upstream.is_resolved()
                && managed.health.as_ref().is_some_and(|health| health.is_undecided())
        };
        let waiting = self.managed.iter().filter(|(_, managed)| waits(managed));
        waiting.map(|(name, _)| name.as_str()).collect()
    }

    /// Brings the discovery metrics up to date; called before each scrape.
    pub fn refresh_metrics(&self, now: Instant) {
        for managed in self.iter() {
            managed.upstream.review(now);
            let metrics = &managed.upstream.metrics;
            metrics.standing.set_draining(self.draining(&managed.upstream.name).len());
            let Some(status) = &managed.status else {
                metrics.staleness.set(0);
                continue;
            };
            let stale = if status.is_stale() { status.staleness(now).as_secs() } else { 0 };
            metrics.staleness.set(i64::try_from(stale).unwrap_or(i64::MAX));
            let mut reported = managed.reported.borrow_mut();
            raise(&metrics.updates, &mut reported.updates, status.updates());
            for (kind, reported) in ErrorKind::ALL.iter().zip(&mut reported.errors) {
                let counter =
                    self.metrics.upstream.discovery_errors(&managed.upstream.name, kind.word());
                raise(&counter, reported, status.errors(*kind));
            }
        }
    }
}

/// Adds what a provider has counted since the last time.
fn raise(counter: &prometheus::IntCounter, reported: &mut u64, counted: u64) {
    counter.inc_by(counted.saturating_sub(*reported));
    *reported = counted;
}

fn publish(
    upstream: &Arc<Upstream>,
    specs: &[crate::base::endpoint::EndpointSpec],
    health: Option<&UpstreamHealth>,
) {
    let now = Instant::now();
    let selected = upstream.subset.as_ref().map(|subset| subset.select(specs));
    let specs = selected.as_deref().unwrap_or(specs);
    let set = EndpointSet::build(specs, Some(&upstream.endpoints()), now);
    if let Some(health) = health {
        health.follow(upstream, &set);
    }
    upstream.publish(set, now);
}

/// Publishes what discovery finds, until it is dropped.
async fn follow(
    mut subscription: Subscription,
    (upstream, own): (Arc<Upstream>, Policy),
    health: Option<Rc<UpstreamHealth>>,
    changes: Rc<Notify>,
) {
    let mut known = None;
    loop {
        let found = subscription.updates.borrow_and_update().clone();
        if let Some(advice) = subscription.status.advised() {
            upstream.balancer.adopt(compile::advised(advice).unwrap_or(own));
        }
        if found.answered {
            publish(&upstream, &found.endpoints, health.as_deref());
            changes.notify_one();
            // Advice alone brings the same set again.
            if known != Some(found.updated) {
                known = Some(found.updated);
                let (source, endpoints) = (&*found.source, found.endpoints.len());
                tracing::info!(upstream = %upstream.name, source, endpoints, "endpoints changed");
            }
        }
        if subscription.updates.changed().await.is_err() {
            return;
        }
    }
}
