//! Connections that a packet filter redirects, in a network of their own.
//!
//! Needs root, `unshare`, `ip`, `iptables` and `ip6tables` with NAT; where one is missing the test says so and is skipped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/namespace.rs"]
mod namespace;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use namespace::run;
use support::{Connection, PATIENCE, Proxy, get, read_request};

/// Whose connections are redirected. The proxy's own come from other addresses.
const CALLER: &str = "127.0.0.9";

/// The same in IPv6, where the kernel's REDIRECT is of its own.
const CALLER6: &str = "fd00::9";

/// True inside a network of its own, where `filter` (iptables, ip6tables) can redirect.
fn is_inside(name: &str, filter: &str) -> bool {
    let setup = format!(
        "ip link set lo up && {filter} -t nat -A OUTPUT -p tcp --dport 1 -j REDIRECT --to-ports 2"
    );
    namespace::is_inside(name, &["--net"], &setup)
}

/// Redirects the caller's connections to `port` to where `listener` is bound.
fn redirect(port: u16, listener: SocketAddr) {
    redirect_by("iptables", CALLER, port, listener);
}

fn redirect_by(filter: &str, caller: &str, port: u16, listener: SocketAddr) {
    let to = listener.port();
    run(&format!(
        "{filter} -t nat -A OUTPUT -p tcp -s {caller} --dport {port} -j REDIRECT --to-ports {to}"
    ));
}

/// Connects as the caller whose connections are redirected.
fn connect(to: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(to);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    let caller = if to.is_ipv6() { CALLER6 } else { CALLER };
    socket.bind(&SocketAddr::new(caller.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(to: SocketAddr) -> (u16, String) {
    let mut connection = Connection::over(connect(to));
    connection.request("GET", "/", &[], b"");
    let reply = connection.reply();
    (reply.status, reply.text())
}

/// A service at `ip` that says `body`.
fn service(ip: &str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = std::io::BufReader::new(stream);
                while read_request(&mut stream).is_some() {
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

const YAML: &str = "\
admin: 127.0.0.1:0
runtime: { workers: 2 }
listeners:
  web: { bind: \"127.0.0.1:0\", original_destination: true, routes: [{ to: anywhere }] }
  raw: { bind: \"127.0.0.1:0\", protocol: tcp, original_destination: true, routes: [{ to: anywhere }] }
  plain: { bind: \"0.0.0.0:0\", routes: [{ respond: { status: 200 } }] }
upstreams:
  anywhere: { discover: \"original://\" }
";

#[test]
fn a_redirected_connection_goes_where_it_was_going() {
    if !is_inside("a_redirected_connection_goes_where_it_was_going", "iptables") {
        return;
    }
    let (one, two, raw) =
        (service("127.0.0.2", "one"), service("127.0.0.3", "two"), service("127.0.0.4", "raw"));
    let proxy = Proxy::start(YAML);
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200, "nothing to wait for");
    redirect(one.port(), proxy.address("web"));
    redirect(two.port(), proxy.address("web"));
    redirect(raw.port(), proxy.address("raw"));
    for _ in 0..3 {
        assert_eq!(ask(one), (200, "one".to_owned()));
        assert_eq!(ask(two), (200, "two".to_owned()));
        assert_eq!(ask(raw), (200, "raw".to_owned()));
    }
    let page: serde_json::Value =
        serde_json::from_str(&get(proxy.address("admin"), "/upstreams").text()).unwrap();
    let seen: Vec<(&str, u64)> = page[0]["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["address"].as_str().unwrap(), e["requests"].as_u64().unwrap()))
        .collect();
    let all = [one, two, raw].map(|address| address.to_string());
    assert_eq!(seen, [(&*all[0], 3), (&*all[1], 3), (&*all[2], 3)]);
    for address in &all {
        proxy.access().wait("the endpoint in a line", |line| line.contains(address).then_some(()));
    }
}

#[test]
fn nothing_is_passed_on_to_the_proxy_itself() {
    if !is_inside("nothing_is_passed_on_to_the_proxy_itself", "iptables") {
        return;
    }
    let proxy = Proxy::start(YAML);
    // Not redirected at all.
    let web = proxy.address("web");
    let reply = get(web, "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("no_upstream")));
    // Redirected, and going to the listener's own port under another address of this machine.
    redirect(web.port(), web);
    let (status, text) = ask(SocketAddr::from(([127, 0, 0, 5], web.port())));
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("a listener of this proxy"), "{text}");
    // Going to another listener, under whichever address.
    let plain = proxy.address("plain");
    redirect(plain.port(), web);
    for ip in [[127, 0, 0, 1], [127, 0, 0, 5]] {
        let (status, text) = ask(SocketAddr::from((ip, plain.port())));
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("a listener of this proxy"), "{text}");
    }
    let raw = proxy.address("raw");
    redirect(raw.port(), raw);
    for to in [raw, SocketAddr::from(([127, 0, 0, 5], raw.port()))] {
        let mut stream = connect(to);
        stream.write_all(b"hello").unwrap();
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let metrics = proxy.metrics();
    let connects = metrics.sum("outrigger_upstream_connects_total", &[]);
    assert!(connects < 0.5, "{connects}");
    // Four over HTTP, two connections over TCP.
    let refused = metrics.sum("outrigger_rejected_total", &[("reason", "no_upstream")]);
    assert!((refused - 6.0).abs() < 0.5, "{refused}");
}

#[test]
fn ipv6_is_redirected_as_well_and_ipv4_on_a_socket_of_both() {
    if !is_inside("ipv6_is_redirected_as_well_and_ipv4_on_a_socket_of_both", "ip6tables") {
        return;
    }
    for address in [CALLER6, "fd00::2", "fd00::3"] {
        run(&format!("ip -6 address add {address}/128 dev lo nodad"));
    }
    let (six, raw, four) =
        (service("fd00::2", "six"), service("fd00::3", "raw"), service("127.0.0.2", "four"));
    let proxy = Proxy::start(&YAML.replace("\"127.0.0.1:0\"", "\"[::]:0\""));
    let (web, tcp) = (proxy.address("web"), proxy.address("raw"));
    redirect_by("ip6tables", CALLER6, six.port(), web);
    redirect_by("ip6tables", CALLER6, raw.port(), tcp);
    redirect(four.port(), web);
    for _ in 0..3 {
        assert_eq!(ask(six), (200, "six".to_owned()));
        assert_eq!(ask(raw), (200, "raw".to_owned()));
        assert_eq!(ask(four), (200, "four".to_owned()));
    }
    // To the proxy itself: not redirected, and redirected.
    let itself = |ip: &str| SocketAddr::new(ip.parse().unwrap(), web.port());
    assert_eq!(get(itself("::1"), "/").status, 503);
    redirect_by("ip6tables", CALLER6, web.port(), web);
    assert_eq!(ask(itself("fd00::2")).0, 503);
    redirect_by("ip6tables", CALLER6, tcp.port(), web);
    assert_eq!(ask(SocketAddr::new("fd00::2".parse().unwrap(), tcp.port())).0, 503);
    let connects = proxy.metrics().sum("outrigger_upstream_connects_total", &[]);
    assert!(connects < 9.5, "{connects}");
    let reasons = proxy.metrics().sum("outrigger_rejected_total", &[("reason", "no_upstream")]);
    assert!(reasons > 2.5, "{reasons}");
}
