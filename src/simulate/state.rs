//! What a run consists of: sidecars, servers, and the requests between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::endpoint::EndpointGuard;
use crate::balance::endpoint_set::EndpointSet;
use crate::balance::{Key, Tried};
use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;
use crate::config::Config;
use crate::control::compiled;
use crate::metrics::Metrics;
use crate::policy::breaker::Pass;
use crate::policy::deadline::Deadline;
use crate::policy::limits::Permit;
use crate::policy::retry::SuppressedReason;
use crate::policy::retry_budget::RetryBudget;
use crate::policy::retry_depth::RetryDepth;
use crate::snapshot::{Action, Route, Snapshot};
use crate::upstream::Upstream;

use super::SimulateError;
use super::ended::End;
use super::events::Time;
use super::faults::Condition;
use super::random::{Chance, LogNormal};
use super::slab::Id;

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
    snapshot: Snapshot,
    pub(super) upstream: Arc<Upstream>,
    pub(super) workers: Vec<Worker>,
}

impl Sidecar {
    pub(super) fn new(
        config: &Config,
        metrics: &Metrics,
        endpoints: &[EndpointSpec],
        workers: u32,
        now: Instant,
        chance: &mut Chance,
    ) -> Result<Self, SimulateError> {
        let snapshot = compiled(config, metrics, chance.policy.get_mut(), now)?;
        let route = snapshot.listeners.first().and_then(|listener| listener.routes.first());
        let Some(Action::To(split)) = route.map(|route| &route.action) else {
            return Err(SimulateError::NoRoute);
        };
        let upstream = Arc::clone(split.pick(chance.policy.get_mut()));
        upstream.publish(EndpointSet::build(endpoints, None, now), now);
        let worker = || Worker {
            budget: upstream.budget_of_one(now),
            queue: VecDeque::new(),
            pools: vec![Pool::default(); endpoints.len()],
        };
        let workers = (0..workers).map(|_| worker()).collect();
        Ok(Self { snapshot, upstream, workers })
    }

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
    /// Who asks, where the route hashes.
    pub(super) key: Option<Key>,
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
    /// Its first attempt, where a second may be raced against it.
    pub(super) race: Option<Race>,
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
    /// What the gate let in.
    pub(super) pass: Pass,
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

/// A first attempt that may be slow, and the second that was raced against it.
#[derive(Debug)]
pub(super) struct Race {
    pub(super) first: Id,
    pub(super) started: Time,
    /// The second, and the id of its endpoint.
    pub(super) second: Option<(Id, u64)>,
    /// One of them has ended badly; the other is waited for.
    pub(super) bad: Option<End>,
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

/// The address of an endpoint: never dialled, it only tells one from the other.
pub(super) fn address(number: u32) -> std::net::SocketAddr {
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
