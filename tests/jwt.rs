//! Tokens: who is let in with which, and where their keys come from.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/dnsmasq.rs"]
mod dnsmasq;
#[path = "support/http2.rs"]
mod http2;
#[path = "support/local.rs"]
mod local;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use support::{Metrics, Proxy, Reply, Upstream, get, http};
use tls::Authority;
use traffic::{Setup, answer};

struct Signer {
    id: String,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!(id);
        Self { id: id.to_owned(), key, jwk }
    }

    /// A token with these changes to claims that are right.
    fn token(&self, changes: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims =
            json!({ "iss": "https://auth.blog", "aud": "orders", "sub": "ann", "exp": now + 600 });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        format!("Bearer {}", encode(&header, &claims, &self.key).unwrap())
    }

    fn good(&self) -> String {
        self.token(&json!({}))
    }
}

fn set(keys: &[&Signer]) -> String {
    let keys: Vec<&Value> = keys.iter().map(|signer| &signer.jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// A file with the keys, in a folder of its own.
fn file(keys: &[&Signer]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, set(keys)).unwrap();
    (dir, path)
}

fn listener(jwks: &str) -> String {
    format!(
        "direction: inbound, jwt: [{{ issuer: \"https://auth.blog\", jwks: \"{jwks}\", audience: orders, claims: {{ sub: x-user }} }}]"
    )
}

fn setup(upstream: &Upstream, jwks: &Path) -> Setup {
    Setup::new(&[upstream.address]).listener(&listener(&format!("file://{}", jwks.display())))
}

fn ask(to: SocketAddr, path: &str, token: &str) -> Reply {
    http(to, "GET", path, &[("authorization", token)], b"")
}

fn refused(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("outrigger_jwt_refused_total", &[("listener", "outbound"), ("reason", reason)])
}

fn is(found: f64, wanted: usize) -> bool {
    (found - wanted as f64).abs() < 0.5
}

#[test]
fn only_a_valid_token_is_let_in_and_the_rest_is_told_why() {
    let upstream = Upstream::ok("ok");
    let (signer, other) = (Signer::new("a"), Signer::new("a"));
    let (_dir, path) = file(&[&signer]);
    let proxy = Proxy::start(&setup(&upstream, &path).yaml());
    let to = proxy.address("outbound");
    assert_eq!(ask(to, "/", &signer.good()).status, 200);
    let invalid = "Bearer error=\"invalid_token\"";
    let expired = "Bearer error=\"invalid_token\", error_description=\"the token has expired\"";
    for (token, reason, challenge) in [
        (String::new(), "missing", "Bearer"),
        ("Basic YTpi".to_owned(), "missing", "Bearer"),
        ("Bearer x".to_owned(), "malformed", invalid),
        (signer.token(&json!({ "exp": 1 })), "expired", expired),
        (signer.token(&json!({ "aud": "lists" })), "audience", invalid),
        (signer.token(&json!({ "iss": "https://auth.other" })), "issuer", invalid),
        (signer.token(&json!({ "nbf": 99_999_999_999_u64 })), "not_yet_valid", invalid),
        (signer.token(&json!({ "exp": null })), "missing_claim", invalid),
        (other.good(), "signature", invalid),
        (Signer::new("b").good(), "unknown_key", invalid),
    ] {
        let reply = ask(to, "/", &token);
        assert_eq!(
            (reply.status, reply.header("www-authenticate")),
            (401, Some(challenge)),
            "{reason}"
        );
        assert_eq!(reply.header("x-outrigger-reason"), Some("unauthenticated"));
        let line = proxy.access_line(|line| line["token_refused"] == reason);
        assert_eq!(
            (&line["reason"], &line["flag"], &line["attempts"]),
            (&"unauthenticated".into(), &"UAEX".into(), &0.into())
        );
    }
    let metrics = proxy.metrics();
    assert!(
        is(refused(&metrics, "missing"), 2) && is(refused(&metrics, "signature"), 1),
        "{}",
        metrics.text
    );
    assert!(is(metrics.sum("outrigger_jwt_verified_total", &[]), 1));
    assert!(is(metrics.sum("outrigger_jwks_keys", &[]), 1));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn claims_become_headers_that_nobody_else_can_set_or_remove() {
    let upstream = Upstream::ok("ok");
    let signer = Signer::new("a");
    let (_dir, path) = file(&[&signer]);
    let setup = setup(&upstream, &path);
    let setup = Setup {
        routes: vec![
            "{ match: { path: /open }, to: articles, jwt: optional }".to_owned(),
            "{ match: { path: /free }, to: articles, jwt: never }".to_owned(),
            "{ match: { path: /there }, to: articles }".to_owned(),
        ],
        ..setup
    };
    let proxy = Proxy::start(&setup.yaml());
    let to = proxy.address("outbound");
    let token = signer.good();
    let forged = [("x-user", "root"), ("connection", "close, x-user"), ("authorization", &token)];
    assert_eq!(http(to, "GET", "/there", &forged, b"").status, 200);
    assert!(upstream.requests()[0].contains("\r\nx-user: ann\r\n"), "{}", upstream.requests()[0]);
    for path in ["/open", "/free"] {
        assert_eq!(http(to, "GET", path, &[("x-user", "root")], b"").status, 200);
        let sent = upstream.requests().pop().unwrap();
        assert!(!sent.contains("x-user"), "{sent}");
    }
    // A token that is brought must be right; where none is looked at, it does not matter.
    assert_eq!(
        (ask(to, "/open", "Bearer x").status, ask(to, "/free", "Bearer x").status),
        (401, 200)
    );
    assert_eq!(ask(to, "/open", &token).status, 200);
    assert!(upstream.requests().pop().unwrap().contains("\r\nx-user: ann\r\n"));
    // Who has no token does not learn which routes there are.
    assert_eq!((get(to, "/nowhere").status, ask(to, "/nowhere", &token).status), (401, 404));
}

#[test]
fn rules_can_ask_for_what_a_claim_says() {
    let upstream = Upstream::ok("ok");
    let signer = Signer::new("a");
    let (_dir, path) = file(&[&signer]);
    let keys = listener(&format!("file://{}", path.display()));
    let rules = format!("{keys}, authorize: [{{ headers: {{ x-user: ann }} }}]");
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(&rules).yaml());
    let to = proxy.address("outbound");
    assert_eq!(ask(to, "/", &signer.good()).status, 200);
    let bob = signer.token(&json!({ "sub": "bob" }));
    let forged = [("x-user", "ann"), ("authorization", &*bob)];
    assert_eq!(http(to, "GET", "/", &forged, b"").status, 403);
}

#[test]
fn a_call_of_grpc_without_a_token_is_unauthenticated() {
    let upstream = Upstream::ok("ok");
    let signer = Signer::new("a");
    let (_dir, path) = file(&[&signer]);
    let proxy = Proxy::start(&setup(&upstream, &path).yaml());
    let to = proxy.address("outbound");
    http2::run(async {
        let client = http2::connect(to).await;
        let mut call = http2::post("/blog.Articles/List");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let answer = http2::ask(&client, call, b"", None).await.unwrap();
        assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some("16")));
    });
}

#[test]
fn a_changed_file_takes_force_and_a_broken_one_does_not() {
    let upstream = Upstream::ok("ok");
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (dir, path) = file(&[&old]);
    let proxy = Proxy::start(&setup(&upstream, &path).yaml());
    let to = proxy.address("outbound");
    assert_eq!((ask(to, "/", &old.good()).status, ask(to, "/", &new.good()).status), (200, 401));
    let write = |text: &str| {
        let next = dir.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &path).unwrap();
    };
    write("{ \"keys\": [");
    let malformed = [("reason", "malformed")];
    proxy.wait_metrics("the broken file", |metrics| {
        metrics.sum("outrigger_jwks_errors_total", &malformed) > 0.5
    });
    assert_eq!(ask(to, "/", &old.good()).status, 200);
    write(&set(&[&new, &old]));
    proxy.wait_metrics("the new keys", |metrics| is(metrics.sum("outrigger_jwks_keys", &[]), 2));
    assert_eq!((ask(to, "/", &old.good()).status, ask(to, "/", &new.good()).status), (200, 200));
}

#[test]
fn a_file_without_keys_refuses_the_configuration() {
    let upstream = Upstream::ok("ok");
    let signer = Signer::new("a");
    let (dir, path) = file(&[&signer]);
    let proxy = Proxy::start(&setup(&upstream, &path).yaml());
    let bad = dir.path().join("bad.json");
    for (text, why) in
        [(None, "No such file"), (Some("{}"), "`keys`"), (Some("{\"keys\":[]}"), "public key")]
    {
        if let Some(text) = text {
            std::fs::write(&bad, text).unwrap();
        }
        let reply = proxy.reload(&setup(&upstream, &bad).yaml());
        assert!(reply.status != 200 && reply.text().contains(why), "{}", reply.text());
    }
    assert_eq!(ask(proxy.address("outbound"), "/", &signer.good()).status, 200);
}

#[test]
fn keys_are_fetched_again_when_a_token_names_an_unknown_one() {
    let upstream = Upstream::ok("ok");
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let served = Arc::new(Mutex::new(answer(503, "", "not yet")));
    let issuer = {
        let served = Arc::clone(&served);
        Upstream::scripted(move |_| served.lock().unwrap().clone())
    };
    let jwks = format!("http://{}/keys.json", issuer.address);
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(&listener(&jwks)).yaml());
    let to = proxy.address("outbound");
    let status = [("reason", "status")];
    proxy.wait_metrics("the first answer", |metrics| {
        metrics.sum("outrigger_jwks_errors_total", &status) > 0.5
    });
    // As long as there are none it is us who cannot tell.
    let reply = ask(to, "/", &old.good());
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("unauthenticated")));
    *served.lock().unwrap() = answer(200, "", &set(&[&old]));
    proxy.wait_metrics("the first keys", |metrics| is(metrics.sum("outrigger_jwks_keys", &[]), 1));
    assert_eq!(ask(to, "/", &old.good()).status, 200);
    assert!(
        issuer.requests()[0].starts_with("GET /keys.json HTTP/1.1\r\n"),
        "{}",
        issuer.requests()[0]
    );
    *served.lock().unwrap() = answer(200, "", &set(&[&old, &new]));
    assert_eq!(ask(to, "/", &new.good()).status, 401);
    proxy.wait_metrics("the new keys", |metrics| is(metrics.sum("outrigger_jwks_keys", &[]), 2));
    assert_eq!(ask(to, "/", &new.good()).status, 200);
}

#[test]
fn what_is_too_long_or_nobodys_answer_keeps_the_last_good_keys() {
    let upstream = Upstream::ok("ok");
    let signer = Signer::new("a");
    let long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "a".repeat(300_000));
    let good = set(&[&signer]);
    let issuer = Upstream::scripted(move |index| match index {
        0 => answer(200, "", &long),
        1 => b"nonsense\r\n\r\n".to_vec(),
        _ => answer(200, "", &good),
    });
    let jwks = format!("http://localhost:{}/", issuer.address.port());
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).listener(&listener(&jwks)).yaml());
    proxy.wait_metrics("the keys", |metrics| is(metrics.sum("outrigger_jwks_keys", &[]), 1));
    assert_eq!(ask(proxy.address("outbound"), "/", &signer.good()).status, 200);
    let metrics = proxy.metrics();
    for reason in ["too_large", "protocol"] {
        assert!(
            is(metrics.sum("outrigger_jwks_errors_total", &[("reason", reason)]), 1),
            "{}",
            metrics.text
        );
    }
}

/// A proxy whose system trusts `ca` alone.
fn trusting(ca: &Authority, yaml: &str) -> Proxy {
    let proxy = Proxy::spawn(yaml, |command| {
        command.env("SSL_CERT_FILE", ca.ca()).env_remove("SSL_CERT_DIR")
    });
    proxy.log().wait("start", |line| line.contains("outrigger is running").then_some(()));
    proxy
}

#[test]
fn keys_come_over_https_from_whom_an_authority_of_the_system_vouches_for() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (upstream, signer) = (Upstream::ok("ok"), Signer::new("a"));
    let keys = answer(200, "", &set(&[&signer]));
    for (file, by, name, in_force) in [
        ("good", &ca, "localhost", true),
        ("foreign", &other, "localhost", false),
        ("misnamed", &ca, "elsewhere.test", false),
    ] {
        let issuer = by.issue(file, &[name]).serve(keys.clone(), true);
        let jwks = format!("https://localhost:{}/keys.json", issuer.address.port());
        let setup = Setup::new(&[upstream.address]).listener(&listener(&jwks));
        let proxy = trusting(&ca, &setup.yaml());
        let (family, labels) = match in_force {
            true => ("outrigger_jwks_keys", vec![]),
            false => ("outrigger_jwks_errors_total", vec![("reason", "tls")]),
        };
        proxy.wait_metrics(file, |metrics| metrics.sum(family, &labels) > 0.5);
        let status = ask(proxy.address("outbound"), "/", &signer.good()).status;
        assert_eq!(status, if in_force { 200 } else { 503 }, "{file}");
    }
}

#[test]
fn the_name_of_an_issuer_is_looked_up_where_the_file_says() {
    let Some(mut server) = dnsmasq::NameServer::new() else { return };
    server.names("127.0.0.1 keys.test\n");
    server.start();
    let (ca, upstream, signer) = (Authority::new("ca"), Upstream::ok("ok"), Signer::new("a"));
    let issuer = ca.issue("keys", &["keys.test"]).serve(answer(200, "", &set(&[&signer])), true);
    let jwks = format!("https://keys.test:{}/", issuer.address.port());
    let mut setup = Setup::new(&[upstream.address]).listener(&listener(&jwks));
    setup.top.push_str(&format!("dns: {{ servers: [\"127.0.0.1:{}\"] }}\n", server.port));
    let proxy = trusting(&ca, &setup.yaml());
    proxy.wait_metrics("the keys", |metrics| is(metrics.sum("outrigger_jwks_keys", &[]), 1));
    assert_eq!(ask(proxy.address("outbound"), "/", &signer.good()).status, 200);
}

#[test]
fn check_tells_what_is_wrong_with_a_file_of_keys_and_where_it_is_named() {
    let (dir, path) = file(&[&Signer::new("a")]);
    let config = dir.path().join("outrigger.yaml");
    let check = |jwt: &str| {
        let yaml = format!(
            "listeners:\n  in:\n    bind: 127.0.0.1:0\n    jwt: {jwt}\n    routes: [{{ respond: {{ status: 200 }} }}]\n"
        );
        std::fs::write(&config, yaml).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["check", "-c", config.to_str().unwrap()])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let issuer =
        |path: &Path| format!("{{ issuer: a, audience: b, jwks: \"file://{}\" }}", path.display());
    let good = issuer(&path);
    assert!(check(&good).0 && check(&format!("[{good}]")).0);
    let bad = dir.path().join("bad.json");
    let wrong = [
        (None, "No such file or directory"),
        (Some("{ \"keys\": ["), "not a JSON object with a list `keys`"),
        (Some("{ \"keys\": [] }"), "none of its keys is a public key"),
        (Some(&*" ".repeat(300_000)), "longer than 256 KiB"),
    ];
    for (text, why) in wrong {
        if let Some(text) = text {
            std::fs::write(&bad, text).unwrap();
        }
        let (alone, listed) = (issuer(&bad), format!("[{good}, {}]", issuer(&bad)));
        for jwt in [alone, listed] {
            let (ok, said) = check(&jwt);
            assert!(!ok && said.contains("error[bad-jwks]") && said.contains(why), "{said}");
            // The last of them, behind `    jwt: `.
            let column = 10 + jwt.rfind("\"file://").unwrap();
            assert!(said.contains(&format!("outrigger.yaml:4:{column}\n")), "{column} in {said}");
        }
    }
}
