//! What `outrigger check` says of certificates that are not right, and that nothing starts with them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::date_time_ymd;
use support::Proxy;
use tls::{Authority, Issued};

/// What `check` says of a file with this identity, the folder left out.
fn check(dir: &Path, identity: &str, tls: &str) -> (bool, String) {
    let config = dir.join("outrigger.yaml");
    fs::write(&config, yaml(identity, tls)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["check", "-c", config.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The folder is of another length elsewhere: columns and underlines are left out.
    let said = said.replace(dir.to_str().unwrap(), "/certs");
    let column = regex::Regex::new(r"(outrigger.yaml:[0-9]+):[0-9]+| +\^+").unwrap();
    (output.status.success(), column.replace_all(&said, "$1").into_owned())
}

fn yaml(identity: &str, tls: &str) -> String {
    format!(
        "identity: {{ {identity} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {{ {tls} }}\n    routes: [{{ respond: {{ status: 200 }} }}]\n"
    )
}

fn with_ca(ca: &Authority, own: &Issued) -> String {
    format!("{}, ca: {}", own.yaml(), ca.ca().display())
}

#[test]
fn good_certificates_are_found_good() {
    let ca = Authority::new("ca");
    let own = ca.issue("own", &["localhost"]);
    let (good, said) = check(ca.dir.path(), &with_ca(&ca, &own), "client_cert: required");
    assert!(good && said.is_empty(), "{said}");
}

#[test]
fn each_fault_is_told_with_file_place_and_cause() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let dir = ca.dir.path();
    let good = ca.texts(&["localhost"], |_| {});
    let mut all = String::new();
    let mut told = |what: &str, (cert, key): (&str, &str), more: &str| {
        let own = ca.write("own", cert, key);
        let (good, said) = check(dir, &with_ca(&ca, &own), more);
        assert!(!good, "{what}");
        all.push_str(&format!("== {what}\n{said}"));
    };
    let expired = ca.texts(&["localhost"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    told("expired", (&expired.0, &expired.1), "");
    let early = ca.texts(&["localhost"], |params| params.not_before = date_time_ymd(2050, 1, 1));
    told("not yet valid", (&early.0, &early.1), "");
    let another = ca.texts(&["localhost"], |_| {});
    told("wrong key", (&good.0, &another.1), "");
    told("truncated certificate", (&good.0[..good.0.len() / 2], &good.1), "");
    told("truncated key", (&good.0, &good.1[..good.1.len() / 2]), "");
    told("a key where the certificate belongs", (&good.1, &good.1), "");
    told("encrypted key", (&good.0, &good.1.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")), "");
    let encrypted = good.1.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
    told("key encrypted as it once was", (&good.0, &encrypted), "");
    let foreign = other.texts(&["localhost"], |_| {});
    told("of another authority", (&foreign.0, &foreign.1), "");
    told(
        "files that are not there",
        (&good.0, &good.1),
        &format!("crl: {}/none.pem", dir.display()),
    );
    told(
        "everything at once",
        ("", "-----BEGIN PRIVATE KEY-----\nAA*=\n-----END PRIVATE KEY-----\n"),
        &format!("client_cert: required, ca: {}", dir.join("own.key").display()),
    );
    assert!(!all.contains(good.1.lines().nth(1).unwrap()), "a key is shown");
    insta::assert_snapshot!(all);
}

#[test]
fn nothing_starts_with_a_bad_certificate() {
    let ca = Authority::new("ca");
    let (cert, _) = ca.texts(&["localhost"], |_| {});
    let (_, key) = ca.texts(&["localhost"], |_| {});
    let own = ca.write("own", &cert, &key);
    let mut proxy = Proxy::spawn(&yaml(&with_ca(&ca, &own), ""), |command| command);
    assert_eq!(proxy.wait_exit(), 1);
    proxy.log().wait("the cause", |line| {
        line.contains("it is not the key of the certificate").then_some(())
    });
}

/// `command` as somebody who may not read every file. Root may, unless it gives those two rights away; `None` after saying that
/// it cannot.
fn without_rights(command: &Command, file: &Path) -> Option<Command> {
    let mut wrapped = if fs::read(file).is_err() {
        Command::new(command.get_program())
    } else {
        let mut setpriv = Command::new("setpriv");
        setpriv.arg("--bounding-set=-dac_override,-dac_read_search");
        if !setpriv.arg("true").status().is_ok_and(|status| status.success()) {
            println!("skipped: setpriv of util-linux does not work here");
            return None;
        }
        let mut setpriv = Command::new("setpriv");
        setpriv.arg("--bounding-set=-dac_override,-dac_read_search").arg(command.get_program());
        setpriv
    };
    wrapped.args(command.get_args()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(wrapped)
}

#[test]
fn a_key_that_may_not_be_read_is_told_and_the_one_in_force_kept() {
    let ca = Authority::new("ca");
    let own = ca.issue("own", &["localhost"]);
    let set = yaml(&with_ca(&ca, &own), "");
    let closed = ca.write("closed", "", "");
    fs::set_permissions(&closed.key, Permissions::from_mode(0o000)).unwrap();
    let mut skipped = false;
    let proxy = Proxy::spawn(&format!("admin: 127.0.0.1:0\n{set}"), |command| {
        match without_rights(command, &closed.key) {
            Some(wrapped) => *command = wrapped,
            None => skipped = true,
        }
        command
    });
    if skipped {
        return;
    }
    proxy.log().wait("start", |line| line.contains("outrigger is running").then_some(()));
    let config = Arc::new(ca.client(None));
    let served = || tls::get(proxy.address("in"), &config, "localhost", "/").unwrap();
    assert!(served().starts_with("HTTP/1.1 200 "));
    let (cert, key) = ca.texts(&["localhost"], |_| {});
    fs::write(&closed.cert, cert).unwrap();
    fs::rename(&closed.key, &own.key).unwrap();
    fs::rename(&closed.cert, &own.cert).unwrap();
    proxy.log().wait("the refusal", |line| {
        let cause = "own.key: it may not be read (permissions)";
        (line.contains("changed certificates refused") && line.contains(cause)).then_some(())
    });
    assert!(served().starts_with("HTTP/1.1 200 "), "the set in force is kept");
    let mut check = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let file = ca.dir.path().join("outrigger.yaml");
    fs::write(&file, set).unwrap();
    check.args(["check", "-c", file.to_str().unwrap()]);
    let output = without_rights(&check, &own.key).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("it may not be read (permissions)"),
        "{said}"
    );
    // Now it may be read.
    fs::write(&closed.key, key).unwrap();
    fs::set_permissions(&closed.key, Permissions::from_mode(0o400)).unwrap();
    fs::rename(&closed.key, &own.key).unwrap();
    proxy.wait_metrics("the new set", |metrics| {
        metrics.sum("outrigger_tls_reloads_total", &[]) >= 1.0
    });
    assert!(served().starts_with("HTTP/1.1 200 "));
}
