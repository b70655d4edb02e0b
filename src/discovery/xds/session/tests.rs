use envoy_types::pb::envoy::config::core::v3::{
    Address, SocketAddress, address, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use proptest::prelude::*;
use prost::Message;

use super::super::subscription::{INVALID_ARGUMENT, NAMED_MISTAKES};
use super::*;
use crate::base::rng::Rng;

fn session() -> Session {
    Session::new(Node { id: "orders-1".to_owned(), ..Node::default() })
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Port 0 makes it wrong.
fn assignment(name: &str, ports: &[u32]) -> ClusterLoadAssignment {
    let endpoint = |&port: &u32| {
        let socket = SocketAddress {
            address: "10.0.0.1".to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        };
        let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
        let endpoint = Endpoint { address, ..Endpoint::default() };
        let host_identifier = Some(HostIdentifier::Endpoint(endpoint));
        LbEndpoint { host_identifier, ..LbEndpoint::default() }
    };
    let lb_endpoints = ports.iter().map(endpoint).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

fn response(version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: ClusterLoadAssignment::type_url(),
        resources,
        ..DiscoveryResponse::default()
    }
}

fn packed(name: &str, ports: &[u32]) -> Any {
    pack_any(assignment(name, ports))
}

#[test]
fn a_stream_begins_with_the_node_and_without_version_and_nonce() {
    let mut session = session();
    assert_eq!(session.want(names(&["b", "a"])), None, "no stream");
    let first = session.open().unwrap();
    assert_eq!(first.node.unwrap().id, "orders-1");
    assert_eq!((&*first.version_info, &*first.response_nonce), ("", ""));
    assert_eq!(first.resource_names, ["a", "b"]);
    session.take(response("7", "n1", vec![packed("a", &[1])]));
    session.close();
    let again = session.open().unwrap();
    assert!(again.node.is_some());
    assert_eq!((&*again.version_info, &*again.response_nonce), ("", ""));
}

#[test]
fn nothing_is_asked_while_nothing_is_wanted() {
    let mut session = session();
    assert_eq!(session.open(), None);
    assert_eq!(session.want(names(&[])), None);
    assert!(session.want(names(&["a"])).unwrap().node.is_some());
    let none = session.want(names(&[])).unwrap();
    assert_eq!((none.resource_names.len(), none.node), (0, None), "the end of what was asked for");
}

#[test]
fn a_good_response_is_accepted_with_its_version_and_nonce() {
    let mut session = session();
    session.want(names(&["a"]));
    session.open();
    let taken = session.take(response("7", "n1", vec![packed("a", &[1, 2]), packed("z", &[3])]));
    let answer = taken.answer.unwrap();
    assert_eq!((&*answer.version_info, &*answer.response_nonce), ("7", "n1"));
    assert_eq!((answer.error_detail, answer.node), (None, None));
    assert_eq!(taken.sets.keys().collect::<Vec<_>>(), ["a"], "z was not asked for");
    assert_eq!(taken.sets["a"].len(), 2);
    let more = session.want(names(&["a", "b"])).unwrap();
    assert_eq!((&*more.version_info, &*more.response_nonce), ("7", "n1"));
}

#[test]
fn a_bad_resource_is_refused_with_the_reason_and_the_good_ones_are_used() {
    let mut session = session();
    session.want(names(&["a", "b"]));
    session.open();
    session.take(response("7", "n1", vec![packed("a", &[1])]));
    let taken = session.take(response("8", "n2", vec![packed("a", &[0]), packed("b", &[2])]));
    let answer = taken.answer.unwrap();
    assert_eq!((&*answer.version_info, &*answer.response_nonce), ("7", "n2"));
    let detail = answer.error_detail.unwrap();
    assert_eq!(detail.code, INVALID_ARGUMENT);
    let why = "endpoints[0].lb_endpoints[0].endpoint.address: 0 is no port from 1 to 65535";
    assert_eq!(detail.message, format!("a: {why}"));
    assert_eq!(taken.sets.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(taken.mistakes["a"], why);
    // The next good one is accepted as if nothing had been.
    let taken = session.take(response("9", "n3", vec![packed("a", &[4])]));
    assert_eq!(taken.answer.unwrap().version_info, "9");
}

#[test]
fn resources_that_are_no_assignments_are_refused() {
    let garbage = Any { type_url: ClusterLoadAssignment::type_url(), value: vec![0xff; 9] };
    let other = Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: Vec::new() };
    let empty = pack_any(Resource::default());
    let twice =
        pack_any(Resource { resource: Some(pack_any(Resource::default())), ..Resource::default() });
    for (resource, why) in [
        (garbage, "resources[0]: malformed"),
        (other, "resources[0]: \"type.googleapis.com/x.Y\" is no ClusterLoadAssignment"),
        (empty, "resources[0]: the envelope is empty"),
        (twice, "is no ClusterLoadAssignment"),
    ] {
        let mut session = session();
        session.want(names(&["a"]));
        session.open();
        let taken = session.take(response("1", "n", vec![resource, packed("a", &[1])]));
        let message = taken.answer.unwrap().error_detail.unwrap().message;
        assert!(message.contains(why), "{message}");
        assert_eq!(taken.sets.len(), 1, "the good one is used");
    }
}

#[test]
fn an_assignment_may_stand_in_an_envelope_and_not_twice_in_a_response() {
    let mut session = session();
    session.want(names(&["a"]));
    session.open();
    let enveloped = pack_any(Resource {
        name: "a".to_owned(),
        resource: Some(packed("a", &[1])),
        ..Resource::default()
    });
    let taken = session.take(response("1", "n1", vec![enveloped.clone()]));
    assert_eq!(taken.sets["a"].len(), 1);
    let taken = session.take(response("2", "n2", vec![enveloped, packed("a", &[1])]));
    assert_eq!(taken.answer.unwrap().error_detail.unwrap().message, "a: it is there twice");
    assert!(taken.sets.is_empty(), "which of the two holds is not known");
}

#[test]
fn a_response_of_another_type_is_not_answered() {
    let mut session = session();
    session.want(names(&["a"]));
    session.open();
    let other = DiscoveryResponse {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..response("1", "n1", Vec::new())
    };
    let taken = session.take(other);
    assert_eq!((taken.answer, taken.mistakes.len()), (None, 1));
}

#[test]
fn a_refusal_names_a_few_mistakes_and_counts_the_rest() {
    let mut session = session();
    let all: Vec<String> = (0..20).map(|number| format!("s{number:02}")).collect();
    session.want(all.iter().cloned().collect());
    session.open();
    let wrong = all.iter().map(|name| packed(name, &[0])).collect();
    let detail = session.take(response("1", "n", wrong)).answer.unwrap().error_detail.unwrap();
    assert!(detail.message.ends_with("; and 15 more"), "{}", detail.message);
    assert_eq!(detail.message.matches("is no port").count(), NAMED_MISTAKES);
}

/// Named invariants of every request, over random walks of streams, subscriptions and responses good and bad.
#[test]
fn walks_keep_the_protocol() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let mut session = session();
        let (mut wanted, mut open, mut asked) = (BTreeSet::new(), false, false);
        let mut accepted = String::new();
        for step in 0..100 {
            let request = match rng.below(8) {
                0 => {
                    (open, asked) = (true, false);
                    accepted.clear();
                    session.open()
                }
                1 => {
                    (open, asked) = (false, false);
                    session.close();
                    None
                }
                2 | 3 => {
                    wanted = names(&["a", "b", "c"][..rng.below(4)]);
                    session.want(wanted.clone())
                }
                _ => {
                    let good = rng.below(2) == 0;
                    let (version, nonce) = (format!("v{step}"), format!("n{step}"));
                    let ports = if good { [1] } else { [0] };
                    let resources = vec![packed("a", &ports)];
                    let taken = session.take(response(&version, &nonce, resources));
                    let context = format!("seed {seed}, step {step}");
                    assert_eq!(taken.answer.is_some(), asked, "answered iff asked: {context}");
                    assert!(taken.sets.keys().all(|name| wanted.contains(name)), "{context}");
                    if let Some(answer) = &taken.answer {
                        let refused = !good && wanted.contains("a");
                        assert_eq!(answer.error_detail.is_some(), refused, "{context}");
                        assert_eq!(answer.response_nonce, nonce, "{context}");
                        if !refused {
                            accepted = version;
                        }
                    }
                    taken.answer
                }
            };
            let Some(request) = request else { continue };
            assert!(open, "nothing is said without a stream: seed {seed}, step {step}");
            assert_eq!(request.node.is_some(), !asked, "the node comes first and once");
            assert!(asked || !request.resource_names.is_empty(), "never everything");
            assert_eq!(request.version_info, accepted, "seed {seed}, step {step}");
            assert_eq!(request.resource_names.iter().cloned().collect::<BTreeSet<_>>(), wanted);
            asked = true;
        }
    }
}

proptest! {
    /// What a broken or hostile control plane may send.
    #[test]
    fn mutilated_responses_are_answered_and_never_panic(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let whole = response("1", "n1", vec![packed("a", &[1, 2, 3]), packed("b", &[4])]);
        let mut bytes = whole.encode_to_vec();
        for (at, value) in &cuts {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        hostile(&bytes);
    }
}
