//! Who may be picked: health, panic, ejection, slow start, reach.

use crate::policy::outlier::Signal;

use super::*;

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
