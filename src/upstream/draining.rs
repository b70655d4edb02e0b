//! Endpoints that were removed and still have requests.
//!
//! A removed endpoint is marked (`Endpoint::is_retired`) and in no set: nothing picks it. Requests in flight finish where they are; a
//! worker closes a connection to it within a second of its last request ([`super::LocalUpstreams::sweep`]), and those that rest at
//! once. This list is for people: it is what `draining` counts. It holds no more endpoints than there are requests in
//! flight, which the upstream's limits bound.

use std::sync::{Arc, Mutex, PoisonError};

use crate::balance::endpoint::Endpoint;
use crate::balance::endpoint_set::EndpointSet;

/// The endpoints that an upstream waits for. Written and read by the control thread.
#[derive(Debug, Default)]
pub(super) struct Draining(Mutex<Vec<Arc<Endpoint>>>);

impl Draining {
    /// Takes those of `before` in that were marked as removed.
    pub(super) fn add(&self, before: &EndpointSet) {
        let removed = before.members().iter().map(|member| &member.endpoint);
        let removed = removed.filter(|endpoint| endpoint.is_retired()).cloned();
        self.with(|endpoints| endpoints.extend(removed));
    }

    /// Those that still have requests; the others are forgotten.
    pub(super) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.with(|endpoints| {
            endpoints.retain(|endpoint| endpoint.in_flight() > 0);
            endpoints.clone()
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Arc<Endpoint>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::Instant;

    use super::*;
    use crate::base::endpoint::EndpointSpec;

    #[test]
    fn a_removed_endpoint_drains_until_its_last_request_has_ended() {
        let now = Instant::now();
        let spec = |port| EndpointSpec::at(SocketAddr::from(([10, 0, 0, 1], port)));
        let before = EndpointSet::build(&[spec(1), spec(2), spec(3)], None, now);
        let busy = before.members()[0].endpoint.start(now);
        let kept = before.members()[2].endpoint.start(now);
        let _after = EndpointSet::build(&[spec(3)], Some(&before), now);
        let draining = Draining::default();
        draining.add(&before);
        let left: Vec<u64> = draining.endpoints().iter().map(|endpoint| endpoint.id).collect();
        assert_eq!(left, [before.members()[0].endpoint.id]);
        drop(busy);
        assert!(draining.endpoints().is_empty());
        drop(kept);
    }
}
