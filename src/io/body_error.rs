//! Why the body of a request ended before its end.

use std::io;

use crate::base::error::Reason;

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The caller's connection or stream broke.
    #[error("the caller went away in the middle of the body")]
    ClientGone,
    /// Its chunks or its length are not what the protocol allows.
    #[error("the body is malformed")]
    Malformed,
    /// More than the listener's `limits.body`.
    #[error("the body is larger than the listener allows")]
    TooLarge,
    /// A pause longer than the listener's `limits.body_timeout`.
    #[error("the body did not go on in time")]
    Paused,
    /// A newer attempt has taken the body over.
    #[error("another attempt has taken the body over")]
    Superseded,
    /// A copy's reader was too slow, or its original broke off.
    #[error("the copy of the body is not whole")]
    NotCopied,
}

impl BodyError {
    /// What a failed read means: bytes that are not a body, or none at all.
    pub(super) fn of_read(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<Self>() {
                return *error;
            }
            if let Some(error) = error.downcast_ref::<io::Error>()
                && matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
            {
                return Self::Malformed;
            }
            // HTTP/2: the length does not hold, for example. The stream is reset already.
            if let Some(error) = error.downcast_ref::<h2::Error>()
                && error.is_library()
                && error.reason() == Some(h2::Reason::PROTOCOL_ERROR)
            {
                return Self::Malformed;
            }
            cause = error.source();
        }
        Self::ClientGone
    }

    /// The reason that the request fails with.
    pub fn reason(self) -> Reason {
        match self {
            Self::ClientGone | Self::Superseded | Self::NotCopied => Reason::ClientGone,
            Self::Malformed => Reason::DownstreamProtocol,
            Self::TooLarge => Reason::TooLarge,
            Self::Paused => Reason::RequestTimeout,
        }
    }
}
