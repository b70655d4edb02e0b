//! How much of an upstream may be used at once. (Envoy calls this circuit breaking.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts connections, requests in flight and waiting requests of one upstream, over all workers, and caps each.
///
/// Without a cap a slow upstream collects every request there is until memory or file descriptors end; with it the excess
/// fails at once and says so. A count is raised by compare-and-swap and never beyond its maximum, not even for a moment
/// (adding first and taking back would refuse a third caller meanwhile). Every count is held by a [`Permit`]:
/// whatever ends a request, its drop gives the place back. The caller counts overflows.
///
/// All orderings are `Relaxed`: the counts guard no other memory, and each is exact by itself.
#[derive(Debug)]
pub struct Limits {
    resources: [Count; 3],
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections, being made or made.
    Connections,
    /// Requests that were given an endpoint and have not ended.
    InFlight,
    /// Requests that wait for a place.
    Pending,
}

/// The most of each; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSettings {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Requests at once.
    pub in_flight: Option<u32>,
    /// Requests that wait; 0: none may.
    pub pending: Option<u32>,
}

#[derive(Debug, Default)]
struct Count {
    now: AtomicU32,
    /// `u32::MAX` is unlimited.
    max: AtomicU32,
}

impl Limits {
    /// Nothing used yet.
    pub fn new(settings: LimitSettings) -> Arc<Self> {
        let limits = Self { resources: [Count::default(), Count::default(), Count::default()] };
        limits.set(settings);
        Arc::new(limits)
    }

    /// Changes the maxima of a live upstream. What is above a new maximum stays until it ends by itself.
    pub fn set(&self, settings: LimitSettings) {
        let maxima = [settings.connections, settings.in_flight, settings.pending];
        for (resource, max) in self.resources.iter().zip(maxima) {
            resource.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Changes the maximum of requests in flight alone: an adaptive limit.
    pub fn set_in_flight(&self, max: u32) {
        self.count(Resource::InFlight).max.store(max, Ordering::Relaxed);
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.current(Resource::InFlight)
    }

    /// A place for a connection, or `None` where there is none left.
    pub fn try_connection(self: &Arc<Self>) -> Option<Permit> {
        self.try_acquire(Resource::Connections)
    }

    /// A place for a request, or `None` where there is none left.
    pub fn try_in_flight(self: &Arc<Self>) -> Option<Permit> {
        self.try_acquire(Resource::InFlight)
    }

    /// A place to wait, or `None` where there is none left.
    pub fn try_pending(self: &Arc<Self>) -> Option<Permit> {
        self.try_acquire(Resource::Pending)
    }

    /// A place of `resource`, or `None` where there is none left.
    pub fn try_acquire(self: &Arc<Self>, resource: Resource) -> Option<Permit> {
        let count = self.count(resource);
        let max = count.max.load(Ordering::Relaxed);
        let raise = |now| if now < max { Some(now + 1) } else { None };
        count.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise).ok()?;
        Some(Permit { limits: Arc::clone(self), resource })
    }

    /// How many places are taken.
    pub fn current(&self, resource: Resource) -> u32 {
        self.count(resource).now.load(Ordering::Relaxed)
    }

    /// How many places there are; `None` is unlimited.
    pub fn maximum(&self, resource: Resource) -> Option<u32> {
        let max = self.count(resource).max.load(Ordering::Relaxed);
        (max != u32::MAX).then_some(max)
    }

    fn count(&self, resource: Resource) -> &Count {
        &self.resources[resource as usize]
    }
}

/// One place taken; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives the place back at once"]
pub struct Permit {
    limits: Arc<Limits>,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.count(self.resource).now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
