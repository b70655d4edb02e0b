use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::prop_assert;

use super::*;

const STANDARD: HealthSettings = HealthSettings {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(1),
    rise: 2,
    fall: 3,
};

/// The verdicts that results turn to, as `+` (pass) and `-` (failure) say.
fn turns(settings: HealthSettings, results: &str) -> Vec<(usize, Verdict)> {
    let mut health = Health::new(settings);
    let results = results.chars().enumerate();
    results.filter_map(|(at, c)| health.record(c == '+').map(|verdict| (at, verdict))).collect()
}

#[test]
fn the_first_result_decides() {
    assert_eq!(turns(STANDARD, "+"), [(0, Verdict::Healthy)]);
    assert_eq!(turns(STANDARD, "-"), [(0, Verdict::Unhealthy)]);
}

#[test]
fn a_verdict_turns_after_so_many_results_in_a_row() {
    let (healthy, unhealthy) = (Verdict::Healthy, Verdict::Unhealthy);
    assert_eq!(turns(STANDARD, "+--"), [(0, healthy)]);
    assert_eq!(turns(STANDARD, "+---"), [(0, healthy), (3, unhealthy)]);
    assert_eq!(turns(STANDARD, "+-----++"), [(0, healthy), (3, unhealthy), (7, healthy)]);
    let hasty = HealthSettings { rise: 1, fall: 1, ..STANDARD };
    assert_eq!(turns(hasty, "+-+"), [(0, healthy), (1, unhealthy), (2, healthy)]);
}

#[test]
fn flapping_within_the_thresholds_turns_nothing() {
    assert_eq!(turns(STANDARD, &"+--".repeat(100)), [(0, Verdict::Healthy)]);
    assert_eq!(turns(STANDARD, &"-+".repeat(100)), [(0, Verdict::Unhealthy)]);
}

#[test]
fn the_pace_is_faster_only_while_results_contradict_the_verdict() {
    let mut rng = Rng::from_seed(1);
    let start = Instant::now();
    let mut health = Health::new(STANDARD);
    let mut wait = |passed: bool| {
        health.record(passed);
        (health.next(start, start, &mut rng) - start).as_secs_f64()
    };
    let around = |wait: f64, seconds: f64| (wait - seconds).abs() <= 0.1 * seconds + 1e-9;
    let first = wait(true);
    assert!((1.0..=5.0).contains(&first), "{first}");
    for (passed, seconds) in [
        (true, 5.0),
        (false, 1.0),
        (false, 1.0),
        (true, 5.0),
        (false, 1.0),
        (false, 1.0),
        // Unhealthy: settled.
        (false, 5.0),
        (false, 5.0),
        (true, 1.0),
        (true, 5.0),
    ] {
        let wait = wait(passed);
        assert!(around(wait, seconds), "{wait} instead of {seconds}");
    }
}

/// What the page about health checks says of time to notice.
#[test]
fn a_dead_endpoint_is_noticed_within_two_fast_checks_of_its_first_failure() {
    let mut rng = Rng::from_seed(2);
    let (mut health, start) = (Health::new(STANDARD), Instant::now());
    for _ in 0..2 {
        health.record(true);
        health.next(start, start, &mut rng);
    }
    // Each check takes its whole timeout.
    let (mut began, mut ended) = (start, start);
    let mut checks = 0;
    while health.verdict() == Verdict::Healthy {
        began = if checks == 0 { start } else { health.next(began, ended, &mut rng) };
        ended = began + STANDARD.timeout;
        health.record(false);
        checks += 1;
    }
    let took = (ended - start).as_secs_f64();
    assert!(checks == 3 && (3.0..=3.2 + 1e-9).contains(&took), "{checks} checks, {took} s");
}

#[test]
fn a_check_that_outlasts_its_interval_is_followed_at_once_and_never_overlapped() {
    let mut rng = Rng::from_seed(3);
    let (mut health, start) = (Health::new(STANDARD), Instant::now());
    health.record(false);
    health.next(start, start, &mut rng);
    let ended = start + Duration::from_secs(30);
    assert_eq!(health.next(start, ended, &mut rng), ended);
}

#[test]
fn sidecars_that_start_together_check_at_different_times() {
    let mut seconds = [0_u32; 5];
    for seed in 0..1000 {
        let (mut rng, mut health) = (Rng::from_seed(seed), Health::new(STANDARD));
        let start = Instant::now();
        let began = start + health.before_first(&mut rng);
        assert!(began - start <= FIRST);
        health.record(true);
        let second = health.next(began, began, &mut rng);
        seconds[usize::try_from((second - start).as_secs()).unwrap().min(4)] += 1;
    }
    // None in the first second after the start, and no crowd in any other.
    assert!(seconds[0] == 0 && seconds[1..].iter().all(|count| *count < 350), "{seconds:?}");
}

#[test]
fn a_failure_of_our_own_leaves_everything_as_it_is() {
    let mut rng = Rng::from_seed(4);
    let (mut health, start) = (Health::new(STANDARD), Instant::now());
    // Nothing was recorded: asked again soon, still unknown.
    let wait = (health.next(start, start, &mut rng) - start).as_secs_f64();
    assert!((0.9..=1.1).contains(&wait), "{wait}");
    assert_eq!((health.verdict(), health.passes(), health.failures()), (Verdict::Unknown, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The invariants of [`Health`], held against the whole history of a random walk.
    #[test]
    fn invariants_hold_on_random_walks(
        seed in any::<u64>(),
        rise in 1_u32..6,
        fall in 1_u32..6,
        interval in 1_u64..100_000,
        steps in prop::collection::vec((any::<bool>(), 0_u64..200_000), 1..200),
    ) {
        let interval = Duration::from_millis(interval);
        let settings = HealthSettings { interval, timeout: interval, rise, fall };
        let (mut health, mut rng) = (Health::new(settings), Rng::from_seed(seed));
        prop_assert!(health.before_first(&mut rng) <= FIRST.min(interval / FASTER));
        let mut began = Instant::now();
        let mut history: Vec<bool> = Vec::new();
        for (passed, took) in steps {
            let before = health.verdict();
            prop_assert!((before == Verdict::Unknown) == history.is_empty());
            let turned = health.record(passed);
            history.push(passed);
            let in_a_row = history.iter().rev().take_while(|past| **past == passed).count();
            let (passes, failures) = (health.passes(), health.failures());
            let counted = passes.max(failures);
            prop_assert!(counted as usize == in_a_row && passed == (passes > 0));
            prop_assert!(passes == 0 || failures == 0);
            prop_assert!(turned.is_none_or(|verdict| verdict == health.verdict() && verdict != before));
            prop_assert!(turned.is_some() || before == health.verdict());
            let needed = if passed { rise } else { fall };
            let agrees = health.verdict() == if passed { Verdict::Healthy } else { Verdict::Unhealthy };
            // It contradicts the verdict exactly while there are too few in a row.
            prop_assert!(agrees || in_a_row < needed as usize);
            if turned.is_some() {
                prop_assert!(history.len() == 1 || in_a_row == needed as usize);
            }
            let ended = began + Duration::from_millis(took);
            let next = health.next(began, ended, &mut rng);
            prop_assert!(next >= ended);
            let (least, most) = match (agrees, history.len()) {
                (true, 1) => (interval / FASTER, interval),
                (true, _) => (interval, interval),
                (false, _) => (interval / FASTER, interval / FASTER),
            };
            let slack = Duration::from_nanos(10);
            prop_assert!(next >= (began + least.mul_f64(0.9)).max(ended));
            prop_assert!(next <= (began + most.mul_f64(1.1) + slack).max(ended));
            began = next;
        }
    }
}

/// Seconds from a change at a random moment to the verdict that follows it, over many runs: mean and longest. `takes` is what
/// each check takes from then on.
fn until_it_turns(settings: HealthSettings, works: bool, takes: Duration) -> (f64, f64) {
    let mut rng = Rng::from_seed(11);
    let times: Vec<f64> = (0..5_000)
        .map(|_| {
            let (mut health, start) = (Health::new(settings), Instant::now());
            let (mut last, mut next) = (start, start);
            for _ in 0..4 {
                health.record(!works);
                (last, next) = (next, health.next(next, next, &mut rng));
            }
            let before = last + (next - last).mul_f64(rng.fraction());
            loop {
                let (began, ended) = (next, next + takes);
                if health.record(works).is_some() {
                    return (ended - before).as_secs_f64();
                }
                next = health.next(began, ended, &mut rng);
            }
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (mean, times.iter().copied().fold(0.0, f64::max))
}

/// The tables of docs/policies/health.md.
#[test]
fn the_documentation_tells_how_long_it_takes() {
    let every = |seconds| HealthSettings { interval: Duration::from_secs(seconds), ..STANDARD };
    let (at_once, hangs) = (Duration::ZERO, STANDARD.timeout);
    for (settings, refusing, hanging, back) in [
        (every(5), (4.5, 7.7), (5.55, 8.7), (3.5, 6.6)),
        (HealthSettings { fall: 2, ..every(5) }, (3.5, 6.6), (4.5, 7.6), (3.5, 6.6)),
        (every(2), (1.8, 3.1), (4.0, 5.2), (1.4, 2.7)),
        (every(10), (9.0, 15.4), (10.0, 16.4), (7.0, 13.2)),
    ] {
        for (works, takes, told) in
            [(false, at_once, refusing), (false, hangs, hanging), (true, at_once, back)]
        {
            let (mean, longest) = until_it_turns(settings, works, takes);
            // The longest of a few thousand is a little below the longest there can be.
            let close =
                (mean - told.0).abs() < 0.1 && (told.1 - 0.5..=told.1 + 0.05).contains(&longest);
            assert!(close, "{settings:?}, {takes:?}: {mean:.2}, {longest:.2} instead of {told:?}");
        }
    }
}

/// How often an endpoint is checked that passes once and fails twice, for ever: as often as the documentation says.
#[test]
fn flapping_costs_about_twice_the_settled_pace() {
    let mut rng = Rng::from_seed(12);
    let (mut health, start) = (Health::new(STANDARD), Instant::now());
    let (mut now, mut checks) = (start, 0.0);
    while now - start < Duration::from_secs(10_000) {
        for passed in [true, false, false] {
            health.record(passed);
            now = health.next(now, now, &mut rng);
            checks += 1.0;
        }
    }
    let settled = (now - start).as_secs_f64() / 5.0;
    assert!((checks / settled - 2.14).abs() < 0.05, "{}", checks / settled);
}
