use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::*;

const ALL: [Resource; 3] = [Resource::Connections, Resource::InFlight, Resource::Pending];

fn of(connections: u32, in_flight: u32, pending: u32) -> LimitSettings {
    LimitSettings {
        connections: Some(connections),
        in_flight: Some(in_flight),
        pending: Some(pending),
    }
}

#[test]
fn a_full_limit_refuses_until_a_permit_is_dropped() {
    let limits = Limits::new(of(1, 2, 0));
    let first = limits.try_in_flight().unwrap();
    let second = limits.try_in_flight().unwrap();
    assert!(limits.try_in_flight().is_none());
    drop(first);
    assert!(limits.try_in_flight().is_some());
    drop(second);
    assert_eq!(limits.current(Resource::InFlight), 0);
}

#[test]
fn each_resource_counts_for_itself() {
    let limits = Limits::new(of(1, 1, 0));
    let _connection = limits.try_connection().unwrap();
    let _request = limits.try_in_flight().unwrap();
    assert!(limits.try_pending().is_none());
    assert_eq!(ALL.map(|resource| limits.current(resource)), [1, 1, 0]);
    assert_eq!(ALL.map(|resource| limits.maximum(resource)), [Some(1), Some(1), Some(0)]);
}

#[test]
fn without_a_maximum_places_are_only_counted() {
    let limits = Limits::new(LimitSettings::default());
    let permits: Vec<_> = (0..5_000).map(|_| limits.try_connection().unwrap()).collect();
    assert_eq!(limits.current(Resource::Connections), 5_000);
    assert_eq!(limits.maximum(Resource::Connections), None);
    drop(permits);
    assert_eq!(limits.current(Resource::Connections), 0);
}

#[test]
fn a_lowered_maximum_waits_for_what_is_above_it() {
    let limits = Limits::new(of(3, 3, 3));
    let mut permits: Vec<_> = (0..3).map(|_| limits.try_pending().unwrap()).collect();
    limits.set(of(1, 1, 1));
    assert_eq!(limits.current(Resource::Pending), 3);
    permits.truncate(1);
    assert!(limits.try_pending().is_none());
    permits.clear();
    assert!(limits.try_pending().is_some());
}

#[test]
fn workers_that_compete_never_exceed_the_maximum_and_lose_no_place() {
    const MOST: u32 = 3;
    let limits = Limits::new(of(MOST, MOST, MOST));
    let holders = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (limits, holders) = (Arc::clone(&limits), Arc::clone(&holders));
            std::thread::spawn(move || {
                let mut granted = 0_u32;
                for round in 0..20_000 {
                    let Some(permit) = limits.try_acquire(ALL[1]) else { continue };
                    // Counted inside the permit's life, so never above the limit.
                    assert!(holders.fetch_add(1, Ordering::SeqCst) < MOST);
                    if round % 64 == 0 {
                        std::thread::yield_now();
                    }
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                    granted += 1;
                }
                granted
            })
        })
        .collect();
    let granted: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert!(granted > 0);
    assert_eq!(limits.current(Resource::InFlight), 0);
    let places = std::iter::from_fn(|| limits.try_in_flight()).collect::<Vec<_>>();
    assert_eq!(places.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn permits_never_leak_and_never_exceed_the_maximum(
        maxima in prop::array::uniform3(prop::option::of(0..6_u32)),
        steps in prop::collection::vec((any::<bool>(), 0..3_usize, any::<prop::sample::Index>()), 0..300),
    ) {
        let [connections, in_flight, pending] = maxima;
        let limits = Limits::new(LimitSettings { connections, in_flight, pending });
        let mut held: [Vec<Permit>; 3] = Default::default();
        for (take, which, index) in steps {
            let held = &mut held[which];
            let before = held.len();
            if take {
                let permit = limits.try_acquire(ALL[which]);
                let room = maxima[which].is_none_or(|max| before < max as usize);
                prop_assert_eq!(permit.is_some(), room);
                held.extend(permit);
            } else if before > 0 {
                drop(held.swap_remove(index.index(before)));
            }
            prop_assert_eq!(limits.current(ALL[which]) as usize, held.len());
            prop_assert!(maxima[which].is_none_or(|max| held.len() <= max as usize));
        }
        drop(held);
        prop_assert_eq!(ALL.map(|resource| limits.current(resource)), [0, 0, 0]);
    }
}
