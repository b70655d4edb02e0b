//! `endpoints:` and `discover:` of an upstream: one variant for each provider.

mod consul;
mod kubernetes;

use crate::base::endpoint::EndpointSpec;

pub use consul::ConsulService;
pub use kubernetes::{KubernetesPort, KubernetesService};

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
    /// `discover: k8s://namespace/service:port`.
    Kubernetes(Box<KubernetesService>),
}

impl Discover {
    /// How logs and pages call it: `endpoints`, or the URL of `discover:`.
    pub fn source(&self) -> String {
        match self {
            Self::Endpoints(_) => "endpoints".to_owned(),
            Self::Dns { host, port } => format!("dns://{host}:{port}"),
            Self::Consul(consul) => consul.url(),
            Self::Kubernetes(service) => service.url(),
        }
    }

    /// The name that callers of these endpoints know, as `Host` has it; `None`: there is no such name.
    pub fn host(&self) -> Option<String> {
        match self {
            // As callers write it: without the port that `http` has by itself.
            Self::Dns { host, port: 80 } => Some(host.clone()),
            Self::Dns { host, port } => Some(format!("{host}:{port}")),
            Self::Endpoints(_) | Self::Consul(_) | Self::Kubernetes(_) => None,
        }
    }
}
