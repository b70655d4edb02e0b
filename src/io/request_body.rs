//! The body of a request on its way upstream: streamed, kept for another attempt as far as that is allowed, limited in
//! size and in pauses.
//!
//! One [`BodySource`] belongs to the request; each attempt reads it through a [`RequestBody`] of its own, which first
//! gets what was kept and then what arrives. Nothing is read before an attempt asks for it, so a slow upstream slows
//! the caller down, and `100 Continue` is sent when the attempt has started.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::base::units::ByteSize;

use super::body_copy::{self, CopyReader, CopyWriter};
pub use super::body_error::BodyError;
use super::incoming::Incoming;
use super::splice::Splice;
use super::tick::{Alarm, Tick};
use super::trailers;

/// What a request's body may do.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes kept for another attempt; 0 keeps nothing.
    pub replay: ByteSize,
    /// Bytes in all; `None`: unlimited.
    pub size: Option<ByteSize>,
    /// Longest pause between two pieces, from the moment that we wait for one; `None`: unlimited.
    pub pause: Option<Duration>,
    /// The upstream's side can carry trailers: HTTP/2 can, HTTP/1 where the head announces them.
    pub trailers: bool,
    /// It comes on a stream of HTTP/2. hyper reports one that was reset with CANCEL or NO_ERROR as ended, and it is not whole.
    pub stream: bool,
}

/// Whether another attempt can send the whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Nothing was read yet, or there is no body.
    Unsent,
    /// All that was read is kept.
    Kept,
    /// More was read than may be kept.
    TooLarge,
}

/// The body as it arrives, owned by the request.
#[derive(Debug)]
pub struct BodySource<B = Incoming>(Option<Rc<RefCell<Source<B>>>>);

#[derive(Debug)]
struct Source<B> {
    incoming: B,
    limits: BodyLimits,
    kept: Vec<Bytes>,
    kept_bytes: u64,
    received: u64,
    replay: Replay,
    trailers: Option<HeaderMap>,
    trailers_left_out: bool,
    ended: bool,
    failed: Option<BodyError>,
    /// The attempt that may read; older ones are superseded.
    attempt: u32,
    pause: Alarm,
    waiting: bool,
    /// Whoever waits for the next piece.
    reader: Option<Waker>,
    /// Others who get what arrives.
    copies: Vec<CopyWriter>,
}

impl<B: Body<Data = Bytes> + Unpin> BodySource<B> {
    /// Takes the body of a request.
    pub fn new(incoming: B, limits: BodyLimits, tick: &Tick) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Source {
            incoming,
            limits,
            kept: Vec::new(),
            kept_bytes: 0,
            received: 0,
            replay: Replay::Unsent,
            trailers: None,
            trailers_left_out: false,
            ended: false,
            failed: None,
            attempt: 0,
            pause: tick.alarm(),
            waiting: false,
            reader: None,
            copies: Vec::new(),
        }))))
    }

    /// The body for the next attempt; the one before can no longer read.
    pub fn attempt(&self) -> RequestBody<B> {
        let Some(source) = &self.0 else { return RequestBody::empty() };
        source.borrow_mut().attempt += 1;
        let attempt = source.borrow().attempt;
        let source = Rc::clone(source);
        RequestBody(Kind::Attempt(Reader { source, attempt, next: 0, ended: false }))
    }

    /// The body once more, for an attempt that is raced against the one that reads it now. For a body that has come whole and
    /// was kept: each of the two reads what was kept.
    pub fn again(&self) -> RequestBody<B> {
        let Some(source) = &self.0 else { return RequestBody::empty() };
        let attempt = source.borrow().attempt;
        let source = Rc::clone(source);
        RequestBody(Kind::Attempt(Reader { source, attempt, next: 0, ended: false }))
    }

    /// A copy of a body of which nothing was read yet. It gets what attempts read, and breaks where more than `behind` would
    /// wait for its reader: the original is never held up.
    pub fn copy(&self, behind: ByteSize) -> RequestBody<B> {
        let Some(source) = &self.0 else { return RequestBody::empty() };
        let mut source = source.borrow_mut();
        let length = source.incoming.size_hint().exact();
        let (writer, reader) = body_copy::copy(behind.as_usize(), length);
        source.copies.push(writer);
        RequestBody(Kind::Copy(reader))
    }

    /// Whether another attempt could send the whole body.
    pub fn replay(&self) -> Replay {
        self.0.as_ref().map_or(Replay::Unsent, |source| source.borrow().replay)
    }

    /// Keeps nothing from now on: no further attempt will follow.
    pub fn commit(&self) {
        if let Some(source) = &self.0 {
            let mut source = source.borrow_mut();
            source.limits.replay = ByteSize(0);
            if source.replay == Replay::Kept {
                source.replay = Replay::TooLarge;
            }
        }
    }

    /// Lets nobody read on: the answer is complete, and whatever is still to come of the request has no reader.
    pub fn abandon(&self) {
        if let Some(source) = &self.0 {
            let mut source = source.borrow_mut();
            source.attempt += 1;
            if let Some(reader) = source.reader.take() {
                reader.wake();
            }
        }
    }

    /// Why the body failed, if it did.
    pub fn failure(&self) -> Option<BodyError> {
        self.0.as_ref().and_then(|source| source.borrow().failed)
    }

    /// Bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |source| source.borrow().received)
    }

    /// True when trailers have come that the upstream's side could not carry.
    pub fn trailers_left_out(&self) -> bool {
        self.0.as_ref().is_some_and(|source| source.borrow().trailers_left_out)
    }

    /// True when there is no body, or its end has arrived.
    pub fn is_complete(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().ended)
    }
}

impl<B> Clone for BodySource<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// One attempt's view of the body.
#[derive(Debug)]
pub struct RequestBody<B = Incoming>(Kind<B>);

#[derive(Debug)]
enum Kind<B> {
    Empty,
    Attempt(Reader<B>),
    Copy(CopyReader),
}

#[derive(Debug)]
struct Reader<B> {
    source: Rc<RefCell<Source<B>>>,
    attempt: u32,
    /// Index of the next kept piece.
    next: usize,
    ended: bool,
}

impl<B> RequestBody<B> {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }
}

impl<B> Source<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = Some(error);
        self.copies = Vec::new();
        Poll::Ready(Some(Err(error)))
    }

    fn end(&mut self) {
        self.ended = true;
        for copy in std::mem::take(&mut self.copies) {
            copy.end(self.trailers.clone());
        }
    }

    /// The next piece that arrives.
    fn poll_arrival(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed {
            return Poll::Ready(Some(Err(error)));
        }
        let Poll::Ready(arrived) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                self.reader = Some(cx.waker().clone());
            }
            return self.poll_pause(cx);
        };
        self.waiting = false;
        let frame = match arrived {
            None if self.limits.stream && !self.incoming.is_end_stream() => {
                return self.fail(BodyError::ClientGone);
            }
            None => {
                self.end();
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.fail(BodyError::of_read(&error)),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.received += data.len() as u64;
            if self.limits.size.is_some_and(|size| self.received > size.0) {
                return self.fail(BodyError::TooLarge);
            }
            let data = data.clone();
            for copy in &self.copies {
                copy.push(data.clone());
            }
            self.keep(data);
        }
        let frame = match frame.into_trailers() {
            Ok(trailers) => return self.end_with(trailers),
            Err(frame) => frame,
        };
        if self.incoming.is_end_stream() {
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Nothing follows trailers.
    fn end_with(
        &mut self,
        mut trailers: HeaderMap,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.limits.trailers {
            self.trailers_left_out = true;
            self.end();
            return Poll::Ready(None);
        }
        trailers::strip(&mut trailers);
        self.trailers = Some(trailers.clone());
        self.end();
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn keep(&mut self, data: Bytes) {
        if self.replay == Replay::TooLarge {
            return;
        }
        self.kept_bytes += data.len() as u64;
        if self.kept_bytes > self.limits.replay.0 {
            self.replay = Replay::TooLarge;
            self.kept = Vec::new();
        } else {
            self.replay = Replay::Kept;
            self.kept.push(data);
        }
    }

    fn poll_pause(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(pause) = self.limits.pause else { return Poll::Pending };
        if !self.waiting {
            self.waiting = true;
            self.pause.set(Some(Instant::now() + pause));
        }
        ready!(self.pause.poll_elapsed(cx));
        self.fail(BodyError::Paused)
    }
}

impl<B> Splice for RequestBody<B> {
    type Error = BodyError;
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let reader = match &mut self.get_mut().0 {
            Kind::Empty => return Poll::Ready(None),
            Kind::Copy(copy) => return copy.poll_frame(cx),
            Kind::Attempt(reader) => reader,
        };
        let mut source = reader.source.borrow_mut();
        if reader.attempt != source.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = source.kept.get(reader.next) {
            reader.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if reader.ended || source.ended {
            // The trailers of a body that was read whole come once more for each attempt.
            let trailers = if reader.ended { None } else { source.trailers.clone() };
            reader.ended = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let arrived = ready!(source.poll_arrival(cx));
        reader.next = source.kept.len();
        reader.ended = source.ended;
        Poll::Ready(arrived)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Copy(copy) => copy.is_end_stream(),
            Kind::Attempt(reader) => {
                let source = reader.source.borrow();
                source.ended
                    && reader.next >= source.kept.len()
                    && (reader.ended || source.trailers.is_none())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let reader = match &self.0 {
            Kind::Empty => return SizeHint::with_exact(0),
            Kind::Copy(copy) => return copy.size_hint(),
            Kind::Attempt(reader) => reader,
        };
        let source = reader.source.borrow();
        let rest = source.incoming.size_hint();
        let kept: usize =
            source.kept[reader.next.min(source.kept.len())..].iter().map(Bytes::len).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Reason;
    use http_body_util::{BodyExt, StreamBody};
    use std::collections::VecDeque;
    use std::io;

    type Pieces = StreamBody<PieceStream>;

    #[derive(Debug)]
    struct PieceStream(VecDeque<Bytes>);

    impl futures_core::Stream for PieceStream {
        type Item = Result<Frame<Bytes>, io::Error>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if self.0.front().is_some_and(|piece| piece == "wait") {
                return Poll::Pending;
            }
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn source(pieces: &[&'static str], limits: BodyLimits) -> BodySource<Pieces> {
        let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
        BodySource::new(StreamBody::new(PieceStream(pieces)), limits, &Tick::new(Instant::now()))
    }

    fn limits(replay: u64) -> BodyLimits {
        BodyLimits {
            replay: ByteSize(replay),
            size: None,
            pause: None,
            trailers: true,
            stream: false,
        }
    }

    async fn read(body: RequestBody<Pieces>) -> Result<Bytes, BodyError> {
        body.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn each_attempt_reads_the_whole_body() {
        let source = source(&["one ", "two ", "three"], limits(100));
        assert_eq!(source.replay(), Replay::Unsent);
        let mut first = source.attempt();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
        assert_eq!(source.replay(), Replay::Kept);
        let second = source.attempt();
        assert_eq!(first.frame().await.unwrap().unwrap_err(), BodyError::Superseded);
        assert_eq!(read(second).await.unwrap(), "one two three");
        assert_eq!(read(source.attempt()).await.unwrap(), "one two three");
        assert_eq!(source.received(), 13);
        assert!(source.is_complete());
    }

    #[tokio::test]
    async fn what_is_too_large_to_keep_is_streamed_once() {
        let source = source(&["four", "four"], limits(7));
        assert_eq!(read(source.attempt()).await.unwrap(), "fourfour");
        assert_eq!(source.replay(), Replay::TooLarge);
    }

    #[tokio::test]
    async fn more_than_the_limit_fails_with_its_reason() {
        let source = source(&["four", "four"], BodyLimits { size: Some(ByteSize(7)), ..limits(0) });
        assert_eq!(read(source.attempt()).await.unwrap_err(), BodyError::TooLarge);
        assert_eq!(source.failure().unwrap().reason(), Reason::TooLarge);
    }

    #[test]
    fn malformed_is_told_from_broken_off() {
        let read = |kind: io::ErrorKind| BodyError::of_read(&io::Error::from(kind));
        assert_eq!(read(io::ErrorKind::InvalidInput), BodyError::Malformed);
        assert_eq!(read(io::ErrorKind::InvalidData), BodyError::Malformed);
        assert_eq!(read(io::ErrorKind::UnexpectedEof), BodyError::ClientGone);
        assert_eq!(BodyError::Malformed.reason(), Reason::DownstreamProtocol);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_longer_than_allowed_fails() {
        let tick = Tick::new(Instant::now());
        let pause = Some(Duration::from_secs(2));
        let stream = StreamBody::new(PieceStream([Bytes::from("wait")].into()));
        let source = BodySource::new(stream, BodyLimits { pause, ..limits(0) }, &tick);
        let start = Instant::now();
        tokio::select! {
            () = tick.run(|_| {}) => {}
            read = read(source.attempt()) => assert_eq!(read.unwrap_err(), BodyError::Paused),
        }
        assert!(start.elapsed() >= Duration::from_secs(2));
        assert!(start.elapsed() <= Duration::from_millis(2_101));
    }

    #[tokio::test]
    async fn an_abandoned_body_wakes_its_reader_and_ends_it() {
        let source = source(&["wait"], limits(0));
        let mut body = source.attempt();
        let (read, ()) = tokio::join!(body.frame(), async {
            tokio::task::yield_now().await;
            source.abandon();
        });
        assert_eq!(read.unwrap().unwrap_err(), BodyError::Superseded);
    }

    #[tokio::test]
    async fn a_committed_body_keeps_nothing() {
        let source = source(&["one", "two"], limits(100));
        let mut body = source.attempt();
        body.frame().await.unwrap().unwrap();
        source.commit();
        assert_eq!(source.replay(), Replay::TooLarge);
        assert_eq!(read(body).await.unwrap(), "two");
    }
}
