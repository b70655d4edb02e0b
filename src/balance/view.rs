//! How an endpoint stands, for people.

use std::time::Duration;

use tokio::time::Instant;

use super::Balancer;
use super::endpoint::Endpoint;
use super::standing::{Ejection, FULL, Health, State};

/// What the admin page shows of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Where it is counted.
    pub place: Place,
    /// The ejection that is in force, or would be.
    pub ejection: Option<EjectionView>,
    /// Ejections in a row that were not forgiven yet.
    pub ejections: u8,
    /// The share of its weight that it takes, `0.1..=1.0`; less than 1 under slow start.
    pub share: f64,
}

/// An ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionView {
    /// Until one request may probe the endpoint; 0: the next may.
    pub left: Duration,
    /// A probe is under way.
    pub probing: bool,
    /// False where it is only counted.
    pub enforced: bool,
}

impl Balancer {
    /// How `endpoint` stands at `now`.
    pub fn view(&self, endpoint: &Endpoint, now: Instant) -> View {
        let standing = &endpoint.standing;
        let state = standing.load();
        let share = state.share(standing.clock(now), self.slow_start);
        let ejection = (state.ejection != Ejection::In).then(|| EjectionView {
            left: standing.instant(state.at).saturating_duration_since(now),
            probing: state.ejection == Ejection::Probing,
            enforced: state.ejection != Ejection::Shadow,
        });
        View {
            place: state.place(self.slow_start),
            ejection,
            ejections: state.times,
            share: f64::from(share) / f64::from(FULL),
        }
    }
}

impl State {
    /// The one state that an endpoint is counted in.
    pub(super) fn place(self, slow_start: Option<Duration>) -> Place {
        if self.is_ejected() {
            Place::Ejected
        } else if self.health == Health::Unhealthy {
            Place::Unhealthy
        } else if self.health == Health::Unproven {
            Place::Unproven
        } else if self.ramping && slow_start.is_some() {
            Place::SlowStart
        } else {
            Place::Ready
        }
    }
}

/// What the metrics count endpoints by; each is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In traffic.
    Ready,
    /// Its checks fail.
    Unhealthy,
    /// Its first check has not ended.
    Unproven,
    /// Out of traffic for its failures.
    Ejected,
    /// In traffic with a part of its weight.
    SlowStart,
}

impl Place {
    /// The word in metrics and on the admin page.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Unproven => "unproven",
            Self::Ejected => "ejected",
            Self::SlowStart => "slow_start",
        }
    }
}
