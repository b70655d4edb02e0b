//! How long a connection may rest, how long a head may take, and how a connection is asked to end.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::io::tick::{Alarm, TICK};

use super::connection::Downstream;
use super::stream::Turn;
use super::worker::Stop;

/// How often a connection under TLS asks whether its certificates were replaced, where nothing else wakes it: a quarter of the
/// time in which it then has to end.
const LOOK: Duration = Duration::from_secs(15);

/// What a connection's limits of time go by.
#[derive(Debug)]
pub(super) struct Clock {
    /// Requests that are being answered.
    in_flight: Cell<u32>,
    /// Since when there is none.
    rests_since: Cell<Instant>,
    /// When an HTTP/1 answer must be out, whatever its reader does.
    cut_at: Cell<Option<Instant>>,
    /// When an HTTP/1 answer is looked at: has anything moved since, and for how long nothing may.
    stalls_at: Cell<Option<Instant>>,
    idle: Cell<Option<Duration>>,
    moved_by_then: Cell<u64>,
    /// Why an answer was cut off from here.
    cut_for: Cell<Option<Reason>>,
    /// When the head that is arriving began to.
    head_since: Cell<Option<Instant>>,
    /// What the answer of an HTTP/2 stream has done.
    turn: Turn,
}

impl Clock {
    /// A connection that has begun at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: Cell::new(0),
            rests_since: Cell::new(now),
            cut_at: Cell::new(None),
            stalls_at: Cell::new(None),
            idle: Cell::new(None),
            moved_by_then: Cell::new(0),
            cut_for: Cell::new(None),
            head_since: Cell::new(None),
            turn: Turn::default(),
        }
    }
}

impl Downstream {
    /// Counts a request until [`Downstream::end_request`].
    pub(super) fn begin_request(&self) {
        self.clock.in_flight.set(self.clock.in_flight.get() + 1);
        self.clock.head_since.set(None);
    }

    /// An answer that is not out by `cut_at`, or does not move for `idle`, is cut off even while its caller does not read:
    /// hyper does not ask its body for more then. HTTP/1 ends with its connection, HTTP/2 with its stream.
    pub(super) fn limit_answer(
        &self,
        cut_at: Option<Instant>,
        idle: Option<Duration>,
        now: Instant,
    ) {
        let clock = &self.clock;
        if self.http2 {
            clock.turn.begin(cut_at, idle);
            return;
        }
        clock.cut_at.set(cut_at);
        clock.idle.set(idle);
        clock.moved_by_then.set(self.activity.bytes_moved());
        // The body keeps the same limit for what its upstream does, and goes first.
        clock.stalls_at.set(idle.map(|idle| now + idle + TICK));
    }

    /// True when something has moved since it was last looked at: the answer is not stalled, look again later.
    fn has_moved(&self) -> bool {
        let (clock, moved) = (&self.clock, self.activity.bytes_moved());
        if clock.moved_by_then.replace(moved) == moved {
            return false;
        }
        clock.stalls_at.set(clock.idle.get().map(|idle| Instant::now() + idle));
        true
    }

    /// What the answer of the stream whose turn it is has done.
    pub(super) fn turn(&self) -> &Turn {
        &self.clock.turn
    }

    /// Lets `end` end a stream, for `reason`.
    pub(super) fn cut_stream(&self, reason: Reason, end: impl FnOnce()) {
        self.clock.cut_for.set(Some(reason));
        end();
        self.clock.cut_for.set(None);
    }

    /// Why the answer was cut off, where the connection's limits have done it.
    pub(super) fn cut_for(&self) -> Option<Reason> {
        self.clock.cut_for.get()
    }

    /// Ends the connection in a reset: what was sent of the answer must not be taken for all of it.
    fn cut(&self, reason: Reason) {
        if self.clock.in_flight.get() > 0 {
            self.clock.cut_for.set(Some(reason));
            self.activity.reset_on_close();
        }
    }

    /// The response's last byte was handed over, or nobody wants it any more.
    pub(super) fn end_request(&self, now: Instant) {
        let clock = &self.clock;
        clock.in_flight.set(clock.in_flight.get().saturating_sub(1));
        clock.cut_at.set(None);
        clock.stalls_at.set(None);
        clock.rests_since.set(now);
    }
}

/// How a driven connection ended.
pub(super) enum Ended<E> {
    /// By itself.
    Served(Result<(), E>),
    /// A head did not arrive in time.
    HeadTimeout,
    /// It could not be ended gracefully in time.
    Cut,
}

/// Polls a connection, with its limits of time and the listener's drain. `arriving`: whether a head has begun to come, asked
/// while there is no request.
pub(super) async fn drive<C, E>(
    downstream: &Downstream,
    mut connection: Pin<&mut C>,
    mut stopped: watch::Receiver<Stop>,
    arriving: impl Fn() -> bool,
    shut_down: impl Fn(Pin<&mut C>),
) -> Ended<E>
where
    C: Future<Output = Result<(), E>>,
{
    let said = stopped.clone();
    let drained = stopped.wait_for(|stop| *stop == Stop::Connections);
    let mut drained = std::pin::pin!(tokio::task::unconstrained(drained));
    let mut waits = false;
    let mut watch = Watch::new(downstream, arriving);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Served(ended));
        }
        // Once polled it wakes this task; again only when something was said, for each time costs 250 instructions.
        let asks = !std::mem::replace(&mut waits, true) || !matches!(said.has_changed(), Ok(false));
        let draining = asks && !watch.ending && drained.as_mut().poll(cx).is_ready();
        match watch.poll(cx, draining) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Verdict::HeadTimeout) => Poll::Ready(Ended::HeadTimeout),
            Poll::Ready(Verdict::Look) => Poll::Pending,
            Poll::Ready(Verdict::Cut(reason)) => {
                downstream.cut(reason);
                Poll::Ready(Ended::Cut)
            }
            Poll::Ready(Verdict::ShutDown) => {
                shut_down(connection.as_mut());
                // To register the waker with what the shutdown has changed.
                connection.as_mut().poll(cx).map(Ended::Served)
            }
        }
    })
    .await
}

/// What the clock says of a connection.
enum Verdict {
    ShutDown,
    HeadTimeout,
    Cut(Reason),
    /// Nothing yet: look again.
    Look,
}

/// The limits of time of one connection, on one alarm.
struct Watch<'a, A> {
    downstream: &'a Downstream,
    arriving: A,
    alarm: Alarm,
    header: Option<Duration>,
    idle: Option<Duration>,
    ends_at: Option<Instant>,
    /// When it is next asked whether the certificates were replaced; only under TLS.
    look_at: Option<Instant>,
    armed: Option<Instant>,
    /// It was asked to end.
    ending: bool,
}

impl<'a, A: Fn() -> bool> Watch<'a, A> {
    fn new(downstream: &'a Downstream, arriving: A) -> Self {
        let active = downstream.local.active(&downstream.worker);
        let limits = active.as_ref().map(|active| &active.listener.limits);
        Self {
            alarm: downstream.worker.tick.alarm(),
            header: limits.and_then(|limits| limits.header_timeout),
            idle: limits.and_then(|limits| limits.idle),
            ends_at: limits.and_then(|limits| limits.max_age).map(|age| Instant::now() + age),
            look_at: downstream.secured.as_ref().map(|_| Instant::now() + LOOK),
            armed: None,
            ending: false,
            arriving,
            downstream,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, draining: bool) -> Poll<Verdict> {
        if draining {
            return self.shut_down();
        }
        if self.is_replaced() {
            return self.shut_down();
        }
        loop {
            let (next, verdict) = self.next();
            if self.armed != next {
                self.armed = next;
                self.alarm.set(next);
            }
            if next.is_none() {
                return Poll::Pending;
            }
            ready!(self.alarm.poll_elapsed(cx));
            return match verdict {
                Verdict::Look => {
                    self.look_at = Some(Instant::now() + LOOK);
                    if self.is_replaced() {
                        return self.shut_down();
                    }
                    continue;
                }
                Verdict::Cut(Reason::StreamIdle) if self.downstream.has_moved() => continue,
                // Asked again and still there: whoever is at the other end does not read.
                Verdict::ShutDown if self.ending => Poll::Ready(Verdict::Cut(Reason::ClientGone)),
                Verdict::ShutDown => self.shut_down(),
                verdict => Poll::Ready(verdict),
            };
        }
    }

    /// True when the connection is to be asked to end because its certificates were replaced. One of HTTP/1 is not, as its peer may
    /// be sending a request, which would be lost: its next answer says that it ends ([`super::secure::announce_end`]). Where none
    /// comes, it is closed at the end of the drain.
    fn is_replaced(&self) -> bool {
        let Some(secured) = &self.downstream.secured else { return false };
        if self.ending {
            return false;
        }
        let ends_at = if self.downstream.http2 { secured.ends_at() } else { secured.closes_at() };
        ends_at.is_some_and(|at| Instant::now() >= at)
    }

    fn shut_down(&mut self) -> Poll<Verdict> {
        self.ending = true;
        self.ends_at = None;
        Poll::Ready(Verdict::ShutDown)
    }

    /// The next limit, as the connection stands now.
    fn next(&self) -> (Option<Instant>, Verdict) {
        let (next, verdict) = self.next_limit();
        match self.look_at {
            Some(look) if !self.ending && next.is_none_or(|next| look < next) => {
                (Some(look), Verdict::Look)
            }
            _ => (next, verdict),
        }
    }

    fn next_limit(&self) -> (Option<Instant>, Verdict) {
        let downstream = self.downstream;
        if downstream.clock.in_flight.get() > 0 {
            let clock = &downstream.clock;
            let cut = clock.cut_at.get().map(|at| (at + TICK, Verdict::Cut(Reason::Timeout)));
            let stalled = clock.stalls_at.get().map(|at| (at, Verdict::Cut(Reason::StreamIdle)));
            let aged = self.ends_at.map(|at| (at, Verdict::ShutDown));
            let first = [cut, stalled, aged].into_iter().flatten().min_by_key(|(at, _)| *at);
            return first.map_or((None, Verdict::ShutDown), |(at, verdict)| (Some(at), verdict));
        }
        if (self.arriving)() {
            let since = downstream.clock.head_since.get().unwrap_or_else(Instant::now);
            downstream.clock.head_since.set(Some(since));
            return (self.header.map(|limit| since + limit), Verdict::HeadTimeout);
        }
        downstream.clock.head_since.set(None);
        let rested = self.idle.map(|idle| downstream.clock.rests_since.get() + idle);
        match (rested, self.ends_at) {
            (Some(rested), Some(aged)) => (Some(rested.min(aged)), Verdict::ShutDown),
            (rested, aged) => (rested.or(aged), Verdict::ShutDown),
        }
    }
}
