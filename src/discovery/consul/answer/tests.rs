use serde_json::{Value, json};

use super::*;
use crate::base::rng::Rng;

/// An instance as Consul 1.8.7 answers it, with changes.
fn instance(port: i64, change: impl FnOnce(&mut Value)) -> Value {
    let mut instance = json!({
        "Node": {
            "ID": "b8024a88-3963-0001-94c1-8ee1522ca486", "Node": "vm", "Address": "10.0.0.1", "Datacenter": "dc1",
            "TaggedAddresses": { "lan": "127.0.0.1" }, "Meta": { "consul-network-segment": "" },
            "CreateIndex": 10, "ModifyIndex": 12
        },
        "Service": {
            "ID": "a1", "Service": "articles", "Tags": ["prod"], "Address": "127.0.0.1",
            "Meta": { "version": "v2" }, "Port": port, "Weights": { "Passing": 5, "Warning": 2 },
            "EnableTagOverride": false, "Proxy": { "MeshGateway": {}, "Expose": {} }, "Connect": {},
            "CreateIndex": 13, "ModifyIndex": 13
        },
        "Checks": [
            { "Node": "vm", "CheckID": "serfHealth", "Status": "passing", "Definition": {} },
            { "Node": "vm", "CheckID": "c1", "Status": "passing", "ServiceTags": ["prod"] }
        ]
    });
    change(&mut instance);
    instance
}

fn read(instances: &[Value]) -> Instances {
    parse(&serde_json::to_vec(instances).unwrap(), false).unwrap()
}

fn one(change: impl FnOnce(&mut Value)) -> Option<EndpointSpec> {
    read(&[instance(5001, change)]).endpoints.pop()
}

#[test]
fn an_instance_becomes_an_endpoint_with_weight_and_metadata() {
    let endpoint = one(|_| {}).unwrap();
    assert_eq!(endpoint.address.to_string(), "127.0.0.1:5001");
    assert_eq!(endpoint.weight, 5);
    assert_eq!(endpoint.labels["version"], "v2");
    assert_eq!(endpoint.labels["consul-network-segment"], "");
    assert_eq!(endpoint.zone, None);
}

#[test]
fn the_nodes_address_stands_in_for_one_that_is_not_given() {
    for none in [json!(""), Value::Null] {
        let endpoint = one(|instance| instance["Service"]["Address"] = none).unwrap();
        assert_eq!(endpoint.address.to_string(), "10.0.0.1:5001");
    }
    let endpoint = one(|instance| instance["Service"]["Address"] = json!("2001:db8::1")).unwrap();
    assert_eq!(endpoint.address.to_string(), "[2001:db8::1]:5001");
}

#[test]
fn the_service_metadata_win_over_the_nodes_and_either_may_name_the_zone() {
    let endpoint = one(|instance| {
        instance["Node"]["Meta"] = json!({ "version": "v1", "zone": "eu-1a" });
    })
    .unwrap();
    assert_eq!((&*endpoint.labels["version"], endpoint.zone.as_deref()), ("v2", Some("eu-1a")));
    let endpoint = one(|instance| {
        instance["Node"]["Meta"] = json!({ "zone": "eu-1a" });
        instance["Node"]["Locality"] = json!({ "Region": "eu-1", "Zone": "eu-1b" });
        instance["Service"]["Locality"] = json!({ "Region": "eu-1", "Zone": "eu-1c" });
    })
    .unwrap();
    assert_eq!(endpoint.zone.as_deref(), Some("eu-1c"));
    let endpoint = one(|instance| instance["Node"]["Meta"] = Value::Null).unwrap();
    assert_eq!(endpoint.zone, None);
}

#[test]
fn the_worst_check_decides() {
    let with = |status: &str| one(|instance| instance["Checks"][1]["Status"] = json!(status));
    assert_eq!(with("passing").unwrap().weight, 5);
    assert_eq!(with("warning").unwrap().weight, 2);
    assert_eq!(with("critical"), None);
    assert_eq!(with("maintenance"), None);
    assert_eq!(one(|instance| instance["Checks"] = json!([])).unwrap().weight, 5);
    let warning = instance(5001, |instance| instance["Checks"][0]["Status"] = json!("warning"));
    let answer = parse(&serde_json::to_vec(&[warning]).unwrap(), true).unwrap();
    assert!(answer.endpoints.is_empty(), "only passing ones were asked for");
}

#[test]
fn weights_are_kept_in_proportion() {
    let weighted = |port, weight: i64| {
        instance(port, |instance| instance["Service"]["Weights"]["Passing"] = json!(weight))
    };
    let answer = read(&[weighted(1, 65_535), weighted(2, 32_768), weighted(3, 1)]);
    let weights: Vec<u32> = answer.endpoints.iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights, [1000, 500, 1]);
    assert!(read(&[weighted(1, 0)]).endpoints.is_empty());
    assert_eq!(one(|instance| instance["Service"]["Weights"] = Value::Null).unwrap().weight, 1);
}

#[test]
fn the_order_of_an_answer_means_nothing_and_an_address_counts_once() {
    let first = read(&[instance(2, |_| {}), instance(1, |_| {})]);
    let heavy = instance(1, |instance| instance["Service"]["Weights"]["Passing"] = json!(4));
    let second = read(&[heavy, instance(1, |_| {}), instance(2, |_| {})]);
    assert_eq!(first, second);
}

#[test]
fn what_cannot_be_connected_to_is_left_out_and_said() {
    for (address, port) in
        [("web.internal", 80), ("0.0.0.0", 80), ("::", 80), ("224.0.0.1", 80), ("10.0.0.1", 0)]
    {
        let bad = instance(port, |instance| instance["Service"]["Address"] = json!(address));
        let answer = read(&[bad, instance(5001, |_| {})]);
        assert_eq!((answer.endpoints.len(), answer.unusable), (1, 1), "{address}");
        assert!(answer.why.is_some());
    }
}

#[test]
fn what_is_no_answer_of_consul_is_refused_without_quoting_it() {
    let bodies: [&[u8]; 7] = [
        b"",
        b"{}",
        b"null",
        b"<html>secret</html>",
        b"[{\"Node\": {}}]",
        b"[{\"Node\": {}, \"Service\": {\"Port\": \"secret\"}}]",
        b"[",
    ];
    for body in bodies {
        let error = parse(body, false).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(parse(b"[]", false), Ok(Instances::default()));
    // However deep: an error, no overflow.
    assert!(parse("[".repeat(100_000).as_bytes(), false).is_err());
}

#[test]
fn damaged_answers_are_endpoints_or_an_error() {
    let mut rng = Rng::from_seed(19);
    let whole = serde_json::to_vec(&[
        instance(5001, |_| {}),
        instance(5002, |instance| instance["Node"]["Meta"] = json!({ "zone": "a" })),
    ]);
    let whole = whole.unwrap();
    for _ in 0..5_000 {
        hostile(&rng.damaged(&whole, b"\"{}[]:,0-9e\\"));
    }
}
