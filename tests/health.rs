//! Active health checks: what is asked, what a verdict changes, and what a check costs whom it asks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
#[path = "support/ops.rs"]
mod ops;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use ops::wait_for;
use support::{Metrics, Proxy, Upstream, get, read_request, refusing};
use traffic::{PythonServer, Setup, answer};

/// Answers checks of `/healthz` with a status that can be set, and everything else with its name.
struct Service {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Service {
    fn new(name: &'static str) -> Self {
        Self::scripted(name, |_, status| status)
    }

    /// `says` makes a check's status of its number, from 0, and of the status that is set.
    fn scripted(
        name: &'static str,
        says: impl Fn(usize, u16) -> u16 + Send + Sync + 'static,
    ) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let (checks, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = (Arc::clone(&status), Arc::clone(&checks), Arc::clone(&requests));
        let upstream = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            while let Some(request) = read_request(&mut stream) {
                let reply = if request.starts_with(b"GET /healthz ") {
                    let number = seen.1.fetch_add(1, Ordering::SeqCst);
                    answer(says(number, seen.0.load(Ordering::SeqCst)), "", "")
                } else {
                    seen.2.fetch_add(1, Ordering::SeqCst);
                    answer(200, "", name)
                };
                if stream.get_mut().write_all(&reply).is_err() {
                    return;
                }
            }
        });
        Self { upstream, status, checks, requests }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    fn say(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Waits for so many more checks.
    fn wait_checks(&self, more: usize) {
        let wanted = self.checks() + more;
        wait_for("checks", || (self.checks() >= wanted).then_some(()));
    }
}

/// `count` requests on connections of their own.
fn ask(proxy: &Proxy, count: usize) {
    for _ in 0..count {
        let reply = get(proxy.address("outbound"), "/");
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

fn in_state(metrics: &Metrics, state: &str) -> usize {
    let count = metrics.sum("outrigger_upstream_endpoints", &[("state", state)]);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few endpoints")]
    let count = count as usize;
    count
}

fn wait_state(proxy: &Proxy, state: &str, count: usize) {
    proxy.wait_metrics(state, |metrics| in_state(metrics, state) == count);
}

fn checked(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("outrigger_upstream_health_checks_total", &[("outcome", outcome)])
}

/// What `/upstreams` says of the health of the endpoints of an upstream.
fn healths(proxy: &Proxy, upstream: &str) -> Vec<serde_json::Value> {
    let page = get(proxy.address("admin"), "/upstreams").text();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let found = page.as_array().unwrap().iter().find(|found| found["name"] == upstream).unwrap();
    let endpoints = found["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["health"].clone()).collect()
}

/// The proxy's own log line with this message.
fn logged(proxy: &Proxy, message: &str) -> serde_json::Value {
    proxy.log().wait(message, |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == message).then_some(line)
    })
}

const FAST: &str = "health: { http: /healthz, interval: 50ms, timeout: 10s, rise: 2, fall: 2 }";

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_request_until_it_passes_again() {
    let (good, bad) = (Service::new("good"), Service::new("bad"));
    let setup = Setup::new(&[good.address(), bad.address()]).upstream(FAST);
    let proxy = Proxy::start(&setup.workers(2).yaml());
    wait_state(&proxy, "ready", 2);

    bad.say(503);
    wait_state(&proxy, "unhealthy", 1);
    let before = bad.requests();
    ask(&proxy, 30);
    assert_eq!(bad.requests(), before);
    let line = logged(&proxy, "endpoint is unhealthy");
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        (&line["upstream"], &line["found"], &line["failures"]),
        (&"articles".into(), &"status 503".into(), &2.into())
    );
    assert_eq!(line["endpoint"], bad.address().to_string());
    let health = &healths(&proxy, "articles")[1];
    assert_eq!((&health["verdict"], &health["passes"]), (&"unhealthy".into(), &0.into()));
    assert!(health["failures"].as_u64().unwrap() >= 2, "{health}");
    assert_eq!(health["last"]["outcome"], "status");
    assert!(checked(&proxy.metrics(), "status") >= 2.0);

    bad.say(200);
    wait_state(&proxy, "unhealthy", 0);
    logged(&proxy, "endpoint is healthy again");
    wait_for("a request", || {
        ask(&proxy, 1);
        (bad.requests() > before).then_some(())
    });
}

#[test]
fn a_check_is_a_request_that_its_reader_knows() {
    let service = Upstream::ok("fine");
    let health = |keys: &str| format!("health: {{ http: \"/live?deep=1\", interval: 1h{keys} }}");
    let setup = Setup::new(&[service.address]).upstream(&health(""));
    let proxy = Proxy::start(&setup.yaml());
    wait_for("a check", || (!service.requests().is_empty()).then_some(()));
    let wanted = |host: &str| {
        format!(
            "GET /live?deep=1 HTTP/1.1\r\nhost: {host}\r\nuser-agent: outrigger-health-check\r\n\
             connection: close\r\n\r\n"
        )
    };
    assert_eq!(service.requests(), [wanted(&service.address.to_string())]);
    let setup = setup.upstream(&health(", host: articles.internal"));
    assert_eq!(proxy.reload(&setup.yaml()).status, 200);
    wait_for("another check", || (service.requests().len() > 1).then_some(()));
    assert_eq!(service.requests()[1], wanted("articles.internal"));
}

#[test]
fn the_first_result_decides_and_statuses_pass_as_the_file_says() {
    for (status, passing, state) in [
        (200, "200..299", "ready"),
        (404, "200..299", "unhealthy"),
        (404, "[200, 400..404]", "ready"),
        (302, "200", "unhealthy"),
    ] {
        let service = Service::new("one");
        service.say(status);
        let health = format!("health: {{ http: /healthz, status: {passing}, interval: 1h }}");
        let proxy = Proxy::start(&Setup::new(&[service.address()]).upstream(&health).yaml());
        wait_state(&proxy, state, 1);
        assert_eq!(service.checks(), 1, "{status} {passing}");
    }
}

#[test]
fn an_endpoint_that_flaps_keeps_its_verdict() {
    // Two failures and a pass, over and over: never three in a row.
    let flapping = Service::scripted("flaps", |number, _| if number % 3 == 0 { 200 } else { 500 });
    let health = "health: { http: /healthz, interval: 50ms, timeout: 10s, rise: 2, fall: 3 }";
    let proxy = Proxy::start(&Setup::new(&[flapping.address()]).upstream(health).yaml());
    flapping.wait_checks(30);
    assert_eq!(in_state(&proxy.metrics(), "ready"), 1);
    ask(&proxy, 3);
    let turned = proxy.log().all().iter().filter(|line| line.contains("endpoint is")).count();
    assert_eq!(turned, 0);
    assert!(checked(&proxy.metrics(), "status") >= 19.0);
}

#[test]
fn what_does_not_answer_in_time_fails_and_is_never_asked_twice_at_once() {
    let silent = traffic::silent();
    let health = "health: { http: /healthz, interval: 20ms, timeout: 60ms, fall: 1 }";
    let proxy = Proxy::start(&Setup::new(&[silent.address]).upstream(health).yaml());
    let line = logged(&proxy, "endpoint is unhealthy");
    assert_eq!(line["found"], "timeout after 60ms");
    proxy.wait_metrics("timeouts", |metrics| checked(metrics, "timeout") >= 3.0);
}

#[test]
fn a_refused_connection_is_told_as_such_and_a_listener_brings_it_back() {
    let address = refusing();
    let health = "health: { tcp: true, interval: 30ms, timeout: 10s, rise: 2, fall: 2 }";
    let proxy = Proxy::start(&Setup::new(&[address]).upstream(health).yaml());
    assert_eq!(logged(&proxy, "endpoint is unhealthy")["found"], "connection refused");
    let listener = TcpListener::bind(address).unwrap();
    let line = logged(&proxy, "endpoint is healthy again");
    assert_eq!((&line["found"], &line["passes"]), (&"connected".into(), &2.into()));
    wait_state(&proxy, "unhealthy", 0);
    drop(listener);
    wait_state(&proxy, "unhealthy", 1);
    assert!(checked(&proxy.metrics(), "connect_failed") >= 2.0);
}

#[test]
fn an_http2_upstream_is_checked_over_http2() {
    let upstream = Upstream::serve(|_, stream| {
        if let Some(mut raw) = http2::Raw::accept(stream, None) {
            raw.serve("fine");
        }
    });
    let keys = "protocol: http2, health: { http: /healthz, interval: 30ms, fall: 1 }";
    let proxy = Proxy::start(&Setup::new(&[upstream.address]).upstream(keys).yaml());
    proxy.wait_metrics("passes", |metrics| checked(metrics, "success") >= 3.0);
    ask(&proxy, 1);

    let old = Upstream::ok("HTTP/1 only");
    let proxy = Proxy::start(&Setup::new(&[old.address]).upstream(keys).yaml());
    let line = logged(&proxy, "endpoint is unhealthy");
    assert_eq!(line["found"], "the answer is not valid HTTP/2");
    assert!(checked(&proxy.metrics(), "protocol_error") >= 1.0);
}

#[test]
fn a_unix_socket_is_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let mut setup = Setup::new(&[]).upstream(FAST);
    setup.endpoints = vec![format!("unix:{}", path.display())];
    let proxy = Proxy::start(&setup.yaml());
    assert_eq!(logged(&proxy, "endpoint is unhealthy")["found"], "entity not found");
    ops::unix_upstream(&path, "fine");
    logged(&proxy, "endpoint is healthy again");
    ask(&proxy, 1);
}

#[test]
fn grpc_health_is_asked_as_grpcio_serves_it() {
    let Some(server) = PythonServer::start("grpc_health", "grpc_health_server.py") else { return };
    let start = |service: &str| {
        let keys = format!("health: {{ grpc: {service}, interval: 30ms, timeout: 10s, fall: 1 }}");
        Proxy::start(&Setup::new(&[server.address]).upstream(&keys).yaml())
    };
    let proxy = start("\"\"");
    proxy.wait_metrics("passes", |metrics| checked(metrics, "success") >= 3.0);

    let unknown = start("blog.Nothing");
    let line = logged(&unknown, "endpoint is unhealthy");
    assert_eq!(line["found"], "the service is not known there");
    assert!(checked(&unknown.metrics(), "not_serving") >= 1.0);

    let proxy = start("blog.Articles");
    wait_state(&proxy, "ready", 1);
    let turn = |status: &str| {
        let mut python = std::process::Command::new(&server.python);
        let call = format!(
            "import grpc; grpc.insecure_channel('{}').unary_unary('/test.Health/{status}')(b'')",
            server.address
        );
        assert!(python.arg("-c").arg(call).status().unwrap().success());
    };
    turn("NOT_SERVING");
    assert_eq!(logged(&proxy, "endpoint is unhealthy")["found"], "not serving");
    turn("SERVING");
    assert_eq!(logged(&proxy, "endpoint is healthy again")["found"], "serving");
}

#[test]
fn a_server_without_grpc_health_fails_with_a_text_that_says_so() {
    let Some(server) = PythonServer::start("grpc", "grpc_server.py") else { return };
    let keys = "health: { grpc: test.Echo, interval: 30ms, timeout: 10s }";
    let proxy = Proxy::start(&Setup::new(&[server.address]).upstream(keys).yaml());
    let line = logged(&proxy, "endpoint is unhealthy");
    assert_eq!(line["found"], "gRPC health v1 is not served there");
}

#[test]
fn where_all_endpoints_fail_all_are_used() {
    let services = [Service::new("a"), Service::new("b")];
    services.iter().for_each(|service| service.say(500));
    let addresses = services.each_ref().map(Service::address);
    let proxy = Proxy::start(&Setup::new(&addresses).upstream(FAST).yaml());
    wait_state(&proxy, "unhealthy", 2);
    let panic = proxy.metrics().sum("outrigger_upstream_panic", &[]);
    assert!((panic - 1.0).abs() < 0.1, "{panic}");
    ask(&proxy, 20);
    assert!(services.iter().all(|service| service.requests() > 0));
}

#[test]
fn where_panic_is_off_and_all_endpoints_fail_the_answer_says_so() {
    let services = [Service::new("a"), Service::new("b")];
    services.iter().for_each(|service| service.say(500));
    let addresses = services.each_ref().map(Service::address);
    let keys = format!("{FAST}, balance: {{ policy: peak_ewma, panic: 0% }}");
    let proxy = Proxy::start(&Setup::new(&addresses).upstream(&keys).yaml());
    wait_state(&proxy, "unhealthy", 2);
    for _ in 0..5 {
        let reply = get(proxy.address("outbound"), "/");
        let reason = reply.header("x-outrigger-reason");
        assert_eq!((reply.status, reason), (503, Some("no_healthy_endpoint")));
    }
    assert!(services.iter().all(|service| service.requests() == 0));
    services[0].say(200);
    wait_state(&proxy, "unhealthy", 1);
    ask(&proxy, 5);
    assert_eq!(services[1].requests(), 0);
}

/// Health and ejection are separate states: a check does not take the way that requests take.
#[test]
fn a_check_that_passes_brings_no_ejected_endpoint_back() {
    let good = Service::new("good");
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&checks);
    // Well by its checks, and useless.
    let broken = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let is_check = request.starts_with(b"GET /healthz ");
            counted.fetch_add(usize::from(is_check), Ordering::SeqCst);
            let reply = answer(if is_check { 200 } else { 500 }, "", "");
            if stream.get_mut().write_all(&reply).is_err() {
                return;
            }
        }
    });
    let keys = format!("{FAST}, balance: round_robin, outliers: {{ eject: 60s }}");
    let proxy = Proxy::start(&Setup::new(&[good.address(), broken.address]).upstream(&keys).yaml());
    wait_state(&proxy, "ready", 2);
    wait_for("an ejection", || {
        get(proxy.address("outbound"), "/");
        (in_state(&proxy.metrics(), "ejected") == 1).then_some(())
    });
    let until = checks.load(Ordering::SeqCst) + 10;
    wait_for("checks", || (checks.load(Ordering::SeqCst) >= until).then_some(()));
    assert_eq!(in_state(&proxy.metrics(), "ejected"), 1);
    assert_eq!(healths(&proxy, "articles")[1]["verdict"], "healthy");
    ask(&proxy, 10);
}

/// Two upstreams with one endpoint, and four workers: what the endpoint counts is what each upstream counts, and in the
/// time that passes there is one check in each interval.
#[test]
fn many_workers_and_upstreams_check_an_endpoint_once() {
    let service = Service::new("one");
    let health = "health: { http: /healthz, interval: 100ms, timeout: 10s }";
    let yaml = format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 4 }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", \
         routes: [{{ to: {{ a: 1, b: 1 }} }}] }}\nupstreams:\n  a: {{ endpoints: [\"{0}\"], {health} }}\n  \
         b: {{ endpoints: [\"{0}\"], {health}, balance: random }}\n",
        service.address()
    );
    let start = tokio::time::Instant::now();
    let proxy = Proxy::start(&yaml);
    let each = |metrics: &Metrics, upstream: &str| {
        metrics.sum("outrigger_upstream_health_checks_total", &[("upstream", upstream)])
    };
    let metrics = proxy.wait_metrics("20 checks", |metrics| each(metrics, "a") >= 20.0);
    #[expect(clippy::cast_precision_loss, reason = "a few checks")]
    let seen = service.checks() as f64;
    let intervals = start.elapsed().as_secs_f64() / 0.1;
    assert!((each(&metrics, "a") - each(&metrics, "b")).abs() < 0.5, "{}", metrics.text);
    // One may have ended between the two looks.
    assert!((20.0..=each(&metrics, "a") + 1.5).contains(&seen), "{seen}");
    // Jitter makes an interval at most a tenth shorter; the second check may come early.
    assert!(seen <= intervals / 0.9 + 2.0, "{seen} checks in {intervals} intervals");
}

#[test]
fn a_reload_keeps_verdicts_and_asks_nothing_again() {
    let (good, bad) = (Service::new("good"), Service::new("bad"));
    bad.say(500);
    // No second check comes while this test runs.
    let health = "health: { http: /healthz, interval: 1h }";
    let setup = Setup::new(&[good.address(), bad.address()]);
    let proxy = Proxy::start(&setup.clone().upstream(health).yaml());
    wait_state(&proxy, "unhealthy", 1);
    wait_state(&proxy, "ready", 1);
    // Another route; then an upstream that is made anew.
    for changed in [
        setup.clone().upstream(health).route("timeout: 3s"),
        setup.clone().upstream(&format!("{health}, balance: random")),
    ] {
        assert_eq!(proxy.reload(&changed.yaml()).status, 200);
        let verdicts: Vec<_> =
            healths(&proxy, "articles").iter().map(|health| health["verdict"].clone()).collect();
        assert_eq!(verdicts, ["healthy", "unhealthy"]);
        ask(&proxy, 10);
        assert_eq!((good.checks(), bad.checks(), bad.requests()), (1, 1, 0));
    }
    // Another check asks anew.
    bad.say(200);
    let other = "health: { http: /healthz, interval: 59m }, balance: random";
    assert_eq!(proxy.reload(&setup.clone().upstream(other).yaml()).status, 200);
    wait_for("new verdicts", || ((good.checks(), bad.checks()) == (2, 2)).then_some(()));
    wait_state(&proxy, "unhealthy", 0);
    // No checks: nothing is known, all are used.
    bad.say(500);
    assert_eq!(proxy.reload(&setup.upstream("balance: random").yaml()).status, 200);
    assert!(healths(&proxy, "articles").iter().all(serde_json::Value::is_null));
    assert!(!proxy.metrics().text.contains("outrigger_upstream_health_checks_total{"));
    wait_for("a request", || {
        ask(&proxy, 1);
        (bad.requests() > 0).then_some(())
    });
}

#[test]
fn an_endpoint_that_is_removed_is_checked_no_more() {
    let (stays, goes) = (Service::new("stays"), Service::new("goes"));
    let both = Setup::new(&[stays.address(), goes.address()]).upstream(FAST);
    let proxy = Proxy::start(&both.yaml());
    goes.wait_checks(2);
    let one = Setup::new(&[stays.address()]).upstream(FAST);
    assert_eq!(proxy.reload(&one.yaml()).status, 200);
    let left = goes.checks();
    stays.wait_checks(10);
    // One may have been on its way.
    assert!(goes.checks() <= left + 1, "{left} at the reload, {} now", goes.checks());
}

#[test]
fn an_endpoint_that_joins_waits_for_its_first_check() {
    let old = Service::new("old");
    let gate = ops::Gate::default();
    let joining = ops::gated(&gate, "new");
    let health = "health: { http: /healthz, interval: 50ms, timeout: 20s }";
    let proxy = Proxy::start(&Setup::new(&[old.address()]).upstream(health).yaml());
    wait_state(&proxy, "ready", 1);
    let both = Setup::new(&[old.address(), joining.address]).upstream(health);
    assert_eq!(proxy.reload(&both.yaml()).status, 200);
    gate.wait_waiting(1);
    wait_state(&proxy, "unproven", 1);
    ask(&proxy, 20);
    assert!(joining.requests().iter().all(|request| request.starts_with("GET /healthz ")));
    gate.open();
    wait_state(&proxy, "unproven", 0);
    wait_for("a request", || {
        ask(&proxy, 1);
        joining.requests().iter().any(|request| request.starts_with("GET / ")).then_some(())
    });
}

#[test]
fn readiness_waits_for_verdicts_and_not_for_good_ones() {
    let gate = ops::Gate::default();
    let held = gate.clone();
    let service = Upstream::scripted(move |_| {
        held.pass();
        answer(500, "", "")
    });
    let health = "health: { http: /healthz, interval: 1h, timeout: 20s }";
    let proxy = Proxy::start(&Setup::new(&[service.address]).upstream(health).yaml());
    gate.wait_waiting(1);
    let ready = || get(proxy.address("admin"), "/ready");
    assert_eq!(ready().status, 503);
    assert_eq!(ready().text(), "waiting for the first health checks of articles\n");
    gate.open();
    wait_for("readiness", || (ready().status == 200).then_some(()));
    wait_state(&proxy, "unhealthy", 1);
    // What joins later, and never answers, changes nothing about it.
    let silent = traffic::silent();
    let both = Setup::new(&[service.address, silent.address]).upstream(health);
    assert_eq!(proxy.reload(&both.yaml()).status, 200);
    assert_eq!(in_state(&proxy.metrics(), "unproven"), 1);
    assert_eq!(ready().status, 200);
}
