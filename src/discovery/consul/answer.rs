//! What Consul's health endpoint says, as endpoints.
//!
//! Source: Consul's HTTP API, "List Service Instances for Service" (`/v1/health/service/:service`). Only what is needed is
//! read; whatever else an answer holds is skipped.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::base::endpoint::EndpointSpec;

/// The largest weight that an endpoint may have. Consul's go up to 65 535: where one exceeds this, all are scaled down.
const MAX_WEIGHT: u32 = 1_000;

/// The key of metadata that stands for the zone where Consul has no locality (before 1.17).
const ZONE: &str = "zone";

/// A whole answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Instances {
    /// Sorted by address, each address once.
    pub(super) endpoints: Vec<EndpointSpec>,
    /// Healthy instances that cannot be connected to.
    pub(super) unusable: usize,
    /// What is wrong with the first of these.
    pub(super) why: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: Option<String>,
    meta: Option<BTreeMap<String, String>>,
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: Option<String>,
    port: i64,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    zone: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// What the checks of an instance amount to: as the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Passing,
    Warning,
    Critical,
}

impl Health {
    fn of(checks: Option<&[Check]>) -> Self {
        let states = checks.unwrap_or_default().iter().map(|check| match &*check.status {
            "passing" => Self::Passing,
            "warning" => Self::Warning,
            // `critical`, `maintenance`, and what may be invented.
            _ => Self::Critical,
        });
        states.max().unwrap_or(Self::Passing)
    }
}

/// Reads an answer. With `passing`, instances with a warning are left out; critical ones always are.
///
/// # Errors
/// The body is no list of instances; what is wrong, in one line that quotes nothing of it.
pub(super) fn parse(body: &[u8], passing: bool) -> Result<Instances, String> {
    let parsed: Vec<Instance> = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("not a list of service instances (line {line}, column {column})")
    })?;
    let mut found = Instances::default();
    for instance in parsed {
        let weight = match (Health::of(instance.checks.as_deref()), &instance.service.weights) {
            (Health::Critical, _) => continue,
            (Health::Warning, _) if passing => continue,
            (_, None) => 1,
            (Health::Passing, Some(weights)) => weights.passing,
            (Health::Warning, Some(weights)) => weights.warning,
        };
        // Consul takes a weight of 0 for warnings: no traffic while there is one.
        let Some(weight) = u32::try_from(weight).ok().filter(|weight| *weight > 0) else {
            continue;
        };
        match endpoint(instance, weight) {
            Ok(endpoint) => found.endpoints.push(endpoint),
            Err(why) => {
                found.unusable += 1;
                found.why.get_or_insert(why);
            }
        }
    }
    fit_weights(&mut found.endpoints);
    // One address twice is two registrations of one process: it is used once, with the larger weight.
    found.endpoints.sort_by(|a, b| {
        let key = |endpoint: &EndpointSpec| Reverse(endpoint.weight);
        a.address.cmp(&b.address).then_with(|| key(a).cmp(&key(b)))
    });
    found.endpoints.dedup_by(|b, a| a.address == b.address);
    Ok(found)
}

fn endpoint(instance: Instance, weight: u32) -> Result<EndpointSpec, String> {
    let Instance { node, service, .. } = instance;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let address = filled(service.address)
        .or_else(|| filled(node.address))
        .ok_or("neither the service nor its node has an address")?;
    let ip: IpAddr = address.parse().map_err(|_| {
        let shown: String = address.chars().filter(|c| !c.is_control()).take(80).collect();
        format!("`{shown}` is no IP address")
    })?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{ip} cannot be connected to"));
    }
    let port = u16::try_from(service.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("{} is no port", service.port))?;
    let mut labels = node.meta.unwrap_or_default();
    // The service knows better than its node.
    labels.extend(service.meta.unwrap_or_default());
    let zone_of = |locality: Option<Locality>| filled(locality.and_then(|locality| locality.zone));
    let zone = zone_of(service.locality)
        .or_else(|| zone_of(node.locality))
        .or_else(|| filled(labels.get(ZONE).cloned()));
    let address = SocketAddr::new(ip, port);
    Ok(EndpointSpec { weight, zone, labels, ..EndpointSpec::at(address) })
}

/// Scales weights down to 1..=[`MAX_WEIGHT`] where one is larger.
fn fit_weights(endpoints: &mut [EndpointSpec]) {
    let largest = endpoints.iter().map(|endpoint| endpoint.weight).max().unwrap_or(1);
    if largest <= MAX_WEIGHT {
        return;
    }
    for endpoint in endpoints {
        let scaled = u64::from(endpoint.weight) * u64::from(MAX_WEIGHT) / u64::from(largest);
        endpoint.weight = u32::try_from(scaled).unwrap_or(MAX_WEIGHT).max(1);
    }
}

/// What holds of any bytes that an agent may answer with: a list of instances with places in it that can be connected to, each once, or
/// an error in one line.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(bytes: &[u8]) {
    for passing in [false, true] {
        match parse(bytes, passing) {
            Ok(found) => {
                assert!(found.endpoints.is_sorted_by(|a, b| a.address < b.address));
                assert!(found.endpoints.iter().all(|spec| (1..=MAX_WEIGHT).contains(&spec.weight)));
                assert_eq!(found.why.is_some(), found.unusable > 0);
            }
            Err(why) => assert!(why.len() < 100 && !why.contains('\n')),
        }
    }
}

#[cfg(test)]
mod tests;
