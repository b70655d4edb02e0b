//! Where the endpoints of an upstream come from.
//!
//! A provider is a task which owns its retries and publishes **whole sets** through a `watch` channel: the latest wins,
//! there is nothing to replay, and a set that did not change is not sent. Rejected: a stream of inserts and removes (one
//! lost delta is wrong for ever) and a polled `discover()` (a provider that is told of changes would have to wait).
//!
//! A provider never takes endpoints away because it could not ask: an error keeps the last good set, is counted in
//! [`ProviderStatus`], and is logged once per change of [`Standing`].

pub mod dns;
pub mod fixed;
mod status;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::base::endpoint::EndpointSpec;
use crate::base::rng::Rng;

pub use status::{ErrorKind, LastError, ProviderStatus, Standing};

/// What a provider knows of an upstream's endpoints.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// Every endpoint; may be empty. From DNS sorted by address, from the configuration in its order.
    pub endpoints: Arc<[EndpointSpec]>,
    /// The provider in the words of the configuration: `dns://articles.internal:5001`, `endpoints`.
    pub source: Arc<str>,
    /// When this set was published. A set that is confirmed and did not change keeps its time; how long ago the
    /// provider was last right is [`ProviderStatus::staleness`].
    pub updated: Instant,
    /// Whether the provider has had an answer yet. `false` only together with an empty set: nobody knows.
    pub answered: bool,
}

impl Discovered {
    fn unanswered(source: Arc<str>, now: Instant) -> Self {
        Self { endpoints: Arc::new([]), source, updated: now, answered: false }
    }
}

/// Every kind of provider, one file each.
#[derive(Debug)]
pub enum Provider {
    /// Endpoints written in the configuration.
    Fixed(fixed::Fixed),
    /// A and AAAA records of one name.
    Dns(dns::Dns),
}

/// A running provider. Dropping it ends the provider's task; receivers cloned from `updates` then see a closed channel.
#[derive(Debug)]
pub struct Subscription {
    /// The latest set. The first value is there at once; from DNS it is unanswered.
    pub updates: watch::Receiver<Discovered>,
    /// For metrics and the admin page.
    pub status: Arc<ProviderStatus>,
    _publisher: Publisher,
}

/// What keeps the channel open for as long as the subscription lives.
#[derive(Debug)]
enum Publisher {
    /// Nothing more to say.
    Silent { _sender: watch::Sender<Discovered> },
    /// A task which holds the sender.
    Task { _handle: AbortOnDropHandle<()> },
}

/// Starts `provider`. `rng` spreads its questions over time.
///
/// Must be called within a tokio runtime: the control thread's.
pub fn spawn(provider: Provider, rng: Rng) -> Subscription {
    let now = Instant::now();
    let status = Arc::new(ProviderStatus::new(now));
    match provider {
        Provider::Fixed(fixed) => {
            let (sender, updates) = watch::channel(fixed.answer(now, &status));
            Subscription { updates, status, _publisher: Publisher::Silent { _sender: sender } }
        }
        Provider::Dns(dns) => {
            let (sender, updates) = watch::channel(Discovered::unanswered(dns.source(), now));
            let task = tokio::spawn(dns.run(sender, status.clone(), rng));
            let handle = AbortOnDropHandle::new(task);
            Subscription { updates, status, _publisher: Publisher::Task { _handle: handle } }
        }
    }
}
