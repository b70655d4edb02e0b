//! Mutual TLS, seen from outside: who is let in, who is spoken to, and what is said of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "test code"
)]

#[path = "support/calls.rs"]
mod calls;
#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::sync::Arc;

use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, RevocationReason,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use support::{Proxy, Upstream};
use tls::{Authority, Issued, curl, get, program};

const DONE: &str = "outrigger_downstream_tls_handshakes_total";
const FAILED: &str = "outrigger_downstream_tls_handshake_failures_total";
const UP_FAILED: &str = "outrigger_upstream_tls_handshake_failures_total";

const WEB: &str = "spiffe://blog/ns/web/sa/cart";

/// A proxy whose callers have to show who they are, with further keys of `tls`.
fn guarded(ca: &Authority, tls: &str, upstream: &Upstream) -> Proxy {
    let own = ca.issue("server", &["spiffe://blog/ns/blog/sa/articles", "localhost"]);
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {{ {tls} }}\n    routes: [{{ to: app }}]\nupstreams:\n  app: {{ endpoints: [\"{}\"] }}\n",
        own.yaml(),
        ca.ca().display(),
        upstream.address,
    ))
}

/// A proxy that calls `to` as `own`, with further keys of `tls`.
fn calling(to: std::net::SocketAddr, ca: &Authority, own: &Issued, tls: &str) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  out:\n    bind: 127.0.0.1:0\n    routes: [{{ to: far }}]\nupstreams:\n  far:\n    endpoints: [\"{to}\"]\n    connect_timeout: 5s\n    tls: {{ {tls} }}\n",
        own.yaml(),
        ca.ca().display(),
    ))
}

fn wait_failed(proxy: &Proxy, reason: &str, count: f64) {
    let metrics = proxy.metrics_when(|metrics| metrics.sum(FAILED, &[("reason", reason)]) >= count);
    assert_eq!(metrics.sum(FAILED, &[("reason", reason)]), count, "{reason} in {}", metrics.text);
}

#[test]
fn who_shows_a_certificate_is_known_and_who_does_not_is_refused() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let proxy = guarded(&ca, "client_cert: required", &Upstream::ok("hello"));
    let to = proxy.address("in");
    let own = ca.issue("web", &[WEB]);
    let said = get(to, &Arc::new(ca.client(Some(&own))), "localhost", "/known").unwrap();
    assert!(said.ends_with("hello"), "{said}");
    let line = proxy.access_line(|line| line["path"] == "/known");
    assert_eq!(line["identity"], WEB);
    assert_eq!(proxy.metrics().sum(DONE, &[("listener", "in"), ("mtls", "yes")]), 1.0);

    let said = get(to, &Arc::new(ca.client(None)), "localhost", "/").unwrap_err();
    assert!(said.contains("CertificateRequired"), "{said}");
    wait_failed(&proxy, "no_certificate", 1.0);

    let stranger = other.issue("stranger", &[WEB]);
    let said = get(to, &Arc::new(ca.client(Some(&stranger))), "localhost", "/").unwrap_err();
    assert!(said.contains("UnknownCA"), "{said}");

    let args = |issued: &Issued| {
        ["--cert", issued.cert.to_str().unwrap(), "--key", issued.key.to_str().unwrap()]
            .map(str::to_owned)
    };
    let old = ca.issue_with("old", &[WEB], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
    });
    let server_only = ca.issue_with("server-only", &[WEB], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (issued, reason, count) in [
        (&stranger, "unknown_authority", 2.0),
        (&old, "expired_certificate", 1.0),
        (&server_only, "bad_certificate", 1.0),
    ] {
        let more = args(issued);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let Some(said) = curl(to, &ca.ca(), "/", &more) else { return };
        assert!(said.contains("000"), "{reason}: {said}");
        wait_failed(&proxy, reason, count);
    }
    let more = args(&own);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    assert_eq!(curl(to, &ca.ca(), "/", &more).unwrap(), "hello200 2 ");
}

#[test]
fn openssl_is_let_in_with_the_right_certificate_alone() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let proxy = guarded(&ca, "client_cert: required", &Upstream::ok("hello"));
    let to = format!("localhost:{}", proxy.address("in").port());
    let (own, stranger) = (ca.issue("web", &[WEB]), other.issue("stranger", &[WEB]));
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_3", "-tls1_2"] {
        for (shown, wanted) in [
            (Some(&own), "200 OK"),
            (None, "alert certificate required"),
            (Some(&stranger), "alert unknown ca"),
        ] {
            let ca = ca.ca();
            let mut args = vec!["s_client", "-connect", &to, "-verify_return_error", "-ign_eof"];
            args.extend([version, "-CAfile", ca.to_str().unwrap()]);
            if let Some(issued) = shown {
                args.extend(["-cert", issued.cert.to_str().unwrap()]);
                args.extend(["-key", issued.key.to_str().unwrap()]);
            }
            let Some(output) = program("openssl", &args, request) else { return };
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains(wanted), "{version}, {wanted}: {said}");
            assert_eq!(said.contains("hello"), shown.is_some_and(|shown| shown.cert == own.cert));
        }
    }
    wait_failed(&proxy, "no_certificate", 2.0);
    wait_failed(&proxy, "unknown_authority", 2.0);
}

#[test]
fn only_those_allowed_are_let_in_of_their_trust_domain_alone() {
    let ca = Authority::new("ca");
    let tls = "client_cert: required, allow: [\"spiffe://blog/ns/web/*\", gateway.internal]";
    let proxy = guarded(&ca, tls, &Upstream::ok("hello"));
    let to = proxy.address("in");
    for (number, names) in
        [&[WEB][..], &["gateway.internal"], &["spiffe://blog/ns/web/a/b", "other.internal"]]
            .into_iter()
            .enumerate()
    {
        let own = ca.issue(&format!("good{number}"), names);
        let said = get(to, &Arc::new(ca.client(Some(&own))), "localhost", "/");
        assert!(said.as_ref().is_ok_and(|said| said.ends_with("hello")), "{names:?}: {said:?}");
    }
    let bad: [&[&str]; 6] = [
        &["spiffe://other/ns/web/sa/cart"],
        &["spiffe://blog/ns/webber/sa/cart"],
        &["spiffe://blog/ns/web"],
        &["sub.gateway.internal"],
        // Two URIs are no SPIFFE ID.
        &[WEB, "spiffe://blog/ns/web/sa/other"],
        &[],
    ];
    for (number, names) in bad.into_iter().enumerate() {
        let own = ca.issue(&format!("bad{number}"), names);
        let said = get(to, &Arc::new(ca.client(Some(&own))), "localhost", "/").unwrap_err();
        assert!(said.contains("AccessDenied"), "{names:?}: {said}");
    }
    wait_failed(&proxy, "wrong_identity", 6.0);
}

#[test]
fn where_certificates_are_optional_callers_without_one_are_nobody() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let proxy = guarded(&ca, "client_cert: optional", &Upstream::ok("hello"));
    let to = proxy.address("in");
    assert!(
        get(to, &Arc::new(ca.client(None)), "localhost", "/nobody").unwrap().ends_with("hello")
    );
    let line = proxy.access_line(|line| line["path"] == "/nobody");
    assert!(line["identity"].is_null(), "{line}");
    let own = ca.issue("web", &[WEB]);
    assert!(
        get(to, &Arc::new(ca.client(Some(&own))), "localhost", "/known")
            .unwrap()
            .ends_with("hello")
    );
    assert_eq!(proxy.access_line(|line| line["path"] == "/known")["identity"], WEB);
    // One that is shown has to be good.
    let stranger = other.issue("stranger", &[WEB]);
    let (cert, key) = (stranger.cert.to_str().unwrap(), stranger.key.to_str().unwrap());
    if let Some(said) = curl(to, &ca.ca(), "/", &["--cert", cert, "--key", key]) {
        assert!(said.contains("000"), "{said}");
        wait_failed(&proxy, "unknown_authority", 1.0);
    }
}

#[test]
fn endpoints_are_verified_by_identity_in_place_of_their_name() {
    let ca = Authority::new("ca");
    let far = guarded(
        &ca,
        "client_cert: required, allow: \"spiffe://blog/ns/web/*\"",
        &Upstream::ok("hello"),
    );
    let own = ca.issue("web", &[WEB]);
    for verify in ["spiffe://blog/ns/blog/sa/articles", "spiffe://blog/ns/blog/*", "localhost"] {
        let near = calling(far.address("in"), &ca, &own, &format!("verify: \"{verify}\""));
        let reply = support::get(near.address("out"), "/");
        assert_eq!(reply.text(), "hello", "{verify}");
        assert_eq!(far.access_line(|line| line["identity"] == WEB)["protocol"], "HTTP/2");
    }
    for verify in
        ["spiffe://other/ns/blog/sa/articles", "spiffe://blog/ns/blog", "articles.internal"]
    {
        let near = calling(far.address("in"), &ca, &own, &format!("verify: \"{verify}\""));
        let reply = support::get(near.address("out"), "/");
        assert_eq!(
            (reply.status, reply.header("x-outrigger-reason")),
            (503, Some("connect_failed")),
            "{verify}"
        );
        assert!(near.metrics().sum(UP_FAILED, &[("reason", "wrong_identity")]) >= 1.0, "{verify}");
    }
}

/// What stands on a list is refused; what the chain lacks is not made good by a name that fits.
#[test]
fn revoked_certificates_are_refused_on_both_sides() {
    let ca = Authority::new("ca");
    let own =
        ca.issue_with("web", &[WEB], |params| params.serial_number = Some(SerialNumber::from(77)));
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2050, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(77),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = ca.dir.path().join("crl.pem");
    std::fs::write(&crl, list.signed_by(&ca.issuer()).unwrap().pem().unwrap()).unwrap();
    let with_list = format!("crl: {}", crl.display());
    let proxy =
        guarded(&ca, &format!("client_cert: required, {with_list}"), &Upstream::ok("hello"));
    let said =
        get(proxy.address("in"), &Arc::new(ca.client(Some(&own))), "localhost", "/").unwrap_err();
    assert!(said.contains("CertificateRevoked"), "{said}");
    wait_failed(&proxy, "revoked_certificate", 1.0);
    let good = ca.issue("good", &[WEB]);
    assert!(get(proxy.address("in"), &Arc::new(ca.client(Some(&good))), "localhost", "/").is_ok());

    // An endpoint whose certificate is revoked, asked for by another name than its own: it is refused for the list.
    let far = Proxy::start(&format!(
        "listeners:\n  in: {{ bind: 127.0.0.1:0, tls: {{ {} }}, routes: [{{ respond: {{ status: 200 }} }}] }}\n",
        own.yaml()
    ));
    let near = calling(far.address("in"), &ca, &good, &format!("verify: \"{WEB}\", {with_list}"));
    assert_eq!(support::get(near.address("out"), "/").status, 503);
    assert!(near.metrics().sum(UP_FAILED, &[("reason", "revoked_certificate")]) >= 1.0);
    let near = calling(far.address("in"), &ca, &good, &format!("verify: \"{WEB}\""));
    assert_eq!(support::get(near.address("out"), "/").status, 200);
    // The same identity of another authority.
    let other = Authority::new("other");
    let near = calling(
        far.address("in"),
        &other,
        &other.issue("good", &[WEB]),
        &format!("verify: \"{WEB}\""),
    );
    assert_eq!(support::get(near.address("out"), "/").status, 503);
    assert!(near.metrics().sum(UP_FAILED, &[("reason", "unknown_authority")]) >= 1.0);
}

#[test]
fn health_is_checked_over_the_same_tls() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let far = guarded(&ca, "client_cert: required, allow: \"spiffe://blog/ns/web/*\"", &upstream);
    let health = |own: &Issued, probe: &str| {
        Proxy::start(&format!(
            "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: far }}] }}\nupstreams:\n  far: {{ endpoints: [\"{}\"], tls: {{ verify: \"spiffe://blog/*\" }}, health: {{ {probe}, interval: 100ms, timeout: 90ms }} }}\n",
            own.yaml(),
            ca.ca().display(),
            far.address("in"),
        ))
    };
    let checks = |proxy: &Proxy, outcome: &str| {
        proxy.wait_metrics(outcome, |metrics| {
            metrics.sum("outrigger_upstream_health_checks_total", &[("outcome", outcome)]) >= 2.0
        });
    };
    let own = ca.issue("web", &[WEB]);
    for probe in ["http: /healthz", "tcp: true"] {
        checks(&health(&own, probe), "success");
    }
    assert!(upstream.requests().iter().any(|request| request.starts_with("GET /healthz ")));
    // The endpoint does not let us in. In TLS 1.3 it says so only after the handshake.
    let stranger = ca.issue("stranger", &["spiffe://blog/ns/other/sa/x"]);
    checks(&health(&stranger, "http: /healthz"), "protocol_error");
}

#[test]
fn grpc_health_is_asked_over_the_same_tls() {
    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    let ca = Authority::new("ca");
    let upstream = calls::server(|raw, stream, _| {
        let head = [vec![0x88], calls::fields(&[("content-type", "application/grpc")])].concat();
        raw.send(http2::HEADERS, http2::END_HEADERS, stream, &head);
        raw.send(http2::DATA, 0, stream, SERVING);
        calls::end(raw, stream, "0", &[]);
    });
    let far = guarded(&ca, "client_cert: required, allow: \"spiffe://blog/ns/web/*\"", &upstream);
    let asking = |own: &Issued| {
        Proxy::start(&format!(
            "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: far }}] }}\nupstreams:\n  far: {{ endpoints: [\"{}\"], protocol: http2, tls: {{ verify: \"spiffe://blog/*\" }}, health: {{ grpc: a.B, interval: 100ms, timeout: 90ms }} }}\n",
            own.yaml(),
            ca.ca().display(),
            far.address("in"),
        ))
    };
    let checks = |metrics: &support::Metrics, outcome: &str| {
        metrics.sum("outrigger_upstream_health_checks_total", &[("outcome", outcome)])
    };
    let ours = asking(&ca.issue("web", &[WEB]));
    ours.wait_metrics("it serves", |metrics| checks(metrics, "success") >= 2.0);
    let stranger = asking(&ca.issue("stranger", &["spiffe://blog/ns/other/sa/x"]));
    let seen = stranger.wait_metrics("a verdict", |metrics| {
        metrics.sum("outrigger_upstream_health_checks_total", &[]) >= 2.0
    });
    assert!(checks(&seen, "success") < 0.5, "it is not let in");
}

/// TLS 1.3 lets us send before the endpoint has looked at our certificate; what was sent has reached nobody.
#[test]
fn a_request_that_met_a_refusal_did_not_run_and_may_be_sent_again() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let far = guarded(&ca, "client_cert: required, allow: \"spiffe://blog/ns/web/*\"", &upstream);
    let stranger = ca.issue("stranger", &["spiffe://blog/ns/other/sa/x"]);
    let near = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  out:\n    bind: 127.0.0.1:0\n    routes: [{{ to: far }}]\nupstreams:\n  far: {{ endpoints: [\"{}\"], protocol: http1, connect_timeout: 5s, tls: {{ sni: localhost }} }}\n",
        stranger.yaml(),
        ca.ca().display(),
        far.address("in"),
    ));
    let reply = support::http(near.address("out"), "POST", "/", &[], b"once");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("connect_failed")));
    let line = near.access_line(|line| line["reason"] == "connect_failed");
    assert!(
        line["detail"].as_str().unwrap().contains("refused with the alert AccessDenied"),
        "{line}"
    );
    assert!(line["attempts"].as_u64().unwrap() > 1, "it is safe to try again: {line}");
    assert!(upstream.requests().is_empty());
    assert!(near.metrics().sum(UP_FAILED, &[("reason", "refused_by_peer")]) > 1.0);
}
