//! `endpoints` or `discover` of an upstream: as a URL where it says everything, else in the long form.

use crate::config::node::Node;
use crate::config::{ConsulService, Discover, KubernetesPort, KubernetesService, XdsSource};

use super::write::{self, Writer, list, quoted, text};
use super::{below, tls};

pub(super) fn source(
    w: &mut Writer<'_>,
    discover: &Discover,
    upstream: Option<&Node>,
    identity: Option<&Node>,
) {
    let node = below(upstream, "discover", "");
    match discover {
        Discover::Endpoints(endpoints) => {
            let items = endpoints.iter().map(write::endpoint);
            w.leaf("endpoints", list(items), below(upstream, "endpoints", ""));
        }
        // A URL says it all.
        Discover::Dns { .. }
        | Discover::Original
        | Discover::Srv { .. }
        | Discover::File { .. } => {
            w.leaf("discover", quoted(discover.source()), node);
        }
        Discover::Consul(service) => w.section("discover", |w| consul(w, service, node, identity)),
        Discover::Xds(xds) => w.section("discover", |w| self::xds(w, xds, node, identity)),
        Discover::Kubernetes(service) => w.section("discover", |w| kubernetes(w, service, node)),
    }
}

fn consul(
    w: &mut Writer<'_>,
    consul: &ConsulService,
    node: Option<&Node>,
    identity: Option<&Node>,
) {
    let long = below(node, "consul", "");
    // The short form says it all in one place.
    let at = |key| if long.is_some() { below(long, key, "") } else { node };
    w.section("consul", |w| {
        let address = quoted(format_args!("{}:{}", consul.host, consul.port));
        w.leaf("address", address, at("address"));
        w.leaf("service", text(&consul.service), at("service"));
        w.leaf("tags", list(consul.tags.iter().map(text)), at("tags"));
        match &consul.datacenter {
            Some(datacenter) => w.leaf("datacenter", text(datacenter), at("datacenter")),
            None => w.note("datacenter: the agent's own"),
        }
        w.leaf("passing", consul.passing, at("passing"));
        match &consul.token_file {
            Some(path) => w.leaf("token_file", quoted(path.display()), at("token_file")),
            None => w.note("token_file: none"),
        }
        tls::upstream(w, consul.tls.as_ref(), at("tls"), identity);
    });
}

fn xds(w: &mut Writer<'_>, xds: &XdsSource, node: Option<&Node>, identity: Option<&Node>) {
    let long = below(node, "xds", "");
    let at = |key| if long.is_some() { below(long, key, "") } else { node };
    w.section("xds", |w| {
        w.leaf("address", quoted(format_args!("{}:{}", xds.host, xds.port)), at("address"));
        w.leaf("resource", quoted(&xds.resource), at("resource"));
        if xds.node.is_none() && xds.cluster.is_none() {
            w.note("node: `service` and the machine's name, of cluster `service`");
        } else {
            w.section("node", |w| {
                for (key, value) in [("id", &xds.node), ("cluster", &xds.cluster)] {
                    if let Some(value) = value {
                        w.leaf(key, quoted(value), below(at("node"), key, "id"));
                    }
                }
            });
        }
        tls::upstream(w, xds.tls.as_ref(), at("tls"), identity);
    });
}

fn kubernetes(w: &mut Writer<'_>, service: &KubernetesService, node: Option<&Node>) {
    let long = below(node, "k8s", "");
    let at = |key| if long.is_some() { below(long, key, "") } else { node };
    w.section("k8s", |w| {
        w.leaf("namespace", text(&service.namespace), at("namespace"));
        w.leaf("service", text(&service.service), at("service"));
        let port = match &service.port {
            KubernetesPort::Named(name) => text(name),
            KubernetesPort::Number(number) => number.to_string(),
        };
        w.leaf("port", port, at("port"));
        match &service.kubeconfig {
            Some(path) => w.leaf("kubeconfig", quoted(path.display()), at("kubeconfig")),
            None => w.note("kubeconfig: none, the credentials of the pod"),
        }
        match &service.context {
            Some(context) => w.leaf("context", text(context), at("context")),
            None => w.note("context: the current one of the kubeconfig"),
        }
    });
}
