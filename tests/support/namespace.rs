//! A test that runs itself once more where network, or files, are its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::process::Command;

/// Set in the process inside.
const INSIDE: &str = "OUTRIGGER_TEST_INSIDE";

/// True in the process inside: the test does its work. False outside: that process has run, and has passed; or the machine does not
/// let us (no root, no `unshare`, a `setup` that fails), which is said.
///
/// `name` is the test's own, `kinds` are unshare's (`--net`, `--mount`), `setup` is a shell's script and runs inside first.
pub fn is_inside(name: &str, kinds: &[&str], setup: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(kinds).args(["sh", "-c", script]);
        command
    };
    let possible = unshare(setup).output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        let why = possible.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        println!("skipped: no {kinds:?} of our own with `{setup}`: {why:?}");
        return false;
    }
    let script =
        format!("{{ {setup}; }} && exec \"$0\" --exact {name} --nocapture --test-threads=1");
    let mut command = unshare(&script);
    let output = command.arg(std::env::current_exe().unwrap()).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Runs a shell's command, which has to succeed.
pub fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}
