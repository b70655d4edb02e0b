//! `health` of an upstream.

use crate::config::{self, HealthProbe, UpstreamProtocol};
use crate::health::{Check, Probe};
use crate::policy::health::HealthSettings;

/// What the endpoints of an upstream are checked for: over the protocol of its requests, and as one of their callers
/// would ask. What is in force of its TLS is put in by whoever starts the check. `auto` speaks HTTP/1.1 to all but gRPC.
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
    let host = match (&health.host, &health.probe) {
        // Not sent: it must not make two checks of one.
        (_, HealthProbe::Tcp) => None,
        (Some(host), _) => Some(host.as_str().into()),
        (None, _) => config.discover.host().map(Into::into),
    };
    Some(Check { probe, host, tls: None, settings: settings(health) })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(upstream: &str) -> Option<Check> {
        let text = format!(
            "listeners: {{ o: {{ bind: 127.0.0.1:1, routes: [{{ to: u }}] }} }}\nupstreams: {{ u: {{ {upstream} }} }}"
        );
        let loaded = config::load_str("f", &text, &|_| None);
        health(&loaded.config.unwrap().upstreams[0])
    }

    #[test]
    fn a_check_goes_the_way_of_requests_under_the_name_that_they_use() {
        let http2 = |keys: &str| match compiled(keys).unwrap().probe {
            Probe::Http { http2, .. } => http2,
            other => panic!("{other:?}"),
        };
        assert!(!http2("endpoints: [127.0.0.1:2], health: /"));
        assert!(!http2("endpoints: [127.0.0.1:2], health: /, protocol: http1"));
        assert!(http2("endpoints: [127.0.0.1:2], health: /, protocol: http2"));
        let host = |keys: &str| compiled(keys).unwrap().host.map(|host| host.to_string());
        assert_eq!(host("endpoints: [127.0.0.1:2], health: /"), None);
        assert_eq!(host("discover: \"dns://a.b:8080\", health: /").unwrap(), "a.b:8080");
        assert_eq!(host("discover: \"dns://a.b:80\", health: grpc").unwrap(), "a.b");
        assert_eq!(host("discover: \"dns://a.b:80\", health: tcp"), None);
        assert_eq!(host("discover: \"dns://a.b:80\", health: { http: /, host: c }").unwrap(), "c");
        assert_eq!(compiled("endpoints: [127.0.0.1:2], health: never"), None);
    }
}
