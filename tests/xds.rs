//! `discover: xds://…` from outside: the real binary beside a control plane, and Envoy beside the same control plane.
#![cfg(feature = "xds")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/ads.rs"]
mod ads;
#[path = "support/dnsmasq.rs"]
mod dnsmasq;
#[path = "support/local.rs"]
mod local;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster::LbPolicy};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{Any, Struct, UInt32Value, Value, value::Kind};
use envoy_types::util::pack_any;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::time::Instant;

use ads::{ControlPlane, assignment_of, endpoint, locality};
use dnsmasq::NameServer;
use local::upstream as shown;
use support::{Connection, PATIENCE, Proxy, Upstream, get, http};
use tls::{Authority, Issued};

/// A listener that sends everything to `articles`, and upstreams as they are given.
fn yaml(upstreams: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nservice: orders\nzone: eu-1a\nlisteners: {{ outbound: {{ bind: 127.0.0.1:0, routes: [ {{ to: articles }} ] }} }}\nupstreams:\n{upstreams}"
    )
}

fn articles(plane: &ControlPlane) -> String {
    yaml(&format!("  articles: {{ discover: \"xds://{}/articles\" }}\n", plane.address))
}

/// Asks until the answer is `body`; how long that took.
fn until_answered(proxy: &Proxy, body: &str) -> Duration {
    let (to, start) = (proxy.address("outbound"), Instant::now());
    loop {
        if get(to, "/").text() == body {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{body} never answered");
        std::thread::yield_now();
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Asks all the time on one connection while `meanwhile` runs; how many requests were not answered with 200.
fn failures_while(proxy: &Proxy, meanwhile: impl FnOnce()) -> usize {
    let (to, end) = (proxy.address("outbound"), AtomicBool::new(false));
    let (asked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(to);
            while !end.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) < 10 {
                connection.request("GET", "/", &[], b"");
                let bad = connection.reply().status != 200;
                failed.fetch_add(usize::from(bad), Ordering::Relaxed);
                asked.fetch_add(1, Ordering::Relaxed);
                // Some 500 a second: enough to see a gap, and no load to speak of.
                traffic::pause(2);
            }
        });
        // Also when `meanwhile` panics.
        let _end = OnDrop(|| end.store(true, Ordering::Relaxed));
        meanwhile();
    });
    failed.into_inner()
}

#[test]
fn endpoints_come_over_ads_and_responses_are_accepted() {
    let (plane, one) = (ControlPlane::start(), Upstream::ok("one"));
    let proxy = Proxy::start(&articles(&plane));
    let first = plane.wait("first request", |request| Some(request.clone()));
    let node = first.node.unwrap();
    assert!(node.id.starts_with("orders-") && node.id.len() > "orders-".len(), "{}", node.id);
    assert_eq!((&*node.cluster, &*node.user_agent_name), ("orders", "outrigger"));
    assert_eq!(node.locality.unwrap().zone, "eu-1a");
    assert_eq!((&*first.version_info, &*first.response_nonce), ("", ""));
    assert_eq!((first.resource_names, &*first.type_url), (vec!["articles".to_owned()], ads::EDS));
    // The control plane learns of the service only after it was asked for.
    plane.set("articles", &[one.address]);
    until_answered(&proxy, "one");
    let accepted = plane.wait("acceptance", |request| {
        (!request.response_nonce.is_empty()).then(|| request.clone())
    });
    assert_eq!((accepted.error_detail, &*accepted.version_info), (None, "1"));
    let shown = shown(&proxy);
    assert_eq!(
        shown["discovery"]["source"],
        format!("xds://{}/articles", plane.address),
        "{shown:#}"
    );
    assert_eq!(shown["discovery"]["state"], "fresh", "{shown:#}");
    assert_eq!(shown["endpoints"][0]["zone"], "zone-a", "{shown:#}");
}

#[test]
fn a_change_reaches_picks_within_half_a_second() {
    let plane = ControlPlane::start();
    let upstreams = ["one", "two"].map(Upstream::ok);
    plane.set("articles", &[upstreams[0].address]);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "one");
    // The best of several: a machine that is busy for a moment does not make a slow client.
    let times = (1..=6).map(|round| {
        let body = ["one", "two"][round % 2];
        plane.set("articles", &[upstreams[round % 2].address]);
        until_answered(&proxy, body)
    });
    let best = times.min().unwrap();
    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[test]
fn a_control_plane_that_dies_fails_no_request_and_is_asked_again() {
    let mut plane = ControlPlane::start();
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    plane.set("articles", &[one.address]);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "one");
    let failed = failures_while(&proxy, || {
        plane.stop();
        proxy.wait_metrics("second failure", |metrics| {
            let reason = [("reason", "unreachable")];
            metrics.sum("outrigger_discovery_errors_total", &reason) >= 2.0
        });
        assert_eq!(shown(&proxy)["discovery"]["state"], "stale");
        plane.set("articles", &[two.address]);
        plane.resume();
        until_answered(&proxy, "two");
    });
    assert_eq!(failed, 0);
    assert_eq!(shown(&proxy)["discovery"]["state"], "fresh");
    let starts: Vec<_> =
        plane.requests().into_iter().filter(|request| request.node.is_some()).collect();
    assert_eq!(starts.len(), 2, "one beginning for each stream");
    assert!(starts.iter().all(|first| first.response_nonce.is_empty()), "{starts:#?}");
}

#[test]
fn a_control_plane_that_hangs_fails_no_request() {
    let (mut plane, one) = (ControlPlane::start(), Upstream::ok("one"));
    plane.set("articles", &[one.address]);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "one");
    let failed = failures_while(&proxy, || {
        plane.stop();
        local::silent(plane.address);
        proxy.wait_metrics("no answer in time", |metrics| {
            metrics.sum("outrigger_discovery_errors_total", &[("reason", "timeout")]) >= 1.0
        });
        assert_eq!(shown(&proxy)["discovery"]["state"], "stale");
    });
    assert_eq!(failed, 0);
}

#[test]
fn garbage_is_refused_with_a_reason_and_fails_no_request() {
    let plane = ControlPlane::start();
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    plane.set("articles", &[one.address]);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "one");
    let bad_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let refusal = |part: &str| {
        plane.wait(part, |request| {
            let detail = request.error_detail.as_ref()?;
            detail.message.contains(part).then(|| request.version_info.clone())
        })
    };
    let failed = failures_while(&proxy, || {
        plane.set("articles", &[one.address, bad_port]);
        let kept = refusal("articles: endpoints[0].lb_endpoints[1].endpoint.address: 0 is no port");
        assert_eq!(kept, "1", "the version that is in force");
        let type_url = ads::EDS.to_owned();
        plane.tell_raw("articles", Any { type_url, value: vec![0xff; 100] });
        refusal("resources[0]: malformed");
        proxy.wait_metrics("two refusals", |metrics| {
            let reason = [("reason", "malformed")];
            metrics.sum("outrigger_discovery_errors_total", &reason) >= 2.0
        });
        assert_eq!(shown(&proxy)["discovery"]["state"], "stale");
        // An answer that is too long ends the stream; the next one comes by itself.
        plane.tell_raw("articles", Any { type_url: ads::EDS.to_owned(), value: vec![0; 33 << 20] });
        proxy.wait_metrics("an answer too long", |metrics| {
            let reason = [("reason", "malformed")];
            metrics.sum("outrigger_discovery_errors_total", &reason) >= 3.0
        });
        plane.set("articles", &[two.address]);
        until_answered(&proxy, "two");
    });
    assert_eq!(failed, 0);
}

#[test]
fn an_empty_answer_and_an_absent_resource_fail_no_request() {
    let plane = ControlPlane::start();
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    plane.set("articles", &[one.address]);
    plane.set("orders", &[one.address]);
    let address = plane.address;
    let proxy = Proxy::start(&yaml(&format!(
        "  articles: {{ discover: \"xds://{address}/articles\" }}\n  orders: {{ discover: \"xds://{address}/orders\" }}\n"
    )));
    until_answered(&proxy, "one");
    let failed = failures_while(&proxy, || {
        plane.set("articles", &[]);
        proxy.wait_metrics("an empty answer", |metrics| {
            metrics.sum("outrigger_discovery_errors_total", &[("reason", "empty")]) >= 1.0
        });
        assert_eq!(shown(&proxy)["endpoints"].as_array().unwrap().len(), 1);
        plane.set("articles", &[two.address]);
        until_answered(&proxy, "two");
        plane.forget("articles");
        // Its response names `orders` alone; the change after it says that it was taken in.
        plane.wait("acceptance", |request| (request.version_info == "5").then_some(()));
        until_answered(&proxy, "two");
    });
    assert_eq!(failed, 0);
    assert_eq!(shown(&proxy)["discovery"]["state"], "fresh", "absence says nothing");
}

#[test]
fn upstreams_of_one_control_plane_share_a_stream_over_reloads() {
    let (plane, one) = (ControlPlane::start(), Upstream::ok("one"));
    for name in ["articles", "orders", "users"] {
        plane.set(name, &[one.address]);
    }
    let upstream =
        |name: &str| format!("  {name}: {{ discover: \"xds://{}/{name}\" }}\n", plane.address);
    let of = |names: &[&str]| yaml(&names.iter().map(|name| upstream(name)).collect::<String>());
    let asked = |names: &[&str]| {
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        plane.wait("subscription", |request| {
            let asked = request.resource_names.iter().map(String::as_str);
            (asked.collect::<BTreeSet<_>>() == wanted).then_some(())
        });
    };
    let proxy = Proxy::start(&of(&["articles", "orders"]));
    asked(&["articles", "orders"]);
    until_answered(&proxy, "one");
    assert_eq!(proxy.reload(&of(&["articles", "orders", "users"])).status, 200);
    asked(&["articles", "orders", "users"]);
    assert_eq!(proxy.reload(&of(&["articles"])).status, 200);
    asked(&["articles"]);
    // Another policy makes another upstream of the same resource: it is told what is known.
    let other = format!(
        "  articles: {{ discover: \"xds://{}/articles\", balance: round_robin }}\n",
        plane.address
    );
    assert_eq!(proxy.reload(&yaml(&other)).status, 200);
    until_answered(&proxy, "one");
    assert_eq!(plane.streams(), 1);
    // The last one ends the stream, and the next begins another.
    let fixed = yaml(&format!("  articles: {{ endpoints: [\"{}\"] }}\n", one.address));
    assert_eq!(proxy.reload(&fixed).status, 200);
    assert_eq!(proxy.reload(&of(&["articles"])).status, 200);
    until_answered(&proxy, "one");
    let end = Instant::now() + PATIENCE;
    while plane.streams() < 2 {
        assert!(Instant::now() < end, "no second stream");
        std::thread::yield_now();
    }
}

#[test]
fn health_weight_zone_and_labels_of_an_assignment_are_used() {
    let plane = ControlPlane::start();
    let (good, leaving) = (Upstream::ok("good"), Upstream::ok("leaving"));
    let kind = Some(Kind::StringValue("v2".to_owned()));
    let fields = [("version".to_owned(), Value { kind })].into();
    let filter_metadata = [("envoy.lb".to_owned(), Struct { fields })].into();
    let mut fit = endpoint(good.address);
    fit.metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    fit.load_balancing_weight = Some(UInt32Value { value: 7 });
    let mut draining = endpoint(leaving.address);
    draining.health_status = HealthStatus::Draining as i32;
    let told = assignment_of("articles", vec![locality("eu-1b", 0, vec![fit, draining])]);
    plane.tell(told);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "good");
    let shown = shown(&proxy);
    let endpoints = shown["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1, "{shown:#}");
    assert_eq!(endpoints[0]["zone"], "eu-1b");
    assert_eq!(endpoints[0]["labels"]["version"], "v2", "{shown:#}");
}

#[test]
fn a_server_that_is_no_control_plane_is_told_of() {
    let other = Upstream::ok("not gRPC");
    let discover = format!("  articles: {{ discover: \"xds://{}/articles\" }}\n", other.address);
    let proxy = Proxy::start(&yaml(&discover));
    proxy.log().wait("log line", |line| {
        line.contains("discovery fails, no endpoints are known").then_some(())
    });
    assert_eq!(get(proxy.address("outbound"), "/").status, 503);
    proxy.wait_metrics("what it said", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("reason", "malformed")]) >= 1.0
    });
}

#[test]
fn what_a_cluster_says_of_balancing_holds_where_the_file_says_nothing() {
    let plane = ControlPlane::start();
    let upstreams = ["one", "two", "three"].map(Upstream::ok);
    for name in ["articles", "orders"] {
        plane.set(name, &upstreams.each_ref().map(|upstream| upstream.address));
    }
    let file = yaml(&format!(
        "  articles: {{ discover: \"xds://{address}/articles\" }}\n  orders: {{ discover: \"xds://{address}/orders\", balance: random }}\n",
        address = plane.address
    ))
    .replace("{ to: articles }", "{ to: articles, hash: \"header:x-user\" }");
    let proxy = Proxy::start(&file);
    let policies = || {
        let reply = get(proxy.address("admin"), "/upstreams");
        let all: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let of = |index: usize| {
            let balance = &all[index]["balance"];
            format!(
                "{} by {}",
                balance["policy"].as_str().unwrap(),
                balance["by"].as_str().unwrap()
            )
        };
        [of(0), of(1)]
    };
    let user = |name: &str| {
        let mut caller = Connection::open(proxy.address("outbound"));
        caller.request("GET", "/", &[("x-user", name)], b"");
        let reply = caller.reply();
        assert_eq!(reply.status, 200);
        reply.text()
    };
    proxy.wait_metrics("endpoints", |metrics| {
        metrics.sum("outrigger_upstream_endpoints", &[("state", "ready")]) > 5.5
    });
    let own = "random by configuration".to_owned();
    assert_eq!(policies(), ["peak_ewma by configuration".to_owned(), own.clone()]);
    // Only of those that do not say it themselves.
    let asked = plane.wait("clusters", |request| {
        (request.type_url == ads::CDS).then(|| request.resource_names.clone())
    });
    assert_eq!(asked, ["articles"]);

    let tell = |lb_policy: LbPolicy| {
        for name in ["articles", "orders"] {
            let (name, lb_policy) = (name.to_owned(), lb_policy.into());
            plane.tell_cluster(Cluster { name, lb_policy, ..Cluster::default() });
        }
    };
    let until = |first: &str| local::until(first, || policies() == [first.to_owned(), own.clone()]);
    tell(LbPolicy::Maglev);
    until("maglev by control plane");
    let home = user("anna");
    assert!((0..20).all(|_| user("anna") == home), "a key has one home");
    let homes: BTreeSet<String> = (0..30).map(|number| user(&number.to_string())).collect();
    assert_eq!(homes.len(), 3);

    // One that we do not have is refused, and what was in force stays.
    tell(LbPolicy::ClusterProvided);
    let why = plane.wait("refusal", |request| {
        let detail = request.error_detail.as_ref().filter(|_| request.type_url == ads::CDS)?;
        Some(detail.message.clone())
    });
    assert_eq!(why, "articles: lb_policy: CLUSTER_PROVIDED is not supported");
    proxy.wait_metrics("a refusal", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("reason", "malformed")]) >= 1.0
    });
    assert_eq!(policies()[0], "maglev by control plane");
    assert_eq!(shown(&proxy)["discovery"]["state"], "fresh", "the endpoints are as they were");
    assert_eq!(user("anna"), home);

    // The default says nothing.
    tell(LbPolicy::RoundRobin);
    until("peak_ewma by configuration");
    tell(LbPolicy::LeastRequest);
    until("least_request by control plane");
    // A file that says it wins, and is not told again.
    let said = file.replace("/articles\" }", "/articles\", balance: peak_ewma }");
    assert_eq!(proxy.reload(&said).status, 200);
    until("peak_ewma by configuration");
    // Who does not say it any more is told what is known.
    assert_eq!(proxy.reload(&file).status, 200);
    until("least_request by control plane");
    assert_eq!(plane.streams(), 1);
}

/// A port of its own on which TLS is spoken, and what is inside goes to the control plane. Only callers of the same authority are let in.
fn behind_tls(plane: &ControlPlane, authority: &Authority, own: &Issued) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(authority.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let chain = CertificateDer::pem_file_iter(&own.cert).unwrap().map(Result::unwrap).collect();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&own.key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, to) = (listener.local_addr().unwrap(), plane.address);
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut inside) = acceptor.accept(stream).await else { return };
                    // What was not agreed on is not spoken.
                    assert_eq!(inside.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    let mut outside = tokio::net::TcpStream::connect(to).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
    });
    address
}

#[test]
fn a_control_plane_is_asked_over_mutual_tls_with_files_as_they_are() {
    let (plane, one) = (ControlPlane::start(), Upstream::ok("one"));
    plane.set("articles", &[one.address]);
    let (ours, theirs) = (Authority::new("control planes"), Authority::new("others"));
    let front = behind_tls(&plane, &ours, &ours.issue("plane", &["plane.test"]));
    let client = ours.issue("sidecar", &["sidecar.test"]);
    let trusted = theirs.dir.path().join("trusted.crt");
    std::fs::copy(theirs.ca(), &trusted).unwrap();
    let with = |sni: &str| {
        yaml(&format!(
            "  articles: {{ discover: {{ xds: {{ address: \"{front}\", resource: articles, tls: {{ sni: {sni}, ca: {}, {} }} }} }} }}\n",
            trusted.display(),
            client.yaml()
        ))
    };
    let told = |proxy: &Proxy| shown(proxy)["discovery"]["last_error"]["text"].to_string();
    let proxy = Proxy::start(&with("plane.test"));
    proxy.wait_metrics("an authority that is not ours", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("reason", "unreachable")]) >= 1.0
    });
    assert!(told(&proxy).contains("TLS"), "{}", told(&proxy));
    assert_eq!(plane.streams(), 0);
    std::fs::copy(ours.ca(), &trusted).unwrap();
    until_answered(&proxy, "one");
    // Another name makes another connection, and its certificate is for nobody of that name.
    assert_eq!(proxy.reload(&with("other.test")).status, 200);
    proxy.wait_metrics("a certificate for another name", |metrics| {
        metrics.sum("outrigger_discovery_errors_total", &[("reason", "unreachable")]) >= 2.0
    });
    assert!(told(&proxy).contains("TLS"), "{}", told(&proxy));
    assert_eq!(plane.streams(), 1);
    until_answered(&proxy, "one");
}

#[test]
fn the_name_of_a_control_plane_is_looked_up_by_our_own_resolver() {
    let Some(mut names) = NameServer::new() else { return };
    let (plane, one) = (ControlPlane::start(), Upstream::ok("one"));
    plane.set("articles", &[one.address]);
    // The search list applies, and an address where nobody listens costs another one no more than its turn.
    names.names("127.0.0.1 plane.mesh.test\n127.0.0.9 plane.mesh.test\n");
    names.start();
    let (server, port) = (names.port, plane.address.port());
    let proxy = Proxy::start(&format!(
        "dns: {{ servers: [\"127.0.0.1:{server}\"], search: [mesh.test] }}\n{}",
        yaml(&format!("  articles: {{ discover: \"xds://plane:{port}/articles\" }}\n"))
    ));
    until_answered(&proxy, "one");
}

/// Envoy, which ends with the test.
struct Envoy {
    child: Child,
    listener: SocketAddr,
}

impl Envoy {
    /// `None`: it is not installed. The reason is printed.
    fn start(plane: &ControlPlane) -> Option<(Self, tempfile::TempDir)> {
        let Some(binary) = std::env::var_os("OUTRIGGER_TEST_ENVOY").map(PathBuf::from) else {
            println!(
                "skipped: OUTRIGGER_TEST_ENVOY is not set; tests/run installs Envoy and sets it"
            );
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("envoy.yaml");
        std::fs::write(&file, envoy_yaml(listener.port(), plane.address.port())).unwrap();
        let mut command = Command::new(binary);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"]).arg(file);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some((Self { child, listener }, dir))
    }

    fn until_answered(&self, body: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if std::net::TcpStream::connect(self.listener).is_ok()
                && get(self.listener, "/").text() == body
            {
                return;
            }
            assert!(Instant::now() < end, "Envoy never answered {body}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn envoy_yaml(listener: u16, plane: u16) -> String {
    format!(
        r#"
node: {{ id: envoy-1, cluster: orders }}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [ {{ envoy_grpc: {{ cluster_name: plane }} }} ]
static_resources:
  listeners:
    - name: outbound
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listener} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: outbound
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
                route_config:
                  virtual_hosts:
                    - {{ name: all, domains: ["*"], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: articles }} }} ] }}
  clusters:
    - name: articles
      type: EDS
      eds_cluster_config: {{ eds_config: {{ resource_api_version: V3, ads: {{}} }} }}
    - name: plane
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment:
        cluster_name: plane
        endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {plane} }} }} }} }} ] }} ]
"#
    )
}

/// What this test server tells, Envoy understands as we do: it uses what it is told, accepts and refuses what we accept and
/// refuse, and says so with the same nonces and versions.
#[test]
fn envoy_takes_the_same_control_plane_for_one() {
    let plane = ControlPlane::start();
    let Some((envoy, _dir)) = Envoy::start(&plane) else { return };
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    plane.wait("first request", |request| request.node.is_some().then_some(()));
    plane.set("articles", &[one.address]);
    envoy.until_answered("one");
    plane.set("articles", &[two.address]);
    envoy.until_answered("two");
    let accepted = plane
        .wait("acceptance", |request| (request.response_nonce == "2").then(|| request.clone()));
    assert_eq!((&*accepted.version_info, accepted.error_detail), ("2", None));
    // No such address: refused, with the version that is in force.
    let mut unnamed = endpoint(one.address);
    unnamed.load_balancing_weight = Some(UInt32Value { value: 0 });
    plane.tell_raw(
        "articles",
        pack_any(assignment_of("articles", vec![locality("a", 0, vec![unnamed])])),
    );
    let refused =
        plane.wait("refusal", |request| request.error_detail.is_some().then(|| request.clone()));
    assert_eq!((&*refused.version_info, &*refused.response_nonce), ("2", "3"));
    envoy.until_answered("two");
    // Both at once, beside each other.
    plane.set("articles", &[one.address]);
    let proxy = Proxy::start(&articles(&plane));
    until_answered(&proxy, "one");
    envoy.until_answered("one");
    assert_eq!(http(proxy.address("outbound"), "GET", "/", &[], b"").text(), "one");
}
