//! Certificates that change while the proxy runs, seen from outside.
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

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rcgen::{SerialNumber, date_time_ymd};
use rustls::ClientConfig;
use support::{Proxy, Upstream};
use tls::{Authority, Issued, TlsStream, open};

const RELOADS: &str = "outrigger_tls_reloads_total";
const REFUSED: &str = "outrigger_tls_reload_failures_total";
const NOT_AFTER: &str = "outrigger_tls_cert_not_after_seconds";

fn yaml(ca: &Authority, own: &Issued, rest: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nidentity: {{ {}, ca: {} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    tls: {{}}\n    routes: [{{ {rest} }}]\n",
        own.yaml(),
        ca.ca().display(),
    )
}

/// The serial number of the certificate that a new connection is shown.
fn serial(to: SocketAddr, config: &Arc<ClientConfig>) -> u64 {
    let mut stream = open(to, config, "localhost");
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let cert = stream.conn.peer_certificates().unwrap()[0].clone();
    let cert = webpki::EndEntityCert::try_from(&cert).unwrap();
    cert.serial().iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn issue(ca: &Authority, serial: u64) -> (String, String) {
    ca.texts(&["localhost"], |params| {
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(2040 + i32::try_from(serial).unwrap(), 1, 1);
    })
}

#[test]
fn a_new_pair_takes_force_however_it_is_put_there() {
    let ca = Authority::new("ca");
    let dir = ca.dir.path();
    let set = |number: u64| {
        let at = dir.join(format!("set{number}"));
        std::fs::create_dir(&at).unwrap();
        let (cert, key) = issue(&ca, number);
        std::fs::write(at.join("tls.crt"), cert).unwrap();
        std::fs::write(at.join("tls.key"), key).unwrap();
        at
    };
    // As Kubernetes has it: files are links into `..data`, which is a link that is swapped.
    let mount = dir.join("mount");
    std::fs::create_dir(&mount).unwrap();
    std::os::unix::fs::symlink(set(1), mount.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), mount.join(file)).unwrap();
    }
    let own = Issued { cert: mount.join("tls.crt"), key: mount.join("tls.key") };
    let proxy = Proxy::start(&yaml(&ca, &own, "respond: { status: 200 }"));
    let (to, config) = (proxy.address("in"), Arc::new(ca.client(None)));
    assert_eq!(serial(to, &config), 1);
    let reloads = |count: f64| {
        proxy.wait_metrics("the new pair", |metrics| metrics.sum(RELOADS, &[]) >= count)
    };

    std::os::unix::fs::symlink(set(2), mount.join("..next")).unwrap();
    std::fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    let metrics = reloads(1.0);
    assert_eq!(serial(to, &config), 2);
    assert_eq!(metrics.sum(NOT_AFTER, &[("owner", "identity"), ("kind", "cert")]), 2_272_147_200.0);

    // Renamed over the links, one after the other.
    let next = set(3);
    for file in ["tls.crt", "tls.key"] {
        std::fs::rename(next.join(file), mount.join(file)).unwrap();
    }
    reloads(2.0);
    assert_eq!(serial(to, &config), 3);

    // Written in place.
    let (cert, key) = issue(&ca, 4);
    std::fs::write(&own.key, key).unwrap();
    std::fs::write(&own.cert, cert).unwrap();
    reloads(3.0);
    assert_eq!(serial(to, &config), 4);
}

#[test]
fn a_bad_set_is_refused_told_and_counted_and_the_old_one_kept() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (cert, key) = issue(&ca, 1);
    let own = ca.write("own", &cert, &key);
    let proxy = Proxy::start(&yaml(&ca, &own, "respond: { status: 200 }"));
    let (to, config) = (proxy.address("in"), Arc::new(ca.client(None)));
    let expired = ca.texts(&["localhost"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    let early = ca.texts(&["localhost"], |params| params.not_before = date_time_ymd(2050, 1, 1));
    let foreign = other.texts(&["localhost"], |_| {});
    let swapped = (issue(&ca, 8).0, issue(&ca, 9).1);
    let good = issue(&ca, 2);
    let cut = (good.0[..good.0.len() / 2].to_owned(), good.1.clone());
    for (number, ((cert, key), said)) in [
        (expired, "own.crt: the certificate has expired at 2020-02-01T00:00:00Z"),
        (early, "own.crt: the certificate is not valid before 2050-01-01T00:00:00Z"),
        (foreign, "own.crt: its certificate is not signed by an authority in `ca`"),
        (swapped, "own.key: it is not the key of the certificate in "),
        (cut, "own.crt: it breaks off before an `-----END` line"),
        ((String::new(), good.1.clone()), "own.crt: it holds no certificate"),
        ((good.0.clone(), good.0.clone()), "own.key: it holds no private key"),
    ]
    .into_iter()
    .enumerate()
    {
        ca.write("own", &cert, &key);
        let count = f64::from(u32::try_from(number + 1).unwrap());
        let metrics = proxy.wait_metrics(said, |metrics| metrics.sum(REFUSED, &[]) >= count);
        assert_eq!(metrics.sum(REFUSED, &[("owner", "identity")]), count, "{said}");
        proxy.log().wait(said, |line| {
            (line.contains("changed certificates refused") && line.contains(said)).then_some(())
        });
        assert_eq!(serial(to, &config), 1, "{said}");
    }
    // No key in the log, whatever was wrong with it.
    let log = proxy.log().all().join("\n");
    let secret = good.1.lines().nth(1).unwrap();
    assert!(!log.contains(secret));
    std::fs::remove_file(&own.cert).unwrap();
    proxy.log().wait("the missing file", |line| {
        line.contains("own.crt: there is no such file").then_some(())
    });
    ca.write("own", &good.0, &good.1);
    proxy.wait_metrics("the good pair", |metrics| metrics.sum(RELOADS, &[]) >= 1.0);
    assert_eq!(serial(to, &config), 2);
}

/// A caller that keeps its connection as long as it is told it may.
struct Caller {
    to: SocketAddr,
    config: Arc<ClientConfig>,
    connection: Option<BufReader<TlsStream>>,
    connections: u64,
}

impl Caller {
    fn get(&mut self) -> Result<(), String> {
        let mut connection = self.connection.take().unwrap_or_else(|| {
            self.connections += 1;
            BufReader::new(open(self.to, &self.config, "localhost"))
        });
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        connection
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .map_err(|error| failed("write", error))?;
        let (mut length, mut close, mut line) = (0, false, String::new());
        loop {
            line.clear();
            let read = connection.read_line(&mut line).map_err(|error| failed("read", error))?;
            let text = line.to_ascii_lowercase();
            match text.trim_end() {
                _ if read == 0 => return Err("closed before the answer".to_owned()),
                "" => break,
                text if text.starts_with("http/1.1 ") && text != "http/1.1 200 ok" => {
                    return Err(line);
                }
                "connection: close" => close = true,
                text => {
                    if let Some(found) = text.strip_prefix("content-length: ") {
                        length = found.parse().unwrap();
                    }
                }
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).map_err(|error| failed("body", error))?;
        self.connection = (!close).then_some(connection);
        Ok(())
    }
}

/// Both sides of a proxy rotate each second under load: no request fails.
#[test]
fn rotating_every_second_under_load_fails_no_request() {
    let ca = Authority::new("ca");
    let upstream = Upstream::ok("hello");
    let (cert, key) = issue(&ca, 1);
    let own = ca.write("own", &cert, &key);
    let far = Proxy::start(
        &(yaml(&ca, &own, "to: app")
            + &format!("upstreams: {{ app: {{ endpoints: [\"{}\"] }} }}\n", upstream.address)),
    );
    let near = Proxy::start(
        &(yaml(&ca, &own, "to: far")
            + &format!(
                "upstreams: {{ far: {{ endpoints: [\"{}\"], connect_timeout: 5s, tls: {{ sni: localhost }} }} }}\n",
                far.address("in")
            )),
    );
    let (to, config) = (near.address("in"), Arc::new(ca.client(None)));
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done, config) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&config));
            std::thread::spawn(move || {
                let mut caller = Caller { to, config, connection: None, connections: 0 };
                while !stop.load(Ordering::Relaxed) {
                    caller.get().unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
                caller.connections
            })
        })
        .collect();
    for number in 2..8 {
        let (cert, key) = issue(&ca, number);
        // As whoever rotates does it: the pair is swapped file by file.
        let next = ca.write("next", &cert, &key);
        std::fs::rename(next.key, &own.key).unwrap();
        std::fs::rename(next.cert, &own.cert).unwrap();
        let wanted = f64::from(u32::try_from(number).unwrap()) - 1.0;
        for proxy in [&far, &near] {
            proxy.wait_metrics("the rotation", |metrics| metrics.sum(RELOADS, &[]) >= wanted);
        }
        let served = done.load(Ordering::Relaxed);
        let end = tokio::time::Instant::now() + support::PATIENCE;
        while done.load(Ordering::Relaxed) < served + 50 {
            assert!(tokio::time::Instant::now() < end, "no request is answered any more");
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let connections: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    let done = done.load(Ordering::Relaxed);
    println!("{done} requests, {connections} connections of callers");
    assert!(done > 100);
    for proxy in [&far, &near] {
        let metrics = proxy.metrics();
        let failed = metrics.sum("outrigger_downstream_requests_total", &[("code", "5xx")]);
        assert_eq!(failed, 0.0, "{}", metrics.text);
    }
}

fn callers(to: SocketAddr, config: &Arc<ClientConfig>) -> Vec<Caller> {
    let caller = || Caller { to, config: Arc::clone(config), connection: None, connections: 0 };
    let mut callers: Vec<Caller> = std::iter::repeat_with(caller).take(200).collect();
    callers.iter_mut().for_each(|caller| caller.get().unwrap());
    assert!(callers.iter().all(|caller| caller.connection.is_some()), "none ends before");
    callers
}

/// Spread over a minute: of 200, some at once.
fn wait_for_an_end(callers: &mut [Caller]) {
    let end = tokio::time::Instant::now() + support::PATIENCE;
    while callers.iter().all(|caller| caller.connection.is_some()) {
        callers.iter_mut().for_each(|caller| caller.get().unwrap());
        assert!(tokio::time::Instant::now() < end, "none of {} ends", callers.len());
    }
}

#[test]
fn connections_of_a_replaced_pair_end_with_an_answer() {
    let ca = Authority::new("ca");
    let (cert, key) = issue(&ca, 1);
    let own = ca.write("own", &cert, &key);
    let proxy = Proxy::start(&yaml(&ca, &own, "respond: { status: 200, body: hello }"));
    let mut callers = callers(proxy.address("in"), &Arc::new(ca.client(None)));
    let (cert, key) = issue(&ca, 2);
    ca.write("own", &cert, &key);
    proxy.wait_metrics("the new pair", |metrics| metrics.sum(RELOADS, &[]) >= 1.0);
    wait_for_an_end(&mut callers);
}

#[test]
fn a_reload_with_other_rules_is_for_new_connections_and_ends_the_others() {
    let ca = Authority::new("ca");
    let own = ca.issue("own", &["localhost"]);
    let text = yaml(&ca, &own, "respond: { status: 200, body: hello }");
    let proxy = Proxy::start(&text);
    let (to, config) = (proxy.address("in"), Arc::new(ca.client(None)));
    let mut callers = callers(to, &config);
    let reply = proxy.reload(&text.replace("tls: {}", "tls: { client_cert: required }"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let said = tls::get(to, &config, "localhost", "/").unwrap_err();
    assert!(said.contains("CertificateRequired"), "{said}");
    wait_for_an_end(&mut callers);
    let bad = text.replace("tls: {}", "tls: { cert: /nowhere/tls.crt, key: /nowhere/tls.key }");
    let reply = proxy.reload(&bad);
    let said = reply.text();
    assert!(
        reply.status != 200 && said.contains("/nowhere/tls.crt: there is no such file"),
        "{said}"
    );
}
