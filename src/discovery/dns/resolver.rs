//! Asks name servers, the way the system would.
//!
//! The library speaks the protocol; order, search domains, `/etc/hosts` and the choice of a name server are done here,
//! because its own ways differ from those of libc in what hurts a proxy. It asks two servers at once and takes the
//! first answer (wrong for an internal server with a public one behind it); it searches A and AAAA apart (they may end
//! at different names); it goes on searching after a timeout (and may end at a wildcard of another domain); and it
//! reads `/etc/hosts` once, for each family by itself.
//!
//! Here: servers in order, the next one when one fails, [`ATTEMPTS`] rounds. A name of `/etc/hosts` is not asked.
//! `/etc/resolv.conf` and `/etc/hosts` are read again when they have changed, as glibc does. `options timeout`,
//! `attempts` and `rotate` are not followed.

mod ask;
mod system;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::Name;
use tokio::time::timeout;

use self::system::{SystemConfig, SystemFiles};
use super::srv::SrvAnswer;
use super::state::{Answer, FamilyAnswer, Trouble};
use crate::discovery::ErrorKind;

/// How often every server is asked before a question has failed.
const ATTEMPTS: usize = 2;
/// How long one server has for one question.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a whole lookup may take: all search domains, servers and attempts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other family has once one has answered, so that a name server that drops AAAA questions costs one second
/// and not [`ATTEMPTS`] × [`SERVER_TIMEOUT`].
const OTHER_FAMILY_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks names up; one per process, shared by every name. Cheap to make: nothing is asked, a few small files are read.
pub struct Resolver {
    /// Empty: those of the system.
    servers: Vec<SocketAddr>,
    /// Empty: those of the system.
    search: Vec<Name>,
    files: SystemFiles,
    /// The newest state of the files; replaced when they change, never locked while waiting.
    current: Mutex<Arc<Current>>,
}

/// What questions are asked with.
struct Current {
    system: SystemConfig,
    /// One per name server, in order; at least one.
    servers: Vec<TokioResolver>,
    search: Vec<Name>,
    /// A name with fewer dots than this is searched before it is asked as it stands.
    ndots: usize,
}

/// Why a resolver, or a question, cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolverError {
    /// Not a name.
    #[error("`{name}` is not a name that can be looked up: {why}")]
    Name {
        /// As written.
        name: String,
        /// The library's words.
        why: String,
    },
    /// The library refused the configuration.
    #[error("the resolver cannot be set up: {0}")]
    Setup(String),
}

/// Reads a host name; international names are put into their ASCII form.
pub(in crate::discovery) fn parse_name(name: &str) -> Result<Name, ResolverError> {
    let error = |why: &str| ResolverError::Name { name: name.to_owned(), why: why.to_owned() };
    match Name::from_str_relaxed(name) {
        Ok(parsed) if parsed.iter().next().is_none() => Err(error("it is empty")),
        Ok(parsed) => Ok(parsed),
        Err(why) => Err(error(&why.to_string())),
    }
}

impl Resolver {
    /// A resolver that asks `servers` in order; where there are none, the system's (`/etc/resolv.conf`), and then
    /// `/etc/hosts` is respected too. Where `search` is empty, the system's search domains are used.
    ///
    /// A system without name servers, or without `/etc/resolv.conf`, is taken to have one on 127.0.0.1 (resolv.conf(5)).
    ///
    /// # Errors
    /// A search domain is not a name.
    pub fn new(servers: &[SocketAddr], search: &[String]) -> Result<Self, ResolverError> {
        Self::with_files(servers, search, SystemFiles::default())
    }

    fn with_files(
        servers: &[SocketAddr],
        search: &[String],
        files: SystemFiles,
    ) -> Result<Self, ResolverError> {
        let servers = servers.to_vec();
        let search =
            search.iter().map(|domain| parse_name(domain)).collect::<Result<Vec<_>, _>>()?;
        let current = Current::new(&servers, &search, files.read())?;
        Ok(Self { servers, search, files, current: Mutex::new(Arc::new(current)) })
    }

    /// The addresses of `host`, and the full name that has them where it was found in DNS.
    ///
    /// `settled` is the full name that had them last time. The search does not go beyond it: a moment in which it fails
    /// or is denied must not lead to another name further down the search list.
    pub(super) async fn lookup(
        &self,
        host: &Name,
        settled: Option<&Name>,
    ) -> (Answer, Option<Name>) {
        let current = self.current();
        if let Some(answer) = literal(host) {
            return (answer, None);
        }
        // Files come before DNS, and only where the system's own resolver is asked for.
        if let Some(answer) = current.system.hosts_answer(host).filter(|_| self.servers.is_empty())
        {
            return (answer, None);
        }
        let search = current.search(host, settled);
        timeout(LOOKUP_TIMEOUT, search).await.unwrap_or_else(|_| (timed_out(), None))
    }

    /// The addresses of `host` at this moment, IPv4 first; at least one.
    ///
    /// # Errors
    /// What the name servers said of either family where neither has an address.
    pub(in crate::discovery) async fn addresses(
        &self,
        host: &Name,
    ) -> Result<Vec<IpAddr>, Trouble> {
        let (Answer { v4, v6 }, _) = self.lookup(host, None).await;
        let (mut found, mut trouble) = (Vec::new(), None);
        for family in [v4, v6] {
            match family {
                FamilyAnswer::Addresses { addresses, .. } => found.extend(addresses),
                FamilyAnswer::Negative { trouble: why, .. } => trouble = trouble.or(Some(why)),
                FamilyAnswer::Failed(why) => trouble = Some(why),
            }
        }
        match trouble {
            Some(trouble) if found.is_empty() => Err(trouble),
            _ if found.is_empty() => {
                Err(Trouble::new(ErrorKind::Empty, format!("{host} has no address")))
            }
            _ => Ok(found),
        }
    }

    /// The addresses of a written host, for whoever asks a server now and then; nothing where it has none, or is no name.
    pub async fn host(&self, host: &str) -> Vec<IpAddr> {
        match parse_name(host) {
            Ok(name) => self.addresses(&name).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// The SRV records of `name`, and the full name that has them. `settled`: as for `lookup`.
    pub(super) async fn lookup_srv(
        &self,
        name: &Name,
        settled: Option<&Name>,
    ) -> (SrvAnswer, Option<Name>) {
        let current = self.current();
        let search = current.search_srv(name, settled);
        timeout(LOOKUP_TIMEOUT, search).await.unwrap_or_else(|_| (SrvAnswer::Failed(late()), None))
    }

    /// The state of the files now. A change that cannot be used leaves the old state in force.
    fn current(&self) -> Arc<Current> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(system) = self.files.changed_since(&current.system) {
            match Current::new(&self.servers, &self.search, system) {
                Ok(new) => *current = Arc::new(new),
                Err(error) => {
                    tracing::warn!(%error, "the changed resolver configuration is not used");
                }
            }
        }
        current.clone()
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("servers", &self.servers)
            .field("search", &self.search)
            .finish_non_exhaustive()
    }
}

impl Current {
    fn new(
        servers: &[SocketAddr],
        search: &[Name],
        system: SystemConfig,
    ) -> Result<Self, ResolverError> {
        let servers = if servers.is_empty() { &system.servers } else { servers };
        let servers =
            servers.iter().map(|&server| ask::client(server)).collect::<Result<_, _>>()?;
        let (search, ndots) = match search {
            [] => (system.search.clone(), system.ndots),
            search => (search.to_vec(), 1),
        };
        Ok(Self { system, servers, search, ndots })
    }

    /// Asks the candidates in order until one has addresses.
    async fn search(&self, host: &Name, settled: Option<&Name>) -> (Answer, Option<Name>) {
        let mut reply: Option<Answer> = None;
        for candidate in candidates(host, &self.search, self.ndots) {
            let answer = ask::both(&self.servers, &candidate).await;
            if answer.has_addresses() {
                return (answer, Some(candidate));
            }
            // A name server that is silent for one candidate is silent for all.
            if settled == Some(&candidate) || answer.is_silence() {
                return (answer, None);
            }
            // A failure must not be forgotten over a later denial: the failed candidate may well exist.
            let keep = reply.as_ref().is_some_and(Answer::has_failure);
            reply = if keep { reply } else { Some(answer) };
        }
        (reply.unwrap_or_else(timed_out), None)
    }
}

impl Current {
    /// As `search`, for SRV records.
    async fn search_srv(&self, name: &Name, settled: Option<&Name>) -> (SrvAnswer, Option<Name>) {
        let mut reply: Option<SrvAnswer> = None;
        for candidate in candidates(name, &self.search, self.ndots) {
            let answer = ask::srv(&self.servers, &candidate).await;
            if matches!(answer, SrvAnswer::Records { .. }) {
                return (answer, Some(candidate));
            }
            let silent = matches!(&answer, SrvAnswer::Failed(t) if t.kind == ErrorKind::Timeout);
            if settled == Some(&candidate) || silent {
                return (answer, None);
            }
            let keep = matches!(reply, Some(SrvAnswer::Failed(_)));
            reply = if keep { reply } else { Some(answer) };
        }
        (reply.unwrap_or_else(|| SrvAnswer::Failed(late())), None)
    }
}

/// The full names that `host` may stand for, in the order of asking (resolv.conf(5)).
fn candidates(host: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut absolute = host.clone();
    absolute.set_fqdn(true);
    // RFC 6761 6.3: localhost is itself everywhere.
    if host.is_fqdn() || host.is_localhost() {
        return vec![absolute];
    }
    // A domain that would make the name too long cannot have it.
    let mut names: Vec<Name> =
        search.iter().filter_map(|domain| host.clone().append_domain(domain).ok()).collect();
    let dots = usize::from(host.num_labels()).saturating_sub(1);
    let position = if dots >= ndots { 0 } else { names.len() };
    names.insert(position, absolute);
    let mut unique = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

/// The answer of a host that is written as an IPv4 address; IPv6 addresses are no names at all.
fn literal(host: &Name) -> Option<Answer> {
    let address: IpAddr = host.to_ascii().parse().ok()?;
    Some(Answer::of(vec![address], Duration::MAX))
}

fn timed_out() -> Answer {
    let failed = FamilyAnswer::Failed(late());
    Answer { v4: failed.clone(), v6: failed }
}

fn late() -> Trouble {
    Trouble::new(ErrorKind::Timeout, format!("no answer within {LOOKUP_TIMEOUT:?}"))
}

#[cfg(test)]
mod tests;
