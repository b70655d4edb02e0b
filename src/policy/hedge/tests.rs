use super::*;
use crate::base::rng::Rng;
use crate::policy::retry_budget::RetryBudget;

fn percentile(percent: f64, now: Instant) -> Hedge {
    Hedge::new(After::Percentile(Ratio::from_percent(percent).unwrap()), now)
}

#[test]
fn every_latency_falls_below_the_upper_end_of_its_bucket_and_not_far_below() {
    let mut rng = Rng::from_seed(1);
    for power in 0..40 {
        for _ in 0..200 {
            let micros = (1 << power) + rng.below(1 << power) as u64;
            let end = upper_end(bucket(Duration::from_micros(micros)));
            let clamped = Duration::from_micros(micros.clamp(64, (1 << 27) - 1));
            assert!(end > clamped, "{micros}");
            assert!(end <= clamped.mul_f64(1.125) + Duration::from_micros(1), "{micros}: {end:?}");
        }
    }
    assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    assert_eq!(bucket(Duration::ZERO), 0);
}

#[test]
fn a_percentile_is_at_most_an_eighth_too_high_and_never_too_low() {
    for (percent, rank, seed) in
        [(50.0, 2_500, 1), (90.0, 4_500, 2), (95.0, 4_750, 3), (99.0, 4_950, 4)]
    {
        let now = Instant::now();
        let hedge = percentile(percent, now);
        let mut rng = Rng::from_seed(seed);
        let mut took: Vec<Duration> = (0..5_000)
            .map(|_| {
                Duration::from_secs_f64(
                    0.002 * (-3.0 * rng.fraction().max(1e-9).ln()).exp().min(1e4),
                )
            })
            .collect();
        took.iter().for_each(|one| hedge.record(*one));
        took.sort();
        let exact = took[rank - 1].max(LEAST);
        let found = hedge.delay(now).unwrap();
        assert!(found >= exact.min(Duration::from_secs(134)), "p{percent}: {found:?} of {exact:?}");
        assert!(found <= exact.mul_f64(1.126).max(LEAST), "p{percent}: {found:?} of {exact:?}");
    }
}

#[test]
fn too_few_samples_say_nothing() {
    for (percent, least) in [(50.0, 10), (90.0, 50), (95.0, 100), (99.0, 500)] {
        let start = Instant::now();
        let hedge = percentile(percent, start);
        for count in 1..=least {
            let now = start + REFRESH * count;
            hedge.record(Duration::from_millis(5));
            // A new look for each of them, within one window.
            let fresh = percentile(percent, now);
            (0..count).for_each(|_| fresh.record(Duration::from_millis(5)));
            assert_eq!(fresh.delay(now).is_some(), count >= least, "p{percent}: {count}");
        }
    }
}

#[test]
fn old_latencies_are_forgotten() {
    let start = Instant::now();
    let hedge = percentile(95.0, start);
    (0..1_000).for_each(|_| hedge.record(Duration::from_millis(500)));
    assert!(hedge.delay(start).unwrap() >= Duration::from_millis(500));
    let mut now = start;
    // Fast from now on; the slow ones leave with the window after theirs.
    for _ in 0..30 {
        now += Duration::from_secs(1);
        (0..100).for_each(|_| hedge.record(Duration::from_millis(5)));
        let _delay = hedge.delay(now);
    }
    assert!(hedge.delay(now).unwrap() < Duration::from_millis(7));
    let later = now + Duration::from_secs(60);
    assert_eq!(hedge.delay(later), None, "after a minute of silence nothing is known");
}

#[test]
fn between_two_looks_the_answer_stays() {
    let start = Instant::now();
    let hedge = percentile(90.0, start);
    (0..100).for_each(|_| hedge.record(Duration::from_millis(10)));
    let first = hedge.delay(start);
    (0..1_000).for_each(|_| hedge.record(Duration::from_millis(900)));
    assert_eq!(hedge.delay(start + REFRESH - Duration::from_nanos(1)), first);
    assert!(hedge.delay(start + REFRESH) > first);
}

#[test]
fn a_fixed_delay_needs_no_samples() {
    let now = Instant::now();
    let hedge = Hedge::new(After::Fixed(Duration::from_millis(40)), now);
    hedge.record(Duration::from_secs(9));
    assert_eq!(hedge.delay(now), Some(Duration::from_millis(40)));
}

/// Requests against endpoints of which one is slow; a hedge fires where the first attempt takes longer than the delay.
#[test]
fn hedges_stay_at_the_share_beyond_the_percentile_and_within_the_budget() {
    for (seed, slow, ratio) in [(1, 0.02, 0.2), (2, 0.04, 0.2), (3, 0.3, 0.2), (4, 0.3, 0.05)] {
        let mut rng = Rng::from_seed(seed);
        let start = Instant::now();
        let hedge = percentile(95.0, start);
        let mut budget = RetryBudget::new(ratio, 0.0, Duration::from_secs(10), start);
        let (mut now, mut hedges) = (start, 0_u32);
        let latency = |rng: &mut Rng| match rng.fraction() < slow {
            true => Duration::from_millis(400) + rng.duration_up_to(Duration::from_millis(100)),
            false => Duration::from_millis(4) + rng.duration_up_to(Duration::from_millis(8)),
        };
        for _ in 0..20_000 {
            now += Duration::from_millis(5);
            budget.deposit(now);
            let first = latency(&mut rng);
            let fired = hedge.delay(now).is_some_and(|delay| first > delay);
            if fired && budget.try_withdraw(now) {
                hedges += 1;
                let second = hedge.delay(now).unwrap() + latency(&mut rng);
                hedge.record(first.min(second));
            } else {
                hedge.record(first);
            }
        }
        let share = f64::from(hedges) / 20_000.0;
        assert!(share <= ratio + 1e-3, "seed {seed}: {share}");
        // The rank is exact, its latency up to an eighth too high: 5 % or less.
        assert!(share <= 0.055, "seed {seed}: {share}");
        // Where the slow are more than the percentile leaves out, it lies among them.
        let least = if slow < 0.05 { slow * 0.8 } else { 0.01 };
        assert!(share >= least, "seed {seed}: {share}");
    }
}
