//! A caller's connection: one request after the other is read, answered by whoever serves, and its answer sent.
//!
//! One future drives it all: it waits for a head, polls the answer in the making, and sends it; the body of a request is
//! read by whoever sends it on. A connection that waits for a request holds no buffer.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::io::incoming::Incoming;
use crate::io::socket::Socket;
use crate::io::splice::Splice;
use crate::io::tick::Tick;

use super::framing::Scan;
use super::outgoing::{self, Halt, Outgoing};
use super::request::Head;
pub use super::request::{HeadLimits, LATE, Refusal};
use super::response;
pub use super::wire::Fault;
use super::wire::{Half, Wire};

/// How long, and for how many bytes, what a caller still sends is read after our last answer: to close on bytes that were not
/// read resets the connection, and the caller may lose the answer by it (RFC 9112 §9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// A caller's connection.
#[derive(Debug)]
pub struct Connection {
    wire: Rc<RefCell<Wire>>,
    limits: HeadLimits,
    /// Everything before was answered, and no head is whole.
    awaits_head: Cell<bool>,
}

impl Connection {
    /// Speaks HTTP/1 on an accepted socket.
    pub fn new(socket: Socket, limits: HeadLimits) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(socket)));
        Self { wire, limits, awaits_head: Cell::default() }
    }

    /// Takes no further request: the one that is being answered, or whose head has begun to come, is the last.
    pub fn end(&self) {
        self.wire.borrow_mut().ending = true;
    }

    /// True when a part of what should be a head is here, and nothing is being answered.
    pub fn has_part_of_head(&self) -> bool {
        self.awaits_head.get() && self.wire.borrow().has_begun_head()
    }

    /// Serves requests to the connection's end.
    ///
    /// # Errors
    /// [`Fault`]. A refusal has been answered.
    pub async fn serve<F, B, E>(
        &self,
        tick: &Tick,
        mut answer: impl FnMut(Request<Incoming>) -> F,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<Response<B>, E>>,
        B: Body<Data = Bytes> + Splice<Error = <B as Body>::Error> + Unpin,
    {
        loop {
            let mut scan = Scan::default();
            let head = poll_fn(|cx| self.wire.borrow_mut().poll_head(cx, &mut scan, &self.limits));
            self.awaits_head.set(true);
            let head = head.await;
            self.awaits_head.set(false);
            let goes_on = match head {
                Ok(None) => false,
                Ok(Some(head)) => self.exchange(head, &mut answer).await?,
                Err(Fault::Refused(refusal)) => {
                    Box::pin(self.refuse(&refusal, tick)).await;
                    return Err(refusal.into());
                }
                Err(Fault::Gone) => return Err(Fault::Gone),
            };
            if !goes_on {
                Box::pin(self.close(tick)).await;
                return Ok(());
            }
        }
    }

    /// Answers a request. True when the connection may carry another.
    async fn exchange<F, B, E>(
        &self,
        head: Head,
        answer: &mut impl FnMut(Request<Incoming>) -> F,
    ) -> Result<bool, Fault>
    where
        F: Future<Output = Result<Response<B>, E>>,
        B: Body<Data = Bytes> + Splice<Error = <B as Body>::Error> + Unpin,
    {
        let mut asked = head.asked;
        let answered = {
            let incoming = Incoming::http1(&self.wire);
            let mut answering = pin!(answer(Request::from_parts(head.parts, incoming)));
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(answered.ok()),
                Poll::Pending => self.wire.borrow_mut().poll_gone(cx).map(|()| None),
            })
            .await
        };
        let (parts, body) = answered.ok_or(Fault::Gone)?.into_parts();
        let mut text = outgoing::text();
        {
            let mut wire = self.wire.borrow_mut();
            text.extend_from_slice(wire.begin_answer());
            asked.keep_alive &= !wire.ending;
        }
        let size = (!body.is_end_stream()).then(|| body.size_hint());
        let written = response::head(&mut text, &asked, &parts, size.as_ref());
        // The record of a request ends with its body, and not before its head was sent.
        let (body, held) = if written.body { (Some(body), None) } else { (None, Some(body)) };
        let splices = written.body && self.wire.borrow().can_splice();
        let mut outgoing = Outgoing::new(text, body, written.encoding).spliced(splices);
        poll_fn(|cx| self.poll_send(cx, &mut outgoing)).await?;
        drop((held, parts));
        if written.tunnel {
            self.wire.borrow_mut().hand_over();
            return Ok(false);
        }
        let goes_on = poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            Poll::Ready(written.keep_alive && wire.end(cx) && !wire.ending)
        });
        Ok(goes_on.await)
    }

    fn poll_send<B>(
        &self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing<B>,
    ) -> Poll<Result<(), Fault>>
    where
        B: Body<Data = Bytes> + Splice<Error = <B as Body>::Error> + Unpin,
    {
        let mut socket = Half(&self.wire);
        match outgoing.poll(cx, &mut socket) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(halt)) => {
                if !matches!(halt, Halt::Broken) {
                    // What came before the failure is the caller's.
                    outgoing.push(cx, &mut socket);
                }
                Poll::Ready(Err(Fault::Gone))
            }
            Poll::Pending => self.wire.borrow_mut().poll_gone(cx).map(|()| Err(Fault::Gone)),
        }
    }

    /// Answers what nobody else can, and ends the connection.
    pub async fn refuse(&self, refusal: &Refusal, tick: &Tick) {
        let (status, reason) = (refusal.status, refusal.reason);
        let text = format!("{reason}: {}\n", refusal.detail);
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ndate: {}\r\nx-outrigger-reason: {}\r\nconnection: close\r\n\r\n{text}",
            text.len(),
            httpdate::fmt_http_date(SystemTime::now()),
            reason.word(),
        );
        // What the caller has not read of the answers before may still fill the socket.
        let mut timer = tick.timer(Some(Instant::now() + LINGER.0));
        let mut socket = Half(&self.wire);
        let writing = pin!(socket.write_all(answer.as_bytes()));
        if matches!(timer.limit(writing).await, Ok(Ok(()))) {
            self.close(tick).await;
        }
    }

    /// Ends the connection so that its last answer arrives.
    async fn close(&self, tick: &Tick) {
        if Half(&self.wire).shutdown().await.is_err() || !self.wire.borrow().may_be_sending() {
            return;
        }
        let mut alarm = tick.alarm();
        alarm.set(Some(Instant::now() + LINGER.0));
        let mut left = LINGER.1;
        poll_fn(|cx| {
            if alarm.poll_elapsed(cx).is_ready() {
                return Poll::Ready(());
            }
            while left > 0 {
                match ready!(self.wire.borrow_mut().poll_discard(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
