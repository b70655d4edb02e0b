use envoy_types::pb::envoy::config::core::v3::Pipe;
use envoy_types::pb::envoy::config::endpoint::v3::Endpoint;
use envoy_types::pb::google::protobuf::{Struct, UInt32Value, Value};
use proptest::prelude::*;

use super::*;

fn socket(address: &str, port: u32) -> WireAddress {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(port));
    let address = address.to_owned();
    let socket = SocketAddress { address, port_specifier, ..SocketAddress::default() };
    WireAddress { address: Some(address::Address::SocketAddress(socket)) }
}

fn at(address: WireAddress) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    let host_identifier = Some(lb_endpoint::HostIdentifier::Endpoint(endpoint));
    LbEndpoint { host_identifier, ..LbEndpoint::default() }
}

fn port(port: u32) -> LbEndpoint {
    at(socket("10.0.0.1", port))
}

fn healthy(port_value: u32, status: HealthStatus) -> LbEndpoint {
    LbEndpoint { health_status: status as i32, ..port(port_value) }
}

fn weighing(port_value: u32, weight: u32) -> LbEndpoint {
    LbEndpoint { load_balancing_weight: Some(UInt32Value { value: weight }), ..port(port_value) }
}

fn locality(priority: u32, weight: Option<u32>, endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        priority,
        load_balancing_weight: weight.map(|value| UInt32Value { value }),
        lb_endpoints: endpoints,
        ..LocalityLbEndpoints::default()
    }
}

fn assignment(endpoints: Vec<LocalityLbEndpoints>) -> ClusterLoadAssignment {
    let cluster_name = "articles".to_owned();
    ClusterLoadAssignment { cluster_name, endpoints, ..ClusterLoadAssignment::default() }
}

/// Port, priority and weight of each endpoint.
fn seen(localities: Vec<LocalityLbEndpoints>) -> Vec<(u16, u32, u32)> {
    let set = endpoints(&assignment(localities)).unwrap();
    let port = |spec: &EndpointSpec| match &spec.address {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => 0,
    };
    set.iter().map(|spec| (port(spec), spec.priority, spec.weight)).collect()
}

fn refused(endpoint: LbEndpoint) -> String {
    endpoints(&assignment(vec![locality(0, None, vec![port(1), endpoint])])).unwrap_err()
}

#[test]
fn endpoints_are_ordered_by_priority_and_address_and_priorities_have_no_gaps() {
    let set = seen(vec![
        locality(7, None, vec![port(30)]),
        locality(2, None, vec![port(10), port(9)]),
        locality(7, None, vec![port(20)]),
    ]);
    assert_eq!(set, [(9, 0, 1), (10, 0, 1), (20, 1, 1), (30, 1, 1)]);
}

#[test]
fn health_decides_who_is_used() {
    use HealthStatus::{Degraded, Draining, Healthy, Timeout, Unhealthy, Unknown};
    let all = [Unknown, Healthy, Unhealthy, Draining, Timeout, Degraded];
    let numbered = (1..).zip(all).map(|(number, status)| healthy(number, status)).collect();
    assert_eq!(seen(vec![locality(0, None, numbered)]), [(1, 0, 1), (2, 0, 1), (6, 1, 1)]);
    // A degraded endpoint of the first priority comes after a fit one of the last.
    let (first, last) = (vec![healthy(1, Degraded)], vec![healthy(2, Healthy)]);
    let set = seen(vec![locality(0, None, first), locality(5, None, last)]);
    assert_eq!(set, [(2, 0, 1), (1, 1, 1)]);
    // All are said to be unhealthy: better those than none. One that drains is leaving.
    let unfit = vec![healthy(1, Unhealthy), healthy(2, Timeout), healthy(3, Draining)];
    assert_eq!(seen(vec![locality(0, None, unfit)]), [(1, 0, 1), (2, 0, 1)]);
    assert_eq!(seen(vec![locality(0, None, vec![healthy(1, Draining)])]), []);
}

#[test]
fn weights_of_endpoints_keep_their_proportion_within_a_priority() {
    let weigh = |weights: &[u32]| {
        let endpoints = (1..).zip(weights).map(|(port, weight)| weighing(port, *weight)).collect();
        let set = seen(vec![locality(0, None, endpoints)]);
        set.iter().map(|(_, _, weight)| *weight).collect::<Vec<_>>()
    };
    assert_eq!(weigh(&[1, 3, 1_000]), [1, 3, 1_000]);
    assert_eq!(weigh(&[5_000, 10_000]), [500, 1_000]);
    assert_eq!(weigh(&[1, u32::MAX]), [1, 1_000]);
}

#[test]
fn weights_of_localities_count_where_all_have_one() {
    let (a, b) = (vec![port(1), port(2)], vec![port(3)]);
    let both = vec![locality(0, Some(80), a.clone()), locality(0, Some(20), b.clone())];
    assert_eq!(seen(both), [(1, 0, 40), (2, 0, 40), (3, 0, 20)]);
    let one = vec![locality(0, Some(80), a), locality(0, None, b)];
    assert_eq!(seen(one), [(1, 0, 1), (2, 0, 1), (3, 0, 1)]);
    // A third of 1 is no whole number: all are brought up.
    let thirds = vec![locality(0, Some(1), vec![port(1), port(2), port(3)])];
    assert_eq!(seen(thirds), [(1, 0, 1_000), (2, 0, 1_000), (3, 0, 1_000)]);
}

#[test]
fn an_address_that_is_there_twice_counts_at_its_better_priority() {
    let twice = vec![locality(1, None, vec![port(1), port(2)]), locality(0, None, vec![port(1)])];
    assert_eq!(seen(twice), [(1, 0, 1), (2, 1, 1)]);
}

#[test]
fn locality_and_metadata_become_zone_and_labels() {
    let value = |kind| Value { kind: Some(kind) };
    let fields = [
        ("version", value(Kind::StringValue("v2".to_owned()))),
        ("stage", value(Kind::NumberValue(3.0))),
        ("canary", value(Kind::BoolValue(true))),
        ("nothing", value(Kind::NullValue(0))),
    ];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let filter_metadata = [("envoy.lb".to_owned(), Struct { fields })].into();
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    let zone = Locality { region: "eu".into(), zone: "eu-1a".into(), sub_zone: "r7".into() };
    let endpoint = LbEndpoint { metadata, ..port(1) };
    let locality =
        LocalityLbEndpoints { locality: Some(zone), ..locality(0, None, vec![endpoint]) };
    let set = endpoints(&assignment(vec![locality])).unwrap();
    assert_eq!(set[0].zone.as_deref(), Some("eu-1a"));
    let labels: Vec<_> = set[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["canary=true", "stage=3", "version=v2"]);
    let region = Locality { region: "eu".into(), ..Locality::default() };
    assert_eq!(zone_of(&region).as_deref(), Some("eu"));
    assert_eq!(zone_of(&Locality::default()), None);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let udp = SocketAddress { protocol: 1, ..SocketAddress::default() };
    let udp = WireAddress { address: Some(address::Address::SocketAddress(udp)) };
    let pipe = |path: &str| {
        let pipe = Pipe { path: path.to_owned(), mode: 0 };
        WireAddress { address: Some(address::Address::Pipe(pipe)) }
    };
    let set = endpoints(&assignment(vec![locality(0, None, vec![at(pipe("/run/a.sock"))])]));
    assert_eq!(set.unwrap()[0].address, Address::Unix("/run/a.sock".into()));
    let place = "endpoints[0].lb_endpoints[1].";
    let cases = [
        (at(socket("articles.internal", 80)), "endpoint.address: \"articles.internal\" is no IP"),
        (at(socket("10.0.0.1", 0)), "endpoint.address: 0 is no port"),
        (at(socket("10.0.0.1", 65_536)), "endpoint.address: 65536 is no port"),
        (at(udp), "endpoint.address: the protocol is not TCP"),
        (at(pipe("")), "endpoint.address: "),
        (at(pipe("run/a.sock")), "endpoint.address: "),
        (at(WireAddress { address: None }), "endpoint.address: it is empty"),
        (LbEndpoint::default(), "endpoint: the address is missing"),
        (weighing(2, 0), "load_balancing_weight: 0 is below 1"),
        (LbEndpoint { health_status: 9, ..port(2) }, "health_status: 9 is no status"),
    ];
    for (endpoint, why) in cases {
        let refusal = refused(endpoint);
        assert!(refusal.starts_with(&format!("{place}{why}")), "{refusal}");
    }
    let long = refused(at(socket(&"é".repeat(10_000), 80)));
    assert!(long.len() < 400, "{} bytes", long.len());
}

fn any_endpoint() -> impl Strategy<Value = LbEndpoint> {
    (1_u32..200, 0_i32..6, proptest::option::of(1_u32..)).prop_map(|(number, status, weight)| {
        LbEndpoint {
            health_status: status,
            load_balancing_weight: weight.map(|value| UInt32Value { value }),
            ..port(number)
        }
    })
}

proptest! {
    #[test]
    fn any_assignment_keeps_the_bounds(
        localities in proptest::collection::vec(
            (any::<u32>(), proptest::option::of(any::<u32>()),
             proptest::collection::vec(any_endpoint(), 0..20)),
            0..8,
        ),
    ) {
        let localities = localities.into_iter();
        let localities: Vec<_> = localities.map(|(priority, weight, endpoints)| locality(priority, weight, endpoints)).collect();
        let written: HashSet<_> = localities.iter().flat_map(|one| &one.lb_endpoints)
            .filter(|one| one.health_status != HealthStatus::Draining as i32)
            .map(|one| format!("{:?}", one.host_identifier)).collect();
        let set = endpoints(&assignment(localities)).unwrap();
        prop_assert!(set.len() <= written.len());
        prop_assert_eq!(set.is_empty(), written.is_empty(), "all that do not drain are gone");
        let addresses: HashSet<_> = set.iter().map(|spec| spec.address.clone()).collect();
        prop_assert_eq!(addresses.len(), set.len());
        prop_assert!(set.iter().all(|spec| (1..=1_000).contains(&spec.weight)));
        prop_assert!(set.first().is_none_or(|first| first.priority == 0));
        for pair in set.windows(2) {
            let step = pair[1].priority.checked_sub(pair[0].priority);
            prop_assert!(matches!(step, Some(0 | 1)), "gap or disorder");
        }
    }
}
