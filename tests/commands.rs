//! The commands as a shell runs them: what they print, and their exit codes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/ops.rs"]
mod ops;
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use ops::{component, unix, wait_for};
use support::{Proxy, get};

const VALID: &str = "listeners:\n  web: { bind: 127.0.0.1:0, routes: [{ respond: 204 }] }\n";

/// Four mistakes.
const BAD: &str = "admin: 127.0.0.1\nlisteners:\n  web: { bind: 127.0.0.1:0, routes: [{ to: nobody, timeout: 5 }] }\nnonsense: 1\n";

fn outrigger(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger")).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A file with `content` in a folder of its own.
fn file(content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outrigger.yaml");
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn check_of_a_valid_file_is_one_line() {
    let (_dir, path) = file(VALID);
    let output = outrigger(&["check", "-c", &path]);
    assert_eq!(code(&output), 0);
    assert_eq!(text(&output.stdout), format!("{path}: valid: 1 listener, 1 route, 0 upstreams\n"));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn check_tells_every_mistake_of_every_file_with_its_place() {
    let ((_good_dir, good), (_bad_dir, bad)) = (file(VALID), file(BAD));
    let output = outrigger(&["check", "-c", &good, &bad]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stderr);
    for (mistake, place) in [
        ("bad-value", "1:8"),
        ("unknown-upstream", "3:44"),
        ("missing-unit", "3:61"),
        ("unknown-key", "4:1"),
    ] {
        assert!(said.contains(&format!("error[{mistake}]")), "{mistake}: {said}");
        assert!(said.contains(&format!("{bad}:{place}\n")), "{place}: {said}");
    }
    let verdicts = text(&output.stdout);
    assert!(verdicts.contains(&format!("{good}: valid")), "{verdicts}");
    assert!(!verdicts.contains(&bad), "{verdicts}");
    assert!(said.contains(&format!("{bad}: 4 errors, 0 warnings\n")), "{said}");
}

#[test]
fn check_as_json_is_one_array_over_all_files() {
    let ((_one_dir, one), (_two_dir, two), (_three_dir, three)) =
        (file(BAD), file(VALID), file(BAD));
    let output = outrigger(&["check", "--format", "json", "-c", &one, &two, &three]);
    assert_eq!((code(&output), text(&output.stderr).as_str()), (1, ""));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of =
        |path: &str| findings.iter().filter(|finding| finding["place"]["file"] == path).count();
    assert_eq!((of(&one), of(&two), of(&three)), (4, 0, 4));
    for finding in &findings {
        assert_eq!(finding["severity"], "error");
        assert!(finding["code"].is_string() && finding["message"].is_string(), "{finding}");
        assert!(finding["place"]["line"].is_u64() && finding["place"]["column"].is_u64());
    }
    let (_dir, valid) = file(VALID);
    let output = outrigger(&["check", "--format", "json", "-c", &valid]);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "[]\n"));
}

#[test]
fn warnings_do_not_fail_a_check() {
    let (_dir, path) =
        file(&format!("{VALID}upstreams: {{ unused: {{ endpoints: [127.0.0.1:1] }} }}\n"));
    let output = outrigger(&["check", "-c", &path]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stderr).contains("warning[unused-upstream]"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(": valid: "), "{}", text(&output.stdout));
}

#[test]
fn the_effective_configuration_loads_again_and_is_the_same() {
    let (_dir, path) = file(include_str!("../config/retries.yaml"));
    let first = outrigger(&["config", "-c", &path, "--effective"]);
    assert_eq!(code(&first), 0);
    let yaml = text(&first.stdout);
    assert!(yaml.contains("# built in") && yaml.contains("outrigger.yaml:"), "origins: {yaml}");
    let (_again_dir, again) = file(&yaml);
    let second = outrigger(&["config", "-c", &again, "--effective"]);
    assert_eq!(code(&second), 0, "{}", text(&second.stderr));
    let values = |yaml: &str| -> Value { serde_yaml::from_str(yaml).unwrap() };
    assert_eq!(values(&yaml), values(&text(&second.stdout)));
    let (_bad_dir, bad) = file(BAD);
    let refused = outrigger(&["config", "-c", &bad, "--effective"]);
    assert_eq!((code(&refused), text(&refused.stdout).as_str()), (1, ""));
}

#[test]
fn the_schema_takes_valid_files_and_refuses_others() {
    let output = outrigger(&["schema"]);
    assert_eq!(code(&output), 0);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let fits = |yaml: &str| validator.is_valid(&serde_yaml::from_str::<Value>(yaml).unwrap());
    assert!(fits(VALID));
    assert!(!fits(BAD));
    assert!(!fits(&VALID.replace("bind", "bnid")));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    // What is below are scenarios, and policies to compare by them.
    let paths = std::fs::read_dir(config).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.is_file()) {
        let json: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
}

#[test]
fn health_is_0_while_the_proxy_is_ready_and_1_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!(
        "admin: \"unix:{}/admin.sock\"\nruntime: {{ drain: {{ delay: 30s, deadline: 60s }} }}\n{VALID}",
        dir.path().display()
    );
    let (_config_dir, config) = file(&yaml);
    let health = || outrigger(&["health", "-c", &config]);
    let down = health();
    assert_eq!(code(&down), 1);
    assert!(text(&down.stderr).contains("cannot connect to unix:"), "{}", text(&down.stderr));
    let mut proxy = Proxy::start(&yaml);
    let up = health();
    assert_eq!((code(&up), text(&up.stderr).as_str()), (0, ""));
    proxy.signal("TERM");
    proxy.log().wait("drain", |line| line.contains("\"draining\"").then_some(()));
    let draining = health();
    assert_eq!(
        (code(&draining), text(&draining.stderr).as_str()),
        (1, "outrigger: not ready: draining\n")
    );
    assert_eq!(unix(&dir.path().join("admin.sock"), "GET", "/live").status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(), 0);
    assert_eq!(code(&health()), 1);
    let (_no_admin_dir, no_admin) = file(VALID);
    let without = outrigger(&["health", "-c", &no_admin]);
    assert_eq!(code(&without), 1);
    assert!(text(&without.stderr).contains("has no `admin`"));
}

#[test]
fn the_version_names_the_commit() {
    let output = outrigger(&["--version"]);
    assert_eq!(code(&output), 0);
    let said = text(&output.stdout);
    let start = format!("outrigger {} (commit ", env!("CARGO_PKG_VERSION"));
    let commit = said.strip_prefix(&start).and_then(|rest| rest.strip_suffix(")\n")).unwrap();
    assert!(commit == "unknown" || commit.len() >= 7, "{said}");
}

#[test]
fn misuse_is_2_and_shows_the_usage() {
    for args in [
        &[][..],
        &["nonsense"],
        &["config"],
        &["run", "--nonsense"],
        &["check", "-c", "x", "--format", "xml"],
        &["demo", "--requests", "many"],
    ] {
        let output = outrigger(args);
        assert_eq!(code(&output), 2, "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("Usage:") || said.contains("--help"), "{args:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
    for args in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["demo", "--help"]] {
        assert_eq!(code(&outrigger(args)), 0, "{args:?}");
    }
}

#[test]
fn run_of_a_bad_or_missing_file_starts_nothing() {
    let (_dir, bad) = file(BAD);
    let output = outrigger(&["run", "-c", &bad]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stderr);
    assert!(said.contains("error[unknown-key]") && said.contains("nothing was started"), "{said}");
    let missing = outrigger(&["run", "-c", "/nonexistent/outrigger.yaml"]);
    assert_eq!(code(&missing), 1);
    assert!(text(&missing.stderr).contains("No such file"), "{}", text(&missing.stderr));
}

#[test]
fn a_reader_that_leaves_is_no_accident() {
    let (_dir, bad) = file(BAD);
    for args in [
        &["schema"][..],
        &["check", "-c", &bad],
        &["check", "-c", &bad, "--format", "json"],
        &["config", "-c", "config/full.yaml", "--effective"],
        &["--help"],
        &["demo", "--requests", "3"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(!said.contains("panicked") && code(&output) != 101, "{args:?}: {said}");
        assert!(output.status.code().is_some(), "{args:?}: ended by a signal");
    }
}

#[test]
fn the_demo_drives_itself() {
    let output = outrigger(&["demo", "--requests", "100"]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), 0, "{said}{}", text(&output.stderr));
    assert!(said.starts_with("100 requests, "), "{said}");
    assert!(
        said.contains("% success") && said.contains("retries") && said.contains("p99"),
        "{said}"
    );
}

#[test]
fn the_demo_shows_commands_that_work_and_ends_with_ctrl_c() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let mut child = command.args(["demo", "--rate", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut commands = Vec::new();
    for line in lines.by_ref() {
        if line.trim_start().starts_with("curl ") {
            commands.push(line.trim().to_owned());
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(commands.len(), 7, "{commands:?}");
    let curl = component("curl", "curl");
    for shown in &commands {
        let shown = shown.split(" #").next().unwrap().trim();
        let url = shown.split(' ').next_back().unwrap();
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let wanted = if path == "nothing" { 404 } else { 200 };
        let reply = get(address.parse::<SocketAddr>().unwrap(), &format!("/{path}"));
        assert_eq!(reply.status, wanted, "{url}: {}", reply.text());
        if let Some(curl) = &curl {
            let command =
                shown.replacen("curl", &format!("{curl} -s -o /dev/null -w %{{http_code}}"), 1);
            let output = Command::new("sh").arg("-c").arg(&command).output().unwrap();
            assert_eq!(text(&output.stdout), wanted.to_string(), "{command}");
        }
    }
    let mut kill = Command::new("kill");
    assert!(kill.arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let code = wait_for("the end of the demo", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(0));
}
