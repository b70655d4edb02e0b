use std::net::SocketAddr;
use std::sync::Barrier;

use super::*;
use crate::balance::{Balancer, Picked, Policy, Tried};
use crate::base::endpoint::EndpointSpec;
use crate::policy::outlier::{LONGEST, SuccessRate};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    set: EndpointSet,
    balancer: Balancer,
    outliers: Outliers,
    now: Instant,
    rng: Rng,
}

fn specs(ports: impl Iterator<Item = u16>) -> Vec<EndpointSpec> {
    ports.map(|port| EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))).collect()
}

impl Bench {
    fn new(size: u16, policy: OutlierPolicy) -> Self {
        let now = Instant::now();
        Self {
            set: EndpointSet::build(&specs(1..=size), None, now),
            balancer: Balancer::new(Policy::Random),
            outliers: Outliers::new(policy),
            now,
            rng: Rng::from_seed(5),
        }
    }

    fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        Arc::clone(&self.set.members()[index].endpoint)
    }

    fn note(&mut self, guard: &EndpointGuard, signal: Signal) -> Option<ChangeKind> {
        let change = self.outliers.note(&self.set, guard, signal, self.now, &mut self.rng);
        change.map(|change| change.what)
    }

    fn answer(&mut self, index: usize, signal: Signal) -> Option<ChangeKind> {
        let guard = self.endpoint(index).start(self.now);
        self.note(&guard, signal)
    }

    fn fail(&mut self, index: usize) -> Option<ChangeKind> {
        (0..5).find_map(|_| self.answer(index, Signal::Failure))
    }

    /// The probe of an endpoint that is due.
    fn probe(&mut self) -> Picked {
        loop {
            let picked = self.balancer.pick(&self.set, &Tried::new(), self.now, &mut self.rng);
            if let Some(picked) = picked.filter(Picked::is_probe) {
                return picked;
            }
        }
    }

    fn relieve(&self) -> Vec<ChangeKind> {
        let mut changes = Vec::new();
        self.outliers.relieve(&self.set, self.now, &mut changes);
        changes.into_iter().map(|change| change.what).collect()
    }

    fn judge(&mut self) -> Vec<ChangeKind> {
        let mut changes = Vec::new();
        self.outliers.judge(&self.set, self.now, &mut self.rng, &mut changes);
        changes.into_iter().map(|change| change.what).collect()
    }

    fn ejected(&self) -> usize {
        self.set.members().iter().filter(|m| m.endpoint.standing.load().is_ejected()).count()
    }

    fn check_invariants(&self) {
        let policy = self.outliers.policy();
        assert!(self.ejected() <= policy.most_ejected(self.set.len()), "too many are ejected");
        let states = self.set.members().iter().map(|m| m.endpoint.standing.load());
        let healthy = states.clone().any(|state| state.health != Health::Unhealthy);
        assert!(!healthy || states.clone().any(State::is_available), "nothing is left to pick");
        for (member, state) in self.set.members().iter().zip(states) {
            assert!(state.times <= policy.most_times());
            if state.is_ejected() {
                let until = member.endpoint.standing.instant(state.at);
                let left = until.saturating_duration_since(self.now);
                assert!(left <= LONGEST.mul_f64(1.2), "{left:?}");
            }
        }
    }
}

fn is_out(change: Option<ChangeKind>, cause: Cause, times: u8) -> bool {
    let Some(ChangeKind::Ejected { cause: why, time, times: in_a_row }) = change else {
        return false;
    };
    let least = 10 * SECOND * u32::from(times);
    why == cause && in_a_row == times && (least..=least.mul_f64(1.2)).contains(&time)
}

#[test]
fn the_fifth_failure_in_a_row_ejects() {
    let mut bench = Bench::new(3, OutlierPolicy::default());
    for _ in 0..4 {
        assert_eq!(bench.answer(1, Signal::Failure), None);
    }
    assert_eq!(bench.answer(1, Signal::Success), None);
    for _ in 0..4 {
        assert_eq!(bench.answer(1, Signal::Failure), None);
    }
    assert!(is_out(bench.answer(1, Signal::Failure), Cause::Consecutive, 1));
    assert_eq!(bench.endpoint(1).ejection(), Ejection::Ejected);
    assert_eq!(bench.fail(1), None, "what was sent before tells nothing more");
}

#[test]
fn a_probe_that_succeeds_brings_back_and_one_that_fails_ejects_for_longer() {
    let mut bench = Bench::new(3, OutlierPolicy::default());
    assert!(is_out(bench.fail(1), Cause::Consecutive, 1));
    bench.now += 12 * SECOND;
    let guard = bench.probe().start(bench.now);
    assert!(is_out(bench.note(&guard, Signal::LocalOrigin), Cause::Probe, 2));
    bench.now += 24 * SECOND;
    let guard = bench.probe().start(bench.now);
    let asked = bench.now;
    bench.now += SECOND / 50;
    assert_eq!(bench.note(&guard, Signal::Success), Some(ChangeKind::Returned));
    drop(guard);
    assert_eq!(bench.endpoint(1).ejection(), Ejection::In);
    assert_eq!(bench.endpoint(1).latency(bench.now).as_millis(), 20, "{asked:?}");
    assert!(is_out(bench.fail(1), Cause::Consecutive, 3), "two were not forgiven yet");
}

#[test]
fn a_probe_whose_caller_leaves_gives_its_permit_back() {
    let mut bench = Bench::new(2, OutlierPolicy::default());
    assert!(bench.fail(0).is_some());
    bench.now += 12 * SECOND;
    drop(bench.probe());
    let guard = bench.probe().start(bench.now);
    assert_eq!(bench.endpoint(0).ejection(), Ejection::Probing);
    drop(guard);
    assert_eq!(bench.endpoint(0).ejection(), Ejection::Ejected);
    drop(bench.probe());
}

#[test]
fn a_healthy_interval_forgives_one_ejection() {
    let mut bench = Bench::new(2, OutlierPolicy::default());
    for times in 1..=4 {
        let out = if times == 1 {
            bench.fail(0)
        } else {
            let guard = bench.probe().start(bench.now);
            bench.note(&guard, Signal::Failure)
        };
        assert!(matches!(out, Some(ChangeKind::Ejected { times: t, .. }) if t == times));
        bench.now += 120 * SECOND;
    }
    let guard = bench.probe().start(bench.now);
    assert_eq!(bench.note(&guard, Signal::Success), Some(ChangeKind::Returned));
    drop(guard);
    bench.judge();
    assert_eq!(bench.endpoint(0).standing.load().times, 4, "not a whole interval yet");
    for left in [3, 2, 1, 0, 0] {
        bench.now += INTERVAL;
        bench.judge();
        assert_eq!(bench.endpoint(0).standing.load().times, left);
    }
}

#[test]
fn the_last_endpoint_and_those_beyond_the_share_stay() {
    let mut bench = Bench::new(1, OutlierPolicy::default());
    assert_eq!(bench.fail(0), None);
    let mut bench = Bench::new(5, OutlierPolicy::default());
    assert!(bench.fail(0).is_some() && bench.fail(1).is_some());
    assert_eq!((bench.fail(2), bench.fail(3), bench.fail(4)), (None, None, None));
    let mut bench = Bench::new(3, OutlierPolicy { max_ejected: 1.0, ..OutlierPolicy::default() });
    bench.endpoint(2).set_health(Health::Unhealthy, bench.now);
    assert!(bench.fail(0).is_some());
    assert_eq!(bench.fail(1), None, "the other that is left is unhealthy");
}

#[test]
fn the_share_is_of_all_priorities_so_that_a_broken_first_one_makes_way() {
    let mut bench = Bench::new(0, OutlierPolicy::default());
    let all: Vec<EndpointSpec> = specs(1..=8)
        .into_iter()
        .zip([0, 0, 0, 0, 1, 1, 1, 1])
        .map(|(spec, priority)| EndpointSpec { priority, ..spec })
        .collect();
    bench.set = bench.balancer.prepare(EndpointSet::build(&all, None, bench.now));
    bench.balancer.review(&bench.set, bench.now);
    assert!((0..4).all(|index| bench.fail(index).is_some()), "a limit of its own would keep two");
    assert_eq!(bench.fail(4), None, "half of all are out");
    bench.balancer.review(&bench.set, bench.now);
    for _ in 0..100 {
        let picked = bench.balancer.pick(&bench.set, &Tried::new(), bench.now, &mut bench.rng);
        let picked = picked.unwrap();
        assert!(all[4..].iter().any(|spec| spec.address == picked.endpoint().address));
    }
}

#[test]
fn an_ejection_ends_where_nothing_else_is_left() {
    let mut bench = Bench::new(4, OutlierPolicy::default());
    assert!(bench.fail(0).is_some() && bench.fail(1).is_some());
    assert!(bench.relieve().is_empty());
    bench.set = EndpointSet::build(&specs(1..=2), Some(&bench.set), bench.now);
    assert_eq!(bench.ejected(), 2, "a new set keeps what is known of its endpoints");
    assert_eq!(bench.relieve(), [ChangeKind::Relieved]);
    assert_eq!(bench.ejected(), 1);
    bench.set.members().iter().filter(|m| m.endpoint.is_available()).for_each(|m| {
        m.endpoint.set_health(Health::Unhealthy, bench.now);
    });
    assert_eq!(bench.relieve(), [ChangeKind::Relieved]);
    bench.check_invariants();
}

#[test]
fn a_probe_that_ends_after_its_ejection_settles_nothing() {
    let mut bench = Bench::new(4, OutlierPolicy::default());
    assert!(bench.fail(0).is_some());
    bench.now += 12 * SECOND;
    let old = bench.probe().start(bench.now);
    bench.set = EndpointSet::build(&specs(1..=1), Some(&bench.set), bench.now);
    assert_eq!(bench.relieve(), [ChangeKind::Relieved]);
    bench.set = EndpointSet::build(&specs(1..=4), Some(&bench.set), bench.now);
    assert!(bench.fail(0).is_some());
    bench.now += 30 * SECOND;
    let new = bench.probe().start(bench.now);
    assert_eq!(bench.note(&old, Signal::Success), None);
    drop(old);
    assert_eq!(bench.endpoint(0).ejection(), Ejection::Probing);
    assert_eq!(bench.note(&new, Signal::Success), Some(ChangeKind::Returned));
}

#[test]
fn not_enforced_it_counts_and_ejects_nothing() {
    let mut bench = Bench::new(3, OutlierPolicy { enforce: false, ..OutlierPolicy::default() });
    assert!(is_out(bench.fail(1), Cause::Consecutive, 1));
    assert_eq!(bench.endpoint(1).ejection(), Ejection::Shadow);
    assert!(bench.endpoint(1).is_available());
    assert_eq!(bench.fail(1), None, "it would not be asked");
    assert_eq!(bench.fail(0), None, "no more than one of three would be out");
    bench.now += 12 * SECOND;
    assert!(is_out(bench.answer(1, Signal::Failure), Cause::Probe, 2));
    bench.now += 24 * SECOND;
    assert_eq!(bench.answer(1, Signal::Success), Some(ChangeKind::Returned));
    assert_eq!(bench.endpoint(1).ejection(), Ejection::In);
}

#[test]
fn an_endpoint_that_fails_more_than_the_others_is_ejected() {
    let rule = SuccessRate { stdev: 1.9, min_hosts: 5, min_requests: 100 };
    let policy = OutlierPolicy { success_rate: Some(rule), ..OutlierPolicy::default() };
    let mut bench = Bench::new(5, policy);
    let round = |bench: &mut Bench, of_four: usize| {
        for turn in 0..100 {
            for index in 0..5 {
                let fails = index == 2 && turn % 4 < of_four;
                let signal = if fails { Signal::Failure } else { Signal::Success };
                assert_eq!(bench.answer(index, signal), None);
            }
        }
    };
    round(&mut bench, 0);
    assert!(bench.judge().is_empty());
    round(&mut bench, 2);
    let changes = bench.judge();
    assert!(is_out(changes.first().copied(), Cause::SuccessRate, 1), "{changes:?}");
    assert_eq!((changes.len(), bench.endpoint(2).ejection()), (1, Ejection::Ejected));
    assert!(bench.judge().is_empty(), "each interval counts for itself");
}

/// Hours of random traffic, failures, checks and changes of the set.
#[test]
fn whatever_happens_the_invariants_hold() {
    for seed in 0..40 {
        let mut walk = Rng::from_seed(seed);
        let policy = OutlierPolicy {
            max_ejected: [0.1, 0.34, 0.5, 1.0][walk.below(4)],
            eject: [SECOND, 10 * SECOND][walk.below(2)],
            ..OutlierPolicy::default()
        };
        let mut bench = Bench::new(1 + u16::try_from(walk.below(9)).unwrap(), policy);
        let mut open: Vec<EndpointGuard> = Vec::new();
        for _ in 0..4_000 {
            match walk.below(100) {
                0 => {
                    let ports = (1..=10_u16).filter(|_| walk.below(3) > 0);
                    let specs = specs(ports.collect::<Vec<_>>().into_iter());
                    bench.set = EndpointSet::build(&specs, Some(&bench.set), bench.now);
                    bench.relieve();
                }
                1..=3 if !bench.set.is_empty() => {
                    let health = [Health::Healthy, Health::Unhealthy][walk.below(2)];
                    bench.endpoint(walk.below(bench.set.len())).set_health(health, bench.now);
                    bench.relieve();
                }
                4 => drop(bench.judge()),
                5..=14 => bench.now += SECOND * u32::try_from(walk.below(30)).unwrap(),
                15..=64 => {
                    bench.balancer.review(&bench.set, bench.now);
                    let (set, now) = (&bench.set, bench.now);
                    let picked = bench.balancer.pick(set, &Tried::new(), now, &mut walk);
                    if let Some(mut picked) = picked {
                        let guard = picked.start(now);
                        let ejection = |guard: &EndpointGuard| {
                            Some((guard.endpoint().id, guard.probe.as_ref()?.epoch()))
                        };
                        // An ejection that was taken back has ended its probe too; a later one has its own.
                        let same = open.iter().any(|open| ejection(open) == ejection(&guard));
                        assert!(guard.probe.is_none() || !same, "seed {seed}: two probes");
                        open.push(guard);
                    }
                }
                65..=95 if !open.is_empty() => {
                    let guard = open.swap_remove(walk.below(open.len()));
                    let port = guard.endpoint().id % 4;
                    let bad = [Signal::Failure, Signal::Gateway, Signal::LocalOrigin];
                    let fails =
                        walk.fraction() < [0.01, 0.2, 0.9, 1.0][usize::try_from(port).unwrap()];
                    let signal = if fails { bad[walk.below(3)] } else { Signal::Success };
                    bench.note(&guard, signal);
                }
                _ if !open.is_empty() => drop(open.swap_remove(walk.below(open.len()))),
                _ => {}
            }
            bench.check_invariants();
        }
        open.clear();
        let probing =
            |m: &crate::balance::endpoint_set::Member| m.endpoint.ejection() == Ejection::Probing;
        assert!(!bench.set.members().iter().any(probing), "seed {seed}: a permit has leaked");
    }
}

#[test]
fn workers_that_decide_at_once_eject_no_more_than_allowed() {
    let now = Instant::now();
    for round in 0..200 {
        let bench = Bench::new(4, OutlierPolicy::default());
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for (worker, member) in bench.set.members().iter().enumerate() {
                let (bench, start) = (&bench, &start);
                scope.spawn(move || {
                    let mut rng = Rng::from_seed(u64::try_from(worker).unwrap());
                    start.wait();
                    for _ in 0..20 {
                        let guard = member.endpoint.start(now);
                        bench.outliers.note(&bench.set, &guard, Signal::Failure, now, &mut rng);
                    }
                });
            }
        });
        assert!(bench.ejected() <= 2, "round {round}");
        // Who comes while another decides keeps its row: its next failure decides, if it was the last of its worker.
        let mut rng = Rng::from_seed(round);
        for member in bench.set.members() {
            let guard = member.endpoint.start(now);
            bench.outliers.note(&bench.set, &guard, Signal::Failure, now, &mut rng);
        }
        assert_eq!(bench.ejected(), 2, "round {round}: the row was not lost");
    }
}

#[test]
fn workers_that_pick_at_once_send_one_probe() {
    for round in 0..100 {
        let mut bench = Bench::new(2, OutlierPolicy::default());
        assert!(bench.fail(0).is_some());
        let due = bench.now + 12 * SECOND;
        let start = Barrier::new(4);
        let probes: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|worker| {
                    let (bench, start) = (&bench, &start);
                    scope.spawn(move || {
                        let mut rng = Rng::from_seed(worker);
                        start.wait();
                        let pick = |_| {
                            bench.balancer.pick(&bench.set, &Tried::new(), due, &mut rng).unwrap()
                        };
                        let picked: Vec<_> = (0..50).map(pick).collect();
                        start.wait();
                        picked.iter().filter(|picked| picked.is_probe()).count()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(probes, 1, "round {round}");
    }
}
