//! The set in force, and how those before it leave.
//!
//! A connection keeps the [`Generation`] that it was made with. When another takes its place, that is noted in the old one,
//! so that whoever looks at a connection's own generation knows by when the connection has to end: one load, no list of
//! connections, nobody to be told.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use tokio::time::Instant;

/// A connection made with a set that was replaced ends, after the requests that it carries, within this time. Spread over it,
/// so that peers do not all come back at once: 10 000 connections make 167 handshakes a second, a twelfth of what one core
/// does. Long enough for that, short against the hour that the shortest-lived certificates (SPIRE's) last.
pub const DRAIN: Duration = Duration::from_secs(60);

/// What was made of one set.
#[derive(Debug)]
pub struct Generation<T> {
    /// What connections are made with.
    pub value: T,
    replaced: OnceLock<Instant>,
}

impl<T> Generation<T> {
    fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value, replaced: OnceLock::new() })
    }

    /// When a connection that was made at `made` has to end; `None` while its set is in force. Between the replacement and
    /// [`DRAIN`] after it, evenly by a hash of `made`, and the same whenever it is asked.
    pub fn ends_at(&self, made: Instant) -> Option<Instant> {
        let replaced = *self.replaced.get()?;
        // The upper half: the multiplication behind the hash mixes it best.
        let share = FixedState::default().hash_one(made) >> 32;
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
        let share = share as f64 / f64::from(u32::MAX);
        Some(replaced + DRAIN.mul_f64(share))
    }

    /// When even a connection that nobody uses has to end; `None` while its set is in force.
    pub fn closes_at(&self) -> Option<Instant> {
        self.replaced.get().map(|replaced| *replaced + DRAIN)
    }

    /// True once another has taken its place.
    pub fn is_replaced(&self) -> bool {
        self.replaced.get().is_some()
    }
}

/// The generation in force. Read once per connection.
#[derive(Debug)]
pub struct Rotating<T>(ArcSwap<Generation<T>>);

impl<T> Rotating<T> {
    /// The first.
    pub fn new(value: T) -> Self {
        Self(ArcSwap::new(Generation::new(value)))
    }

    /// The one in force.
    pub fn current(&self) -> Arc<Generation<T>> {
        self.0.load_full()
    }

    /// Puts another in its place, `now`.
    pub fn replace(&self, value: T, now: Instant) {
        let before = self.0.swap(Generation::new(value));
        // Once only: whoever was replaced is in force no more.
        let _first = before.replaced.set(now);
    }

    /// Nothing takes its place, and yet it is in force no more: no connection is made with it, `now` and later.
    pub fn retire(&self, now: Instant) {
        let _first = self.0.load().replaced.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_replaced_set_end_spread_over_the_drain() {
        let origin = Instant::now();
        let rotating = Rotating::new(1);
        let old = rotating.current();
        assert_eq!(old.ends_at(origin), None);
        let now = origin + Duration::from_secs(100);
        rotating.replace(2, now);
        assert_eq!((rotating.current().value, old.is_replaced()), (2, true));
        let ends: Vec<_> = (0..1_000_u64)
            .map(|index| {
                let made = origin + Duration::from_micros(index * 37);
                let ends = old.ends_at(made).unwrap();
                assert_eq!(old.ends_at(made), Some(ends), "the same when asked again");
                assert!(ends >= now && ends <= now + DRAIN);
                ends
            })
            .collect();
        // Evenly: each tenth of the time has its tenth of them, give or take half.
        for tenth in 0..10 {
            let (from, to) = (now + DRAIN * tenth / 10, now + DRAIN * (tenth + 1) / 10);
            let count = ends.iter().filter(|end| **end >= from && **end < to).count();
            assert!((50..=150).contains(&count), "{tenth}: {count}");
        }
        // Another change moves nothing.
        rotating.replace(3, now + DRAIN);
        assert!(old.ends_at(origin).unwrap() <= now + DRAIN);
    }
}
