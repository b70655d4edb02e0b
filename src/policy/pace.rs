//! How fast a queue moves, and so how long one who joins it would wait.

use std::time::Duration;

use tokio::time::Instant;

/// Steps over which the mean is taken: enough to bridge places that come free together.
const MEMORY: u32 = 32;

/// After so long without anybody waiting, the pace of before says nothing.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// The pace of one worker's queue.
///
/// A queue that only bounds the wait lets everybody in and sheds most of them at the bound: in a threefold overload two of
/// three wait for a second to be refused. One that knows its pace refuses those two at once, and lets in whom it can
/// serve. Little's law: the wait of one who joins behind `n` is `(n + 1)` times the mean time between two who get in.
///
/// Who joins an empty queue is always let in, so that a wrong estimate rights itself. The mean is over the last 32 steps:
/// a bias by places that come free together averages out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Mean time between two who get in, in ns.
    step: f64,
    /// Steps that it is made of, up to `MEMORY`.
    known: u32,
    /// When the last one got in, or the queue began.
    last: Option<Instant>,
}

impl Pace {
    /// One joins behind `ahead` others at `now`, and may wait until `until`. False where that is hopeless: at the present
    /// pace the wait is longer, or nobody has got in for as long.
    pub fn joins(&mut self, ahead: u32, now: Instant, until: Instant) -> bool {
        if ahead == 0 {
            let idle = self.last.map(|last| now.saturating_duration_since(last));
            if idle.is_none_or(|idle| idle >= FORGOTTEN) {
                self.known = 0;
            }
            self.last = Some(now);
            return true;
        }
        let patience = until.saturating_duration_since(now);
        let stuck = self.last.is_some_and(|last| now.saturating_duration_since(last) > patience);
        !stuck && self.wait_behind(ahead) <= patience
    }

    /// How long one would wait behind `ahead` others; nothing where that is not known yet.
    pub fn wait_behind(&self, ahead: u32) -> Duration {
        if self.known == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(saturating_nanos(self.step * (f64::from(ahead) + 1.0)))
    }

    /// One has got in at `now`.
    pub fn gets_in(&mut self, now: Instant) {
        let last = self.last.unwrap_or(now);
        #[expect(clippy::cast_precision_loss, reason = "a mean of ns needs no 64 bits")]
        let step = now.saturating_duration_since(last).as_nanos() as f64;
        self.known = (self.known + 1).min(MEMORY);
        self.step += (step - self.step) / f64::from(self.known);
        self.last = Some(now);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float turned into an integer saturates; this one is never negative"
)]
fn saturating_nanos(nanos: f64) -> u64 {
    nanos as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A pace of one each `step`, learned from 100.
    fn learned(step: Duration) -> (Pace, Instant) {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.joins(0, now, now));
        for _ in 0..100 {
            now += step;
            pace.gets_in(now);
        }
        (pace, now)
    }

    #[test]
    fn who_could_not_be_served_in_time_is_told_at_once() {
        for (ahead, patience, joins) in
            [(1, 20, true), (1, 19, false), (9, 100, true), (10, 100, false), (0, 0, true)]
        {
            let (mut pace, now) = learned(10 * MS);
            assert_eq!(pace.joins(ahead, now, now + patience * MS), joins, "{ahead} {patience}");
        }
    }

    #[test]
    fn nothing_known_lets_everybody_wait() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.joins(0, now, now + MS));
        assert!(pace.joins(1_000_000, now, now + MS));
    }

    #[test]
    fn where_nobody_gets_in_for_as_long_as_one_may_wait_nobody_else_joins() {
        let (mut pace, now) = learned(MS);
        assert!(pace.joins(1, now + 100 * MS, now + 200 * MS));
        assert!(!pace.joins(1, now + 101 * MS, now + 200 * MS));
        assert!(pace.joins(0, now + 101 * MS, now + 200 * MS), "the first always waits");
    }

    #[test]
    fn places_that_come_free_together_do_not_spoil_the_mean() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        pace.joins(0, now, now);
        for _ in 0..50 {
            now += 100 * MS;
            (0..10).for_each(|_| pace.gets_in(now));
        }
        let wait = pace.wait_behind(9);
        assert!((70 * MS..150 * MS).contains(&wait), "{wait:?} for 100 ms");
    }

    #[test]
    fn a_pace_of_long_ago_is_forgotten() {
        let (mut pace, now) = learned(500 * MS);
        let later = now + FORGOTTEN;
        assert!(pace.joins(0, later, later + MS));
        assert!(pace.joins(200, later, later + MS));
    }

    /// Random walks: the first always waits, a longer queue never waits less, and who joins could get in in time at the pace that is
    /// known.
    #[test]
    fn whatever_comes_a_queue_is_judged_by_its_pace() {
        for seed in 0..100 {
            let mut rng = crate::base::rng::Rng::from_seed(seed);
            let (mut now, mut pace) = (Instant::now(), Pace::default());
            for _ in 0..300 {
                now += MS.mul_f64(rng.fraction() * 50.0);
                if rng.below(2) == 0 {
                    pace.gets_in(now);
                    continue;
                }
                let (ahead, patience) =
                    (u32::try_from(rng.below(40)).unwrap(), MS.mul_f64(rng.fraction() * 400.0));
                let joins = pace.joins(ahead, now, now + patience);
                assert!(joins || ahead > 0, "seed {seed}: the first");
                assert!(!joins || ahead == 0 || pace.wait_behind(ahead) <= patience, "seed {seed}");
                assert!(pace.wait_behind(ahead) <= pace.wait_behind(ahead + 1), "seed {seed}");
                assert!(pace.known <= MEMORY && pace.step.is_finite() && pace.step >= 0.0);
            }
        }
    }
}
