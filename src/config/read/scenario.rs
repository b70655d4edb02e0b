//! A scenario of `outrigger simulate`.

use std::time::Duration;

use crate::base::units::{Rate, format_duration};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    SCENARIO, SCENARIO_CLIENTS, SCENARIO_ERRORS, SCENARIO_EVENT, SCENARIO_FAULT, SCENARIO_FLAP,
    SCENARIO_RESTART, SCENARIO_SERVERS, SCENARIO_TIME,
};
use crate::config::node::{Node, Step, Value};
use crate::config::{Clients, Effect, Event, Scenario, Servers, ServiceTime};

use super::{At, Fields, Reader};

/// Requests of one run; beyond, its clocks and counters would take hours and gigabytes.
const MAX_REQUESTS: f64 = 50e6;

/// Sidecars times the endpoints that each knows: all are kept in memory.
const MAX_PAIRS: u64 = 1_000_000;

/// After the grace time, at least this much must be left to judge by.
const JUDGED: Duration = Duration::from_secs(5);

/// The scenario of a tree. Reading goes on after each mistake.
pub(in crate::config) fn scenario(reader: &Reader<'_>, root: &Node) -> Option<Scenario> {
    let at = At::root(reader, root);
    let fields = at.fields(&SCENARIO)?;
    let about = fields.read("about", |at| at.text().map(str::to_owned));
    let duration = fields.read("duration", |at| within(&at, 10, 3_600));
    let grace = fields.read("grace", |at| within(&at, 1, 600));
    let clients = fields.required("clients").and_then(|at| clients(&at));
    let source = fields.exactly_one(&["servers", "hops"]);
    let hops = source.and_then(|at| match at.path.steps().last() {
        Some(Step::Key("hops")) => all_hops(&at),
        _ => servers(&at).map(|one| vec![one]),
    });
    let headers = fields.read("headers", |at| at.word(&[("pass", true), ("drop", false)]));
    let mut scenario = Scenario {
        about: about.unwrap_or_default(),
        duration: duration.unwrap_or(Duration::from_secs(120)),
        grace: grace.unwrap_or(Duration::from_secs(30)),
        clients: clients?,
        hops: hops?,
        headers_pass: headers.unwrap_or(false),
        events: Vec::new(),
    };
    sizes(&fields, &scenario);
    scenario.events = fields.read("events", |at| events(&at, &scenario)).unwrap_or_default();
    Some(scenario)
}

/// A duration between two numbers of seconds.
fn within(at: &At<'_>, least: u64, most: u64) -> Option<Duration> {
    let found = at.span_of_time()?;
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if (least..=most).contains(&found) {
        return Some(found);
    }
    let message = format!("{} is out of range: `{}`", at.subject(), format_duration(found));
    let right =
        format!("write a duration from {} to {}", format_duration(least), format_duration(most));
    at.push(at.error("out-of-range", message).label(right));
    None
}

fn clients(at: &At<'_>) -> Option<Clients> {
    let fields = at.fields(&SCENARIO_CLIENTS)?;
    let sidecars = fields.read("sidecars", |at| at.number(1..=10_000));
    let workers = fields.read("workers", |at| at.number(1..=64));
    let rate = fields.required("rate").and_then(|at| rate(&at))?;
    Some(Clients { sidecars: sidecars.unwrap_or(10), workers: workers.unwrap_or(1), rate })
}

fn rate(at: &At<'_>) -> Option<Rate> {
    let rate = at.rate()?;
    if rate.per_second() <= 0.0 {
        at.bad_value(&rate.to_string(), "write a rate above 0");
        return None;
    }
    Some(rate)
}

fn all_hops(at: &At<'_>) -> Option<Vec<Servers>> {
    let items = at.list("a list of one to five maps, each as under `servers`")?;
    if !(1..=5).contains(&items.len()) {
        let message = format!("`hops` has {} items", items.len());
        at.push(at.error("out-of-range", message).label("write one to five"));
    }
    let read: Vec<Option<Servers>> = items.iter().map(servers).collect();
    read.into_iter().collect()
}

fn servers(at: &At<'_>) -> Option<Servers> {
    let fields = at.fields(&SCENARIO_SERVERS)?;
    let slots = fields.read("slots", |at| at.number(1..=1_000_000));
    let queue = fields.read("queue", |at| at.number(0..=1_000_000));
    let rtt = fields.read("rtt", |at| at.span_of_time());
    let endpoints = fields.required("endpoints").and_then(|at| at.number(1..=1_000));
    let most = endpoints.unwrap_or(1_000);
    let zones = fields.read("zones", |at| at.number(1..=u64::from(most.min(20))));
    let spare = fields.read("spare", |at| at.number(0..=u64::from(most - 1)));
    let service_time = fields.required("service_time").and_then(|at| service_time(&at));
    Some(Servers {
        endpoints: endpoints?,
        service_time: service_time?,
        slots: slots.unwrap_or(16),
        queue: queue.unwrap_or(100),
        rtt: rtt.unwrap_or(Duration::from_millis(1)),
        zones: zones.unwrap_or(1),
        spare: spare.unwrap_or(0),
    })
}

fn service_time(at: &At<'_>) -> Option<ServiceTime> {
    if let Value::Scalar(_) = at.node.value {
        let constant = at.span_of_time()?;
        return Some(ServiceTime { median: constant, p99: constant });
    }
    let fields = at.fields(&SCENARIO_TIME)?;
    let median = fields.required("median").and_then(|at| at.span_of_time());
    let p99_at = fields.required("p99");
    let p99 = p99_at.and_then(|at| at.span_of_time());
    let (median, p99) = (median?, p99?);
    if let (true, Some(at)) = (p99 < median, p99_at) {
        at.bad_value(&format_duration(p99), "the 99th percentile is not below the median");
        return None;
    }
    Some(ServiceTime { median, p99 })
}

/// What is right in each part and too large in all.
fn sizes(fields: &Fields<'_>, scenario: &Scenario) {
    let Some(at) = fields.get("clients") else { return };
    let requests = scenario.clients.rate.per_second() * scenario.duration.as_secs_f64();
    if requests > MAX_REQUESTS {
        let message = format!("a run of {requests:.0} requests is too long");
        let right = "`rate` × `duration` is at most 50 million";
        at.push(Diagnostic::error("out-of-range", at.place, message).at(at.path).label(right));
    }
    let first = scenario.hops.first().map_or(0, |hop| hop.endpoints);
    let pairs = u64::from(scenario.clients.sidecars) * u64::from(first);
    if pairs > MAX_PAIRS {
        let message = format!("{pairs} pairs of sidecar and endpoint are too many");
        let right = "`sidecars` × `endpoints` is at most one million";
        at.push(Diagnostic::error("out-of-range", at.place, message).at(at.path).label(right));
    }
}

fn events(at: &At<'_>, scenario: &Scenario) -> Option<Vec<Event>> {
    let items = at.list("a list of events, such as `[{ at: 30s, for: 30s, fault: refuse }]`")?;
    Some(items.iter().filter_map(|item| event(item, scenario)).collect())
}

fn event(item: &At<'_>, scenario: &Scenario) -> Option<Event> {
    let fields = item.fields(&SCENARIO_EVENT)?;
    let hops = scenario.hops.len();
    let hop = fields.read("hop", |at| at.number::<usize>(1..=hops as u64)).unwrap_or(hops) - 1;
    let servers = &scenario.hops[hop];
    let endpoints = fields.read("endpoints", |at| chosen(&at, servers.endpoints));
    let endpoints = endpoints.unwrap_or(servers.endpoints);
    let at = fields.required("at").and_then(|at| at.duration());
    let what = fields.exactly_one(&["fault", "restart", "load"]);
    let effect = what.and_then(|at| match at.path.steps().last() {
        Some(Step::Key("restart")) => restart(&at),
        Some(Step::Key("load")) => factor(&at).map(Effect::Load),
        _ => fault(&at),
    });
    let lasts = match effect {
        Some(Effect::Restart { every, down, cold, .. }) => {
            if let Some(at) = fields.get("for") {
                let message = "`for` and `restart` exclude each other";
                let right = "a rolling restart takes as long as its endpoints";
                let error = Diagnostic::error("exclusive-keys", at.place, message);
                at.push(error.at(at.path).label(right));
            }
            Some(every * endpoints.saturating_sub(1) + down + cold)
        }
        _ if what
            .is_some_and(|at| matches!(at.path.steps().last(), Some(Step::Key("restart")))) =>
        {
            None
        }
        _ => fields.required("for").and_then(|at| at.span_of_time()),
    };
    let event = Event { at: at?, lasts: lasts?, hop, endpoints, effect: effect? };
    let ends = event.at + event.lasts + scenario.grace + JUDGED;
    if ends > scenario.duration {
        let message = "the run ends before it can be told whether this was recovered from";
        let right = format!(
            "`duration` is at least {}: `at` + `for` + `grace` + 5s",
            format_duration(ends)
        );
        let span = fields.get("at").map_or(item.place, |at| at.node.span);
        item.push(Diagnostic::error("out-of-range", span, message).at(item.path).label(right));
    }
    Some(event)
}

/// `all`, or how many.
fn chosen(at: &At<'_>, endpoints: u32) -> Option<u32> {
    match &at.scalar("`all` or a number of endpoints")?.text {
        word if word == "all" => Some(endpoints),
        _ => at.number(1..=u64::from(endpoints)),
    }
}

fn fault(at: &At<'_>) -> Option<Effect> {
    if let Value::Scalar(scalar) = &at.node.value {
        let needs_more = SCENARIO_FAULT.keys.contains(&scalar.text.as_str());
        if needs_more {
            let right = format!("write how, as in `{{ {}: … }}`", scalar.text);
            at.bad_value(&scalar.text, &right);
            return None;
        }
        return at.word(&[
            ("refuse", Effect::Refuse),
            ("black_hole", Effect::BlackHole),
            ("hang", Effect::Hang),
        ]);
    }
    let fields = at.fields(&SCENARIO_FAULT)?;
    let what = fields.exactly_one(SCENARIO_FAULT.keys)?;
    match what.path.steps().last() {
        Some(Step::Key("reset")) => what.share().map(|share| Effect::Reset(share.fraction())),
        Some(Step::Key("errors")) => errors(&what),
        Some(Step::Key("slow")) => factor(&what).map(Effect::Slow),
        Some(Step::Key("capacity")) => what.share().map(|share| Effect::Capacity(share.fraction())),
        _ => flap(&what),
    }
}

fn errors(at: &At<'_>) -> Option<Effect> {
    if let Value::Scalar(_) = at.node.value {
        return at.share().map(|share| Effect::Errors { share: share.fraction(), status: 503 });
    }
    let fields = at.fields(&SCENARIO_ERRORS)?;
    let status = fields.read("status", |at| at.number(500..=599));
    let share = fields.required("share")?.share()?;
    Some(Effect::Errors { share: share.fraction(), status: status.unwrap_or(503) })
}

fn flap(at: &At<'_>) -> Option<Effect> {
    let fields = at.fields(&SCENARIO_FLAP)?;
    let every = fields.required("every").and_then(|at| at.span_of_time());
    let down_at = fields.required("down");
    let down = down_at.and_then(|at| at.span_of_time());
    let (every, down) = (every?, down?);
    if let (true, Some(at)) = (down >= every, down_at) {
        at.bad_value(&format_duration(down), "write a duration below `every`");
        return None;
    }
    Some(Effect::Flap { every, down })
}

fn restart(at: &At<'_>) -> Option<Effect> {
    let fields = at.fields(&SCENARIO_RESTART)?;
    let cold = fields.read("cold", |at| at.duration());
    let slow = fields.read("slow", |at| factor(&at));
    let every = fields.required("every").and_then(|at| at.span_of_time());
    let down = fields.required("down").and_then(|at| at.span_of_time());
    Some(Effect::Restart {
        every: every?,
        down: down?,
        cold: cold.unwrap_or_default(),
        slow: slow.unwrap_or(1.0),
    })
}

/// `10x`: how many times as much.
fn factor(at: &At<'_>) -> Option<f64> {
    const WANTED: &str = "a factor like `3x`, from 0.01x to 1000x";
    let text = &at.scalar(WANTED)?.text;
    let number = text.strip_suffix('x').unwrap_or_default();
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = plain.then(|| number.parse::<f64>().ok()).flatten();
    let value = value.filter(|value| (0.01..=1_000.0).contains(value));
    if value.is_none() {
        at.bad_value(text, &format!("write {WANTED}"));
    }
    value
}
