//! The admin server: what it says, whom it obeys; metrics and access log as they are documented.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/ops.rs"]
mod ops;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use outrigger::metrics::names;
use serde_json::Value;

use ops::{Http2, component, wait_for};
use support::{Connection, Metrics, Proxy, Upstream, get, http, refusing};

const METRICS_PAGE: &str = include_str!("../docs/METRICS.md");
const ACCESS_LOG_PAGE: &str = include_str!("../docs/ACCESS_LOG.md");

fn simple(admin: &str) -> String {
    format!(
        "admin: {admin}\nlisteners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ respond: {{ status: 200, body: hello }} }}] }}\n"
    )
}

/// A proxy that has met most of what can happen, and what its callers must not find in its labels.
struct Busy {
    proxy: Proxy,
    upstream: Upstream,
    /// Keeps the files.
    _authority: tls::Authority,
}

/// The public key of RFC 7517, appendix A.1.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// The file's own keys, a listener with everything that concerns identity, an upstream with everything that concerns zones.
fn guarded(authority: &tls::Authority, app: SocketAddr) -> (String, String, String) {
    let (own, ca) = (authority.issue("own", &["own.test"]), authority.ca());
    let jwks = ca.with_file_name("jwks.json");
    std::fs::write(&jwks, JWKS).unwrap();
    let top = format!("zone: a\nidentity: {{ {}, ca: {} }}\n", own.yaml(), ca.display());
    let listener = format!(
        "  guarded: {{ bind: 127.0.0.1:0, tls: {{}}, authorize: {{ allow: [{{ method: [GET] }}] }}, jwt: [{{ issuer: a, audience: b, \
         jwks: \"file://{}\" }}], routes: [{{ to: zoned }}] }}\n",
        jwks.display()
    );
    let upstream = format!(
        "  zoned: {{ endpoints: [{{ address: \"{app}\", zone: a, labels: {{ v: \"1\" }} }}], tls: {{ verify: own.test }}, \
         subset: {{ v: \"1\" }}, balance: {{ policy: round_robin, zone_aware: true }} }}\n"
    );
    (top, listener, upstream)
}

impl Busy {
    fn start() -> Self {
        let upstream = Upstream::scripted(|number| match number % 5 {
            3 => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
            4 => Vec::new(),
            _ => ops::ok("hello"),
        });
        let authority = tls::Authority::new("authority");
        let (top, listener, zoned) = guarded(&authority, upstream.address);
        let proxy = Proxy::start(&format!(
            "{top}admin: 127.0.0.1:0\nruntime: {{ workers: 2 }}\ndns: {{ servers: [\"{silent}\"] }}\nlisteners:\n  web:\n    bind: \
             127.0.0.1:0\n    routes:\n      - {{ name: ours, match: {{ path: /ours }}, rate_limit: 1000000/s, fault: {{ delay: {{ share: 100%, for: 1ms }} }}, mirror: {{ app: 0% }}, hedge: p95, respond: {{ status: 200, body: ours }} }}\n      - \
             {{ name: nobody, match: {{ path: /nobody }}, to: nobody }}\n      - {{ name: lost, match: {{ path: /lost }}, to: lost }}\n      \
             - {{ name: app, match: {{ path: \"/app/*\" }}, to: app, retry: {{ when: [gateway-error, reset], attempts: 4 }} }}\n  raw: {{ \
             bind: 127.0.0.1:0, protocol: tcp, routes: [{{ to: app }}] }}\n{listener}upstreams:\n{zoned}  app: {{ endpoints: [\"{app}\"] }}\n  nobody: {{ \
             endpoints: [\"{nobody}\"], health: tcp }}\n  lost: {{ discover: \"dns://lost.test:80\", breaker: 50%, throttle: 2, adaptive: gradient }}\n",
            silent = refusing(),
            app = upstream.address,
            nobody = refusing(),
        ));
        Self { proxy, upstream, _authority: authority }
    }

    /// Every kind of request once, each with a path, a host and a header that were never seen before.
    fn round(&self, turn: usize) {
        let web = self.proxy.address("web");
        for path in ["/ours", "/nobody", "/lost", "/unknown", "/app"] {
            let target = if path == "/app" {
                format!("/app/secret-{turn}?q=secret-{turn}")
            } else {
                format!("{path}?q=secret-{turn}")
            };
            let host = format!("secret-{turn}.test");
            let method = if turn.is_multiple_of(2) { "GET" } else { "POST" };
            http(web, method, &target, &[("Host", &host), ("x-tenant", &host)], b"");
        }
        let mut malformed = Connection::open(web);
        malformed.send(format!("GET / HTTP/1.1\r\nHost: secret-{turn}\r\nHost: two\r\n\r\n"));
        malformed.rest();
        let mut garbage = Connection::open(web);
        garbage.send(format!("secret-{turn}\r\n\r\n"));
        garbage.rest();
        let mut http2 = Http2::open(web);
        http2.get(1);
        while http2.frame().is_some_and(|frame| frame.flags & 1 == 0) {}
        let mut raw = Connection::open(self.proxy.address("raw"));
        raw.send("GET /secret HTTP/1.1\r\nHost: raw\r\n\r\n");
        raw.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        raw.rest();
    }
}

#[test]
fn each_page_has_its_methods_and_says_so() {
    let proxy = Proxy::start(&simple("127.0.0.1:0"));
    let admin = proxy.address("admin");
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/live", 200),
        ("HEAD", "/live", 200),
        ("GET", "/ready", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/config", 200),
        ("GET", "/upstreams", 200),
        ("GET", "/upstreams?x=y", 200),
        ("GET", "/services", 200),
        ("POST", "/services/events", 405),
        ("POST", "/reload", 200),
        ("POST", "/live", 405),
        ("DELETE", "/ready", 405),
        ("POST", "/metrics", 405),
        ("POST", "/config", 405),
        ("PUT", "/upstreams", 405),
        ("GET", "/reload", 405),
        ("GET", "/drain", 405),
        ("GET", "/log-level", 405),
        ("GET", "/metrics/", 404),
        ("POST", "/nothing", 404),
    ] {
        let reply = http(admin, method, path, &[], b"");
        assert_eq!(reply.status, status, "{method} {path}");
        if status == 405 {
            let allowed = reply.header("allow").unwrap();
            assert_eq!(reply.text(), format!("use {allowed}\n"), "{method} {path}");
        }
    }
    let lost = get(admin, "/nothing");
    let index = get(admin, "/");
    assert_eq!(lost.text(), index.text(), "a page that is not there lists those that are");
    for page in [
        "/metrics",
        "/ready",
        "/live",
        "/config",
        "/upstreams",
        "/services",
        "/reload",
        "/drain",
        "/log-level",
    ] {
        assert!(index.text().contains(page), "{page}");
    }
    assert_eq!(get(admin, "/ready").status, 200, "a refused method has changed nothing");
}

#[test]
fn config_shows_what_is_in_force_and_where_it_is_bound() {
    let proxy = Proxy::start(&simple("127.0.0.1:0"));
    let reply = get(proxy.address("admin"), "/config");
    assert_eq!(reply.header("content-type"), Some("application/yaml; charset=utf-8"));
    let text = reply.text();
    let web = proxy.address("web");
    assert!(text.starts_with("# generation 1\n"), "{text}");
    assert!(text.contains(&format!("# listener web is bound to {web}\n")), "{text}");
    // The whole of it is a file that can be loaded.
    let copy = proxy.dir.path().join("copy.yaml");
    std::fs::write(&copy, text).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    assert!(check.arg("check").arg("-c").arg(copy).status().unwrap().success());
}

#[test]
fn upstreams_shows_each_endpoint_and_its_state() {
    let busy = Busy::start();
    busy.round(0);
    // A caller has its answer a moment before the proxy has settled the attempt.
    let upstreams: Vec<Value> = wait_for("nothing in flight", || {
        let reply = get(busy.proxy.address("admin"), "/upstreams");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let text = reply.text();
        (!text.contains("\"in_flight\": 1")).then(|| serde_json::from_str(&text).unwrap())
    });
    let named = |name: &str| upstreams.iter().find(|upstream| upstream["name"] == name).unwrap();
    let app = &named("app")["endpoints"][0];
    assert_eq!(app["address"], busy.upstream.address.to_string());
    assert_eq!((&app["state"], &app["source"]), (&"ready".into(), &"endpoints".into()));
    assert!(app["requests"].as_u64().unwrap() >= 1, "{app}");
    assert_eq!(app["in_flight"], 0);
    assert!(named("nobody")["endpoints"][0]["failures"].as_u64().unwrap() >= 1);
    assert_eq!(named("lost")["resolved"], false);
    assert_eq!(named("lost")["discovery"]["source"], "dns://lost.test:80");
    assert_eq!(named("app")["limits"]["in_flight"]["maximum"], 1024);
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let proxy = Proxy::start(&simple("127.0.0.1:0"));
    let admin = proxy.address("admin");
    let put = |filter: &str| http(admin, "PUT", "/log-level", &[], filter.as_bytes());
    let bad = put("loud");
    assert_eq!(bad.status, 400, "{}", bad.text());
    assert!(bad.text().contains("write error, warn, info, debug or trace"), "{}", bad.text());
    assert_eq!(put(&"x".repeat(5000)).status, 413);
    assert_eq!(put("outrigger::control=error").status, 200);
    http(admin, "POST", "/reload", &[], b"");
    assert_eq!(
        http(admin, "POST", "/log-level", &[], b"info").status,
        200,
        "as `curl -d` sends it"
    );
    http(admin, "POST", "/reload", &[], b"");
    proxy.log().wait("the second reload", |line| {
        (line.contains("configuration in force") && line.contains("\"generation\":3")).then_some(())
    });
    assert!(!proxy.log().all().iter().any(|line| line.contains("\"generation\":2")));
}

/// An address of this machine that is not a loopback one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses the way there.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn peers_elsewhere_get_what_monitoring_needs_and_nothing_else() {
    let proxy = Proxy::start(&simple("0.0.0.0:0"));
    let port = proxy.address("admin").port();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    for local in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(get(at(local), "/config").status, 200, "{local}");
    }
    let Some(own) = own_address() else {
        println!("skipped: this machine has no address but loopback ones");
        return;
    };
    let remote = SocketAddr::new(own, port);
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(get(remote, path).status, 200, "{path}");
    }
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/config"),
        ("GET", "/upstreams"),
        ("GET", "/nothing"),
        ("POST", "/reload"),
        ("POST", "/drain"),
        ("PUT", "/log-level"),
    ] {
        let reply = http(remote, method, path, &[], b"");
        assert_eq!(reply.status, 403, "{method} {path}");
        assert!(reply.text().contains("token_file"), "it says how to allow it: {}", reply.text());
    }
    assert_eq!(get(remote, "/ready").status, 200, "nothing was drained");
}

#[test]
fn a_token_is_asked_of_everyone_once_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let proxy =
        Proxy::start(&simple(&format!("{{ bind: 127.0.0.1:0, token_file: {} }}", token.display())));
    let admin = proxy.address("admin");
    let ask = |authorization: &str| {
        http(admin, "GET", "/config", &[("Authorization", authorization)], b"")
    };
    let without = get(admin, "/config");
    assert_eq!((without.status, without.header("www-authenticate")), (401, Some("Bearer")));
    for wrong in
        ["Bearer wrong", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret", "Bearer s3cre"]
    {
        assert_eq!(ask(wrong).status, 401, "{wrong}");
    }
    assert_eq!(http(admin, "POST", "/drain", &[], b"").status, 401);
    for right in ["Bearer s3cret", "bearer s3cret"] {
        assert_eq!(ask(right).status, 200, "{right}");
    }
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    std::fs::write(&token, "rotated").unwrap();
    assert_eq!((ask("Bearer s3cret").status, ask("Bearer rotated").status), (401, 200));
    std::fs::write(&token, "\n").unwrap();
    assert_eq!(
        (ask("Bearer ").status, ask("Bearer").status),
        (401, 401),
        "an empty file lets nobody in"
    );
    std::fs::remove_file(&token).unwrap();
    assert_eq!(ask("Bearer rotated").status, 500);
    assert_eq!(get(admin, "/ready").status, 200);
}

#[test]
fn many_admin_connections_do_not_shut_others_out() {
    let proxy = Proxy::start(&simple("127.0.0.1:0"));
    let admin = proxy.address("admin");
    let mut kept = Connection::open(admin);
    for _ in 0..200 {
        kept.request("GET", "/ready", &[], b"");
        assert_eq!(kept.reply().status, 200);
    }
    let _idle: Vec<Connection> = (0..40).map(|_| Connection::open(admin)).collect();
    assert_eq!(get(admin, "/ready").status, 200);
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let Some(promtool) = component("promtool", "prometheus") else { return };
    let busy = Busy::start();
    (0..5).for_each(|turn| busy.round(turn));
    let mut check = Command::new(promtool);
    check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(busy.proxy.metrics().text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn prometheus_scrapes_it() {
    let Some(prometheus) = component("prometheus", "prometheus") else { return };
    let busy = Busy::start();
    busy.round(0);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let target = busy.proxy.address("admin");
    std::fs::write(
        &config,
        format!("scrape_configs:\n  - job_name: outrigger\n    scrape_interval: 100ms\n    scrape_timeout: 100ms\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"),
    )
    .unwrap();
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address: SocketAddr = lines
        .find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            (line["msg"] == "Listening on").then(|| line["address"].as_str()?.parse().ok())?
        })
        .unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let scraped = std::panic::catch_unwind(|| {
        wait_for("a scraped counter", || {
            let query = "/api/v1/query?query=outrigger_downstream_requests_total%7Broute%3D%22ours%22%2Ccode%3D%222xx%22%7D";
            let answer: Value = serde_json::from_str(&get(address, query).text()).ok()?;
            (answer["data"]["result"][0]["value"][1] == "1").then_some(())
        });
    });
    child.kill().unwrap();
    child.wait().unwrap();
    scraped.unwrap();
}

#[test]
fn labels_hold_nothing_that_callers_choose() {
    let busy = Busy::start();
    busy.round(0);
    busy.round(1);
    let count =
        |metrics: &Metrics| metrics.text.lines().filter(|line| !line.starts_with('#')).count();
    let before = busy.proxy.metrics();
    (2..12).for_each(|turn| busy.round(turn));
    // A caller has its answer a moment before the proxy has counted it. Each request counts once: 5 answered over
    // HTTP/1, 1 refused, 1 over HTTP/2; the garbage is no request.
    let requests = |metrics: &Metrics, listener| {
        metrics.sum("outrigger_downstream_requests_total", &[("listener", listener)])
    };
    let after = busy.proxy.wait_metrics("all requests counted", |metrics| {
        requests(metrics, "web") > 12.0 * 7.0 - 0.5 && requests(metrics, "raw") > 12.0 - 0.5
    });
    assert!(requests(&after, "web") < 12.0 * 7.0 + 0.5 && requests(&after, "raw") < 12.0 + 0.5);
    assert_eq!(count(&before), count(&after), "the number of series does not grow with traffic");
    let labelled: Vec<&str> = after.text.lines().filter(|line| line.contains('{')).collect();
    for forbidden in ["secret", "127.0.0.1", "/app", ".test"] {
        let found: Vec<_> = labelled.iter().filter(|line| line.contains(forbidden)).collect();
        assert!(found.is_empty(), "{forbidden}: {found:?}");
    }
    let negative: Vec<&str> = after.text.lines().filter(|line| line.contains("} -")).collect();
    assert!(negative.is_empty(), "{negative:?}");
}

/// `name → (type, labels)` of an exposition; histograms without their suffixes and `le`.
fn exposed(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line}");
            let labels =
                line.split_once('{').map_or("", |(_, labels)| labels.split_once('}').unwrap().0);
            let names =
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            let family = families.get_mut(&current).unwrap();
            family.1.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    families
}

/// The texts in back quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of the tables' rows.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let line = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')).unwrap();
        line.split('|').map(str::trim).collect()
    })
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let busy = Busy::start();
    busy.round(0);
    let text = busy
        .proxy
        .wait_metrics("a failed look-up", |metrics| {
            metrics.sum("outrigger_discovery_errors_total", &[]) > 0.5
        })
        .text;
    let exposed = exposed(&text);
    let ours: BTreeSet<&str> =
        exposed.keys().map(String::as_str).filter(|name| name.starts_with("outrigger_")).collect();
    let known: BTreeSet<&str> = names::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "what is exposed, and what is in the list of names");

    let mut documented = BTreeSet::new();
    for row in rows(METRICS_PAGE).filter(|row| row.len() == 4 && row[0].starts_with("`outrigger_"))
    {
        let name = row[0].trim_matches('`');
        let (kind, labels) = exposed.get(name).unwrap_or_else(|| panic!("{name} is not exposed"));
        assert_eq!(row[1], kind, "{name}");
        let said: BTreeSet<String> = quoted(row[2]).into_iter().map(str::to_owned).collect();
        assert_eq!(&said, labels, "{name}");
        assert!(documented.insert(name), "{name} is there twice");
    }
    assert_eq!(documented, known, "what is documented");
    for process in exposed.keys().filter(|name| !name.starts_with("outrigger_")) {
        assert!(METRICS_PAGE.contains(&format!("`{process}`")), "{process}");
    }
    // Queries and the table for those who come from elsewhere name nothing else.
    let words = METRICS_PAGE.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    for word in words.filter(|word| word.starts_with("outrigger_")) {
        let name = word.strip_suffix("_bucket").unwrap_or(word);
        assert!(known.contains(name), "{word}");
    }
}

#[test]
fn every_word_of_a_closed_label_is_documented() {
    let busy = Busy::start();
    busy.round(0);
    let text = busy.proxy.metrics().text;
    let words: BTreeSet<&str> = quoted(METRICS_PAGE).into_iter().collect();
    for label in ["code", "reason", "outcome", "state"] {
        let start = format!("{label}=\"");
        let values = text.split(&start).skip(1);
        for value in values.map(|rest| rest.split('"').next().unwrap()) {
            assert!(words.contains(value), "{label}=\"{value}\"");
        }
    }
    for reason in outrigger::base::error::Reason::ALL {
        let row = rows(METRICS_PAGE).find(|row| row[0] == format!("`{}`", reason.word()));
        assert_eq!(row.unwrap_or_else(|| panic!("{reason}"))[1], reason.flag(), "{reason}");
    }
}

/// Fields that are left out where they have nothing to say.
const OPTIONAL: [&str; 7] = [
    "grpc_status",
    "fault",
    "retry_suppressed",
    "detail",
    "identity",
    "denied_by",
    "token_refused",
];

#[test]
fn every_field_of_the_access_log_is_documented() {
    let busy = Busy::start();
    busy.round(0);
    busy.round(1);
    let lines = wait_for("a line of each protocol", || {
        let lines: Vec<Value> = busy
            .proxy
            .access()
            .all()
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |protocol: &str| lines.iter().any(|line| line["protocol"] == protocol);
        (lines.len() >= 16 && of("HTTP/2") && of("TCP")).then_some(lines)
    });
    let fields: BTreeMap<&str, &str> = rows(ACCESS_LOG_PAGE)
        .filter(|row| row.len() == 5)
        .map(|row| (row[0].trim_matches('`'), row[1]))
        .collect();
    let mut seen = BTreeSet::new();
    for line in &lines {
        for (field, value) in line.as_object().unwrap() {
            let kind = fields.get(field.as_str()).unwrap_or_else(|| panic!("{field}: {line}"));
            let fits = match value {
                Value::Null => kind.ends_with("or null"),
                Value::String(_) => kind.starts_with("text"),
                Value::Number(_) => kind.starts_with("number"),
                _ => false,
            };
            assert!(fits, "{field} is no {kind}: {value}");
            seen.insert(field.as_str());
        }
        for field in fields.keys().filter(|field| !OPTIONAL.contains(field)) {
            assert!(line.get(field).is_some(), "{field} is missing in {line}");
        }
    }
    let documented: BTreeSet<&str> = fields.keys().copied().collect();
    // No gRPC here, and nobody whose identity is known or who was refused for it.
    seen.extend(["grpc_status", "identity", "denied_by", "token_refused"]);
    assert_eq!(seen, documented);
    let example = ACCESS_LOG_PAGE.lines().find(|line| line.starts_with('{')).unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    assert!(example.as_object().unwrap().keys().all(|field| fields.contains_key(field.as_str())));

    let raw = lines.iter().find(|line| line["protocol"] == "TCP").unwrap();
    assert_eq!((&raw["upstream"], &raw["method"]), (&"app".into(), &Value::Null));
    assert_eq!(raw["endpoint"], busy.upstream.address.to_string());
    let refused = lines.iter().find(|line| line["route"] == "nobody").unwrap();
    assert_eq!((&refused["reason"], &refused["flag"]), (&"connect_failed".into(), &"UF".into()));
}
