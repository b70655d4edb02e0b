//! The control tick: rules that look at the traffic from time to time, and make known to the workers what they see.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::policy::breaker::{BreakerState, Transition};

use super::outliers::Watch;
use super::{Control, Managed};

/// How often. A failing upstream is noticed at most so much later; a tick of an idle upstream costs less than a microsecond.
const TICK: Duration = Duration::from_millis(50);

/// Ticks for ever. The control thread owns the task that runs this.
pub async fn run(control: Rc<Control>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut endpoints = Watch::new(Instant::now());
    loop {
        interval.tick().await;
        let now = Instant::now();
        control.with_upstreams(|upstreams| {
            for managed in upstreams.iter() {
                if let Some(change) = managed.upstream.tick(now) {
                    log(managed, &change);
                }
            }
            endpoints.look(upstreams, now);
        });
    }
}

fn log(managed: &Managed, change: &Transition) {
    let (upstream, tally) = (&*managed.upstream.name, change.tally);
    let (from, to) = (change.from.word(), change.to.word());
    match change.to {
        BreakerState::Open => tracing::warn!(
            upstream,
            from,
            to,
            why = change.why,
            requests = tally.requests,
            failed = tally.failed,
            slow = tally.slow,
            "breaker changed"
        ),
        BreakerState::HalfOpen | BreakerState::Closed => {
            tracing::info!(upstream, from, to, why = change.why, "breaker changed");
        }
    }
}
