//! Who is picked of several zones.

use super::*;

/// Endpoints with these zones, for a sidecar in `a`.
fn set_in(balancer: &Balancer, zones: &[&str], now: Instant) -> EndpointSet {
    let specs: Vec<_> = (1..)
        .zip(zones)
        .map(|(port, zone)| EndpointSpec {
            zone: (!zone.is_empty()).then(|| (*zone).to_owned()),
            ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port)))
        })
        .collect();
    let set = balancer.prepare(EndpointSet::build(&specs, None, now));
    balancer.review(&set, now);
    set
}

fn aware(policy: Policy) -> Balancer {
    Balancer::new(policy).zone_aware(Some("a"))
}

fn picks(balancer: &Balancer, set: &EndpointSet, now: Instant) -> Vec<f64> {
    let mut rng = Rng::from_seed(12);
    let mut counts = vec![0.0; set.len()];
    for _ in 0..20_000 {
        let picked = balancer.pick(set, &Tried::new(), now, &mut rng).unwrap();
        counts[place(set, &picked)] += 1.0;
    }
    counts
}

#[test]
fn a_zone_with_its_part_of_the_capacity_keeps_its_requests() {
    let now = Instant::now();
    for policy in ALL {
        let balancer = aware(policy);
        let set = set_in(&balancer, &["b", "a", "c", "a", "b", "c"], now);
        let counts = picks(&balancer, &set, now);
        assert!(counts[1] + counts[3] > 19_999.0, "{policy:?} {counts:?}");
        // Without it, zones mean nothing.
        let counts =
            picks(&Balancer::new(policy), &set_in(&Balancer::new(policy), &["b", "a"], now), now);
        assert!(counts[0] > 9_000.0, "{policy:?} {counts:?}");
    }
}

#[test]
fn what_a_zone_cannot_take_goes_where_there_is_room() {
    let now = Instant::now();
    for policy in ALL {
        let balancer = aware(policy);
        // Three zones; ours has a quarter of the capacity, as c; b has half.
        let zones = ["a", "a", "a", "b", "b", "b", "b", "b", "b", "c", "c", "c"];
        let set = set_in(&balancer, &zones, now);
        let counts = picks(&balancer, &set, now);
        let of = |range: std::ops::Range<usize>| counts[range].iter().sum::<f64>();
        assert!((of(0..3) - 15_000.0).abs() < 300.0, "{policy:?} {counts:?}");
        assert!((of(3..9) - 5_000.0).abs() < 300.0 && of(9..12) == 0.0, "{policy:?} {counts:?}");
        // Our endpoints fail one after the other: the more goes elsewhere, and no pick fails.
        let mut before = of(0..3);
        for index in 0..3 {
            set.members()[index].endpoint.set_health(Health::Unhealthy, now);
            balancer.review(&set, now);
            let counts = picks(&balancer, &set, now);
            let here: f64 = counts[0..3].iter().sum();
            assert!(here < before, "{policy:?} {counts:?}");
            before = here;
        }
        assert!(before == 0.0, "{policy:?}");
    }
}

#[test]
fn an_overloaded_zone_sheds_what_another_can_take() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(13));
    for policy in ALL {
        let balancer = aware(policy);
        let set = set_in(&balancer, &["a", "a", "b", "b", "c", "c"], now);
        let mut running = Vec::new();
        for _ in 0..600 {
            let mut picked = balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap();
            running.push(picked.start(now));
            let loads: Vec<u32> = set.members().iter().map(|m| m.endpoint.in_flight()).collect();
            let least = loads[2..].iter().min().unwrap();
            // Below the slack nothing leaves.
            if running.len() <= 16 {
                assert_eq!(loads[2..].iter().sum::<u32>(), 0, "{policy:?} {loads:?}");
            }
            // The bound, with what random choices differ by.
            let most = loads[..2].iter().max().unwrap();
            assert!(*most <= 2 * least + 60, "{policy:?} {loads:?}");
        }
        let loads: Vec<u32> = set.members().iter().map(|m| m.endpoint.in_flight()).collect();
        assert!(loads[2..].iter().all(|load| *load > 40), "{policy:?} {loads:?}");
        assert!(loads[..2].iter().all(|load| *load > 100), "{policy:?} {loads:?}");
    }
}

#[test]
fn without_an_endpoint_in_our_zone_or_in_panic_zones_mean_nothing() {
    let now = Instant::now();
    for policy in ALL {
        let balancer = aware(policy);
        let counts = picks(&balancer, &set_in(&balancer, &["b", "c", "", "b"], now), now);
        assert!(counts.iter().all(|count| *count > 4_500.0), "{policy:?} {counts:?}");
        let set = set_in(&balancer, &["a", "b", "b", "a"], now);
        for member in &set.members()[..3] {
            member.endpoint.set_health(Health::Unhealthy, now);
        }
        assert!(balancer.review(&set, now).panic);
        let counts = picks(&balancer, &set, now);
        assert!(counts.iter().all(|count| *count > 4_500.0), "{policy:?} {counts:?}");
    }
}

/// Whatever the weights, zones, priorities and states are: what can be picked is found, shares add up, and an available
/// endpoint of ours is never left without requests while others get some.
#[test]
fn whatever_the_set_a_pick_finds_what_is_available() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(14));
    for round in 0..400 {
        let policy = ALL[round % ALL.len()];
        let balancer = aware(policy).panic_below(0.0);
        let specs: Vec<_> = (0..=rng.below(30))
            .map(|number| EndpointSpec {
                weight: 1 + u32::try_from(rng.below(9)).unwrap(),
                priority: u32::try_from(rng.below(40) / 10).unwrap(),
                zone: ["a", "b", "c", "d"].get(rng.below(5)).map(|zone| (*zone).to_owned()),
                ..EndpointSpec::at(SocketAddr::from((
                    [127, 0, 0, 1],
                    1 + u16::try_from(number).unwrap(),
                )))
            })
            .collect();
        let set = balancer.prepare(EndpointSet::build(&specs, None, now));
        for member in set.members() {
            if rng.below(3) == 0 {
                member.endpoint.set_health(Health::Unhealthy, now);
            }
        }
        balancer.review(&set, now);
        let shares: f64 = set.shares().map(|part| part.share).sum();
        let parts = set.shares().count();
        assert!(parts == 0 || (shares - 1.0).abs() < 1e-9, "{shares}");
        let any = set.members().iter().any(|member| member.endpoint.is_available());
        for _ in 0..50 {
            let picked = balancer.pick(&set, &Tried::new(), now, &mut rng);
            assert_eq!(picked.is_some(), any, "{policy:?}");
            assert!(picked.is_none_or(|picked| picked.endpoint().is_available()));
        }
        let first =
            set.members().iter().filter(|m| m.endpoint.is_available()).map(|m| m.priority).min();
        let ours = |member: &&Member| {
            Some(member.priority) == first
                && member.endpoint.zone.as_deref() == Some("a")
                && member.endpoint.is_available()
        };
        if set.members().iter().any(|member| ours(&member)) && parts > 0 {
            let share = set.shares().find(|part| {
                Some(part.priority) == first && part.zone.as_deref().is_none_or(|zone| zone == "a")
            });
            assert!(share.unwrap().share > 0.0, "{:?}", set.shares().collect::<Vec<_>>());
        }
    }
}
