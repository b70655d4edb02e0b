//! What SRV records and the addresses of their targets amount to, and when to ask again. No I/O and no clock.
//!
//! - **Records** replace those before. A failure keeps them. NXDOMAIN, no records and the target `.` ("decidedly not
//!   available", RFC 2782) say that there are none.
//! - **Targets** have their addresses by the rules of [`DnsState`]: kept on failure, gone when denied three times in a row.
//! - **The set** is what both amount to, under the rule of [`LastGood`]: an empty one has to be confirmed.
//!
//! # Weights
//!
//! Weights are relative within a priority and are of a target; an endpoint is one of its addresses and gets an equal part.
//! Ours go from 1 to 1000, so they are scaled where they do not fit. A weight of 0 beside others is to have "a very
//! small chance of being selected": 1, where the largest is scaled to 1000.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::super::state::{Answer, DnsState, Trouble, TtlRange};
use crate::base::endpoint::EndpointSpec;
use crate::base::rng::Rng;
use crate::discovery::backoff::backoff;
use crate::discovery::last_good::{LastGood, SPACING, Verdict};
use crate::discovery::{ErrorKind, Standing};

/// Records of one answer: as many as a message of DNS has room for, twice.
const MAX_RECORDS: usize = 4_096;

/// The largest weight of an endpoint.
const MAX_WEIGHT: f64 = 1000.0;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::discovery::dns) struct SrvRecord {
    /// 0 is used first.
    pub(in crate::discovery::dns) priority: u16,
    /// Share among those of one priority.
    pub(in crate::discovery::dns) weight: u16,
    pub(in crate::discovery::dns) port: u16,
    /// A full name; the root where the service is not available.
    pub(in crate::discovery::dns) target: Name,
}

/// What a question for SRV records was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::discovery::dns) enum SrvAnswer {
    /// These, for so long.
    Records { records: Vec<SrvRecord>, ttl: Duration },
    /// The name server is sure that there are none.
    Negative { trouble: Trouble, ttl: Option<Duration> },
    /// It is not known.
    Failed(Trouble),
}

/// The memory of one service.
#[derive(Debug)]
pub(super) struct SrvState {
    ttl: TtlRange,
    records: Vec<SrvRecord>,
    /// When records are asked for again.
    ask_at: Instant,
    /// Questions for records in a row that brought none.
    misses: u32,
    targets: BTreeMap<Name, Target>,
    last: LastGood,
    /// Why the last question for records failed.
    failed: Option<Trouble>,
    /// The first trouble since the last verdict.
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Target {
    state: DnsState,
    ask_at: Instant,
    /// Its last question failed.
    failed: bool,
}

impl SrvState {
    /// Nothing is known; everything is due at `now`.
    pub(super) fn new(ttl: TtlRange, now: Instant) -> Self {
        Self {
            ttl,
            records: Vec::new(),
            ask_at: now,
            misses: 0,
            targets: BTreeMap::new(),
            last: LastGood::default(),
            failed: None,
            trouble: None,
        }
    }

    /// Whether to ask for records.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.ask_at
    }

    /// The targets to ask for addresses.
    pub(super) fn due_targets(&self, now: Instant) -> Vec<Name> {
        let due = self.targets.iter().filter(|(_, target)| now >= target.ask_at);
        due.map(|(name, _)| name.clone()).collect()
    }

    /// Whether there are endpoints to lose.
    pub(super) fn holds_endpoints(&self) -> bool {
        self.last.holds_endpoints()
    }

    /// When something is due next.
    pub(super) fn next_at(&self) -> Instant {
        let targets = self.targets.values().map(|target| target.ask_at);
        targets.chain(self.last.confirm_at()).fold(self.ask_at, Instant::min)
    }

    /// Takes an answer for records in.
    pub(super) fn on_records(&mut self, answer: SrvAnswer, now: Instant, rng: &mut Rng) {
        let answer = match answer {
            SrvAnswer::Records { records, .. } if records.len() > MAX_RECORDS => {
                let text = format!("{} records are more than {MAX_RECORDS}", records.len());
                SrvAnswer::Failed(Trouble::new(ErrorKind::Malformed, text))
            }
            SrvAnswer::Records { records, ttl } if records.iter().all(|r| r.target.is_root()) => {
                let text = "the service is not available (SRV target `.`)";
                let trouble = Trouble::new(ErrorKind::Empty, text);
                SrvAnswer::Negative { trouble, ttl: Some(ttl) }
            }
            answer => answer,
        };
        let good = matches!(answer, SrvAnswer::Records { .. });
        self.misses = if good { 0 } else { self.misses.saturating_add(1) };
        self.failed = None;
        let wait = match answer {
            SrvAnswer::Records { mut records, ttl } => {
                records.retain(|record| !record.target.is_root() && record.port != 0);
                records.sort();
                records.dedup();
                self.replace(records, now);
                self.ttl.pace(ttl, rng)
            }
            SrvAnswer::Negative { trouble, ttl } => {
                self.note(trouble);
                self.replace(Vec::new(), now);
                let pace = self.ttl.pace(ttl.unwrap_or_default(), rng);
                // With nothing to lose there is nothing to confirm: what appears should be found soon.
                match self.last.holds_endpoints() {
                    true => pace.max(SPACING),
                    false => pace.min(backoff(self.misses, rng)),
                }
            }
            SrvAnswer::Failed(trouble) => {
                self.note(trouble.clone());
                self.failed = Some(trouble);
                backoff(self.misses, rng)
            }
        };
        self.ask_at = now + wait;
    }

    /// Takes an answer for the addresses of a target in.
    pub(super) fn on_target(&mut self, name: &Name, answer: Answer, now: Instant, rng: &mut Rng) {
        let Some(target) = self.targets.get_mut(name) else { return };
        let next = target.state.on_answer(now, answer, rng);
        target.ask_at = next.ask_at;
        target.failed = matches!(next.verdict.standing, Standing::Stale | Standing::Failing);
        if let Some(trouble) =
            next.verdict.trouble.filter(|_| next.verdict.standing != Standing::Fresh)
        {
            self.note(trouble);
        }
    }

    /// What all that has been answered amounts to.
    pub(super) fn verdict(&mut self, now: Instant) -> Verdict {
        let trouble = self.trouble.take();
        let set = self.set();
        let troubled = self.failed.is_some() || self.targets.values().any(|target| target.failed);
        if set.is_empty() && troubled {
            let unknown = || Trouble::new(ErrorKind::Other, "no target has an address");
            return self
                .last
                .on_failure(trouble.or_else(|| self.failed.clone()).unwrap_or_else(unknown));
        }
        let empty = set.is_empty();
        let mut verdict = self.last.on_set(set, now);
        if troubled && !empty {
            verdict.standing = Standing::Stale;
        }
        verdict.trouble = trouble.or(verdict.trouble);
        verdict
    }

    fn note(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }

    /// Other records: targets that are named still keep what is known of them.
    fn replace(&mut self, records: Vec<SrvRecord>, now: Instant) {
        let mut before = std::mem::take(&mut self.targets);
        for record in &records {
            let target = before.remove(&record.target);
            self.targets.entry(record.target.clone()).or_insert_with(|| {
                target.unwrap_or_else(|| Target {
                    // The port is the record's.
                    state: DnsState::new(0, self.ttl),
                    ask_at: now,
                    failed: false,
                })
            });
        }
        self.records = records;
    }

    /// The endpoints of all records, those of lower priority numbers first.
    fn set(&self) -> Vec<EndpointSpec> {
        let mut set = Vec::new();
        for group in self.records.chunk_by(|a, b| a.priority == b.priority) {
            let found: Vec<(&SrvRecord, Vec<_>)> = group
                .iter()
                .filter_map(|record| Some((record, self.targets.get(&record.target)?)))
                .map(|(record, target)| (record, target.state.addresses().collect()))
                .filter(|(_, addresses): &(_, Vec<_>)| !addresses.is_empty())
                .collect();
            let parts: Vec<_> = found.iter().map(|(r, found)| (r.weight, found.len())).collect();
            for ((record, addresses), weight) in found.into_iter().zip(weights(&parts)) {
                set.extend(addresses.into_iter().map(|ip| EndpointSpec {
                    weight,
                    priority: record.priority.into(),
                    ..EndpointSpec::at(SocketAddr::new(ip, record.port))
                }));
            }
        }
        set
    }
}

/// The weight of each endpoint of each record, given the record's weight and how many endpoints share it.
fn weights(records: &[(u16, usize)]) -> Vec<u32> {
    let count = |addresses: usize| u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    let fits = |(weight, addresses): &(u16, usize)| {
        let (weight, addresses) = (u32::from(*weight), count(*addresses));
        weight > 0 && weight % addresses == 0 && weight / addresses <= 1000
    };
    if records.iter().all(|(weight, _)| *weight == 0) {
        return vec![1; records.len()];
    }
    if records.iter().all(fits) {
        return records.iter().map(|(weight, n)| u32::from(*weight) / count(*n)).collect();
    }
    let share =
        |(weight, addresses): &(u16, usize)| f64::from(*weight) / f64::from(count(*addresses));
    let largest = records.iter().map(share).fold(f64::MIN_POSITIVE, f64::max);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "invariant: between 1 and 1000"
    )]
    let scaled = |record| (share(record) / largest * MAX_WEIGHT).round().max(1.0) as u32;
    records.iter().map(scaled).collect()
}

#[cfg(test)]
mod tests;
