use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::*;
use crate::base::rng::Rng;

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);

fn budget(ratio: f64, floor: f64) -> (RetryBudget, Instant) {
    let now = Instant::now();
    (RetryBudget::new(ratio, floor, WINDOW, now), now)
}

fn drain(budget: &mut RetryBudget, now: Instant) -> u32 {
    (0..).take_while(|_| budget.try_withdraw(now)).count().try_into().unwrap()
}

#[test]
fn what_is_owed_is_earned_back_first_and_forgotten_with_its_window() {
    let start = Instant::now();
    let mut budget = RetryBudget::new(0.5, 0.0, Duration::from_secs(10), start);
    for _ in 0..3 {
        budget.withdraw(start);
        assert!(budget.available(start).abs() < 1e-9, "owed, never negative");
    }
    for _ in 0..6 {
        budget.deposit(start);
    }
    assert!(!budget.try_withdraw(start), "earned back");
    for _ in 0..2 {
        budget.deposit(start);
    }
    assert!(budget.try_withdraw(start) && !budget.try_withdraw(start));
    budget.withdraw(start);
    let later = start + Duration::from_secs(11);
    budget.deposit(later);
    budget.deposit(later);
    assert!(budget.try_withdraw(later), "forgotten");
}

#[test]
fn five_requests_earn_one_retry_at_twenty_percent() {
    let (mut budget, now) = budget(0.2, 0.0);
    for _ in 0..4 {
        budget.deposit(now);
    }
    assert!(!budget.try_withdraw(now));
    budget.deposit(now);
    assert!(budget.try_withdraw(now));
    assert!(!budget.try_withdraw(now));
}

#[test]
fn every_whole_percentage_pays_exactly_its_share_of_a_hundred_requests() {
    for percent in 0..=100_u32 {
        let (mut budget, now) = budget(f64::from(percent) / 100.0, 0.0);
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert_eq!(drain(&mut budget, now), percent);
    }
}

#[test]
fn requests_stop_earning_when_they_leave_the_window() {
    let (mut budget, now) = budget(0.5, 0.0);
    budget.deposit(now);
    budget.deposit(now);
    assert!((budget.available(now + WINDOW - SECOND) - 1.0).abs() < 1e-9);
    assert!(budget.available(now + WINDOW) < 1e-9);
    assert!(!budget.try_withdraw(now + WINDOW));
}

#[test]
fn the_floor_allows_one_second_of_itself_at_once_and_refills() {
    let (mut budget, now) = budget(0.0, 3.0);
    assert_eq!(drain(&mut budget, now), 3);
    assert_eq!(drain(&mut budget, now + SECOND / 3), 1);
    assert_eq!(drain(&mut budget, now + SECOND * 3600), 3);
}

#[test]
fn a_floor_below_one_can_still_be_spent() {
    let (mut budget, now) = budget(0.2, 0.75);
    assert_eq!(drain(&mut budget, now), 1);
    assert_eq!(drain(&mut budget, now + SECOND), 0);
    assert_eq!(drain(&mut budget, now + SECOND * 2), 1);
}

#[test]
fn parts_of_credit_and_reserve_add_up_to_a_retry() {
    let (mut budget, now) = budget(0.25, 0.5);
    assert_eq!(drain(&mut budget, now), 1);
    budget.deposit(now);
    budget.deposit(now);
    assert!(!budget.try_withdraw(now + SECOND / 2));
    assert!(budget.try_withdraw(now + SECOND));
    assert!(budget.available(now + SECOND) < 1e-9);
}

#[test]
fn nothing_is_allowed_without_ratio_and_floor() {
    let (mut budget, now) = budget(0.0, 0.0);
    for _ in 0..1000 {
        budget.deposit(now);
    }
    assert!(!budget.try_withdraw(now));
    assert!(!budget.try_withdraw(now + WINDOW / 2));
}

#[test]
fn senseless_numbers_count_as_none() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let (mut budget, now) = budget(bad, bad);
        budget.deposit(now);
        assert!(!budget.try_withdraw(now));
        assert!(budget.available(now) < 1e-9);
    }
}

#[test]
fn an_earlier_now_changes_nothing_but_the_counts() {
    let (mut budget, start) = budget(1.0, 1.0);
    let now = start + WINDOW;
    assert!(budget.try_withdraw(now));
    budget.deposit(start);
    assert!((budget.available(start) - 1.0).abs() < 1e-9);
    assert!(budget.try_withdraw(now));
    assert!(!budget.try_withdraw(now));
}

#[test]
fn workers_share_the_floor_and_nothing_else() {
    let now = Instant::now();
    let floor = Arc::new(RetryFloor::new(3.0, now));
    let mut workers: Vec<RetryBudget> =
        (0..4).map(|_| RetryBudget::sharing(0.2, Arc::clone(&floor), WINDOW, now)).collect();
    (0..5).for_each(|_| workers[0].deposit(now));
    assert_eq!(drain(&mut workers[3], now), 3);
    assert_eq!(drain(&mut workers[1], now), 0);
    assert_eq!(drain(&mut workers[0], now), 1, "what its own requests have earned");
}

#[test]
fn only_a_budget_without_ratio_and_floor_is_none() {
    assert!(budget(0.0, 0.0).0.is_none());
    assert!(!budget(0.2, 0.0).0.is_none() && !budget(0.0, 0.1).0.is_none());
}

/// Attempts at an upstream that fails each, over `seconds` of `rate` requests per second spread over workers; each wants 2 retries.
fn outage(workers: usize, rate: u32, seconds: u32) -> (u32, u32) {
    let start = Instant::now();
    let floor = Arc::new(RetryFloor::new(3.0, start));
    let mut budgets: Vec<RetryBudget> = (0..workers)
        .map(|_| RetryBudget::sharing(0.2, Arc::clone(&floor), WINDOW, start))
        .collect();
    let mut rng = Rng::from_seed(u64::from(rate));
    let (mut requests, mut attempts) = (0, 0);
    for number in 0..rate * seconds {
        let now = start + SECOND * number / rate;
        let worker = rng.below(workers);
        budgets[worker].deposit(now);
        requests += 1;
        attempts += 1;
        let wait = rng.duration_up_to(Duration::from_millis(25));
        for retry in 0..2 {
            if !budgets[worker].try_withdraw(now + wait * retry) {
                break;
            }
            attempts += 1;
        }
        // At every moment, not only at the end.
        let elapsed = now.duration_since(start) + Duration::from_millis(25);
        let most = 1.2 * f64::from(requests) + 3.0 * elapsed.as_secs_f64() + 3.0;
        assert!(f64::from(attempts) <= most, "{workers} workers, {rate}/s: {attempts} > {most}");
    }
    (requests, attempts)
}

#[test]
fn a_total_outage_costs_no_more_than_ratio_and_floor_however_many_workers() {
    for workers in [1, 4] {
        for (rate, load) in [(1, 3.0), (5, 1.8), (50, 1.26), (100, 1.23), (1_000, 1.203)] {
            let (requests, attempts) = outage(workers, rate, 60);
            let times = f64::from(attempts) / f64::from(requests);
            // All of it is used, whatever the worker; a fraction of a retry may be left at each.
            assert!((times - load).abs() < 0.02, "{workers} workers, {rate}/s: {times}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn retries_stay_within_the_promised_bound(
        ratio in 0.0..1.0_f64,
        floor in prop::sample::select(vec![0.0, 0.1, 0.75, 3.0, 50.0]),
        window_ms in 10..20_000_u64,
        steps in prop::collection::vec((any::<bool>(), 0..600_u64, 0..3_usize), 1..800),
    ) {
        let start = Instant::now();
        let window = Duration::from_millis(window_ms);
        let shared = Arc::new(RetryFloor::new(floor, start));
        let mut workers: Vec<RetryBudget> = (0..3)
            .map(|_| RetryBudget::sharing(ratio, Arc::clone(&shared), window, start))
            .collect();
        let (mut now, mut requests, mut retries) = (start, 0.0, 0.0);
        for (is_request, millis, worker) in steps {
            let budget = &mut workers[worker];
            now += Duration::from_millis(millis.saturating_sub(400));
            let before = budget.available(now);
            prop_assert!(before >= 0.0);
            if is_request {
                budget.deposit(now);
                requests += 1.0;
            } else {
                let paid = budget.try_withdraw(now);
                prop_assert_eq!(paid, before + 1e-9 >= 1.0);
                retries += f64::from(u8::from(paid));
            }
            let elapsed = now.duration_since(start).as_secs_f64();
            let burst = if floor > 0.0 { floor.max(1.0) } else { 0.0 };
            prop_assert!(retries <= ratio * requests + floor * elapsed + burst + 1e-6);
        }
    }
}
