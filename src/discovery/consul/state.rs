//! What an answer of Consul changes, and what to ask next. No I/O and no clock: `now` and the randomness come in.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::Instances;
use super::index::{Index, Pace, next_index};
use crate::base::rng::Rng;
use crate::discovery::ErrorKind;
use crate::discovery::backoff::backoff;
use crate::discovery::last_good::{LastGood, SPACING, Trouble, Verdict};

/// How long a question may wait for a change. Short enough that a proxy in between, which closes what is silent for a
/// minute or more, does not make an error of each quiet hour.
const WAIT: Duration = Duration::from_secs(60);

/// An answer that was understood.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) instances: Instances,
    /// What the next question waits to change.
    pub(super) index: u64,
    /// The token may not see everything.
    pub(super) filtered: bool,
}

/// What to ask, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// Wait until there is something newer than this.
    pub(super) index: Index,
    /// For so long at most; whole seconds.
    pub(super) wait: Duration,
    pub(super) at: Instant,
}

/// The memory of one service.
#[derive(Debug)]
pub(super) struct ConsulState {
    last_good: LastGood,
    index: Index,
    pace: Pace,
}

impl ConsulState {
    /// Knows nothing; with the first question, which is answered at once.
    pub(super) fn new(now: Instant) -> (Self, Question) {
        let state = Self { last_good: LastGood::default(), index: None, pace: Pace::new(now) };
        (state, Question { index: None, wait: WAIT, at: now })
    }

    /// Takes an answer in.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        answer: Result<Answer, Trouble>,
        rng: &mut Rng,
    ) -> (Verdict, Question) {
        let index = answer.as_ref().ok().map(|answer| answer.index);
        let verdict = match answer.and_then(believable) {
            Ok(instances) => self.on_instances(instances, now),
            Err(trouble) => {
                let verdict = self.last_good.on_failure(trouble);
                // Whatever was waited for may be of another history: all of it, at once.
                self.index = None;
                let at = self.pace.next(now + backoff(self.last_good.misses(), rng));
                return (verdict, Question { index: None, wait: WAIT, at });
            }
        };
        self.index = next_index(self.index, index.unwrap_or_default());
        // An empty answer that has to be confirmed waits no longer than until then, and hears of a change before.
        let wait = if self.last_good.confirm_at().is_some() { SPACING } else { WAIT };
        (verdict, Question { index: self.index, wait, at: self.pace.next(now) })
    }

    fn on_instances(&mut self, instances: Instances, now: Instant) -> Verdict {
        let left_out = left_out(&instances);
        let mut verdict = self.last_good.on_set(instances.endpoints, now);
        verdict.trouble = verdict.trouble.or(left_out);
        verdict
    }
}

/// An answer without endpoints is believed only where nothing else explains it.
fn believable(answer: Answer) -> Result<Instances, Trouble> {
    let Answer { instances, filtered, .. } = answer;
    if !instances.endpoints.is_empty() {
        return Ok(instances);
    }
    if filtered {
        let text = "the token may not see all of the service: nothing is left of the answer";
        return Err(Trouble::new(ErrorKind::Denied, text));
    }
    match left_out(&instances) {
        Some(trouble) => Err(trouble),
        None => Ok(instances),
    }
}

fn left_out(instances: &Instances) -> Option<Trouble> {
    let why = instances.why.as_ref()?;
    let text = format!("{} healthy instances are left out: {why}", instances.unusable);
    Some(Trouble::new(ErrorKind::Malformed, text))
}

#[cfg(test)]
mod tests;
