//! Who waits for which resource, what each was told, and when it is time to say something again. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::last_good::{LastGood, Trouble};
use super::super::publisher::Publisher;
use super::super::{AdvisedBalance, ErrorKind};
use super::clusters::Advice;
use super::session::Taken;
use crate::base::endpoint::EndpointSpec;

/// How long a resource may stay unanswered before that is counted and shown. It goes on being waited for.
///
/// Envoy waits as long for a first answer. A control plane that does not know a resource says nothing at all, so this is
/// the only sign of a name that is written wrongly.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// All who wait for resources of one control plane.
#[derive(Debug, Default)]
pub(super) struct Board {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// The last word on each resource that somebody waits for.
    ///
    /// On a stream that lives it stands: a control plane speaks again only when something changed. Who joins later is
    /// told at once, as nobody is told again what is subscribed to already.
    told: BTreeMap<String, Vec<EndpointSpec>>,
    /// What clusters say of balancing, on whatever stream it was.
    advised: BTreeMap<String, AdvisedBalance>,
    /// Whether there is a stream; without one, nobody's word stands.
    live: bool,
}

/// What an upstream wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The name of an assignment.
    pub(super) resource: String,
    /// And what the cluster of that name says of balancing.
    pub(super) advice: bool,
}

/// One upstream.
#[derive(Debug)]
struct Waiting {
    resource: String,
    /// The configuration does not say how to balance.
    wants_advice: bool,
    publisher: Publisher,
    last_good: LastGood,
    /// Asked on this stream and not answered; `None`: answered, or silence was noted already.
    silent_from: Option<Instant>,
}

impl Waiting {
    fn told(&mut self, set: Vec<EndpointSpec>, now: Instant) {
        self.silent_from = None;
        let verdict = self.last_good.on_set(set, now);
        self.publisher.take(verdict, now);
    }

    fn failed(&mut self, trouble: Trouble, now: Instant) {
        self.silent_from = None;
        let verdict = self.last_good.on_failure(trouble);
        self.publisher.take(verdict, now);
    }
}

impl Board {
    /// One more, who is told what is known.
    pub(super) fn join(&mut self, wanted: Wanted, publisher: Publisher, now: Instant) -> u64 {
        let last_good = LastGood::default();
        let silent_from = self.live.then_some(now);
        let Wanted { resource, advice: wants_advice } = wanted;
        let mut waiting = Waiting { resource, wants_advice, publisher, last_good, silent_from };
        if let Some(advice) = self.advised.get(&waiting.resource).filter(|_| wants_advice) {
            waiting.publisher.advise(*advice);
        }
        if let Some(set) = self.told.get(&waiting.resource) {
            waiting.told(set.clone(), now);
        }
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.next
    }

    /// One less. A resource that nobody waits for is forgotten.
    pub(super) fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
        let names = self.names();
        self.told.retain(|name, _| names.contains(name));
        let clusters = self.clusters();
        // Of none it stays subscribed to the last: to some control planes an empty list means all that there are.
        if !clusters.is_empty() {
            self.advised.retain(|name, _| clusters.contains(name));
        }
    }

    /// Every resource that is waited for.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.waiting.values().map(|waiting| waiting.resource.clone()).collect()
    }

    /// Every cluster that somebody wants advice of.
    pub(super) fn clusters(&self) -> BTreeSet<String> {
        let waiting = self.waiting.values().filter(|waiting| waiting.wants_advice);
        waiting.map(|waiting| waiting.resource.clone()).collect()
    }

    /// What clusters say. What is wrong with them is nothing against the endpoints.
    pub(super) fn advise(&mut self, advice: Advice, now: Instant) {
        let Advice { policies, mistakes, .. } = advice;
        for waiting in self.waiting.values().filter(|waiting| waiting.wants_advice) {
            let name = &waiting.resource;
            if let Some(policy) = policies.get(name) {
                waiting.publisher.advise(*policy);
            } else if let Some(why) = mistakes.get(name).or_else(|| mistakes.get("")) {
                let text = format!("the cluster is refused: {why}");
                waiting.publisher.count(Trouble::new(ErrorKind::Malformed, text), now);
            }
        }
        self.advised.extend(policies);
    }

    /// A stream stands, and everything is asked for on it.
    pub(super) fn opened(&mut self, now: Instant) {
        self.live = true;
        for waiting in self.waiting.values_mut() {
            waiting.silent_from = Some(now);
        }
    }

    /// The stream is gone, and with it whoever vouched for what was told.
    pub(super) fn closed(&mut self, trouble: &Trouble, now: Instant) {
        self.live = false;
        for waiting in self.waiting.values_mut() {
            waiting.failed(trouble.clone(), now);
        }
    }

    /// A response.
    pub(super) fn take(&mut self, taken: Taken, now: Instant) {
        let Taken { answer, sets, mistakes } = taken;
        let nameless = mistakes.get("").filter(|_| answer.is_some());
        for waiting in self.waiting.values_mut() {
            let name = &waiting.resource;
            if let Some(set) = sets.get(name) {
                waiting.told(set.clone(), now);
            } else if let Some(why) = mistakes.get(name).or(nameless) {
                // What cannot be read could have been anybody's.
                waiting.failed(Trouble::new(ErrorKind::Malformed, why.clone()), now);
            }
        }
        self.told.extend(sets);
    }

    /// When [`Board::review`] has something to do.
    pub(super) fn next_review(&self) -> Option<Instant> {
        if !self.live {
            return None;
        }
        let due = |waiting: &Waiting| {
            let silence = waiting.silent_from.map(|from| from + PATIENCE);
            silence.into_iter().chain(waiting.last_good.confirm_at()).min()
        };
        self.waiting.values().filter_map(due).min()
    }

    /// Notes who was not answered in time, and lets an empty answer that still stands count once more.
    pub(super) fn review(&mut self, now: Instant) {
        if !self.live {
            return;
        }
        for waiting in self.waiting.values_mut() {
            if waiting.silent_from.is_some_and(|from| now >= from + PATIENCE) {
                let text = format!(
                    "the control plane has not answered for {:?} in {PATIENCE:?}",
                    waiting.resource
                );
                waiting.failed(Trouble::new(ErrorKind::Timeout, text), now);
            }
            let due = waiting.last_good.confirm_at().is_some_and(|due| now >= due);
            if due && self.told.get(&waiting.resource).is_some_and(Vec::is_empty) {
                waiting.told(Vec::new(), now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
