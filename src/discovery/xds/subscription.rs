//! What of one type of resource is asked for on a stream, and what was answered to it. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, Resource};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::{Message, Name};

use super::endpoints::shortened;

/// `google.rpc.Code.INVALID_ARGUMENT`: what a refusal says by convention.
pub(super) const INVALID_ARGUMENT: i32 = 3;

/// Mistakes named in one refusal. More would fill the control plane's log with one mistake made many times.
pub(super) const NAMED_MISTAKES: usize = 5;

/// The memory of one control plane.
#[derive(Debug)]
pub(super) struct Subscription {
    type_url: String,
    /// Told with the first request; `None` where another type's comes before.
    node: Option<Node>,
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

impl Subscription {
    /// To nothing yet.
    pub(super) fn new(type_url: String, node: Option<Node>) -> Self {
        let (version, nonce) = (String::new(), String::new());
        Self { type_url, node, names: BTreeSet::new(), version, nonce, stream: Stream::Closed }
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

    /// What is wanted.
    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// True where a response of this type is an answer.
    pub(super) fn has_asked_for(&self, type_url: &str) -> bool {
        self.stream == Stream::Asked && self.type_url == type_url
    }

    /// Accepts a response, or refuses it with its mistakes and the version that stays in force.
    pub(super) fn answer(
        &mut self,
        version: String,
        nonce: String,
        mistakes: &BTreeMap<String, String>,
    ) -> DiscoveryRequest {
        self.nonce = nonce;
        let refusal = refusal(mistakes);
        if refusal.is_none() {
            self.version = version;
        }
        self.request(refusal)
    }

    fn request(&mut self, error_detail: Option<Status>) -> DiscoveryRequest {
        let first = self.stream != Stream::Asked;
        self.stream = Stream::Asked;
        DiscoveryRequest {
            version_info: self.version.clone(),
            node: self.node.clone().filter(|_| first),
            resource_names: self.names.iter().cloned().collect(),
            type_url: self.type_url.clone(),
            response_nonce: self.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        }
    }
}

/// What a resource holds, which may stand in an envelope of its own.
pub(super) fn resource<T: Message + Name + Default>(resource: &Any) -> Result<T, String> {
    let malformed = |error: prost::DecodeError| format!("malformed: {error}");
    let wrong = |any: &Any| format!("{:?} is no {}", shortened(&any.type_url), T::NAME);
    let decoded = |any: &Any| match any.type_url == T::type_url() {
        true => T::decode(&*any.value).map_err(malformed),
        false => Err(wrong(any)),
    };
    if resource.type_url == Resource::type_url() {
        let envelope = Resource::decode(&*resource.value).map_err(malformed)?;
        // Once: an envelope within an envelope is neither.
        return decoded(&envelope.resource.ok_or("the envelope is empty")?);
    }
    decoded(resource)
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
