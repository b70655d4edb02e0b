//! One ADS stream's state of the world for assignments (EDS): what to ask, and what a response changes. No I/O.
//!
//! Source: "xDS REST and gRPC protocol", state of the world over an aggregated stream; gRFC A46 for what is used of a
//! response that is refused in part.
//!
//! - The first request of a stream carries the node, no nonce and **no version**: a control plane then answers with what
//!   is in force. With the last version it may stay silent, and silence does not tell "nothing changed" from "nothing
//!   known".
//! - Every response is answered: accepted with its version, or refused with the version accepted last and a reason.
//!   Both carry the response's nonce. Resources that are good are used even where others in the same response are not.
//! - A resource that a response does not name stays as it is: for endpoints absence is no removal.
//! - A response of a type that was not asked for is not answered: an answer would be a subscription to it.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Name;

use super::endpoints::{endpoints, shortened};
use super::subscription::{Subscription, resource};
use crate::base::endpoint::EndpointSpec;

/// What a response changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// Accepts or refuses the response; `None`: it is not to be answered.
    pub(super) answer: Option<DiscoveryRequest>,
    /// The endpoints of each resource that was asked for and is good.
    pub(super) sets: BTreeMap<String, Vec<EndpointSpec>>,
    /// What is wrong, by resource; under the empty name what concerns no resource that was asked for.
    pub(super) mistakes: BTreeMap<String, String>,
}

/// The memory of one control plane.
#[derive(Debug)]
pub(super) struct Session(Subscription);

impl Session {
    /// Asks for nothing yet; `node` is who asks.
    pub(super) fn new(node: Node) -> Self {
        Self(Subscription::new(ClusterLoadAssignment::type_url(), Some(node)))
    }

    /// A stream stands. The first request on it, unless nothing is wanted.
    pub(super) fn open(&mut self) -> Option<DiscoveryRequest> {
        self.0.open()
    }

    /// The stream is gone, and with it its nonces. The names stay.
    pub(super) fn close(&mut self) {
        self.0.close();
    }

    /// These resources are wanted from here on. The request that says so, where there is something to say.
    pub(super) fn want(&mut self, names: BTreeSet<String>) -> Option<DiscoveryRequest> {
        self.0.want(names)
    }

    /// Takes a response in.
    pub(super) fn take(&mut self, response: DiscoveryResponse) -> Taken {
        let mut taken = Taken::default();
        if !self.0.has_asked_for(&response.type_url) {
            let asked = shortened(&response.type_url);
            let why = format!("a response of type {asked:?}, which was not asked for");
            taken.mistakes.insert(String::new(), why);
            return taken;
        }
        let mut seen = BTreeSet::new();
        for (index, one) in response.resources.iter().enumerate() {
            let assignment = match resource::<ClusterLoadAssignment>(one) {
                Ok(assignment) => assignment,
                Err(why) => {
                    let first = || format!("resources[{index}]: {why}");
                    taken.mistakes.entry(String::new()).or_insert_with(first);
                    continue;
                }
            };
            let name = assignment.cluster_name.clone();
            if !seen.insert(name.clone()) {
                taken.sets.remove(&name);
                taken.mistakes.insert(name, "it is there twice".to_owned());
                continue;
            }
            if !self.0.names().contains(&name) {
                continue;
            }
            match endpoints(&assignment) {
                Ok(set) => drop(taken.sets.insert(name, set)),
                Err(why) => drop(taken.mistakes.insert(name, why)),
            }
        }
        let (version, nonce) = (response.version_info, response.nonce);
        taken.answer = Some(self.0.answer(version, nonce, &taken.mistakes));
        taken
    }
}

/// What holds of any bytes that a control plane may send: a response is answered, and only one of the type that was asked for.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(bytes: &[u8]) {
    let mut session = Session::new(Node { id: "orders-1".to_owned(), ..Node::default() });
    session.want(["a", "b"].map(str::to_owned).into());
    session.open();
    if let Ok(response) = <DiscoveryResponse as prost::Message>::decode(bytes) {
        super::clusters::hostile(&response);
        let known = response.type_url == ClusterLoadAssignment::type_url();
        let taken = session.take(response);
        assert_eq!(taken.answer.is_some(), known);
        assert!(taken.sets.keys().all(|name| name == "a" || name == "b"));
    }
}

#[cfg(test)]
mod tests;
