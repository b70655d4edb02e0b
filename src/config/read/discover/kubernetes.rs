//! `k8s://namespace/service:port`, or `{ k8s: { namespace, service, port, … } }`.

use crate::config::{Discover, KubernetesPort, KubernetesService, keys};

use super::super::{At, top};

const RIGHT: &str = "write `k8s://namespace/service:port`";

/// What a build without the feature says.
const LEFT_OUT: &str = "this build has no `k8s`: build with `--features kubernetes`";

pub(super) fn url(rest: &str) -> Result<Discover, String> {
    if !cfg!(feature = "kubernetes") {
        return Err(LEFT_OUT.to_owned());
    }
    let (namespace, rest) =
        rest.split_once('/').ok_or_else(|| format!("the namespace is missing: {RIGHT}"))?;
    let (service, port) =
        rest.split_once(':').ok_or_else(|| format!("the port is missing: {RIGHT}"))?;
    Ok(Discover::Kubernetes(Box::new(KubernetesService {
        namespace: label(namespace)?,
        service: label(service)?,
        port: self::port(port)?,
        kubeconfig: None,
        context: None,
    })))
}

pub(super) fn map(at: &At<'_>) -> Option<Discover> {
    if !cfg!(feature = "kubernetes") {
        at.push(at.error("unsupported-key", LEFT_OUT).label("build with it, or remove this"));
        return None;
    }
    let fields = at.fields(&keys::DISCOVER_KUBERNETES)?;
    let kubeconfig = fields.read("kubeconfig", top::absolute_path);
    let context = fields.read("context", |at| at.text().map(str::to_owned));
    let namespace = fields.required("namespace").and_then(|at| at.parsed(label));
    let service = fields.required("service").and_then(|at| at.parsed(label));
    let port = fields.required("port").and_then(|at| {
        // A number needs no quotes.
        let text = &at.scalar("a port's name or number")?.text;
        port(text).map_err(|error| at.bad_value(text, &error)).ok()
    });
    Some(Discover::Kubernetes(Box::new(KubernetesService {
        namespace: namespace?,
        service: service?,
        port: port?,
        kubeconfig,
        context,
    })))
}

/// A label of RFC 1123, as namespaces and services have it.
fn label(text: &str) -> Result<String, &'static str> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    match good {
        true => Ok(text.to_owned()),
        false => Err("names in Kubernetes are lower-case letters, digits and `-`, at most 63"),
    }
}

fn port(text: &str) -> Result<KubernetesPort, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number != 0);
        return number
            .map(KubernetesPort::Number)
            .ok_or_else(|| "a port is a name, or a number from 1 to 65535".to_owned());
    }
    Ok(KubernetesPort::Named(label(text)?))
}
