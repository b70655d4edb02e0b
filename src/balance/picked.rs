//! An endpoint that was chosen, and the attempt that is made there.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::{Endpoint, EndpointGuard};

/// What a pick has chosen. [`Picked::start`] begins the attempt.
///
/// Where the endpoint is ejected, this is its one probe: whoever drops it, or the attempt's guard, before the attempt was
/// judged gives the permit back.
#[derive(Debug)]
#[must_use = "a chosen endpoint is there to be asked"]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    probe: Option<ProbePermit>,
    panic: bool,
}

impl Picked {
    pub(super) fn new(endpoint: &Arc<Endpoint>, probe: Option<ProbePermit>, panic: bool) -> Self {
        Self { endpoint: Arc::clone(endpoint), probe, panic }
    }

    /// An endpoint that needed no choice.
    pub fn only(endpoint: &Arc<Endpoint>) -> Self {
        Self::new(endpoint, None, false)
    }

    /// Where the attempt goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// True where the endpoint is ejected, and this request tries whether it works again.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// True where checks say that the endpoint does not work, and so few others do that it is used nevertheless.
    pub fn in_panic(&self) -> bool {
        self.panic
    }

    /// Counts an attempt that starts now; it is in flight until the guard ends.
    pub fn start(&mut self, now: Instant) -> EndpointGuard {
        EndpointGuard::of(&self.endpoint, self.probe.take(), now)
    }
}

/// The one permit to ask an ejected endpoint. Its drop gives it back, unless the probe was settled.
#[derive(Debug)]
pub(super) struct ProbePermit {
    endpoint: Arc<Endpoint>,
    epoch: u16,
}

impl ProbePermit {
    pub(super) fn take(endpoint: &Arc<Endpoint>, now: Instant) -> Option<Self> {
        let epoch = endpoint.standing.try_probe(now)?;
        Some(Self { endpoint: Arc::clone(endpoint), epoch })
    }

    /// Which ejection it probes.
    pub(super) fn epoch(&self) -> u16 {
        self.epoch
    }
}

impl Drop for ProbePermit {
    fn drop(&mut self) {
        self.endpoint.standing.give_probe_back(self.epoch);
    }
}
