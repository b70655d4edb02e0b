//! What a `ClusterLoadAssignment` says, as endpoints, or why it cannot be used. No I/O.
//!
//! | In the assignment | Here |
//! |---|---|
//! | `socket_address` with an IP address and a port, `pipe` | the address; a name, UDP, a named port refuse the assignment |
//! | `health_status` UNKNOWN, HEALTHY | an endpoint |
//! | DEGRADED | an endpoint whose priority comes after all that are not degraded |
//! | UNHEALTHY, TIMEOUT | left out, unless nothing else is left: then all of these are used, as panic would |
//! | DRAINING | left out: it gets no new request, what is in flight on it ends by itself |
//! | `priority` | the same order, without gaps |
//! | `load_balancing_weight` of endpoint and locality | the weight, brought into 1..=1 000 within each priority |
//! | `locality.zone`, else `sub_zone`, else `region` | the zone |
//! | `metadata["envoy.lb"]`, where it holds texts, numbers, booleans | labels |
//!
//! Drop overloads, the overprovisioning factor, `endpoint_stale_after`, endpoints by reference (LEDS), additional
//! addresses and the health check settings of an assignment are not used: what is done with endpoints is written in the
//! configuration file.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use envoy_types::pb::envoy::config::core::v3::{
    Address as WireAddress, HealthStatus, Locality, Metadata, SocketAddress, address,
    socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::google::protobuf::value::Kind;

use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;

/// The largest weight that an endpoint may have here.
const MAX_WEIGHT: f64 = 1_000.0;

/// Where Envoy's subset balancing and ours look for labels.
const LABELS: &str = "envoy.lb";

/// How willingly an endpoint is used; earlier is better. The order is that of the enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Fit,
    Degraded,
    Unfit,
}

/// An endpoint before its place and its share are settled.
struct Found {
    spec: EndpointSpec,
    fitness: Fitness,
    priority: u32,
    /// Positive; what it means is settled within a priority.
    share: f64,
}

/// The endpoints of `assignment`, best priority first, then by address; each address once.
///
/// # Errors
/// One line for the control plane that says what is wrong, and where.
pub(super) fn endpoints(assignment: &ClusterLoadAssignment) -> Result<Vec<EndpointSpec>, String> {
    let weighted = weighted_priorities(assignment);
    let mut found = Vec::new();
    for (index, locality) in assignment.endpoints.iter().enumerate() {
        let part = one_locality(locality, weighted.get(&locality.priority) == Some(&true));
        found.extend(part.map_err(|why| format!("endpoints[{index}].{why}"))?);
    }
    let last_resort = found.iter().all(|found| found.fitness == Fitness::Unfit);
    found.retain(|found| found.fitness != Fitness::Unfit || last_resort);
    Ok(settle(found))
}

/// For each priority: whether all its localities that hold endpoints have a weight, so that the weights mean something.
fn weighted_priorities(assignment: &ClusterLoadAssignment) -> BTreeMap<u32, bool> {
    let mut weighted = BTreeMap::new();
    for locality in assignment.endpoints.iter().filter(|part| !part.lb_endpoints.is_empty()) {
        let has = locality.load_balancing_weight.is_some_and(|weight| weight.value > 0);
        let all = weighted.entry(locality.priority).or_insert(true);
        *all = *all && has;
    }
    weighted
}

fn one_locality(locality: &LocalityLbEndpoints, weighted: bool) -> Result<Vec<Found>, String> {
    if locality.lb_config.is_some() {
        return Err("lb_config: endpoints by reference are not supported".to_owned());
    }
    let zone = locality.locality.as_ref().and_then(zone_of);
    let mut found = Vec::with_capacity(locality.lb_endpoints.len());
    for (index, endpoint) in locality.lb_endpoints.iter().enumerate() {
        let one = one_endpoint(endpoint, zone.as_deref(), locality.priority);
        found.extend(one.map_err(|why| format!("lb_endpoints[{index}].{why}"))?);
    }
    if weighted {
        let whole: f64 = found.iter().map(|found| found.share).sum();
        let weight = locality.load_balancing_weight.map_or(1, |weight| weight.value);
        for found in &mut found {
            found.share *= f64::from(weight) / whole;
        }
    }
    Ok(found)
}

/// `None`: it is leaving.
fn one_endpoint(
    endpoint: &LbEndpoint,
    zone: Option<&str>,
    priority: u32,
) -> Result<Option<Found>, String> {
    let address = match &endpoint.host_identifier {
        Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref(),
        Some(lb_endpoint::HostIdentifier::EndpointName(_)) => {
            return Err("endpoint_name: named endpoints are not supported".to_owned());
        }
        None => None,
    };
    let address = address.ok_or("endpoint: the address is missing")?;
    let address = address_of(address).map_err(|why| format!("endpoint.address: {why}"))?;
    let fitness = match HealthStatus::try_from(endpoint.health_status) {
        Ok(HealthStatus::Healthy | HealthStatus::Unknown) => Fitness::Fit,
        Ok(HealthStatus::Degraded) => Fitness::Degraded,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Fitness::Unfit,
        Ok(HealthStatus::Draining) => return Ok(None),
        Err(_) => return Err(format!("health_status: {} is no status", endpoint.health_status)),
    };
    let weight = endpoint.load_balancing_weight.map_or(1, |weight| weight.value);
    if weight == 0 {
        return Err("load_balancing_weight: 0 is below 1".to_owned());
    }
    let spec = EndpointSpec {
        zone: zone.map(str::to_owned),
        labels: endpoint.metadata.as_ref().map(labels_of).unwrap_or_default(),
        ..EndpointSpec::at(address)
    };
    Ok(Some(Found { spec, fitness, priority, share: f64::from(weight) }))
}

fn address_of(address: &WireAddress) -> Result<Address, String> {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => socket_address_of(socket),
        Some(address::Address::Pipe(pipe)) => {
            let path = format!("unix:{}", pipe.path).parse();
            path.map_err(|error| format!("{:?}: {error}", shortened(&pipe.path)))
        }
        Some(address::Address::EnvoyInternalAddress(_)) => {
            Err("internal addresses are not supported".to_owned())
        }
        None => Err("it is empty".to_owned()),
    }
}

fn socket_address_of(socket: &SocketAddress) -> Result<Address, String> {
    if socket.protocol != socket_address::Protocol::Tcp as i32 {
        return Err("the protocol is not TCP".to_owned());
    }
    let ip: IpAddr = socket
        .address
        .parse()
        .map_err(|_| format!("{:?} is no IP address", shortened(&socket.address)))?;
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => match u16::try_from(port) {
            Ok(port) if port != 0 => Ok(SocketAddr::new(ip, port).into()),
            _ => Err(format!("{port} is no port from 1 to 65535")),
        },
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            Err("named ports are not supported".to_owned())
        }
        None => Err("the port is missing".to_owned()),
    }
}

fn zone_of(locality: &Locality) -> Option<String> {
    let parts = [&locality.zone, &locality.sub_zone, &locality.region];
    parts.into_iter().find(|part| !part.is_empty()).cloned()
}

fn labels_of(metadata: &Metadata) -> BTreeMap<String, String> {
    let Some(labels) = metadata.filter_metadata.get(LABELS) else { return BTreeMap::new() };
    let text = |kind: &Kind| match kind {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::BoolValue(flag) => Some(flag.to_string()),
        _ => None,
    };
    let pairs = labels.fields.iter();
    pairs.filter_map(|(key, value)| Some((key.clone(), text(value.kind.as_ref()?)?))).collect()
}

/// Gives each its priority without gaps and its weight, and drops what is written twice.
fn settle(mut found: Vec<Found>) -> Vec<EndpointSpec> {
    // Stable order: a control plane that shuffles its answers does not look like a change.
    found.sort_by(|a, b| {
        let key = |found: &Found| (found.fitness, found.priority);
        key(a).cmp(&key(b)).then_with(|| order(&a.spec.address).cmp(&order(&b.spec.address)))
    });
    let mut seen = HashSet::new();
    found.retain(|found| seen.insert(found.spec.address.clone()));
    let mut endpoints = Vec::with_capacity(found.len());
    let groups = found.chunk_by(|a, b| (a.fitness, a.priority) == (b.fitness, b.priority));
    for (rank, group) in groups.enumerate() {
        let shares: Vec<f64> = group.iter().map(|found| found.share).collect();
        for (found, weight) in group.iter().zip(weights(&shares)) {
            let priority = u32::try_from(rank).unwrap_or(u32::MAX);
            endpoints.push(EndpointSpec { weight, priority, ..found.spec.clone() });
        }
    }
    endpoints
}

/// Addresses in an order of their own; texts would put port 10 before port 9.
fn order(address: &Address) -> (Option<SocketAddr>, Option<&PathBuf>) {
    match address {
        Address::Tcp(address) => (Some(*address), None),
        Address::Unix(path) => (None, Some(path)),
    }
}

/// Whole weights up to 1 000 in the proportion of `shares`, which are positive.
///
/// Shares that are such numbers already stay; else the largest becomes 1 000, so that a share is off by at most 0.05 % of
/// the largest, and no endpoint falls to 0.
fn weights(shares: &[f64]) -> Vec<u32> {
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let fits = largest <= MAX_WEIGHT && shares.iter().all(|share| share.fract().abs() < 1e-9);
    let factor = if fits || largest <= 0.0 { 1.0 } else { MAX_WEIGHT / largest };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=1 000, NaN becomes 0 and there is none"
    )]
    let whole = |share: &f64| (share * factor).round().clamp(1.0, MAX_WEIGHT) as u32;
    shares.iter().map(whole).collect()
}

/// Enough of a text from the wire to recognise it.
pub(super) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(100).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests;
