//! Tells the binary which commit it was built from, where that is known.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=OUTRIGGER_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
    let given = std::env::var("OUTRIGGER_COMMIT").ok();
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=OUTRIGGER_COMMIT={commit}");
}

fn from_git() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !commit.is_empty()).then(|| commit.trim().to_owned())
}
