//! What active health checks found.

use prometheus::{IntCounter, IntCounterVec};

use super::{Register, names};

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// How a health check ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum HealthOutcome { $($(#[$doc])* $name,)+ }

        impl HealthOutcome {
            const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The label's value.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

outcomes! {
    /// It passed.
    Success = "success";
    /// No connection.
    ConnectFailed = "connect_failed";
    /// No answer in time.
    Timeout = "timeout";
    /// An answer with another status than wanted.
    Status = "status";
    /// gRPC: the service says that it does not serve, or does not know itself.
    NotServing = "not_serving";
    /// The connection broke, or the answer is not valid.
    Protocol = "protocol_error";
    /// It could not be asked for a lack on our side: says nothing about the endpoint.
    Local = "local_failure";
}

/// The family that is labelled by upstream.
#[derive(Debug, Clone)]
pub struct HealthFamilies {
    checks: IntCounterVec,
}

impl HealthFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let checks = register.counters(names::UPSTREAM_HEALTH_CHECKS, &["upstream", "outcome"])?;
        Ok(Self { checks })
    }

    /// The handles of one upstream.
    pub fn upstream(&self, upstream: &str) -> HealthMetrics {
        let by_word = |word| self.checks.with_label_values(&[upstream, word]);
        HealthMetrics {
            checks: HealthOutcome::ALL.iter().map(|outcome| by_word(outcome.word())).collect(),
        }
    }

    /// Drops the series of an upstream that is gone, or checked no more.
    pub fn forget(&self, upstream: &str) {
        for outcome in HealthOutcome::ALL {
            // A series that was never touched is not there: nothing to drop.
            let _absent = self.checks.remove_label_values(&[upstream, outcome.word()]);
        }
    }
}

/// The handles of one upstream.
#[derive(Debug)]
pub struct HealthMetrics {
    checks: Vec<IntCounter>,
}

impl HealthMetrics {
    /// Counts a check that ended.
    pub fn check(&self, outcome: HealthOutcome) {
        self.checks[outcome as usize].inc();
    }
}
