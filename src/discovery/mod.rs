//! Where the endpoints of an upstream come from.
//!
//! A provider is a task which owns its retries and publishes **whole sets** through a `watch` channel: the latest wins,
//! there is nothing to replay, and a set that did not change is not sent. Rejected: a stream of inserts and removes (one
//! lost delta is wrong for ever) and a polled `discover()` (a provider that is told of changes would have to wait).
//!
//! A provider never takes endpoints away because it could not ask: an error keeps the last good set, is counted in
//! [`ProviderStatus`], and is logged once per change of [`Standing`]. That rule is `last_good`'s, its effects are
//! `publisher`'s; a provider itself only asks, and says what it was told.

mod backoff;
pub mod consul;
pub mod dns;
pub mod file;
pub mod fixed;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod last_good;
mod publisher;
mod server;
mod status;
#[cfg(feature = "xds")]
pub mod xds;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::base::endpoint::EndpointSpec;
use crate::base::rng::Rng;

use publisher::Publisher;
pub use server::ServerTls;
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

/// How a source of endpoints would have them balanced, where the configuration does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvisedBalance {
    /// It leaves that to us.
    Unsaid,
    /// The better of two by requests in flight.
    LeastRequest,
    /// In turns.
    RoundRobin,
    /// At random.
    Random,
    /// By the request's key, on a ring.
    RingHash {
        /// Percent of the mean load, 100..=1 000; `None`: unbounded.
        max_load: Option<u32>,
    },
    /// By the request's key, from a table.
    Maglev,
}

impl AdvisedBalance {
    /// False where it is left to us.
    pub fn is_said(self) -> bool {
        self != Self::Unsaid
    }
}

/// Every kind of provider, one file each.
#[derive(Debug)]
pub enum Provider {
    /// Endpoints written in the configuration.
    Fixed(fixed::Fixed),
    /// A and AAAA records of one name.
    Dns(dns::Dns),
    /// SRV records of one name, and the addresses of their targets.
    Srv(dns::Srv),
    /// Healthy instances of a service in Consul.
    Consul(consul::Consul),
    /// Endpoints of a Kubernetes service.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Kubernetes),
    /// A list in a file.
    File(file::File),
    /// An assignment from a control plane.
    #[cfg(feature = "xds")]
    Xds(xds::Xds),
}

/// A running provider. Dropping it ends the provider's task; receivers cloned from `updates` then see a closed channel.
#[derive(Debug)]
pub struct Subscription {
    /// The latest set. The first value is there at once; from DNS it is unanswered.
    pub updates: watch::Receiver<Discovered>,
    /// For metrics and the admin page.
    pub status: Arc<ProviderStatus>,
    _running: Running,
}

/// What keeps the channel open for as long as the subscription lives.
#[derive(Debug)]
enum Running {
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
    // One arm for each provider that asks; a written set has nobody to ask.
    match provider {
        Provider::Fixed(fixed) => {
            let (sender, updates) = watch::channel(fixed.answer(now, &status));
            Subscription { updates, status, _running: Running::Silent { _sender: sender } }
        }
        Provider::Srv(srv) => start(srv.source(), status, |publisher| srv.run(publisher, rng)),
        Provider::Dns(dns) => start(dns.source(), status, |publisher| dns.run(publisher, rng)),
        Provider::Consul(consul) => {
            start_local(consul.source(), status, |publisher| consul.run(publisher, rng))
        }
        #[cfg(feature = "kubernetes")]
        Provider::Kubernetes(kubernetes) => {
            start_local(kubernetes.source(), status, |publisher| kubernetes.run(publisher, rng))
        }
        Provider::File(file) => start(file.source(), status, |publisher| file.run(publisher)),
        #[cfg(feature = "xds")]
        Provider::Xds(xds) => {
            start_local(xds.source(), status, |publisher| xds.run(publisher, rng))
        }
    }
}

/// As `start`, for a task that stays on its thread, as our own client of HTTP/1 does.
fn start_local<F: Future<Output = ()> + 'static>(
    source: Arc<str>,
    status: Arc<ProviderStatus>,
    run: impl FnOnce(Publisher) -> F,
) -> Subscription {
    let (sender, updates) = watch::channel(Discovered::unanswered(source.clone(), Instant::now()));
    let task = tokio::task::spawn_local(run(Publisher::new(source, sender, Arc::clone(&status))));
    let handle = AbortOnDropHandle::new(task);
    Subscription { updates, status, _running: Running::Task { _handle: handle } }
}

/// Starts the task of a provider, with a channel that says "not known yet".
fn start<F: Future<Output = ()> + Send + 'static>(
    source: Arc<str>,
    status: Arc<ProviderStatus>,
    run: impl FnOnce(Publisher) -> F,
) -> Subscription {
    let (sender, updates) = watch::channel(Discovered::unanswered(source.clone(), Instant::now()));
    let task = tokio::spawn(run(Publisher::new(source, sender, Arc::clone(&status))));
    let handle = AbortOnDropHandle::new(task);
    Subscription { updates, status, _running: Running::Task { _handle: handle } }
}
