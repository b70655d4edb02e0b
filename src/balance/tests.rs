use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{EndpointGuard, Health};
use super::endpoint_set::Member;
use super::*;
use crate::base::endpoint::EndpointSpec;
use crate::policy::classify::Outcome;
use crate::policy::outlier::Signal;

const ALL: [Policy; 4] =
    [Policy::PeakEwma, Policy::LeastRequest, Policy::RoundRobin, Policy::Random];
const PICKS: u32 = 100_000;

fn set(weights: &[u32], now: Instant) -> EndpointSet {
    let specs: Vec<_> = (1..)
        .zip(weights)
        .map(|(port, weight)| EndpointSpec {
            weight: *weight,
            ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))
        })
        .collect();
    EndpointSet::build(&specs, None, now)
}

fn place(set: &EndpointSet, picked: &Picked) -> usize {
    let found = |member: &Member| Arc::ptr_eq(&member.endpoint, picked.endpoint());
    set.members().iter().position(found).unwrap()
}

/// Picks from an idle upstream: how often each endpoint was chosen.
fn idle_picks(policy: Policy, set: &EndpointSet, tried: &Tried, now: Instant) -> Vec<f64> {
    let (balancer, mut rng) = (Balancer::new(policy), Rng::from_seed(42));
    let mut counts = vec![0.0; set.len()];
    for _ in 0..PICKS {
        let endpoint = balancer.pick(set, tried, now, &mut rng).unwrap();
        counts[place(set, &endpoint)] += 1.0;
    }
    counts
}

/// Pearson's statistic against shares in proportion to `weights`.
fn chi_square(counts: &[f64], weights: &[u32]) -> f64 {
    let total = f64::from(weights.iter().sum::<u32>());
    let picks: f64 = counts.iter().sum();
    let expected = weights.iter().map(|weight| picks * f64::from(*weight) / total);
    counts.iter().zip(expected).map(|(count, expected)| (count - expected).powi(2) / expected).sum()
}

/// A closed loop in virtual time: `concurrency` requests at once, `latency` per endpoint; counts of each endpoint.
fn loaded_picks(
    policy: Policy,
    set: &EndpointSet,
    concurrency: usize,
    start: Instant,
    latency: impl Fn(usize, &mut Rng) -> Duration,
) -> Vec<f64> {
    let (balancer, mut rng) = (Balancer::new(policy), Rng::from_seed(43));
    let mut running: VecDeque<(Instant, EndpointGuard)> = VecDeque::new();
    let mut counts = vec![0.0; set.len()];
    let mut now = start;
    for _ in 0..PICKS {
        if running.len() == concurrency {
            let (ends, guard) = running.pop_front().unwrap();
            now = now.max(ends);
            guard.settle(Outcome::Success, now);
        }
        let mut endpoint = balancer.pick(set, &Tried::new(), now, &mut rng).unwrap();
        let index = place(set, &endpoint);
        counts[index] += 1.0;
        let ends = now + latency(index, &mut rng);
        let at = running.partition_point(|(other, _)| *other <= ends);
        running.insert(at, (ends, endpoint.start(now)));
    }
    counts
}

#[test]
fn an_empty_set_has_nothing_to_pick() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(1));
    for policy in ALL {
        let balancer = Balancer::new(policy);
        assert!(balancer.pick(&EndpointSet::default(), &Tried::new(), now, &mut rng).is_none());
    }
}

#[test]
fn a_single_endpoint_is_picked_even_when_tried() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(1));
    let set = set(&[3], now);
    let only = &set.members()[0].endpoint;
    let mut tried = Tried::new();
    for policy in ALL {
        let balancer = Balancer::new(policy);
        for _ in 0..2 {
            assert_eq!(place(&set, &balancer.pick(&set, &tried, now, &mut rng).unwrap()), 0);
            tried.note(only.id);
        }
    }
}

#[test]
fn tried_endpoints_are_avoided_until_none_is_left() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(2));
    for weights in [&[1, 1, 1, 1][..], &[1000, 1, 2, 3]] {
        let set = set(weights, now);
        for policy in ALL {
            for _ in 0..200 {
                let balancer = Balancer::starting_at(policy, rng.bits());
                let mut tried = Tried::new();
                for _ in 0..set.len() {
                    let picked = balancer.pick(&set, &tried, now, &mut rng).unwrap();
                    let endpoint = picked.endpoint();
                    assert!(!tried.contains(endpoint.id), "{policy:?} {weights:?}");
                    tried.note(endpoint.id);
                }
                assert!(balancer.pick(&set, &tried, now, &mut rng).is_some());
            }
        }
    }
}

#[test]
fn an_idle_upstream_is_used_in_proportion_to_the_weights() {
    let now = Instant::now();
    // 9 endpoints, 8 degrees of freedom: above 26.1 with a chance of 0.1 %.
    for weights in [[1; 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [40, 1, 1, 1, 1, 1, 1, 1, 1]] {
        for policy in ALL {
            let counts = idle_picks(policy, &set(&weights, now), &Tried::new(), now);
            let statistic = chi_square(&counts, &weights);
            assert!(statistic < 26.1, "{policy:?} {weights:?}: {statistic} {counts:?}");
        }
    }
}

#[test]
fn those_left_after_a_try_share_in_proportion_to_their_weights() {
    let now = Instant::now();
    let weights = [50, 1, 2, 3, 4];
    let set = set(&weights, now);
    let mut tried = Tried::new();
    tried.note(set.members()[0].endpoint.id);
    for policy in ALL {
        let counts = idle_picks(policy, &set, &tried, now);
        assert!(counts[0] == 0.0, "{policy:?}");
        let statistic = chi_square(&counts[1..], &weights[1..]);
        assert!(statistic < 16.3, "{policy:?}: {statistic} {counts:?}");
    }
}

#[test]
fn round_robin_deviates_by_no_more_than_one_round() {
    let now = Instant::now();
    let weights = [5, 1, 1];
    let counts = idle_picks(Policy::RoundRobin, &set(&weights, now), &Tried::new(), now);
    for (count, weight) in counts.iter().zip(weights) {
        let due = f64::from(PICKS) * f64::from(weight) / 7.0;
        assert!((count - due).abs() <= f64::from(weight), "{counts:?}");
    }
}

#[test]
fn round_robin_takes_equal_endpoints_in_strict_turns() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(1));
    let set = set(&[7, 7, 7], now);
    let balancer = Balancer::new(Policy::RoundRobin);
    let turns: Vec<_> = (0..6)
        .map(|_| place(&set, &balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap()))
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn workers_share_the_turns() {
    let now = Instant::now();
    let set = set(&[3, 1, 2, 2], now);
    let balancer = Balancer::new(Policy::RoundRobin);
    let counts: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (set, balancer, counts) = (&set, &balancer, &counts);
            scope.spawn(move || {
                let mut rng = Rng::from_seed(seed);
                for _ in 0..2_000 {
                    let endpoint = balancer.pick(set, &Tried::new(), now, &mut rng).unwrap();
                    let count = &counts[place(set, &endpoint)];
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let counts: Vec<_> = counts.into_iter().map(AtomicU64::into_inner).collect();
    assert_eq!(counts, [3_000, 1_000, 2_000, 2_000]);
}

#[test]
fn under_load_equally_fast_endpoints_share_in_proportion_to_their_weights() {
    let now = Instant::now();
    for policy in [Policy::PeakEwma, Policy::LeastRequest] {
        for weights in [&[1, 1, 1, 1][..], &[3, 1], &[1, 2, 3, 4, 5]] {
            let set = set(weights, now);
            let counts = loaded_picks(policy, &set, 64, now, |_, _| Duration::from_millis(20));
            let total = f64::from(weights.iter().sum::<u32>());
            for (count, weight) in counts.iter().zip(weights) {
                let ratio = count / (f64::from(PICKS) * f64::from(*weight) / total);
                assert!((0.85..1.15).contains(&ratio), "{policy:?} {weights:?} {counts:?}");
            }
        }
    }
}

#[test]
fn a_slow_endpoint_gets_little_under_peak_ewma() {
    let now = Instant::now();
    let set = set(&[1; 5], now);
    let latency = |index, rng: &mut Rng| {
        let base = if index == 2 { 200 } else { 10 };
        Duration::from_millis(base).mul_f64(0.5 + rng.fraction())
    };
    let counts = loaded_picks(Policy::PeakEwma, &set, 20, now, latency);
    assert!(counts[2] < f64::from(PICKS) * 0.02, "{counts:?}");
    assert!(counts[2] > 0.0, "{counts:?}");
    let fast = counts.iter().enumerate().filter(|(index, _)| *index != 2);
    assert!(fast.clone().all(|(_, count)| *count > f64::from(PICKS) * 0.2), "{counts:?}");
}

#[test]
fn a_busy_endpoint_gets_less_under_least_request() {
    let now = Instant::now();
    let set = set(&[1; 4], now);
    let _stuck: Vec<_> = (0..3).map(|_| set.members()[1].endpoint.start(now)).collect();
    let counts = idle_picks(Policy::LeastRequest, &set, &Tried::new(), now);
    assert!(counts[1] == 0.0, "{counts:?}");
}

/// Requests per second at each of three endpoints, the first of which answers `fails(n)` of its requests at once with a
/// failure, the others in 20 ms: virtual time, 200 requests a second in all.
fn with_failures(seconds: u32, mut fails: impl FnMut(u32, Duration) -> bool) -> Vec<[u32; 3]> {
    const PER_SECOND: u32 = 200;
    let (start, mut rng) = (Instant::now(), Rng::from_seed(12));
    let set = set(&[1; 3], start);
    let balancer = Balancer::new(Policy::PeakEwma);
    let mut running: VecDeque<(Instant, EndpointGuard)> = VecDeque::new();
    let (mut counts, mut asked) = (vec![[0; 3]; seconds as usize], 0);
    for turn in 0..seconds * PER_SECOND {
        let since = Duration::from_secs(1) * turn / PER_SECOND;
        let now = start + since;
        while running.front().is_some_and(|(ends, _)| *ends <= now) {
            let (ends, guard) = running.pop_front().unwrap();
            guard.settle(Outcome::Success, ends);
        }
        let mut picked = balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap();
        let index = place(&set, &picked);
        counts[usize::try_from(since.as_secs()).unwrap()][index] += 1;
        let guard = picked.start(now);
        asked += u32::from(index == 0);
        if index == 0 && fails(asked, since) {
            guard.settle(Outcome::Failure, now + Duration::from_micros(100));
        } else {
            // Up to a tenth more or less, as answers are.
            let took = Duration::from_micros(18_000 + rng.below(4_000) as u64);
            let at = running.partition_point(|(other, _)| *other <= now + took);
            running.insert(at, (now + took, guard));
        }
    }
    counts
}

#[test]
fn a_lone_failure_starves_nobody() {
    let mut failed = false;
    let counts = with_failures(40, |_, since| {
        let fails = !failed && since > Duration::from_secs(30);
        failed |= fails;
        fails
    });
    assert!(failed);
    let share = |from: usize, to: usize| {
        let of =
            counts[from..to].iter().fold([0, 0], |sum, c| [sum[0] + c[0], sum[1] + c[1] + c[2]]);
        f64::from(of[0]) / f64::from(of[0] + of[1])
    };
    assert!(share(20, 30) > 0.3 && share(30, 32) > 0.2 && share(30, 40) > 0.25, "{counts:?}");
}

#[test]
fn failures_that_nobody_ejects_attract_nothing() {
    let counts = with_failures(40, |_, since| since > Duration::from_secs(30));
    let before: u32 = counts[20..30].iter().map(|counts| counts[0]).sum();
    let after: u32 = counts[30..40].iter().map(|counts| counts[0]).sum();
    assert!(before > 600 && after < 20, "{before} {after}");
}

#[test]
fn an_endpoint_that_fails_now_and_then_gets_the_less_the_more_it_fails() {
    let after = |every| {
        let counts = with_failures(60, |asked, since| since.as_secs() >= 20 && asked % every == 0);
        counts[30..].iter().map(|counts| counts[0]).sum::<u32>()
    };
    // Of 2 000 that were its part.
    let (half, tenth, hundredth) = (after(2), after(10), after(100));
    assert!(
        half < 150 && half < tenth && tenth < 800 && tenth < hundredth,
        "{half} {tenth} {hundredth}"
    );
    assert!(hundredth > 1_000, "{hundredth}");
}

#[test]
fn the_same_seed_makes_the_same_picks() {
    let now = Instant::now();
    let set = set(&[1, 2, 3], now);
    for policy in ALL {
        let counts = || idle_picks(policy, &set, &Tried::new(), now);
        assert_eq!(counts(), counts());
    }
}

fn counts_of(set: &EndpointSet, balancer: &Balancer, now: Instant) -> Vec<f64> {
    let mut rng = Rng::from_seed(44);
    let mut counts = vec![0.0; set.len()];
    for _ in 0..20_000 {
        let Some(picked) = balancer.pick(set, &Tried::new(), now, &mut rng) else { continue };
        counts[place(set, &picked)] += 1.0;
    }
    counts
}

fn eject(set: &EndpointSet, index: usize, until: Duration) {
    let standing = &set.members()[index].endpoint.standing;
    let until = standing::millis(until);
    standing.update(|state| Some(state.ejected(standing::Ejection::Ejected, 1, until))).unwrap();
}

#[test]
fn an_unhealthy_endpoint_is_not_picked_and_the_others_keep_their_proportions() {
    let now = Instant::now();
    for (weights, policy) in
        [[1, 1, 1, 1], [9, 1, 2, 3]].into_iter().flat_map(|w| ALL.map(|p| (w, p)))
    {
        let set = set(&weights, now);
        let balancer = Balancer::new(policy);
        assert!(set.members()[0].endpoint.set_health(Health::Unhealthy, now));
        assert!(!set.members()[0].endpoint.set_health(Health::Unhealthy, now));
        let counts = balancer.review(&set, now);
        assert_eq!((counts.ready, counts.unhealthy, counts.panic), (3, 1, false));
        let counts = counts_of(&set, &balancer, now);
        assert!(counts[0] == 0.0, "{policy:?} {counts:?}");
        let statistic = chi_square(&counts[1..], &weights[1..]);
        assert!(statistic < 16.3, "{policy:?} {weights:?}: {statistic} {counts:?}");
    }
}

#[test]
fn below_the_panic_threshold_unhealthy_endpoints_are_picked_too_and_at_it_they_are_not() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(3));
    for policy in ALL {
        let set = set(&[1; 4], now);
        let balancer = Balancer::new(policy);
        let sick = |index: usize| set.members()[index].endpoint.set_health(Health::Unhealthy, now);
        sick(0);
        sick(1);
        assert!(!balancer.review(&set, now).panic);
        assert!(counts_of(&set, &balancer, now)[..2].iter().all(|count| *count == 0.0));
        sick(2);
        assert!(balancer.review(&set, now).panic && balancer.is_panicking());
        assert!(counts_of(&set, &balancer, now).iter().all(|count| *count > 4_000.0));
        let picked = balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap();
        assert_eq!(picked.in_panic(), place(&set, &picked) != 3);
        set.members()[1].endpoint.set_health(Health::Healthy, now);
        assert!(!balancer.review(&set, now).panic && !balancer.is_panicking());
    }
}

#[test]
fn panic_brings_no_ejected_endpoint_back_and_is_not_caused_by_ejections() {
    let now = Instant::now();
    for policy in ALL {
        let set = set(&[1; 4], now);
        let balancer = Balancer::new(policy);
        eject(&set, 0, Duration::from_secs(10));
        eject(&set, 1, Duration::from_secs(10));
        eject(&set, 2, Duration::from_secs(10));
        assert!(!balancer.review(&set, now).panic);
        for index in 1..4 {
            set.members()[index].endpoint.set_health(Health::Unhealthy, now);
        }
        let counts = balancer.review(&set, now);
        assert_eq!((counts.panic, counts.ejected, counts.unhealthy), (true, 3, 1));
        let counts = counts_of(&set, &balancer, now);
        assert_eq!(counts, [0.0, 0.0, 0.0, 20_000.0], "{policy:?}");
    }
}

#[test]
fn without_panic_nothing_is_picked_where_nothing_is_healthy() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(3));
    for (policy, size) in ALL.into_iter().flat_map(|policy| [(policy, 1), (policy, 3)]) {
        let set = set(&vec![1; size], now);
        for member in set.members() {
            member.endpoint.set_health(Health::Unhealthy, now);
        }
        let balancer = Balancer::new(policy).panic_below(0.0);
        balancer.review(&set, now);
        assert!(balancer.pick(&set, &Tried::new(), now, &mut rng).is_none());
        let balancer = Balancer::new(policy);
        balancer.review(&set, now);
        assert!(balancer.pick(&set, &Tried::new(), now, &mut rng).is_some());
    }
}

#[test]
fn an_ejected_endpoint_gets_one_probe_at_a_time_and_never_a_retry() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(3));
    let due = now + Duration::from_secs(10);
    for policy in ALL {
        let set = set(&[1; 3], now);
        let balancer = Balancer::new(policy);
        eject(&set, 1, Duration::from_secs(10));
        assert!(counts_of(&set, &balancer, due - Duration::from_millis(1))[1] == 0.0);
        let mut tried = Tried::new();
        tried.note(set.members()[0].endpoint.id);
        for _ in 0..100 {
            let picked = balancer.pick(&set, &tried, due, &mut rng).unwrap();
            assert_eq!(place(&set, &picked), 2, "{policy:?}");
        }
        let mut probes = Vec::new();
        for _ in 0..1_000 {
            let mut picked = balancer.pick(&set, &Tried::new(), due, &mut rng).unwrap();
            assert_eq!(picked.is_probe(), place(&set, &picked) == 1);
            if picked.is_probe() {
                probes.push(picked.start(due));
            }
        }
        assert_eq!(probes.len(), 1, "{policy:?}");
        drop(probes);
        assert!(counts_of(&set, &balancer, due)[1] > 0.0, "the permit came back");
    }
}

#[test]
fn slow_start_gives_a_joining_endpoint_its_part_of_the_traffic() {
    let start = Instant::now();
    let window = Duration::from_secs(30);
    let few = set(&[1; 3], start);
    let specs: Vec<_> =
        (1..=4).map(|port| EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
    let more = EndpointSet::build(&specs, Some(&few), start);
    for policy in ALL {
        let balancer = Balancer::new(policy).slow_start(Some(window));
        assert_eq!(balancer.review(&more, start).slow_start, 1);
        // 10 %, 55 % and all of one weight beside three whole ones.
        for (seconds, share) in [(0, 0.1 / 3.1), (15, 0.55 / 3.55), (30, 0.25)] {
            let now = start + Duration::from_secs(seconds);
            let counts = counts_of(&more, &balancer, now);
            let expected = 20_000.0 * share;
            assert!((counts[3] / expected - 1.0).abs() < 0.15, "{policy:?} {seconds} {counts:?}");
        }
    }
    let whole = Balancer::new(Policy::Random);
    assert!(counts_of(&more, &whole, start)[3] > 4_500.0, "without slow start it has its weight");
    let balancer = Balancer::new(Policy::Random).slow_start(Some(window));
    assert_eq!(balancer.review(&more, start + window).slow_start, 0);
}

#[test]
fn an_endpoint_whose_first_check_has_not_ended_is_picked_only_while_no_other_is_available() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(17));
    for policy in ALL {
        let (set, balancer) = (set(&[1; 4], now), Balancer::new(policy));
        let check = |index: usize, health| {
            set.members()[index].endpoint.set_health(health, now);
            let counts = balancer.review(&set, now);
            (counts.unproven, counts.unhealthy, counts.panic)
        };
        let mut picked = || {
            let mut seen = [false; 4];
            for _ in 0..200 {
                let none = Tried::new();
                if let Some(picked) = balancer.pick(&set, &none, now, &mut rng) {
                    seen[place(&set, &picked)] = true;
                }
            }
            seen
        };
        for index in 0..4 {
            check(index, Health::Unproven);
        }
        assert_eq!(picked(), [true; 4], "{policy:?}: nothing better is known");
        assert_eq!(check(0, Health::Unhealthy), (3, 1, false));
        assert_eq!(picked(), [false, true, true, true], "{policy:?}: before an unhealthy one");
        assert_eq!(check(1, Health::Healthy), (2, 1, false));
        assert_eq!(picked(), [false, true, false, false], "{policy:?}: one is known to work");
        assert_eq!(check(2, Health::Unhealthy), (1, 2, false));
        assert_eq!(picked(), [false, true, false, true], "{policy:?}: one of three is too few");
        assert_eq!(check(3, Health::Unhealthy), (0, 3, true));
        assert_eq!(picked(), [true; 4], "{policy:?}: panic");
        assert_eq!(check(3, Health::Healthy), (0, 2, false));
        assert_eq!(picked(), [false, true, false, true], "{policy:?}");
    }
}

#[test]
fn a_retry_avoids_what_takes_no_connections_and_a_first_attempt_does_not() {
    let now = Instant::now();
    for policy in ALL {
        let set = set(&[1, 1, 1, 1], now);
        let balancer = Balancer::new(policy);
        let endpoint = |index: usize| &set.members()[index].endpoint;
        for index in [1, 2] {
            endpoint(index).learn_reach(Signal::LocalOrigin);
        }
        let mut tried = Tried::new();
        tried.note(endpoint(0).id);
        let counts = idle_picks(policy, &set, &tried, now);
        assert!(counts[3] > 0.0 && counts[..3].iter().all(|count| *count == 0.0), "{counts:?}");
        let counts = idle_picks(policy, &set, &Tried::new(), now);
        assert!(counts.iter().all(|count| *count > 0.0), "{policy:?}: {counts:?}");
        assert!(balancer.has_reachable(&set, now));
        for index in [0, 3] {
            endpoint(index).learn_reach(Signal::LocalOrigin);
        }
        assert!(!balancer.has_reachable(&set, now));
        let counts = idle_picks(policy, &set, &tried, now);
        assert!(counts[0] == 0.0 && counts[1..].iter().all(|count| *count > 0.0), "{counts:?}");
        endpoint(2).learn_reach(Signal::Failure);
        assert!(balancer.has_reachable(&set, now), "it answers, if badly");
    }
}
