//! Whether a kept HTTP/1 connection may carry another request, by how that went before.

use std::time::Duration;

use tokio::time::Instant;

/// Successes in a row that prove an endpoint: one close in ten uses, half of what a budget of 20 % pays for, would show.
const PROOF: u32 = 10;

/// Races in a row that end trust: two can be one restart under two requests.
const IN_A_ROW: u32 = 3;

/// Uses over which the share of races is looked at: counts are halved beyond it, so that a change shows.
const USES: u32 = 200;

/// A share of races above 1 in this ends trust.
const SHARE: u32 = 10;

/// How long no connection is reused, at first and at most; doubled each time.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));

/// A trial that finds the budget empty for this long is taken for passed: it is spent on other failures, and making every
/// connection anew would be the last thing that a struggling upstream needs.
const UNCOVERED: Duration = Duration::from_secs(1);

/// What a worker has learned of reusing its connections to one endpoint.
///
/// The keep-alive race (RFC 9112 §9.3.1: the peer closes a kept connection while a request is on its way) is repaired by
/// sending an idempotent request again, which costs retry budget: such a request may have run, and an outage must not be
/// able to hide behind the race. An upstream that closes under *every* reuse would then exhaust the budget, and what should
/// be invisible would become 502s. So the race itself is bounded: a use is allowed only while its repair is paid for, and an
/// endpoint that races is given fresh connections for a while, on which there is no race.
///
/// | State | A kept connection is used | Left when |
/// |---|---|---|
/// | trial (the first) | by a request that can be sent again, while the budget covers all such uses under way; by others freely | 10 successes in a row: trusted. One race: rest |
/// | trusted | freely | 3 races in a row, or more than 1 in 10 of the last 100 to 200 uses: rest |
/// | rest | never | after 1 s, 2 s, 4 s … 64 s: trial |
/// | trial (after a rest) | by one request at a time that can be sent again and is covered | as above; proof makes the next rest 1 s again |
///
/// A trial during which the budget is empty for 1 s, or with nothing but requests that are never sent again, ends in trust that
/// a single race ends.
///
/// Rejected: resends that cost nothing (the outage in disguise), and a pool that closes earlier (it helps against an
/// upstream that counts seconds, and `pool.idle` is that; it cannot help against one that closes as it is used).
/// Invariant: without other retries, a request that can be sent again never meets a race that the budget does not pay,
/// but for more than `SHARE` at once of a trusted endpoint's uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReuseTrust {
    state: State,
    /// The length of the last rest; zero: there was none since the last proof.
    rest: Duration,
    /// Rests begun and not yet counted by [`ReuseTrust::take_rests`].
    rests: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Trial { successes: u32, uncovered: Option<Instant> },
    Trusted { in_a_row: u32, uses: u32, races: u32 },
    Rest { until: Instant },
}

/// What becomes of a kept connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Use it.
    Free,
    /// Use it, and count it as at risk until its response has begun, or its race is paid.
    AtRisk,
    /// Make a new one.
    No,
}

/// Whether the race of a use that is not trusted yet would be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// It would be.
    Paid,
    /// Not beside the uses that are at risk already.
    Taken,
    /// The budget pays for nothing now.
    Empty,
}

impl Cover {
    /// What `available` retries cover: one more than the uses that are at risk `already`; `alone`, one in all.
    pub fn of(available: f64, already: u32, alone: bool) -> Self {
        if available < 1.0 {
            Self::Empty
        } else if (alone && already > 0) || available < f64::from(already) + 1.0 {
            Self::Taken
        } else {
            Self::Paid
        }
    }
}

const TRIAL: State = State::Trial { successes: 0, uncovered: None };

impl Default for ReuseTrust {
    fn default() -> Self {
        Self { state: TRIAL, rest: Duration::ZERO, rests: 0 }
    }
}

impl ReuseTrust {
    /// Whether a kept connection may carry a request.
    ///
    /// `repeatable`: the request would be sent again after a race. `cover`: does the budget pay for one more race than there are
    /// uses at risk, of all endpoints and workers that share it? Asked with `true`, one use at a time is all that it covers.
    pub fn ask(
        &mut self,
        now: Instant,
        repeatable: bool,
        cover: impl FnOnce(bool) -> Cover,
    ) -> Reuse {
        if matches!(self.state, State::Rest { until } if until <= now) {
            self.state = TRIAL;
        }
        let raced_before = !self.rest.is_zero();
        match &mut self.state {
            State::Trusted { .. } => Reuse::Free,
            State::Rest { .. } => Reuse::No,
            State::Trial { .. } if !repeatable && !raced_before => Reuse::Free,
            State::Trial { uncovered, .. } => {
                match if repeatable { cover(raced_before) } else { Cover::Empty } {
                    Cover::Paid => {
                        *uncovered = None;
                        return Reuse::AtRisk;
                    }
                    Cover::Taken => return Reuse::No,
                    Cover::Empty => {}
                }
                let since = *uncovered.get_or_insert(now);
                if now.saturating_duration_since(since) < UNCOVERED {
                    return Reuse::No;
                }
                self.state = State::Trusted { in_a_row: IN_A_ROW - 1, uses: 0, races: 0 };
                Reuse::Free
            }
        }
    }

    /// A response began on a kept connection.
    pub fn succeeded(&mut self) {
        match &mut self.state {
            State::Trial { successes, .. } => {
                *successes += 1;
                if *successes >= PROOF {
                    self.prove();
                }
            }
            State::Trusted { in_a_row, uses, races } => {
                *in_a_row = 0;
                *uses += 1;
                if *uses >= USES {
                    (*uses, *races) = (*uses / 2, *races / 2);
                }
                if !self.rest.is_zero() && *uses >= PROOF {
                    self.prove();
                }
            }
            State::Rest { .. } => {}
        }
    }

    fn prove(&mut self) {
        self.rest = Duration::ZERO;
        self.state = State::Trusted { in_a_row: 0, uses: PROOF, races: 0 };
    }

    /// A kept connection ended under a request, before any byte of a response.
    pub fn raced(&mut self, now: Instant) {
        let rests = match &mut self.state {
            // Of a use that began before.
            State::Rest { .. } => false,
            State::Trial { .. } => true,
            State::Trusted { in_a_row, uses, races } => {
                (*in_a_row, *uses, *races) = (*in_a_row + 1, *uses + 1, *races + 1);
                *in_a_row >= IN_A_ROW || (*races > 1 && *races * SHARE > *uses)
            }
        };
        if rests {
            self.rest = (self.rest * 2).clamp(REST.0, REST.1);
            self.state = State::Rest { until: now + self.rest };
            self.rests = self.rests.saturating_add(1);
        }
    }

    /// True while no connection is used again, as of the last [`ReuseTrust::ask`].
    pub fn rests(&self) -> bool {
        matches!(self.state, State::Rest { .. })
    }

    /// Rests that began since this was last asked.
    pub fn take_rests(&mut self) -> u32 {
        std::mem::take(&mut self.rests)
    }
}

#[cfg(test)]
mod tests;
