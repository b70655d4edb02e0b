use super::*;
use crate::base::rng::Rng;

const MS: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(50);

fn settings() -> BreakerSettings {
    BreakerSettings {
        errors: 0.5,
        slow: Some(SlowCalls { share: 0.5, over: Duration::from_secs(1) }),
        window: Duration::from_secs(10),
        min_requests: 20,
        open_for: Duration::from_secs(5),
        probes: 3,
    }
}

/// A breaker as the control thread and workers hold it.
struct Bench {
    permits: Permits,
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        let now = Instant::now();
        Self { permits: Permits::default(), breaker: Breaker::new(settings, now), now }
    }

    fn tick(&mut self) -> Option<Transition> {
        let change = self.breaker.tick(&self.permits.seen(), self.now);
        self.permits.publish(self.breaker.verdict(self.now));
        change
    }

    fn after(&mut self, time: Duration) -> Option<Transition> {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + TICK);
            let change = self.tick();
            if change.is_some() {
                return change;
            }
        }
        None
    }

    /// Requests that pass and end at once; how many passed.
    fn ask(&self, count: u32, failed: bool, slow: bool) -> u32 {
        let mut passed = 0;
        for _ in 0..count {
            if let Some(mut pass) = self.permits.try_pass() {
                self.permits.settle(&mut pass, failed, slow);
                passed += 1;
            }
        }
        passed
    }

    fn opened() -> Self {
        let mut bench = Self::new(settings());
        bench.ask(20, true, false);
        assert_eq!(bench.tick().map(|change| change.to), Some(BreakerState::Open));
        bench
    }

    fn half_open() -> Self {
        let mut bench = Self::opened();
        let change = bench.after(settings().open_for);
        assert_eq!(change.map(|change| change.to), Some(BreakerState::HalfOpen));
        bench
    }
}

#[test]
fn it_opens_at_its_share_of_enough_requests() {
    for (good, failed, slow, state) in [
        (20, 0, 0, BreakerState::Closed),
        (0, 19, 0, BreakerState::Closed),
        (0, 20, 0, BreakerState::Open),
        (10, 10, 0, BreakerState::Open),
        (11, 10, 0, BreakerState::Closed),
        (10, 0, 10, BreakerState::Open),
        (11, 0, 10, BreakerState::Closed),
        (60, 30, 30, BreakerState::Closed),
    ] {
        let mut bench = Bench::new(settings());
        bench.ask(good, false, false);
        bench.ask(failed, true, false);
        bench.ask(slow, false, true);
        bench.tick();
        assert_eq!(bench.breaker.state(), state, "{good} good, {failed} failed, {slow} slow");
    }
}

#[test]
fn what_has_left_the_window_does_not_count() {
    let mut bench = Bench::new(settings());
    bench.ask(19, true, false);
    assert_eq!(bench.after(Duration::from_secs(10)), None);
    bench.ask(19, true, false);
    assert_eq!(bench.tick(), None);
    bench.ask(1, true, false);
    let tally = bench.tick().map(|change| change.tally);
    assert_eq!(tally, Some(Tally { requests: 20, failed: 20, slow: 0 }));
}

#[test]
fn open_means_refusing_for_exactly_its_time() {
    let mut bench = Bench::opened();
    assert_eq!(bench.after(settings().open_for - MS), None);
    assert_eq!((bench.ask(100, false, false), bench.permits.limit()), (0, Some(0)));
    assert!(bench.permits.is_refusing());
    bench.now += MS;
    assert_eq!(bench.tick().map(|change| change.to), Some(BreakerState::HalfOpen));
}

#[test]
fn probes_run_one_at_a_time_and_a_caller_that_leaves_gives_its_place_back() {
    let bench = Bench::half_open();
    let first = bench.permits.try_pass();
    assert!(first.is_some() && bench.permits.try_pass().is_none());
    drop(first);
    assert!(bench.permits.try_pass().is_some());
    assert_eq!(bench.permits.seen().in_flight, 0);
    assert_eq!(bench.permits.seen().recovery, Tally::default(), "leaving says nothing");
}

#[test]
fn a_failed_or_slow_probe_opens_again_and_nothing_passes_meanwhile() {
    for (failed, slow) in [(true, false), (false, true)] {
        let mut bench = Bench::half_open();
        assert_eq!(bench.ask(2, false, false), 2);
        assert_eq!(bench.ask(50, failed, slow), 1, "the first bad one is the last");
        assert_eq!(bench.tick().map(|change| change.to), Some(BreakerState::Open));
        assert_eq!(bench.after(settings().open_for - MS), None);
    }
}

#[test]
fn after_the_probes_the_ramp_doubles_and_closes_after_a_second() {
    let mut bench = Bench::half_open();
    bench.ask(3, false, false);
    assert_eq!(bench.tick(), None);
    let mut limits = Vec::new();
    let change = loop {
        limits.extend(bench.permits.limit());
        assert!(!bench.permits.is_refusing());
        assert_eq!(bench.breaker.state(), BreakerState::HalfOpen);
        if let Some(change) = bench.after(RAMP_STEP) {
            break change;
        }
    };
    assert_eq!(limits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]);
    assert_eq!((change.from, change.to), (BreakerState::HalfOpen, BreakerState::Closed));
    assert_eq!(bench.permits.limit(), None);
}

#[test]
fn an_upstream_that_falls_over_in_the_ramp_opens_again() {
    let mut bench = Bench::half_open();
    bench.ask(3, false, false);
    bench.tick();
    assert_eq!(bench.ask(2, true, false), 2);
    assert_eq!(bench.tick(), None, "two say nothing where three are asked for");
    bench.ask(1, true, false);
    assert_eq!(bench.tick().map(|change| change.to), Some(BreakerState::Open));
}

#[test]
fn a_probe_that_hangs_opens_again_and_its_late_end_counts_for_nothing() {
    let mut bench = Bench::half_open();
    let mut hanging = bench.permits.try_pass().unwrap();
    assert_eq!(bench.after(settings().open_for - MS), None);
    bench.now += MS;
    assert_eq!(bench.tick().map(|change| change.why), Some("a probe got no answer"));
    bench.after(settings().open_for);
    let mut next = bench.permits.try_pass().unwrap();
    bench.permits.settle(&mut hanging, true, false);
    assert!(bench.permits.try_pass().is_none(), "its place is not of this half-open state");
    assert_eq!(bench.tick(), None);
    bench.permits.settle(&mut next, false, false);
    assert_eq!(bench.permits.seen().recovery.requests, 1);
}

#[test]
fn what_began_before_it_opened_says_nothing_about_the_recovery() {
    let mut bench = Bench::new(settings());
    let mut late: Vec<Pass> = (0..50).filter_map(|_| bench.permits.try_pass()).collect();
    bench.ask(20, true, false);
    bench.tick();
    for pass in &mut late {
        bench.permits.settle(pass, true, false);
    }
    bench.after(settings().open_for);
    bench.ask(3, false, false);
    assert_eq!(bench.after(RAMP + TICK).map(|change| change.to), Some(BreakerState::Closed));
    assert_eq!(bench.breaker.tally(), Tally::default());
}

#[test]
fn half_open_waits_for_traffic() {
    let mut bench = Bench::half_open();
    assert_eq!(bench.after(Duration::from_secs(3_600)), None);
    assert_eq!(bench.breaker.state(), BreakerState::HalfOpen);
}

/// One request of a walk.
struct Under {
    pass: Pass,
    /// The number of the half-open state that let it in.
    of: Option<u32>,
}

/// Holds a tick's change against the limits before and after it. 1 where a half-open state begins.
fn check(change: Option<Transition>, before: Option<u32>, after: Option<u32>) -> u32 {
    use BreakerState::{Closed, HalfOpen, Open};
    match change.map(|change| (change.from, change.to)) {
        None => assert!(before <= after, "the ramp only rises: {before:?} {after:?}"),
        Some((Open, HalfOpen)) => assert_eq!(after, Some(1)),
        Some((Closed | HalfOpen, Open)) => assert_eq!(after, Some(0)),
        Some((HalfOpen, Closed)) => assert_eq!(after, None),
        other => panic!("{other:?}"),
    }
    u32::from(change.is_some_and(|change| change.to == HalfOpen))
}

#[test]
fn random_walks_keep_the_invariants() {
    for seed in 0..300 {
        let mut rng = Rng::from_seed(seed);
        let settings = BreakerSettings {
            errors: rng.fraction(),
            slow: (rng.below(2) == 0)
                .then(|| SlowCalls { share: rng.fraction(), over: Duration::from_secs(1) }),
            window: Duration::from_millis(100 + 10 * rng.below(500) as u64),
            min_requests: 1 + rng.below(30) as u64,
            open_for: Duration::from_millis(50 + rng.below(3_000) as u64),
            probes: 1 + u32::try_from(rng.below(5)).unwrap(),
        };
        let slow_is_judged = settings.slow.is_some();
        let mut bench = Bench::new(settings);
        let mut under: Vec<Under> = Vec::new();
        let mut recoveries = 0_u32;
        let mut last_limit = None;
        let mut healthy = true;
        for _ in 0..3_000 {
            match rng.below(8) {
                0..3 => {
                    let before = bench.permits.limit();
                    let pass = bench.permits.try_pass();
                    if before == Some(0) {
                        assert!(pass.is_none(), "open means refusing, seed {seed}");
                    }
                    if let Some(pass) = pass {
                        let of = pass.is_of_recovery().then_some(recoveries);
                        assert_eq!(of.is_some(), before.is_some());
                        under.push(Under { pass, of });
                    }
                    let held = under.iter().filter(|u| u.of == Some(recoveries)).count();
                    if let Some(limit) = before.filter(|limit| *limit > 0) {
                        assert!(held <= limit as usize, "{held} of {limit}, seed {seed}");
                    }
                }
                3..6 if !under.is_empty() => {
                    let mut ended = under.swap_remove(rng.below(under.len()));
                    // One in five callers leaves.
                    if rng.below(5) > 0 {
                        let failed = if healthy { rng.below(50) == 0 } else { rng.below(3) > 0 };
                        let slow = slow_is_judged && !healthy && rng.below(3) == 0;
                        bench.permits.settle(&mut ended.pass, failed, slow);
                    }
                }
                6 => healthy ^= rng.below(20) == 0,
                _ => {
                    bench.now += rng.duration_up_to(TICK);
                    let change = bench.tick();
                    let limit = bench.permits.limit();
                    recoveries += check(change, last_limit, limit);
                    last_limit = limit;
                }
            }
            let held = under.iter().filter(|u| u.of == Some(recoveries)).count();
            if bench.breaker.state() == BreakerState::HalfOpen {
                assert_eq!(bench.permits.seen().in_flight as usize, held, "no leak, seed {seed}");
            }
        }
        drop(under);
        assert_eq!(bench.permits.seen().in_flight, 0, "seed {seed}");
        // An upstream that works again is found out, whatever was before.
        let end = bench.now + settings.open_for * 2 + RAMP + settings.window + TICK * 10;
        while bench.now < end {
            bench.ask(40, false, false);
            bench.now += TICK;
            bench.tick();
        }
        assert_eq!(bench.breaker.state(), BreakerState::Closed, "seed {seed}");
    }
}
