//! Endpoints written in the configuration: one answer, at once, for ever.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Discovered, ProviderStatus, Standing};
use crate::base::endpoint::EndpointSpec;

/// A set that never changes. A reload that changes it starts another provider.
#[derive(Debug, Clone)]
pub struct Fixed {
    endpoints: Arc<[EndpointSpec]>,
}

impl Fixed {
    /// The endpoints in the order of the file, which is kept: the load balancer's turns follow it.
    pub fn new(endpoints: impl Into<Arc<[EndpointSpec]>>) -> Self {
        Self { endpoints: endpoints.into() }
    }

    pub(super) fn answer(self, now: Instant, status: &ProviderStatus) -> Discovered {
        status.record_success(now);
        status.record_update();
        status.set_standing(match self.endpoints.is_empty() {
            true => Standing::Empty,
            false => Standing::Fresh,
        });
        Discovered {
            endpoints: self.endpoints,
            source: "endpoints".into(),
            updated: now,
            answered: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Provider, spawn};
    use super::*;
    use crate::base::rng::Rng;

    fn endpoint(address: &str) -> EndpointSpec {
        EndpointSpec::at(address.parse::<SocketAddr>().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn fixed_endpoints_are_there_before_anything_is_awaited() {
        let set = vec![endpoint("127.0.0.1:2"), endpoint("127.0.0.1:1")];
        let running = spawn(Provider::Fixed(Fixed::new(set.clone())), Rng::from_seed(1));
        let discovered = running.updates.borrow().clone();
        assert!(discovered.answered);
        assert_eq!(&*discovered.endpoints, &set[..]);
        assert_eq!(running.status.standing(), Standing::Fresh);
        assert_eq!(running.status.updates(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_channel_stays_open_until_the_subscription_is_dropped() {
        let running = spawn(Provider::Fixed(Fixed::new(vec![])), Rng::from_seed(1));
        let updates = running.updates.clone();
        assert!(updates.has_changed().is_ok());
        drop(running);
        assert!(updates.has_changed().is_err());
    }
}
