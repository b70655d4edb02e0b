use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicU32;

use super::*;
use crate::base::rng::Rng;

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn place(entry: Entry) -> usize {
    let Entry::At(at) = entry else { panic!("{entry:?}") };
    at
}

#[test]
fn a_source_has_so_many_and_one_that_leaves_makes_room() {
    let sources = Sources::new(100, 1);
    let places: Vec<_> = (0..3).map(|_| place(sources.enter(v4(1), 3))).collect();
    assert_eq!(sources.enter(v4(1), 3), Entry::Refused);
    assert!(matches!(sources.enter(v4(2), 3), Entry::At(_)), "another one is not its concern");
    sources.leave(places[0]);
    assert!(matches!(sources.enter(v4(1), 3), Entry::At(_)));
    assert_eq!(sources.enter(v4(1), 3), Entry::Refused);
    assert!(matches!(sources.enter(v4(1), 4), Entry::At(_)), "a reload may raise it");
}

#[test]
fn ipv4_on_an_ipv6_socket_is_the_same_source_and_ipv6_counts_by_network() {
    let sources = Sources::new(100, 1);
    sources.enter(v4(1), 1);
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    assert_eq!(sources.enter(mapped.into(), 1), Entry::Refused);
    let in_network =
        |network, host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
    sources.enter(in_network(1, 1), 1);
    assert_eq!(sources.enter(in_network(1, 2), 1), Entry::Refused);
    assert!(matches!(sources.enter(in_network(2, 1), 1), Entry::At(_)));
}

#[test]
fn walks_agree_with_a_plain_count() {
    let mut rng = Rng::from_seed(7);
    let sources = Sources::new(1_000, 3);
    let mut held: Vec<(u8, usize)> = Vec::new();
    for step in 0..50_000 {
        let source = u8::try_from(rng.below(200)).unwrap();
        let has = held.iter().filter(|(whose, _)| *whose == source).count();
        if rng.below(2) == 0 && !held.is_empty() {
            let (_, at) = held.swap_remove(rng.below(held.len()));
            sources.leave(at);
            continue;
        }
        match sources.enter(v4(source), 5) {
            Entry::At(at) => {
                assert!(has < 5, "step {step}");
                held.push((source, at));
            }
            Entry::Refused => assert_eq!(has, 5, "step {step}"),
            Entry::Uncounted => panic!("no place at step {step}"),
        }
    }
    held.into_iter().for_each(|(_, at)| sources.leave(at));
    assert!(sources.slots.iter().all(|slot| slot.load(SeqCst) & COUNT == 0), "nothing is left");
}

#[test]
fn workers_at_once_never_let_in_more_than_the_maximum() {
    const MAX: u32 = 3;
    let sources = Sources::new(100, 5);
    let inside: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (sources, inside) = (&sources, &inside);
            scope.spawn(move || {
                let mut rng = Rng::from_seed(worker);
                for _ in 0..20_000 {
                    let source = rng.below(4);
                    let entry = sources.enter(v4(u8::try_from(source).unwrap()), MAX);
                    let Entry::At(at) = entry else { continue };
                    let now = inside[source].fetch_add(1, SeqCst) + 1;
                    assert!(now <= MAX, "{now} at once");
                    inside[source].fetch_sub(1, SeqCst);
                    sources.leave(at);
                }
            });
        }
    });
    assert!(sources.slots.iter().all(|slot| slot.load(SeqCst) & COUNT == 0), "nothing is left");
}
