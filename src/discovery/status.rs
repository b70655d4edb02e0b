//! What a provider tells about itself: written by its task, read by metrics and the admin page.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AdvisedBalance;

/// How far a provider's set can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not asked yet, or the first answer is still on its way.
    Unasked,
    /// The set is what the last answer said.
    Fresh,
    /// The last answer failed, or said that nothing is left and is not confirmed: the last good set is kept.
    Stale,
    /// Answered: there are no endpoints.
    Empty,
    /// The last answer failed and there is no set to keep.
    Failing,
}

impl Standing {
    /// Every standing, in the order of the enum.
    pub const ALL: &'static [Self] =
        &[Self::Unasked, Self::Fresh, Self::Stale, Self::Empty, Self::Failing];

    /// The word in logs and on the admin page.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Empty => "empty",
            Self::Failing => "failing",
        }
    }
}

/// Why an answer was no good: the values of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The name does not exist.
    NxDomain,
    /// The name server could not find out (SERVFAIL).
    ServFail,
    /// No answer in time.
    Timeout,
    /// There are no endpoints: the name has no address (NODATA), the list no entry.
    Empty,
    /// The source could not be connected to, or broke off.
    Unreachable,
    /// The source did not let us in, or would not say.
    Denied,
    /// The answer could not be understood.
    Malformed,
    /// Anything else that the source refuses or fails with.
    Other,
}

impl ErrorKind {
    /// Every kind, in the order of the enum.
    pub const ALL: &'static [Self] = &[
        Self::NxDomain,
        Self::ServFail,
        Self::Timeout,
        Self::Empty,
        Self::Unreachable,
        Self::Denied,
        Self::Malformed,
        Self::Other,
    ];

    /// The word in logs and metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NxDomain => "nxdomain",
            Self::ServFail => "servfail",
            Self::Timeout => "timeout",
            Self::Empty => "empty",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// The last thing that went wrong. Stays after recovery: `at` says how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Its kind.
    pub kind: ErrorKind,
    /// One line for people.
    pub text: String,
    /// When it was seen.
    pub at: Instant,
}

/// Counters and state of one provider. All reads are of single values; two of them may be of different moments.
#[derive(Debug)]
pub struct ProviderStatus {
    started: Instant,
    /// Milliseconds from `started` to the last good answer, plus one; 0: never.
    last_success: AtomicU64,
    updates: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    /// An index into `Standing::ALL`.
    standing: AtomicU8,
    last_error: Mutex<Option<LastError>>,
    advised: Mutex<Option<AdvisedBalance>>,
}

impl ProviderStatus {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            last_success: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            errors: Default::default(),
            standing: AtomicU8::new(Standing::Unasked as u8),
            last_error: Mutex::new(None),
            advised: Mutex::new(None),
        }
    }

    /// When the provider was last told something it could rely on, to the millisecond; `None`: never.
    pub fn last_success(&self) -> Option<Instant> {
        let millis = self.last_success.load(Relaxed).checked_sub(1)?;
        Some(self.started + Duration::from_millis(millis))
    }

    /// How long the last good answer is ago, or the start of the provider where there was none.
    ///
    /// It grows to the TTL and falls back in normal work; what tells trouble is growth beyond it.
    pub fn staleness(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_success().unwrap_or(self.started))
    }

    /// How many sets were published. An answer that changed nothing is not counted.
    pub fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// How many lookups ended in an error of this kind; at most one is counted per lookup.
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize].load(Relaxed)
    }

    /// How far the set can be trusted.
    pub fn standing(&self) -> Standing {
        let index = usize::from(self.standing.load(Relaxed));
        Standing::ALL.get(index).copied().unwrap_or(Standing::Unasked)
    }

    /// Whether the set is an old one that is kept because nothing better is known.
    pub fn is_stale(&self) -> bool {
        self.standing() == Standing::Stale
    }

    /// The last error, if there ever was one.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the source would have its endpoints balanced; `None`: it has not been heard.
    pub fn advised(&self) -> Option<AdvisedBalance> {
        *self.advised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the advice before.
    #[cfg(feature = "xds")]
    pub(super) fn advise(&self, advice: AdvisedBalance) -> Option<AdvisedBalance> {
        self.advised.lock().unwrap_or_else(PoisonError::into_inner).replace(advice)
    }

    pub(super) fn record_success(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.started).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX - 1);
        self.last_success.store(millis + 1, Relaxed);
    }

    pub(super) fn record_update(&self) {
        self.updates.fetch_add(1, Relaxed);
    }

    pub(super) fn record_error(&self, kind: ErrorKind, text: String, now: Instant) {
        self.errors[kind as usize].fetch_add(1, Relaxed);
        let error = LastError { kind, text, at: now };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns the standing before.
    pub(super) fn set_standing(&self, standing: Standing) -> Standing {
        let before = self.standing();
        self.standing.store(standing as u8, Relaxed);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn staleness_counts_from_the_start_until_the_first_success() {
        let start = Instant::now();
        let status = ProviderStatus::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(status.staleness(at(5)), Duration::from_secs(5));
        assert_eq!(status.last_success(), None);
        status.record_success(at(7));
        assert_eq!(status.last_success(), Some(at(7)));
        assert_eq!(status.staleness(at(9)), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_error_is_counted_apart() {
        let now = Instant::now();
        let status = ProviderStatus::new(now);
        for (times, &kind) in ErrorKind::ALL.iter().enumerate() {
            for _ in 0..times {
                status.record_error(kind, kind.word().to_owned(), now);
            }
        }
        for (times, &kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(status.errors(kind), times as u64, "{}", kind.word());
        }
        assert_eq!(status.last_error().map(|error| error.text), Some("other".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn every_standing_reads_back() {
        let status = ProviderStatus::new(Instant::now());
        for &standing in Standing::ALL {
            status.set_standing(standing);
            assert_eq!(status.standing(), standing);
        }
    }
}
