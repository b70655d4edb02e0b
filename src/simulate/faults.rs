//! What of the scenario's events holds at a moment.

use std::time::Duration;

use crate::config::{Effect, Event};

use super::events::Time;

/// How an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Condition {
    /// It takes connections.
    pub(super) up: bool,
    /// Where it is not: what it had begun is lost.
    pub(super) crashed: bool,
    /// Nothing gets through to it, or back.
    pub(super) unreachable: bool,
    /// It answers nothing.
    pub(super) hanging: bool,
    /// Share of requests that are reset.
    pub(super) resets: f64,
    /// Share of requests that are answered with a status at once.
    pub(super) errors: (f64, u16),
    /// How many times as long work takes.
    pub(super) slow: f64,
    /// Share of its slots.
    pub(super) capacity: f64,
}

const WELL: Condition = Condition {
    up: true,
    crashed: false,
    unreachable: false,
    hanging: false,
    resets: 0.0,
    errors: (0.0, 503),
    slow: 1.0,
    capacity: 1.0,
};

/// The events, with their times on the virtual clock.
#[derive(Debug)]
pub(super) struct Faults {
    events: Vec<(Time, Time, Event)>,
}

impl Faults {
    pub(super) fn new(events: &[Event]) -> Self {
        let timed = |event: &Event| (nanos(event.at), nanos(event.at + event.lasts), event.clone());
        Self { events: events.iter().map(timed).collect() }
    }

    /// From the first event to the end of the last; `None` where nothing goes wrong.
    pub(super) fn window(&self) -> Option<(Time, Time)> {
        let start = self.events.iter().map(|(start, ..)| *start).min()?;
        let end = self.events.iter().map(|(_, end, _)| *end).max()?;
        Some((start, end))
    }

    /// How many times as many requests arrive.
    pub(super) fn load(&self, now: Time) -> f64 {
        let factors = self.active(now).filter_map(|(_, event)| match event.effect {
            Effect::Load(factor) => Some(factor),
            _ => None,
        });
        factors.product()
    }

    fn active(&self, now: Time) -> impl Iterator<Item = (Time, &Event)> {
        let active =
            self.events.iter().filter(move |(start, end, _)| (*start..*end).contains(&now));
        active.map(move |(start, _, event)| (now - start, event))
    }

    /// How the endpoint with that number is. What warms up is asked about for every request: see [`Faults::next`].
    pub(super) fn condition(&self, hop: usize, endpoint: u32, now: Time) -> Condition {
        let mut is = WELL;
        let concerns = |event: &Event| event.hop == hop && endpoint < event.endpoints;
        for (since, event) in self.active(now).filter(|(_, event)| concerns(event)) {
            match event.effect {
                Effect::Refuse => (is.up, is.crashed) = (false, true),
                Effect::BlackHole => is.unreachable = true,
                Effect::Hang => is.hanging = true,
                Effect::Reset(share) => is.resets = share,
                Effect::Errors { share, status } => is.errors = (share, status),
                Effect::Slow(factor) => is.slow *= factor,
                Effect::Capacity(share) => is.capacity *= share,
                Effect::Flap { every, down } => {
                    if since % nanos(every).max(1) < nanos(down) {
                        (is.up, is.crashed) = (false, true);
                    }
                }
                Effect::Restart { every, down, cold, slow } => {
                    let Some(since) = since.checked_sub(nanos(every * endpoint)) else { continue };
                    let (down, cold) = (nanos(down), nanos(cold));
                    if since < down {
                        is.up = false;
                    } else if since - down < cold {
                        #[expect(clippy::cast_precision_loss, reason = "a share of some seconds")]
                        let warm = (since - down) as f64 / cold as f64;
                        is.slow *= slow + (1.0 - slow) * warm;
                    }
                }
                Effect::Load(_) => {}
            }
        }
        is
    }

    /// When a condition changes next, after `now`. What warms up changes in steps of a twentieth.
    pub(super) fn next(&self, now: Time) -> Option<Time> {
        let later = |start: Time, end: Time, event: &Event| {
            let after = |at: Time| (at > now).then_some(at);
            let periodic = |first: Time, step: Time| {
                let step = step.max(1);
                let passed = now.checked_sub(first).map_or(0, |since| since / step + 1);
                after(first + passed * step).filter(|at| *at < end)
            };
            let inner = match event.effect {
                Effect::Flap { every, down } => {
                    let (every, down) = (nanos(every), nanos(down));
                    [periodic(start, every), periodic(start + down, every)]
                        .into_iter()
                        .flatten()
                        .min()
                }
                Effect::Restart { every, down, cold, .. } => (0..event.endpoints)
                    .flat_map(|endpoint| {
                        let gone = start + nanos(every * endpoint);
                        let back = gone + nanos(down);
                        let warm = (0..=20).map(move |step| back + nanos(cold) / 20 * step);
                        std::iter::once(gone).chain(warm)
                    })
                    .filter(|at| *at > now && *at < end)
                    .min(),
                _ => None,
            };
            [after(start), after(end), inner].into_iter().flatten().min()
        };
        self.events.iter().filter_map(|(start, end, event)| later(*start, *end, event)).min()
    }
}

/// A duration on the virtual clock; 580 years at most.
pub(super) fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "sums of exact halves")]

    use super::*;
    use crate::simulate::events::SECOND;

    fn event(at: u64, lasts: u64, effect: Effect) -> Event {
        let (at, lasts) = (Duration::from_secs(at), Duration::from_secs(lasts));
        Event { at, lasts, hop: 0, endpoints: 2, effect }
    }

    /// Every moment at which something changes.
    fn changes(faults: &Faults) -> Vec<Time> {
        let mut now = 0;
        std::iter::from_fn(|| {
            now = faults.next(now)?;
            Some(now)
        })
        .collect()
    }

    #[test]
    fn an_event_concerns_its_endpoints_while_it_lasts() {
        let faults = Faults::new(&[event(10, 5, Effect::Refuse)]);
        assert_eq!(changes(&faults), [10 * SECOND, 15 * SECOND]);
        assert_eq!(faults.window(), Some((10 * SECOND, 15 * SECOND)));
        for (endpoint, at, up) in
            [(0, 9, true), (0, 10, false), (1, 14, false), (2, 12, true), (0, 15, true)]
        {
            assert_eq!(faults.condition(0, endpoint, at * SECOND).up, up, "{endpoint} at {at} s");
        }
        assert!(faults.condition(1, 0, 12 * SECOND).up);
    }

    #[test]
    fn a_flapping_endpoint_is_down_in_the_first_part_of_each_period() {
        let (every, down) = (Duration::from_secs(4), Duration::from_secs(1));
        let faults = Faults::new(&[event(10, 8, Effect::Flap { every, down })]);
        assert_eq!(changes(&faults), [10, 11, 14, 15, 18].map(|at| at * SECOND));
        let up = |at: u64| faults.condition(0, 0, at * SECOND).up;
        assert_eq!([10, 11, 13, 14, 15, 18].map(up), [false, true, true, false, true, true]);
    }

    #[test]
    fn a_rolling_restart_takes_one_after_the_other_and_warms_up() {
        let second = Duration::from_secs;
        let effect =
            Effect::Restart { every: second(10), down: second(2), cold: second(4), slow: 3.0 };
        let faults = Faults::new(&[event(10, 16, effect)]);
        let at = |endpoint, at: u64| faults.condition(0, endpoint, at * SECOND);
        assert!(!at(0, 11).up && !at(0, 11).crashed && at(1, 11).up && !at(1, 20).up);
        assert_eq!([12, 14, 16].map(|second| at(0, second).slow), [3.0, 2.0, 1.0]);
        assert_eq!(changes(&faults).last(), Some(&(26 * SECOND)));
    }

    #[test]
    fn loads_multiply() {
        let faults =
            Faults::new(&[event(10, 10, Effect::Load(3.0)), event(15, 10, Effect::Load(0.5))]);
        let load = |at: u64| faults.load(at * SECOND);
        assert_eq!([5, 10, 15, 20, 25].map(load), [1.0, 3.0, 1.5, 0.5, 1.0]);
    }
}
