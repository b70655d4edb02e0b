//! `discover: xds://…`: upstreams of one control plane share its connection.

use std::sync::{Arc, Weak};

use crate::config::{Config, Discover, XdsSource};
use crate::discovery::Provider;
use crate::discovery::dns::{Resolver, ResolverError};
use crate::discovery::xds::{ControlPlane, Plane, Xds};

use super::server_tls;

/// Where the kernel tells the machine's name; in a container, the pod's or container's.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Control planes that somebody uses, or used.
#[derive(Debug, Clone, Default)]
pub(super) struct Planes(Vec<Weak<Plane>>);

impl Planes {
    pub(super) fn provider(
        &mut self,
        xds: &XdsSource,
        discover: &Discover,
        (config, advice): (&Config, bool),
        resolver: Arc<Resolver>,
    ) -> Result<Provider, ResolverError> {
        let control_plane = ControlPlane {
            host: xds.host.clone(),
            port: xds.port,
            tls: xds.tls.as_ref().map(|tls| server_tls(tls, &xds.host)),
            node: xds.node.clone().unwrap_or_else(|| node_id(&config.service)),
            cluster: xds.cluster.clone().unwrap_or_else(|| config.service.clone()),
            zone: Some(config.zone.clone()).filter(|zone| !zone.is_empty()),
        };
        let mut known = self.0.iter().filter_map(Weak::upgrade);
        let plane = match known.find(|plane| *plane.control_plane() == control_plane) {
            Some(plane) => plane,
            None => {
                self.0.retain(|plane| plane.strong_count() > 0);
                let plane = Arc::new(Plane::new(control_plane, resolver)?);
                self.0.push(Arc::downgrade(&plane));
                plane
            }
        };
        Ok(Provider::Xds(Xds::new(plane, &xds.resource, advice, &discover.source())))
    }
}

/// Unlike that of other sidecars of the same service, and the same after a restart.
fn node_id(service: &str) -> String {
    match std::fs::read_to_string(HOST_NAME) {
        Ok(name) => format!("{service}-{}", name.trim()),
        Err(_) => service.to_owned(),
    }
}
