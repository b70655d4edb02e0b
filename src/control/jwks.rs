//! The public keys of issuers: read from files, fetched from addresses, kept up to date.
//!
//! A file must be right when a configuration takes force, and is watched by content from then on. An address is asked at once and then every
//! [`REFRESH`]; after a failure with back-off; and when a token names a key that is not in the set, at most every [`SOONEST`], so that who
//! sends made-up names cannot make us ask more. The last good set stays in force, however old: whoever could keep us from asking could
//! otherwise shut the service, and an issuer that withdraws a key early has `exp` for it.

mod fetch;
mod findings;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Jwks};
use crate::discovery::dns::Resolver;
use crate::metrics::{JwksMetrics, Metrics};
use crate::policy::jwt::{KeySet, KeySetError, Keys};

use super::ApplyError;
use super::watch::FileWatch;
use fetch::{Trouble, fetch};
pub(super) use findings::findings;

/// Between two questions. Issuers announce a key hours before they sign with it; Envoy waits as long by default.
const REFRESH: Duration = Duration::from_secs(300);
/// Between two questions, whatever tokens name.
const SOONEST: Duration = Duration::from_secs(10);
/// After a failure, doubling from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is looked whether a token has named an unknown key.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a set: an issuer's three keys with certificates are some 10 KiB.
const MOST_BYTES: usize = 256 * 1024;

/// What is read and fetched, for as long as a listener needs it.
#[derive(Debug, Default)]
pub(super) struct Sources {
    running: HashMap<Jwks, Source>,
    /// Made with the first address, for as long as the process lives: as that of upstreams.
    resolver: Option<Arc<Resolver>>,
}

#[derive(Debug)]
struct Source {
    keys: Arc<Keys>,
    _task: AbortOnDropHandle<()>,
}

/// The keys that a configuration needs.
#[derive(Debug, Default)]
pub(super) struct Plan {
    keys: HashMap<Jwks, Arc<Keys>>,
    resolver: Option<Arc<Resolver>>,
}

impl Plan {
    /// Those of one set.
    pub(super) fn of(&self, jwks: &Jwks) -> Arc<Keys> {
        self.keys.get(jwks).map(Arc::clone).unwrap_or_default()
    }
}

impl Sources {
    /// Finds or reads what `config` needs; changes nothing.
    ///
    /// # Errors
    /// A file that cannot be read or holds no keys; a search domain that is no name.
    pub(super) fn plan(&self, config: &Config) -> Result<Plan, ApplyError> {
        let mut plan = Plan { resolver: self.resolver.clone(), ..Plan::default() };
        for issuer in config.listeners.iter().flat_map(|listener| &listener.jwt) {
            if plan.keys.contains_key(&issuer.jwks) {
                continue;
            }
            let keys = match self.running.get(&issuer.jwks) {
                Some(source) => Arc::clone(&source.keys),
                None => Arc::default(),
            };
            if let (Jwks::File(path), None) = (&issuer.jwks, keys.current()) {
                let invalid = |error| {
                    let name = &issuer.issuer;
                    ApplyError::Invalid(format!("jwks of issuer {name}: {error}"))
                };
                keys.publish(load(path).map_err(invalid)?);
            }
            if let (Jwks::Http { .. }, None) = (&issuer.jwks, &plan.resolver) {
                let made = Resolver::new(&config.dns.servers, &config.dns.search);
                let made = made.map_err(|error| ApplyError::Invalid(error.to_string()))?;
                plan.resolver = Some(Arc::new(made));
            }
            plan.keys.insert(issuer.jwks.clone(), keys);
        }
        Ok(plan)
    }

    /// Keeps what the plan has up to date, and forgets the rest.
    pub(super) fn commit(&mut self, plan: Plan, metrics: &Metrics) {
        self.resolver = plan.resolver;
        let gone: Vec<Jwks> =
            self.running.keys().filter(|jwks| !plan.keys.contains_key(jwks)).cloned().collect();
        for jwks in gone {
            self.running.remove(&jwks);
            metrics.access.forget_jwks(&jwks.to_string(), &Trouble::words());
        }
        for (jwks, keys) in plan.keys {
            if self.running.contains_key(&jwks) {
                continue;
            }
            let follow = Follow {
                name: jwks.to_string(),
                metrics: metrics.access.jwks(&jwks.to_string(), &Trouble::words()),
                keys: Arc::clone(&keys),
            };
            let task = match (jwks.clone(), self.resolver.clone()) {
                (jwks @ Jwks::Http { .. }, Some(resolver)) => {
                    tokio::task::spawn_local(async move { follow.address(&jwks, &resolver).await })
                }
                (Jwks::File(path), _) => {
                    tokio::task::spawn_local(async move { follow.file(&path).await })
                }
                // The plan has made one where there is an address.
                (Jwks::Http { .. }, None) => continue,
            };
            self.running.insert(jwks, Source { keys, _task: AbortOnDropHandle::new(task) });
        }
    }
}

/// One set, kept up to date.
struct Follow {
    name: String,
    keys: Arc<Keys>,
    metrics: JwksMetrics,
}

impl Follow {
    async fn file(&self, path: &Path) {
        let mut watch = FileWatch::new(path);
        loop {
            match watch.content() {
                Some(text) => self.take(Ok(text)),
                None => self.take(Err(Trouble::Unreadable)),
            };
            watch.changed().await;
        }
    }

    async fn address(&self, jwks: &Jwks, resolver: &Resolver) {
        let mut backoff = BACKOFF.0;
        loop {
            let asked = Instant::now();
            let answer = fetch(jwks, resolver, MOST_BYTES).await;
            let wait = match self.take(answer.as_deref().map_err(|trouble| *trouble)) {
                true => {
                    backoff = BACKOFF.0;
                    REFRESH
                }
                false => {
                    let wait = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    wait
                }
            };
            while asked.elapsed() < wait {
                tokio::time::sleep(LOOK.min(wait)).await;
                if asked.elapsed() >= SOONEST && self.keys.was_wanted() {
                    break;
                }
            }
        }
    }

    /// Puts what came in force, or says why not. True where it is in force.
    fn take(&self, answer: Result<&[u8], Trouble>) -> bool {
        let set = answer.and_then(|text| {
            KeySet::parse(text).map_err(|error| match error {
                KeySetError::Malformed => Trouble::Malformed,
                KeySetError::NoKeys => Trouble::NoKeys,
            })
        });
        match set {
            Ok(set) => {
                let (keys, left_out) = (set.len(), set.left_out());
                self.metrics.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
                let before = self.keys.current().map(|before| (before.len(), before.left_out()));
                if before != Some((keys, left_out)) {
                    tracing::info!(jwks = %self.name, keys, left_out, "keys for tokens in force");
                }
                self.keys.publish(set);
                true
            }
            Err(trouble) => {
                self.metrics.fail(trouble.index());
                let kept = self.keys.current().map_or(0, |set| set.len());
                tracing::warn!(jwks = %self.name, reason = trouble.word(), kept, "no new keys for tokens, those before stay in force");
                false
            }
        }
    }
}

/// The keys in a file, or what is wrong with it.
fn load(path: &Path) -> Result<KeySet, String> {
    let read = read(path).map_err(|error| error.to_string());
    let set = read.and_then(|text| KeySet::parse(&text).map_err(|error| error.to_string()));
    set.map_err(|error| format!("{}: {error}", path.display()))
}

/// A file, unless it is too long for a set of keys.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut text)?;
    if text.len() > MOST_BYTES {
        return Err(std::io::Error::other("longer than 256 KiB"));
    }
    Ok(text)
}
