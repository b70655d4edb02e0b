//! What `outrigger check` says of certificates that are not right, and that nothing starts with them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::path::Path;
use std::process::Command;

use rcgen::date_time_ymd;
use support::Proxy;
use tls::{Authority, Issued};

/// What `check` says of a file with this identity, the folder left out.
fn check(dir: &Path, identity: &str, tls: &str) -> (bool, String) {
    let config = dir.join("outrigger.yaml");
    std::fs::write(&config, yaml(identity, tls)).unwrap();
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
