//! An upstream's answer while it is passed on: what it holds, how long it may take, and when it has come to nothing.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::base::error::Reason;
use crate::io::tick::{Alarm, Tick, Timer};
use crate::net::{self, BrokenBody};
use crate::policy::classify;
use crate::upstream::{Connection, LocalUpstream};

use super::hold::Behind;
use super::verdict::Held;

/// An upstream's answer that is being passed on, and what is held until its end.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) incoming: Option<net::ResponseBody>,
    /// What was read and not yet handed over: of a piece that was too large for the caller's protocol, or before the head.
    pub(super) rest: Bytes,
    /// Those that were read before the head went on.
    pub(super) read_trailers: Option<HeaderMap>,
    /// Taken when it is given back.
    pub(super) connection: Option<Connection>,
    pub(super) deadline: Timer,
    /// Made when the answer makes us wait for the first time.
    pub(super) idle: Option<Alarm>,
    pub(super) idle_after: Option<Duration>,
    /// Bytes of the request's body that had moved when the idle alarm was set.
    pub(super) moved: u64,
    /// The caller can take trailers, and knows of them.
    pub(super) trailers: bool,
    /// In flight at the endpoint, and in its place at the upstream, until the upstream has said all.
    pub(super) held: Option<Held>,
    /// When the answer is cut off, while `deadline` is set to when it will be taken for a stream.
    pub(super) cut_at: Option<Instant>,
}

impl Flow {
    /// What an attempt holds when its answer has begun.
    pub(super) fn new(deadline: Timer, connection: Option<Connection>, held: Held) -> Self {
        Self {
            incoming: None,
            rest: Bytes::new(),
            read_trailers: None,
            connection,
            deadline,
            idle: None,
            idle_after: None,
            moved: 0,
            trailers: false,
            held: Some(held),
            cut_at: None,
        }
    }

    /// Reads an answer that nobody wants, so that its connection can be used again. False where it broke off or took too
    /// long.
    pub(super) async fn discard(
        mut self,
        mut incoming: net::ResponseBody,
        local: &LocalUpstream,
    ) -> bool {
        let rest = async {
            let mut status = None;
            while let Some(frame) = incoming.frame().await {
                let frame = frame.map_err(|error| error.reason())?;
                status = frame.trailers_ref().and_then(classify::grpc_status);
            }
            Ok(status)
        };
        let rest = self.deadline.limit(pin!(rest)).await;
        let rest = rest.unwrap_or(Err(Reason::Timeout));
        let now = Instant::now();
        if let Some(mut held) = self.held.take() {
            match rest {
                Ok(status) => held.whole(status, now),
                Err(reason) => held.broken(reason, now),
            }
        }
        if let Some(connection) = self.connection.take().filter(|_| rest.is_ok()) {
            connection.give_back(&local.upstream.policy.pool, now);
        }
        rest.is_ok()
    }

    /// Cuts the answer, whose head is there `now`, off at `cut_at`. Before that it may come to be a stream.
    pub(super) fn bound(&mut self, cut_at: Option<Instant>, events: bool, now: Instant) {
        let Some(held) = &mut self.held else { return };
        if events {
            held.goes_on(now);
        }
        self.cut_at = cut_at;
        self.deadline.set(held.stream_at(now, cut_at).or(cut_at));
    }

    /// True when the answer has to be cut off; it may have come to be a stream meanwhile.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.deadline.poll_elapsed(cx).is_pending() {
            return false;
        }
        let now = Instant::now();
        if self.cut_at.is_some_and(|at| at <= now) {
            return true;
        }
        if let Some(held) = &mut self.held {
            held.goes_on(now);
        }
        self.deadline.set(self.cut_at);
        self.deadline.poll_elapsed(cx).is_ready()
    }

    /// The upstream has broken the answer off, or is late with it.
    pub(super) fn broken(&mut self, reason: Reason) {
        if let Some(held) = &mut self.held {
            held.broken(reason, Instant::now());
        }
    }

    /// Takes what was read of the body before the head went on.
    pub(super) fn read_already(&mut self, behind: Behind<BrokenBody>) {
        match behind {
            Behind::Data(data) => self.rest = data,
            Behind::Trailers(trailers) => self.read_trailers = Some(trailers),
            Behind::Unknown | Behind::Nothing | Behind::Broken(_) => {}
        }
    }

    /// The upstream owes more of the answer than has come.
    pub(super) fn waits(&mut self, cx: &mut Context<'_>) -> bool {
        let incoming = self.incoming.as_mut().filter(|_| self.rest.is_empty());
        incoming.is_some_and(|incoming| Pin::new(incoming).poll_frame(cx).is_pending())
    }

    /// Something was read that is not yet handed over.
    pub(super) fn holds(&self) -> bool {
        !self.rest.is_empty() || self.read_trailers.is_some()
    }

    /// The trailers, where they were read before the head went on.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.read_trailers.as_ref()
    }

    /// Ready when neither direction has moved for the idle time.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>, tick: &Tick, moved: u64) -> Poll<()> {
        let Some(after) = self.idle_after else { return Poll::Pending };
        let idle = self.idle.get_or_insert_with(|| tick.alarm());
        if self.moved != moved {
            self.moved = moved;
            idle.set(Instant::now().checked_add(after));
        }
        idle.poll_elapsed(cx)
    }
}
