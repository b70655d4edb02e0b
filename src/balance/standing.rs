//! Whether an endpoint may be picked: health, ejection and slow start, in one word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The share of its weight that an endpoint starts with under slow start, in thousandths: Envoy's 10 %.
///
/// Less would leave an upstream of few endpoints without a request to warm up by.
const RAMP_FLOOR: u32 = 100;

/// All of an endpoint's weight, in thousandths.
pub(super) const FULL: u32 = 1000;

/// What active checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not checked: it is picked as a healthy one is.
    #[default]
    Unknown,
    /// The checks pass.
    Healthy,
    /// The checks fail: picked in panic only.
    Unhealthy,
    /// Checked, and no check has ended yet: picked only while no other is available.
    Unproven,
}

/// What outlier detection says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ejection {
    /// It is picked.
    #[default]
    In,
    /// Not picked; when its time has passed, by one request as a probe.
    Ejected,
    /// Its probe is under way.
    Probing,
    /// It would be ejected, were that enforced: picked as if nothing were.
    Shadow,
}

/// The word, unpacked. Every transition is a plain function here; [`Standing`] makes it atomic.
///
/// ```text
///              eject                     due, one pick            success
///   In ─────────────────────► Ejected ─────────────► Probing ─────────────────► In (slow start)
///    ▲                         ▲    ▲ caller leaves    │ │ failure: times + 1
///    │ due, success            │    └──────────────────┘ │
///   Shadow ◄── eject (not enforced)  ◄───────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) health: Health,
    pub(super) ejection: Ejection,
    /// Slow start runs from `at`.
    pub(super) ramping: bool,
    /// Ejections in a row, less those that were forgiven, 0..=255.
    pub(super) times: u8,
    /// Which ejection this is, modulo 2 048: a probe of an earlier one settles nothing.
    pub(super) epoch: u16,
    /// Milliseconds since the endpoint was made: the end of the ejection, or when it was last let in.
    pub(super) at: u64,
}

impl State {
    const EPOCHS: u16 = 1 << 11;
    const AT_BITS: u32 = 40;
    /// Where any of these bits is set, an endpoint is not simply picked.
    const SPECIAL: u64 = 0b1_11_10;

    fn pack(self) -> u64 {
        let health = match self.health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Unhealthy => 2,
            Health::Unproven => 3,
        };
        let ejection = match self.ejection {
            Ejection::In => 0,
            Ejection::Ejected => 1,
            Ejection::Probing => 2,
            Ejection::Shadow => 3,
        };
        health
            | ejection << 2
            | u64::from(self.ramping) << 4
            | u64::from(self.times) << 5
            | u64::from(self.epoch % Self::EPOCHS) << 13
            | self.at.min((1 << Self::AT_BITS) - 1) << 24
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the width of the field")]
    fn unpack(word: u64) -> Self {
        Self {
            health: match word & 3 {
                1 => Health::Healthy,
                2 => Health::Unhealthy,
                3 => Health::Unproven,
                _ => Health::Unknown,
            },
            ejection: match word >> 2 & 3 {
                1 => Ejection::Ejected,
                2 => Ejection::Probing,
                3 => Ejection::Shadow,
                _ => Ejection::In,
            },
            ramping: word & 1 << 4 != 0,
            times: (word >> 5) as u8,
            epoch: (word >> 13) as u16 % Self::EPOCHS,
            at: word >> 24,
        }
    }

    /// Neither unhealthy nor unproven nor ejected.
    pub(super) fn is_available(self) -> bool {
        matches!(self.health, Health::Unknown | Health::Healthy) && !self.is_ejected()
    }

    /// Not picked for its failures.
    pub(super) fn is_ejected(self) -> bool {
        matches!(self.ejection, Ejection::Ejected | Ejection::Probing)
    }

    /// The thousandths of its weight that it takes at `now`: 100 at the start of `window`, 1 000 at its end.
    pub(super) fn share(self, now: u64, window: Option<Duration>) -> u32 {
        let Some(window) = window.filter(|_| self.ramping) else { return FULL };
        let window = millis(window).max(1);
        let passed = now.saturating_sub(self.at).min(window);
        let ramped = u64::from(FULL - RAMP_FLOOR) * passed / window;
        RAMP_FLOOR + u32::try_from(ramped).unwrap_or(FULL - RAMP_FLOOR)
    }

    /// Out of traffic until `until`, for the `times`-th time in a row.
    pub(super) fn ejected(self, ejection: Ejection, times: u8, until: u64) -> Self {
        Self {
            ejection,
            ramping: false,
            times,
            epoch: (self.epoch + 1) % Self::EPOCHS,
            at: until,
            ..self
        }
    }

    /// Back in traffic, with slow start.
    pub(super) fn returned(self, now: u64) -> Self {
        let ramping = self.ejection != Ejection::Shadow;
        Self { ejection: Ejection::In, ramping, at: now, ..self }
    }

    fn checked(self, health: Health, now: u64) -> Self {
        let recovers = self.health == Health::Unhealthy && health != Health::Unhealthy;
        if recovers && self.ejection == Ejection::In {
            return Self { health, ramping: true, at: now, ..self };
        }
        Self { health, ..self }
    }
}

/// The live word of an endpoint. A pick reads it with one load; every change is a compare-and-swap of one transition.
///
/// `Relaxed`: nothing else hangs on it.
#[derive(Debug)]
pub(super) struct Standing {
    origin: Instant,
    word: AtomicU64,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, word: AtomicU64::new(State::default().pack()) }
    }

    /// True where it is picked as if there were neither checks nor outlier detection nor slow start: nearly always.
    pub(super) fn is_plain(&self) -> bool {
        self.word.load(Ordering::Relaxed) & State::SPECIAL == 0
    }

    pub(super) fn load(&self) -> State {
        State::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Applies `step` unless it says no; the state before and the one after.
    pub(super) fn update(&self, step: impl Fn(State) -> Option<State>) -> Option<(State, State)> {
        let stepped = |word| step(State::unpack(word)).map(State::pack);
        let before = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, stepped);
        let before = State::unpack(before.ok()?);
        Some((before, step(before)?))
    }

    /// Milliseconds since the endpoint was made.
    pub(super) fn clock(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.origin))
    }

    /// When `at` is.
    pub(super) fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_millis(at)
    }

    /// Begins slow start.
    pub(super) fn ramp(&self, now: Instant) {
        let at = self.clock(now);
        let _plain = self.update(|state| {
            (state.ejection == Ejection::In).then_some(State { ramping: true, at, ..state })
        });
    }

    /// Ends slow start where `window` has passed, or where there is none.
    pub(super) fn settle_ramp(&self, now: Instant, window: Option<Duration>) {
        if self.is_plain() {
            return;
        }
        let now = self.clock(now);
        let _running = self.update(|state| {
            (state.ramping && state.share(now, window) == FULL)
                .then_some(State { ramping: false, ..state })
        });
    }

    /// Notes what a check says. The health before.
    pub(super) fn check(&self, health: Health, now: Instant) -> Health {
        let now = self.clock(now);
        let changed = self.update(|state| Some(state.checked(health, now)));
        changed.map_or(health, |(before, _)| before.health)
    }

    /// Takes the one permit to probe, where it is ejected and its time has passed: the ejection's number.
    pub(super) fn try_probe(&self, now: Instant) -> Option<u16> {
        let now = self.clock(now);
        let taken = self.update(|state| {
            (state.ejection == Ejection::Ejected && state.at <= now)
                .then_some(State { ejection: Ejection::Probing, ..state })
        });
        taken.map(|(_, state)| state.epoch)
    }

    /// Gives the permit back, unless the probe has been settled.
    pub(super) fn give_probe_back(&self, epoch: u16) {
        let _settled = self.update(|state| {
            (state.ejection == Ejection::Probing && state.epoch == epoch)
                .then_some(State { ejection: Ejection::Ejected, ..state })
        });
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_state_survives_its_word() {
        let healths = [Health::Unknown, Health::Healthy, Health::Unhealthy, Health::Unproven];
        let ejections = [Ejection::In, Ejection::Ejected, Ejection::Probing, Ejection::Shadow];
        for (health, ejection) in healths.into_iter().flat_map(|h| ejections.map(|e| (h, e))) {
            for (ramping, times, epoch, at) in
                [(false, 0, 0, 0), (true, 255, 2047, (1 << 40) - 1), (true, 1, 2, 3)]
            {
                let state = State { health, ejection, ramping, times, epoch, at };
                assert_eq!(State::unpack(state.pack()), state);
                let good = matches!(health, Health::Unknown | Health::Healthy);
                let plain = good && ejection == Ejection::In && !ramping;
                assert_eq!(state.pack() & State::SPECIAL == 0, plain, "{state:?}");
            }
        }
    }

    #[test]
    fn slow_start_goes_from_a_tenth_to_all_in_a_straight_line() {
        let state = State { ramping: true, at: 5_000, ..State::default() };
        let shares = [0, 5_000, 14_000, 20_000, 35_000, 99_000]
            .map(|now| state.share(now, Some(30 * SECOND)));
        assert_eq!(shares, [100, 100, 370, 550, 1000, 1000]);
        assert_eq!(state.share(5_000, None), FULL);
        assert_eq!(State::default().share(0, Some(30 * SECOND)), FULL);
    }

    #[test]
    fn an_ejection_is_probed_once_and_a_permit_comes_back() {
        let start = Instant::now();
        let standing = Standing::new(start);
        assert_eq!(standing.try_probe(start), None);
        let _ejected = standing.update(|state| Some(state.ejected(Ejection::Ejected, 1, 1_000)));
        assert_eq!(standing.try_probe(start + 999 * SECOND / 1000), None);
        let permit = standing.try_probe(start + SECOND).unwrap();
        assert_eq!(standing.try_probe(start + SECOND), None);
        standing.give_probe_back(permit + 1);
        assert_eq!(standing.try_probe(start + SECOND), None);
        standing.give_probe_back(permit);
        assert_eq!(standing.try_probe(start + SECOND), Some(permit));
    }

    #[test]
    fn what_recovers_starts_slowly_and_what_was_never_unhealthy_does_not() {
        let start = Instant::now();
        let standing = Standing::new(start);
        assert_eq!(standing.check(Health::Healthy, start), Health::Unknown);
        assert!(standing.is_plain());
        assert_eq!(standing.check(Health::Unhealthy, start), Health::Healthy);
        assert!(!standing.load().is_available());
        standing.check(Health::Healthy, start + SECOND);
        assert_eq!(standing.load().share(1_000, Some(SECOND)), RAMP_FLOOR);
        standing.settle_ramp(start + 2 * SECOND, Some(SECOND));
        assert!(standing.is_plain());
    }

    #[test]
    fn an_ejected_endpoint_that_recovers_stays_ejected() {
        let start = Instant::now();
        let standing = Standing::new(start);
        let _ejected = standing.update(|state| Some(state.ejected(Ejection::Ejected, 1, 9_000)));
        standing.check(Health::Unhealthy, start);
        standing.check(Health::Healthy, start + SECOND);
        let state = standing.load();
        assert_eq!((state.ejection, state.at, state.ramping), (Ejection::Ejected, 9_000, false));
    }
}
