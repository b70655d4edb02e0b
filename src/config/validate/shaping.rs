//! What a route does to requests besides sending them on, where that is probably not meant.

use http::Method;

use crate::base::units::format_duration;
use crate::config::diagnostic::Diagnostic;
use crate::config::{Action, Config, Discover, Hedge, Route};

use super::Place;

pub(super) fn shaping(
    config: &Config,
    route: &Route,
    place: &Place<'_>,
    out: &mut Vec<Diagnostic>,
) {
    fault(route, place, out);
    mirror(route, place, out);
    hedge(config, route, place, out);
}

/// Second attempts that nothing sets off.
fn hedge(config: &Config, route: &Route, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    let Some(hedge) = route.shaping.hedge else { return };
    if place.node.get("hedge").is_none_or(|node| node.inherited) {
        return;
    }
    let methods = &route.matches.method;
    let (message, label) = match (&route.action, hedge) {
        (Action::Redirect(_) | Action::Respond(_), _) => {
            ("`hedge` has no effect: this route answers by itself".to_owned(), "remove it")
        }
        _ if !methods.is_empty() && !methods.iter().any(Method::is_idempotent) => {
            let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let message = format!(
                "{} may not run twice: a second attempt is made only for a request with an `Idempotency-Key`",
                names.join(", ")
            );
            (message, "remove it, or let callers send the key")
        }
        (_, Hedge::After(delay)) if route.timeout.is_some_and(|whole| delay >= whole) => {
            let whole = route.timeout.map(format_duration).unwrap_or_default();
            let delay = format_duration(delay);
            (format!("after {delay} the `timeout` of {whole} has passed"), "lower it")
        }
        (Action::To(targets), _) if targets.iter().all(|(name, _)| is_alone(config, name)) => {
            let message = "a second attempt goes to another endpoint, and there is one only";
            (message.to_owned(), "add endpoints, or remove it")
        }
        _ => return,
    };
    let found = Diagnostic::warning("hedge-never-fires", place.span(&["hedge"]), message);
    out.push(found.at(place.path.key("hedge")).label(label));
}

/// One written endpoint.
fn is_alone(config: &Config, name: &str) -> bool {
    let upstream = config.upstreams.iter().find(|upstream| upstream.name == name);
    upstream.is_some_and(|upstream| {
        matches!(&upstream.discover, Discover::Endpoints(endpoints) if endpoints.len() == 1)
    })
}

fn mirror(route: &Route, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    let shadows = &route.shaping.mirror;
    if shadows.is_empty() || place.node.get("mirror").is_none_or(|node| node.inherited) {
        return;
    }
    let path = place.path.key("mirror");
    let span = place.span(&["mirror"]);
    match &route.action {
        Action::Redirect(_) | Action::Respond(_) => {
            let message = "`mirror` has no effect: this route answers by itself";
            let found = Diagnostic::warning("mirror-never-sends", span, message);
            out.push(found.at(path).label("remove it"));
        }
        Action::To(targets) => {
            let twice = shadows.iter().find(|(name, _)| targets.iter().any(|(to, _)| to == name));
            if let Some((name, _)) = twice {
                let message =
                    format!("`{name}` gets requests of this route and copies of them as well");
                let found = Diagnostic::warning("mirror-of-itself", span, message);
                out.push(found.at(path).label("what is copied runs twice there"));
            }
        }
    }
}

fn fault(route: &Route, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    let Some(delay) = route.shaping.fault.as_ref().and_then(|fault| fault.delay) else { return };
    let Some(timeout) = route.timeout.filter(|timeout| delay.time >= *timeout) else { return };
    let message = format!(
        "a delay of {} is not below the `timeout` of {}: what is delayed never reaches the upstream",
        format_duration(delay.time),
        format_duration(timeout)
    );
    let path = place.path.key("fault");
    let found = Diagnostic::warning(
        "fault-outlasts-timeout",
        place.span(&["fault", "delay", "for"]),
        message,
    )
    .at(path.key("delay"))
    .label("shorten it to try out a slow upstream; to try out timeouts, it may stay");
    out.push(found);
}
