//! What upstreams see: attempts, retries, connections, discovery.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Register, names};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label's value.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

labels! {
    /// How an attempt ended.
    AttemptOutcome {
        /// A response that is no failure.
        Success = "success",
        /// A response that is one (5xx, a failed gRPC status).
        Failure = "failure",
        /// No connection.
        ConnectFailed = "connect_failed",
        /// The connection or stream broke.
        Reset = "reset",
        /// No response in time.
        Timeout = "timeout",
        /// Refused before it ran.
        Refused = "refused",
        /// A response that is not valid.
        Protocol = "protocol_error",
        /// The caller went away first.
        Cancelled = "cancelled",
    }
}

labels! {
    /// Why another attempt was made.
    RetryCause {
        /// It could not be sent.
        Safe = "safe",
        /// A reused connection was closed under it.
        KeepAliveRace = "keep_alive_race",
        /// Reset.
        Reset = "reset",
        /// 502, 503, 504.
        GatewayError = "gateway_error",
        /// Another 5xx.
        ServerError = "server_error",
        /// A status from the route's list.
        Status = "status",
        /// A gRPC status from the route's list.
        Grpc = "grpc",
        /// It took longer than `per_try`.
        PerTryTimeout = "per_try_timeout",
    }
}

/// Families that are labelled by upstream.
#[derive(Debug, Clone)]
pub struct UpstreamFamilies {
    attempts: IntCounterVec,
    duration: HistogramVec,
    retries: IntCounterVec,
    suppressed: IntCounterVec,
    in_flight: IntGaugeVec,
    pending: IntGaugeVec,
    endpoints: IntGaugeVec,
    panic: IntGaugeVec,
    ejections: IntCounterVec,
    connections: IntGaugeVec,
    connects: IntCounterVec,
    reuse_rests: IntCounterVec,
    staleness: IntGaugeVec,
    errors: IntCounterVec,
    updates: IntCounterVec,
    interim_dropped: IntCounter,
}

impl UpstreamFamilies {
    pub(super) fn register(
        register: &Register<'_>,
        dropped: &IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            interim_dropped: dropped.with_label_values(&["interim_response"]),
            attempts: register.counters(names::UPSTREAM_ATTEMPTS, &["upstream", "outcome"])?,
            duration: register.histograms(names::UPSTREAM_ATTEMPT_DURATION, &["upstream"])?,
            retries: register.counters(names::UPSTREAM_RETRIES, &["upstream", "reason"])?,
            suppressed: register
                .counters(names::UPSTREAM_RETRIES_SUPPRESSED, &["upstream", "reason"])?,
            in_flight: register.gauges(names::UPSTREAM_IN_FLIGHT, &["upstream"])?,
            pending: register.gauges(names::UPSTREAM_PENDING, &["upstream"])?,
            endpoints: register.gauges(names::UPSTREAM_ENDPOINTS, &["upstream", "state"])?,
            panic: register.gauges(names::UPSTREAM_PANIC, &["upstream"])?,
            ejections: register
                .counters(names::UPSTREAM_EJECTIONS, &["upstream", "reason", "enforced"])?,
            connections: register.gauges(names::UPSTREAM_CONNECTIONS, &["upstream"])?,
            connects: register.counters(names::UPSTREAM_CONNECTS, &["upstream", "outcome"])?,
            reuse_rests: register.counters(names::UPSTREAM_REUSE_RESTS, &["upstream"])?,
            staleness: register.gauges(names::DISCOVERY_STALENESS, &["upstream"])?,
            errors: register.counters(names::DISCOVERY_ERRORS, &["upstream", "reason"])?,
            updates: register.counters(names::DISCOVERY_UPDATES, &["upstream"])?,
        })
    }

    /// The handles of one upstream. `suppressed`, `ejections`: the words for retries not made and for endpoints ejected, in the
    /// order of their index; `enforced`: those are ejected indeed.
    pub fn upstream(
        &self,
        upstream: &str,
        suppressed: &[&str],
        ejections: &[&str],
        enforced: bool,
    ) -> UpstreamMetrics {
        let enforced = if enforced { "true" } else { "false" };
        let by_word = |family: &IntCounterVec, word| family.with_label_values(&[upstream, word]);
        UpstreamMetrics {
            attempts: AttemptOutcome::ALL
                .iter()
                .map(|outcome| by_word(&self.attempts, outcome.word()))
                .collect(),
            duration: self.duration.with_label_values(&[upstream]),
            retries: RetryCause::ALL
                .iter()
                .map(|cause| by_word(&self.retries, cause.word()))
                .collect(),
            suppressed: suppressed.iter().map(|word| by_word(&self.suppressed, word)).collect(),
            in_flight: self.in_flight.with_label_values(&[upstream]),
            pending: self.pending.with_label_values(&[upstream]),
            standing: StandingGauges(
                STATES.map(|state| self.endpoints.with_label_values(&[upstream, state])),
            ),
            panic: self.panic.with_label_values(&[upstream]),
            ejections: ejections
                .iter()
                .map(|word| self.ejections.with_label_values(&[upstream, word, enforced]))
                .collect(),
            connections: self.connections.with_label_values(&[upstream]),
            connects_ok: by_word(&self.connects, "success"),
            connects_failed: by_word(&self.connects, "failure"),
            connects_timed_out: by_word(&self.connects, "timeout"),
            reuse_rests: self.reuse_rests.with_label_values(&[upstream]),
            staleness: self.staleness.with_label_values(&[upstream]),
            updates: self.updates.with_label_values(&[upstream]),
            interim_dropped: self.interim_dropped.clone(),
        }
    }

    /// The counter of failed look-ups for `reason`, one of the provider's few words. Not on the request path.
    pub fn discovery_errors(&self, upstream: &str, reason: &str) -> IntCounter {
        self.errors.with_label_values(&[upstream, reason])
    }

    /// Drops the series of ejections of an upstream that is gone.
    pub fn forget_ejections(&self, upstream: &str, words: &[&str]) {
        for (word, enforced) in words.iter().flat_map(|word| [(word, "true"), (word, "false")]) {
            let _absent = self.ejections.remove_label_values(&[upstream, word, enforced]);
        }
    }

    /// Drops the series of an upstream that is gone.
    pub fn forget(&self, upstream: &str, suppressed: &[&str], discovery_reasons: &[&str]) {
        // A series that was never touched is not there: nothing to drop.
        for outcome in AttemptOutcome::ALL {
            let _absent = self.attempts.remove_label_values(&[upstream, outcome.word()]);
        }
        for cause in RetryCause::ALL {
            let _absent = self.retries.remove_label_values(&[upstream, cause.word()]);
        }
        for word in suppressed {
            let _absent = self.suppressed.remove_label_values(&[upstream, word]);
        }
        for outcome in ["success", "failure", "timeout"] {
            let _absent = self.connects.remove_label_values(&[upstream, outcome]);
        }
        for reason in discovery_reasons {
            let _absent = self.errors.remove_label_values(&[upstream, reason]);
        }
        for state in STATES {
            let _absent = self.endpoints.remove_label_values(&[upstream, state]);
        }
        let _absent = self.panic.remove_label_values(&[upstream]);
        let _absent = self.duration.remove_label_values(&[upstream]);
        let _absent = self.updates.remove_label_values(&[upstream]);
        let _absent = self.reuse_rests.remove_label_values(&[upstream]);
        for gauge in [&self.in_flight, &self.pending, &self.connections, &self.staleness] {
            let _absent = gauge.remove_label_values(&[upstream]);
        }
    }
}

/// The states of endpoints; each endpoint of a set is in one of the first five, and the last is of those that left it.
const STATES: [&str; 6] = ["ready", "unhealthy", "ejected", "slow_start", "unproven", "draining"];

/// How many endpoints are in each state.
#[derive(Debug)]
pub struct StandingGauges([IntGauge; STATES.len()]);

impl StandingGauges {
    /// Ready, unhealthy, ejected, in slow start, and unproven.
    pub fn set(&self, counts: &[usize; STATES.len() - 1]) {
        for (gauge, count) in self.0.iter().zip(counts) {
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Removed, with requests in flight.
    pub fn set_draining(&self, count: usize) {
        let [.., gauge] = &self.0;
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// The handles of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    attempts: Vec<IntCounter>,
    /// Seconds from an attempt's start to its response's head.
    pub duration: Histogram,
    retries: Vec<IntCounter>,
    suppressed: Vec<IntCounter>,
    /// Attempts in flight.
    pub in_flight: IntGauge,
    /// Requests that wait.
    pub pending: IntGauge,
    /// Endpoints by state.
    pub standing: StandingGauges,
    /// Unhealthy endpoints are used as well.
    pub panic: IntGauge,
    ejections: Vec<IntCounter>,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections made.
    pub connects_ok: IntCounter,
    /// Connections refused or broken before they stood.
    pub connects_failed: IntCounter,
    /// Connections that took too long.
    pub connects_timed_out: IntCounter,
    /// Times that a worker began to make connections to an endpoint anew because kept ones were closed under requests.
    pub reuse_rests: IntCounter,
    /// Seconds beyond the validity of the last good answer.
    pub staleness: IntGauge,
    /// Endpoint sets published.
    pub updates: IntCounter,
    /// Interim responses (1xx but 100 and 101), which are not passed on; one counter for all upstreams.
    pub interim_dropped: IntCounter,
}

impl UpstreamMetrics {
    /// Counts an attempt that ended.
    pub fn attempt(&self, outcome: AttemptOutcome) {
        self.attempts[outcome as usize].inc();
    }

    /// Counts an attempt beyond the first.
    pub fn retry(&self, cause: RetryCause) {
        self.retries[cause as usize].inc();
    }

    /// Counts a retry that was wanted and not made, by the index of its reason.
    pub fn suppress(&self, reason: usize) {
        if let Some(counter) = self.suppressed.get(reason) {
            counter.inc();
        }
    }

    /// Counts an endpoint that is ejected, by the index of its reason.
    pub fn eject(&self, reason: usize) {
        if let Some(counter) = self.ejections.get(reason) {
            counter.inc();
        }
    }

    /// Attempts and retries so far (for the summary of `demo`).
    pub fn totals(&self) -> (u64, u64) {
        let sum = |counters: &[IntCounter]| counters.iter().map(IntCounter::get).sum();
        (sum(&self.attempts), sum(&self.retries))
    }
}
