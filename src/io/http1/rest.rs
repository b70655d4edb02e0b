//! What is still to come of a body.

use bytes::Bytes;
use http_body::SizeHint;

use super::chunked::{Chunked, Step};
use super::framing::{Framing, Malformed};

/// Bytes still to come from which on reads are large.
const LARGE_FROM: u64 = 64 * 1024;

/// What is still to come of a body.
#[derive(Debug, Default)]
pub enum Rest {
    /// Its end has come.
    #[default]
    Nothing,
    /// So many bytes, not 0.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// What comes before the connection's end.
    UntilClose,
}

impl From<Framing> for Rest {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Nothing,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Rest {
    /// True when the end has come.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Takes what comes next off the front of `unread`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn take(&mut self, unread: &mut Bytes) -> Result<Step, Malformed> {
        match self {
            Self::Nothing => Ok(Step::End(None)),
            _ if unread.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Data(std::mem::take(unread))),
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(unread.len(), |left| left.min(unread.len()));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Nothing;
                }
                Ok(Step::Data(unread.split_to(taken)))
            }
            Self::Chunked(chunks) => {
                let step = chunks.next(unread)?;
                let ended = match &step {
                    Step::Data(_) => chunks.ends_with(unread),
                    Step::End(_) => true,
                    Step::More => false,
                };
                if ended {
                    *self = Self::Nothing;
                }
                Ok(step)
            }
        }
    }

    /// Much is still to come.
    pub fn is_large(&self) -> bool {
        matches!(self, Self::Length(left) if *left >= LARGE_FROM)
    }

    /// How much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}
