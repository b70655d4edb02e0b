//! A body in chunks, taken apart (RFC 9112 §7.1). Pure: fed with what was read, in any pieces.
//!
//! Extensions are skipped and not passed on. Every line ends in CRLF: a reader that takes a lone LF for the end of a line
//! sees other chunks than one that does not.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::framing::{MAX_FIELDS, Malformed};

/// Bytes of extensions in a body: nobody uses them, but to make work.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of a chunk.
    Data(Bytes),
    /// Nothing before more is read.
    More,
    /// The end, with its trailers.
    End(Option<HeaderMap>),
}

/// How far a body has come.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// The chunk's size as far as it was read; then what is left of it.
    size: u64,
    extensions: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A size begins here: at least one digit.
    #[default]
    Start,
    Digits,
    /// Spaces between the size and what follows it.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Behind the last chunk: a trailer, or the end.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunked {
    /// Takes what comes next off the front of `unread`. Not to be called behind the end.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn next(&mut self, unread: &mut Bytes) -> Result<Step, Malformed> {
        let mut used = 0;
        while let Some(&byte) = unread.get(used) {
            if self.state == State::Data {
                unread.advance(used);
                return Ok(self.data(unread));
            }
            used += 1;
            self.state = self.step(byte)?;
            if self.state == State::End {
                unread.advance(used);
                return self.end();
            }
        }
        unread.advance(used);
        Ok(Step::More)
    }

    /// Takes the end off the front of `unread`, if all of it is there and nothing but the end: so that it is known with the
    /// last piece of data.
    pub fn ends_with(&mut self, unread: &mut Bytes) -> bool {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let ends = self.state == State::DataCr && unread.starts_with(END);
        if ends {
            unread.advance(END.len());
            self.state = State::End;
        }
        ends
    }

    fn data(&mut self, unread: &mut Bytes) -> Step {
        let taken = usize::try_from(self.size).map_or(unread.len(), |size| size.min(unread.len()));
        self.size -= taken as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
        Step::Data(unread.split_to(taken))
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Start | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?;
                State::Digits
            }
            (State::Digits | State::Space, b' ' | b'\t') => State::Space,
            (State::Digits | State::Space, b';') => State::Extension,
            (State::Digits | State::Space | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, byte) if byte != b'\n' => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Malformed("too many chunk extensions"));
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.size == 0 => State::Line,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Line, b'\r') => State::EndLf,
            (State::Line | State::Trailer, byte) if byte != b'\n' => {
                if self.trailers.len() >= MAX_TRAILERS {
                    return Err(Malformed("the trailers are too large"));
                }
                self.trailers.push(byte);
                if byte == b'\r' { State::TrailerLf } else { State::Trailer }
            }
            (State::TrailerLf, b'\n') => {
                self.trailers.push(byte);
                State::Line
            }
            (State::EndLf, b'\n') => State::End,
            (State::Start | State::Digits | State::Space | State::Extension, _) => {
                return Err(Malformed("a chunk's size is not one"));
            }
            _ => return Err(Malformed("a chunk does not end as it must")),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<(), Malformed> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => byte - b'A' + 10,
        };
        let size = self.size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
        self.size = size.ok_or(Malformed("a chunk's size does not fit"))?;
        Ok(())
    }

    fn end(&mut self) -> Result<Step, Malformed> {
        if self.trailers.is_empty() {
            return Ok(Step::End(None));
        }
        let mut lines = std::mem::take(&mut self.trailers);
        lines.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let Ok(httparse::Status::Complete((_, fields))) =
            httparse::parse_headers(&lines, &mut fields)
        else {
            return Err(Malformed("the trailers are not fields"));
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Malformed("the trailers are not fields"));
            };
            trailers.append(name, value);
        }
        Ok(Step::End(Some(trailers)))
    }
}

#[cfg(test)]
mod tests;
