//! The proxy's own log, on standard error: text on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use super::output;

/// Changes the filter of a running process.
pub(super) type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// Starts logging. `OUTRIGGER_LOG` sets the filter; default `info`. One that cannot be read is told and ignored.
pub(super) fn start(default: &str) -> FilterHandle {
    let wanted = std::env::var("OUTRIGGER_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = wanted.and_then(|wanted| match parse(&wanted) {
        Ok(filter) => Some(filter),
        Err(error) => {
            output::stderr(&format!("outrigger: OUTRIGGER_LOG: {error}\n"));
            None
        }
    });
    // Of the Kubernetes client our own lines tell once what its own repeat with every attempt.
    let quiet = format!("{default},kube_runtime=off,kube_client=off");
    let filter = filter.unwrap_or_else(|| EnvFilter::new(quiet));
    let (filter, handle) = reload::Layer::new(filter);
    let text = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if text {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
    // Fails only where a log was started before, which then goes on.
    drop(started);
    handle
}

/// Sets the filter: a level, or directives like `info,outrigger::proxy=debug`.
pub(super) fn set(handle: &FilterHandle, filter: &str) -> Result<(), String> {
    handle.reload(parse(filter)?).map_err(|error| error.to_string())
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    const USE: &str = "write error, warn, info, debug or trace";
    // The parser takes any other word for a target, of which it then logs everything, and nothing of all others.
    let is_word = |part: &str| {
        part.is_empty() || !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err()
    };
    if let Some(word) = filter.split(',').map(str::trim).find(|part| is_word(part)) {
        return Err(format!("not a log level: {word:?}; {USE}"));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("not a log filter: {error}; {USE}"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_filter_is_a_level_or_directives_and_no_other_word() {
        for good in ["info", "WARN", "off", "info,outrigger::proxy=debug", "outrigger=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["loud", "", "info,proxy", "outrigger=loud"] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("write error, warn"), "{bad}: {error}");
        }
    }
}
