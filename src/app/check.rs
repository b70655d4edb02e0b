//! Commands that look at a file and run nothing: `check`, `config`, `schema`.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::config::{Config, Loaded, load_file, render, render_json, schema as schema_of};
use crate::control::add_findings;

use super::cli::{CheckArgs, EffectiveArgs, Format};
use super::output;

/// `outrigger check`.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let mut valid = true;
    // One array over all files: every finding names its own.
    let mut found = Vec::new();
    for path in &args.configs {
        let mut loaded = load_file(path);
        add_findings(&mut loaded);
        valid &= loaded.config.is_some();
        match args.format {
            Format::Json => found.extend(render_json(&loaded.diagnostics, &loaded.source)),
            Format::Text => {
                output::stderr(&findings(&loaded));
                // What is wrong has just been counted there.
                if let Some(config) = &loaded.config {
                    output::stdout(&format!("{}: {}\n", path.display(), extent(config)));
                }
            }
        }
    }
    if args.format == Format::Json {
        output::stdout(&format!("{:#}\n", serde_json::Value::Array(found)));
    }
    if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `outrigger config --effective`.
pub(super) fn config(args: &EffectiveArgs) -> ExitCode {
    let loaded = load_file(&args.file.config);
    output::stderr(&findings(&loaded));
    if loaded.config.is_none() {
        return ExitCode::FAILURE;
    }
    output::stdout(&loaded.effective_yaml());
    ExitCode::SUCCESS
}

/// `outrigger schema`.
pub(super) fn schema() -> ExitCode {
    output::stdout(&format!("{:#}\n", schema_of()));
    ExitCode::SUCCESS
}

/// Errors and warnings as people read them; in colour where a terminal does.
pub(super) fn findings(loaded: &Loaded) -> String {
    render(&loaded.diagnostics, &loaded.source, std::io::stderr().is_terminal())
}

/// What a valid file holds.
fn extent(config: &Config) -> String {
    let counted =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let routes = config.listeners.iter().map(|listener| listener.routes.len()).sum();
    format!(
        "valid: {}, {}, {}",
        counted(config.listeners.len(), "listener"),
        counted(routes, "route"),
        counted(config.upstreams.len(), "upstream"),
    )
}
