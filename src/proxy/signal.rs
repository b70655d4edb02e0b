//! What an attempt without a response says of its endpoint.

use crate::base::error::Reason;
use crate::policy::limits::{Limits, Resource};
use crate::policy::outlier::Signal;
use crate::policy::retry::AttemptEnd;

use super::attempt::Failed;

/// How far a failed attempt had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It had no connection, and was told why.
    Refused,
    /// It had no connection when its time ran out.
    Connecting,
    /// It was handed to a connection that was made for it.
    Sent,
    /// It was handed to one that stood already.
    Kept,
}

impl Stage {
    /// Of an attempt whose time ran out, or not; that was handed to a connection, or not; to one that stood already, or not.
    pub(super) fn of(timed_out: bool, sent: bool, kept: bool) -> Self {
        match (sent, timed_out) {
            (true, _) if kept => Self::Kept,
            (true, _) => Self::Sent,
            (false, true) => Self::Connecting,
            (false, false) => Self::Refused,
        }
    }
}

impl Failed {
    /// What it says of the endpoint; `None`: nothing.
    pub(super) fn signal(&self, stage: Stage, limits: &Limits) -> Option<Signal> {
        let reason = self.error.reason;
        match stage {
            // Servers close connections that nobody uses: no fault of theirs.
            Stage::Sent | Stage::Kept if self.end == AttemptEnd::KeepAliveRace => None,
            Stage::Kept if self.end == AttemptEnd::NotSent => None,
            Stage::Sent | Stage::Kept => Signal::of_reason(reason, false),
            // Without a place of our own it may have waited for that all the time.
            Stage::Connecting if is_full(limits) => None,
            Stage::Connecting => Signal::of_reason(reason, true),
            // Else it was we who had no place for it.
            Stage::Refused => (reason == Reason::ConnectFailed).then_some(Signal::LocalOrigin),
        }
    }
}

fn is_full(limits: &Limits) -> bool {
    let resource = Resource::Connections;
    limits.maximum(resource).is_some_and(|maximum| limits.current(resource) >= maximum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ProxyError;
    use crate::policy::limits::LimitSettings;

    #[test]
    fn what_may_have_waited_for_our_own_place_says_nothing() {
        let limits =
            Limits::new(LimitSettings { connections: Some(1), ..LimitSettings::default() });
        let failed = |end, reason| Failed::new(end, ProxyError::new(reason, ""));
        let timeout = failed(AttemptEnd::Final, Reason::Timeout);
        let cut = failed(AttemptEnd::NotSent, Reason::ConnectFailed);
        assert_eq!(timeout.signal(Stage::Connecting, &limits), Some(Signal::LocalOrigin));
        let _the_only = limits.try_connection().unwrap();
        assert_eq!(timeout.signal(Stage::Connecting, &limits), None);
        assert_eq!(timeout.signal(Stage::Refused, &limits), None, "in our own queue");
        assert_eq!(cut.signal(Stage::Connecting, &limits), None);
        assert_eq!(cut.signal(Stage::Refused, &limits), Some(Signal::LocalOrigin));
        assert_eq!(timeout.signal(Stage::Sent, &limits), Some(Signal::Failure));
        let race = failed(AttemptEnd::KeepAliveRace, Reason::UpstreamClosed);
        assert_eq!(race.signal(Stage::Sent, &limits), None);
        assert_eq!(race.signal(Stage::Kept, &limits), None);
        assert_eq!(cut.signal(Stage::Kept, &limits), None, "it was closed while it rested");
        assert_eq!(cut.signal(Stage::Sent, &limits), Some(Signal::LocalOrigin));
        assert_eq!(timeout.signal(Stage::Kept, &limits), Some(Signal::Failure));
        let gone = failed(AttemptEnd::Final, Reason::ClientGone);
        assert_eq!(gone.signal(Stage::Sent, &limits), None);
    }
}
