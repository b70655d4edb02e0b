//! A second attempt raced against a slow first one, as `proxy::hedge` has it.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::classify::{Outcome, is_overload};
use crate::policy::retry::AttemptEnd;

use super::ended::End;
use super::events::What;
use super::faults::nanos;
use super::slab::Id;
use super::state::Race;
use super::world::World;

impl World {
    /// Notes the first attempt of a request, and when it will count as slow.
    pub(super) fn arm(&mut self, id: Id, first: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = request.from;
        let route = self.hops[from.hop].sidecars[from.sidecar].route();
        let Some(hedging) = route.hedging.as_ref().filter(|_| request.attempts == 1) else {
            return;
        };
        let delay = hedging.policy.delay(now);
        request.race = Some(Race { first, started: self.now, second: None, bad: None });
        if let Some(delay) = delay {
            self.events.at(self.now + nanos(delay), What::Slow(id));
        }
    }

    /// Starts a second attempt, where the first is still under way, there is a place and another endpoint, and the budget
    /// pays.
    pub(super) fn hedge(&mut self, id: Id) {
        let now = self.instant();
        let Some(request) = self.requests.get(id) else { return };
        let is_racing =
            |race: &Race| race.second.is_none() && self.attempts.get(race.first).is_some();
        if !request.race.as_ref().is_some_and(is_racing) {
            return;
        }
        let from = request.from;
        let sidecar = &mut self.hops[from.hop].sidecars[from.sidecar];
        let upstream = &sidecar.upstream;
        let Ok(pass) = upstream.gate.admit(&self.chance.policy) else { return };
        let worker = &mut sidecar.workers[from.worker];
        if !worker.queue.is_empty() {
            return;
        }
        let Some(permit) = upstream.limits.try_in_flight() else { return };
        let rng = self.chance.policy.get_mut();
        let picked = {
            let endpoints = upstream.endpoints();
            upstream.balancer.pick_for(request.key, &endpoints, &request.tried, now, rng)
        };
        let another = picked.filter(|picked| !request.tried.contains(picked.endpoint().id));
        let Some(picked) = another.filter(|_| worker.budget.try_withdraw(now)) else { return };
        let endpoint = picked.endpoint().id;
        let second = self.launch(id, picked, pass, permit, now);
        let Some(request) = self.requests.get_mut(id) else { return };
        request.attempts += 1;
        if let Some(race) = &mut request.race {
            race.second = second.map(|second| (second, endpoint));
        }
    }

    /// What an attempt that has ended means for its request; `None`: it waits for the other. The first good answer wins, and
    /// the other attempt is cancelled. Of two that are bad, any answer is better than none, and the first attempt's than the
    /// second's.
    pub(super) fn raced(&mut self, id: Id, attempt: Id, how: End) -> Option<End> {
        let now = self.instant();
        let Some(request) = self.requests.get_mut(id) else { return Some(how) };
        let Some(race) = &mut request.race else { return Some(how) };
        let is_first = race.first == attempt;
        let Some((second, endpoint)) = race.second else {
            let started = race.started;
            request.race = None;
            self.learn(id, started, how.reason.is_none());
            return Some(how);
        };
        let (first, started) = (race.first, race.started);
        let bad = race.bad.take();
        let (won_by_first, how, loser) = match bad {
            _ if is_good(how) => (is_first, how, bad),
            None => {
                race.bad = Some(how);
                return None;
            }
            Some(other) => {
                let other_is_better = match (how.reason, other.reason) {
                    (None, Some(_)) => false,
                    (Some(_), None) => true,
                    _ => !is_first,
                };
                if other_is_better {
                    (!is_first, other, Some(how))
                } else {
                    (is_first, how, Some(other))
                }
            }
        };
        request.race = None;
        request.tried.note(endpoint);
        request.ran += u32::from(loser.is_some_and(|loser| loser.end.may_have_run()));
        // Where the first was cancelled, it took at least this long.
        let learns = if won_by_first { how.reason.is_none() } else { loser.is_none() };
        self.learn(id, started, learns);
        if loser.is_none() {
            self.cancel(if is_first { second } else { first }, now);
        }
        Some(how)
    }

    /// Notes how long a first attempt has taken.
    fn learn(&self, id: Id, started: u64, learns: bool) {
        let Some(request) = self.requests.get(id).filter(|_| learns) else { return };
        let route = self.hops[request.from.hop].sidecars[request.from.sidecar].route();
        if let Some(hedging) = &route.hedging {
            hedging.policy.record(Duration::from_nanos(self.now - started));
        }
    }

    /// Gives an attempt up. Its server goes on working.
    fn cancel(&mut self, id: Id, now: Instant) {
        if let Some(attempt) = self.attempts.remove(id) {
            attempt.guard.settle(Outcome::Cancelled, now);
        }
    }
}

fn is_good(how: End) -> bool {
    let AttemptEnd::Response { status, .. } = how.end else { return false };
    Outcome::of_response(status, None) == Outcome::Success && !is_overload(status, None)
}
