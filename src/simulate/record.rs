//! What is counted during a run.

use std::collections::BTreeMap;

use super::events::{SECOND, Time};
use super::histogram::Histogram;

/// Steps of a second in which success is watched, to say when it has returned.
pub(super) const STEPS: u64 = 10;

/// How a client's request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// It was answered, and not with a 5xx.
    pub(super) ok: bool,
    /// The status its caller got.
    pub(super) status: u16,
    /// Why, where the answer is not the upstream's: a word of the log.
    pub(super) reason: Option<&'static str>,
}

/// One second of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Second {
    /// Requests of clients that arrived.
    pub(super) offered: u64,
    /// Requests that ended well.
    pub(super) good: u64,
    /// Requests that ended badly.
    pub(super) failed: u64,
    /// Attempts at the last hop that started.
    pub(super) attempts: u64,
    /// How long those that ended had taken.
    pub(super) took: Histogram,
}

/// A tenth of a second, by when its requests arrived.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) arrived: u32,
    pub(super) good: u32,
}

/// Requests that arrived in one part of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) requests: u64,
    pub(super) good: u64,
    pub(super) took: Histogram,
    /// How long those took that were refused by a limit of ours.
    pub(super) refused: Histogram,
    pub(super) failures: BTreeMap<String, u64>,
    /// Attempts at the last hop, by endpoint.
    pub(super) attempts: Vec<u64>,
}

/// Everything counted.
#[derive(Debug)]
pub(super) struct Record {
    /// By the second in which it happened.
    pub(super) seconds: Vec<Second>,
    /// By the tenth of a second in which a request arrived.
    pub(super) steps: Vec<Step>,
    /// Before, during and after, by when a request arrived.
    pub(super) parts: [Part; 3],
    /// Where "during" begins and ends.
    pub(super) window: (Time, Time),
    /// Requests that arrive before are not counted in any part: the sidecars know nothing yet.
    pub(super) settled: Time,
    /// Attempts of clients' sidecars.
    pub(super) first_hop: u64,
    /// Requests that an endpoint of the last hop has worked on to the end.
    pub(super) worked: u64,
    /// Those of them that nobody waited for any more.
    pub(super) wasted: u64,
}

impl Record {
    pub(super) fn new(duration: Time, window: (Time, Time)) -> Self {
        let seconds = index(duration.div_ceil(SECOND));
        Self {
            seconds: vec![Second::default(); seconds],
            steps: vec![Step::default(); seconds * index(STEPS)],
            parts: Default::default(),
            window,
            settled: (5 * SECOND).min(window.0 / 2),
            first_hop: 0,
            worked: 0,
            wasted: 0,
        }
    }

    /// The second that `at` is in; what happens after the last request has arrived is in none.
    fn second(&mut self, at: Time) -> Option<&mut Second> {
        self.seconds.get_mut(index(at / SECOND))
    }

    pub(super) fn arrived(&mut self, at: Time) {
        if let Some(second) = self.second(at) {
            second.offered += 1;
        }
    }

    /// An attempt at an endpoint of the last hop starts.
    pub(super) fn attempt(&mut self, at: Time, endpoint: usize) {
        if let Some(second) = self.second(at) {
            second.attempts += 1;
        }
        if at >= self.settled {
            let attempts = &mut self.part(at).attempts;
            if endpoint >= attempts.len() {
                attempts.resize(endpoint + 1, 0);
            }
            attempts[endpoint] += 1;
        }
    }

    /// The part of the run that `at` is in.
    fn part(&mut self, at: Time) -> &mut Part {
        let part = usize::from(at >= self.window.0) + usize::from(at >= self.window.1);
        &mut self.parts[part]
    }

    /// A client's request, which arrived at `arrived`, ends.
    pub(super) fn ended(&mut self, arrived: Time, at: Time, how: Ended) {
        let took = at - arrived;
        if let Some(second) = self.second(at) {
            *(if how.ok { &mut second.good } else { &mut second.failed }) += 1;
            second.took.note(took);
        }
        if let Some(step) = self.steps.get_mut(index(arrived / (SECOND / STEPS))) {
            step.arrived += 1;
            step.good += u32::from(how.ok);
        }
        if arrived < self.settled {
            return;
        }
        let part = self.part(arrived);
        part.requests += 1;
        part.good += u64::from(how.ok);
        part.took.note(took);
        if how.ok {
            return;
        }
        let why = how.reason.map_or_else(|| format!("status_{}", how.status), str::to_owned);
        if matches!(
            how.reason,
            Some("limit_reached" | "queue_timeout" | "breaker_open" | "overload")
        ) {
            part.refused.note(took);
        }
        *part.failures.entry(why).or_default() += 1;
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
