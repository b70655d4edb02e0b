//! Certificates in force: read when a configuration is planned, and again whenever a file's content changes.
//!
//! A set of files is read and checked once, whoever uses it. A listener's or an upstream's TLS lives on over reloads that
//! leave it as it is, so that sessions can be resumed and connections stay; a new set of certificates is put into it from here.

mod compile;
mod findings;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::base::certificates::CertificateFiles;
use crate::config::{self, Config};
use crate::metrics::{CertificateMetrics, Metrics};
use crate::tls::files::{Contents, Vouched};
use crate::tls::{ClientTls, FileError, Material, ServerTls};

use super::ApplyError;

pub(super) use findings::findings;
pub(super) use watch::run as watch;

/// A set that is wrong is looked at again after this time before it is refused: certificate and key are two files, and
/// whoever writes them one after the other is not done in between.
const SETTLE: Duration = Duration::from_secs(1);

/// Every set in force, and what was made of them.
#[derive(Debug)]
pub(super) struct Certificates {
    metrics: Metrics,
    in_force: RefCell<InForce>,
    /// Other files are to be watched.
    changed: Notify,
}

#[derive(Debug, Default, Clone)]
struct InForce {
    sets: BTreeMap<CertificateFiles, Rc<Set>>,
    servers: BTreeMap<String, (config::ListenerTls, bool, Arc<ServerTls>)>,
    clients: BTreeMap<String, (config::UpstreamTls, Arc<ClientTls>)>,
}

/// One set of files.
#[derive(Debug)]
struct Set {
    files: CertificateFiles,
    owner: Owner,
    metrics: CertificateMetrics,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    material: Material,
    fingerprint: u128,
    /// The content that was refused last (`None`: it could not be read), until the files are good again.
    refused: Option<Option<u128>>,
}

/// Who wrote a set down.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    kind: &'static str,
    name: String,
}

/// What a reload will do. Nothing has happened yet.
#[derive(Debug, Default)]
pub(super) struct Plan(InForce);

impl Plan {
    /// The TLS of a listener.
    pub(super) fn listener(&self, name: &str) -> Option<Arc<ServerTls>> {
        self.0.servers.get(name).map(|(.., server)| Arc::clone(server))
    }

    /// The TLS of an upstream.
    pub(super) fn upstream(&self, name: &str) -> Option<Arc<ClientTls>> {
        self.0.clients.get(name).map(|(_, client)| Arc::clone(client))
    }
}

impl Certificates {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, in_force: RefCell::default(), changed: Notify::new() }
    }

    /// Reads what is new. A set that is in force already stays as it is: its files are watched.
    pub(super) fn plan(&self, config: &Config) -> Result<Plan, ApplyError> {
        let before = self.in_force.borrow();
        let mut plan = InForce::default();
        for (files, owner) in compile::sets(config) {
            let set = match before.sets.get(&files) {
                Some(set) if set.owner == owner => Rc::clone(set),
                _ => Rc::new(self.load(files.clone(), owner)?),
            };
            plan.sets.insert(files, set);
        }
        let refused = |owner: String, error| ApplyError::Invalid(format!("{owner}: tls: {error}"));
        for listener in &config.listeners {
            let (name, Some(tls)) = (&listener.name, &listener.tls) else { continue };
            let http = listener.protocol != config::ListenerProtocol::Tcp;
            let server = match before.servers.get(name) {
                Some((same, same_http, server)) if same == tls && *same_http == http => {
                    Arc::clone(server)
                }
                _ => {
                    let made = plan.material(&tls.files, |material| {
                        ServerTls::new(compile::server(tls, http), material)
                    });
                    Arc::new(made.map_err(|error| refused(format!("listener {name}"), error))?)
                }
            };
            plan.servers.insert(name.clone(), (tls.clone(), http, server));
        }
        for upstream in &config.upstreams {
            let Some((tls, settings)) = compile::client(upstream) else { continue };
            let name = &upstream.name;
            let client = match before.clients.get(name) {
                Some((same, client)) if *same == tls => Arc::clone(client),
                _ => {
                    let made =
                        plan.material(&tls.files, |material| ClientTls::new(settings, material));
                    Arc::new(made.map_err(|error| refused(format!("upstream {name}"), error))?)
                }
            };
            plan.clients.insert(name.clone(), (tls, client));
        }
        Ok(Plan(plan))
    }

    fn load(&self, files: CertificateFiles, owner: Owner) -> Result<Set, ApplyError> {
        let refused = |errors: Vec<FileError>| {
            let all: Vec<_> =
                errors.iter().map(|error| format!("{owner}: {}: {error}", error.key)).collect();
            ApplyError::Invalid(all.join("; "))
        };
        let contents = Contents::read(&files).map_err(refused)?;
        let material = Material::parse(&files, &contents, owner.vouched(), SystemTime::now());
        let material = material.map_err(refused)?;
        let metrics = self.metrics.tls.certificates(owner.kind, &owner.name);
        let fingerprint = contents.fingerprint();
        let state = RefCell::new(State { material, fingerprint, refused: None });
        Ok(Set { files, owner, metrics, state })
    }

    /// Does it.
    pub(super) fn commit(&self, plan: Plan) {
        let before = self.in_force.replace(plan.0);
        let in_force = self.in_force.borrow();
        for (name, (.., server)) in &before.servers {
            let kept = in_force.servers.get(name).is_some_and(|(.., now)| Arc::ptr_eq(now, server));
            if !kept {
                server.retire(Instant::now());
            }
        }
        for (files, set) in &before.sets {
            let kept = in_force.sets.values().any(|kept| kept.owner == set.owner);
            if !kept {
                self.metrics.tls.forget_certificates(set.owner.kind, &set.owner.name);
            }
            if !in_force.sets.contains_key(files) {
                tracing::debug!(owner = %set.owner, "certificates are not used any more");
            }
        }
        for set in in_force.sets.values() {
            let state = set.state.borrow();
            set.metrics.expire(state.material.cert_not_after, state.material.ca_not_after);
        }
        drop(in_force);
        self.changed.notify_one();
    }

    /// Looks at every set. True where one is wrong and may not be done being written: it is to be looked at again soon.
    fn look(&self, settled: bool) -> bool {
        let in_force = self.in_force.borrow().clone();
        let mut again = false;
        for set in in_force.sets.values() {
            again |= set.look(&in_force, settled);
        }
        again
    }
}

impl InForce {
    fn material<T>(
        &self,
        files: &CertificateFiles,
        make: impl FnOnce(&Material) -> Result<T, rustls::Error>,
    ) -> Result<T, rustls::Error> {
        match self.sets.get(files) {
            Some(set) => make(&set.state.borrow().material),
            None => Err(rustls::Error::NoCertificatesPresented),
        }
    }

    /// Puts a set in force wherever its files are used.
    fn rotate(&self, files: &CertificateFiles, material: &Material) -> Result<(), rustls::Error> {
        let now = Instant::now();
        for (tls, _, server) in self.servers.values().filter(|(tls, ..)| tls.files == *files) {
            debug_assert_eq!(tls.files, *files);
            server.rotate(material, now)?;
        }
        for (_, client) in self.clients.values().filter(|(tls, _)| tls.files == *files) {
            client.rotate(material, now)?;
        }
        Ok(())
    }
}

impl Set {
    /// Takes what the files hold where it has changed and is good. True where it is wrong and not `settled`.
    fn look(&self, in_force: &InForce, settled: bool) -> bool {
        let read = Contents::read(&self.files);
        let fingerprint = read.as_ref().ok().map(Contents::fingerprint);
        let mut state = self.state.borrow_mut();
        if fingerprint == Some(state.fingerprint) {
            // As it was before: whatever was wrong in between is mended.
            state.refused = None;
            return false;
        }
        let parsed = read.and_then(|contents| {
            Material::parse(&self.files, &contents, self.owner.vouched(), SystemTime::now())
        });
        let errors = match (parsed, fingerprint) {
            (Ok(material), Some(fingerprint)) => match in_force.rotate(&self.files, &material) {
                Ok(()) => {
                    self.metrics.expire(material.cert_not_after, material.ca_not_after);
                    self.metrics.reloads.inc();
                    tracing::info!(
                        owner = %self.owner, not_after = material.cert_not_after,
                        "certificates changed: in force for new connections, others end within {} s",
                        crate::tls::rotation::DRAIN.as_secs()
                    );
                    *state = State { material, fingerprint, refused: None };
                    return false;
                }
                Err(error) => vec![error.to_string()],
            },
            (Ok(_), None) => return false,
            (Err(errors), _) => {
                errors.iter().map(|error| format!("{}: {error}", error.key)).collect()
            }
        };
        if state.refused == Some(fingerprint) {
            // Told already. What is not valid yet may be so later, so it was tried again.
            return false;
        }
        if !settled {
            return true;
        }
        state.refused = Some(fingerprint);
        self.metrics.reload_failures.inc();
        for error in errors {
            tracing::error!(
                owner = %self.owner, %error,
                "changed certificates refused, the ones before stay in force"
            );
        }
        false
    }
}

impl Owner {
    fn vouched(&self) -> Vouched {
        if self.kind == compile::IDENTITY { Vouched::ByOwnAuthorities } else { Vouched::Elsewhere }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", self.name) }
    }
}
