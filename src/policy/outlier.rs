//! Outlier detection: when an endpoint is taken out of traffic for its failures, for how long, and how it comes back.
//!
//! The rules, and nothing else: what counts ([`Signal`]), when it is too much ([`Streaks`], [`SuccessRate::bar`]), how many may be
//! out at once ([`OutlierPolicy::may_eject`]), for how long ([`OutlierPolicy::ejection_time`]). `balance::outliers` holds them
//! against the live endpoints. Why each number is what it is, with tables: `docs/policies/outliers.md`.

use std::time::Duration;

use http::StatusCode;

use super::classify::Outcome;
use crate::base::error::Reason;

/// The longest ejection, without its jitter: Envoy's and gRPC's 300 s. An endpoint that was repaired waits no longer.
pub const LONGEST: Duration = Duration::from_secs(300);

/// Success rates are compared, and ejections forgiven, once in this time: Envoy's and gRPC's interval.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Up to this share of an ejection's time is added at random, so that a hundred proxies do not probe at the same moment.
const JITTER: f64 = 0.2;

/// How far below the mean a success rate must be, whatever the deviation.
///
/// Among five endpoints a single one that differs is always exactly two standard deviations away, however little it
/// differs: with Envoy's and gRPC's rule alone one 500 in 10 s would eject it.
const LEAST_GAP: f64 = 0.05;

/// `outliers:` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierPolicy {
    /// Failures in a row; `None`: any number.
    pub consecutive: Option<u16>,
    /// 502, 503, 504 and UNAVAILABLE in a row; `None`: any number.
    pub gateway: Option<u16>,
    /// Failed connects in a row; `None`: any number.
    pub local_origin: Option<u16>,
    /// Comparison with the others; `None`: none.
    pub success_rate: Option<SuccessRate>,
    /// The first ejection; the n-th in a row lasts n times as long.
    pub eject: Duration,
    /// The share of endpoints that may be out at once, `0.0..=1.0`.
    pub max_ejected: f64,
    /// False: count what would be ejected, and eject nothing.
    pub enforce: bool,
}

/// `outliers.success_rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// Standard deviations below the mean from which on an endpoint is ejected.
    pub stdev: f64,
    /// Endpoints with enough requests, below which nothing is compared.
    pub min_hosts: usize,
    /// Requests of an endpoint in 10 s, below which it is left out.
    pub min_requests: u32,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            gateway: Some(5),
            local_origin: Some(5),
            success_rate: Some(SuccessRate { stdev: 1.9, min_hosts: 5, min_requests: 100 }),
            eject: Duration::from_secs(10),
            max_ejected: 0.5,
            enforce: true,
        }
    }
}

/// What the end of an attempt says of its endpoint. Ends that say nothing (a caller that left, our own refusals, waiting in
/// our own queue) have no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It answered, a refusal that is the caller's fault (4xx, 429) included.
    Success,
    /// 5xx, reset, timeout, an invalid answer.
    Failure,
    /// A failure that says "not now": 502, 503, 504, gRPC UNAVAILABLE.
    Gateway,
    /// No connection could be made. Kept apart: it may be the network, or we.
    LocalOrigin,
    /// It took no request, as a server does that restarts or is full (REFUSED_STREAM, GOAWAY). Fails a probe, no more.
    Refused,
}

impl Signal {
    /// Of a response's head.
    pub fn of_response(status: StatusCode, grpc_status: Option<u8>) -> Self {
        match (Outcome::of_response(status, grpc_status), grpc_status, status.as_u16()) {
            (Outcome::Failure, Some(14), _) | (Outcome::Failure, None, 502..=504) => Self::Gateway,
            (Outcome::Failure, ..) => Self::Failure,
            _ => Self::Success,
        }
    }

    /// Of an attempt without a response; `connecting`: it ended while a connection was being made.
    pub fn of_reason(reason: Reason, connecting: bool) -> Option<Self> {
        match reason {
            _ if Outcome::of_reason(reason) != Outcome::Failure => None,
            Reason::UpstreamRefused => Some(Self::Refused),
            _ if connecting || reason == Reason::ConnectFailed => Some(Self::LocalOrigin),
            _ => Some(Self::Failure),
        }
    }
}

/// Why an endpoint is ejected: the label `reason` of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// Gateway errors in a row.
    Gateway,
    /// Failed connects in a row.
    LocalOrigin,
    /// It fails more often than the others.
    SuccessRate,
    /// It was ejected, and its probe failed.
    Probe,
}

impl Cause {
    /// All of them, in the order of their index.
    pub const ALL: [Self; 5] =
        [Self::Consecutive, Self::Gateway, Self::LocalOrigin, Self::SuccessRate, Self::Probe];

    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Gateway => "gateway",
            Self::LocalOrigin => "local_origin",
            Self::SuccessRate => "success_rate",
            Self::Probe => "probe",
        }
    }
}

/// How often in a row an endpoint has failed, in each of three ways. Packs into a word, for compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streaks {
    /// Failures, gateway errors included.
    pub failures: u16,
    /// Gateway errors.
    pub gateway: u16,
    /// Failed connects.
    pub local_origin: u16,
}

impl Streaks {
    /// As one word.
    pub fn pack(self) -> u64 {
        u64::from(self.failures)
            | u64::from(self.gateway) << 16
            | u64::from(self.local_origin) << 32
    }

    /// From [`Streaks::pack`].
    #[expect(clippy::cast_possible_truncation, reason = "each is 16 bits wide")]
    pub fn unpack(word: u64) -> Self {
        Self {
            failures: word as u16,
            gateway: (word >> 16) as u16,
            local_origin: (word >> 32) as u16,
        }
    }

    /// After another signal. A failed connect says nothing about answers; an answer of any kind ends failed connects.
    #[must_use]
    pub fn after(self, signal: Signal) -> Self {
        let failures = self.failures.saturating_add(1);
        match signal {
            Signal::Success => Self::default(),
            Signal::Failure => Self { failures, gateway: 0, local_origin: 0 },
            Signal::Gateway => {
                Self { failures, gateway: self.gateway.saturating_add(1), local_origin: 0 }
            }
            Signal::LocalOrigin => {
                Self { local_origin: self.local_origin.saturating_add(1), ..self }
            }
            Signal::Refused => self,
        }
    }
}

impl OutlierPolicy {
    /// Why streaks this long are too long, if they are. The narrowest cause is named.
    pub fn too_long(&self, streaks: Streaks) -> Option<Cause> {
        let reached = |streak: u16, most: Option<u16>| most.is_some_and(|most| streak >= most);
        if reached(streaks.local_origin, self.local_origin) {
            Some(Cause::LocalOrigin)
        } else if reached(streaks.gateway, self.gateway) {
            Some(Cause::Gateway)
        } else {
            reached(streaks.failures, self.consecutive).then_some(Cause::Consecutive)
        }
    }

    /// How many of `total` endpoints may be ejected at once: the share of them rounded down, at least one where there
    /// are two. None where there is one, or where the share is 0.
    pub fn most_ejected(&self, total: usize) -> usize {
        if total < 2 || self.max_ejected <= 0.0 {
            return 0;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let share = (total as f64 * self.max_ejected) as usize;
        share.clamp(1, total - 1)
    }

    /// True where one more of `total` may be ejected, with `ejected` out already and `others` left to pick from besides.
    pub fn may_eject(&self, total: usize, ejected: usize, others: usize) -> bool {
        others > 0 && ejected < self.most_ejected(total)
    }

    /// Beyond this many in a row an ejection lasts no longer, and they are not counted: 30 for 10 s.
    pub fn most_times(&self) -> u8 {
        let times = LONGEST.as_nanos().div_ceil(self.eject.as_nanos().max(1));
        u8::try_from(times.clamp(1, 255)).unwrap_or(u8::MAX)
    }

    /// How long the `times`-th ejection in a row lasts: `eject × times`, at most 300 s, and up to a fifth more.
    /// `random` is uniform in `0.0..1.0`.
    pub fn ejection_time(&self, times: u8, random: f64) -> Duration {
        let time = self.eject.saturating_mul(u32::from(times)).min(LONGEST.max(self.eject));
        time + time.mul_f64(JITTER * random)
    }
}

impl SuccessRate {
    /// The success rate below which an endpoint is ejected; `None` where too few endpoints have a rate.
    ///
    /// Mean − `stdev` × the standard deviation (of the population, as Envoy and gRPC have it), and at least 5 points below
    /// the mean.
    pub fn bar(&self, rates: impl Iterator<Item = f64> + Clone) -> Option<f64> {
        let hosts = rates.clone().count();
        if hosts < self.min_hosts.max(2) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "endpoints, far below 2^53")]
        let hosts = hosts as f64;
        let mean = rates.clone().sum::<f64>() / hosts;
        let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / hosts;
        Some(mean - (self.stdev * variance.sqrt()).max(LEAST_GAP))
    }
}

#[cfg(test)]
mod tests;
