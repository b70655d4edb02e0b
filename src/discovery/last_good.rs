//! The rule that every provider shares: what is known stays known until somebody who knows says otherwise.
//!
//! - **A set** replaces the one before. It is sorted by address and each address is unique, so that a source which
//!   rotates its answers does not look like a change.
//! - **A failure** says nothing about the endpoints: the last good set is kept without a limit.
//! - **An empty answer** is taken at its word only when it was given [`CONFIRMATIONS`] times in a row, [`SPACING`] apart.
//!   Ask again at [`LastGood::confirm_at`]. With no set to lose there is nothing to confirm.
//!
//! Pure: `now` comes in, [`Verdict`] goes out, and [`super::publisher::Publisher`] does what it says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ErrorKind, Standing};
use crate::base::endpoint::EndpointSpec;

/// Empty answers in a row that empty a set.
///
/// One is too few: a source that has just started, or a replica that lags, denies what it knows a moment later, and an
/// emptied set fails every request. More than a few is too slow for a service that was really removed.
pub(super) const CONFIRMATIONS: u32 = 3;

/// How far apart empty answers must be to count as two: a set is emptied 10 s after the first.
///
/// A source that restarts knows its services at once and their health only when each was checked; the usual interval of
/// such a check is 10 s, and until then an answer of "all that are healthy" is empty. Waiting costs little: endpoints that are gone
/// refuse connections, which fails requests with the same status as no endpoints.
pub(super) const SPACING: Duration = Duration::from_secs(5);

/// Endpoints of one set. Larger ones are refused, as a source that is out of its mind must not fill our memory.
pub(super) const MAX_ENDPOINTS: usize = 65_536;

/// Something that was wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is counted.
    pub(super) kind: ErrorKind,
    /// One line for people.
    pub(super) text: String,
}

impl Trouble {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// What an answer changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The set to publish; `None`: it is the one that was published last.
    pub(super) publish: Option<Arc<[EndpointSpec]>>,
    /// What to count and to show.
    pub(super) trouble: Option<Trouble>,
    /// How far the set can be trusted from here on.
    pub(super) standing: Standing,
}

/// The memory of one provider.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    /// What was published last; `None` until something was answered.
    published: Option<Arc<[EndpointSpec]>>,
    /// Empty answers in a row that count.
    empties: u32,
    /// When the last of them came.
    emptied: Option<Instant>,
    /// Failures in a row.
    misses: u32,
}

impl LastGood {
    /// Takes a whole set in, from a source that is sure of it. It may be empty.
    pub(super) fn on_set(&mut self, mut set: Vec<EndpointSpec>, now: Instant) -> Verdict {
        if set.len() > MAX_ENDPOINTS {
            let text = format!("{} endpoints are more than {MAX_ENDPOINTS}", set.len());
            return self.on_failure(Trouble::new(ErrorKind::Malformed, text));
        }
        self.misses = 0;
        if set.is_empty() && self.holds_endpoints() {
            return self.on_empty(now);
        }
        (self.empties, self.emptied) = (0, None);
        if set.is_empty() {
            return self.emptied_by(Trouble::new(ErrorKind::Empty, "there are no endpoints"));
        }
        tidy(&mut set);
        Verdict { publish: self.changed(set), trouble: None, standing: Standing::Fresh }
    }

    /// Takes in that nothing could be found out.
    pub(super) fn on_failure(&mut self, trouble: Trouble) -> Verdict {
        self.misses = self.misses.saturating_add(1);
        (self.empties, self.emptied) = (0, None);
        let standing = if self.holds_endpoints() { Standing::Stale } else { Standing::Failing };
        Verdict { publish: None, trouble: Some(trouble), standing }
    }

    /// When an empty answer is to be asked for again; `None`: nothing waits to be confirmed.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.emptied.map(|at| at + SPACING)
    }

    /// Failures in a row, for [`super::backoff::backoff`].
    pub(super) fn misses(&self) -> u32 {
        self.misses
    }

    /// Whether there are endpoints to lose.
    pub(super) fn holds_endpoints(&self) -> bool {
        self.published.as_ref().is_some_and(|set| !set.is_empty())
    }

    fn on_empty(&mut self, now: Instant) -> Verdict {
        if self.confirm_at().is_none_or(|due| now >= due) {
            self.empties += 1;
            self.emptied = Some(now);
        }
        let text =
            format!("there are no endpoints, told {} of {CONFIRMATIONS} times", self.empties);
        let trouble = Trouble::new(ErrorKind::Empty, text);
        if self.empties < CONFIRMATIONS {
            return Verdict { publish: None, trouble: Some(trouble), standing: Standing::Stale };
        }
        (self.empties, self.emptied) = (0, None);
        self.emptied_by(trouble)
    }

    fn emptied_by(&mut self, trouble: Trouble) -> Verdict {
        let publish = self.changed(Vec::new());
        Verdict { publish, trouble: Some(trouble), standing: Standing::Empty }
    }

    /// The set, where it is another than the one published.
    fn changed(&mut self, set: Vec<EndpointSpec>) -> Option<Arc<[EndpointSpec]>> {
        if self.published.as_deref() == Some(&set[..]) {
            return None;
        }
        let set: Arc<[EndpointSpec]> = set.into();
        self.published = Some(Arc::clone(&set));
        Some(set)
    }
}

/// Sorted by address; of several endpoints with one address the first counts.
fn tidy(set: &mut Vec<EndpointSpec>) {
    // Stable: the first of those with one address stays the first.
    set.sort_by(|a, b| a.address.cmp(&b.address));
    set.dedup_by(|later, first| later.address == first.address);
}

#[cfg(test)]
mod tests;
