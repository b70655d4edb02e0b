//! `health` of an upstream.

use crate::config::{self, Discover, HealthProbe, UpstreamProtocol};
use crate::health::{Check, Probe};
use crate::policy::health::HealthSettings;

/// What the endpoints of an upstream are checked for: over the protocol of its requests, and as one of their callers
/// would ask. `auto` speaks HTTP/1.1 to all but gRPC.
pub(in crate::control) fn health(config: &config::Upstream) -> Option<Check> {
    let health = config.health.as_ref()?;
    let probe = match &health.probe {
        HealthProbe::Tcp => Probe::Tcp,
        HealthProbe::Http { path, status } => Probe::Http {
            http2: config.protocol == UpstreamProtocol::Http2,
            path: path.as_str().into(),
            passing: status.iter().map(|(first, last)| *first..=*last).collect(),
        },
        HealthProbe::Grpc { service } => Probe::Grpc { service: service.as_str().into() },
    };
    let host = match (&health.host, &config.discover, &health.probe) {
        // Not sent: it must not make two checks of one.
        (_, _, HealthProbe::Tcp) => None,
        (Some(host), _, _) => Some(host.as_str().into()),
        (None, Discover::Dns { host, port }, _) => Some(format!("{host}:{port}").into()),
        (None, Discover::Endpoints(_), _) => None,
    };
    Some(Check { probe, host, settings: settings(health) })
}

/// When an endpoint is checked, and what results amount to.
pub fn settings(health: &config::HealthCheck) -> HealthSettings {
    HealthSettings {
        interval: health.interval,
        timeout: health.timeout,
        rise: health.rise,
        fall: health.fall,
    }
}
