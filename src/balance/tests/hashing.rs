//! Which endpoint a key goes to, and what becomes of that when endpoints come, go, fail and fill up.

use super::*;
use crate::balance::standing::{Ejection, millis};
use crate::base::address::Address;

const HASHING: [Policy; 3] = [Policy::RingHash(None), Policy::RingHash(Some(125)), Policy::Maglev];

fn specs(weights: impl IntoIterator<Item = u32>) -> Vec<EndpointSpec> {
    let spec = |(number, weight): (u32, u32)| EndpointSpec {
        weight,
        ..EndpointSpec::at(SocketAddr::from(((0x0a00_0000 | number).to_be_bytes(), 80)))
    };
    (1..).zip(weights).map(spec).collect()
}

fn built(balancer: &Balancer, specs: &[EndpointSpec], now: Instant) -> EndpointSet {
    let set = balancer.prepare(EndpointSet::build(specs, None, now));
    balancer.review(&set, now);
    set
}

fn key(number: u32) -> Key {
    Key::of(&number.to_le_bytes())
}

/// Where each of the first `keys` keys goes.
fn homes(balancer: &Balancer, set: &EndpointSet, keys: u32, now: Instant) -> Vec<Address> {
    let mut rng = Rng::from_seed(1);
    let home = |number| {
        let picked = balancer.pick_for(Some(key(number)), set, &Tried::new(), now, &mut rng);
        picked.unwrap().endpoint().address.clone()
    };
    (0..keys).map(home).collect()
}

fn counts_by_key(balancer: &Balancer, set: &EndpointSet, keys: u32, now: Instant) -> Vec<f64> {
    let mut counts = vec![0.0; set.len()];
    for home in homes(balancer, set, keys, now) {
        let at = |member: &Member| member.endpoint.address == home;
        counts[set.members().iter().position(at).unwrap()] += 1.0;
    }
    counts
}

fn moved(before: &[Address], after: &[Address]) -> f64 {
    let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
    moved as f64 / before.len() as f64
}

#[test]
fn a_key_has_one_home_in_every_sidecar_whatever_the_order_of_its_endpoints() {
    let now = Instant::now();
    for policy in HASHING {
        let mut specs = specs([1, 5, 2, 3, 1, 1]);
        let one = Balancer::starting_at(policy, 17);
        let before = homes(&one, &built(&one, &specs, now), 2_000, now);
        specs.reverse();
        specs.swap(0, 3);
        let other = Balancer::new(policy);
        assert_eq!(before, homes(&other, &built(&other, &specs, now), 2_000, now), "{policy:?}");
    }
}

#[test]
fn keys_are_shared_in_proportion_to_the_weights() {
    let now = Instant::now();
    for weights in [[1; 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [40, 1, 1, 1, 1, 1, 1, 1, 1]] {
        for policy in HASHING {
            let balancer = Balancer::new(policy);
            let set = built(&balancer, &specs(weights), now);
            let counts = counts_by_key(&balancer, &set, PICKS, now);
            if policy == Policy::Maglev {
                // 8 degrees of freedom: above 26.1 with a chance of 0.1 %.
                let statistic = chi_square(&counts, &weights);
                assert!(statistic < 26.1, "{weights:?}: {statistic} {counts:?}");
            }
            let total = f64::from(weights.iter().sum::<u32>());
            for (count, weight) in counts.iter().zip(weights) {
                let ratio = count / (f64::from(PICKS) * f64::from(weight) / total);
                assert!((0.88..1.12).contains(&ratio), "{policy:?} {weights:?} {counts:?}");
            }
        }
    }
}

#[test]
fn when_one_of_a_hundred_leaves_hardly_any_other_key_moves() {
    let now = Instant::now();
    for (policy, beyond) in [
        (Policy::RingHash(None), 0.03),
        (Policy::RingHash(Some(125)), 0.03),
        (Policy::Maglev, 0.02),
    ] {
        let balancer = Balancer::new(policy);
        let all = specs([1; 100]);
        let before = homes(&balancer, &built(&balancer, &all, now), PICKS, now);
        for gone in [0, 37, 99] {
            let mut left = all.clone();
            let address = left.remove(gone).address;
            let after = homes(&balancer, &built(&balancer, &left, now), PICKS, now);
            let ideal =
                before.iter().filter(|home| **home == address).count() as f64 / before.len() as f64;
            let moved = moved(&before, &after);
            println!("{policy:?}: {moved:.4} moved, {ideal:.4} had to");
            assert!(moved >= ideal && moved - ideal <= beyond, "{policy:?}: {moved} {ideal}");
        }
    }
}

#[test]
fn what_is_out_loses_its_keys_to_all_others_and_gets_them_back() {
    let now = Instant::now();
    for policy in HASHING {
        let balancer = Balancer::new(policy);
        let set = built(&balancer, &specs([1; 10]), now);
        let before = homes(&balancer, &set, 20_000, now);
        let out = &set.members()[3].endpoint;
        let name = out.address.clone();
        out.set_health(Health::Unhealthy, now);
        balancer.review(&set, now);
        let after = homes(&balancer, &set, 20_000, now);
        let mut new_homes = std::collections::BTreeMap::new();
        for (before, after) in before.iter().zip(&after) {
            if *before == name {
                *new_homes.entry(after.to_string()).or_insert(0) += 1;
            } else {
                assert_eq!(before, after, "{policy:?}: no other key moves");
            }
        }
        assert!(!new_homes.contains_key(&name.to_string()) && new_homes.len() == 9, "{policy:?}");
        assert!(new_homes.values().all(|keys| *keys < 500), "{policy:?} {new_homes:?}");
        out.set_health(Health::Healthy, now);
        balancer.review(&set, now);
        assert_eq!(before, homes(&balancer, &set, 20_000, now), "{policy:?}");
    }
}

#[test]
fn a_retry_walks_on_to_the_same_next_endpoint_and_through_all_of_them() {
    let now = Instant::now();
    for policy in HASHING {
        let balancer = Balancer::new(policy);
        let set = built(&balancer, &specs([1, 2, 1, 4, 1]), now);
        for number in 0..200 {
            let order = |seed| {
                let (mut tried, mut rng) = (Tried::new(), Rng::from_seed(seed));
                let walk = (0..5).map(|_| {
                    let picked =
                        balancer.pick_for(Some(key(number)), &set, &tried, now, &mut rng).unwrap();
                    tried.note(picked.endpoint().id);
                    place(&set, &picked)
                });
                walk.collect::<Vec<_>>()
            };
            let walk = order(1);
            assert_eq!(walk, order(2), "{policy:?}");
            let mut sorted = walk.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4], "{policy:?} {walk:?}");
        }
    }
}

#[test]
fn hardly_anything_left_is_found_whatever_the_key() {
    let now = Instant::now();
    for policy in HASHING {
        let balancer = Balancer::new(policy).panic_below(0.0);
        let set = built(&balancer, &specs([1; 1_000]), now);
        for member in &set.members()[..999] {
            member.endpoint.set_health(Health::Unhealthy, now);
        }
        balancer.review(&set, now);
        let counts = counts_by_key(&balancer, &set, 300, now);
        assert!((counts[999] - 300.0).abs() < 0.5, "{policy:?}");
        set.members()[999].endpoint.set_health(Health::Unhealthy, now);
        let mut rng = Rng::from_seed(1);
        assert!(balancer.pick_for(Some(key(1)), &set, &Tried::new(), now, &mut rng).is_none());
    }
}

#[test]
fn a_hot_key_fills_no_endpoint_beyond_the_bound() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(6));
    for (weights, percent) in [([1; 8], 125_u32), ([1; 8], 200), ([5, 1, 1, 1, 1, 1, 1, 1], 150)] {
        let balancer = Balancer::new(Policy::RingHash(Some(percent)));
        let set = built(&balancer, &specs(weights), now);
        let total = f64::from(weights.iter().sum::<u32>());
        let mut running = Vec::new();
        for count in 1..=400_u32 {
            let mut picked =
                balancer.pick_for(Some(key(7)), &set, &Tried::new(), now, &mut rng).unwrap();
            running.push(picked.start(now));
            for (member, weight) in set.members().iter().zip(weights) {
                let mean = f64::from(count) * f64::from(weight) / total;
                let most = (f64::from(percent) / 100.0 * mean).ceil().max(8.0);
                let load = f64::from(member.endpoint.in_flight());
                assert!(load <= most, "{count} in flight: {load} at one of weight {weight}");
            }
        }
        if (weights, percent) == ([1; 8], 125) {
            let loads = set.members().iter().map(|member| member.endpoint.in_flight());
            assert_eq!(
                (loads.clone().max(), loads.filter(|load| *load > 0).count()),
                (Some(63), 7)
            );
        }
        // Whoever has left makes room again.
        drop(running);
        let home = |rng: &mut Rng| {
            let picked = balancer.pick_for(Some(key(7)), &set, &Tried::new(), now, rng).unwrap();
            place(&set, &picked)
        };
        let first = home(&mut rng);
        let few: Vec<_> = (0..8).map(|_| set.members()[first].endpoint.start(now)).collect();
        assert_ne!(home(&mut rng), first);
        drop(few);
        assert_eq!(home(&mut rng), first);
    }
}

#[test]
fn slow_start_brings_keys_home_one_after_the_other() {
    let now = Instant::now();
    let window = Duration::from_secs(30);
    for policy in HASHING {
        let balancer = Balancer::new(policy).slow_start(Some(window));
        let all = specs([1; 5]);
        let sidecar = || {
            let before = built(&balancer, &all[..4], now);
            let set = balancer.prepare(EndpointSet::build(&all, Some(&before), now));
            balancer.review(&set, now);
            set
        };
        let (set, other) = (sidecar(), sidecar());
        let late = all[4].address.clone();
        let keys_of_late = |set: &EndpointSet, after: u64| {
            let now = now + Duration::from_secs(after);
            let homes = homes(&balancer, set, 20_000, now);
            let of_late = homes.iter().enumerate().filter(|(_, home)| **home == late);
            of_late.map(|(key, _)| key).collect::<std::collections::BTreeSet<usize>>()
        };
        let [at_once, halfway, at_the_end] = [0, 15, 30].map(|after| keys_of_late(&set, after));
        assert_eq!(keys_of_late(&other, 15), halfway, "another sidecar, {policy:?}");
        assert!(at_once.is_subset(&halfway) && halfway.is_subset(&at_the_end), "{policy:?}");
        let all = at_the_end.len() as f64;
        assert!((at_once.len() as f64 / all - 0.1).abs() < 0.03, "{policy:?}");
        assert!((halfway.len() as f64 / all - 0.55).abs() < 0.05, "{policy:?}");
    }
}

#[test]
fn without_a_key_the_choice_is_random_by_weight() {
    let now = Instant::now();
    let weights = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    for policy in HASHING {
        let balancer = Balancer::new(policy);
        let set = built(&balancer, &specs(weights), now);
        let mut rng = Rng::from_seed(21);
        let mut counts = vec![0.0; set.len()];
        for _ in 0..PICKS {
            let picked = balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap();
            counts[place(&set, &picked)] += 1.0;
        }
        assert!(chi_square(&counts, &weights) < 26.1, "{policy:?} {counts:?}");
    }
}

/// Picks of each endpoint with all keys.
fn spread(balancer: &Balancer, set: &EndpointSet, now: Instant) -> Vec<f64> {
    let mut rng = Rng::from_seed(8);
    let mut counts = vec![0.0; set.len()];
    for number in 0..20_000 {
        let picked = balancer.pick_for(Some(key(number)), set, &Tried::new(), now, &mut rng);
        counts[place(set, &picked.unwrap())] += 1.0;
    }
    counts
}

#[test]
fn health_panic_ejection_and_probes_work_with_every_policy() {
    let (now, mut rng) = (Instant::now(), Rng::from_seed(9));
    for policy in ALL.into_iter().chain(HASHING) {
        let balancer = Balancer::new(policy);
        let set = built(&balancer, &specs([1; 4]), now);
        let endpoint = |index: usize| &set.members()[index].endpoint;
        endpoint(0).set_health(Health::Unhealthy, now);
        balancer.review(&set, now);
        let counts = spread(&balancer, &set, now);
        assert!(counts[0] == 0.0 && counts[1..].iter().all(|c| *c > 5_000.0), "{policy:?}");
        // Three of four: panic.
        endpoint(1).set_health(Health::Unhealthy, now);
        endpoint(2).set_health(Health::Unhealthy, now);
        assert!(balancer.review(&set, now).panic);
        let counts = spread(&balancer, &set, now);
        assert!(counts.iter().all(|c| *c > 4_000.0), "{policy:?} {counts:?}");
        for index in 0..4 {
            endpoint(index).set_health(Health::Healthy, now);
            endpoint(index).standing.settle_ramp(now, None);
        }
        let until = millis(Duration::from_secs(10));
        let ejected = |state: standing::State| state.ejected(Ejection::Ejected, 1, until);
        endpoint(3).standing.update(|state| Some(ejected(state))).unwrap();
        balancer.review(&set, now);
        assert!(spread(&balancer, &set, now)[3] == 0.0, "{policy:?}");
        // Its time has passed: one probe, and no second while that runs.
        let later = now + Duration::from_secs(10);
        let mut probes = Vec::new();
        for number in 0..200 {
            let picked =
                balancer.pick_for(Some(key(number)), &set, &Tried::new(), later, &mut rng).unwrap();
            assert_eq!(picked.is_probe(), place(&set, &picked) == 3, "{policy:?}");
            probes.extend(picked.is_probe().then_some(picked));
        }
        assert_eq!(probes.len(), 1, "{policy:?}");
    }
}

#[test]
fn a_key_keeps_its_priority_and_its_zone_while_the_shares_stand() {
    let now = Instant::now();
    for policy in HASHING {
        let balancer = Balancer::new(policy).zone_aware(Some("a"));
        let mut specs = specs([1; 12]);
        for (index, spec) in specs.iter_mut().enumerate() {
            spec.priority = u32::from(index >= 8);
            spec.zone = Some(if index % 4 == 0 { "a" } else { "b" }.to_owned());
        }
        let set = built(&balancer, &specs, now);
        for member in &set.members()[1..6] {
            member.endpoint.set_health(Health::Unhealthy, now);
        }
        balancer.review(&set, now);
        let before = homes(&balancer, &set, 5_000, now);
        assert_eq!(before, homes(&balancer, &set, 5_000, now), "{policy:?}");
        let used: std::collections::HashSet<_> = before.into_iter().collect();
        assert!(used.len() >= 6, "{policy:?} {used:?}");
    }
}
