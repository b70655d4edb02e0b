//! What will happen, in its order: the virtual clock's queue.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::slab::Id;

/// Nanoseconds since the start of the run.
pub(super) type Time = u64;

/// One second of [`Time`].
pub(super) const SECOND: Time = 1_000_000_000;

/// Something that happens at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// The next request of the clients.
    Arrival,
    /// An attempt's connection stands, or does not.
    Connected(Id),
    /// A request reaches an endpoint.
    Reached(Id),
    /// An endpoint has done its own work on a request.
    Worked(Id),
    /// An answer, or a reset, reaches the sidecar.
    Answered(Id),
    /// An attempt's time is up.
    Overdue(Id),
    /// A first attempt has been slow for long enough.
    Slow(Id),
    /// A request has waited long enough for a place.
    WaitedEnough(Id),
    /// A backoff is over.
    Again(Id),
    /// A fault begins, changes or ends.
    Fault,
    /// A health check begins.
    Check(u32),
    /// A health check ends.
    Checked(u32, bool),
    /// The control thread's turn.
    Tick,
}

/// Timers of one kind mostly end in the order in which they are started: those wait in a line of their own, where
/// starting one costs no search. The many timers that outlive what they guard would else make the heap large.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line {
    Attempt,
    Queue,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Time,
    /// Decides between two at the same moment: first come, first served. Without it the order, and with it the result,
    /// would hang on the heap's insides.
    number: u64,
    what: What,
}

impl Entry {
    fn key(&self) -> (Time, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// Everything that is still to happen.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Entry>,
    lines: [VecDeque<Entry>; 2],
    number: u64,
}

impl Events {
    /// `what` happens at `at`.
    pub(super) fn at(&mut self, at: Time, what: What) {
        let entry = self.entry(at, what);
        self.heap.push(entry);
    }

    /// As [`Events::at`], for a timer.
    pub(super) fn timer(&mut self, line: Line, at: Time, what: What) {
        let entry = self.entry(at, what);
        let line = &mut self.lines[line as usize];
        if line.back().is_none_or(|last| last.at <= at) {
            line.push_back(entry);
        } else {
            self.heap.push(entry);
        }
    }

    fn entry(&mut self, at: Time, what: What) -> Entry {
        self.number += 1;
        Entry { at, number: self.number, what }
    }

    /// The next thing, and when.
    pub(super) fn next(&mut self) -> Option<(Time, What)> {
        let fronts = self.lines.iter().enumerate();
        let fronts = fronts.filter_map(|(index, line)| Some((line.front()?.key(), index)));
        let entry = match (fronts.min(), self.heap.peek()) {
            (Some((key, line)), top) if top.is_none_or(|top| key < top.key()) => {
                self.lines[line].pop_front()
            }
            _ => self.heap.pop(),
        }?;
        Some((entry.at, entry.what))
    }

    /// How many things were ever to happen.
    pub(super) fn count(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_and_then_of_their_planning() {
        let mut events = Events::default();
        events.at(30, What::Fault);
        events.timer(Line::Attempt, 10, What::Arrival);
        events.timer(Line::Attempt, 20, What::Arrival);
        events.timer(Line::Attempt, 15, What::Tick);
        events.timer(Line::Queue, 30, What::Tick);
        events.at(10, What::Fault);
        let order: Vec<(Time, bool)> = std::iter::from_fn(|| events.next())
            .map(|(at, what)| (at, matches!(what, What::Fault)))
            .collect();
        let (fault, other) = (true, false);
        assert_eq!(
            order,
            [(10, other), (10, fault), (15, other), (20, other), (30, fault), (30, other)]
        );
        assert_eq!(events.count(), 6);
    }
}
