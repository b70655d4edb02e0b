//! The proxy's own log, on standard error: text on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the filter of a running process.
pub(super) type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// Starts logging. `OUTRIGGER_LOG` sets the filter; default `info`.
pub(super) fn start(default: &str) -> FilterHandle {
    let filter =
        EnvFilter::try_from_env("OUTRIGGER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
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
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("not a log filter: {error}; write error, warn, info, debug or trace")
    })?;
    handle.reload(filter).map_err(|error| error.to_string())
}
