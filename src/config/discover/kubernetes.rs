//! `discover: k8s://…`.

use std::fmt;
use std::path::PathBuf;

/// A service of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Which port of its endpoints.
    pub port: KubernetesPort,
    /// How the API server is reached. Default: as a pod reaches it.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig. Default: its current one.
    pub context: Option<String>,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesPort {
    /// By the name that the service gave it.
    Named(String),
    /// By number: the pod's, not the service's. 1..=65535.
    Number(u16),
}

impl fmt::Display for KubernetesPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl KubernetesService {
    /// As a URL, which does not have a kubeconfig.
    pub fn url(&self) -> String {
        format!("k8s://{}/{}:{}", self.namespace, self.service, self.port)
    }
}
