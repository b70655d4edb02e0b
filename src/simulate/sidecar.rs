//! A request's way through a sidecar, step by step as `proxy::forward` and `proxy::attempt` go: a place, an endpoint, an
//! attempt, what is learned from its end, and whether there is another.
//!
//! The decisions are made by the same types as in production; only waiting, connections and wires are imitated.

use http::StatusCode;
use tokio::time::Instant;

use crate::balance::{Key, Picked, Tried};
use crate::base::error::Reason;
use crate::policy::breaker::Pass;
use crate::policy::deadline::{CallerTimeout, Deadline, Exchange};
use crate::policy::limits::Permit;
use crate::policy::rate_limit::Verdict;
use crate::policy::retry::AttemptEnd;
use crate::snapshot::RateLimitBy;

use super::ended::End;
use super::events::{Line, What};
use super::faults::nanos;
use super::slab::Id;
use super::state::{Answer, Attempt, From, Job, Request, Told, number};
use super::world::World;

/// Whoever is told apart where a route hashes: each request comes from one of so many, at random.
const CALLERS: usize = 10_000;

impl World {
    /// A request comes to a sidecar: from a client, or from the work on another one, which was `told` something.
    pub(super) fn begin(&mut self, from: From, parent: Option<Id>, told: Told) {
        let now = self.instant();
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let timeout = sidecar.route().timeout;
        let caller = CallerTimeout { shortest: told.time, ..CallerTimeout::default() };
        let deadline = Deadline::new(now, timeout, &caller, Exchange::Http);
        let route = sidecar.route();
        let by_caller =
            route.rate_limit.as_ref().is_some_and(|limit| limit.settings.by != RateLimitBy::Route);
        let told_apart = by_caller || !route.hash.is_empty();
        let who = if told_apart { self.chance.policy.get_mut().below(CALLERS) } else { 0 };
        let key = (!route.hash.is_empty()).then(|| Key::of(&who.to_le_bytes()));
        let limited = route.rate_limit.as_ref().is_some_and(|limit| {
            let taken = limit.limiter.take(spread(who), now);
            taken.verdict != Verdict::Admitted
        });
        if !limited {
            sidecar.workers[from.worker].budget.deposit(now);
        }
        let request = self.requests.insert(Request {
            from,
            started: self.now,
            deadline,
            tried: Tried::new(),
            key,
            attempts: 0,
            resent_once: false,
            above: told.depth,
            ran: 0,
            wanted: false,
            suppressed: None,
            race: None,
            parent,
            pending: None,
            waits_until: 0,
        });
        match limited {
            true => self.fail(request, Reason::RateLimited),
            false => self.proceed(request),
        }
    }

    /// The head of the loop of attempts.
    pub(super) fn proceed(&mut self, id: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get(id) else { return };
        let from = request.from;
        if request.deadline.expired(now) {
            let reason =
                if request.attempts == 0 { Reason::DeadlineExpired } else { Reason::Timeout };
            return self.fail(id, reason);
        }
        // A place first: what waits in our own queue is no concern of the endpoint's.
        let sidecar = &self.hops[from.hop].sidecars[from.sidecar];
        let pass = match sidecar.upstream.gate.admit(&self.chance.policy) {
            Ok(pass) => pass,
            Err(reason) => return self.fail(id, reason),
        };
        let others_wait = !sidecar.workers[from.worker].queue.is_empty();
        let permit = if others_wait { None } else { sidecar.upstream.limits.try_in_flight() };
        match permit {
            Some(permit) => self.attempt(id, pass, permit, now),
            None => self.wait(id, now),
        }
    }

    /// Waits for a place as long as the upstream's `queue` and the deadline allow.
    fn wait(&mut self, id: Id, now: Instant) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let queue = sidecar.upstream.policy.queue;
        let pending = if queue.is_zero() { None } else { sidecar.upstream.limits.try_pending() };
        let Some(pending) = pending else { return self.fail(id, Reason::LimitReached) };
        request.pending = Some(pending);
        sidecar.workers[from.worker].queue.push_back(id);
        let until = now + queue;
        let until = request.deadline.overall.map_or(until, |deadline| deadline.min(until));
        let at = nanos(until.saturating_duration_since(self.base));
        request.waits_until = at;
        self.waiting += 1;
        self.events.timer(Line::Queue, at, What::WaitedEnough(id));
    }

    /// Waiting is over without a place.
    pub(super) fn waited_enough(&mut self, id: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get_mut(id) else { return };
        if request.pending.is_none() || request.waits_until != self.now {
            // The timer of a wait that has ended.
            return;
        }
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let expired = request.deadline.expired(now);
        request.pending = None;
        self.waiting -= 1;
        sidecar.workers[from.worker].queue.retain(|waiting| *waiting != id);
        self.fail(id, if expired { Reason::Timeout } else { Reason::QueueTimeout });
    }

    /// Gives up to `most` of those who wait at a worker the places that are free.
    pub(super) fn wake(&mut self, from: From, most: usize) {
        for _ in 0..most {
            let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
            let Some(first) = sidecar.workers[from.worker].queue.front().copied() else { return };
            let entered = match sidecar.upstream.gate.pass() {
                Ok(pass) => sidecar.upstream.limits.try_in_flight().map(|place| Ok((pass, place))),
                Err(reason) => Some(Err(reason)),
            };
            let Some(entered) = entered else { return };
            sidecar.workers[from.worker].queue.pop_front();
            self.waiting -= 1;
            if let Some(request) = self.requests.get_mut(first) {
                request.pending = None;
            }
            let now = self.instant();
            match entered {
                Ok((pass, permit)) => self.attempt(first, pass, permit, now),
                Err(reason) => self.fail(first, reason),
            }
        }
    }

    /// Picks an endpoint and sends the request to it.
    fn attempt(&mut self, id: Id, pass: Pass, permit: Permit, now: Instant) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let endpoints = sidecar.upstream.endpoints();
        let picked = sidecar.upstream.balancer.pick_for(
            request.key,
            &endpoints,
            &request.tried,
            now,
            self.chance.policy.get_mut(),
        );
        let Some(picked) = picked else {
            let reason = sidecar.upstream.nothing_to_pick().reason;
            drop(endpoints);
            return self.fail(id, reason);
        };
        drop(endpoints);
        request.tried.note(picked.endpoint().id);
        request.wanted = false;
        request.attempts += 1;
        if let Some(first) = self.launch(id, picked, pass, permit, now) {
            self.arm(id, first);
        }
    }

    /// Starts an attempt at what was picked.
    pub(super) fn launch(
        &mut self,
        id: Id,
        mut picked: Picked,
        pass: Pass,
        permit: Permit,
        now: Instant,
    ) -> Option<Id> {
        let request = self.requests.get(id)?;
        let from = request.from;
        let sidecar = &self.hops[from.hop].sidecars[from.sidecar];
        let guard = picked.start(now);
        let endpoint = picked.endpoint();
        let server = number(&endpoint.address);
        let connect_timeout = nanos(sidecar.upstream.connect_timeout(endpoint));
        let told = Told {
            time: request.deadline.remaining(now),
            depth: match request.ran {
                0 => request.above,
                ran => request.above.of_next_attempt(ran),
            },
        };
        let kept = nanos(sidecar.upstream.policy.pool.kept());
        let bound = request.deadline.of_attempt(sidecar.route().retry.per_try, now);
        let idle = sidecar.route().idle.and_then(|idle| now.checked_add(idle));
        let life = self.hops[from.hop].servers[server].life;
        let pool =
            &mut self.hops[from.hop].sidecars[from.sidecar].workers[from.worker].pools[server];
        if pool.life != life {
            // The peer has closed them, and the sidecar has seen it.
            pool.idle.clear();
            pool.life = life;
        }
        let reused = !request.resent_once
            && pool.idle.pop().is_some_and(|since| {
                // All others have been unused for longer.
                let fresh = self.now - since < kept;
                if !fresh {
                    pool.idle.clear();
                }
                fresh
            });
        let attempt = self.attempts.insert(Attempt {
            request: id,
            guard,
            pass,
            _permit: permit,
            server,
            life,
            sent: reused,
            reused,
            started: self.now,
            told,
            answer: Answer::None,
        });
        self.record_attempt(from.hop, server);
        self.start_timer(attempt, bound.into_iter().chain(idle).min());
        let hop = &self.hops[from.hop];
        if reused {
            self.send(from.hop, attempt);
        } else {
            let unreachable = hop.servers[server].condition.unreachable;
            let takes = if unreachable { connect_timeout } else { hop.rtt };
            self.events.at(self.now + takes, What::Connected(attempt));
        }
        Some(attempt)
    }

    fn record_attempt(&mut self, hop: usize, server: usize) {
        self.record.first_hop += u64::from(hop == 0);
        if hop == self.last_hop() {
            self.record.attempt(self.now, server);
        }
    }

    fn send(&mut self, hop: usize, id: Id) {
        let Some(attempt) = self.attempts.get(id) else { return };
        let (server, life, told) = (attempt.server, attempt.life, attempt.told);
        let job = self.jobs.insert(Job { attempt: id, hop, server, life, told });
        self.events.at(self.now + self.hops[hop].rtt / 2, What::Reached(job));
    }

    /// A connection stands, was refused, or took too long.
    pub(super) fn connected(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let Some(request) = self.requests.get(attempt.request) else { return };
        let from = request.from;
        let server = &self.hops[from.hop].servers[attempt.server];
        let is = server.condition;
        let upstream = &self.hops[from.hop].sidecars[from.sidecar].upstream;
        let timeout = nanos(upstream.connect_timeout(attempt.guard.endpoint()));
        let left = (attempt.started + timeout).saturating_sub(self.now);
        if is.unreachable && left > 0 {
            // The network broke while it was being made.
            return self.events.at(self.now + left, What::Connected(id));
        }
        if is.unreachable || !is.up || left == 0 {
            return self.ended(id, End::failed(AttemptEnd::NotSent, Reason::ConnectFailed));
        }
        attempt.life = server.life;
        attempt.sent = true;
        self.send(from.hop, id);
    }

    /// An answer, or the end of the connection, comes back.
    pub(super) fn answered(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get(id) else { return };
        let end = match attempt.answer {
            Answer::None => return,
            Answer::Status(status, below) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                let end = AttemptEnd::Response { status, grpc_status: None };
                End { end, reason: None, below }
            }
            Answer::Reset if attempt.reused => {
                End::failed(AttemptEnd::KeepAliveRace, Reason::UpstreamClosed)
            }
            Answer::Reset => End::failed(AttemptEnd::Reset, Reason::UpstreamReset),
        };
        self.ended(id, end);
    }

    /// An attempt has taken too long.
    pub(super) fn overdue(&mut self, id: Id) {
        let now = self.instant();
        let Some(attempt) = self.attempts.get(id) else { return };
        let Some(request) = self.requests.get(attempt.request) else { return };
        let route = self.hops[request.from.hop].sidecars[request.from.sidecar].route();
        let per_try = route.retry.per_try.map(nanos);
        let end = if request.deadline.expired(now) {
            End::failed(AttemptEnd::Final, Reason::Timeout)
        } else if per_try.is_none_or(|per_try| self.now < attempt.started + per_try) {
            End::failed(AttemptEnd::Final, Reason::StreamIdle)
        } else if attempt.sent {
            End::failed(AttemptEnd::PerTryTimeout, Reason::PerTryTimeout)
        } else {
            End::failed(AttemptEnd::NotSent, Reason::ConnectFailed)
        };
        self.ended(id, end);
    }
}

/// A number as a hash of it would be, the same in each run: keys of a limit are hashes.
fn spread(number: usize) -> u64 {
    (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
