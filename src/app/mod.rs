//! The program: command line, threads, signals. The only place that knows all others.

mod check;
mod cli;
mod demo;
mod health;
mod logging;
mod output;
mod run;
mod simulate;
mod threads;

use std::process::ExitCode;

use clap::Parser;

/// Version, commit (where the build was told, in `OUTRIGGER_COMMIT`) and features.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("OUTRIGGER_COMMIT"), ")");

/// Reads the command line and does what it says. The exit code: 0 done, 1 failed, 2 misused.
pub fn main() -> ExitCode {
    // kube and tonic take the process's provider of cryptography; our own configurations name theirs. Fails only where
    // one was chosen before.
    let _chosen_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli::Cli::parse().command {
        cli::Command::Run(args) => run::run(&args.config),
        cli::Command::Check(args) => return check::check(&args),
        cli::Command::Config(args) => return check::config(&args),
        cli::Command::Schema => return check::schema(),
        cli::Command::Health(args) => health::health(&args.config),
        cli::Command::Simulate(args) => return simulate::simulate(&args),
        cli::Command::Demo(args) => demo::demo(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::stderr(&format!("outrigger: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}
