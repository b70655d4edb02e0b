use std::sync::Arc;

use super::*;
use crate::base::rng::Rng;
use crate::policy::retry_budget::RetryBudget;
use crate::policy::retry_floor::RetryFloor;

const SECOND: Duration = Duration::from_secs(1);

fn covered(_: bool) -> Cover {
    Cover::Paid
}

fn bare(_: bool) -> Cover {
    Cover::Empty
}

/// Another use is at risk, and the budget would pay for both.
fn beside_another(alone: bool) -> Cover {
    Cover::of(2.0, 1, alone)
}

/// Proven.
fn trusted() -> ReuseTrust {
    let mut trust = ReuseTrust::default();
    (0..PROOF).for_each(|_| trust.succeeded());
    trust
}

#[test]
fn a_first_use_needs_cover_and_ten_successes_need_no_more() {
    let (mut trust, now) = (ReuseTrust::default(), Instant::now());
    for _ in 0..PROOF {
        assert_eq!(trust.ask(now, true, beside_another), Reuse::AtRisk);
        assert_eq!(trust.ask(now, true, bare), Reuse::No);
        trust.succeeded();
    }
    assert_eq!(trust.ask(now, true, bare), Reuse::Free);
}

#[test]
fn what_is_never_sent_again_needs_no_cover_until_there_was_a_race() {
    let (mut trust, now) = (ReuseTrust::default(), Instant::now());
    assert_eq!(trust.ask(now, false, bare), Reuse::Free);
    trust.raced(now);
    assert_eq!(trust.ask(now + SECOND, false, covered), Reuse::No);
    assert_eq!(trust.ask(now + SECOND, true, covered), Reuse::AtRisk);
    assert_eq!(trust.ask(now + SECOND, true, beside_another), Reuse::No, "one at a time");
    let late = now + SECOND * 60;
    assert_eq!(trust.ask(late, true, beside_another), Reuse::No, "however long it takes");
}

#[test]
fn cover_is_for_one_more_than_those_at_risk() {
    for (available, already, alone, expected) in [
        (1.0, 0, false, Cover::Paid),
        (1.0, 0, true, Cover::Paid),
        (0.99, 0, false, Cover::Empty),
        (2.99, 2, false, Cover::Taken),
        (3.0, 2, false, Cover::Paid),
        (3.0, 1, true, Cover::Taken),
        (0.5, 3, true, Cover::Empty),
    ] {
        assert_eq!(Cover::of(available, already, alone), expected, "{available} {already}");
    }
}

#[test]
fn rests_double_up_to_the_longest_and_proof_forgets_them() {
    let (mut trust, mut now) = (ReuseTrust::default(), Instant::now());
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
        trust.raced(now);
        // A use that began before the rest changes nothing.
        trust.raced(now);
        let rest = SECOND * seconds;
        assert_eq!(trust.ask(now + rest - SECOND / 1000, true, covered), Reuse::No);
        now += rest;
        assert_eq!(trust.ask(now, true, covered), Reuse::AtRisk, "after {seconds} s");
    }
    assert_eq!((trust.take_rests(), trust.take_rests()), (8, 0));
    (0..PROOF).for_each(|_| trust.succeeded());
    assert_eq!(trust, trusted());
}

#[test]
fn trust_survives_a_restart_and_not_a_habit() {
    let now = Instant::now();
    let rests = |pattern: &str, times: usize| {
        let mut trust = trusted();
        for use_ in pattern.chars().cycle().take(pattern.len() * times) {
            if use_ == 'x' { trust.raced(now) } else { trust.succeeded() }
        }
        trust.take_rests() > 0
    };
    assert!(!rests("..........xx...................................", 1), "a restart under two");
    assert!(rests("xxx", 1), "three in a row");
    assert!(rests("....x", 20), "one in five");
    assert!(!rests("...................x", 50), "one in twenty: the budget pays for it");
}

#[test]
fn a_trial_without_cover_does_not_make_connections_anew_for_ever() {
    let (mut trust, now) = (ReuseTrust::default(), Instant::now());
    assert_eq!(trust.ask(now, true, bare), Reuse::No);
    assert_eq!(trust.ask(now + SECOND / 2, true, bare), Reuse::No);
    assert_eq!(trust.ask(now + SECOND, true, bare), Reuse::Free);
    // Not proven: one race is enough.
    trust.raced(now + SECOND);
    assert_eq!(trust.ask(now + SECOND, true, covered), Reuse::No);
    // Cover in between starts the time anew.
    let mut trust = ReuseTrust::default();
    trust.ask(now, true, bare);
    assert_eq!(trust.ask(now + SECOND / 2, true, covered), Reuse::AtRisk);
    assert_eq!(trust.ask(now + SECOND, true, bare), Reuse::No);
}

/// Callers at once, spread over workers, against an upstream that closes under each use with probability `closes`, with the
/// default budget, in virtual time. Returns races that nobody paid for, all races, and connections made anew although one was kept.
fn race(seed: u64, (workers, callers): (usize, u32), closes: f64, millis: u64) -> (u32, u32, u32) {
    let (mut rng, start) = (Rng::from_seed(seed), Instant::now());
    let floor = Arc::new(RetryFloor::new(3.0, start));
    let budget = || RetryBudget::sharing(0.2, Arc::clone(&floor), SECOND * 10, start);
    let mut workers: Vec<_> = (0..workers).map(|_| (budget(), ReuseTrust::default())).collect();
    let (mut unpaid, mut races, mut anew) = (0, 0, 0);
    for round in 0..10_000 / callers {
        let now = start + Duration::from_millis(millis) * round;
        let mut at_risk = 0;
        let mut uses = Vec::new();
        for _ in 0..callers {
            let worker = rng.below(workers.len());
            let (budget, trust) = &mut workers[worker];
            budget.deposit(now);
            if round == 0 {
                continue;
            }
            let verdict =
                trust.ask(now, true, |alone| Cover::of(budget.available(now), at_risk, alone));
            at_risk += u32::from(verdict == Reuse::AtRisk);
            anew += u32::from(verdict == Reuse::No);
            uses.extend((verdict != Reuse::No).then_some(worker));
        }
        for worker in uses {
            let (budget, trust) = &mut workers[worker];
            if rng.fraction() < closes {
                races += 1;
                trust.raced(now);
                unpaid += u32::from(!budget.try_withdraw(now));
            } else {
                trust.succeeded();
            }
        }
    }
    (unpaid, races, anew)
}

#[test]
fn no_race_goes_unpaid_whatever_the_upstream_closes_under() {
    for seed in 0..4 {
        for callers in [(1, 1), (1, 8), (1, 50), (4, 16), (4, 100)] {
            for closes in [1.0, 0.9, 0.5, 0.34, 0.2, 0.1, 0.02] {
                for millis in [1, 20, 1000] {
                    let (unpaid, races, _) = race(seed, callers, closes, millis);
                    let case = format!(
                        "seed {seed}, {callers:?} workers and callers, {closes}, {millis} ms"
                    );
                    assert_eq!(unpaid, 0, "{case}: {races} races");
                }
            }
        }
    }
}

#[test]
fn an_upstream_that_never_closes_is_reused_and_one_that_always_does_is_not() {
    let (_, races, anew) = race(1, (1, 8), 0.0, 1);
    assert!(races == 0 && anew <= 8, "{anew}");
    let (_, races, anew) = race(1, (1, 1), 1.0, 1);
    // 10 s: a race at once, and after rests of 1, 2 and 4 s.
    assert_eq!((races, anew), (4, 9_995));
}
