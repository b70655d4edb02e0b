//! Whether a failed attempt is followed by another: a pure decision, apart from its effects.

mod suppressed;

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::pushback::Pushback;
use super::retry_budget::RetryBudget;
use super::retry_depth::RetryDepth;
use crate::base::rng::Rng;

pub use suppressed::SuppressedReason;

/// A route's rules for sending a request again.
///
/// Two grounds. *Safe*, always on: the request provably did not run, so any method may be sent again; and, for idempotent
/// methods only, the keep-alive race (RFC 9112 §9.3.1: a reused connection that the upstream closed while our request
/// was under way). *Listed*: what `when` names; such a request may have run, so its method must allow running it twice.
///
/// Invariant, tested: a request that may have run, and is not idempotent, is sent again only where `methods` and `when`
/// both say so. Every attempt counts towards `attempts`, a safe one too: an upstream whose every endpoint refuses
/// connections must not be tried for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Grounds beyond `safe`.
    pub when: RetryWhen,
    /// Attempts in all, the first included. 1: nothing is ever sent again.
    pub attempts: u32,
    /// Bound of one attempt, from its start to the response's head. `None`: only the deadline bounds it.
    pub per_try: Option<Duration>,
    /// Wait before a listed retry.
    pub backoff: Backoff,
    /// Methods that may run twice.
    pub methods: RetryMethods,
    /// How much of a request's body is kept for another attempt, in bytes.
    pub replay_bytes: u64,
}

/// What a route without `retry:` has: `safe` only, 3 attempts, 64 KiB of replay.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            when: RetryWhen::default(),
            attempts: 3,
            per_try: None,
            backoff: Backoff::default(),
            methods: RetryMethods::Idempotent,
            replay_bytes: 64 * 1024,
        }
    }
}

/// Which ends of an attempt are grounds for another, beyond `safe`. Default: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryWhen {
    /// Reset or end of the connection before any byte of a response.
    pub reset: bool,
    /// 502, 503, 504.
    pub gateway_error: bool,
    /// 500 to 599.
    pub server_error: bool,
    /// No response within `per_try`.
    pub per_try_timeout: bool,
    /// Single statuses.
    pub statuses: StatusSet,
    /// gRPC statuses of responses without a message, in their head or their trailers: bit n for code n, 1..=16.
    pub grpc: u32,
}

impl RetryWhen {
    /// The bits of gRPC status codes; those above 31 are left out.
    pub fn grpc_codes(codes: impl IntoIterator<Item = u8>) -> u32 {
        codes.into_iter().filter(|code| *code < 32).fold(0, |bits, code| bits | 1 << code)
    }

    /// True where `end` is one of the grounds.
    pub fn lists(&self, end: AttemptEnd) -> bool {
        match end {
            AttemptEnd::Response { status, grpc_status } => {
                let code = status.as_u16();
                (self.gateway_error && matches!(code, 502..=504))
                    || (self.server_error && status.is_server_error())
                    || self.statuses.contains(code)
                    || grpc_status.is_some_and(|code| code < 32 && self.grpc >> code & 1 == 1)
            }
            AttemptEnd::KeepAliveRace | AttemptEnd::Reset => self.reset,
            AttemptEnd::PerTryTimeout => self.per_try_timeout,
            AttemptEnd::NotSent | AttemptEnd::Refused | AttemptEnd::Final => false,
        }
    }
}

/// A set of statuses from 400 to 599: 32 bytes, looked up by one shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusSet([u64; 4]);

impl StatusSet {
    /// True where `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        Self::place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    fn place(status: u16) -> Option<(usize, u64)> {
        let offset = status.checked_sub(400).filter(|offset| *offset < 200)?;
        Some((usize::from(offset / 64), 1 << (offset % 64)))
    }
}

/// Statuses outside 400..=599 are left out.
impl FromIterator<u16> for StatusSet {
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> Self {
        let mut set = Self::default();
        for (word, bit) in statuses.into_iter().filter_map(Self::place) {
            set.0[word] |= bit;
        }
        set
    }
}

/// Methods of requests that may be sent again although they may have run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryMethods {
    /// Idempotent ones, see [`idempotent`].
    Idempotent,
    /// Every method. Danger: a POST may run twice.
    Any,
    /// These, and whatever carries an `Idempotency-Key`.
    Listed(Vec<Method>),
}

impl RetryMethods {
    fn refusal(&self, request: &RetryState<'_>) -> Option<SuppressedReason> {
        let safe = idempotent(request.method, request.idempotency_key);
        match self {
            Self::Any => None,
            Self::Idempotent => (!safe).then_some(SuppressedReason::NotSafe),
            Self::Listed(_) if request.idempotency_key => None,
            Self::Listed(methods) if methods.contains(request.method) => None,
            Self::Listed(_) if safe => Some(SuppressedReason::MethodNotListed),
            Self::Listed(_) => Some(SuppressedReason::NotSafe),
        }
    }
}

/// True where running a request twice is meant to be the same as running it once.
///
/// GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 §9.2.2), or any method with an `Idempotency-Key`.
pub fn idempotent(method: &Method, has_key: bool) -> bool {
    has_key
        || matches!(
            *method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        )
}

/// How an attempt ended, as far as sending the request again is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The head of a response has arrived.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its gRPC status, where it is known before any of the body.
        grpc_status: Option<u8>,
    },
    /// No byte of the request was written: not connected, TLS failed, a pooled connection found closed.
    NotSent,
    /// The upstream refused the stream and guarantees that it did not run: REFUSED_STREAM, or GOAWAY with a last stream
    /// id below ours (RFC 9113 §8.7).
    Refused,
    /// End or reset before any byte of a response on a *reused* HTTP/1 connection; something may have been written.
    KeepAliveRace,
    /// End or reset before any byte of a response, after something was written, elsewhere.
    Reset,
    /// No head within `per_try`, after something was written.
    PerTryTimeout,
    /// Anything that is never sent again: the deadline passed, the caller left, a limit is reached, an unusable response.
    Final,
}

impl AttemptEnd {
    /// False where the request provably did not run.
    pub fn may_have_run(self) -> bool {
        !matches!(self, Self::NotSent | Self::Refused)
    }

    /// The word of a retry's ground, for logs and metric labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Response { grpc_status: Some(_), .. } => "grpc_status",
            Self::Response { .. } => "status",
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::KeepAliveRace => "keep_alive_race",
            Self::Reset => "reset",
            Self::PerTryTimeout => "per_try_timeout",
            Self::Final => "final",
        }
    }
}

/// Whether the request's body can be sent from its start once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyReplay {
    /// There is none, or all that was sent of it is kept.
    Whole,
    /// Nothing of it was taken from the caller yet.
    Unsent,
    /// More than `replay_bytes` of it were sent.
    TooLarge,
}

/// What [`RetryPolicy::decide`] must know of the request besides how its last attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct RetryState<'a> {
    /// Number of the attempt that ended; the first is 1.
    pub attempt: u32,
    /// The request's method.
    pub method: &'a Method,
    /// True where the request carries an `Idempotency-Key`.
    pub idempotency_key: bool,
    /// Whether its body can be sent again.
    pub body: BodyReplay,
    /// True after a [`RetryDecision::ResendOnce`] for this request.
    pub resent_once: bool,
    /// True once any byte of a final response was passed to the caller.
    pub committed: bool,
    /// Time until the overall deadline; `None`: there is none.
    pub remaining: Option<Duration>,
    /// What the response said about coming back.
    pub pushback: Pushback,
    /// What the caller's head told of attempts made above.
    pub above: RetryDepth,
    /// What the response told of attempts made below.
    pub below: RetryDepth,
}

impl<'a> RetryState<'a> {
    /// After the first attempt of a request without a body, where nobody has said anything.
    pub fn first(method: &'a Method, remaining: Option<Duration>) -> Self {
        Self {
            attempt: 1,
            method,
            idempotency_key: false,
            body: BodyReplay::Whole,
            resent_once: false,
            committed: false,
            remaining,
            pushback: Pushback::None,
            above: RetryDepth::default(),
            below: RetryDepth::default(),
        }
    }
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Send again at once, to another endpoint: nothing had been written. Costs budget as far as there is some; without,
    /// it is allowed while there is hope ([`RetryDecision::paid_from`]).
    Resend,
    /// Send again at once, on a fresh connection, and remember it (`resent_once`). Costs budget.
    ResendOnce,
    /// Send again after `wait`. Costs budget.
    Retry {
        /// How long to wait; ends before the deadline.
        wait: Duration,
    },
    /// Pass on what there is. `Some`: there were grounds for a retry, and this forbade it. `None`: there were none.
    Stop(Option<SuppressedReason>),
}

impl RetryDecision {
    /// The decision after paying: where the budget is empty, it becomes a stop.
    ///
    /// But for a resend of what was never written, as long as there is `hope`: some endpoint is not known to take no
    /// connections. Callers then see nothing of those that fail, however little budget there is. What it lacks is owed to
    /// it, so that a total outage costs no more than the budget.
    pub fn paid_from(self, budget: &mut RetryBudget, hope: bool, now: Instant) -> Self {
        match self {
            Self::Stop(_) => self,
            Self::Resend if hope => {
                budget.withdraw(now);
                self
            }
            _ if budget.try_withdraw(now) => self,
            _ => Self::Stop(Some(SuppressedReason::BudgetEmpty)),
        }
    }
}

impl RetryPolicy {
    /// `retry: never`: one attempt, no replay.
    pub fn never() -> Self {
        Self { attempts: 1, replay_bytes: 0, ..Self::default() }
    }

    /// True where a request of this kind would be sent again after the keep-alive race.
    pub fn repeats(&self, method: &Method, idempotency_key: bool) -> bool {
        self.attempts > 1 && idempotent(method, idempotency_key)
    }

    /// True where the gRPC status of an answer can be a ground for another attempt.
    pub fn looks_at_grpc(&self) -> bool {
        self.attempts > 1 && self.when.grpc != 0
    }

    /// What to do after an attempt that ended with `end`.
    ///
    /// Spends nothing: settle it with [`RetryDecision::paid_from`]. The checks run from what the operator should hear
    /// first: safety, then attempts, body, what other hops do, the upstream's wish, time.
    pub fn decide(
        &self,
        end: AttemptEnd,
        request: &RetryState<'_>,
        rng: &mut Rng,
    ) -> RetryDecision {
        use RetryDecision::{Resend, ResendOnce, Retry, Stop};
        if request.committed || self.attempts <= 1 {
            return Stop(None);
        }
        let wanted = match self.ground(end, request) {
            Ok(Some(ground)) => ground,
            Ok(None) => return Stop(None),
            Err(reason) => return Stop(Some(reason)),
        };
        if request.attempt >= self.attempts {
            return Stop(Some(SuppressedReason::Exhausted));
        }
        if request.body == BodyReplay::TooLarge {
            return Stop(Some(SuppressedReason::BodyTooLarge));
        }
        let (decision, wait) = match wanted {
            Ground::NeverWritten => (Resend, Duration::ZERO),
            Ground::OnceAtOnce => (ResendOnce, Duration::ZERO),
            Ground::Again if request.below.tried_below() => {
                return Stop(Some(SuppressedReason::TriedBelow));
            }
            Ground::Again if request.above.retried_above() => {
                return Stop(Some(SuppressedReason::TriedAbove));
            }
            Ground::Again => {
                let jitter = self.backoff.wait(request.attempt, rng);
                let wait = match request.pushback {
                    Pushback::None => jitter,
                    // Added, not compared: all who were told the same second must not return in it together.
                    Pushback::After(least) => least.saturating_add(jitter),
                    Pushback::Never => return Stop(Some(SuppressedReason::Pushback)),
                };
                (Retry { wait }, wait)
            }
        };
        if request.remaining.is_some_and(|remaining| remaining <= wait) {
            return Stop(Some(SuppressedReason::Timeout));
        }
        decision
    }

    /// On which ground the request could be sent again: `Ok(None)` on none, `Err` on one that its method forbids.
    fn ground(
        &self,
        end: AttemptEnd,
        request: &RetryState<'_>,
    ) -> Result<Option<Ground>, SuppressedReason> {
        let repeatable = idempotent(request.method, request.idempotency_key);
        match end {
            AttemptEnd::NotSent => return Ok(Some(Ground::NeverWritten)),
            AttemptEnd::Refused if request.resent_once => return Ok(Some(Ground::Again)),
            AttemptEnd::Refused => return Ok(Some(Ground::OnceAtOnce)),
            AttemptEnd::KeepAliveRace if repeatable && !request.resent_once => {
                return Ok(Some(Ground::OnceAtOnce));
            }
            AttemptEnd::KeepAliveRace if !repeatable && !self.when.reset => {
                return Err(SuppressedReason::NotSafe);
            }
            _ => {}
        }
        if !self.when.lists(end) {
            return Ok(None);
        }
        self.methods.refusal(request).map_or(Ok(Some(Ground::Again)), Err)
    }
}

/// On which ground a request is sent again.
enum Ground {
    NeverWritten,
    OnceAtOnce,
    Again,
}

#[cfg(test)]
mod tests;
