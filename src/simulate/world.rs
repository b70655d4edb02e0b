//! The state of a run, and its loop.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::endpoint::EndpointSpec;
use crate::config::{Config, Scenario, Servers};
use crate::control::ApplyError;
use crate::metrics::Metrics;
use crate::policy::outlier::INTERVAL;

use super::SimulateError;
use super::checks::Checked;
use super::events::{Events, Line, SECOND, Time, What};
use super::faults::{Faults, nanos};
use super::random::{Chance, LogNormal};
use super::record::{Ended, Record};
use super::slab::{Id, Slab};
use super::state::{Attempt, From, Hop, Job, Request, Server, Sidecar, Told, address};

/// How often the workers look at what other workers have freed, as the coarse clock of the proxy does.
const TICK: Time = SECOND / 20;

/// After the last request has arrived, what is on its way is waited for this long.
const AFTERGLOW: Time = 60 * SECOND;

/// Everything there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) base: Instant,
    pub(super) now: Time,
    end: Time,
    pub(super) events: Events,
    pub(super) chance: Chance,
    pub(super) faults: Faults,
    pub(super) record: Record,
    pub(super) hops: Vec<Hop>,
    pub(super) requests: Slab<Request>,
    pub(super) attempts: Slab<Attempt>,
    pub(super) jobs: Slab<Job>,
    pub(super) checks: Vec<Checked>,
    /// Requests that wait for a place.
    pub(super) waiting: usize,
    rate: f64,
    /// Services pass on what their sidecars tell each other.
    pub(super) headers_pass: bool,
}

impl World {
    pub(super) fn new(
        scenario: &Scenario,
        config: &Config,
        seed: u64,
    ) -> Result<Self, SimulateError> {
        let base = Instant::now();
        let mut chance = Chance::from_seed(seed);
        let metrics = Metrics::new(&config.metrics.buckets)
            .map_err(|error| SimulateError::Policies(ApplyError::Invalid(error.to_string())))?;
        let mut hops: Vec<Hop> = Vec::new();
        for (index, servers) in scenario.hops.iter().enumerate() {
            // Each endpoint of the hop before has a sidecar of its own.
            let asking = hops
                .last()
                .map_or(scenario.clients.sidecars as usize, |before: &Hop| before.servers.len());
            let specs: Vec<EndpointSpec> =
                (0..servers.endpoints).map(|number| endpoint(servers, number)).collect();
            let in_zones = in_zones(config, servers.zones);
            let before = index.checked_sub(1).map(|before| &scenario.hops[before]);
            let sidecars = (0..asking).map(|number| {
                let workers = scenario.clients.workers;
                // Clients in turn; a sidecar of an endpoint where that stands.
                let zone = before.map_or(number, |before| zone(before, number));
                let config = &in_zones[zone % in_zones.len()];
                Sidecar::new(config, &metrics, &specs, workers, base, &mut chance)
            });
            hops.push(Hop {
                sidecars: sidecars.collect::<Result<_, _>>()?,
                servers: (0..servers.endpoints).map(|_| Server::new(index)).collect(),
                service_time: LogNormal::new(servers.service_time),
                slots: servers.slots as usize,
                queue: servers.queue as usize,
                rtt: nanos(servers.rtt),
            });
        }
        let faults = Faults::new(&scenario.events);
        let end = nanos(scenario.duration);
        let window = faults.window().unwrap_or((end, end));
        Ok(Self {
            base,
            now: 0,
            end,
            events: Events::default(),
            chance,
            record: Record::new(end, window),
            faults,
            requests: Slab::default(),
            attempts: Slab::default(),
            jobs: Slab::default(),
            checks: checks(config, &hops, base),
            hops,
            waiting: 0,
            rate: scenario.clients.rate.per_second(),
            headers_pass: scenario.headers_pass,
        })
    }

    /// The virtual clock as the policies read it.
    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    /// The hop whose load is looked at.
    pub(super) fn last_hop(&self) -> usize {
        self.hops.len() - 1
    }

    /// Lets everything happen.
    pub(super) fn run(&mut self) {
        self.events.at(0, What::Fault);
        self.events.at(TICK, What::Tick);
        self.start_checks();
        let first = self.chance.pause(self.rate);
        self.events.at(first, What::Arrival);
        while let Some((at, what)) = self.events.next() {
            self.now = at;
            if at > self.end + AFTERGLOW || (at > self.end && self.requests.len() == 0) {
                break;
            }
            match what {
                What::Arrival => self.arrival(),
                What::Connected(attempt) => self.connected(attempt),
                What::Reached(job) => self.reached(job),
                What::Worked(job) => self.worked(job),
                What::Answered(attempt) => self.answered(attempt),
                What::Overdue(attempt) => self.overdue(attempt),
                What::Slow(request) => self.hedge(request),
                What::WaitedEnough(request) => self.waited_enough(request),
                What::Again(request) => self.proceed(request),
                What::Fault => self.fault(),
                What::Check(number) => self.check(number),
                What::Checked(number, passed) => self.checked(number, passed),
                What::Tick => self.tick(),
            }
        }
        for request in self.requests.drain().filter(|request| request.parent.is_none()) {
            let how = Ended { ok: false, status: 504, reason: Some("unanswered") };
            self.record.ended(request.started, self.now, how);
        }
    }

    fn arrival(&mut self) {
        if self.now >= self.end {
            return;
        }
        let sidecar = self.chance.arrivals.below(self.hops[0].sidecars.len());
        let worker = self.chance.arrivals.below(self.hops[0].sidecars[sidecar].workers.len());
        let pause = self.chance.pause(self.rate * self.faults.load(self.now));
        self.events.at(self.now + pause, What::Arrival);
        self.record.arrived(self.now);
        self.begin(From { hop: 0, sidecar, worker }, None, Told::default());
    }

    /// What the control thread and the workers do regularly: the first runs the rules, the others look at what was freed.
    fn tick(&mut self) {
        self.events.at(self.now + TICK, What::Tick);
        let now = self.instant();
        for sidecar in self.hops.iter().flat_map(|hop| &hop.sidecars) {
            let _logged_in_production = sidecar.upstream.tick(now);
            if self.now.is_multiple_of(nanos(INTERVAL)) {
                sidecar.upstream.judge(now, self.chance.policy.get_mut());
            }
            if self.now.is_multiple_of(SECOND) {
                sidecar.upstream.review(now);
            }
        }
        if self.waiting == 0 {
            return;
        }
        for hop in 0..self.hops.len() {
            for sidecar in 0..self.hops[hop].sidecars.len() {
                for worker in 0..self.hops[hop].sidecars[sidecar].workers.len() {
                    self.wake(From { hop, sidecar, worker }, usize::MAX);
                }
            }
        }
    }

    /// Starts an attempt's timer.
    pub(super) fn start_timer(&mut self, attempt: Id, until: Option<Instant>) {
        if let Some(until) = until {
            let at = nanos(until.saturating_duration_since(self.base));
            self.events.timer(Line::Attempt, at, What::Overdue(attempt));
        }
    }
}

/// An endpoint, where it stands, and when it is asked.
fn endpoint(servers: &Servers, number: u32) -> EndpointSpec {
    let is_spare = number >= servers.endpoints - servers.spare;
    EndpointSpec {
        zone: Some((zone(servers, number as usize) + 1).to_string()),
        priority: u32::from(is_spare),
        ..EndpointSpec::at(address(number))
    }
}

/// Where an endpoint stands, from 0: equal parts, from the first.
fn zone(servers: &Servers, number: usize) -> usize {
    number * servers.zones as usize / servers.endpoints as usize
}

/// What is in force in each zone: the same, but for the name of it.
fn in_zones(config: &Config, zones: u32) -> Vec<Config> {
    let in_zone = |zone: u32| {
        let mut config = config.clone();
        for upstream in config.upstreams.iter_mut().filter(|upstream| upstream.balance.zone_aware) {
            upstream.balance.zone = zone.to_string();
        }
        config
    };
    (1..=zones).map(in_zone).collect()
}

/// The health checks of every sidecar, where its upstream has some.
fn checks(config: &Config, hops: &[Hop], now: Instant) -> Vec<Checked> {
    let mut checks = Vec::new();
    for (number, hop) in hops.iter().enumerate() {
        for sidecar in &hop.sidecars {
            let upstream = &sidecar.upstream;
            let written = config.upstreams.iter().find(|written| *written.name == *upstream.name);
            let Some(check) = written.and_then(|written| written.health.as_ref()) else { continue };
            for (server, member) in upstream.endpoints().members().iter().enumerate() {
                let place = (number, server);
                checks.push(Checked::new(check, upstream, &member.endpoint, place, now));
            }
            upstream.review(now);
        }
    }
    checks
}
