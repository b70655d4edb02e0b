//! TLS on listeners and upstreams, seen from outside: curl, openssl, and a caller and an endpoint of our own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "test code"
)]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ProtocolVersion;
use support::{Connection, Proxy, Upstream};
use tls::{Authority, curl, get, open, program};

const DONE: &str = "outrigger_downstream_tls_handshakes_total";
const FAILED: &str = "outrigger_downstream_tls_handshake_failures_total";
const UP_DONE: &str = "outrigger_upstream_tls_handshakes_total";
const UP_FAILED: &str = "outrigger_upstream_tls_handshake_failures_total";

/// A proxy that ends TLS with `tls` (its inside) and passes on to `upstream`.
fn ending(ca: &Authority, tls: &str, upstream: &Upstream) -> Proxy {
    let own = ca.issue("server", &["localhost", "127.0.0.1", "articles.internal"]);
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    direction: inbound\n    tls: {{ {tls} }}\n    routes: [{{ to: app }}]\nupstreams:\n  app: {{ endpoints: [\"{}\"] }}\n",
        own.yaml(),
        ca.ca().display(),
        upstream.address,
    ))
}

/// A proxy in front of `to`, with `upstream` as further keys of the upstream.
fn starting(to: std::net::SocketAddr, identity: &str, upstream: &str) -> Proxy {
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\n{identity}\nlisteners:\n  out:\n    bind: 127.0.0.1:0\n    routes: [{{ to: far }}]\nupstreams:\n  far:\n    endpoints: [\"{to}\"]\n    connect_timeout: 5s\n    {upstream}\n",
    ))
}

#[test]
fn curl_speaks_both_versions_of_tls_and_of_http() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let proxy = ending(&ca, "", &upstream);
    let to = proxy.address("in");
    for (more, wanted) in [
        (&["--http1.1", "--tlsv1.3"][..], "hello200 1.1 "),
        (&["--http1.1", "--tls-max", "1.2"], "hello200 1.1 "),
        (&["--http2", "--tlsv1.3"], "hello200 2 "),
        (&["--http2", "--tls-max", "1.2"], "hello200 2 "),
        (&["--http1.1", "--no-alpn"], "hello200 1.1 "),
    ] {
        let Some(said) = curl(to, &ca.ca(), "/", more) else { return };
        assert_eq!(said, wanted, "{more:?}");
    }
    let requests = upstream.requests();
    let https = |text: &String| text.contains("x-forwarded-proto: https\r\n");
    assert!(requests.iter().all(https), "{requests:?}");
    let metrics = proxy.metrics();
    let done =
        |version| metrics.sum(DONE, &[("listener", "in"), ("version", version), ("mtls", "no")]);
    assert_eq!((done("1.3"), done("1.2")), (3.0, 2.0));
    assert!(curl(to, &ca.ca(), "/", &["--tls-max", "1.1"]).unwrap().contains("000 0"));
    let metrics =
        proxy.metrics_when(|metrics| metrics.sum(FAILED, &[("reason", "incompatible")]) == 1.0);
    assert_eq!(metrics.sum(FAILED, &[("reason", "incompatible")]), 1.0, "{}", metrics.text);
}

#[test]
fn openssl_resumes_its_session_in_both_versions() {
    let ca = Authority::new("ca");
    let proxy = ending(&ca, "", &Upstream::ok("hello"));
    let to = format!("localhost:{}", proxy.address("in").port());
    let (ca_file, dir) = (ca.ca(), ca.dir.path());
    for version in ["-tls1_3", "-tls1_2"] {
        let session = dir.join(format!("session{version}"));
        let session = session.to_str().unwrap();
        let common = [
            "s_client",
            "-connect",
            &to,
            "-CAfile",
            ca_file.to_str().unwrap(),
            "-verify_return_error",
            "-ign_eof",
            version,
        ];
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        for (option, wanted) in [("-sess_out", "New, TLSv1."), ("-sess_in", "Reused, TLSv1.")] {
            let args = [&common[..], &[option, session]].concat();
            let Some(output) = program("openssl", &args, request) else { return };
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(wanted), "{version} {option}: {said}");
            assert!(
                said.contains("Verify return code: 0 (ok)") && said.contains("hello"),
                "{said}"
            );
        }
    }
    let metrics = proxy.metrics();
    for version in ["1.3", "1.2"] {
        for resumed in ["no", "yes"] {
            let labels = [("version", version), ("resumed", resumed)];
            assert_eq!(metrics.sum(DONE, &labels), 1.0, "{version} {resumed}");
        }
    }
}

#[test]
fn keys_are_exchanged_so_that_no_later_computer_opens_a_recording() {
    let ca = Authority::new("ca");
    let proxy = ending(&ca, "", &Upstream::ok("hello"));
    let config = Arc::new(ca.client(None));
    let mut stream = open(proxy.address("in"), &config, "localhost");
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(stream.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn plain_text_is_refused_where_tls_is_spoken_and_told_so() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let proxy = ending(&ca, "", &upstream);
    let reply = support::get(proxy.address("in"), "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (400, Some("plain_text")));
    let mut http2 = TcpStream::connect(proxy.address("in")).unwrap();
    http2.write_all(b"\x00\x01 something else entirely").unwrap();
    let mut rest = Vec::new();
    let _reset = http2.read_to_end(&mut rest);
    assert!(rest.is_empty());
    let metrics =
        proxy.metrics_when(|metrics| metrics.sum(FAILED, &[("reason", "plain_text")]) == 2.0);
    assert_eq!(metrics.sum(FAILED, &[("reason", "plain_text")]), 2.0);
    assert!(upstream.requests().is_empty());
}

#[test]
fn one_port_tells_tls_http2_and_http1_apart_where_plain_text_is_accepted() {
    let ca = Authority::new("ca");
    let proxy = ending(&ca, "plain_text: accept", &Upstream::ok("hello"));
    let to = proxy.address("in");
    assert_eq!(support::get(to, "/").text(), "hello");
    let plain = format!("http://localhost:{}/", to.port());
    let args = ["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", &plain];
    if let Some(output) = program("curl", &args, "") {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello 2");
        assert_eq!(curl(to, &ca.ca(), "/", &["--http2"]).unwrap(), "hello200 2 ");
    }
    assert!(get(to, &Arc::new(ca.client(None)), "localhost", "/").unwrap().ends_with("hello"));
}

#[test]
fn a_client_hello_on_a_listener_without_tls_is_told_from_broken_http() {
    let proxy = starting(support::refusing(), "", "");
    let ca = Authority::new("ca");
    let said = get(proxy.address("out"), &Arc::new(ca.client(None)), "localhost", "/");
    assert!(said.as_ref().unwrap_err().contains("HandshakeFailure"), "{said:?}");
    proxy.log().wait("reason", |line| {
        line.contains("a TLS handshake, and the listener has no `tls`").then_some(())
    });
    let labels = [("reason", "downstream_protocol_error")];
    assert_eq!(proxy.metrics().sum("outrigger_rejected_total", &labels), 1.0);
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let ca = Authority::new("ca");
    let own = ca.issue("server", &["localhost"]);
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {{ {} }}\n    limits: {{ header_timeout: 200ms }}\n    routes: [{{ respond: {{ status: 200 }} }}]\n",
        own.yaml()
    ));
    // The header of a record of 512 bytes, and no more.
    let mut silent = Connection::open(proxy.address("in"));
    silent.send([22, 3, 1, 2, 0, 1]);
    assert!(silent.rest().is_empty());
    let metrics =
        proxy.metrics_when(|metrics| metrics.sum(FAILED, &[("reason", "timeout")]) == 1.0);
    assert_eq!(metrics.sum(FAILED, &[("reason", "timeout")]), 1.0);
}

#[test]
fn endpoints_are_spoken_to_in_the_protocol_that_is_written_or_that_they_choose() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let far = ending(&ca, "", &upstream);
    for (protocol, seen) in [("http1", "HTTP/1.1"), ("http2", "HTTP/2"), ("auto", "HTTP/2")] {
        let tls = format!("tls: {{ ca: {}, sni: articles.internal }}", ca.ca().display());
        let near = starting(far.address("in"), "", &format!("protocol: {protocol}\n    {tls}"));
        let path = format!("/{protocol}");
        for _ in 0..3 {
            assert_eq!(support::get(near.address("out"), &path).text(), "hello", "{protocol}");
        }
        let line = far.access_line(|line| line["path"] == path.as_str());
        assert_eq!(line["protocol"], seen, "{protocol}");
        let done = near.metrics().sum(UP_DONE, &[("upstream", "far"), ("version", "1.3")]);
        // One for each worker at most; nothing is asked for twice.
        assert!((1.0..=4.0).contains(&done), "{protocol}: {done}");
    }
}

#[test]
fn an_endpoint_that_chooses_http1_is_spoken_to_in_http1() {
    let ca = Authority::new("ca");
    let own = ca.issue("server", &["articles.internal"]);
    let upstream = Upstream::ok("hello");
    // Bytes are passed on: no protocol is agreed on.
    let far = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    protocol: tcp\n    tls: {{ {} }}\n    routes: [{{ to: app }}]\nupstreams:\n  app: {{ endpoints: [\"{}\"] }}\n",
        own.yaml(),
        upstream.address,
    ));
    let tls = format!("tls: {{ ca: {}, sni: articles.internal }}", ca.ca().display());
    let near = starting(far.address("in"), "", &tls);
    for _ in 0..2 {
        assert_eq!(support::get(near.address("out"), "/").text(), "hello");
    }
    assert!(upstream.requests()[0].starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn endpoints_that_cannot_be_verified_get_nothing() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let upstream = Upstream::ok("hello");
    let far = ending(&ca, "", &upstream);
    for (authority, sni, reason, said) in [
        (&other, "articles.internal", "unknown_authority", "no authority that we trust"),
        (&ca, "comments.internal", "wrong_identity", "is not for comments.internal"),
    ] {
        let tls = format!("tls: {{ ca: {}, sni: {sni} }}", authority.ca().display());
        let near = starting(far.address("in"), "", &tls);
        let reply = support::get(near.address("out"), "/");
        assert_eq!(
            (reply.status, reply.header("x-outrigger-reason")),
            (503, Some("connect_failed"))
        );
        let line = near.access_line(|line| line["reason"] == "connect_failed");
        assert!(line["detail"].as_str().unwrap().contains(said), "{line}");
        assert!(near.metrics().sum(UP_FAILED, &[("upstream", "far"), ("reason", reason)]) >= 1.0);
    }
    let metrics =
        far.metrics_when(|metrics| metrics.sum(FAILED, &[("reason", "refused_by_peer")]) >= 2.0);
    assert!(metrics.sum(FAILED, &[("reason", "refused_by_peer")]) >= 2.0, "{}", metrics.text);
    assert!(upstream.requests().is_empty());
}

#[test]
fn an_endpoint_without_a_name_is_verified_by_its_address() {
    let ca = Authority::new("ca");
    let far = ending(&ca, "", &Upstream::ok("hello"));
    let near = starting(far.address("in"), "", &format!("tls: {{ ca: {} }}", ca.ca().display()));
    assert_eq!(support::get(near.address("out"), "/").text(), "hello");
}
