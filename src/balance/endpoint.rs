//! An endpoint's live state: what all workers know of it.
//!
//! # May it be picked?
//!
//! One packed word ([`super::standing`]) says it; a pick reads it with one load, and nobody else decides.
//!
//! - *Health* is what active checks say: [`Endpoint::set_health`], [`Endpoint::health`]. `Unhealthy` is skipped, unless the
//!   upstream is in panic. `Unknown`, the state of every endpoint without checks, counts as healthy. `Unproven`, the state
//!   before the first check has ended, is picked only while no other is available.
//! - *Ejection* is what outlier detection says. An ejected endpoint is skipped, in panic too; when its time has passed, one
//!   request (a first attempt, never a retry) is let through as its probe.
//! - *Slow start* begins by itself where an endpoint joins others, returns from ejection, or becomes healthy again.
//!
//! Panic belongs to the set: after a change of health call `Upstream::review`, which counts and publishes it. The control
//! tick does it as well, so that a forgotten call costs a moment and no more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::key;
use super::peak_ewma::PeakEwma;
use super::picked::ProbePermit;
use super::standing::Standing;
pub use super::standing::{Ejection, Health};
use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;
use crate::policy::classify::Outcome;
use crate::policy::outlier::{Signal, Streaks};

/// What a "too much" counts as instead of its latency, and the most that a failure counts as beyond its own.
///
/// An endpoint that refuses answers faster than one that works, and would attract the traffic of all others. Linkerd
/// does the same for 429 and RESOURCE_EXHAUSTED.
const PENALTY: Duration = Duration::from_secs(5);

/// Failures in a row that leave the latency estimate where it is; each beyond doubles it.
///
/// As many as eject by default: up to here ejection decides, beyond, it was not allowed to.
const HELD: u32 = 5;

/// What each failure of a row multiplies the estimate by, when a success ends the row.
///
/// Where the cheaper of two always wins, a dearer one is out until it has decayed: for `10 s × ln factor`. 1.1 costs an endpoint
/// a second for each failure, so that one that fails now and then is left with about a failure a second; 5 s in place of 20 ms,
/// which Linkerd's 429 costs, would be 55 s for one lone 500. Figures: `docs/policies/balancing.md`.
const DEARER: f64 = 1.1;

/// One address of an upstream, shared by all workers and carried from set to set.
///
/// Its numbers are atomics with `Relaxed` ordering: each is exact by itself, none guards other memory.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique within the process, never used again: an address that leaves and returns is a new endpoint.
    pub id: u64,
    /// Where it is reached.
    pub address: Address,
    /// A hash of the address, the same in every process.
    pub(super) hash: u64,
    /// Where it stands.
    pub zone: Option<String>,
    /// What `subset` selects by.
    pub labels: BTreeMap<String, String>,
    /// Since when it is known.
    pub since: Instant,
    in_flight: AtomicU32,
    /// Where the upstream's requests in flight are counted, if they are: for the bound of `ring_hash`.
    total: OnceLock<Arc<AtomicU32>>,
    pub(super) standing: Standing,
    latency: PeakEwma,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Failures since the last success, of all kinds.
    failed_in_row: AtomicU32,
    /// Failures in a row, see [`Streaks`].
    streaks: AtomicU64,
    /// Of this interval: successes in the lower half, failures in the upper.
    tally: AtomicU64,
    retired: AtomicBool,
    /// The last that is known of it: no connection could be made.
    unreachable: AtomicBool,
}

impl Endpoint {
    /// An endpoint that nothing is known about yet.
    pub fn new(spec: &EndpointSpec, now: Instant) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address: spec.address.clone(),
            hash: key::place(&key::name(&spec.address), 0),
            zone: spec.zone.clone(),
            labels: spec.labels.clone(),
            since: now,
            in_flight: AtomicU32::new(0),
            total: OnceLock::new(),
            standing: Standing::new(now),
            latency: PeakEwma::new(now),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failed_in_row: AtomicU32::new(0),
            streaks: AtomicU64::new(0),
            tally: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
        }
    }

    /// Counts an attempt that starts now, outside of any pick; it is in flight until the guard ends.
    pub fn start(self: &Arc<Self>, now: Instant) -> EndpointGuard {
        EndpointGuard::of(self, None, now)
    }

    /// What active checks say of it.
    pub fn health(&self) -> Health {
        self.standing.load().health
    }

    /// Notes what active checks say; true where that is something else than before. See the head of this file.
    pub fn set_health(&self, health: Health, now: Instant) -> bool {
        self.standing.check(health, now) != health
    }

    /// What outlier detection says of it.
    pub fn ejection(&self) -> Ejection {
        self.standing.load().ejection
    }

    /// Neither unhealthy nor unproven nor ejected.
    pub fn is_available(&self) -> bool {
        self.standing.load().is_available()
    }

    /// Attempts that have started and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Attempts that ever started.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Attempts that ended in [`Outcome::Failure`].
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The latency estimate, decayed to `now`.
    pub fn latency(&self, now: Instant) -> Duration {
        Duration::from_secs_f64(self.latency_nanos(now) / 1e9)
    }

    /// True where the last that is known of it is that no connection could be made: a request that is sent again goes
    /// elsewhere.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Learns from how an attempt ended whether it can be reached. Written only where it changes: all workers share the line.
    pub fn learn_reach(&self, signal: Signal) {
        let unreachable = signal == Signal::LocalOrigin;
        if self.is_unreachable() != unreachable {
            self.unreachable.store(unreachable, Ordering::Relaxed);
        }
    }

    /// True where it is in no set any more: its connections take no further request.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Counts its attempts in `total` as well, from the next on. The first call counts.
    pub(super) fn count_in(&self, total: &Arc<AtomicU32>) {
        let _known = self.total.set(Arc::clone(total));
    }

    pub(super) fn latency_nanos(&self, now: Instant) -> f64 {
        self.latency.read(now)
    }

    /// A success has ended a row of failures: each of them costs. Not where the estimate is beyond [`PENALTY`] already: rows
    /// that follow each other faster than it decays would raise it without end.
    fn end_row(&self, now: Instant) {
        let row = self.failed_in_row.swap(0, Ordering::Relaxed).min(HELD);
        let dearer = DEARER.powf(f64::from(row));
        self.raise(dearer, now);
    }

    /// Multiplies the latency estimate, up to [`PENALTY`]: however fast failures come, it is bounded.
    fn raise(&self, factor: f64, now: Instant) {
        let estimate = self.latency(now);
        let most = PENALTY.max(estimate).as_secs_f64();
        let raised = (estimate.as_secs_f64() * factor).min(most);
        self.latency.observe(Duration::from_secs_f64(raised), now);
    }

    /// Continues or ends its failures in a row.
    pub(super) fn streak(&self, signal: Signal) -> Streaks {
        if signal == Signal::Success {
            self.forget_streak();
            return Streaks::default();
        }
        let next = |word| Streaks::unpack(word).after(signal);
        let update = |word| Some(next(word).pack());
        // Always changed: the closure never says no.
        let before = self.streaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        next(before.unwrap_or_else(|word| word))
    }

    /// Nothing has failed in a row. Written only where it says otherwise: the line is shared by all workers.
    pub(super) fn forget_streak(&self) {
        if self.streaks.load(Ordering::Relaxed) != 0 {
            self.streaks.store(0, Ordering::Relaxed);
        }
    }

    /// Counts an answer, or the lack of one. Failed connects and refusals are no answers.
    pub(super) fn tally(&self, signal: Signal) {
        let one = match signal {
            Signal::Success => 1,
            Signal::Failure | Signal::Gateway => 1 << 32,
            Signal::LocalOrigin | Signal::Refused => return,
        };
        self.tally.fetch_add(one, Ordering::Relaxed);
    }

    /// Successes and failures since the last time.
    #[expect(clippy::cast_possible_truncation, reason = "each is half of the word")]
    pub(super) fn take_tally(&self) -> (u32, u32) {
        let tally = self.tally.swap(0, Ordering::Relaxed);
        (tally as u32, (tally >> 32) as u32)
    }

    /// It is in no set any more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// True where `spec` names this endpoint; the weight belongs to the set.
    pub(super) fn matches(&self, spec: &EndpointSpec) -> bool {
        self.address == spec.address && self.zone == spec.zone && self.labels == spec.labels
    }
}

/// An attempt in flight at an endpoint.
///
/// Say what came of it, once, with one of the `settle` methods; and before, when the response's head has arrived
/// ([`EndpointGuard::answered`]): a long body is no slow endpoint. A guard that is merely dropped teaches nothing about latency. An endpoint that
/// hangs until its callers leave is learned only from [`Outcome::Cancelled`], so say it where a request is cut off.
#[derive(Debug)]
#[must_use = "dropping it ends the attempt at once"]
pub struct EndpointGuard {
    endpoint: Arc<Endpoint>,
    started: Instant,
    /// From its start to the head of its answer, where that came before it is settled.
    answered_after: Option<Duration>,
    /// This attempt is the probe of an ejected endpoint.
    pub(super) probe: Option<ProbePermit>,
    /// It is counted in the upstream's total.
    counted: bool,
}

impl EndpointGuard {
    pub(super) fn of(
        endpoint: &Arc<Endpoint>,
        probe: Option<ProbePermit>,
        started: Instant,
    ) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.requests.fetch_add(1, Ordering::Relaxed);
        let total = endpoint.total.get();
        if let Some(total) = total {
            total.fetch_add(1, Ordering::Relaxed);
        }
        let counted = total.is_some();
        let endpoint = Arc::clone(endpoint);
        Self { endpoint, started, answered_after: None, probe, counted }
    }

    /// The head of its answer has come: whenever it is settled, its latency ends here.
    pub fn answered(&mut self, now: Instant) {
        self.answered_after = Some(now.saturating_duration_since(self.started));
    }

    /// It is the one request that is let through to an ejected endpoint.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    fn took(&self, now: Instant) -> Duration {
        self.answered_after.unwrap_or_else(|| now.saturating_duration_since(self.started))
    }

    /// Where the attempt went.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Learns from what came of the attempt; it stays in flight until the guard is dropped.
    ///
    /// Success counts with its latency. A failure never lowers the estimate: it counts with its own latency or the estimate,
    /// whichever is more; from the sixth in a row on with twice the estimate, up to 5 s. The success after a row of failures
    /// raises the estimate by a tenth for each. A cancelled attempt took *at least* its time so far: it may raise the estimate, never lower it. A local failure says nothing.
    pub fn settle(&self, outcome: Outcome, now: Instant) {
        let took = self.took(now);
        match outcome {
            Outcome::Success => {
                if self.endpoint.failed_in_row.load(Ordering::Relaxed) != 0 {
                    self.endpoint.end_row(now);
                }
                self.endpoint.latency.observe(took, now);
            }
            Outcome::Failure => {
                self.endpoint.failures.fetch_add(1, Ordering::Relaxed);
                let before = self.endpoint.failed_in_row.fetch_add(1, Ordering::Relaxed);
                self.endpoint.raise(if before < HELD { 1.0 } else { 2.0 }, now);
                self.endpoint.latency.observe_at_least(took, now);
            }
            Outcome::Cancelled => self.endpoint.latency.observe_at_least(took, now),
            Outcome::LocalFailure => {}
        }
    }

    /// Forgets every latency but this attempt's: it is the probe that has brought the endpoint back.
    pub(super) fn restart_latency(&self, now: Instant) {
        let took = self.took(now);
        self.endpoint.latency.restart(took, now);
    }

    /// Learns from an answer that says "too much" (429, RESOURCE_EXHAUSTED): no failure, but it counts as 5 s.
    pub fn settle_overloaded(&self, now: Instant) {
        let took = self.took(now);
        self.endpoint.latency.observe(took.max(PENALTY), now);
    }
}

impl Drop for EndpointGuard {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(total) = self.endpoint.total.get().filter(|_| self.counted) {
            total.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoint(now: Instant) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(&EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], 80))), now))
    }

    fn after(outcome: Outcome, took: Duration) -> Duration {
        let now = Instant::now();
        let endpoint = endpoint(now);
        endpoint.start(now).settle(outcome, now + took);
        assert_eq!((endpoint.in_flight(), endpoint.requests()), (0, 1));
        assert_eq!(endpoint.failures(), u64::from(outcome == Outcome::Failure));
        endpoint.latency(now + took)
    }

    #[test]
    fn ids_are_unique() {
        let now = Instant::now();
        assert_ne!(endpoint(now).id, endpoint(now).id);
    }

    #[test]
    fn an_attempt_is_in_flight_until_its_guard_ends() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let (first, second) = (endpoint.start(now), endpoint.start(now));
        assert_eq!(endpoint.in_flight(), 2);
        drop(first);
        assert_eq!(endpoint.in_flight(), 1);
        second.settle(Outcome::Success, now);
        assert_eq!(endpoint.in_flight(), 1);
        drop(second);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn a_dropped_guard_teaches_nothing() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let before = endpoint.latency(now);
        drop(endpoint.start(now));
        assert_eq!(endpoint.latency(now), before);
    }

    #[test]
    fn a_failure_never_lowers_the_estimate_and_a_slow_one_raises_it() {
        let close = |actual: Duration, millis: u64| {
            actual.abs_diff(Duration::from_millis(millis)) < Duration::from_millis(1)
        };
        assert!(close(after(Outcome::Failure, Duration::from_millis(1)), 30));
        assert!(close(after(Outcome::Failure, Duration::from_secs(9)), 9_000));
        assert!(close(after(Outcome::Success, Duration::from_secs(2)), 2_000));
    }

    #[test]
    fn failures_and_successes_in_turn_do_not_raise_the_estimate_without_end() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        for _ in 0..10_000 {
            endpoint.start(now).settle(Outcome::Failure, now);
            endpoint.start(now).settle(Outcome::Success, now);
        }
        assert!(endpoint.latency(now) <= PENALTY.mul_f64(1.7));
    }

    #[test]
    fn failures_beyond_the_fifth_in_a_row_double_the_estimate_up_to_five_seconds() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let fail = || {
            endpoint.start(now).settle(Outcome::Failure, now);
            endpoint.latency(now).as_millis()
        };
        let estimates: Vec<_> = (0..15).map(|_| fail()).collect();
        let expected =
            [30, 30, 30, 30, 30, 60, 120, 240, 480, 960, 1_920, 3_840, 5_000, 5_000, 5_000];
        let near = |(seen, due): (&u128, u128)| seen.abs_diff(due) <= 1;
        assert!(estimates.iter().zip(expected).all(near), "{estimates:?}");
    }

    #[test]
    fn the_success_after_a_row_of_failures_raises_the_estimate_by_a_tenth_for_each() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let settle = |outcome| {
            endpoint.start(now).settle(outcome, now);
            endpoint.latency(now).as_micros()
        };
        let estimates =
            [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure].map(settle);
        let near = |(seen, due): (u128, u128)| seen.abs_diff(due) <= 5;
        assert!(
            estimates.into_iter().zip([30_000, 30_000, 36_300, 36_300]).all(near),
            "{estimates:?}"
        );
    }

    #[test]
    fn however_often_failures_and_successes_alternate_the_estimate_is_bounded() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        for turn in 0..10_000 {
            let outcome = if turn % 3 == 0 { Outcome::Success } else { Outcome::Failure };
            endpoint.start(now).settle(outcome, now);
            assert!(endpoint.latency(now) <= PENALTY + Duration::from_millis(1));
        }
        assert!(endpoint.latency(now) > Duration::from_secs(4));
    }

    #[test]
    fn an_overloaded_endpoint_is_penalised_without_having_failed() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        endpoint.start(now).settle_overloaded(now);
        assert!(endpoint.latency(now) > Duration::from_millis(4_999));
        assert_eq!(endpoint.failures(), 0);
    }

    #[test]
    fn a_cancelled_attempt_may_raise_the_estimate_but_not_lower_it() {
        assert!(after(Outcome::Cancelled, Duration::from_secs(3)) > Duration::from_millis(2_999));
        assert!(after(Outcome::Cancelled, Duration::from_millis(1)) > Duration::from_millis(29));
    }

    #[test]
    fn a_local_failure_says_nothing_about_the_endpoint() {
        assert!(after(Outcome::LocalFailure, Duration::from_secs(3)) < Duration::from_millis(31));
    }
}
