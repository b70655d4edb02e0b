//! The index of a blocking query, and how often one is asked.
//!
//! Source: Consul's HTTP API, "Blocking Queries": an index that goes backwards starts anew, an index below 1 never
//! blocks, and a loop of questions is limited in its rate without making a lone change wait.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// Questions that may follow at once: a few changes that come together are passed on without a wait.
const BURST: f64 = 4.0;

/// Then one a second: a service that changes all the time is looked at once a second, and costs no more than that.
///
/// Consul's own advice, a burst of 2 and one each 15 s, would let a roll-out run against endpoints that are gone.
const PER_SECOND: f64 = 1.0;

/// What the next question waits to change; `None`: it is answered at once, with everything.
pub(super) type Index = Option<NonZeroU64>;

/// The index of the next question, after one that asked with `asked` was answered with `answered`.
///
/// - An index below the last one is of another history (a restarted or restored server): ask anew, without index.
/// - 0 is a fault that older servers have; with it every question would be answered at once. 1 blocks.
pub(super) fn next_index(asked: Index, answered: u64) -> Index {
    match NonZeroU64::new(answered) {
        None => Some(NonZeroU64::MIN),
        Some(answered) if asked.is_some_and(|asked| answered < asked) => None,
        answered => answered,
    }
}

/// Limits the rate of questions: a token bucket of [`BURST`], filled at [`PER_SECOND`].
///
/// Invariant: `0 <= tokens <= BURST`.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// Takes the next question's turn: when it may be asked, `now` at the earliest.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return now;
        }
        let missing = (1.0 - self.tokens) / PER_SECOND;
        // The question is asked when its token has come, and takes it.
        self.tokens = 0.0;
        self.at = now + Duration::from_secs_f64(missing);
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(value: u64) -> Index {
        NonZeroU64::new(value)
    }

    #[test]
    fn an_index_moves_on_and_starts_anew_when_it_goes_backwards() {
        assert_eq!(next_index(None, 13), index(13));
        assert_eq!(next_index(index(13), 13), index(13), "the wait is over, nothing has changed");
        assert_eq!(next_index(index(13), 14), index(14));
        assert_eq!(next_index(index(13), 12), None, "another history");
        assert_eq!(next_index(None, 0), index(1), "0 would not block");
        assert_eq!(next_index(index(13), 0), index(1));
        assert_eq!(next_index(index(1), u64::MAX), index(u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_questions_follow_at_once_then_one_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        let mut times = Vec::new();
        for _ in 0..8 {
            now = pace.next(now);
            times.push((now - start).as_millis());
        }
        assert_eq!(times, [0, 0, 0, 0, 1000, 2000, 3000, 4000]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_minute_nothing_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..6 {
            pace.next(start);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!([pace.next(later), pace.next(later)], [later, later]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_walk_of_questions_exceeds_burst_plus_rate() {
        let mut rng = crate::base::rng::Rng::from_seed(11);
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut asked) = (start, 0.0);
        for _ in 0..10_000 {
            now = pace.next(now + rng.duration_up_to(Duration::from_millis(300)));
            asked += 1.0;
            assert!(pace.tokens >= 0.0 && pace.tokens <= BURST);
            let allowed = BURST + (now - start).as_secs_f64() * PER_SECOND;
            assert!(asked <= allowed + 1e-6, "{asked} questions, {allowed} allowed");
        }
    }
}
