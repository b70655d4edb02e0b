//! The SRV records of a name (RFC 2782), and the addresses of the hosts that they name.
//!
//! Port, weight and priority come from the SRV record, the addresses from A and AAAA of its target; each has a TTL of its own
//! and is asked again when that is up. `SrvState` decides, the task in this file does what it says.

mod state;

use std::sync::Arc;

use hickory_resolver::proto::rr::Name;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::resolver::{self, Resolver, ResolverError};
use super::state::{Answer, TtlRange};
use crate::base::rng::Rng;
use crate::discovery::publisher::Publisher;

use state::SrvState;
pub(super) use state::{SrvAnswer, SrvRecord};

/// Targets that are asked for at once.
const AT_ONCE: usize = 16;

/// `discover: dns+srv://_service._proto.name`.
#[derive(Debug, Clone)]
pub struct Srv {
    name: Name,
    ttl: TtlRange,
    resolver: Arc<Resolver>,
    source: Arc<str>,
}

impl Srv {
    /// The endpoints that the SRV records of `name` name. The search domains of `resolver` apply unless it ends in a dot.
    ///
    /// # Errors
    /// `name` is no name that DNS could have: too long, or an empty label.
    pub fn new(name: &str, ttl: TtlRange, resolver: Arc<Resolver>) -> Result<Self, ResolverError> {
        let source = format!("dns+srv://{name}").into();
        Ok(Self { name: resolver::parse_name(name)?, ttl, resolver, source })
    }

    pub(in crate::discovery) fn source(&self) -> Arc<str> {
        self.source.clone()
    }

    /// Asks, publishes, waits; ends only by being aborted.
    pub(in crate::discovery) async fn run(self, publisher: Publisher, mut rng: Rng) {
        let mut state = SrvState::new(self.ttl, Instant::now());
        let mut settled = None;
        loop {
            if state.is_due(Instant::now()) {
                let (answer, name) = self.resolver.lookup_srv(&self.name, settled.as_ref()).await;
                state.on_records(answer, Instant::now(), &mut rng);
                settled = name.or(settled);
            }
            // A set is whole: a target that is new is asked for before anything is published.
            for targets in state.due_targets(Instant::now()).chunks(AT_ONCE) {
                for (target, answer) in self.addresses(targets).await {
                    state.on_target(&target, answer, Instant::now(), &mut rng);
                }
            }
            let now = Instant::now();
            publisher.take(state.verdict(now), now);
            settled = settled.filter(|_| state.holds_endpoints());
            sleep_until(state.next_at()).await;
        }
    }

    async fn addresses(&self, targets: &[Name]) -> Vec<(Name, Answer)> {
        let mut asked = JoinSet::new();
        for target in targets {
            let (resolver, target) = (Arc::clone(&self.resolver), target.clone());
            asked.spawn(async move { (target.clone(), resolver.lookup(&target, None).await.0) });
        }
        asked.join_all().await
    }
}
