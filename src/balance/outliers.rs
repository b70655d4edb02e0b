//! Outlier detection on live endpoints: who is ejected, who is probed, who returns.
//!
//! The numbers are [`OutlierPolicy`]'s; here they meet the atomics. A worker that sees one failure too many ejects the
//! endpoint itself, by compare-and-swap: waiting for the control thread would cost the callers of another second. The
//! control thread compares success rates, forgives, and takes back what may not stay (an ejection that has become one too
//! many because other endpoints left).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Endpoint, EndpointGuard};
use super::endpoint_set::EndpointSet;
use super::standing::{Ejection, Health, State, millis};
use crate::base::rng::Rng;
use crate::policy::outlier::{Cause, INTERVAL, OutlierPolicy, Signal};

/// The outlier detection of one upstream, shared by all workers.
///
/// Invariants, whatever the threads do: at most [`OutlierPolicy::most_ejected`] of a set are ejected by it; an ejection
/// leaves another endpoint to pick; at most one probe of an endpoint is under way.
#[derive(Debug)]
pub struct Outliers {
    policy: OutlierPolicy,
    /// Someone counts and decides. Nobody waits for it: who finds it taken leaves the decision to the next failure, or tick.
    deciding: AtomicBool,
}

/// Something an operator wants to know of.
#[derive(Debug)]
pub struct Change {
    /// Whose.
    pub endpoint: Arc<Endpoint>,
    /// What.
    pub what: ChangeKind,
}

/// What has become of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Out of traffic; or, not enforced, it would be.
    Ejected {
        /// Why.
        cause: Cause,
        /// For how long, before one request probes it.
        time: Duration,
        /// Ejections in a row.
        times: u8,
    },
    /// Its probe succeeded.
    Returned,
    /// Taken back: it would be one too many, or nothing else is left.
    Relieved,
}

/// The right to decide; its drop passes it on.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What a decision counts.
#[derive(Debug, Default)]
struct Tally {
    /// The endpoint that it is about is one of the set.
    member: bool,
    ejected: usize,
    /// To pick from, without the endpoint that it is about.
    others: usize,
}

impl Outliers {
    /// Nothing noted yet.
    pub fn new(policy: OutlierPolicy) -> Self {
        Self { policy, deciding: AtomicBool::new(false) }
    }

    /// The rules.
    pub fn policy(&self) -> &OutlierPolicy {
        &self.policy
    }

    /// Takes in how an attempt ended. On a worker; two loads and an addition where all is well.
    pub fn note(
        &self,
        set: &EndpointSet,
        guard: &EndpointGuard,
        signal: Signal,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Change> {
        let endpoint = guard.endpoint();
        if self.policy.success_rate.is_some() {
            endpoint.tally(signal);
        }
        if let Some(permit) = &guard.probe {
            let change = self.settle(endpoint, Ejection::Probing, permit.epoch(), signal, now, rng);
            if matches!(&change, Some(Change { what: ChangeKind::Returned, .. })) {
                // What it took while it failed says nothing about what it takes now.
                guard.restart_latency(now);
            }
            return change;
        }
        if !endpoint.standing.is_plain() {
            let state = endpoint.standing.load();
            match state.ejection {
                // Sent before it was ejected: known already.
                Ejection::Ejected | Ejection::Probing => return None,
                // What would be its probe.
                Ejection::Shadow if state.at <= endpoint.standing.clock(now) => {
                    let signal = if signal == Signal::Refused { return None } else { signal };
                    return self.settle(endpoint, Ejection::Shadow, state.epoch, signal, now, rng);
                }
                Ejection::Shadow => return None,
                Ejection::In => {}
            }
        }
        let streaks = endpoint.streak(signal);
        let cause = self.policy.too_long(streaks).filter(|_| signal != Signal::Success)?;
        let decided = self.decide(set, endpoint, cause, now, rng)?;
        endpoint.forget_streak();
        decided
    }

    /// Ends a probe: back into traffic, or out again for longer.
    fn settle(
        &self,
        endpoint: &Arc<Endpoint>,
        from: Ejection,
        epoch: u16,
        signal: Signal,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Change> {
        let standing = &endpoint.standing;
        let clock = standing.clock(now);
        let ours = |state: &State| state.ejection == from && state.epoch == epoch;
        let what = if signal == Signal::Success {
            standing.update(|state| ours(&state).then(|| state.returned(clock)))?;
            ChangeKind::Returned
        } else {
            let to = if from == Ejection::Shadow { from } else { Ejection::Ejected };
            self.out(endpoint, to, Cause::Probe, now, rng, ours)?
        };
        endpoint.forget_streak();
        Some(Change { endpoint: Arc::clone(endpoint), what })
    }

    /// Ejects `endpoint` where that is allowed. `None`: somebody else decides at this moment; `Some(None)`: not allowed.
    fn decide(
        &self,
        set: &EndpointSet,
        endpoint: &Arc<Endpoint>,
        cause: Cause,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Option<Change>> {
        let _turn = self.turn()?;
        let tally = self.count(set, Some(endpoint.id));
        let total = set.len();
        if !tally.member || !self.policy.may_eject(total, tally.ejected, tally.others) {
            return Some(None);
        }
        let to = if self.policy.enforce { Ejection::Ejected } else { Ejection::Shadow };
        let is_in = |state: &State| state.ejection == Ejection::In;
        let what = self.out(endpoint, to, cause, now, rng, is_in);
        Some(what.map(|what| Change { endpoint: Arc::clone(endpoint), what }))
    }

    fn out(
        &self,
        endpoint: &Endpoint,
        to: Ejection,
        cause: Cause,
        now: Instant,
        rng: &mut Rng,
        allowed: impl Fn(&State) -> bool,
    ) -> Option<ChangeKind> {
        let (random, clock) = (rng.fraction(), endpoint.standing.clock(now));
        let most = self.policy.most_times();
        let next = |state: State| state.times.saturating_add(1).min(most);
        let time = |times| self.policy.ejection_time(times, random);
        let (_, state) = endpoint.standing.update(|state| {
            let times = next(state);
            allowed(&state).then(|| state.ejected(to, times, clock + millis(time(times))))
        })?;
        Some(ChangeKind::Ejected { cause, time: time(state.times), times: state.times })
    }

    fn turn(&self) -> Option<Turn<'_>> {
        let free =
            self.deciding.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        free.ok().map(|_| Turn(&self.deciding))
    }

    fn count(&self, set: &EndpointSet, about: Option<u64>) -> Tally {
        let mut tally = Tally::default();
        for member in set.members() {
            let state = member.endpoint.standing.load();
            // Not enforced, those count that would be ejected.
            let out = state.ejection != Ejection::In;
            tally.ejected += usize::from(out);
            if about == Some(member.endpoint.id) {
                tally.member = true;
            } else {
                tally.others += usize::from(!out && state.is_available());
            }
        }
        tally
    }

    /// Takes ejections back that may not stay: one too many for a set that has become smaller, or the last to pick from. The
    /// one that would end first comes back first. After every change of the set or of an endpoint's health.
    pub fn relieve(&self, set: &EndpointSet, now: Instant, changes: &mut Vec<Change>) {
        loop {
            let Some(_turn) = self.turn() else { return };
            let tally = self.count(set, None);
            let fits = tally.ejected <= self.policy.most_ejected(set.len());
            if tally.ejected == 0 || (fits && tally.others > 0) {
                return;
            }
            let out = set.members().iter().map(|member| &member.endpoint).filter(|endpoint| {
                let state = endpoint.standing.load();
                // One that is unhealthy as well would help nobody.
                state.ejection != Ejection::In && (!fits || state.health != Health::Unhealthy)
            });
            let Some(first) = out.min_by_key(|endpoint| endpoint.standing.load().at) else {
                return;
            };
            let clock = first.standing.clock(now);
            let is_out = |state: State| state.ejection != Ejection::In;
            let back = first.standing.update(|state| is_out(state).then(|| state.returned(clock)));
            if back.is_some() {
                let endpoint = Arc::clone(first);
                endpoint.forget_streak();
                changes.push(Change { endpoint, what: ChangeKind::Relieved });
            }
        }
    }

    /// Compares success rates, and forgives one ejection of each endpoint that has been in traffic for an interval. Once in
    /// [`INTERVAL`], on the control thread.
    pub fn judge(&self, set: &EndpointSet, now: Instant, rng: &mut Rng, changes: &mut Vec<Change>) {
        for member in set.members() {
            let standing = &member.endpoint.standing;
            let clock = standing.clock(now);
            let _nothing = standing.update(|state| {
                let calm = state.ejection == Ejection::In && clock >= state.at + millis(INTERVAL);
                (calm && state.times > 0).then(|| State { times: state.times - 1, ..state })
            });
        }
        let Some(rule) = self.policy.success_rate else { return };
        let mut rates: Vec<(f64, &Arc<Endpoint>)> = set
            .members()
            .iter()
            .filter_map(|member| {
                let (succeeded, failed) = member.endpoint.take_tally();
                let requests = succeeded.saturating_add(failed);
                let enough = requests >= rule.min_requests.max(1);
                let rate = f64::from(succeeded) / f64::from(requests.max(1));
                enough.then_some((rate, &member.endpoint))
            })
            .collect();
        let Some(bar) = rule.bar(rates.iter().map(|(rate, _)| *rate)) else { return };
        // The worst first: there may be room for one only.
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, endpoint) in rates.iter().take_while(|(rate, _)| *rate < bar) {
            let ejected = self.decide(set, endpoint, Cause::SuccessRate, now, rng);
            changes.extend(ejected.flatten());
        }
    }
}

#[cfg(test)]
mod tests;
