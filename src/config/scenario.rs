//! What a scenario of `outrigger simulate` says: who asks, who answers, and what goes wrong when. Plain data.

use std::path::Path;
use std::time::Duration;

use crate::base::units::Rate;

use super::diagnostic::{Diagnostic, Severity};
use super::expand::{Environment, expand};
use super::loaded::text_of;
use super::read::{self, Reader};
use super::source::Source;
use super::{load, node::Node};

/// A whole scenario file, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// One line for the head of the report.
    pub about: String,
    /// For how long requests arrive, 10 s to 1 h. Default 120 s.
    pub duration: Duration,
    /// What the system is given to recover once the cause is gone, before it is called metastable. Default 30 s.
    pub grace: Duration,
    /// Who asks.
    pub clients: Clients,
    /// Who answers: the first is asked by the clients, each asks the next. At least one, at most 5.
    pub hops: Vec<Servers>,
    /// Services pass the headers in which sidecars tell each other of attempts and deadlines on to the next hop, and
    /// back. Default: they drop them, as services do that were not told.
    pub headers_pass: bool,
    /// What goes wrong, by the order of the file.
    pub events: Vec<Event>,
}

/// `clients`: sidecars, each with the policies of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Clients {
    /// How many, 1 to 10 000. Default 10.
    pub sidecars: u32,
    /// Worker threads of each, 1 to 64. Default 1.
    pub workers: u32,
    /// Requests per second of all together; they arrive at random (Poisson), whatever becomes of those before.
    pub rate: Rate,
}

/// `servers`, or one of `hops`.
#[derive(Debug, Clone, PartialEq)]
pub struct Servers {
    /// How many, 1 to 1 000.
    pub endpoints: u32,
    /// How long a request is worked on, alone.
    pub service_time: ServiceTime,
    /// Requests that one endpoint works on at once. Default 16.
    pub slots: u32,
    /// Requests that wait in one endpoint for a slot; beyond, it answers 503 at once. Default 100.
    pub queue: u32,
    /// There and back, without work. Default 1 ms.
    pub rtt: Duration,
    /// Zones that the endpoints stand in, in equal parts from the first, and who asks them, in turn; they are called `1`, `2`,
    /// and so on. 1 to 20. Default 1.
    pub zones: u32,
    /// How many of the endpoints, the last ones, have priority 1: they are asked for what the others cannot take. Default 0.
    pub spare: u32,
}

/// A log-normal distribution; both equal: a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTime {
    /// Half of all are below.
    pub median: Duration,
    /// 99 of 100 are below.
    pub p99: Duration,
}

/// Something that goes wrong, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// From the start of the run.
    pub at: Duration,
    /// From `at` until it is over, restarts and warming up included.
    pub lasts: Duration,
    /// Whom it concerns: the index in `hops`. Default: the last.
    pub hop: usize,
    /// How many of that hop's endpoints, from the first.
    pub endpoints: u32,
    /// What.
    pub effect: Effect,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// The process is gone: requests inside it are reset, kept connections closed, new ones refused.
    Refuse,
    /// The network swallows everything: no connection comes about, nothing is answered.
    BlackHole,
    /// Connections are accepted, and nothing is answered.
    Hang,
    /// This share of requests is reset once it has arrived.
    Reset(f64),
    /// This share of requests is answered with a status, at once.
    Errors {
        /// Of all requests, 0 to 1.
        share: f64,
        /// 500 to 599. Default 503.
        status: u16,
    },
    /// Work takes this many times as long.
    Slow(f64),
    /// This share of the slots is left, at least one.
    Capacity(f64),
    /// The process is gone for the first `down` of each `every`.
    Flap {
        /// A whole period.
        every: Duration,
        /// Its first part.
        down: Duration,
    },
    /// One endpoint after the other ends what it has begun, is gone for `down`, and comes back cold.
    Restart {
        /// From one endpoint's restart to the next one's.
        every: Duration,
        /// How long each refuses connections.
        down: Duration,
        /// How long each warms up.
        cold: Duration,
        /// How many times as long work takes at first; falls to 1 over `cold`.
        slow: f64,
    },
    /// This many times as many requests arrive.
    Load(f64),
}

/// What became of a scenario file.
#[derive(Debug)]
pub struct LoadedScenario {
    /// `Some` exactly where no finding is an error.
    pub scenario: Option<Scenario>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The file's text, for rendering.
    pub source: Source,
}

/// Loads a scenario file. One that cannot be read is a finding as well.
pub fn load_scenario(path: &Path) -> LoadedScenario {
    match text_of(path) {
        Ok(text) => {
            scenario_from(&path.display().to_string(), &text, &|name| std::env::var(name).ok())
        }
        Err(diagnostic) => LoadedScenario {
            scenario: None,
            diagnostics: vec![*diagnostic],
            source: Source::new(path.display().to_string(), ""),
        },
    }
}

/// Loads a text as the scenario file `name`; `env` gives the values of `${VAR}`.
pub fn scenario_from(name: &str, text: &str, env: Environment<'_>) -> LoadedScenario {
    let source = Source::new(name, text);
    let mut diagnostics = Vec::new();
    let Some(mut root) = load::tree(&source, &mut diagnostics) else {
        for empty in diagnostics.iter_mut().filter(|found| found.code == "empty-file") {
            empty.help = Some("a scenario has at least `clients` and `servers`".to_owned());
        }
        return LoadedScenario { scenario: None, diagnostics, source };
    };
    expand(&mut root, env, &mut diagnostics);
    let scenario = read_all(&root, &mut diagnostics);
    let valid = diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error);
    diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
    LoadedScenario { scenario: scenario.filter(|_| valid), diagnostics, source }
}

fn read_all(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Scenario> {
    let reader = Reader::new(root);
    let scenario = read::scenario(&reader, root);
    diagnostics.extend(reader.into_diagnostics());
    scenario
}
