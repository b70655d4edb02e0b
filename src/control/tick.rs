//! What the control thread does regularly: it looks at every upstream's endpoints.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Control;
use crate::base::rng::Rng;
use crate::policy::outlier::INTERVAL;

/// How late a verdict may be that nobody has asked for: an end of slow start, an ejection that has become one too many.
const TICK: Duration = Duration::from_secs(1);

/// Looks at every upstream, each second, until it is dropped. One for the process.
pub async fn tick(control: Rc<Control>) {
    let mut rng = Rng::from_entropy();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judged = Instant::now();
    loop {
        let now = ticks.tick().await;
        let judge = now.saturating_duration_since(judged) >= INTERVAL;
        if judge {
            judged = now;
        }
        control.with_upstreams(|upstreams| {
            for managed in upstreams.iter() {
                if judge {
                    managed.upstream.judge(now, &mut rng);
                }
                managed.upstream.review(now);
            }
        });
    }
}
