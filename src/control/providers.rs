//! From `discover:` to a provider: one arm each.

#[cfg(feature = "xds")]
mod xds;

use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::config::{self, Config, Discover};
use crate::discovery::consul::{Consul, Query};
use crate::discovery::dns::{Dns, Resolver, ResolverError, Srv, TtlRange};
use crate::discovery::file::File;
use crate::discovery::{ErrorKind, Provider, ServerTls};
use crate::tls::ClientSettings;
use crate::upstream::Upstream;

use super::{ApplyError, certificates};

/// What providers of one kind have in common. Cheap to clone: a plan that is not carried out leaves no trace.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    /// One for the process, made with the first name that has to be looked up.
    resolver: Option<Arc<Resolver>>,
    /// Control planes, one connection each.
    #[cfg(feature = "xds")]
    planes: xds::Planes,
}

impl Shared {
    /// Who finds the endpoints of `upstream`; `None` where they are written.
    pub(super) fn provider(
        &mut self,
        upstream: &config::Upstream,
        config: &Config,
    ) -> Result<Option<Provider>, ApplyError> {
        let failed = |error: ResolverError| ApplyError::Resolver {
            upstream: upstream.name.clone(),
            error: error.to_string(),
        };
        Ok(match &upstream.discover {
            // The connections themselves say.
            Discover::Endpoints(_) | Discover::Original => None,
            Discover::Srv { name } => {
                let resolver = self.resolver(&config.dns).map_err(failed)?;
                let ttl = TtlRange::new(config.dns.ttl.0, config.dns.ttl.1);
                Some(Provider::Srv(Srv::new(name, ttl, resolver).map_err(failed)?))
            }
            Discover::File { path } => {
                Some(Provider::File(File::new(path.clone(), config::endpoints_from)))
            }
            Discover::Dns { host, port } => {
                let resolver = self.resolver(&config.dns).map_err(failed)?;
                let ttl = TtlRange::new(config.dns.ttl.0, config.dns.ttl.1);
                Some(Provider::Dns(Dns::new(host, *port, ttl, resolver).map_err(failed)?))
            }
            Discover::Consul(consul) => {
                let resolver = self.resolver(&config.dns).map_err(failed)?;
                let made = Consul::new(consul_query(consul), consul.url(), resolver);
                Some(Provider::Consul(made.map_err(failed)?))
            }
            #[cfg(feature = "kubernetes")]
            Discover::Kubernetes(service) => {
                Some(Provider::Kubernetes(kubernetes(service, config)))
            }
            // The reader refuses it.
            #[cfg(not(feature = "kubernetes"))]
            Discover::Kubernetes(_) => None,
            #[cfg(feature = "xds")]
            Discover::Xds(xds) => {
                let resolver = self.resolver(&config.dns).map_err(failed)?;
                let with = (config, upstream.balance.advised);
                let made = self.planes.provider(xds, &upstream.discover, with, resolver);
                Some(made.map_err(failed)?)
            }
            // The reader refuses it.
            #[cfg(not(feature = "xds"))]
            Discover::Xds(_) => None,
        })
    }

    fn resolver(&mut self, dns: &config::Dns) -> Result<Arc<Resolver>, ResolverError> {
        if let Some(resolver) = &self.resolver {
            return Ok(Arc::clone(resolver));
        }
        let made = Arc::new(Resolver::new(&dns.servers, &dns.search)?);
        Ok(Arc::clone(self.resolver.insert(made)))
    }
}

fn consul_query(consul: &config::ConsulService) -> Query {
    Query {
        host: consul.host.clone(),
        port: consul.port,
        service: consul.service.clone(),
        tags: consul.tags.clone(),
        datacenter: consul.datacenter.clone(),
        passing: consul.passing,
        token_file: consul.token_file.clone(),
        tls: consul.tls.as_ref().map(|tls| server_tls(tls, &consul.host)),
    }
}

/// The name that is asked for: the one written, else one that is wanted, else the server's own.
fn server_tls(tls: &config::UpstreamTls, host: &str) -> ServerTls {
    let host = || host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = tls.sni.clone().or_else(|| tls.asked_name()).unwrap_or_else(host);
    let name = ServerName::try_from(name).ok();
    let settings = ClientSettings { name, verify: tls.verify.clone() };
    ServerTls { files: tls.files.clone(), settings }
}

#[cfg(feature = "kubernetes")]
fn kubernetes(
    service: &config::KubernetesService,
    config: &Config,
) -> crate::discovery::kubernetes::Kubernetes {
    use crate::discovery::kubernetes::{Kubernetes, Port, Query};

    let query = Query {
        namespace: service.namespace.clone(),
        service: service.service.clone(),
        port: match &service.port {
            config::KubernetesPort::Named(name) => Port::Named(name.clone()),
            config::KubernetesPort::Number(number) => Port::Number(*number),
        },
        kubeconfig: service.kubeconfig.clone(),
        context: service.context.clone(),
        zone: Some(config.zone.clone()).filter(|zone| !zone.is_empty()),
    };
    Kubernetes::new(query, service.url())
}

/// What a provider takes from outside of its upstream: with another of it, it starts anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    zone: String,
    service: String,
}

impl Surroundings {
    pub(super) fn of(upstream: &config::Upstream, config: &Config) -> Self {
        let zone = || config.zone.clone();
        match upstream.discover {
            Discover::Kubernetes(_) => Self { zone: zone(), ..Self::default() },
            Discover::Xds(_) => Self { zone: zone(), service: config.service.clone() },
            _ => Self::default(),
        }
    }
}

/// True where only the source of endpoints, or what they are checked for, differs: connections, budgets and counts stay.
pub(super) fn same_policy(a: &config::Upstream, b: &config::Upstream) -> bool {
    let without_source = |upstream: &config::Upstream| config::Upstream {
        discover: Discover::Endpoints(Vec::new()),
        health: None,
        balance: config::Balancing { advised: false, ..upstream.balance.clone() },
        ..upstream.clone()
    };
    let original = |upstream: &config::Upstream| upstream.discover == Discover::Original;
    without_source(a) == without_source(b) && original(a) == original(b)
}

/// True where the names that endpoints are asked for stay, too: some are those that are looked up.
pub(super) fn same_tls(upstream: &Upstream, certificates: &certificates::Plan) -> bool {
    let planned = certificates.upstream(&upstream.name);
    match (&upstream.tls, planned) {
        (Some(tls), Some(planned)) => Arc::ptr_eq(tls.client(), &planned),
        (None, None) => true,
        _ => false,
    }
}

/// The label values of `discovery_errors_total`.
pub(super) fn error_words() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.word()).collect()
}
