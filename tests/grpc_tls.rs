//! A real gRPC client over mutual TLS: through one proxy under TLS to another, and from there to a real server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::process::{Command, Output};

use support::Proxy;
use tls::{Authority, Issued};
use traffic::PythonServer;

const WEB: &str = "spiffe://blog/ns/web/sa/cart";

fn call(
    server: &PythonServer,
    proxy: &Proxy,
    ca: &Authority,
    own: Option<&Issued>,
    scenario: &str,
) -> Output {
    let mut command = Command::new(&server.python);
    let address = format!("localhost:{}", proxy.address("in").port());
    command
        .arg(traffic::client("grpc_client.py"))
        .arg(address)
        .arg(scenario)
        .env("GRPC_CA", ca.ca());
    if let Some(own) = own {
        command.env("GRPC_CERT", &own.cert).env("GRPC_KEY", &own.key);
    }
    command.output().unwrap()
}

#[test]
fn calls_of_every_kind_pass_two_proxies_under_mutual_tls() {
    let Some(server) = PythonServer::start("grpc", "grpc_server.py") else { return };
    let ca = Authority::new("ca");
    let own = ca.issue("articles", &["spiffe://blog/ns/blog/sa/articles", "localhost"]);
    let proxy = |allow: &str, upstream: &str| {
        Proxy::start(&format!(
            "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {{ client_cert: required, allow: \"{allow}\" }}\n    routes: [{{ to: next, timeout: unlimited }}]\nupstreams:\n  next: {{ {upstream}, connect_timeout: 5s }}\n",
            own.yaml(),
            ca.ca().display(),
        ))
    };
    let far = proxy("spiffe://blog/ns/blog/*", &format!("endpoints: [\"{}\"]", server.address));
    let near = proxy(
        "spiffe://blog/ns/web/*",
        &format!(
            "endpoints: [\"{}\"], tls: {{ verify: \"spiffe://blog/ns/blog/*\" }}",
            far.address("in")
        ),
    );
    let web = ca.issue("web", &[WEB]);
    for scenario in ["kinds", "metadata", "statuses"] {
        let output = call(&server, &near, &ca, Some(&web), scenario);
        assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let line = near.access_line(|line| line["path"] == "/test.Echo/Both");
    assert_eq!((&line["identity"], &line["protocol"]), (&WEB.into(), &"HTTP/2".into()));
    let line = far.access_line(|line| line["path"] == "/test.Echo/Both");
    assert_eq!(line["identity"], "spiffe://blog/ns/blog/sa/articles");
    // The caller of a resumed session is who it was in its first.
    let resumed = [("listener", "in"), ("mtls", "yes"), ("resumed", "yes")];
    let handshakes = || near.metrics().sum("outrigger_downstream_tls_handshakes_total", &resumed);
    assert!(handshakes() < 0.5);
    let output = call(&server, &near, &ca, Some(&web), "resumed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((handshakes() - 1.0).abs() < 0.5, "{}", handshakes());
    // Without a certificate, and with one of somebody else.
    let other = ca.issue("other", &["spiffe://blog/ns/other/sa/x"]);
    for own in [None, Some(&other)] {
        let output = call(&server, &near, &ca, own, "metadata");
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("UNAVAILABLE"));
    }
}
