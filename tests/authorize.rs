//! Who may call what, and that no spelling of a path says otherwise.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use support::{Connection, Metrics, PATIENCE, Proxy, Upstream, get, http};
use traffic::Setup;

fn denied(metrics: &Metrics, enforced: &str) -> f64 {
    let labels = [("listener", "outbound"), ("enforced", enforced)];
    metrics.sum("outrigger_authorization_denied_total", &labels)
}

fn is(found: f64, wanted: usize) -> bool {
    (found - wanted as f64).abs() < 0.5
}

fn start(upstream: &Upstream, authorize: &str) -> Proxy {
    let keys = format!("direction: inbound, authorize: {authorize}");
    Proxy::start(&Setup::new(&[upstream.address]).listener(&keys).yaml())
}

/// The status of a target that is sent as it stands.
fn status(to: SocketAddr, target: &[u8]) -> u16 {
    let mut caller = Connection::open(to);
    caller.send([b"GET ", target, b" HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
    caller.reply_head().status
}

/// Spellings of `/admin` and of what is below it, and of neither; see docs/AUTHORIZATION.md.
const ADMIN: [&[u8]; 40] = [
    b"/admin",
    b"/admin/",
    b"/admin//",
    b"/admin/x",
    b"//admin/x",
    b"///admin",
    b"/./admin/x",
    b"/x/../admin",
    b"/%2e/admin",
    b"/x/%2e%2e/admin",
    b"/x/%2E%2e/%2e%2e/admin",
    b"/x%2f..%2fadmin",
    b"/%2Fadmin",
    b"/admin%2Fx",
    b"/admin%2fx",
    b"/admin;x",
    b"/admin;x=1/y",
    b"/admin%3Bx",
    b"/x/..;/admin",
    b"/..;/admin",
    b"/;/admin",
    b"/ADMIN/x",
    b"/Admin",
    b"/%41dmin",
    b"/%61dmin",
    b"/admin.",
    b"/admin./x",
    b"/admin%20",
    b"/admin%5Cx",
    b"/%5Cadmin",
    b"/x%5C..%5Cadmin",
    b"/%2561dmin",
    b"/x/%252e%252e/admin",
    b"/admin%252Fx",
    b"/admin%2500",
    b"/x/.../admin",
    b"/x/%C0%AE%C0%AE/admin",
    b"/%C0%AFadmin",
    b"/admin?x=1",
    b"http://test/x/../admin",
];
const OTHERS: [&[u8]; 9] = [
    b"/",
    b"/administrator",
    b"/x/admin",
    b"/admin2/x",
    b"/x/../y",
    b"/caf%C3%A9",
    b"/a%2Fb",
    b"//x",
    b"/x;v=1?a=/admin",
];
/// What can be read in no way.
const REFUSED: [&[u8]; 6] =
    [b"/\xC0\xAFadmin", b"/admin%00", b"/admin\\x", b"/adm%0Ain", b"/admin%2", b"/%zzadmin"];

#[test]
fn no_spelling_of_a_path_slips_past_a_deny_rule() {
    let upstream = Upstream::ok("ok");
    let proxy = start(&upstream, "{ deny: [{ path: \"/admin/*\" }], allow: [{ path: \"/*\" }] }");
    let to = proxy.address("outbound");
    for (targets, want) in [(&ADMIN[..], 403), (&OTHERS, 200), (&REFUSED, 400)] {
        for target in targets {
            assert_eq!(status(to, target), want, "{}", String::from_utf8_lossy(target));
        }
    }
    assert_eq!(upstream.requests().len(), OTHERS.len());
    assert!(is(denied(&proxy.metrics(), "true"), ADMIN.len()));
}

#[test]
fn no_spelling_of_a_path_gets_through_an_allow_rule() {
    let upstream = Upstream::ok("ok");
    let proxy = start(&upstream, "[{ path: \"/orders/*\" }]");
    let to = proxy.address("outbound");
    for target in [
        &b"/orders"[..],
        b"/orders/",
        b"/orders/7",
        b"/orders/./7",
        b"/x/../orders/7",
        b"/%6frders/7",
        b"/orders//7",
        b"/orders/a%2Fb",
        b"/orders/7;v=2",
    ] {
        assert_eq!(status(to, target), 200, "{}", String::from_utf8_lossy(target));
    }
    for target in [
        &b"/admin"[..],
        b"/orders/../admin",
        b"/orders/%2e%2e/admin",
        b"/orders/..;/admin",
        b"/orders/..%2Fadmin",
        b"/orders%2F..%2Fadmin",
        b"/orders/%252e%252e/admin",
        b"/orders/..%5Cadmin",
        b"/orders/%C0%AE%C0%AE/admin",
        b"/orders/.../admin",
        b"/Orders/7",
        b"//orders/7",
        b"/orders%2F7",
        b"/orders;x/7",
        b"/orders./7",
        b"/ordersx",
    ] {
        assert_eq!(status(to, target), 403, "{}", String::from_utf8_lossy(target));
    }
}

#[test]
fn who_is_denied_learns_nothing_of_rules_and_routes() {
    let upstream = Upstream::ok("ok");
    let setup = Setup {
        routes: vec!["{ name: there, match: { path: /there }, to: articles }".to_owned()],
        ..Setup::new(&[upstream.address])
    };
    let rules = "authorize: { deny: [{ path: /x }, { headers: { x-role: root } }], allow: [{ method: POST }] }";
    let proxy = Proxy::start(&setup.listener(rules).yaml());
    let to = proxy.address("outbound");
    let there = get(to, "/there");
    let nowhere = get(to, "/nowhere");
    let by_rule = http(to, "POST", "/there", &[("x-role", "user, root")], b"");
    for reply in [&there, &nowhere, &by_rule] {
        assert_eq!(
            (reply.status, reply.text()),
            (403, "denied: this caller may not do this\n".to_owned())
        );
        assert_eq!(reply.header("x-outrigger-reason"), Some("denied"));
    }
    assert_eq!(http(to, "POST", "/there", &[], b"").status, 200);
    assert_eq!(http(to, "POST", "/nowhere", &[], b"").status, 404);
    let line = proxy.access_line(|line| line["denied_by"] == "deny[1]");
    assert_eq!(
        (&line["reason"], &line["flag"], &line["route"]),
        (&"denied".into(), &"UAEX".into(), &"there".into())
    );
    let line = proxy.access_line(|line| line["path"] == "/nowhere" && line["status"] == 403);
    assert_eq!((&line["denied_by"], &line["attempts"]), (&"no_rule".into(), &0.into()));
    let line = proxy.access_line(|line| line["status"] == 200);
    assert!(line.get("denied_by").is_none());
}

#[test]
fn what_is_not_enforced_is_counted_and_passes() {
    let upstream = Upstream::ok("ok");
    let proxy = start(&upstream, "{ enforce: false, deny: [{ path: /x }], allow: [{ path: /y }] }");
    let to = proxy.address("outbound");
    for path in ["/x", "/y", "/z"] {
        assert_eq!(get(to, path).status, 200);
    }
    let metrics = proxy.metrics();
    assert!(
        is(denied(&metrics, "false"), 2) && is(denied(&metrics, "true"), 0),
        "{}",
        metrics.text
    );
    let line = proxy.access_line(|line| line["path"] == "/x");
    assert_eq!(
        (&line["denied_by"], &line["reason"]),
        (&"deny[0]".into(), &serde_json::Value::Null)
    );
}

#[test]
fn rules_ask_for_the_source_and_a_reload_changes_them() {
    let upstream = Upstream::ok("ok");
    let setup = |rules: &str| {
        let keys = format!("direction: inbound, authorize: {rules}");
        Setup::new(&[upstream.address]).listener(&keys).yaml()
    };
    let proxy = Proxy::start(&setup("[{ source: 10.0.0.0/8 }]"));
    let to = proxy.address("outbound");
    assert_eq!(get(to, "/").status, 403);
    assert_eq!(
        proxy.reload(&setup("[{ source: [10.0.0.0/8, 127.0.0.1], method: [GET] }]")).status,
        200
    );
    assert_eq!((get(to, "/").status, http(to, "POST", "/", &[], b"").status), (200, 403));
    assert_eq!(
        proxy
            .reload(&setup("{ deny: [{ source: 127.0.0.0/8 }], allow: [{ path: \"/*\" }] }"))
            .status,
        200
    );
    assert_eq!(get(to, "/").status, 403);
    let plain = Setup::new(&[upstream.address]).listener("direction: inbound").yaml();
    assert_eq!(proxy.reload(&plain).status, 200);
    assert_eq!(get(to, "/").status, 200);
    let gone = proxy.metrics();
    assert!(!gone.text.contains("outrigger_authorization_denied_total{"), "{}", gone.text);
}

#[test]
fn identities_are_proved_and_not_claimed() {
    let upstream = Upstream::ok("ok");
    let proxy = start(&upstream, "[{ from: [\"spiffe://blog/ns/web/*\"] }]");
    let claims = [("x-forwarded-client-cert", "URI=spiffe://blog/ns/web/sa/cart")];
    assert_eq!(http(proxy.address("outbound"), "GET", "/", &claims, b"").status, 403);
}

#[test]
fn a_denied_call_of_grpc_has_its_own_status() {
    let upstream = Upstream::ok("ok");
    let proxy = start(&upstream, "[{ path: \"/blog.Articles/List\" }]");
    let to = proxy.address("outbound");
    http2::run(async {
        let client = http2::connect(to).await;
        let mut call = http2::post("/blog.Articles/Delete");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let answer = http2::ask(&client, call, b"", None).await.unwrap();
        assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some("7")));
        let plain =
            http2::ask(&client, http2::get("/blog.Articles/Delete"), b"", None).await.unwrap();
        assert_eq!(plain.status(), 403);
    });
    assert_eq!(proxy.access_line(|line| line["grpc_status"] == 7)["denied_by"], "no_rule");
}

#[test]
fn a_denied_tcp_connection_ends_before_the_upstream_hears_of_it() {
    let upstream = Upstream::ok("ok");
    let setup = |rules: &str| {
        let keys = format!("protocol: tcp, authorize: {rules}");
        Setup::new(&[upstream.address]).listener(&keys).yaml()
    };
    let proxy = Proxy::start(&setup("[{ source: 10.0.0.0/8 }]"));
    let to = proxy.address("outbound");
    let mut caller = TcpStream::connect(to).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(caller.read(&mut [0]), Ok(0) | Err(_)));
    let line = proxy.access_line(|line| line["protocol"] == "TCP");
    assert_eq!((&line["reason"], &line["denied_by"]), (&"denied".into(), &"no_rule".into()));
    assert_eq!(line["attempts"], 0);
    assert!(is(denied(&proxy.metrics(), "true"), 1));
    assert_eq!(proxy.reload(&setup("[{ source: 127.0.0.0/8 }]")).status, 200);
    assert_eq!(get(to, "/").status, 200);
    assert_eq!(upstream.requests().len(), 1);
}
