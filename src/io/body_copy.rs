//! A copy of a request's body that somebody else reads, at his own pace and never at the cost of the original's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::request_body::BodyError;

/// The end that the original writes to. Its drop before the body's end breaks the copy.
#[derive(Debug)]
pub(super) struct CopyWriter(Rc<RefCell<Shared>>);

/// The copy.
#[derive(Debug)]
pub(super) struct CopyReader(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    /// Pieces that wait for the reader: the original's own bytes, counted, not copied.
    waiting: VecDeque<Bytes>,
    /// Bytes that wait; invariant: at most `most`.
    bytes: usize,
    most: usize,
    /// Bytes that the reader has still to get, where the original's length is known.
    left: Option<u64>,
    end: End,
    reader: Option<Waker>,
}

#[derive(Debug)]
enum End {
    /// More may come.
    Open,
    /// All has come.
    Whole(Option<HeaderMap>),
    /// No more will come, and something is missing.
    Broken,
}

/// A copy in which at most `most` bytes wait. `left`: the body's length, where it is known.
pub(super) fn copy(most: usize, left: Option<u64>) -> (CopyWriter, CopyReader) {
    let shared = Rc::new(RefCell::new(Shared {
        waiting: VecDeque::new(),
        bytes: 0,
        most,
        left,
        end: End::Open,
        reader: None,
    }));
    (CopyWriter(Rc::clone(&shared)), CopyReader(shared))
}

impl Shared {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn breaks(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        self.end = End::Broken;
        self.wake();
    }
}

impl CopyWriter {
    /// Adds a piece; breaks the copy where its reader is that far behind, rather than hold anything up.
    pub(super) fn push(&self, piece: Bytes) {
        let mut shared = self.0.borrow_mut();
        if matches!(shared.end, End::Broken) || piece.is_empty() {
            return;
        }
        if piece.len() > shared.most - shared.bytes {
            shared.breaks();
            return;
        }
        shared.bytes += piece.len();
        shared.waiting.push_back(piece);
        shared.wake();
    }

    /// The body is whole.
    pub(super) fn end(&self, trailers: Option<HeaderMap>) {
        let mut shared = self.0.borrow_mut();
        if matches!(shared.end, End::Open) {
            shared.end = End::Whole(trailers);
            shared.wake();
        }
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        if matches!(shared.end, End::Open) {
            shared.breaks();
        }
    }
}

impl CopyReader {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(piece) = shared.waiting.pop_front() {
            shared.bytes -= piece.len();
            let read = piece.len() as u64;
            shared.left = shared.left.map(|left| left.saturating_sub(read));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut shared.end {
            End::Open => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Whole(trailers) => {
                Poll::Ready(trailers.take().map(|last| Ok(Frame::trailers(last))))
            }
            End::Broken => Poll::Ready(Some(Err(BodyError::NotCopied))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.waiting.is_empty() && matches!(shared.end, End::Whole(None))
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = self.0.borrow();
        match shared.left {
            Some(left) => SizeHint::with_exact(left),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(shared.bytes as u64);
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut CopyReader) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        reader.poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn data(frame: Poll<Option<Result<Frame<Bytes>, BodyError>>>) -> Bytes {
        let Poll::Ready(Some(Ok(frame))) = frame else { panic!("no data: {frame:?}") };
        frame.into_data().unwrap()
    }

    #[test]
    fn what_is_written_is_read_in_order_and_to_the_end() {
        let (writer, mut reader) = copy(8, Some(6));
        assert!(read(&mut reader).is_pending());
        writer.push(Bytes::from_static(b"one"));
        assert_eq!(reader.size_hint().exact(), Some(6));
        assert_eq!(data(read(&mut reader)), "one");
        writer.push(Bytes::from_static(b"two"));
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        writer.end(Some(trailers.clone()));
        drop(writer);
        assert_eq!(data(read(&mut reader)), "two");
        assert_eq!(reader.size_hint().exact(), Some(0));
        let Poll::Ready(Some(Ok(last))) = read(&mut reader) else { panic!("no trailers") };
        assert_eq!(last.into_trailers().unwrap(), trailers);
        assert!(matches!(read(&mut reader), Poll::Ready(None)) && reader.is_end_stream());
    }

    #[test]
    fn a_reader_that_falls_too_far_behind_gets_no_more() {
        let (writer, mut reader) = copy(8, None);
        writer.push(Bytes::from_static(b"12345678"));
        assert_eq!(data(read(&mut reader)), "12345678");
        writer.push(Bytes::from_static(b"1234567"));
        writer.push(Bytes::from_static(b"89"));
        assert_eq!(reader.0.borrow().bytes, 0, "nothing is kept for nobody");
        writer.push(Bytes::from_static(b"more"));
        writer.end(None);
        assert!(matches!(read(&mut reader), Poll::Ready(Some(Err(BodyError::NotCopied)))));
    }

    #[test]
    fn an_original_that_breaks_off_breaks_the_copy() {
        let (writer, mut reader) = copy(8, None);
        writer.push(Bytes::from_static(b"half"));
        drop(writer);
        assert!(matches!(read(&mut reader), Poll::Ready(Some(Err(BodyError::NotCopied)))));
        assert!(!reader.is_end_stream());
    }
}
