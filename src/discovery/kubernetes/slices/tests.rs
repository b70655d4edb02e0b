use serde_json::{Value, json};

use super::*;

/// A slice of IPv4 endpoints with two ports.
fn slice(endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "articles-abc12", "labels": { "kubernetes.io/service-name": "articles" } },
        "ports": [
            { "name": "metrics", "port": 9901, "protocol": "TCP" },
            { "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http" },
            { "name": "dns", "port": 53, "protocol": "UDP" }
        ],
        "endpoints": endpoints,
    })
}

fn endpoint(address: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut endpoint = json!({
        "addresses": [address], "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": "node-1", "zone": "eu-1a",
        "targetRef": { "kind": "Pod", "name": format!("pod-{address}"), "namespace": "blog", "uid": address },
    });
    change(&mut endpoint);
    endpoint
}

fn plain(address: &str) -> Value {
    endpoint(address, |_| {})
}

fn conditions(address: &str, conditions: Value) -> Value {
    endpoint(address, |endpoint| endpoint["conditions"] = conditions)
}

fn merged(port: &Port, zone: Option<&str>, slices: &[Value]) -> Merged {
    let slices: Vec<Slice> = slices
        .iter()
        .map(|slice| Slice::read(&serde_json::from_value(slice.clone()).unwrap(), port))
        .collect();
    merge(slices.iter(), zone)
}

fn http() -> Port {
    Port::Named("http".to_owned())
}

fn addresses(slices: &[Value]) -> Vec<String> {
    let found = merged(&http(), None, slices).endpoints;
    found.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn an_endpoint_has_zone_and_labels() {
    let found = merged(&http(), None, &[slice(&json!([plain("10.0.0.1")]))]);
    let endpoint = &found.endpoints[0];
    assert_eq!(endpoint.address.to_string(), "10.0.0.1:8080");
    assert_eq!((endpoint.weight, endpoint.zone.as_deref()), (1, Some("eu-1a")));
    let labels: Vec<_> = endpoint.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("node", "node-1"), ("pod", "pod-10.0.0.1"), ("zone", "eu-1a")]);
}

#[test]
fn traffic_goes_to_ready_endpoints_and_without_any_to_those_that_still_serve() {
    let ready = json!({ "ready": true, "serving": true, "terminating": false });
    let leaving = json!({ "ready": false, "serving": true, "terminating": true });
    let gone = json!({ "ready": false, "serving": false, "terminating": true });
    let starting = json!({ "ready": false, "serving": false, "terminating": false });
    // publishNotReadyAddresses: ready whatever the pod says.
    let published = json!({ "ready": true, "serving": false, "terminating": true });
    let all = |first: &Value| {
        slice(&json!([
            conditions("10.0.0.1", first.clone()),
            conditions("10.0.0.2", leaving.clone()),
            conditions("10.0.0.3", gone.clone()),
            conditions("10.0.0.4", starting.clone()),
        ]))
    };
    assert_eq!(addresses(&[all(&ready)]), ["10.0.0.1:8080"]);
    assert_eq!(addresses(&[all(&published)]), ["10.0.0.1:8080"]);
    assert_eq!(addresses(&[all(&starting)]), ["10.0.0.2:8080"]);
    assert_eq!(addresses(&[slice(&json!([conditions("10.0.0.3", gone)]))]), [""; 0]);
    // What is not said of `ready` is true.
    assert_eq!(addresses(&[slice(&json!([conditions("10.0.0.5", json!({}))]))]), ["10.0.0.5:8080"]);
    let unsaid = endpoint("10.0.0.6", |endpoint| endpoint["conditions"] = Value::Null);
    assert_eq!(addresses(&[slice(&json!([unsaid]))]), ["10.0.0.6:8080"]);
}

#[test]
fn a_named_port_is_looked_up_in_each_slice() {
    let mut other = slice(&json!([plain("10.0.0.2")]));
    other["ports"] = json!([{ "name": "http", "port": 8081, "protocol": "TCP" }]);
    let found = addresses(&[slice(&json!([plain("10.0.0.1")])), other]);
    assert_eq!(found, ["10.0.0.1:8080", "10.0.0.2:8081"]);
}

#[test]
fn a_port_that_is_not_there_is_told_of() {
    let one = slice(&json!([plain("10.0.0.1")]));
    for port in [Port::Named("grpc".to_owned()), Port::Number(1), Port::Named("dns".to_owned())] {
        let found = merged(&port, None, std::slice::from_ref(&one));
        assert_eq!((found.endpoints.len(), found.unusable), (0, 1), "{port}");
    }
    let by_number = merged(&Port::Number(9901), None, std::slice::from_ref(&one));
    assert_eq!(by_number.endpoints[0].address.to_string(), "10.0.0.1:9901");
    let mut unnamed = one.clone();
    unnamed["ports"] = json!([{ "name": "", "port": 80 }]);
    assert_eq!(merged(&Port::Number(80), None, &[unnamed]).endpoints.len(), 1);
    let mut every = one;
    every["ports"] = Value::Null;
    let found = merged(&Port::Number(7), None, &[every]);
    assert_eq!(found.endpoints[0].address.to_string(), "10.0.0.1:7");
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_ready_if_any_says_so() {
    let leaving = json!({ "ready": false, "serving": true, "terminating": true });
    let old = slice(&json!([conditions("10.0.0.1", leaving), plain("10.0.0.2")]));
    let new = slice(&json!([plain("10.0.0.1")]));
    assert_eq!(addresses(&[old.clone(), new.clone()]), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(addresses(&[new, old]), ["10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn of_a_pod_with_two_addresses_the_ipv4_one_is_used() {
    let v6 = |address: &str, uid: &str| {
        let mut slice = slice(&json!([endpoint(address, |endpoint| {
            endpoint["targetRef"]["uid"] = json!(uid);
        })]));
        slice["addressType"] = json!("IPv6");
        slice
    };
    let both = [v6("2001:db8::1", "10.0.0.1"), slice(&json!([plain("10.0.0.1")]))];
    assert_eq!(addresses(&both), ["10.0.0.1:8080"]);
    assert_eq!(addresses(&[v6("2001:db8::2", "other")]), ["[2001:db8::2]:8080"]);
    // Without a target nothing says that two are one.
    let bare = |address: &str| endpoint(address, |endpoint| endpoint["targetRef"] = Value::Null);
    assert_eq!(addresses(&[slice(&json!([bare("10.0.0.1"), bare("10.0.0.2")]))]).len(), 2);
}

#[test]
fn names_and_addresses_that_nobody_can_connect_to_are_left_out() {
    let mut names = slice(&json!([plain("db.internal")]));
    names["addressType"] = json!("FQDN");
    let found = merged(&http(), None, &[names, slice(&json!([plain("0.0.0.0"), plain("x")]))]);
    assert_eq!((found.endpoints.len(), found.unusable), (0, 3));
}

#[test]
fn hints_stand_for_zones_where_every_endpoint_has_them() {
    let hinted = |address: &str, zones: &[&str]| {
        let zones: Vec<_> = zones.iter().map(|zone| json!({ "name": zone })).collect();
        endpoint(address, |endpoint| endpoint["hints"] = json!({ "forZones": zones }))
    };
    let zones = |zone, slices: &[Value]| -> Vec<_> {
        let found = merged(&http(), zone, slices).endpoints;
        found.into_iter().map(|endpoint| endpoint.zone.unwrap()).collect()
    };
    let all =
        slice(&json!([hinted("10.0.0.1", &["eu-1b"]), hinted("10.0.0.2", &["eu-1a", "eu-1c"])]));
    assert_eq!(zones(None, std::slice::from_ref(&all)), ["eu-1b", "eu-1a"]);
    assert_eq!(zones(Some("eu-1c"), std::slice::from_ref(&all)), ["eu-1b", "eu-1c"]);
    // One without: hints are being rolled out, or given up.
    let one_without = slice(&json!([plain("10.0.0.3")]));
    assert_eq!(zones(Some("eu-1c"), &[all, one_without]), ["eu-1a", "eu-1a", "eu-1a"]);
}

#[test]
fn the_order_of_slices_and_endpoints_means_nothing() {
    let (a, b) = (plain("10.0.0.1"), plain("10.0.0.2"));
    let one = merged(&http(), None, &[slice(&json!([a, b])), slice(&json!([]))]);
    let other = merged(&http(), None, &[slice(&json!([b])), slice(&json!([a]))]);
    assert_eq!(one, other);
}

#[test]
fn damaged_slices_are_endpoints_or_none() {
    let mut rng = crate::base::rng::Rng::from_seed(29);
    let whole = slice(&json!([
        plain("10.0.0.1"),
        conditions("10.0.0.2", json!({ "ready": false, "serving": true }))
    ]));
    let whole = serde_json::to_vec(&whole).unwrap();
    let damaged =
        (0..5_000).map(|_| hostile(&rng.damaged(&whole, b"\"{}[]:,0-9e\\"))).sum::<usize>();
    assert!(damaged > 0, "none was read");
}
