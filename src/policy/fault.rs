//! Failures on purpose: which requests are delayed, and which are answered with an error.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::units::Ratio;

/// What is done to a share of a route's requests, so that its callers' timeouts and retries can be tried out.
///
/// The two shares are drawn independently: with 10 % delayed and 10 % aborted, 1 % is delayed and then aborted, as with Envoy's
/// fault filter. A delay counts against the request's deadline; an abort costs nothing upstream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fault {
    /// A share, and how long it waits.
    pub delay: Option<(Ratio, Duration)>,
    /// A share, and the answer.
    pub abort: Option<(Ratio, Abort)>,
}

/// The answer of an aborted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// HTTP status, 200..=599.
    pub status: u16,
    /// Status of gRPC, 1..=16, for a gRPC call.
    pub grpc: u8,
}

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// It waits, first.
    pub delay: Option<Duration>,
    /// It is answered.
    pub abort: Option<Abort>,
}

impl Fault {
    /// Decides over one request; `None` where nothing is done to it. One number is drawn for each kind that is set.
    pub fn draw(&self, rng: &mut Rng) -> Option<Injection> {
        let mut hit = |share: Ratio| rng.fraction() < share.fraction();
        let delay = self.delay.filter(|(share, _)| hit(*share)).map(|(_, delay)| delay);
        let abort = self.abort.filter(|(share, _)| hit(*share)).map(|(_, abort)| abort);
        (delay.is_some() || abort.is_some()).then_some(Injection { delay, abort })
    }
}

impl Abort {
    /// The status of gRPC that clients make of an HTTP status ("HTTP to gRPC Status Code Mapping").
    pub const fn grpc_of(status: u16) -> u8 {
        match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: Abort = Abort { status: 503, grpc: 14 };

    fn share(percent: f64) -> Ratio {
        Ratio::from_percent(percent).unwrap()
    }

    fn counts(fault: &Fault, seed: u64) -> [usize; 4] {
        let mut rng = Rng::from_seed(seed);
        let mut counts = [0; 4];
        for _ in 0..100_000 {
            let found = fault.draw(&mut rng);
            let (delay, abort) =
                found.map_or((false, false), |one| (one.delay.is_some(), one.abort.is_some()));
            counts[usize::from(delay) + 2 * usize::from(abort)] += 1;
        }
        counts
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        let delay = Duration::from_secs(2);
        assert_eq!(counts(&Fault::default(), 1), [100_000, 0, 0, 0]);
        let none = Fault { delay: Some((share(0.0), delay)), abort: Some((share(0.0), ABORT)) };
        assert_eq!(counts(&none, 1), [100_000, 0, 0, 0]);
        let all = Fault { delay: Some((share(100.0), delay)), abort: Some((share(100.0), ABORT)) };
        assert_eq!(counts(&all, 1), [0, 0, 0, 100_000]);
        let found = all.draw(&mut Rng::from_seed(1)).unwrap();
        assert_eq!(found, Injection { delay: Some(delay), abort: Some(ABORT) });
    }

    #[test]
    fn shares_are_kept_and_independent() {
        let delay = Some((share(20.0), Duration::from_secs(1)));
        let fault = Fault { delay, abort: Some((share(10.0), ABORT)) };
        for seed in 0..5 {
            // Five standard deviations of the rarest are 220.
            for (count, due) in counts(&fault, seed).into_iter().zip([72_000, 18_000, 8_000, 2_000])
            {
                assert!(count.abs_diff(due) < 700, "seed {seed}: {count} of {due}");
            }
        }
    }

    #[test]
    fn grpc_statuses_follow_the_mapping_of_its_clients() {
        for (http, grpc) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (500, 2)]
        {
            assert_eq!(Abort::grpc_of(http), grpc, "{http}");
        }
    }
}
