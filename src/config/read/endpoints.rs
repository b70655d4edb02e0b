//! Lists of endpoints: under `endpoints`, and in the file of `discover: file://…`.

use std::collections::{BTreeMap, HashMap};

use crate::base::address::Address;
use crate::base::endpoint::EndpointSpec;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::node::Value;

use super::At;

/// `endpoints:`, which hold at least one.
pub(super) fn written(at: &At<'_>) -> Option<Vec<EndpointSpec>> {
    let endpoints = listed(at)?;
    if matches!(&at.node.value, Value::List(items) if items.is_empty()) {
        let message = "`endpoints` holds no endpoint";
        at.push(at.error("missing-key", message).label("write at least one `address:port`"));
    }
    Some(endpoints)
}

/// A list of endpoints, which may be empty.
pub(super) fn listed(at: &At<'_>) -> Option<Vec<EndpointSpec>> {
    const WANTED: &str = "a list of addresses, such as `[127.0.0.1:5001]`";
    let items = at.list(WANTED)?;
    let mut seen = HashMap::new();
    let mut endpoints = Vec::with_capacity(items.len());
    for item in &items {
        let Some(endpoint) = endpoint(item) else { continue };
        if let Some(first) = seen.insert(endpoint.address.clone(), item.node.span) {
            let message = format!("the endpoint {} is written twice", endpoint.address);
            let error = Diagnostic::error("duplicate-name", item.node.span, message).at(item.path);
            item.push(error.label("for a larger share use `weight`").related(first, "first here"));
        }
        endpoints.push(endpoint);
    }
    Some(endpoints)
}

fn endpoint(at: &At<'_>) -> Option<EndpointSpec> {
    if let Value::Scalar(_) = at.node.value {
        return address(at).map(EndpointSpec::at);
    }
    let fields = at.fields(&keys::ENDPOINT)?;
    let weight = fields.read("weight", |at| at.number(1..=1_000));
    let priority = fields.read("priority", |at| at.number(0..=65_535));
    let zone = fields.read("zone", |at| at.text().map(str::to_owned));
    let labels = fields.read("labels", labels);
    let address = address(&fields.required("address")?)?;
    Some(EndpointSpec {
        address,
        weight: weight.unwrap_or(1),
        priority: priority.unwrap_or(0),
        zone,
        labels: labels.unwrap_or_default(),
    })
}

fn address(at: &At<'_>) -> Option<Address> {
    let address = at.address()?;
    if let Address::Tcp(tcp) = &address
        && tcp.port() == 0
    {
        at.bad_value(&address.to_string(), "port 0 cannot be reached");
        return None;
    }
    Some(address)
}

fn labels(at: At<'_>) -> Option<BTreeMap<String, String>> {
    let pairs = at.pairs("a map from labels to values")?;
    let read = pairs.iter().filter_map(|(e, at)| Some((e.key.clone(), at.text()?.to_owned())));
    Some(read.collect())
}
