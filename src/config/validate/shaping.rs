//! What a route does to requests besides sending them on, where that is probably not meant.

use crate::base::units::format_duration;
use crate::config::diagnostic::Diagnostic;
use crate::config::{Action, Route};

use super::Place;

pub(super) fn shaping(route: &Route, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    fault(route, place, out);
    mirror(route, place, out);
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
