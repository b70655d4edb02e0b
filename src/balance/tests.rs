//! Shares, by weight and by load. What failures do to them, and who may be picked at all, stand below.

mod availability;
mod failures;
mod hashing;
mod priorities;
mod zones;

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
fn of_endpoints_that_were_all_tried_one_that_takes_connections_is_tried_again() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(3));
    let set = set(&[1, 1, 1], now);
    let endpoints = || set.members().iter().map(|member| &member.endpoint);
    let mut tried = Tried::new();
    endpoints().for_each(|endpoint| tried.note(endpoint.id));
    endpoints().skip(1).for_each(|refuses| refuses.learn_reach(Signal::LocalOrigin));
    for policy in ALL {
        let balancer = Balancer::new(policy);
        for _ in 0..100 {
            assert_eq!(place(&set, &balancer.pick(&set, &tried, now, &mut rng).unwrap()), 0);
        }
    }
    endpoints().for_each(|refuses| refuses.learn_reach(Signal::LocalOrigin));
    assert!(Balancer::new(Policy::PeakEwma).pick(&set, &tried, now, &mut rng).is_some());
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

#[test]
fn the_same_seed_makes_the_same_picks() {
    let now = Instant::now();
    let set = set(&[1, 2, 3], now);
    for policy in ALL {
        let counts = || idle_picks(policy, &set, &Tried::new(), now);
        assert_eq!(counts(), counts());
    }
}
