//! What a run says: figures per part, whether and when it recovered, and a line for each second.

use std::collections::BTreeMap;

use serde::Serialize;

use super::events::{SECOND, Time};
use super::faults::nanos;
use super::histogram::Histogram;
use super::record::{Part, Record, STEPS, Second, Step};
use crate::config::Scenario;

/// Success is back where it is at least this share of what it was before.
const AS_BEFORE: f64 = 0.95;

/// Success must stay for this long to count as back.
const HELD_SECONDS: u64 = 5;

/// The result of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Until the first event of the scenario; the sidecars' first seconds, when they know nothing yet, left out.
    pub before: Phase,
    /// While anything is wrong.
    pub during: Phase,
    /// When the cause is gone.
    pub after: Phase,
    /// When the first event begins, in seconds.
    pub fault_starts: f64,
    /// When the last one ends, in seconds.
    pub fault_ends: f64,
    /// From the end of the cause until requests succeed as before, and go on doing so; `None`: not within the run.
    pub recovery_seconds: Option<f64>,
    /// After the grace time, fewer than 95 % of what succeeded before do.
    pub metastable: bool,
    /// Attempts at the last hop per request of a client, over the whole run.
    pub amplification: f64,
    /// Share of the last hop's work, in percent, whose answer nobody waited for any more.
    pub wasted_work_percent: f64,
    /// How many things happened in the simulation.
    pub events: u64,
    /// The whole run, second by second.
    pub seconds: Vec<Point>,
}

/// Requests that arrived in one part of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// How many.
    pub requests: u64,
    /// How many of them failed: 5xx, or no answer.
    pub failed: u64,
    /// The share of the others, in percent; `None` where there were no requests.
    pub success_percent: Option<f64>,
    /// Half of the requests took at most this, failed ones included.
    pub p50_ms: Option<f64>,
    /// 99 of 100 took at most this.
    pub p99_ms: Option<f64>,
    /// Half of those that a limit refused had their answer within this.
    pub refused_p50_ms: Option<f64>,
    /// Attempts at the last hop that began in this time.
    pub attempts: u64,
    /// The same per request of a client.
    pub amplification: Option<f64>,
    /// Attempts at the last hop in the worst second.
    pub peak_load: u64,
    /// The share of the attempts, in percent, that each endpoint of the last hop got.
    pub endpoints_percent: Vec<f64>,
    /// Why requests failed: the words of `x-outrigger-reason`, or the upstream's own status.
    pub failures: BTreeMap<String, u64>,
}

/// One second of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Requests that arrived.
    pub offered: u64,
    /// Requests that ended well.
    pub good: u64,
    /// Requests that ended badly.
    pub failed: u64,
    /// Attempts at the last hop that began.
    pub attempts: u64,
    /// Of those that ended.
    pub p50_ms: Option<f64>,
    /// Of those that ended.
    pub p99_ms: Option<f64>,
}

impl Run {
    pub(super) fn of(scenario: &Scenario, record: &Record, events: u64) -> Self {
        let (start, end) = record.window;
        let duration = nanos(scenario.duration);
        let spans = [(record.settled, start), (start, end), (end, duration)];
        let [before, during, after] =
            [0, 1, 2].map(|part| Phase::of(&record.parts[part], &record.seconds, spans[part]));
        let usual = before.success_percent.unwrap_or(100.0) / 100.0 * AS_BEFORE;
        let judged = end + nanos(scenario.grace);
        let late = success(steps(record, judged, duration));
        let total = |count: fn(&Second) -> u64| record.seconds.iter().map(count).sum::<u64>();
        Self {
            before,
            during,
            after,
            fault_starts: seconds(start),
            fault_ends: seconds(end),
            recovery_seconds: recovery(record, usual, end, duration),
            metastable: late.is_some_and(|late| late < usual),
            amplification: rounded(
                ratio(total(|second| second.attempts), total(|second| second.offered))
                    .unwrap_or_default(),
                1e3,
            ),
            wasted_work_percent: ratio(record.wasted, record.worked)
                .map_or(0.0, |share| rounded(share * 100.0, 1e2)),
            events,
            seconds: record.seconds.iter().map(Point::of).collect(),
        }
    }
}

impl Phase {
    fn of(part: &Part, all: &[Second], (from, to): (Time, Time)) -> Self {
        let inside = all.iter().zip((0..).step_by(index(SECOND)));
        let inside = inside.filter(|(_, at)| (from..to).contains(at)).map(|(second, _)| second);
        let (mut attempts, mut offered, mut peak_load) = (0, 0, 0);
        for second in inside {
            attempts += second.attempts;
            offered += second.offered;
            peak_load = peak_load.max(second.attempts);
        }
        Self {
            requests: part.requests,
            failed: part.requests - part.good,
            // Down, so that 100 % means all.
            success_percent: ratio(part.good, part.requests)
                .map(|share| (share * 1e4).floor() / 1e2),
            p50_ms: millis(&part.took, 0.50),
            p99_ms: millis(&part.took, 0.99),
            refused_p50_ms: millis(&part.refused, 0.50),
            attempts,
            amplification: ratio(attempts, offered).map(|ratio| rounded(ratio, 1e3)),
            peak_load,
            endpoints_percent: {
                let all = part.attempts.iter().sum();
                let share = |count: &u64| ratio(*count, all).map_or(0.0, |s| rounded(s * 1e2, 1e2));
                part.attempts.iter().map(share).collect()
            },
            failures: part.failures.clone(),
        }
    }
}

impl Point {
    fn of(second: &Second) -> Self {
        Self {
            offered: second.offered,
            good: second.good,
            failed: second.failed,
            attempts: second.attempts,
            p50_ms: millis(&second.took, 0.50),
            p99_ms: millis(&second.took, 0.99),
        }
    }
}

/// Seconds from `end` until the first moment from which every second of the next five is as good as `usual`.
fn recovery(record: &Record, usual: f64, end: Time, duration: Time) -> Option<f64> {
    let step = SECOND / STEPS;
    let good = |from: Time| {
        let found = success(steps(record, from, (from + SECOND).min(duration)));
        found.is_none_or(|found| found >= usual)
    };
    let mut since = end;
    let mut at = end;
    while at < duration {
        if !good(at) {
            since = at + step;
        } else if at >= since + HELD_SECONDS * SECOND {
            return Some(seconds(since - end));
        }
        at += step;
    }
    // Shorter than five seconds before the run ended does not count.
    (duration >= since + HELD_SECONDS * SECOND).then(|| seconds(since - end))
}

fn steps(record: &Record, from: Time, to: Time) -> &[Step] {
    let step = SECOND / STEPS;
    let length = record.steps.len();
    let (from, to) = (index(from / step).min(length), index(to / step).min(length));
    &record.steps[from..to.max(from)]
}

/// The share of requests that succeeded.
fn success(steps: &[Step]) -> Option<f64> {
    let good = steps.iter().map(|step| u64::from(step.good)).sum();
    ratio(good, steps.iter().map(|step| u64::from(step.arrived)).sum())
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let ratio = part as f64 / whole as f64;
    (whole > 0).then_some(ratio)
}

fn millis(histogram: &Histogram, share: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "below an hour")]
    histogram.quantile(share).map(|nanos| rounded(nanos as f64 / 1e6, 1e2))
}

fn seconds(time: Time) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "below an hour")]
    let seconds = time as f64 / 1e9;
    rounded(seconds, 1e3)
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
