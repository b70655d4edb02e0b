//! `outrigger simulate`.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, load_file, load_scenario, load_str, render};
use crate::simulate::{self, Run};

use super::check::findings;
use super::cli::{ReportFormat, SimulateArgs};
use super::output;

/// What is in force where nothing is written.
const DEFAULTS: &str = include_str!("../../config/nine-lines.yaml");

/// Reads everything, so that all mistakes of all files are told at once; then runs one configuration after the other.
pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    let loaded = load_scenario(&args.scenario);
    let color = std::io::stderr().is_terminal();
    output::stderr(&render(&loaded.diagnostics, &loaded.source, color));
    let configs: Vec<Option<(String, Config)>> = match args.configs.as_slice() {
        [] => vec![defaults()],
        paths => paths.iter().map(|path| configuration(path)).collect(),
    };
    let (Some(scenario), Some(configs)) =
        (loaded.scenario, configs.into_iter().collect::<Option<Vec<_>>>())
    else {
        return ExitCode::FAILURE;
    };
    let mut runs: Vec<(String, Run)> = Vec::new();
    for (name, config) in configs {
        for what in simulate::left_out(&config, args.route.as_deref()).unwrap_or_default() {
            output::stderr(&format!("outrigger: {name}: {what}\n"));
        }
        match simulate::run(&scenario, &config, args.route.as_deref(), args.seed) {
            Ok(run) => runs.push((name, run)),
            Err(error) => return failed(&format!("{name}: {error}")),
        }
    }
    output::stdout(&match args.format {
        ReportFormat::Table => simulate::table(&scenario, args.seed, &runs),
        ReportFormat::Json => {
            format!("{:#}\n", simulate::json(&scenario, args.seed, &runs))
        }
    });
    if let Some(path) = &args.svg
        && let Err(error) = std::fs::write(path, simulate::plot(&scenario, args.seed, &runs))
    {
        return failed(&format!("{}: {error}", path.display()));
    }
    ExitCode::SUCCESS
}

fn failed(text: &str) -> ExitCode {
    output::stderr(&format!("outrigger: {text}\n"));
    ExitCode::FAILURE
}

fn defaults() -> Option<(String, Config)> {
    let config = load_str("defaults", DEFAULTS, &|_| None).config?;
    Some(("defaults".to_owned(), config))
}

/// The configuration in a file, under the file's name without its ending.
fn configuration(path: &Path) -> Option<(String, Config)> {
    let loaded = load_file(path);
    output::stderr(&findings(&loaded));
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Some((name.unwrap_or_default(), loaded.config?))
}
