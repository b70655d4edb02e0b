//! The `outrigger` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger::app::main()
}
