//! EndpointSlices of one service, merged into endpoints.
//!
//! Source: Kubernetes' documentation, "EndpointSlices", and the API reference of `discovery.k8s.io/v1`.
//!
//! - **Conditions.** Traffic goes to *ready* endpoints (not said means ready). Where there is none, to those that are
//!   *serving* and *terminating*: they still answer, and nobody else does (KEP-1669, as kube-proxy does).
//! - **Ports.** A name is looked up in each slice by itself, since a named target port may differ from pod to pod. A
//!   number is the pods' port, not the service's, which slices do not know.
//! - **Twice.** A slice that is moving to another holds endpoints that the other has too; an endpoint is ready if any
//!   slice says so. Of a pod with an IPv4 and an IPv6 address the IPv4 one is used: they are one process.
//! - **Zones.** Where every endpoint has hints, they stand for zones: an endpoint counts to the zone that it is hinted
//!   to. Ours, if it is among them. How zones steer is the balancer's (`zone_aware`).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::base::endpoint::EndpointSpec;

/// The label with the zone where an endpoint stands, whatever its hints say.
const ZONE_LABEL: &str = "zone";
const NODE_LABEL: &str = "node";
const POD_LABEL: &str = "pod";

/// Which port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// Of that name, which the service gave it.
    Named(String),
    /// This one.
    Number(u16),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "port named `{name}`"),
            Self::Number(number) => write!(f, "port {number}"),
        }
    }
}

/// How far an endpoint takes traffic, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Readiness {
    /// Serving, but terminating.
    LastResort,
    Ready,
}

/// What is kept of one endpoint of a slice.
#[derive(Debug, Clone)]
struct Member {
    address: SocketAddr,
    readiness: Readiness,
    zone: Option<String>,
    hints: Vec<String>,
    node: Option<String>,
    pod: Option<String>,
    /// Tells the addresses of one pod.
    uid: Option<String>,
}

/// What is kept of one slice.
#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    members: Vec<Member>,
    /// Endpoints that have no such port, or no IP address.
    unusable: usize,
}

impl Slice {
    /// What `port` of `slice` says.
    pub(super) fn read(slice: &EndpointSlice, port: &Port) -> Self {
        // FQDN is deprecated, and nobody knows what it means.
        let ports = slice.ports.as_deref().unwrap_or_default();
        let port =
            matching(ports, port).filter(|_| matches!(&*slice.address_type, "IPv4" | "IPv6"));
        let taking = slice.endpoints.iter().filter_map(|found| Some((found, readiness(found)?)));
        let mut kept = Self::default();
        for (endpoint, readiness) in taking {
            match port.and_then(|port| member(endpoint, port, readiness)) {
                Some(member) => kept.members.push(member),
                None => kept.unusable += 1,
            }
        }
        kept
    }
}

/// The endpoints of all slices, and how many were left out for want of the port.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Merged {
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) unusable: usize,
}

/// Merges the slices of a service. `zone`: ours.
pub(super) fn merge<'a>(slices: impl Iterator<Item = &'a Slice>, zone: Option<&str>) -> Merged {
    let mut unusable = 0;
    let mut by_address: BTreeMap<SocketAddr, &Member> = BTreeMap::new();
    for slice in slices {
        unusable += slice.unusable;
        for member in &slice.members {
            let known = by_address.entry(member.address).or_insert(member);
            if member.readiness > known.readiness {
                *known = member;
            }
        }
    }
    let best = by_address.values().map(|member| member.readiness).max();
    let hinted = by_address.values().all(|member| !member.hints.is_empty());
    let mut pods = HashSet::new();
    // IPv4 comes first in the order of addresses.
    let chosen =
        by_address.into_values().filter(|member| Some(member.readiness) == best).filter(|member| {
            match &member.uid {
                Some(uid) => pods.insert((uid.as_str(), member.address.port())),
                None => true,
            }
        });
    let endpoints = chosen.map(|member| spec(member, zone, hinted)).collect();
    Merged { endpoints, unusable }
}

fn spec(member: &Member, ours: Option<&str>, hinted: bool) -> EndpointSpec {
    let hints = || member.hints.iter();
    let zone = match hinted {
        true => hints()
            .find(|hint| Some(hint.as_str()) == ours)
            .or_else(|| member.hints.first())
            .cloned(),
        false => member.zone.clone(),
    };
    let labels = [(ZONE_LABEL, &member.zone), (NODE_LABEL, &member.node), (POD_LABEL, &member.pod)];
    let labels =
        labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    EndpointSpec { zone, labels: labels.collect(), ..EndpointSpec::at(member.address) }
}

/// The number of the port that is meant, of those that carry TCP. An empty list stands for every port.
fn matching(ports: &[EndpointPort], wanted: &Port) -> Option<u16> {
    let mut tcp = ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
    let number = match wanted {
        Port::Number(number) if ports.is_empty() => return Some(*number),
        Port::Number(number) => tcp.find(|port| port.port == Some(i32::from(*number)))?.port?,
        Port::Named(name) => {
            tcp.find(|port| port.name.as_deref().unwrap_or_default() == name)?.port?
        }
    };
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// `None`: no traffic. What is not said of `ready` and `serving` is true, of `terminating` false.
fn readiness(endpoint: &Endpoint) -> Option<Readiness> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    if conditions.ready.unwrap_or(true) {
        return Some(Readiness::Ready);
    }
    let last = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
    last.then_some(Readiness::LastResort)
}

fn member(endpoint: &Endpoint, port: u16, readiness: Readiness) -> Option<Member> {
    // All addresses of one endpoint are interchangeable, and consumers use the first.
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref());
    let target = endpoint.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    Some(Member {
        address: SocketAddr::new(ip, port),
        readiness,
        zone: endpoint.zone.clone().filter(|zone| !zone.is_empty()),
        hints: zones.unwrap_or_default().iter().map(|zone| zone.name.clone()).collect(),
        node: endpoint.node_name.clone(),
        pod: pod.and_then(|target| target.name.clone()),
        uid: target.and_then(|target| target.uid.clone()),
    })
}

/// What holds of any bytes that an API server may send for a slice: endpoints that can be connected to, each once, or none.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(bytes: &[u8]) -> usize {
    let Ok(slice) = serde_json::from_slice::<EndpointSlice>(bytes) else { return 0 };
    let read =
        [Port::Named("http".to_owned()), Port::Number(80)].map(|port| Slice::read(&slice, &port));
    let merged = merge(read.iter(), Some("a"));
    assert!(merged.endpoints.is_sorted_by(|a, b| a.address < b.address));
    merged.endpoints.len()
}

#[cfg(test)]
mod tests;
