use std::net::SocketAddr;

use super::*;

fn spec(port: u16, weight: u32) -> EndpointSpec {
    EndpointSpec { weight, ..EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], port))) }
}

fn set(weights: &[u32]) -> EndpointSet {
    let specs: Vec<_> = (1..).zip(weights).map(|(port, weight)| spec(port, *weight)).collect();
    EndpointSet::build(&specs, None, Instant::now())
}

fn share(allowed: bool) -> u32 {
    if allowed { FULL } else { 0 }
}

fn ids(set: &EndpointSet) -> Vec<u64> {
    set.members().iter().map(|member| member.endpoint.id).collect()
}

#[test]
fn what_stays_keeps_its_state_and_what_goes_is_retired() {
    let now = Instant::now();
    let before = EndpointSet::build(&[spec(1, 1), spec(2, 1), spec(3, 1)], None, now);
    let _busy = before.members()[1].endpoint.start(now);
    let after = EndpointSet::build(&[spec(4, 1), spec(2, 7), spec(3, 1)], Some(&before), now);
    assert_eq!(ids(&after)[1..], ids(&before)[1..]);
    assert_eq!((after.members()[1].endpoint.in_flight(), after.members()[1].weight), (1, 7));
    let retired = |set: &EndpointSet| -> Vec<bool> {
        set.members().iter().map(|member| member.endpoint.is_retired()).collect()
    };
    assert_eq!(retired(&before), [true, false, false]);
    assert_eq!(retired(&after), [false; 3]);
}

#[test]
fn an_address_with_another_zone_or_label_is_another_endpoint() {
    let now = Instant::now();
    let before = EndpointSet::build(&[spec(1, 1), spec(2, 1)], None, now);
    let moved = EndpointSpec { zone: Some("b".to_owned()), ..spec(1, 1) };
    let labels = [("version".to_owned(), "2".to_owned())].into_iter().collect();
    let relabelled = EndpointSpec { labels, ..spec(2, 1) };
    let after = EndpointSet::build(&[moved, relabelled], Some(&before), now);
    assert!(ids(&after).iter().all(|id| !ids(&before).contains(id)));
    assert!(before.members().iter().all(|member| member.endpoint.is_retired()));
}

#[test]
fn an_address_that_returns_starts_anew() {
    let now = Instant::now();
    let first = EndpointSet::build(&[spec(1, 1)], None, now);
    let without = EndpointSet::build(&[], Some(&first), now);
    let again = EndpointSet::build(&[spec(1, 1)], Some(&without), now);
    assert_ne!(ids(&first), ids(&again));
    assert!(first.members()[0].endpoint.is_retired());
    assert!(!again.members()[0].endpoint.is_retired());
}

#[test]
fn of_two_specs_with_one_address_the_first_counts() {
    let now = Instant::now();
    let twice = [spec(1, 5), spec(2, 1), spec(1, 9)];
    let set = EndpointSet::build(&twice, None, now);
    assert_eq!((set.len(), set.members()[0].weight), (2, 5));
    let zoned = EndpointSpec { zone: Some("b".to_owned()), ..spec(1, 9) };
    let rebuilt = EndpointSet::build(&[spec(1, 5), zoned], Some(&set), now);
    assert_eq!(rebuilt.len(), 1);
    assert_eq!(rebuilt.members()[0].endpoint.id, set.members()[0].endpoint.id);
    assert!(!rebuilt.members()[0].endpoint.is_retired());
}

#[test]
fn weights_outside_their_range_are_brought_into_it() {
    let set = set(&[0, u32::MAX]);
    assert_eq!(set.members().iter().map(|member| member.weight).collect::<Vec<_>>(), [1, 1000]);
}

#[test]
fn a_retired_set_retires_all_its_endpoints() {
    let set = set(&[1, 2]);
    set.retire();
    assert!(set.members().iter().all(|member| member.endpoint.is_retired()));
}

#[test]
fn turns_give_each_member_exactly_its_weight_in_every_round() {
    let mut rng = Rng::from_seed(5);
    for case in 0..200 {
        let weights: Vec<u32> = (0..2 + rng.below(20))
            .map(|_| u32::try_from(1 + rng.below(if case % 2 == 0 { 6 } else { 1000 })).unwrap())
            .collect();
        let set = set(&weights);
        let round: u32 =
            if set.is_even() { weights.len().try_into().unwrap() } else { weights.iter().sum() };
        let start = rng.bits() >> 1;
        let mut turns = vec![0; weights.len()];
        for offset in 0..u64::from(round) {
            turns[set.turn(start + offset)] += 1;
        }
        let expected = if set.is_even() { vec![1; weights.len()] } else { weights.clone() };
        assert_eq!(turns, expected, "seed 5: {weights:?} from {start}");
    }
}

#[test]
fn turns_do_not_bunch() {
    let mut rng = Rng::from_seed(6);
    for _ in 0..50 {
        let weights: Vec<u32> =
            (0..2 + rng.below(10)).map(|_| u32::try_from(1 + rng.below(100)).unwrap()).collect();
        let set = set(&weights);
        let total = f64::from(weights.iter().sum::<u32>());
        let mut turns = vec![0.0; weights.len()];
        for turn in 1..=1_000_u32 {
            turns[set.turn(u64::from(turn))] += 1.0;
            for (had, weight) in turns.iter().zip(&weights) {
                let due = f64::from(turn) * f64::from(*weight) / total;
                assert!((had - due).abs() <= 3.0, "seed 6: {weights:?} turn {turn}");
            }
        }
    }
}

#[test]
fn a_condition_that_few_members_meet_is_met_all_the_same() {
    let mut rng = Rng::from_seed(8);
    let even = set(&[1; 1_000]);
    let heavy = set(&[1000, 1, 3]);
    let mut light = [0_u32; 3];
    for _ in 0..4_000 {
        assert_eq!(even.draw(&mut rng, |index| share(index == 777)), Some(777));
        light[heavy.draw(&mut rng, |index| share(index != 0)).unwrap()] += 1;
    }
    assert_eq!(light[0], 0);
    assert!((2_850..3_150).contains(&light[2]), "seed 8: {light:?}");
    assert_eq!(even.draw(&mut rng, |_| 0), None);
    assert_eq!(EndpointSet::default().draw(&mut rng, |_| FULL), None);
}

#[test]
fn steps_visit_every_unit_and_spread_evenly() {
    for total in 3..5_000 {
        let quotient = largest_quotient(total, golden_step(total));
        assert!(quotient.is_some_and(|largest| largest <= 8), "{total}: {quotient:?}");
    }
    for total in [1_000_003, 10_000_000, 4_000_000_000] {
        assert!(largest_quotient(total, golden_step(total)).is_some(), "{total}");
    }
}
