//! What a route does to requests besides sending them on, where that is probably not meant.

use crate::base::units::format_duration;
use crate::config::Route;
use crate::config::diagnostic::Diagnostic;

use super::Place;

pub(super) fn shaping(route: &Route, place: &Place<'_>, out: &mut Vec<Diagnostic>) {
    fault(route, place, out);
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
