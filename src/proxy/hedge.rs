//! A first attempt that is slow, and a second one raced against it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::balance::Picked;
use crate::balance::endpoint::Endpoint;
use crate::io::request_body::{BodySource, Replay};
use crate::metrics::{HedgeMetrics, HedgeOutcome};
use crate::net::UpstreamResponse;
use crate::policy::classify::{Outcome, grpc_status, is_overload};
use crate::policy::retry::idempotent;
use crate::snapshot::Hedging;
use crate::upstream::Slot;

use super::attempt::{Failed, Plan};
use super::exchange::Exchange;
use super::retries::SoFar;
use super::subject::Spare;

/// How an attempt ended.
type Ended = Result<UpstreamResponse, Failed>;

/// True where this is the first attempt of a request that may run twice.
pub(super) fn is_wanted(exchange: &Exchange) -> bool {
    exchange.attempts == 1 && idempotent(&exchange.head.method, exchange.fields.idempotency_key)
}

/// Makes the first attempt, and a second one at another endpoint where the first is slow. The first good answer wins, and
/// the other attempt is cancelled. A bad one waits for the other; only if that is bad as well is it the answer.
pub(super) async fn attempt(
    plan: &Plan<'_>,
    hedging: &Hedging,
    (slot, mut picked, start): (Slot, Picked, Instant),
    so_far: &mut SoFar,
    body: &BodySource,
    exchange: &mut Exchange,
) -> Ended {
    let fires = hedging.policy.delay(start).and_then(|delay| start.checked_add(delay));
    let mut spare = fires.map(|at| (at, Spare::of(exchange)));
    let raced = {
        let first = plan.attempt(slot, &mut picked, so_far, body.attempt(), exchange, start);
        let first = pin!(first);
        match &mut spare {
            None => Raced::Alone(first.await),
            Some((at, spare)) => race(plan, hedging, first, *at, so_far, body, spare).await,
        }
    };
    let took = Instant::now().saturating_duration_since(start);
    match raced {
        Raced::Alone(ended) => {
            if ended.is_ok() {
                hedging.policy.record(took);
            }
            ended
        }
        Raced::Both { winner, ended, other_ran, endpoint } => {
            let learns = match winner {
                Which::First => ended.is_ok(),
                // Where the first was cancelled, it took at least this long.
                Which::Second => other_ran.is_none(),
            };
            if learns {
                hedging.policy.record(took);
            }
            exchange.attempts += 1;
            so_far.tried.note(endpoint.id);
            so_far.also_ran(other_ran.unwrap_or(false));
            if winner == Which::Second {
                exchange.endpoint = Some(endpoint);
                if let Some((_, spare)) = spare {
                    exchange.adopt(spare);
                }
            }
            ended
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Second,
}

/// What came of it.
enum Raced {
    /// There was no second attempt.
    Alone(Ended),
    Both {
        winner: Which,
        ended: Ended,
        /// Whether the other may have run; `None` where it was cancelled.
        other_ran: Option<bool>,
        /// Where the second went.
        endpoint: Arc<Endpoint>,
    },
}

/// Counts a second attempt when it is over, however.
struct Fired<'a> {
    metrics: &'a HedgeMetrics,
    outcome: HedgeOutcome,
}

impl Drop for Fired<'_> {
    fn drop(&mut self) {
        self.metrics.hedged(self.outcome);
    }
}

async fn race(
    plan: &Plan<'_>,
    hedging: &Hedging,
    mut first: Pin<&mut impl Future<Output = Ended>>,
    at: Instant,
    so_far: &SoFar,
    body: &BodySource,
    spare: &mut Spare,
) -> Raced {
    tokio::select! {
        biased;
        ended = first.as_mut() => return Raced::Alone(ended),
        () = sleep_until(at) => {}
    }
    let (slot, mut picked) = match second(plan, so_far, body) {
        Ok(second) => second,
        Err(why) => {
            hedging.metrics.hedged(why);
            return Raced::Alone(first.await);
        }
    };
    let mut fired = Fired { metrics: &hedging.metrics, outcome: HedgeOutcome::Cancelled };
    let (grpc, endpoint) = (spare.grpc, Arc::clone(picked.endpoint()));
    let again = body.again();
    let second = plan.attempt(slot, &mut picked, so_far, again, spare, Instant::now());
    let mut second = pin!(second);
    let mut bad: Option<(Which, Ended)> = None;
    loop {
        let over = bad.as_ref().map(|(which, _)| *which);
        let (which, ended) = tokio::select! {
            biased;
            ended = first.as_mut(), if over != Some(Which::First) => (Which::First, ended),
            ended = second.as_mut(), if over != Some(Which::Second) => (Which::Second, ended),
        };
        if is_good(&ended, grpc) {
            fired.outcome = match which {
                Which::First => HedgeOutcome::Lost,
                Which::Second => HedgeOutcome::Won,
            };
            let other_ran = bad.as_ref().map(|(_, ended)| may_have_run(ended));
            return Raced::Both { winner: which, ended, other_ran, endpoint };
        }
        match bad.take() {
            None => bad = Some((which, ended)),
            Some((other_which, other)) => {
                fired.outcome = HedgeOutcome::Failed;
                // Any answer is better than none; of two, the first attempt's.
                let swap = match (&ended, &other) {
                    (Ok(_), Err(_)) => false,
                    (Err(_), Ok(_)) => true,
                    _ => which == Which::Second,
                };
                let (winner, ended, other) =
                    if swap { (other_which, other, ended) } else { (which, ended, other) };
                let other_ran = Some(may_have_run(&other));
                return Raced::Both { winner, ended, other_ran, endpoint };
            }
        }
    }
}

/// A place and another endpoint for a second attempt, paid for; or why there is none.
fn second(
    plan: &Plan<'_>,
    so_far: &SoFar,
    body: &BodySource,
) -> Result<(Slot, Picked), HedgeOutcome> {
    if !body.is_complete() || body.replay() == Replay::TooLarge {
        return Err(HedgeOutcome::BodyNotKept);
    }
    let now = Instant::now();
    // Who would have to wait for a place gains nothing.
    let slot =
        plan.local.try_enter(&plan.worker.rng).ok().flatten().ok_or(HedgeOutcome::LimitReached)?;
    let picked = plan.pick(&mut so_far.tried.clone(), now).ok();
    let another = picked.filter(|picked| !so_far.tried.contains(picked.endpoint().id));
    let picked = another.ok_or(HedgeOutcome::NoOtherEndpoint)?;
    match plan.local.budget().try_withdraw(now) {
        true => Ok((slot, picked)),
        false => Err(HedgeOutcome::BudgetEmpty),
    }
}

fn may_have_run(ended: &Ended) -> bool {
    ended.as_ref().map_or_else(|failed| failed.end.may_have_run(), |_| true)
}

fn is_good(ended: &Ended, grpc: bool) -> bool {
    let Ok(response) = ended else { return false };
    let grpc_status = if grpc { grpc_status(response.headers()) } else { None };
    Outcome::of_response(response.status(), grpc_status) == Outcome::Success
        && !is_overload(response.status(), grpc_status)
}
