//! Who is picked of several priorities.

use super::*;
use crate::balance::standing::{Ejection, millis};

/// Endpoints of weight 1 with these priorities.
fn set_of(priorities: &[u32], now: Instant) -> EndpointSet {
    let specs: Vec<_> = (1..)
        .zip(priorities)
        .map(|(port, priority)| EndpointSpec {
            priority: *priority,
            ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))
        })
        .collect();
    EndpointSet::build(&specs, None, now)
}

fn sicken(set: &EndpointSet, count: usize, now: Instant) {
    for member in &set.members()[..count] {
        member.endpoint.set_health(Health::Unhealthy, now);
    }
}

/// Picks of each endpoint, of 20 000.
fn picks(balancer: &Balancer, set: &EndpointSet, now: Instant) -> Vec<f64> {
    let mut rng = Rng::from_seed(7);
    let mut counts = vec![0.0; set.len()];
    for _ in 0..20_000 {
        let picked = balancer.pick(set, &Tried::new(), now, &mut rng).unwrap();
        counts[place(set, &picked)] += 1.0;
    }
    counts
}

#[test]
fn the_first_priority_gets_everything_and_shares_it_by_the_policy() {
    let now = Instant::now();
    for policy in ALL {
        let (set, balancer) = (set_of(&[1, 0, 1, 0], now), Balancer::new(policy));
        balancer.review(&set, now);
        let counts = picks(&balancer, &set, now);
        assert!(counts[0] + counts[2] == 0.0, "{policy:?} {counts:?}");
        assert!((counts[1] - 10_000.0).abs() < 400.0, "{policy:?} {counts:?}");
    }
}

#[test]
fn what_the_first_priority_cannot_take_overflows_without_panic() {
    let now = Instant::now();
    for policy in ALL {
        let (set, balancer) = (set_of(&[0, 0, 0, 0, 9, 9], now), Balancer::new(policy));
        for (sick, first) in [(1, 20_000.0), (2, 14_000.0), (3, 7_000.0), (4, 0.0)] {
            sicken(&set, sick, now);
            assert!(!balancer.review(&set, now).panic);
            let counts = picks(&balancer, &set, now);
            let of_first: f64 = counts[..4].iter().sum();
            assert!((of_first - first).abs() < 300.0, "{policy:?} {sick} {counts:?}");
            assert!(counts[..sick].iter().sum::<f64>() == 0.0, "{policy:?} {sick} {counts:?}");
        }
    }
}

#[test]
fn each_priority_panics_by_itself() {
    let now = Instant::now();
    for policy in ALL {
        // 1 of 4 and 3 of 5 healthy: 35 % and 84 % cover everything.
        let (set, balancer) = (set_of(&[0, 0, 0, 0, 1, 1, 1, 1, 1], now), Balancer::new(policy));
        sicken(&set, 3, now);
        set.members()[4].endpoint.set_health(Health::Unhealthy, now);
        set.members()[5].endpoint.set_health(Health::Unhealthy, now);
        assert!(!balancer.review(&set, now).panic);
        // None of 4 and 3 of 5: 84 % cover less than everything, and only the first has too few.
        set.members()[3].endpoint.set_health(Health::Unhealthy, now);
        assert!(balancer.review(&set, now).panic);
        let counts = picks(&balancer, &set, now);
        assert_eq!(counts[..6], [0.0; 6], "{policy:?}");
        // 1 of 4 and 2 of 5: 35 % + 56 %. Both panic; in proportion.
        set.members()[3].endpoint.set_health(Health::Healthy, now);
        set.members()[6].endpoint.set_health(Health::Unhealthy, now);
        assert!(balancer.review(&set, now).panic);
        let counts = picks(&balancer, &set, now);
        let first: f64 = counts[..4].iter().sum();
        assert!((first - 20_000.0 * 35.0 / 91.0).abs() < 300.0, "{policy:?} {counts:?}");
        assert!(counts.iter().all(|count| *count > 1_500.0), "{policy:?} {counts:?}");
    }
}

#[test]
fn a_retry_goes_to_the_next_priority_when_the_first_is_used_up() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(3));
    for policy in ALL {
        let (set, balancer) = (set_of(&[2, 1, 0, 0], now), Balancer::new(policy));
        balancer.review(&set, now);
        let mut tried = Tried::new();
        let order: Vec<usize> = (0..4)
            .map(|_| {
                let picked = balancer.pick(&set, &tried, now, &mut rng).unwrap();
                tried.note(picked.endpoint().id);
                place(&set, &picked)
            })
            .collect();
        assert_eq!((order[2], order[3]), (1, 0), "{policy:?} {order:?}");
    }
}

#[test]
fn the_only_endpoint_of_a_priority_returns_from_ejection_by_a_probe() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(4));
    for policy in ALL {
        let (set, balancer) = (set_of(&[0, 1, 1], now), Balancer::new(policy));
        let first = &set.members()[0].endpoint;
        let until = millis(Duration::from_secs(10));
        first.standing.update(|state| Some(state.ejected(Ejection::Ejected, 1, until))).unwrap();
        balancer.review(&set, now);
        let counts = picks(&balancer, &set, now);
        assert!(counts[0] == 0.0, "{policy:?}");
        let later = now + Duration::from_secs(10);
        balancer.review(&set, later);
        let probe = balancer.pick(&set, &Tried::new(), later, &mut rng).unwrap();
        assert!(probe.is_probe() && place(&set, &probe) == 0, "{policy:?}");
        // While it runs, the others serve.
        for _ in 0..100 {
            let other = balancer.pick(&set, &Tried::new(), later, &mut rng).unwrap();
            assert!(place(&set, &other) > 0, "{policy:?}");
        }
    }
}

#[test]
fn round_robin_keeps_exact_turns_in_each_priority() {
    let now = Instant::now();
    let (set, balancer) = (set_of(&[0, 0, 0, 0, 1, 1, 1], now), Balancer::new(Policy::RoundRobin));
    sicken(&set, 2, now);
    balancer.review(&set, now);
    let counts = picks(&balancer, &set, now);
    let part = &counts[4..];
    let (least, most) = part.iter().fold((f64::MAX, 0.0_f64), |(l, m), c| (l.min(*c), m.max(*c)));
    assert!(most - least <= 1.0, "{counts:?}");
}
