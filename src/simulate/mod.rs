//! `outrigger simulate`: the policies of production in virtual time.
//!
//! A scenario ([`crate::config::Scenario`]) says who asks, who answers and what goes wrong when. Each client sidecar is
//! compiled by the same code as in the proxy ([`crate::control::compiled`]) and has balancers, budgets, limits and the
//! rest of its own; `sidecar` walks a request through them as `proxy::forward` does. What is imitated is only what is not
//! policy: time (`events`), the wire, connections, and servers (`server`).
//!
//! Invariant: the same scenario, configuration and seed give the same report, byte for byte.
//!
//! Reading order: [`run`], `state`, `world` (the loop), `sidecar`, `ended`, `server`, `faults`, `record`, `report`.

mod checks;
mod ended;
mod events;
mod faults;
mod hedge;
mod histogram;
mod left_out;
mod plot;
mod random;
mod record;
mod report;
mod server;
mod sidecar;
mod slab;
mod state;
mod table;
mod world;

use crate::config::{Action, Config, Scenario};
use crate::control::ApplyError;

pub use left_out::left_out;
pub use plot::plot;
pub use report::{Phase, Point, Run};
pub use table::{json, table};

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The configuration has no route that leads to an upstream.
    #[error("the configuration has no route `to` an upstream")]
    NoRoute,
    /// None of that name, which was asked for.
    #[error("the configuration has no route {0} `to` an upstream")]
    NoSuchRoute(String),
    /// A part of the configuration that `check` should have refused.
    #[error(transparent)]
    Policies(#[from] ApplyError),
}

/// Plays `scenario` with the policies of one route of `config`: the one named, else the first that leads to an upstream.
///
/// # Errors
/// There is no such route.
pub fn run(
    scenario: &Scenario,
    config: &Config,
    route: Option<&str>,
    seed: u64,
) -> Result<Run, SimulateError> {
    let config = with_one_route(config, route)?;
    let mut world = world::World::new(scenario, &config, seed)?;
    world.run();
    Ok(Run::of(scenario, &world.record, world.events.count()))
}

/// `config` with a single listener and a single route: nothing else is compiled for each of thousands of sidecars.
fn with_one_route(config: &Config, wanted: Option<&str>) -> Result<Config, SimulateError> {
    for listener in &config.listeners {
        let mut routes = listener.routes.iter();
        let found = routes.find(|route| {
            let leads_on = matches!(route.action, Action::To(_));
            leads_on && wanted.is_none_or(|wanted| route.name == wanted)
        });
        if let Some(route) = found {
            let mut listener = listener.clone();
            listener.routes = vec![route.clone()];
            return Ok(Config { listeners: vec![listener], ..config.clone() });
        }
    }
    Err(wanted.map_or(SimulateError::NoRoute, |name| SimulateError::NoSuchRoute(name.to_owned())))
}
