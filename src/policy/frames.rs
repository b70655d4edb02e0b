//! How many control frames an HTTP/2 peer may send: resets, PINGs, SETTINGS, priorities, frames of unknown type.
//!
//! Each costs a peer nine bytes and us work: an answer, or a request that is routed, sent upstream and thrown away (rapid reset,
//! CVE-2023-44487). The h2 crate bounds what of this it would have to keep; what it can do at once it does without end. So
//! each costs one of an allowance, which fills with time and with requests.
//!
//! | Peer | Per second | Is ended |
//! |---|---|---|
//! | PINGs, 10 a second | 10 | never |
//! | resets every tenth of 10 000 requests a second | 1 000 | never: they have earned 5 000 |
//! | resets each of 400 requests a second | 400 | never |
//! | resets each of 10 000 requests a second | 10 000 | after 0.21 s and 2 083 requests |
//! | PINGs, 10 000 a second | 10 000 | after 0.1 s |
//!
//! WINDOW_UPDATE is free: there may be one for each frame of a download. DATA and CONTINUATION have limits of their own in the h2
//! crate.

use tokio::time::Instant;

/// Control frames at once: nearly four times the streams that a peer may have open by default, all of them cancelled.
const BURST: f64 = 1_000.0;
/// Control frames per second, for ever.
const RATE: f64 = 200.0;
/// Control frames that a request earns: whoever resets fewer than half of its requests never gets near the end.
const EARNED: f64 = 0.5;

/// What a connection may still send. Invariant: `0.0 <= left <= BURST`.
#[derive(Debug)]
pub struct FrameAllowance {
    left: f64,
    filled: Instant,
}

impl FrameAllowance {
    /// Full.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// A request begins.
    pub fn on_request(&mut self) {
        self.left = (self.left + EARNED).min(BURST);
    }

    /// A control frame. `false`: it is one too many.
    pub fn on_control(&mut self, now: Instant) -> bool {
        if self.left < 1.0 {
            let earned = now.saturating_duration_since(self.filled).as_secs_f64() * RATE;
            self.left = (self.left + earned).min(BURST);
            self.filled = now;
        }
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Requests and control frames per second, evenly mixed, until the end or for a minute: when, and after how many requests.
    fn ends(requests: u32, control: u32) -> Option<(f64, u32)> {
        let start = Instant::now();
        let mut allowance = FrameAllowance::new(start);
        let (mut asked, mut sent) = (0_u32, 0_u32);
        while sent < control * 60 {
            let at = f64::from(sent) / f64::from(control);
            while f64::from(asked) <= at * f64::from(requests) && requests > 0 {
                allowance.on_request();
                asked += 1;
            }
            if !allowance.on_control(start + Duration::from_secs_f64(at)) {
                return Some((at, asked));
            }
            sent += 1;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_this_page_holds() {
        assert_eq!(ends(0, 10), None);
        assert_eq!(ends(10_000, 1_000), None);
        assert_eq!(ends(400, 400), None);
        let (at, requests) = ends(10_000, 10_000).unwrap();
        assert!(
            (0.19..0.23).contains(&at) && (1_900..2_300).contains(&requests),
            "{at} {requests}"
        );
        let (at, _) = ends(0, 10_000).unwrap();
        assert!((0.09..0.12).contains(&at), "{at}");
    }

    #[tokio::test(start_paused = true)]
    async fn rest_fills_it_and_never_beyond_the_burst() {
        let start = Instant::now();
        let mut allowance = FrameAllowance::new(start);
        let used = (0..2_000).filter(|_| allowance.on_control(start)).count();
        assert_eq!(used, 1_000);
        let later = start + Duration::from_secs(3_600);
        let used = (0..2_000).filter(|_| allowance.on_control(later)).count();
        assert_eq!(used, 1_000);
    }

    /// Random walks: what is left stays between nothing and the burst, and no more frames pass than were there, came with time and were
    /// earned.
    #[tokio::test(start_paused = true)]
    async fn whatever_comes_no_more_pass_than_were_allowed() {
        for seed in 0..50 {
            let mut rng = crate::base::rng::Rng::from_seed(seed);
            let start = Instant::now();
            let (mut now, mut allowance) = (start, FrameAllowance::new(start));
            let (mut passed, mut earned) = (0.0, 0.0);
            for _ in 0..20_000 {
                now += Duration::from_secs_f64(rng.fraction() * 0.002);
                if rng.below(4) == 0 {
                    allowance.on_request();
                    earned += EARNED;
                } else if allowance.on_control(now) {
                    passed += 1.0;
                }
                assert!((0.0..=BURST).contains(&allowance.left), "seed {seed}");
                let allowed = BURST + earned + (now - start).as_secs_f64() * RATE;
                assert!(passed <= allowed + 1e-6, "seed {seed}: {passed} of {allowed}");
            }
        }
    }
}
