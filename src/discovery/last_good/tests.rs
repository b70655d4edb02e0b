use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::*;
use crate::base::rng::Rng;

fn endpoint(port: u16) -> EndpointSpec {
    EndpointSpec::at(SocketAddr::from(([10, 0, 0, 1], port)))
}

fn set(ports: &[u16]) -> Vec<EndpointSpec> {
    ports.iter().map(|port| endpoint(*port)).collect()
}

fn failure() -> Trouble {
    Trouble::new(ErrorKind::Timeout, "no answer")
}

fn ports(verdict: &Verdict) -> Option<Vec<String>> {
    let published = verdict.publish.as_ref()?;
    Some(published.iter().map(|endpoint| endpoint.address.to_string()).collect())
}

#[test]
fn a_rotated_set_is_no_change_and_an_address_counts_once() {
    let (mut state, now) = (LastGood::default(), Instant::now());
    let heavy = EndpointSpec { weight: 7, ..endpoint(2) };
    let first = state.on_set(vec![heavy.clone(), endpoint(1), endpoint(2)], now);
    assert_eq!(first.publish.as_deref(), Some(&[endpoint(1), heavy.clone()][..]));
    assert_eq!(first.standing, Standing::Fresh);
    let again = state.on_set(vec![endpoint(1), heavy], now);
    assert_eq!(again, Verdict { publish: None, trouble: None, standing: Standing::Fresh });
}

#[test]
fn a_failure_keeps_the_set_however_often_it_comes() {
    let (mut state, now) = (LastGood::default(), Instant::now());
    let unknown = state.on_failure(failure());
    assert_eq!((unknown.standing, unknown.publish), (Standing::Failing, None));
    state.on_set(set(&[1]), now);
    for misses in 1..1_000 {
        let verdict = state.on_failure(failure());
        assert_eq!((verdict.standing, ports(&verdict)), (Standing::Stale, None));
        assert_eq!(verdict.trouble, Some(failure()));
        assert_eq!(state.misses(), misses);
    }
    assert!(state.holds_endpoints());
    state.on_set(set(&[1]), now);
    assert_eq!(state.misses(), 0);
}

#[test]
fn three_empty_answers_five_seconds_apart_empty_the_set() {
    let (mut state, start) = (LastGood::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    state.on_set(set(&[1]), start);
    assert_eq!(state.confirm_at(), None);
    // What is told sooner than it was asked for counts once.
    for seconds in [0, 1, 4, 5, 6, 9] {
        let verdict = state.on_set(vec![], at(seconds));
        assert_eq!((verdict.standing, &verdict.publish), (Standing::Stale, &None), "{seconds}");
        assert_eq!(verdict.trouble.unwrap().kind, ErrorKind::Empty);
        assert!(state.confirm_at().unwrap() > at(seconds));
    }
    let last = state.on_set(vec![], at(10));
    assert_eq!((last.standing, ports(&last)), (Standing::Empty, Some(vec![])));
    assert_eq!(state.confirm_at(), None);
    let after = state.on_set(vec![], at(11));
    assert_eq!((after.standing, after.publish), (Standing::Empty, None));
}

#[test]
fn anything_else_between_empty_answers_starts_the_count_again() {
    let interruptions: [fn(&mut LastGood, Instant); 2] = [
        |state, _| drop(state.on_failure(failure())),
        |state, now| drop(state.on_set(set(&[1]), now)),
    ];
    for interrupt in interruptions {
        let (mut state, start) = (LastGood::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        state.on_set(set(&[1]), start);
        state.on_set(vec![], at(0));
        state.on_set(vec![], at(5));
        interrupt(&mut state, at(6));
        assert_eq!(state.confirm_at(), None);
        assert_eq!(state.on_set(vec![], at(10)).standing, Standing::Stale);
        assert_eq!(state.on_set(vec![], at(15)).standing, Standing::Stale);
        assert_eq!(state.on_set(vec![], at(20)).standing, Standing::Empty);
    }
}

#[test]
fn with_nothing_to_lose_an_empty_answer_is_published_at_once() {
    let (mut state, now) = (LastGood::default(), Instant::now());
    let verdict = state.on_set(vec![], now);
    assert_eq!((verdict.standing, ports(&verdict)), (Standing::Empty, Some(vec![])));
}

#[test]
fn a_set_beyond_the_bound_is_a_failure() {
    let (mut state, now) = (LastGood::default(), Instant::now());
    state.on_set(set(&[1]), now);
    let huge = vec![endpoint(2); MAX_ENDPOINTS + 1];
    let verdict = state.on_set(huge, now);
    assert_eq!((verdict.standing, verdict.publish), (Standing::Stale, None));
    assert_eq!(verdict.trouble.unwrap().kind, ErrorKind::Malformed);
}

/// Invariants: what is published is sorted, unique and never the same twice in a row; endpoints are lost to an empty answer
/// only 10 s after the first of a row, and never to a failure.
#[test]
fn random_answers_keep_the_invariants() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let (mut state, mut now) = (LastGood::default(), Instant::now());
        let mut held: Option<Arc<[EndpointSpec]>> = None;
        let mut empty_since = None;
        for step in 0..200 {
            now += rng.duration_up_to(Duration::from_secs(6));
            let (verdict, empty) = match rng.below(6) {
                0 => (state.on_failure(failure()), false),
                1 | 2 => {
                    let ports: Vec<u16> = (0..=rng.below(4))
                        .map(|_| u16::try_from(rng.below(5)).unwrap() + 1)
                        .collect();
                    (state.on_set(set(&ports), now), false)
                }
                _ => (state.on_set(vec![], now), true),
            };
            empty_since = if empty { empty_since.or(Some(now)) } else { None };
            let at = format!("seed {seed}, step {step}");
            if let Some(new) = verdict.publish {
                assert_ne!(held.as_deref(), Some(&new[..]), "{at}");
                let unique: BTreeSet<_> = new.iter().map(|endpoint| &endpoint.address).collect();
                assert!(
                    unique.into_iter().eq(new.iter().map(|endpoint| &endpoint.address)),
                    "{at}"
                );
                let had = held.as_ref().is_some_and(|set| !set.is_empty());
                if had && new.is_empty() {
                    let waited = now - empty_since.unwrap();
                    assert!(waited >= SPACING * (CONFIRMATIONS - 1), "{at}: {waited:?}");
                }
                held = Some(new);
            }
            let holds = held.as_ref().is_some_and(|set| !set.is_empty());
            assert_eq!(state.holds_endpoints(), holds, "{at}");
            let kept = matches!(verdict.standing, Standing::Fresh | Standing::Stale);
            assert_eq!(kept, holds, "{at}");
        }
    }
}
