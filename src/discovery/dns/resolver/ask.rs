//! One question to the name servers, and what its answer means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::timeout;

use super::super::srv::{SrvAnswer, SrvRecord};
use super::super::state::{Answer, FamilyAnswer, Trouble};
use super::{ATTEMPTS, OTHER_FAMILY_TIMEOUT, ResolverError, SERVER_TIMEOUT};
use crate::discovery::ErrorKind;

/// A client of one name server: UDP, and TCP where an answer is truncated.
pub(super) fn client(server: SocketAddr) -> Result<TokioResolver, ResolverError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    // We keep the timer: a cache below it would count every TTL twice.
    options.cache_size = 0;
    // The library counts retries. Ours are in `family`, over all servers.
    options.attempts = 0;
    options.timeout = SERVER_TIMEOUT;
    options.num_concurrent_reqs = 1;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
    // The shortest TTL of a chain of aliases counts, so they have to be seen.
    options.preserve_intermediates = true;
    builder.build().map_err(|error| ResolverError::Setup(error.to_string()))
}

/// Asks for both families of the full name `name` at once.
pub(super) async fn both(servers: &[TokioResolver], name: &Name) -> Answer {
    let mut v4 = pin!(family(servers, name, RecordType::A));
    let mut v6 = pin!(family(servers, name, RecordType::AAAA));
    let mut answer = tokio::select! {
        v4 = &mut v4 => { let v6 = other(&v4, v6).await; Answer { v4, v6 } }
        v6 = &mut v6 => { let v4 = other(&v6, v4).await; Answer { v4, v6 } }
    };
    answer.drop_unreachable();
    answer
}

/// The family that is still on its way; it has little time once the other one brought addresses.
async fn other(first: &FamilyAnswer, second: impl Future<Output = FamilyAnswer>) -> FamilyAnswer {
    if !matches!(first, FamilyAnswer::Addresses { .. }) {
        return second.await;
    }
    timeout(OTHER_FAMILY_TIMEOUT, second).await.unwrap_or_else(|_| {
        let text = "one family of addresses was answered, the other was not".to_owned();
        FamilyAnswer::Failed(Trouble { kind: ErrorKind::Timeout, text })
    })
}

async fn family(servers: &[TokioResolver], name: &Name, kind: RecordType) -> FamilyAnswer {
    match records(servers, name, kind).await {
        Ok(lookup) => from_lookup(name, kind, &lookup),
        Err(NoRecords::Denied { trouble, ttl }) => FamilyAnswer::Negative { trouble, ttl },
        Err(NoRecords::Failed(trouble)) => FamilyAnswer::Failed(trouble),
    }
}

/// Asks for the SRV records of the full name `name`.
pub(super) async fn srv(servers: &[TokioResolver], name: &Name) -> SrvAnswer {
    let lookup = match records(servers, name, RecordType::SRV).await {
        Ok(lookup) => lookup,
        Err(NoRecords::Denied { trouble, ttl }) => return SrvAnswer::Negative { trouble, ttl },
        Err(NoRecords::Failed(trouble)) => return SrvAnswer::Failed(trouble),
    };
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(ttl.into());
    let record = |record: &Record| match &record.data {
        RData::SRV(srv) => Some(SrvRecord {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_lowercase(),
        }),
        _ => None,
    };
    let records: Vec<SrvRecord> = lookup.answers().iter().filter_map(record).collect();
    if records.is_empty() {
        let trouble = Trouble::new(ErrorKind::Empty, format!("{name} has no SRV records"));
        return SrvAnswer::Negative { trouble, ttl: Some(ttl) };
    }
    SrvAnswer::Records { records, ttl }
}

/// Why there are no records of the type that was asked for.
enum NoRecords {
    /// The name server is sure of it, for so long (RFC 2308), where it says so.
    Denied { trouble: Trouble, ttl: Option<Duration> },
    /// It is not known.
    Failed(Trouble),
}

/// Asks one server after the other until one knows: yes or no.
async fn records(
    servers: &[TokioResolver],
    name: &Name,
    kind: RecordType,
) -> Result<Lookup, NoRecords> {
    let mut failure = None;
    for server in std::iter::repeat_n(servers, ATTEMPTS).flatten() {
        match server.lookup(name.clone(), kind).await {
            Ok(lookup) => return Ok(lookup),
            Err(error) => match from_error(name, kind, &error) {
                NoRecords::Failed(trouble) => failure = failure.or(Some(trouble)),
                denied @ NoRecords::Denied { .. } => return Err(denied),
            },
        }
    }
    let none = || Trouble::new(ErrorKind::Other, "there are no name servers");
    Err(NoRecords::Failed(failure.unwrap_or_else(none)))
}

/// The addresses of an answer. Those that no connection can go to are left out: `0.0.0.0`, which filtering name servers
/// give, would be our own host.
pub(super) fn from_lookup(name: &Name, records: RecordType, lookup: &Lookup) -> FamilyAnswer {
    let records_of = lookup.answers().iter();
    let ttl = records_of.clone().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(ttl.into());
    let addresses: Vec<IpAddr> = records_of
        .filter(|record| record.record_type() == records)
        .filter_map(|record| record.data.ip_addr())
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .collect();
    if addresses.is_empty() {
        let text = format!("{name} has no usable {records} records");
        let trouble = Trouble { kind: ErrorKind::Empty, text };
        return FamilyAnswer::Negative { trouble, ttl: Some(ttl) };
    }
    FamilyAnswer::Addresses { addresses, ttl }
}

fn from_error(name: &Name, records: RecordType, error: &NetError) -> NoRecords {
    let failed = |kind, text| NoRecords::Failed(Trouble { kind, text });
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let (kind, text) = match none.response_code {
                ResponseCode::NXDomain => {
                    (ErrorKind::NxDomain, format!("{name} does not exist (NXDOMAIN)"))
                }
                _ => (ErrorKind::Empty, format!("{name} has no {records} records")),
            };
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            NoRecords::Denied { trouble: Trouble { kind, text }, ttl }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            let kind = match code {
                ResponseCode::ServFail => ErrorKind::ServFail,
                _ => ErrorKind::Other,
            };
            failed(kind, format!("the name server could not look up {name}: {code}"))
        }
        NetError::Timeout => {
            failed(ErrorKind::Timeout, format!("no name server answered for {name} in time"))
        }
        error => failed(ErrorKind::Other, format!("{name} could not be asked for: {error}")),
    }
}

impl Answer {
    /// Splits addresses by family. A family without any is settled to have none.
    pub(in crate::discovery::dns) fn of(addresses: Vec<IpAddr>, ttl: Duration) -> Self {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Self {
            v4: FamilyAnswer::Addresses { addresses: v4, ttl },
            v6: FamilyAnswer::Addresses { addresses: v6, ttl },
        }
    }

    pub(super) fn has_addresses(&self) -> bool {
        self.families().iter().any(|family| matches!(family, FamilyAnswer::Addresses { .. }))
    }

    pub(super) fn has_failure(&self) -> bool {
        self.families().iter().any(|family| matches!(family, FamilyAnswer::Failed(_)))
    }

    /// No name server said anything, as opposed to one that could not find out.
    pub(super) fn is_silence(&self) -> bool {
        self.families().iter().all(|family| {
            matches!(family, FamilyAnswer::Failed(trouble) if trouble.kind == ErrorKind::Timeout)
        })
    }

    fn families(&self) -> [&FamilyAnswer; 2] {
        [&self.v4, &self.v6]
    }

    /// Where both families have addresses, leaves out those that this machine has no route to (RFC 6724 rule 1: avoid
    /// unusable destinations): in a container without IPv6 every second endpoint would fail.
    fn drop_unreachable(&mut self) {
        let (
            FamilyAnswer::Addresses { addresses: v4, .. },
            FamilyAnswer::Addresses { addresses: v6, .. },
        ) = (&mut self.v4, &mut self.v6)
        else {
            return;
        };
        let (routed_v4, routed_v6) =
            (routed(v4, Ipv4Addr::UNSPECIFIED), routed(v6, Ipv6Addr::UNSPECIFIED));
        if !(routed_v4.is_empty() && routed_v6.is_empty()) {
            (*v4, *v6) = (routed_v4, routed_v6);
        }
    }
}

/// Those of `addresses` that there is a route to. Connecting a UDP socket looks the route up and sends nothing.
fn routed(addresses: &[IpAddr], any: impl Into<IpAddr>) -> Vec<IpAddr> {
    const DISCARD: u16 = 9;
    let Ok(socket) = UdpSocket::bind((any.into(), 0)) else { return vec![] };
    let has_route = |ip: &&IpAddr| socket.connect((**ip, DISCARD)).is_ok();
    addresses.iter().filter(has_route).copied().collect()
}
