//! Who is let in at an upstream before a place is looked for, and what is learned from how attempts end: breaker, throttle
//! and adaptive limit. The rules are in `policy`; here they meet workers and the control thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::base::rng::Rng;
use crate::metrics::GateMetrics;
use crate::policy::breaker::{Breaker, BreakerSettings, BreakerState, Pass, Permits, Transition};
use crate::policy::classify::{self, Outcome};
use crate::policy::gradient::{Gradient, LatencySums};
use crate::policy::limits::Limits;
use crate::policy::throttle::{Odds, Throttle};

/// What of it is on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GatePolicy {
    /// Circuit breaking by state.
    pub breaker: Option<BreakerSettings>,
    /// The limit of requests in flight is found by latency.
    pub adaptive: bool,
    /// Client-side throttling, with this factor.
    pub throttle: Option<f64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its outcome; only success and failure say something about the upstream.
    pub outcome: Outcome,
    /// There was an answer.
    pub answered: bool,
    /// The answer says "too much" or "not now".
    pub refused: bool,
    /// No answer came in time.
    pub timed_out: bool,
    /// From its start to the answer's head, or to its end.
    pub took: Duration,
}

impl Ended {
    /// With an answer.
    pub fn of_response(status: StatusCode, grpc_status: Option<u8>, took: Duration) -> Self {
        Self {
            outcome: Outcome::of_response(status, grpc_status),
            answered: true,
            refused: classify::is_refusal(status, grpc_status),
            timed_out: false,
            took,
        }
    }

    /// Without one.
    pub fn of_reason(reason: Reason, took: Duration) -> Self {
        Self {
            outcome: Outcome::of_reason(reason),
            answered: false,
            refused: false,
            timed_out: matches!(reason, Reason::Timeout | Reason::PerTryTimeout),
            took,
        }
    }

    /// With a connection that becomes a tunnel.
    pub fn of_tunnel(took: Duration) -> Self {
        let outcome = Outcome::Success;
        Self { outcome, answered: true, refused: false, timed_out: false, took }
    }
}

/// The gate of one upstream. Where nothing is on, an attempt pays one branch.
#[derive(Debug)]
pub struct Gate {
    on: Option<Box<On>>,
    metrics: GateMetrics,
}

#[derive(Debug)]
struct On {
    permits: Option<Permits>,
    /// Beyond this an answer is slow for the breaker.
    slow_over: Option<Duration>,
    /// How long an open breaker refuses before it probes.
    open_for: Option<Duration>,
    odds: Option<Odds>,
    latencies: Option<LatencySums>,
    /// Taken by the control thread alone, so that nobody ever waits for it.
    rules: Mutex<Rules>,
}

#[derive(Debug)]
struct Rules {
    breaker: Option<Breaker>,
    throttle: Option<Throttle>,
    gradient: Option<Gradient>,
}

/// Where the rules stand, for the admin page; what is off is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GateView {
    /// The breaker.
    pub breaker: Option<BreakerView>,
    /// The adaptive limit, and the latency that it takes for normal.
    pub adaptive: Option<(u32, Duration)>,
    /// The share that is refused; requests that were wanted and that were accepted in the window.
    pub throttle: Option<(f64, u64, u64)>,
}

/// Where a breaker stands.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// For how long.
    pub since: Duration,
    /// Requests in the window.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Those that were slow.
    pub slow: u64,
    /// How many may be under way at once, where that is bounded.
    pub at_most: Option<u32>,
}

impl Gate {
    /// A gate at which nothing has happened yet.
    pub fn new(policy: &GatePolicy, metrics: GateMetrics, now: Instant) -> Self {
        if *policy == GatePolicy::default() {
            return Self { on: None, metrics };
        }
        let slow = policy.breaker.and_then(|breaker| breaker.slow);
        let on = On {
            permits: policy.breaker.map(|_| Permits::default()),
            slow_over: slow.map(|slow| slow.over),
            open_for: policy.breaker.map(|breaker| breaker.open_for),
            odds: policy.throttle.map(|_| Odds::default()),
            latencies: policy.adaptive.then(LatencySums::default),
            rules: Mutex::new(Rules {
                breaker: policy.breaker.map(|settings| Breaker::new(settings, now)),
                throttle: policy.throttle.map(|k| Throttle::new(k, now)),
                gradient: policy.adaptive.then(|| Gradient::new(now)),
            }),
        };
        Self { on: Some(Box::new(on)), metrics }
    }

    /// Lets an attempt in, or says why not.
    ///
    /// # Errors
    /// `breaker_open` or `overload`.
    pub fn admit(&self, rng: &std::cell::RefCell<Rng>) -> Result<Pass, Reason> {
        let Some(on) = &self.on else { return Ok(Pass::default()) };
        let pass = on.pass()?;
        match &on.odds {
            Some(odds) if odds.refuses(&mut rng.borrow_mut()) => Err(Reason::Overload),
            _ => Ok(pass),
        }
    }

    /// As [`Gate::admit`], without drawing once more: for those who have waited.
    ///
    /// # Errors
    /// `breaker_open`.
    pub fn pass(&self) -> Result<Pass, Reason> {
        self.on.as_ref().map_or(Ok(Pass::default()), |on| on.pass())
    }

    /// True where another attempt would not be let in.
    pub fn is_refusing(&self) -> bool {
        self.on.as_ref().and_then(|on| on.permits.as_ref()).is_some_and(Permits::is_refusing)
    }

    /// How long an open breaker refuses before it probes, where there is one.
    pub(super) fn open_for(&self) -> Option<Duration> {
        self.on.as_ref()?.open_for
    }

    /// Counts a request that is refused without asking the upstream.
    pub(super) fn reject(&self, reason: Reason) {
        if let Some(index) = REJECTIONS.iter().position(|known| *known == reason) {
            self.metrics.rejected(index);
        }
    }

    /// Learns from how an attempt ended, and gives back what it held of the breaker.
    pub fn settle(&self, pass: &mut Pass, ended: &Ended) {
        let Some(on) = &self.on else { return };
        let failed = match ended.outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            // Ours or the caller's own doing.
            Outcome::LocalFailure | Outcome::Cancelled => return,
        };
        if let Some(permits) = &on.permits {
            let slow = on.slow_over.is_some_and(|over| ended.took > over);
            permits.settle(pass, failed, slow);
        }
        if let Some(odds) = &on.odds {
            odds.settle(ended.answered && !ended.refused);
        }
        if let Some(latencies) = &on.latencies {
            if ended.refused {
                latencies.refused();
            } else if !failed || ended.timed_out {
                latencies.add(ended.took);
            }
        }
    }

    /// Runs the rules, and makes known what they say. Called by the control thread only.
    pub(super) fn tick(&self, limits: &Limits, now: Instant) -> Option<Transition> {
        let on = self.on.as_ref()?;
        let mut rules = on.rules();
        if let (Some(throttle), Some(odds)) = (&mut rules.throttle, &on.odds) {
            let probability = throttle.tick(odds.seen(), now);
            odds.publish(probability);
            self.metrics.throttled(probability);
        }
        if let (Some(gradient), Some(latencies)) = (&mut rules.gradient, &on.latencies) {
            let limit = gradient.tick(latencies.seen(), limits.in_flight(), now);
            limits.set_in_flight(limit);
            self.metrics.limit(limit);
        }
        let (breaker, permits) = (rules.breaker.as_mut()?, on.permits.as_ref()?);
        let change = breaker.tick(&permits.seen(), now);
        permits.publish(breaker.verdict(now));
        if let Some(change) = change {
            self.metrics.entered(change.to as usize);
        }
        self.metrics.stands(breaker.state() as usize);
        change
    }

    /// Where the rules stand. Called by the control thread only.
    pub fn view(&self, now: Instant) -> GateView {
        let Some(on) = &self.on else { return GateView::default() };
        let rules = on.rules();
        GateView {
            breaker: rules.breaker.as_ref().map(|breaker| {
                let tally = breaker.tally();
                BreakerView {
                    state: breaker.state().word(),
                    since: now.saturating_duration_since(breaker.since()),
                    requests: tally.requests,
                    failed: tally.failed,
                    slow: tally.slow,
                    at_most: on.permits.as_ref().and_then(Permits::limit),
                }
            }),
            adaptive: rules.gradient.as_ref().map(|rule| (rule.limit(), rule.normal_latency())),
            throttle: rules.throttle.as_ref().map(|rule| {
                let (wanted, accepted) = rule.demand();
                (rule.probability(), wanted, accepted)
            }),
        }
    }
}

impl On {
    fn pass(&self) -> Result<Pass, Reason> {
        match &self.permits {
            None => Ok(Pass::default()),
            Some(permits) => permits.try_pass().ok_or(Reason::BreakerOpen),
        }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        // What a panic of the control thread left is whole: each rule is one call.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an upstream is not asked; metric handles are in this order.
const REJECTIONS: [Reason; 5] = [
    Reason::LimitReached,
    Reason::QueueTimeout,
    Reason::Timeout,
    Reason::BreakerOpen,
    Reason::Overload,
];

/// The words of a breaker's states, in the order of their index.
pub fn breaker_words() -> [&'static str; 3] {
    BreakerState::ALL.map(BreakerState::word)
}

/// The words of why an upstream was not asked, in the order of their index.
pub fn rejection_words() -> [&'static str; 5] {
    REJECTIONS.map(Reason::word)
}
