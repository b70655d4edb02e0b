//! The endpoints of a service, as Kubernetes' API server tells of them: EndpointSlices, listed and then watched.
//!
//! kube's watcher does the protocol (pages, bookmarks, resource versions, a watch that ends and is taken up again), `slices`
//! merges what it says, the task in this file decides what is published and what follows an error: always a client made
//! anew (certificates and tokens are read again) and a whole list, so that after trouble it is certain what holds. A set
//! is published at the end of a list, never in the middle of one.
//!
//! Changes that come together are published together: the first at once, what follows within [`SETTLE`] after it, since
//! a rolling update of a large service tells of every pod by itself.

mod client;
mod slices;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::client::trouble;
use self::slices::{Slice, merge};
use super::ErrorKind;
use super::backoff::backoff;
use super::last_good::{LastGood, Trouble};
use super::publisher::Publisher;
use crate::base::rng::Rng;

pub use slices::Port;

/// The label by which slices belong to a service.
const SERVICE: &str = "kubernetes.io/service-name";

/// How long a watch lasts before it is taken up again, in seconds. A connection that died in silence is noticed 5 s later.
const WATCH: u32 = 120;

/// Until a list is whole, all its pages and the connection included.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// From one published set to the next. Well below the half second in which a change should reach picks.
const SETTLE: Duration = Duration::from_millis(200);

/// A watch that says nothing for so long has been taken up again at least once: it lives.
const ALIVE: Duration = Duration::from_secs(300);

/// A resource version that is too old (410) is no failure; a restarted API server says so to everybody at once.
const GONE_SPREAD: Duration = Duration::from_secs(1);

/// `discover: k8s://…`.
#[derive(Debug)]
pub struct Kubernetes {
    query: Query,
    source: Arc<str>,
}

/// Which service of which cluster.
#[derive(Debug)]
pub struct Query {
    /// The service's namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Which of its ports.
    pub port: Port,
    /// How the API server is reached; `None`: as a pod reaches it.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// Our own zone, for hints.
    pub zone: Option<String>,
}

/// Why a watch has ended.
enum Ended {
    /// All is well, but it has to begin anew: a resource version too old.
    Gone,
    /// An empty set is to be confirmed by another list.
    Confirm,
    Failed(Trouble),
}

impl Kubernetes {
    /// `source`: how logs call it.
    pub fn new(query: Query, source: impl Into<Arc<str>>) -> Self {
        Self { query, source: source.into() }
    }

    pub(super) fn source(&self) -> Arc<str> {
        self.source.clone()
    }

    /// Lists, watches, publishes; ends only by being aborted.
    pub(super) async fn run(self, publisher: Publisher, mut rng: Rng) {
        let mut last_good = LastGood::default();
        loop {
            let wait = match self.follow(&publisher, &mut last_good).await {
                Ended::Confirm => continue,
                Ended::Gone => rng.duration_up_to(GONE_SPREAD),
                Ended::Failed(trouble) => {
                    publisher.take(last_good.on_failure(trouble), Instant::now());
                    backoff(last_good.misses(), &mut rng)
                }
            };
            sleep(wait).await;
        }
    }

    /// One list and the watch behind it.
    async fn follow(&self, publisher: &Publisher, last_good: &mut LastGood) -> Ended {
        let deadline = Instant::now() + LIST_TIMEOUT;
        let client = match timeout_at(deadline, client::make(&self.query)).await {
            Ok(Ok(client)) => client,
            Ok(Err(trouble)) => return Ended::Failed(trouble),
            Err(_) => return Ended::Failed(self.too_slow()),
        };
        let api: Api<EndpointSlice> = Api::namespaced(client, &self.query.namespace);
        let selector = format!("{SERVICE}={}", self.query.service);
        let settings = watcher::Config::default().labels(&selector).timeout(WATCH);
        let mut events = pin!(watcher(api, settings));
        let mut known = Known { listed: false, slices: BTreeMap::new() };
        // When something is to be done although nothing comes.
        let (mut publish_at, mut published) = (None, None::<Instant>);
        let mut alive_at = deadline;
        loop {
            let confirm_at = last_good.confirm_at().filter(|_| known.listed);
            let quiet_until =
                [publish_at, confirm_at].into_iter().flatten().min().unwrap_or(alive_at);
            let event = tokio::select! {
                biased;
                () = sleep_until(quiet_until) => {
                    let now = Instant::now();
                    if publish_at.is_some_and(|at| now >= at) {
                        (publish_at, published) = (None, Some(now));
                        self.publish(&known, publisher, last_good, now);
                    } else if confirm_at.is_some_and(|at| now >= at) {
                        return Ended::Confirm;
                    } else if !known.listed {
                        return Ended::Failed(self.too_slow());
                    } else {
                        publisher.still_good(now);
                        alive_at = now + ALIVE;
                    }
                    continue;
                }
                event = poll_fn(|cx| events.as_mut().poll_next(cx)) => event,
            };
            let now = Instant::now();
            match event {
                Some(Ok(event)) => {
                    if !known.take(event, &self.query.port) {
                        continue;
                    }
                    alive_at = now + ALIVE;
                    let due = published.map_or(now, |at| now.max(at + SETTLE));
                    publish_at.get_or_insert(due);
                }
                Some(Err(error)) => return ended(&error),
                None => return Ended::Gone,
            }
        }
    }

    fn publish(&self, known: &Known, publisher: &Publisher, last: &mut LastGood, now: Instant) {
        let merged = merge(known.slices.values(), self.query.zone.as_deref());
        let left_out = (merged.unusable > 0).then(|| {
            let text =
                format!("{} endpoints have no {} or no address", merged.unusable, self.query.port);
            Trouble::new(ErrorKind::Malformed, text)
        });
        let verdict = match left_out {
            Some(trouble) if merged.endpoints.is_empty() => last.on_failure(trouble),
            left_out => {
                let mut verdict = last.on_set(merged.endpoints, now);
                verdict.trouble = verdict.trouble.or(left_out);
                verdict
            }
        };
        publisher.take(verdict, now);
    }

    fn too_slow(&self) -> Trouble {
        let text = format!(
            "no list of the slices of {}/{} in {} s",
            self.query.namespace,
            self.query.service,
            LIST_TIMEOUT.as_secs()
        );
        Trouble::new(ErrorKind::Timeout, text)
    }
}

fn ended(error: &watcher::Error) -> Ended {
    match trouble(error) {
        Some(trouble) => Ended::Failed(trouble),
        None => Ended::Gone,
    }
}

/// The slices of the service, by name.
struct Known {
    /// The list is whole.
    listed: bool,
    slices: BTreeMap<String, Slice>,
}

impl Known {
    /// Takes an event in; whether there is something to publish.
    fn take(&mut self, event: Event<EndpointSlice>, port: &Port) -> bool {
        match event {
            Event::Init => {
                self.listed = false;
                self.slices.clear();
            }
            Event::InitApply(slice) | Event::Apply(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                self.slices.insert(name, Slice::read(&slice, port));
            }
            Event::Delete(slice) => {
                self.slices.remove(&slice.metadata.name.unwrap_or_default());
            }
            Event::InitDone => self.listed = true,
        }
        self.listed
    }
}

/// See `slices::hostile`: the door for fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn hostile(bytes: &[u8]) {
    slices::hostile(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some(name.to_owned());
        slice
    }

    #[test]
    fn nothing_is_published_before_the_list_is_whole() {
        let mut known = Known { listed: false, slices: BTreeMap::new() };
        let port = Port::Number(80);
        assert!(!known.take(Event::Init, &port));
        assert!(!known.take(Event::InitApply(slice("a")), &port));
        assert!(!known.take(Event::InitApply(slice("b")), &port));
        assert!(known.take(Event::InitDone, &port));
        assert!(known.take(Event::Delete(slice("a")), &port));
        assert_eq!(known.slices.keys().collect::<Vec<_>>(), ["b"]);
        // A list in the middle of a watch: what it does not name is gone.
        assert!(!known.take(Event::Init, &port));
        assert!(!known.take(Event::InitApply(slice("c")), &port));
        assert!(known.take(Event::InitDone, &port));
        assert_eq!(known.slices.keys().collect::<Vec<_>>(), ["c"]);
    }
}
