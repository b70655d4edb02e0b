//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where a container's configuration is.
const DEFAULT_CONFIG: &str = "/etc/outrigger/outrigger.yaml";

/// A sidecar proxy: discovery, balancing, retries, timeouts and metrics for one service, from one YAML file.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version = super::VERSION, about, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy. SIGHUP, a changed file or POST /reload swap the configuration with no request lost
    Run(ConfigArgs),
    /// Report every error and warning of configuration files; exit 1 on errors
    Check(CheckArgs),
    /// Print the configuration in force
    Config(EffectiveArgs),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Ask a running proxy's /ready; exit 0 or 1 (for HEALTHCHECK)
    Health(ConfigArgs),
    /// Play a scenario of failures in virtual time with the policies of a configuration
    Simulate(SimulateArgs),
    /// Three small services, one of them failing, behind a proxy: all in one process
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "OUTRIGGER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Configuration files
    #[arg(short, long = "config", value_name = "FILE", num_args = 1.., env = "OUTRIGGER_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(super) configs: Vec<PathBuf>,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct EffectiveArgs {
    #[command(flatten)]
    pub(super) file: ConfigArgs,
    /// Every value in force, defaults included, each with its origin
    #[arg(long, required = true)]
    pub(super) effective: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// What goes wrong, and when: see docs/SIMULATE.md and config/scenarios
    #[arg(value_name = "SCENARIO")]
    pub(super) scenario: PathBuf,
    /// A configuration whose policies are used; several are compared. Without: the defaults
    #[arg(short, long = "config", value_name = "FILE")]
    pub(super) configs: Vec<PathBuf>,
    /// The route whose policies are used. Without: the first that leads to an upstream
    #[arg(long, value_name = "NAME")]
    pub(super) route: Option<String>,
    /// The same seed gives the same result
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(super) format: ReportFormat,
    /// Also draw the run over time
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Drive it with this many requests, print the result and exit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) requests: Option<u64>,
    /// Requests of its own per second while it runs; 0: only yours
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) rate: u32,
}
