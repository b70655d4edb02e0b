//! What a configuration says and a run does not play.

use crate::config::{Action, Config, Route, Upstream};

use super::{SimulateError, with_one_route};

/// What of the route that is played, and of its upstreams, changes nothing in a run, each with the reason or the way round.
///
/// # Errors
/// There is no such route.
pub fn left_out(config: &Config, route: Option<&str>) -> Result<Vec<String>, SimulateError> {
    let config = with_one_route(config, route)?;
    let mut found = Vec::new();
    let routes = config.listeners.iter().flat_map(|listener| &listener.routes);
    for route in routes {
        of_route(route, &mut found);
        let Action::To(split) = &route.action else { continue };
        let used = |upstream: &&Upstream| split.iter().any(|(name, _)| *name == upstream.name);
        config.upstreams.iter().filter(used).for_each(|upstream| of_upstream(upstream, &mut found));
    }
    Ok(found)
}

fn of_route(route: &Route, found: &mut Vec<String>) {
    let mut say =
        |key, why| found.push(format!("`{key}` of route {} is not played: {why}", route.name));
    if route.shaping.fault.is_some() {
        say("fault", "a scenario has faults of its own, `events`");
    }
    if !route.shaping.mirror.is_empty() {
        say("mirror", "no caller waits for a copy, and it loads other upstreams than this route's");
    }
}

fn of_upstream(upstream: &Upstream, found: &mut Vec<String>) {
    let mut say = |key, why| {
        found.push(format!("`{key}` of upstream {} is not played: {why}", upstream.name));
    };
    if !upstream.subset.is_empty() {
        say("subset", "all endpoints of a scenario are used; write as many as the subset has");
    }
    let limits = &upstream.limits;
    let below = |connections: u32| limits.in_flight.is_none_or(|in_flight| connections < in_flight);
    if limits.connections.is_some_and(below) {
        say(
            "limits.connections",
            "each request has a connection, so `limits.in_flight` of the same number shows what it does",
        );
    }
}
