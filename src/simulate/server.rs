//! The servers: a bounded queue before a number of slots.
//!
//! Work that was begun is finished although its caller has gone: a server does not know, and that is how an overload
//! outlives its cause.

use super::events::What;
use super::faults::{Condition, Faults};
use super::random::scaled;
use super::slab::Id;
use super::state::{Answer, From, Server, Told};
use super::world::World;
use crate::policy::retry_depth::RetryDepth;

impl Server {
    pub(super) fn new(hop: usize) -> Self {
        Self {
            condition: Faults::new(&[]).condition(hop, 0, 0),
            life: 0,
            working: Vec::new(),
            queue: std::collections::VecDeque::new(),
            held: Vec::new(),
        }
    }
}

impl World {
    /// Brings every endpoint into the condition that holds now.
    pub(super) fn fault(&mut self) {
        if let Some(next) = self.faults.next(self.now) {
            self.events.at(next, What::Fault);
        }
        for hop in 0..self.hops.len() {
            for server in 0..self.hops[hop].servers.len() {
                let number = u32::try_from(server).unwrap_or(u32::MAX);
                let is = self.faults.condition(hop, number, self.now);
                let was = std::mem::replace(&mut self.hops[hop].servers[server].condition, is);
                if was != is {
                    self.changed(hop, server, was, is);
                }
            }
        }
    }

    fn changed(&mut self, hop: usize, index: usize, was: Condition, is: Condition) {
        let server = &mut self.hops[hop].servers[index];
        if was.up && !is.up {
            // Kept connections end with the process, or as soon as they are idle where it leaves in good order.
            server.life += 1;
            if is.crashed {
                let lost: Vec<Id> =
                    server.working.drain(..).chain(server.queue.drain(..)).collect();
                server.held.clear();
                for job in lost {
                    if let Some(job) = self.jobs.remove(job) {
                        self.answer(hop, job.attempt, Answer::Reset);
                    }
                }
            }
        }
        if was.hanging && !is.hanging {
            for job in std::mem::take(&mut self.hops[hop].servers[index].held) {
                self.worked(job);
            }
        }
        self.start_work(hop, index);
    }

    /// A request reaches an endpoint. Whether its caller still waits, the endpoint cannot know.
    pub(super) fn reached(&mut self, id: Id) {
        let Some(job) = self.jobs.get(id) else { return };
        let (hop, index, attempt) = (job.hop, job.server, job.attempt);
        let of = &mut self.hops[hop];
        let server = &mut of.servers[index];
        let is = server.condition;
        let full = server.queue.len() >= of.queue && server.working.len() >= free(of.slots, is);
        let mut hit = |share: f64| share > 0.0 && self.chance.work.fraction() < share;
        let answer = if is.unreachable {
            None
        } else if !is.up || job.life != server.life || hit(is.resets) {
            Some(Answer::Reset)
        } else if hit(is.errors.0) {
            Some(Answer::Status(is.errors.1, RetryDepth::default()))
        } else if full && !is.hanging {
            Some(Answer::Status(503, RetryDepth::default()))
        } else {
            server.queue.push_back(id);
            return self.start_work(hop, index);
        };
        self.jobs.remove(id);
        if let Some(answer) = answer {
            self.answer(hop, attempt, answer);
        }
    }

    /// Begins work while there are slots.
    fn start_work(&mut self, hop: usize, index: usize) {
        let of = &mut self.hops[hop];
        let server = &mut of.servers[index];
        if server.condition.hanging {
            return;
        }
        while server.working.len() < free(of.slots, server.condition) {
            let Some(job) = server.queue.pop_front() else { return };
            server.working.push(job);
            let alone = of.service_time.draw(&mut self.chance.work);
            let takes = scaled(alone, server.condition.slow);
            self.events.at(self.now + takes, What::Worked(job));
        }
    }

    /// An endpoint has done its own work: it asks the next hop, or answers.
    pub(super) fn worked(&mut self, id: Id) {
        let Some(job) = self.jobs.get(id) else { return };
        let (hop, index) = (job.hop, job.server);
        let server = &mut self.hops[hop].servers[index];
        if server.condition.hanging {
            server.held.push(id);
            return;
        }
        if hop == self.last_hop() {
            self.record.worked += 1;
            let waited_for = self.attempts.get(job.attempt).is_some();
            self.record.wasted += u64::from(!waited_for);
            return self.done(id, 200, RetryDepth::default());
        }
        let workers = self.hops[hop + 1].sidecars[index].workers.len();
        let worker = self.chance.work.below(workers);
        let told = if self.headers_pass { job.told } else { Told::default() };
        self.begin(From { hop: hop + 1, sidecar: index, worker }, Some(id), told);
    }

    /// A slot is free again, and its request answered. A service whose own call failed passes the status on.
    pub(super) fn done(&mut self, id: Id, status: u16, below: RetryDepth) {
        let Some(job) = self.jobs.remove(id) else { return };
        let server = &mut self.hops[job.hop].servers[job.server];
        if let Some(at) = server.working.iter().position(|working| *working == id) {
            server.working.swap_remove(at);
        }
        if !server.condition.unreachable {
            let below = if self.headers_pass { below } else { RetryDepth::default() };
            self.answer(job.hop, job.attempt, Answer::Status(status, below));
        }
        self.start_work(job.hop, job.server);
    }

    /// Sends something back to the sidecar.
    fn answer(&mut self, hop: usize, id: Id, answer: Answer) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.answer = answer;
            let back = self.hops[hop].rtt / 2;
            self.events.at(self.now + back, What::Answered(id));
        }
    }
}

/// Slots that are left.
fn free(slots: usize, is: Condition) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a million, times at most 1"
    )]
    let left = (slots as f64 * is.capacity).round() as usize;
    left.max(1)
}
