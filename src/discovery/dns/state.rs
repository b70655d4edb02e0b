//! What an answer changes, and when to ask again. No I/O and no clock: `now` and the randomness come in.
//!
//! - **Good answers** replace the set. Addresses are sorted and unique, so that a server which rotates its answers does
//!   not look like a change. The next question comes when the shortest TTL is up, within the configured range.
//! - **Failures** (SERVFAIL, timeouts, refusals) say nothing about the endpoints: the last good set is kept without a
//!   limit, and the next question follows a backoff.
//! - **Negative answers** (NXDOMAIN, NODATA) say that there are none, and empty the set once [`CONFIRMATIONS`] of them
//!   came in a row. They are a negative TTL apart, so that a cache between us and the name server cannot confirm
//!   itself.
//!
//! All this holds for each family (A, AAAA) by itself: where AAAA answers and A fails, the A addresses stay. A family
//! that always fails, beside one that answers, is counted and otherwise ignored: name servers that drop AAAA questions
//! are common.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::backoff::backoff;
pub(super) use super::super::last_good::Trouble;
use super::super::last_good::{CONFIRMATIONS, Verdict};
use super::super::{ErrorKind, Standing};
use crate::base::endpoint::EndpointSpec;
use crate::base::rng::Rng;

/// Share of a TTL by which the next question comes earlier or later, so that sidecars which started together do not ask
/// together for ever.
const JITTER: f64 = 0.1;

/// Between how much and how much a TTL counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlRange {
    min: Duration,
    max: Duration,
}

impl TtlRange {
    /// Below this even a TTL of 0 under a range that starts at 0 is not asked again: it would be a busy loop.
    const FLOOR: Duration = Duration::from_millis(10);

    /// From `min` (raised to 10 ms) to `max` (raised to `min`).
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Self::FLOOR);
        Self { min, max: max.max(min) }
    }

    /// When a record of this TTL is asked again: within 10 % of it, never outside the range.
    ///
    /// Uniform over the part of the ±10 % that lies within: clamping the jittered value instead would gather everything
    /// beyond a bound on the bound itself, unjittered.
    pub(super) fn pace(self, ttl: Duration, rng: &mut Rng) -> Duration {
        let ttl = ttl.clamp(self.min, self.max);
        let low = ttl.mul_f64(1.0 - JITTER).max(self.min);
        let high = ttl.mul_f64(1.0 + JITTER).min(self.max);
        low + rng.duration_up_to(high.saturating_sub(low))
    }
}

impl Default for TtlRange {
    /// 1 s to 60 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

/// What one family of addresses was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FamilyAnswer {
    /// These, for so long. An empty list is taken at once: it means "not this family", not "nothing there".
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// The name server is sure that there are none; `ttl` is how long it is sure (RFC 2308), where it says so.
    Negative { trouble: Trouble, ttl: Option<Duration> },
    /// It is not known.
    Failed(Trouble),
}

/// What one lookup found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) v4: FamilyAnswer,
    pub(super) v6: FamilyAnswer,
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) struct Next {
    /// What it changes.
    pub(super) verdict: Verdict,
    /// When to ask again.
    pub(super) ask_at: Instant,
}

/// The memory of one name.
#[derive(Debug)]
pub(super) struct DnsState {
    port: u16,
    ttl: TtlRange,
    v4: Family,
    v6: Family,
    /// What was published last; `None` until something was answered.
    published: Option<Vec<IpAddr>>,
    /// Answers in a row that were not good.
    misses: u32,
}

impl DnsState {
    pub(super) fn new(port: u16, ttl: TtlRange) -> Self {
        let (v4, v6) = (Family::default(), Family::default());
        Self { port, ttl, v4, v6, published: None, misses: 0 }
    }

    /// Whether there are addresses to lose.
    pub(super) fn holds_addresses(&self) -> bool {
        !(self.v4.addresses.is_empty() && self.v6.addresses.is_empty())
    }

    /// What there is to connect to, sorted within each family.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.addresses.iter().chain(&self.v6.addresses).copied()
    }

    /// Takes an answer in.
    pub(super) fn on_answer(&mut self, now: Instant, answer: Answer, rng: &mut Rng) -> Next {
        let found = self.v4.take(answer.v4).join(self.v6.take(answer.v6));
        let positive = found.ttl.is_some();
        // A family that fails while it has nothing to lose, beside one that answers, is no reason to hurry or to warn.
        let troubled = found.failure.is_some() && (found.stale || !positive);
        let good = positive && !troubled;
        self.misses = if good { 0 } else { self.misses.saturating_add(1) };

        let ask_at = now + self.wait(&found, troubled, rng);
        let standing = match (self.holds_addresses(), good, troubled) {
            (true, true, _) => Standing::Fresh,
            (true, false, _) => Standing::Stale,
            (false, _, true) => Standing::Failing,
            (false, _, false) => Standing::Empty,
        };
        let publish =
            if positive || !troubled || self.published.is_some() { self.changed() } else { None };
        let negative = found.negative.filter(|_| !positive);
        let trouble = found.failure.or(negative);
        Next { verdict: Verdict { publish, trouble, standing }, ask_at }
    }

    /// How long to wait before the next question.
    fn wait(&self, found: &Found, troubled: bool, rng: &mut Rng) -> Duration {
        let backoff = backoff(self.misses, rng);
        match (found.ttl, found.negative_ttl) {
            (Some(ttl), _) if troubled => backoff.min(self.ttl.pace(ttl, rng)),
            (Some(ttl), _) => self.ttl.pace(ttl, rng),
            (None, Some(ttl)) if !troubled => {
                let pace = self.ttl.pace(ttl, rng);
                // With nothing to lose there is nothing to confirm: a name that appears should be found soon.
                if self.holds_addresses() { pace } else { pace.min(backoff) }
            }
            _ => backoff,
        }
    }

    /// The set, where it is another than the one published.
    fn changed(&mut self) -> Option<Arc<[EndpointSpec]>> {
        let set = [&self.v4.addresses[..], &self.v6.addresses].concat();
        if self.published.as_ref() == Some(&set) {
            return None;
        }
        let endpoint = |&ip: &IpAddr| EndpointSpec::at(SocketAddr::new(ip, self.port));
        let endpoints = set.iter().map(endpoint).collect();
        self.published = Some(set);
        Some(endpoints)
    }
}

/// A or AAAA. Invariant: `addresses` are sorted and unique.
#[derive(Debug, Default)]
struct Family {
    addresses: Vec<IpAddr>,
    /// Negative answers in a row.
    negatives: u32,
}

impl Family {
    fn take(&mut self, answer: FamilyAnswer) -> Found {
        match answer {
            FamilyAnswer::Addresses { mut addresses, ttl } => {
                addresses.sort_unstable();
                addresses.dedup();
                *self = Self { addresses, negatives: 0 };
                Found { ttl: Some(ttl), ..Found::default() }
            }
            FamilyAnswer::Negative { trouble, ttl } => {
                self.negatives = self.negatives.saturating_add(1);
                if self.negatives >= CONFIRMATIONS {
                    self.addresses.clear();
                }
                Found { negative: Some(trouble), negative_ttl: ttl, ..Found::default() }
            }
            FamilyAnswer::Failed(trouble) => {
                self.negatives = 0;
                let stale = !self.addresses.is_empty();
                Found { failure: Some(trouble), stale, ..Found::default() }
            }
        }
    }
}

/// What one family, or both together, were told.
#[derive(Debug, Default)]
struct Found {
    /// The shortest TTL of good answers.
    ttl: Option<Duration>,
    negative: Option<Trouble>,
    /// The shortest TTL of negative answers.
    negative_ttl: Option<Duration>,
    failure: Option<Trouble>,
    /// Addresses are kept although their family failed.
    stale: bool,
}

impl Found {
    fn join(self, other: Self) -> Self {
        let negative = match (self.negative, other.negative) {
            // NXDOMAIN denies the whole name, NODATA only one family: the former says more.
            (Some(_), Some(b)) if b.kind == ErrorKind::NxDomain => Some(b),
            (a, b) => a.or(b),
        };
        Self {
            ttl: self.ttl.into_iter().chain(other.ttl).min(),
            negative,
            negative_ttl: self.negative_ttl.into_iter().chain(other.negative_ttl).min(),
            failure: self.failure.or(other.failure),
            stale: self.stale || other.stale,
        }
    }
}

#[cfg(test)]
mod tests;
