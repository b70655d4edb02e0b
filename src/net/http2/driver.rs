//! The task that reads and writes for all streams of a connection.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::io::socket::Activity;

use super::Shared;

/// How often the connection is looked at, and how long a PING may stay without an answer.
const LOOK: Duration = Duration::from_secs(10);

/// Looks in a row that find nothing received while streams are open, before a PING is sent: a vanished peer costs 40 s to
/// 50 s.
const SILENT_LOOKS: u32 = 3;

/// Drives a connection until it ends, and ends it where the peer has vanished. Dropped, it fails all streams.
pub(super) struct Driver<S> {
    connection: Connection<S, Bytes>,
    shared: Rc<Shared>,
    /// `None`: no pings, as somebody else took them.
    pings: Option<PingPong>,
    activity: Arc<Activity>,
    /// What `activity` said at the last look.
    heard: u64,
    /// Looks in a row that found nothing.
    silent: u32,
    /// A PING was sent, and is not answered.
    asked: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        mut connection: Connection<S, Bytes>,
        shared: Rc<Shared>,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            pings: connection.ping_pong(),
            connection,
            shared,
            heard: activity.bytes_read(),
            activity,
            silent: 0,
            asked: false,
            alarm: Box::pin(tokio::time::sleep(LOOK)),
        }
    }

    /// Ready where a PING was not answered.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            let heard = self.activity.bytes_read();
            let silent = heard == self.heard && self.shared.streams.get() > 0;
            self.heard = heard;
            self.silent = if silent { self.silent + 1 } else { 0 };
            if self.silent >= SILENT_LOOKS {
                self.silent = 0;
                // A connection that has ended says so when it is polled.
                self.asked = pings.send_ping(Ping::opaque()).is_ok();
            }
            self.alarm.as_mut().reset(Instant::now() + LOOK);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.note_driver(cx.waker());
        // What went wrong is told to the streams.
        let ended = Pin::new(&mut this.connection).poll(cx).is_ready();
        this.shared.max_streams.set(this.connection.max_concurrent_send_streams());
        if ended || this.poll_silence(cx).is_ready() {
            this.shared.ended.set(true);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
