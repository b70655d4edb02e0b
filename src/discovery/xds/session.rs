//! One ADS stream's state of the world for one type of resource: what to ask, and what a response changes. No I/O.
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
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::{Message, Name};

use super::endpoints::{endpoints, shortened};
use crate::base::endpoint::EndpointSpec;

/// `google.rpc.Code.INVALID_ARGUMENT`: what a refusal says by convention.
const INVALID_ARGUMENT: i32 = 3;

/// Mistakes named in one refusal. More would fill the control plane's log with one mistake made many times.
const NAMED_MISTAKES: usize = 5;

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
pub(super) struct Session {
    node: Node,
    names: BTreeSet<String>,
    /// Accepted last; empty at the start of a stream.
    version: String,
    /// Of the last response on this stream; empty where there was none.
    nonce: String,
    stream: Stream,
}

/// How far the stream is. Invariant: version and nonce are empty unless it is `Asked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Closed,
    /// Open, and nothing has been asked on it.
    Open,
    Asked,
}

impl Session {
    /// Asks for nothing yet; `node` is who asks.
    pub(super) fn new(node: Node) -> Self {
        let (version, nonce) = (String::new(), String::new());
        Self { node, names: BTreeSet::new(), version, nonce, stream: Stream::Closed }
    }

    /// A stream stands. The first request on it, unless nothing is wanted.
    pub(super) fn open(&mut self) -> Option<DiscoveryRequest> {
        self.close();
        self.stream = Stream::Open;
        // An empty first request would ask for everything.
        (!self.names.is_empty()).then(|| self.request(None))
    }

    /// The stream is gone, and with it its nonces. The names stay.
    pub(super) fn close(&mut self) {
        self.version.clear();
        self.nonce.clear();
        self.stream = Stream::Closed;
    }

    /// These resources are wanted from here on. The request that says so, where there is something to say.
    pub(super) fn want(&mut self, names: BTreeSet<String>) -> Option<DiscoveryRequest> {
        if names == self.names {
            return None;
        }
        self.names = names;
        match self.stream {
            Stream::Closed => None,
            Stream::Open if self.names.is_empty() => None,
            Stream::Open | Stream::Asked => Some(self.request(None)),
        }
    }

    /// Takes a response in.
    pub(super) fn take(&mut self, response: DiscoveryResponse) -> Taken {
        let mut taken = Taken::default();
        if response.type_url != ClusterLoadAssignment::type_url() || self.stream != Stream::Asked {
            let asked = shortened(&response.type_url);
            let why = format!("a response of type {asked:?}, which was not asked for");
            taken.mistakes.insert(String::new(), why);
            return taken;
        }
        let mut seen = BTreeSet::new();
        for (index, resource) in response.resources.iter().enumerate() {
            let assignment = match assignment_of(resource) {
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
            if !self.names.contains(&name) {
                continue;
            }
            match endpoints(&assignment) {
                Ok(set) => drop(taken.sets.insert(name, set)),
                Err(why) => drop(taken.mistakes.insert(name, why)),
            }
        }
        self.nonce = response.nonce;
        let refusal = refusal(&taken.mistakes);
        if refusal.is_none() {
            self.version = response.version_info;
        }
        taken.answer = Some(self.request(refusal));
        taken
    }

    fn request(&mut self, error_detail: Option<Status>) -> DiscoveryRequest {
        let first = self.stream != Stream::Asked;
        self.stream = Stream::Asked;
        DiscoveryRequest {
            version_info: self.version.clone(),
            node: first.then(|| self.node.clone()),
            resource_names: self.names.iter().cloned().collect(),
            type_url: ClusterLoadAssignment::type_url(),
            response_nonce: self.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        }
    }
}

/// The assignment in a resource, which may stand in an envelope of its own.
fn assignment_of(resource: &Any) -> Result<ClusterLoadAssignment, String> {
    let malformed = |error: prost::DecodeError| format!("malformed: {error}");
    if resource.type_url == Resource::type_url() {
        let envelope = Resource::decode(&*resource.value).map_err(malformed)?;
        let inner = envelope.resource.ok_or("the envelope is empty")?;
        // Once: an envelope within an envelope is no assignment.
        return decode(&inner).map_err(malformed)?.ok_or_else(|| wrong_type(&inner));
    }
    decode(resource).map_err(malformed)?.ok_or_else(|| wrong_type(resource))
}

fn decode(resource: &Any) -> Result<Option<ClusterLoadAssignment>, prost::DecodeError> {
    if resource.type_url != ClusterLoadAssignment::type_url() {
        return Ok(None);
    }
    ClusterLoadAssignment::decode(&*resource.value).map(Some)
}

fn wrong_type(resource: &Any) -> String {
    format!("{:?} is no ClusterLoadAssignment", shortened(&resource.type_url))
}

/// The reason for a control plane; `None`: there is nothing to refuse.
fn refusal(mistakes: &BTreeMap<String, String>) -> Option<Status> {
    if mistakes.is_empty() {
        return None;
    }
    let named = mistakes.iter().take(NAMED_MISTAKES).map(|(name, why)| match name.as_str() {
        "" => why.clone(),
        name => format!("{}: {why}", shortened(name)),
    });
    let mut message = named.collect::<Vec<_>>().join("; ");
    if let Some(more) = mistakes.len().checked_sub(NAMED_MISTAKES).filter(|more| *more > 0) {
        message.push_str(&format!("; and {more} more"));
    }
    Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// What holds of any bytes that a control plane may send: a response is answered, and only one of the type that was asked for.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn hostile(bytes: &[u8]) {
    let mut session = Session::new(Node { id: "orders-1".to_owned(), ..Node::default() });
    session.want(["a", "b"].map(str::to_owned).into());
    session.open();
    if let Ok(response) = DiscoveryResponse::decode(bytes) {
        let known = response.type_url == ClusterLoadAssignment::type_url();
        let taken = session.take(response);
        assert_eq!(taken.answer.is_some(), known);
        assert!(taken.sets.keys().all(|name| name == "a" || name == "b"));
    }
}

#[cfg(test)]
mod tests;
