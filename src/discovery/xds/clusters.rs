//! What clusters (CDS) say of balancing, for upstreams whose configuration does not. No I/O.
//!
//! Asked for by name, as gRPC does (gRFC A27), not all that there are: a control plane of thousands of services would send them
//! all. Everything else that a cluster says (limits, outlier detection, TLS) is written in the configuration file here.
//!
//! - A cluster that says `ROUND_ROBIN` in `lb_policy` says nothing: it is what is there where nobody wrote anything.
//!   In `load_balancing_policy` every word was written.
//! - What we do not have is refused with the reason, as gRPC does. What was in force stays so.
//! - A cluster that a response does not name leaves what it said in force: it is advice, and nobody has taken it back.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use prost::{Message, Name};

use super::super::AdvisedBalance;
use super::endpoints::shortened;
use super::subscription::{Subscription, resource};

/// Percent of the mean load, as `max_load` of the configuration. More bounds nothing.
const MAX_LOADS: std::ops::RangeInclusive<u32> = 100..=1_000;

/// What a response changed.
#[derive(Debug, PartialEq)]
pub(super) struct Advice {
    /// Accepts or refuses the response.
    pub(super) answer: DiscoveryRequest,
    /// Of each cluster that was asked for and is understood.
    pub(super) policies: BTreeMap<String, AdvisedBalance>,
    /// What is wrong, by cluster; under the empty name what concerns none that was asked for.
    pub(super) mistakes: BTreeMap<String, String>,
}

/// The memory of one control plane.
#[derive(Debug)]
pub(super) struct Clusters(Subscription);

impl Clusters {
    /// Asks for nothing yet.
    pub(super) fn new() -> Self {
        Self(Subscription::new(Cluster::type_url(), None))
    }

    /// A stream stands on which the node was told. The first request, unless nothing is wanted.
    pub(super) fn open(&mut self) -> Option<DiscoveryRequest> {
        self.0.open()
    }

    /// The stream is gone.
    pub(super) fn close(&mut self) {
        self.0.close();
    }

    /// These are wanted from here on. The request that says so, where there is something to say.
    pub(super) fn want(&mut self, names: BTreeSet<String>) -> Option<DiscoveryRequest> {
        self.0.want(names)
    }

    /// Takes a response in; `None`: it is no answer to anything asked here.
    pub(super) fn take(&mut self, response: &DiscoveryResponse) -> Option<Advice> {
        if !self.0.has_asked_for(&response.type_url) {
            return None;
        }
        let (mut policies, mut mistakes) = (BTreeMap::new(), BTreeMap::new());
        for (index, one) in response.resources.iter().enumerate() {
            match resource::<Cluster>(one) {
                Err(why) => {
                    let first = || format!("resources[{index}]: {why}");
                    mistakes.entry(String::new()).or_insert_with(first);
                }
                Ok(cluster) if !self.0.names().contains(&cluster.name) => {}
                Ok(cluster) => match policy(&cluster) {
                    Ok(policy) => drop(policies.insert(cluster.name, policy)),
                    Err(why) => drop(mistakes.insert(cluster.name, why)),
                },
            }
        }
        let (version, nonce) = (response.version_info.clone(), response.nonce.clone());
        let answer = self.0.answer(version, nonce, &mistakes);
        Some(Advice { answer, policies, mistakes })
    }
}

fn policy(cluster: &Cluster) -> Result<AdvisedBalance, String> {
    if let Some(written) = &cluster.load_balancing_policy {
        // The first that is known counts.
        let configs = written
            .policies
            .iter()
            .filter_map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref());
        let mut unknown = Vec::new();
        for config in configs {
            match written_policy(config)? {
                Some(policy) => return Ok(policy),
                None => unknown.push(shortened(&config.type_url)),
            }
        }
        return Err(format!("load_balancing_policy: none is supported of {unknown:?}"));
    }
    match LbPolicy::try_from(cluster.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Ok(AdvisedBalance::Unsaid),
        Ok(LbPolicy::LeastRequest) => Ok(AdvisedBalance::LeastRequest),
        Ok(LbPolicy::Random) => Ok(AdvisedBalance::Random),
        Ok(LbPolicy::Maglev) => Ok(AdvisedBalance::Maglev),
        Ok(LbPolicy::RingHash) => {
            let bound = cluster.common_lb_config.as_ref();
            let bound = bound.and_then(|common| common.consistent_hashing_lb_config.as_ref());
            ring_hash(bound.and_then(|bound| bound.hash_balance_factor))
        }
        Ok(other @ (LbPolicy::ClusterProvided | LbPolicy::LoadBalancingPolicyConfig)) => {
            Err(format!("lb_policy: {} is not supported", other.as_str_name()))
        }
        Err(_) => Err(format!("lb_policy: {} is not known", cluster.lb_policy)),
    }
}

/// `None`: one that we do not have.
fn written_policy(config: &Any) -> Result<Option<AdvisedBalance>, String> {
    let is = |type_url: String| config.type_url == type_url;
    Ok(Some(if is(LeastRequest::type_url()) {
        AdvisedBalance::LeastRequest
    } else if is(RoundRobin::type_url()) {
        AdvisedBalance::RoundRobin
    } else if is(Random::type_url()) {
        AdvisedBalance::Random
    } else if is(Maglev::type_url()) {
        AdvisedBalance::Maglev
    } else if is(RingHash::type_url()) {
        let malformed = |error| format!("load_balancing_policy: malformed: {error}");
        let ring = RingHash::decode(&*config.value).map_err(malformed)?;
        let bound = ring.consistent_hashing_lb_config;
        ring_hash(bound.and_then(|bound| bound.hash_balance_factor))?
    } else {
        return Ok(None);
    }))
}

fn ring_hash(factor: Option<UInt32Value>) -> Result<AdvisedBalance, String> {
    let max_load = match factor.map_or(0, |factor| factor.value) {
        0 => None,
        few if few < *MAX_LOADS.start() => {
            return Err(format!("hash_balance_factor: {few} is less than 100"));
        }
        percent => MAX_LOADS.contains(&percent).then_some(percent),
    };
    Ok(AdvisedBalance::RingHash { max_load })
}

/// The same of clusters as `session::hostile` says of assignments.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(response: &DiscoveryResponse) {
    let mut clusters = Clusters::new();
    clusters.want(["a", "b"].map(str::to_owned).into());
    clusters.open();
    let advice = clusters.take(response);
    assert_eq!(advice.is_some(), response.type_url == Cluster::type_url());
    let told = advice.map_or_else(BTreeMap::new, |advice| advice.policies);
    assert!(told.keys().all(|name| name == "a" || name == "b"));
}

#[cfg(test)]
mod tests;
