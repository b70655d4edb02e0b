//! The state of a run, and its loop.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Tried;
use crate::balance::endpoint::EndpointGuard;
use crate::balance::endpoint_set::EndpointSet;
use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;
use crate::config::{Config, Scenario};
use crate::control::{ApplyError, compiled};
use crate::metrics::Metrics;
use crate::policy::deadline::Deadline;
use crate::policy::limits::Permit;
use crate::policy::retry::SuppressedReason;
use crate::policy::retry_budget::RetryBudget;
use crate::policy::retry_depth::RetryDepth;
use crate::snapshot::{Action, Route, Snapshot};
use crate::upstream::Upstream;

use super::SimulateError;
use super::events::{Events, Line, SECOND, Time, What};
use super::faults::{Condition, Faults, nanos};
use super::random::{Chance, LogNormal};
use super::record::{Ended, Record};
use super::slab::{Id, Slab};

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
    /// Requests that wait for a place.
    pub(super) waiting: usize,
    rate: f64,
    /// Services pass on what their sidecars tell each other.
    pub(super) headers_pass: bool,
}

/// The sidecars that ask, and the servers that answer.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) servers: Vec<Server>,
    pub(super) service_time: LogNormal,
    pub(super) slots: usize,
    pub(super) queue: usize,
    pub(super) rtt: Time,
}

/// One sidecar, compiled as it would be in production.
#[derive(Debug)]
pub(super) struct Sidecar {
    snapshot: Rc<Snapshot>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) workers: Vec<Worker>,
}

impl Sidecar {
    pub(super) fn route(&self) -> &Route {
        &self.snapshot.listeners[0].routes[0]
    }
}

/// What one worker of a sidecar has of its own.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) budget: RetryBudget,
    /// Requests that wait for a place, first come, first served; ids of those that have left stay until they are met.
    pub(super) queue: VecDeque<Id>,
    /// By endpoint.
    pub(super) pools: Vec<Pool>,
}

/// Connections kept to one endpoint.
#[derive(Debug, Default, Clone)]
pub(super) struct Pool {
    /// Since when each is unused; the last was used last.
    pub(super) idle: Vec<Time>,
    /// Which life of the endpoint they were made in.
    pub(super) life: u32,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) condition: Condition,
    /// Counts its deaths: connections of an earlier life are closed.
    pub(super) life: u32,
    pub(super) working: Vec<Id>,
    pub(super) queue: VecDeque<Id>,
    /// Done while it hung: goes on when it does.
    pub(super) held: Vec<Id>,
}

/// Where a request comes from, and goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub(super) hop: usize,
    pub(super) sidecar: usize,
    pub(super) worker: usize,
}

/// A request at a sidecar.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) from: From,
    pub(super) started: Time,
    pub(super) deadline: Deadline,
    pub(super) tried: Tried,
    pub(super) attempts: u32,
    pub(super) resent_once: bool,
    /// What its caller told of attempts above.
    pub(super) above: RetryDepth,
    /// Attempts that may have run.
    pub(super) ran: u32,
    /// There is to be another attempt, which has not begun.
    pub(super) wanted: bool,
    /// Why there was no further attempt although one was wanted.
    pub(super) suppressed: Option<SuppressedReason>,
    /// The work that it is done for; none where a client asks.
    pub(super) parent: Option<Id>,
    /// Held while it waits for a place.
    pub(super) pending: Option<Permit>,
    /// Until when, the last time it waited.
    pub(super) waits_until: Time,
}

/// One try.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) request: Id,
    pub(super) guard: EndpointGuard,
    /// Given back with it.
    pub(super) _permit: Permit,
    pub(super) server: usize,
    /// The life of the endpoint that its connection was made in.
    pub(super) life: u32,
    /// The request was handed to a connection.
    pub(super) sent: bool,
    /// That connection had been kept.
    pub(super) reused: bool,
    pub(super) started: Time,
    pub(super) told: Told,
    pub(super) answer: Answer,
}

/// What a sidecar writes into a request for the hops below.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// The time that is left.
    pub(super) time: Option<Duration>,
    pub(super) depth: RetryDepth,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not known yet.
    None,
    /// A response, and what it tells of attempts below.
    Status(u16, RetryDepth),
    /// The connection ended.
    Reset,
}

/// A request in an endpoint.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) attempt: Id,
    pub(super) hop: usize,
    pub(super) server: usize,
    /// The life of the endpoint in which its connection was made.
    pub(super) life: u32,
    pub(super) told: Told,
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
                (0..servers.endpoints).map(|number| EndpointSpec::at(address(number))).collect();
            let sidecars = (0..asking).map(|_| {
                let workers = scenario.clients.workers;
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
            hops,
            requests: Slab::default(),
            attempts: Slab::default(),
            jobs: Slab::default(),
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
                What::WaitedEnough(request) => self.waited_enough(request),
                What::Again(request) => self.proceed(request),
                What::Fault => self.fault(),
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

    fn tick(&mut self) {
        self.events.at(self.now + TICK, What::Tick);
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

impl Sidecar {
    fn new(
        config: &Config,
        metrics: &Metrics,
        endpoints: &[EndpointSpec],
        workers: u32,
        now: Instant,
        chance: &mut Chance,
    ) -> Result<Self, SimulateError> {
        let snapshot = compiled(config, metrics, &mut chance.policy, now)?;
        let route = snapshot.listeners.first().and_then(|listener| listener.routes.first());
        let Some(Action::To(split)) = route.map(|route| &route.action) else {
            return Err(SimulateError::NoRoute);
        };
        let upstream = Arc::clone(split.pick(&mut chance.policy));
        upstream.publish(EndpointSet::build(endpoints, None, now), now);
        let worker = || Worker {
            budget: upstream.budget_of_one(now),
            queue: VecDeque::new(),
            pools: vec![Pool::default(); endpoints.len()],
        };
        let workers = (0..workers).map(|_| worker()).collect();
        Ok(Self { snapshot: Rc::new(snapshot), upstream, workers })
    }
}

/// The address of an endpoint: never dialled, it only tells one from the other.
fn address(number: u32) -> std::net::SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    std::net::SocketAddr::from(([10, high, middle, low], 80))
}

/// The number of the endpoint at an address of [`address`].
pub(super) fn number(address: &Address) -> usize {
    match address {
        Address::Tcp(std::net::SocketAddr::V4(v4)) => {
            let [_, high, middle, low] = v4.ip().octets();
            u32::from_be_bytes([0, high, middle, low]) as usize
        }
        _ => 0,
    }
}
