//! One HTTP/2 stream of a caller, whose answer may stall while nobody asks for its body.
//!
//! hyper asks the body of an answer for more only while the caller's flow control lets it send. A caller that grants
//! nothing would hold its place at the upstream for ever: neither the deadline nor the idle time, which the body keeps,
//! would be looked at. So the task of each stream is run under them as well.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::io::tick::{Alarm, TICK};

use super::connection::Downstream;

/// What an answer has done in the present turn of its stream's task. Streams of a connection take turns on one thread, so
/// one place per connection will do.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The answer has begun: when it must be out, and how long it may rest.
    limits: Cell<Option<Limits>>,
    /// Its body was asked for more.
    asked: Cell<bool>,
}

impl Turn {
    /// Notes the limits of an answer that begins.
    pub(super) fn begin(&self, cut_at: Option<Instant>, idle: Option<Duration>) {
        self.limits.set(Some(Limits { cut_at, idle }));
    }

    /// Forgets what the stream before has left: it may have ended in its turn.
    fn start(&self) {
        self.limits.set(None);
        self.asked.set(false);
    }

    /// Notes that the body was asked for more: the caller reads.
    pub(super) fn ask(&self) {
        self.asked.set(true);
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    cut_at: Option<Instant>,
    idle: Option<Duration>,
}

impl Limits {
    /// When the stream is cut off if its body is not asked for more after `now`, and why. The body keeps the same limits, and
    /// goes first.
    fn next(self, now: Instant) -> Option<(Instant, Reason)> {
        let cut = self.cut_at.map(|at| (at + TICK, Reason::Timeout));
        let idle = self.idle.and_then(|idle| now.checked_add(idle + TICK));
        let idle = idle.map(|at| (at, Reason::StreamIdle));
        cut.into_iter().chain(idle).min_by_key(|(at, _)| *at)
    }
}

/// Spawns hyper's tasks, one for each stream, under the limits of its answer.
#[derive(Debug, Clone)]
pub(super) struct StreamExecutor(Rc<Downstream>);

impl StreamExecutor {
    /// For the streams of `downstream`.
    pub(super) fn new(downstream: &Rc<Downstream>) -> Self {
        Self(Rc::clone(downstream))
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let downstream = Rc::clone(&self.0);
        let stream = Limited { future: Some(future), downstream, limits: None, alarm: None };
        // Owned by the connection it belongs to: hyper ends it when the connection's handles are gone.
        drop(tokio::task::spawn_local(stream));
    }
}

pin_project! {
    struct Limited<F> {
        #[pin]
        future: Option<F>,
        downstream: Rc<Downstream>,
        limits: Option<Limits>,
        alarm: Option<(Alarm, Reason)>,
    }
}

impl<F: Future<Output = ()>> Future for Limited<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let turn = this.downstream.turn();
        turn.start();
        if future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let begun = turn.limits.take();
        if turn.asked.take() || begun.is_some() {
            *this.limits = begun.or(*this.limits);
            let next = this.limits.and_then(|limits| limits.next(Instant::now()));
            let alarm = this.alarm.take().map(|(alarm, _)| alarm);
            *this.alarm = next.map(|(at, reason)| {
                let mut alarm = alarm.unwrap_or_else(|| this.downstream.worker.tick.alarm());
                alarm.set(Some(at));
                (alarm, reason)
            });
        }
        let Some((alarm, reason)) = this.alarm else { return Poll::Pending };
        let reason = *reason;
        if alarm.poll_elapsed(cx).is_pending() {
            return Poll::Pending;
        }
        // Its drop resets the stream (CANCEL), and the record of the request says why.
        this.downstream.cut_stream(reason, || this.future.set(None));
        Poll::Ready(())
    }
}
