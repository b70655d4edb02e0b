//! `discover: xds://…`: upstreams of one control plane share its connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::config::{Config, Discover, XdsSource};
use crate::discovery::Provider;
use crate::discovery::xds::{ControlPlane, Plane, Xds};

/// Where the kernel tells the machine's name; in a container, the pod's or container's.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Control planes that somebody uses, or used.
#[derive(Debug, Clone, Default)]
pub(super) struct Planes(BTreeMap<ControlPlane, Weak<Plane>>);

impl Planes {
    pub(super) fn provider(
        &mut self,
        xds: &XdsSource,
        discover: &Discover,
        config: &Config,
    ) -> Provider {
        let control_plane = ControlPlane {
            host: xds.host.clone(),
            port: xds.port,
            node: xds.node.clone().unwrap_or_else(|| node_id(&config.service)),
            cluster: xds.cluster.clone().unwrap_or_else(|| config.service.clone()),
            zone: Some(config.zone.clone()).filter(|zone| !zone.is_empty()),
        };
        let plane = match self.0.get(&control_plane).and_then(Weak::upgrade) {
            Some(plane) => plane,
            None => {
                self.0.retain(|_, plane| plane.strong_count() > 0);
                let plane = Arc::new(Plane::new(control_plane.clone()));
                self.0.insert(control_plane, Arc::downgrade(&plane));
                plane
            }
        };
        Provider::Xds(Xds::new(plane, &xds.resource, &discover.source()))
    }
}

/// Unlike that of other sidecars of the same service, and the same after a restart.
fn node_id(service: &str) -> String {
    match std::fs::read_to_string(HOST_NAME) {
        Ok(name) => format!("{service}-{}", name.trim()),
        Err(_) => service.to_owned(),
    }
}
