//! `/etc/resolv.conf` and `/etc/hosts`: read at start, and again when they have changed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tracing::warn;

use super::super::state::{Answer, FamilyAnswer};
use super::ask::from_lookup;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct SystemFiles {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// What the files said.
pub(super) struct SystemConfig {
    /// At least one.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
    hosts: Hosts,
    seen: [Option<Stamp>; 2],
}

/// What changes when a file does: device and inode (replaced), size and time (rewritten).
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

impl SystemFiles {
    /// Reads both files. What is missing or malformed counts as not written.
    pub(super) fn read(&self) -> SystemConfig {
        // Before the reading: a change in between is seen as one next time.
        let seen = self.stamps();
        let resolv_conf = fs::read(&self.resolv_conf).unwrap_or_default();
        let hosts = fs::read(&self.hosts).unwrap_or_default();
        SystemConfig::parse(resolv_conf, &hosts, seen)
    }

    /// The files' new content, if they are not what `config` was read from.
    pub(super) fn changed_since(&self, config: &SystemConfig) -> Option<SystemConfig> {
        (self.stamps() != config.seen).then(|| self.read())
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [stamp(&self.resolv_conf), stamp(&self.hosts)]
    }
}

impl SystemConfig {
    fn parse(mut resolv_conf: Vec<u8>, hosts: &[u8], seen: [Option<Stamp>; 2]) -> Self {
        let mut parsed = parse_resolv_conf(&resolv_conf);
        if parsed.is_err() {
            // The parser refuses a file without name servers, which may still have search domains.
            resolv_conf.extend_from_slice(b"\nnameserver 127.0.0.1\n");
            parsed = parse_resolv_conf(&resolv_conf);
        }
        let (config, options) = parsed.unwrap_or_else(|error| {
            warn!(%error, "the system's resolver configuration is not used");
            Default::default()
        });
        let (domain, search, name_servers) = config.into_parts();
        let mut servers: Vec<SocketAddr> =
            name_servers.iter().map(|server| SocketAddr::new(server.ip, 53)).collect();
        if servers.is_empty() {
            servers.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53));
        }
        let search = if search.is_empty() { domain.into_iter().collect() } else { search };
        let mut names = Hosts::default();
        if let Err(error) = names.read_hosts_conf(hosts) {
            warn!(%error, "the system's hosts file is used up to its first fault");
        }
        Self { servers, search, ndots: options.ndots, hosts: names, seen }
    }

    /// What the hosts file says of `host`: both families, or nothing. Search domains do not apply to it.
    pub(super) fn hosts_answer(&self, host: &Name) -> Option<Answer> {
        let family = |records| {
            let lookup = self.hosts.lookup_static_host(&Query::query(host.clone(), records))?;
            Some(from_lookup(host, records, &lookup))
        };
        let found = [RecordType::A, RecordType::AAAA].map(family);
        let (mut addresses, mut shortest) = (vec![], None);
        for answer in found.into_iter().flatten() {
            if let FamilyAnswer::Addresses { addresses: more, ttl } = answer {
                addresses.extend(more);
                shortest = Some(ttl);
            }
        }
        Some(Answer::of(addresses, shortest?))
    }
}
