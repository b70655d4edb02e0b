//! Endpoints that redirected connections were going to: `discover: original://`.
//!
//! Nobody lists them; each begins with the first connection that was going there. A request asks for one with a load and a look
//! into a map that nobody changes; a new one is put in by replacing the map, which a worker does without waiting for another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::base::endpoint::EndpointSpec;

/// Destinations that are remembered. An application that talks to more of them at a time is a crawler: those beyond work, and
/// share no connection and no history. Replacing a map of this size takes some 50 µs.
const MOST: usize = 1024;

/// The destinations of one upstream, over all workers.
#[derive(Debug, Default)]
pub struct Originals(ArcSwap<HashMap<SocketAddr, Arc<Endpoint>>>);

impl Originals {
    /// The endpoint at `to`.
    pub fn endpoint(&self, to: SocketAddr, now: Instant) -> Arc<Endpoint> {
        if let Some(known) = self.0.load().get(&to) {
            return Arc::clone(known);
        }
        let made = Arc::new(Endpoint::new(&EndpointSpec::at(to), now));
        let before = self.0.rcu(|map| {
            let mut map = HashMap::clone(map);
            if map.len() >= MOST {
                // The connections of what is forgotten are closed as they come to rest.
                map.retain(|_, endpoint| endpoint.in_flight() > 0);
            }
            if map.len() < MOST {
                map.entry(to).or_insert_with(|| Arc::clone(&made));
            }
            map
        });
        let after = self.0.load();
        let forgotten = before.iter().filter(|(address, _)| !after.contains_key(address));
        forgotten.for_each(|(_, endpoint)| endpoint.retire());
        let kept = after.get(&to).cloned();
        if kept.is_none() {
            made.retire();
        }
        kept.unwrap_or(made)
    }

    /// Those that are remembered, by address.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut endpoints: Vec<_> = self.0.load().values().cloned().collect();
        endpoints.sort_by(|a, b| a.address.cmp(&b.address));
        endpoints
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(number: usize) -> SocketAddr {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 80))
    }

    #[test]
    fn a_destination_is_one_endpoint_and_there_are_not_more_than_are_remembered() {
        let (originals, now) = (Originals::default(), Instant::now());
        let first = originals.endpoint(to(0), now);
        assert_eq!(originals.endpoint(to(0), now).id, first.id);
        let busy = first.start(now);
        for number in 1..MOST {
            originals.endpoint(to(number), now);
        }
        assert_eq!(originals.count(), MOST);
        let idle = originals.endpoint(to(1), now);
        let next = originals.endpoint(to(MOST), now);
        assert_eq!(originals.count(), 2, "the busy one and the new one");
        assert_eq!(originals.endpoint(to(0), now).id, first.id);
        assert_eq!(originals.endpoint(to(MOST), now).id, next.id);
        assert!(idle.is_retired() && !first.is_retired() && !next.is_retired());
        drop(busy);
    }

    #[test]
    fn where_all_are_busy_one_more_works_and_is_not_remembered() {
        let (originals, now) = (Originals::default(), Instant::now());
        let busy: Vec<_> =
            (0..MOST).map(|number| originals.endpoint(to(number), now).start(now)).collect();
        let extra = originals.endpoint(to(MOST), now);
        assert!(extra.is_retired());
        assert_eq!(originals.count(), MOST);
        drop(busy);
    }
}
