//! Why a retry that was wanted is not made.

use crate::base::error::Reason;

macro_rules! suppressed_reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// Why there was no retry although there were grounds for one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum SuppressedReason { $($(#[$doc])* $name,)+ }

        impl SuppressedReason {
            /// Every reason; metric handles are indexed by it.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in logs and metric labels.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// A dense index below `ALL.len()`.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

suppressed_reasons! {
    /// It may have run, and running it twice may do harm.
    NotSafe = "retry_not_safe";
    /// It may have run, and `methods` names others.
    MethodNotListed = "method_not_listed";
    /// Its body cannot be sent from the start again.
    BodyTooLarge = "body_too_large_to_replay";
    /// The upstream has had as many retries as it may have.
    BudgetEmpty = "retry_budget_empty";
    /// All attempts are used.
    Exhausted = "retries_exhausted";
    /// The deadline passes before the wait is over.
    Timeout = "timeout";
    /// The upstream asked not to be tried again.
    Pushback = "pushback";
    /// The answer comes from a hop that has tried again itself.
    TriedBelow = "tried_below";
    /// A hop above is trying again itself.
    TriedAbove = "tried_above";
    /// The upstream has no place for another attempt, nor for one that waits.
    LimitReached = "limit_reached";
    /// Another attempt waited too long for a place.
    QueueTimeout = "queue_timeout";
    /// The upstream's breaker has opened.
    BreakerOpen = "breaker_open";
    /// The upstream is overloaded and spared another attempt.
    Overload = "overload";
    /// There is no endpoint to send it to.
    NoEndpoint = "no_healthy_endpoint";
}

impl SuppressedReason {
    /// The reason where a retry had been decided, and `reason` kept its attempt from being made.
    pub fn of_attempt_not_made(reason: Reason) -> Self {
        match reason {
            Reason::LimitReached => Self::LimitReached,
            Reason::QueueTimeout => Self::QueueTimeout,
            Reason::BreakerOpen => Self::BreakerOpen,
            Reason::Overload => Self::Overload,
            Reason::Timeout | Reason::DeadlineExpired => Self::Timeout,
            _ => Self::NoEndpoint,
        }
    }

    /// True where callers are told not to try again either: all was tried that could be, or trying more would do harm.
    pub fn is_last_word(self) -> bool {
        matches!(self, Self::Exhausted | Self::BudgetEmpty | Self::TriedBelow)
    }
}
