//! What an endpoint that fails gets, where nobody ejects it.

use crate::policy::classify::Outcome;

use super::*;

/// Requests per second at each of three endpoints, the first of which answers `fails(n)` of its requests at once with a
/// failure, the others in 20 ms: virtual time, 200 requests a second in all.
fn with_failures(seconds: u32, mut fails: impl FnMut(u32, Duration) -> bool) -> Vec<[u32; 3]> {
    const PER_SECOND: u32 = 200;
    let (start, mut rng) = (Instant::now(), Rng::from_seed(12));
    let set = set(&[1; 3], start);
    let balancer = Balancer::new(Policy::PeakEwma);
    let mut running: VecDeque<(Instant, EndpointGuard)> = VecDeque::new();
    let (mut counts, mut asked) = (vec![[0; 3]; seconds as usize], 0);
    for turn in 0..seconds * PER_SECOND {
        let since = Duration::from_secs(1) * turn / PER_SECOND;
        let now = start + since;
        while running.front().is_some_and(|(ends, _)| *ends <= now) {
            let (ends, guard) = running.pop_front().unwrap();
            guard.settle(Outcome::Success, ends);
        }
        let mut picked = balancer.pick(&set, &Tried::new(), now, &mut rng).unwrap();
        let index = place(&set, &picked);
        counts[usize::try_from(since.as_secs()).unwrap()][index] += 1;
        let guard = picked.start(now);
        asked += u32::from(index == 0);
        if index == 0 && fails(asked, since) {
            guard.settle(Outcome::Failure, now + Duration::from_micros(100));
        } else {
            // Up to a tenth more or less, as answers are.
            let took = Duration::from_micros(18_000 + rng.below(4_000) as u64);
            let at = running.partition_point(|(other, _)| *other <= now + took);
            running.insert(at, (now + took, guard));
        }
    }
    counts
}

#[test]
fn a_lone_failure_starves_nobody() {
    let mut failed = false;
    let counts = with_failures(40, |_, since| {
        let fails = !failed && since > Duration::from_secs(30);
        failed |= fails;
        fails
    });
    assert!(failed);
    let share = |from: usize, to: usize| {
        let of =
            counts[from..to].iter().fold([0, 0], |sum, c| [sum[0] + c[0], sum[1] + c[1] + c[2]]);
        f64::from(of[0]) / f64::from(of[0] + of[1])
    };
    assert!(share(20, 30) > 0.3 && share(30, 32) > 0.2 && share(30, 40) > 0.25, "{counts:?}");
}

#[test]
fn failures_that_nobody_ejects_attract_nothing() {
    let counts = with_failures(40, |_, since| since > Duration::from_secs(30));
    let before: u32 = counts[20..30].iter().map(|counts| counts[0]).sum();
    let after: u32 = counts[30..40].iter().map(|counts| counts[0]).sum();
    assert!(before > 600 && after < 20, "{before} {after}");
}

#[test]
fn an_endpoint_that_fails_now_and_then_gets_the_less_the_more_it_fails() {
    let after = |every| {
        let counts = with_failures(60, |asked, since| since.as_secs() >= 20 && asked % every == 0);
        counts[30..].iter().map(|counts| counts[0]).sum::<u32>()
    };
    // Of 2 000 that were its part.
    let (half, tenth, hundredth) = (after(2), after(10), after(100));
    assert!(
        half < 150 && half < tenth && tenth < 800 && tenth < hundredth,
        "{half} {tenth} {hundredth}"
    );
    assert!(hundredth > 1_000, "{hundredth}");
}
