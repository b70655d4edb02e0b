//! The A and AAAA records of one name, asked again when their TTL is up.
//!
//! [`Resolver`] asks, `DnsState` decides what an answer changes and when to ask again, and the task in this file does
//! what it says. What makes it differ from other proxies: an error keeps the last good set for ever, a denied name must
//! be denied three times in a row before its endpoints go, and A and AAAA are kept apart, so that one of them failing
//! takes nothing away.
//!
//! Not done: asking earlier than the TTL says because connections fail.

mod resolver;
mod srv;
mod state;

use std::sync::Arc;

use hickory_resolver::proto::rr::Name;
use tokio::time::{Instant, sleep_until};

use super::publisher::Publisher;
use crate::base::rng::Rng;

pub(super) use resolver::parse_name;
pub use resolver::{Resolver, ResolverError};
pub use srv::Srv;
use state::DnsState;
pub use state::TtlRange;

/// `discover: dns://host:port`.
#[derive(Debug, Clone)]
pub struct Dns {
    host: Name,
    port: u16,
    ttl: TtlRange,
    resolver: Arc<Resolver>,
    source: Arc<str>,
}

impl Dns {
    /// The addresses of `host`, each with `port`.
    ///
    /// The search domains of `resolver` apply unless `host` ends in a dot. An IP address stands for itself.
    ///
    /// # Errors
    /// `host` is no name that DNS could have: too long, or an empty label.
    pub fn new(
        host: &str,
        port: u16,
        ttl: TtlRange,
        resolver: Arc<Resolver>,
    ) -> Result<Self, ResolverError> {
        let name = parse_name(host)?;
        let source = format!("dns://{host}:{port}").into();
        Ok(Self { host: name, port, ttl, resolver, source })
    }

    pub(super) fn source(&self) -> Arc<str> {
        self.source.clone()
    }

    /// Asks, publishes, waits; ends only by being aborted.
    pub(super) async fn run(self, publisher: Publisher, mut rng: Rng) {
        let mut state = DnsState::new(self.port, self.ttl);
        let mut settled = None;
        loop {
            let (answer, name) = self.resolver.lookup(&self.host, settled.as_ref()).await;
            let now = Instant::now();
            let next = state.on_answer(now, answer, &mut rng);
            settled = name.or(settled).filter(|_| state.holds_addresses());
            publisher.take(next.verdict, now);
            sleep_until(next.ask_at).await;
        }
    }
}
