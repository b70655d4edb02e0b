//! `endpoints:` and `discover:` of an upstream: one variant for each provider.

mod consul;
mod kubernetes;

use std::path::PathBuf;

use crate::base::endpoint::EndpointSpec;

pub use consul::ConsulService;
pub use kubernetes::{KubernetesPort, KubernetesService};

use super::UpstreamTls;
use super::diagnostic::{Diagnostic, Severity};
use super::read::Reader;
use super::source::Source;
use super::{load, read};

/// Values of a file of endpoints: ten thousand of them with everything that an endpoint can have, and as much again.
const MAX_NODES: usize = 400_000;

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discover {
    /// `endpoints:`, at least one.
    Endpoints(Vec<EndpointSpec>),
    /// `discover: dns://host:port`.
    Dns {
        /// A name, lower case, without trailing dot.
        host: String,
        /// 1..=65535.
        port: u16,
    },
    /// `discover: consul://address:port/service`.
    Consul(Box<ConsulService>),
    /// `discover: dns+srv://name`.
    Srv {
        /// A name, lower case, without trailing dot.
        name: String,
    },
    /// `discover: original://`.
    Original,
    /// `discover: k8s://namespace/service:port`.
    Kubernetes(Box<KubernetesService>),
    /// `discover: file:///path`.
    File {
        /// Absolute.
        path: PathBuf,
    },
    /// `discover: xds://host:port/resource`.
    Xds(Box<XdsSource>),
}

/// One resource of a control plane.
#[derive(Debug, Clone, PartialEq)]
pub struct XdsSource {
    /// A name or an IP address, in brackets where it is IPv6.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
    /// The name of a `ClusterLoadAssignment`, 1..=1024 bytes.
    pub resource: String,
    /// `node.id`: what the control plane knows us by. Default: `service`, a dash and the machine's name.
    pub node: Option<String>,
    /// `node.cluster`. Default: `service`.
    pub cluster: Option<String>,
    /// How the control plane is spoken to. Default: in clear.
    pub tls: Option<UpstreamTls>,
}

impl Discover {
    /// How logs and pages call it: `endpoints`, or the URL of `discover:`.
    pub fn source(&self) -> String {
        match self {
            Self::Endpoints(_) => "endpoints".to_owned(),
            Self::Dns { host, port } => format!("dns://{host}:{port}"),
            Self::Consul(consul) => consul.url(),
            Self::Srv { name } => format!("dns+srv://{name}"),
            Self::Original => "original://".to_owned(),
            Self::Kubernetes(service) => service.url(),
            Self::File { path } => format!("file://{}", path.display()),
            Self::Xds(xds) => format!("xds://{}:{}/{}", xds.host, xds.port, xds.resource),
        }
    }

    /// The name that callers of these endpoints know, as `Host` has it; `None`: there is no such name.
    pub fn host(&self) -> Option<String> {
        match self {
            // As callers write it: without the port that `http` has by itself.
            Self::Dns { host, port: 80 } => Some(host.clone()),
            Self::Dns { host, port } => Some(format!("{host}:{port}")),
            // `_http._tcp.articles.internal` is a service of articles.internal.
            Self::Srv { name } => {
                let host = name.split('.').skip_while(|label| label.starts_with('_'));
                Some(host.collect::<Vec<_>>().join("."))
            }
            Self::Original
            | Self::Endpoints(_)
            | Self::Consul(_)
            | Self::Xds(_)
            | Self::Kubernetes(_)
            | Self::File { .. } => None,
        }
    }
}

/// The endpoints of a file called `name` that holds a list of them, in YAML or JSON, as under `endpoints:`. `[]` is no endpoint; a
/// file without anything is an error, as that is what a file being written looks like.
///
/// # Errors
/// The first mistake as `name:line:column: message`, and how many there are.
pub fn endpoints_from(name: &str, text: &str) -> Result<Vec<EndpointSpec>, String> {
    let source = Source::new(name, text);
    let mut found = Vec::new();
    let root = load::tree_of(&source, MAX_NODES, &mut found);
    for empty in found.iter_mut().filter(|found| found.code == "empty-file") {
        empty.help = Some("a list without endpoints is written `[]`".to_owned());
    }
    let endpoints = root.and_then(|root| {
        let reader = Reader::new(&root);
        let endpoints = read::endpoints_file(&reader, &root);
        found.extend(reader.into_diagnostics());
        endpoints
    });
    found.retain(|found| found.severity == Severity::Error);
    // A key that is missing is most often one that is misspelt, which is told with what was meant.
    let first = found.iter().min_by_key(|found| (found.code == "missing-key", found.span.start));
    match (endpoints, first) {
        (Some(endpoints), None) => Ok(endpoints),
        (_, Some(first)) => Err(one_line(first, &source, found.len() - 1)),
        (None, None) => Err(format!("{name}: there is no list of endpoints")),
    }
}

/// A finding for a log: where, what, what would be right.
fn one_line(first: &Diagnostic, source: &Source, more: usize) -> String {
    let place = source.position(first.span.start);
    let mut line = format!("{}:{}:{}: {}", source.name(), place.line, place.column, first.message);
    let right = Some(first.label.as_str()).filter(|label| !label.is_empty());
    for right in right.into_iter().chain(first.help.as_deref()) {
        line.push_str(&format!(": {right}"));
    }
    if more > 0 {
        line.push_str(&format!(" (and {more} more)"));
    }
    line
}
