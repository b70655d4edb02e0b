//! From the start to the end of a process: ready, draining, cut off, and short of file descriptors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/ops.rs"]
mod ops;
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use ops::{Gate, Http2, begin, gated, ok, unix, unix_upstream, wait_for, wait_refused};
use support::{Connection, PATIENCE, Proxy, Upstream, get, http};

/// One outbound listener before `endpoint`, with what `drain` says.
fn yaml(endpoint: SocketAddr, drain: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2, drain: {drain} }}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:0\n    \
         routes:\n      - to: app\nupstreams:\n  app:\n    endpoints: [\"{endpoint}\"]\n"
    )
}

/// The drain begins at once; nothing is cut before a test would fail anyway.
const AT_ONCE: &str = "{ delay: 1ms, deadline: 60s }";

fn wait_draining(proxy: &Proxy) {
    proxy.log().wait("drain", |line| line.contains("\"message\":\"draining\"").then_some(()));
}

#[test]
fn the_start_tells_each_address_and_then_is_ready() {
    let upstream = Upstream::ok("hello");
    let start = Instant::now();
    let proxy = Proxy::start(&yaml(upstream.address, AT_ONCE));
    assert_eq!(get(proxy.address("outbound"), "/").status, 200);
    println!("first answer {} ms after the start", start.elapsed().as_millis());
    let ready = get(proxy.address("admin"), "/ready");
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    assert_eq!(get(proxy.address("admin"), "/live").status, 200);
    assert_eq!(ops::bound(&proxy, "outbound"), Some(proxy.address("outbound")));
    let config = get(proxy.address("admin"), "/config").text();
    assert!(config.contains("generation 1"), "{config}");
}

#[test]
fn readiness_waits_for_the_first_answer_of_discovery() {
    // A name server that never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap();
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\ndns: {{ servers: [\"{server}\"] }}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:0\n    \
         routes: [{{ to: app }}]\nupstreams:\n  app: {{ discover: \"dns://app.test:80\" }}\n"
    ));
    let ready = get(proxy.address("admin"), "/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.text(), "waiting for endpoints of app\n");
    assert_eq!(get(proxy.address("admin"), "/live").status, 200);
}

#[test]
fn during_the_delay_readiness_fails_and_new_connections_are_served() {
    let upstream = Upstream::ok("hello");
    let mut proxy = Proxy::start(&yaml(upstream.address, "{ delay: 4s, deadline: 60s }"));
    let mut kept = begin(proxy.address("outbound"), "/kept");
    assert_eq!(kept.reply().status, 200);
    let began = Instant::now();
    proxy.signal("TERM");
    wait_draining(&proxy);
    let ready = get(proxy.address("admin"), "/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
    assert!(proxy.metrics().sum("outrigger_draining", &[]) > 0.5);
    assert_eq!(get(proxy.address("admin"), "/live").status, 200);
    assert_eq!(get(proxy.address("outbound"), "/new").status, 200);
    kept.request("GET", "/again", &[], b"");
    let again = kept.reply();
    assert_eq!((again.status, again.header("connection")), (200, None));
    assert_eq!(kept.rest(), b"", "an idle connection ends with the delay");
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!(proxy.wait_exit(), 0);
}

#[test]
fn after_the_delay_answers_carry_connection_close_and_goaway() {
    let gate = Gate::default();
    let upstream = gated(&gate, "late");
    let mut proxy = Proxy::start(&yaml(upstream.address, AT_ONCE));
    let address = proxy.address("outbound");
    let mut http1 = begin(address, "/one");
    let mut http2 = Http2::open(address);
    http2.get(1);
    gate.wait_waiting(2);
    proxy.signal("TERM");
    wait_refused(address);
    let goaway = http2.frame().unwrap();
    assert_eq!((goaway.kind, &goaway.payload[4..8]), (ops::GOAWAY, &[0; 4][..]));
    gate.open();
    let reply = http1.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "late"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(http1.rest(), b"");
    let frames: Vec<_> = std::iter::from_fn(|| http2.frame()).collect();
    let data: Vec<u8> = frames
        .iter()
        .filter(|frame| frame.kind == ops::DATA)
        .flat_map(|f| f.payload.clone())
        .collect();
    assert_eq!(data, b"late", "{frames:?}");
    assert_eq!(proxy.wait_exit(), 0);
    let lines = proxy.access().all();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn inbound_ends_before_outbound_which_it_needs_for_its_answers() {
    let (gate, other) = (Gate::default(), Upstream::ok("from the other service"));
    let outbound: std::sync::Arc<std::sync::OnceLock<SocketAddr>> = std::sync::Arc::default();
    let (at_gate, through) = (gate.clone(), outbound.clone());
    let app = Upstream::scripted(move |_| {
        at_gate.pass();
        ok(&get(*through.get().unwrap(), "/needed").text())
    });
    let mut proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2, drain: {AT_ONCE} }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n    \
         direction: inbound\n    routes: [{{ to: app }}]\n  out:\n    bind: 127.0.0.1:0\n    routes: [{{ to: other }}]\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"] }}\n  other: {{ endpoints: [\"{}\"] }}\n",
        app.address, other.address
    ));
    outbound.set(proxy.address("out")).unwrap();
    let mut call = begin(proxy.address("in"), "/");
    gate.wait_waiting(1);
    proxy.signal("TERM");
    wait_refused(proxy.address("in"));
    gate.open();
    assert_eq!(call.reply().text(), "from the other service");
    assert_eq!(proxy.wait_exit(), 0);
}

#[test]
fn the_deadline_cuts_what_is_left_and_says_so_in_the_log() {
    let gate = Gate::default();
    let upstream = gated(&gate, "never");
    let mut proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2, drain: {{ delay: 1ms, deadline: 500ms }} }}\nlisteners:\n  \
         outbound: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n  raw: {{ bind: 127.0.0.1:0, protocol: tcp, routes: [{{ to: app }}] }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"] }}\n",
        upstream.address
    ));
    let mut http1 = begin(proxy.address("outbound"), "/http1");
    let mut http2 = Http2::open(proxy.address("outbound"));
    http2.get(1);
    let mut raw = begin(proxy.address("raw"), "/raw");
    gate.wait_waiting(3);
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(), 0);
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!((http1.rest(), raw.rest()), (vec![], vec![]));
    gate.open();
    let lines: Vec<serde_json::Value> = wait_for("three lines", || {
        let lines = proxy.access().all();
        (lines.len() == 3)
            .then(|| lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
    });
    for (protocol, status) in [("HTTP/1.1", 502), ("HTTP/2", 502), ("TCP", 0)] {
        let line = lines.iter().find(|line| line["protocol"] == protocol).unwrap();
        assert_eq!(
            (&line["reason"], &line["status"]),
            (&"draining".into(), &status.into()),
            "{line}"
        );
    }
    proxy.log().wait("warning", |line| line.contains("drain deadline passed").then_some(()));
}

#[test]
fn a_second_signal_ends_at_once() {
    let gate = Gate::default();
    let upstream = gated(&gate, "never");
    let mut proxy = Proxy::start(&yaml(upstream.address, "{ delay: 60s, deadline: 120s }"));
    let mut call = begin(proxy.address("outbound"), "/");
    gate.wait_waiting(1);
    proxy.signal("TERM");
    wait_draining(&proxy);
    proxy.signal("INT");
    assert_eq!(proxy.wait_exit(), 0);
    assert_eq!(call.rest(), b"");
    gate.open();
    proxy.access_line(|line| line["reason"] == "draining");
}

#[test]
fn post_drain_is_like_sigterm_and_the_platform_s_own_signal_after_it_cuts_nothing() {
    let gate = Gate::default();
    let upstream = gated(&gate, "whole");
    let mut proxy = Proxy::start(&yaml(upstream.address, AT_ONCE));
    let mut call = begin(proxy.address("outbound"), "/");
    gate.wait_waiting(1);
    let reply = http(proxy.address("admin"), "POST", "/drain", &[], b"");
    assert_eq!((reply.status, reply.text().as_str()), (202, "draining\n"));
    wait_draining(&proxy);
    assert_eq!(get(proxy.address("admin"), "/ready").status, 503);
    let reload = http(proxy.address("admin"), "POST", "/reload", &[], b"");
    assert_eq!(reload.status, 409, "{}", reload.text());
    proxy.signal("TERM");
    proxy.log().wait("note", |line| line.contains("already draining").then_some(()));
    gate.open();
    let reply = call.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "whole"));
    assert_eq!(proxy.wait_exit(), 0);
}

#[test]
fn no_access_log_line_is_lost_at_the_end() {
    let upstream = Upstream::ok("hello");
    for target in ["stdout", "file"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let to = if target == "file" { file.to_str().unwrap() } else { target };
        let yaml = format!("access_log: {{ to: {to} }}\n{}", yaml(upstream.address, AT_ONCE));
        let mut proxy = Proxy::start(&yaml);
        let mut connection = Connection::open(proxy.address("outbound"));
        for number in 0..500 {
            connection.request("GET", &format!("/{number}"), &[], b"");
            assert_eq!(connection.reply().status, 200);
        }
        proxy.signal("TERM");
        assert_eq!(proxy.wait_exit(), 0);
        let lines = wait_for("500 lines", || {
            let lines = match target {
                "file" => {
                    std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect()
                }
                _ => proxy.access().all(),
            };
            (lines.len() >= 500).then_some(lines)
        });
        assert_eq!(lines.len(), 500);
        assert!(lines[499].contains("\"/499\""), "{}", lines[499]);
    }
}

#[test]
fn a_signal_during_the_start_ends_it_in_order() {
    let upstream = Upstream::ok("hello");
    // Whether it comes before, during or after the start: never a death by the signal itself, once the log has begun.
    let mut proxy = Proxy::spawn(&yaml(upstream.address, AT_ONCE), |command| command);
    proxy.log().wait("first line", |line| line.contains("listening").then_some(()));
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(), 0);
}

#[test]
fn a_start_that_cannot_bind_says_which_listener_and_fails() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let upstream = Upstream::ok("hello");
    let yaml = yaml(upstream.address, AT_ONCE)
        .replace("    bind: 127.0.0.1:0", &format!("    bind: {address}"));
    let mut proxy = Proxy::spawn(&yaml, |command| command);
    assert_eq!(proxy.wait_exit(), 1);
    let said =
        proxy.log().wait("error", |line| line.contains("cannot bind").then(|| line.to_owned()));
    assert!(said.contains("outbound") && said.contains(&address.to_string()), "{said}");
}

#[test]
fn closed_log_pipes_do_not_stop_the_traffic() {
    let upstream = Upstream::ok("hello");
    let dir = tempfile::tempdir().unwrap();
    let (admin, listener) = (dir.path().join("admin.sock"), dir.path().join("in.sock"));
    let config = dir.path().join("outrigger.yaml");
    std::fs::write(
        &config,
        format!(
            "admin: \"unix:{}\"\nlisteners:\n  in: {{ bind: \"unix:{}\", routes: [{{ to: app }}] }}\nupstreams:\n  app: {{ endpoints: [\"{}\"] }}\n",
            admin.display(), listener.display(), upstream.address
        ),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.arg("run").arg("-c").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.env("OUTRIGGER_LOG", "debug").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    for _ in 0..20 {
        assert_eq!(unix(&listener, "GET", "/").status, 200);
    }
    assert_eq!(unix(&admin, "POST", "/reload").status, 200);
    wait_for("dropped lines", || {
        let metrics = support::Metrics::parse(&unix(&admin, "GET", "/metrics").text());
        (metrics.sum("outrigger_access_log_dropped_total", &[]) > 0.5).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn warnings_about_the_file_are_lines_of_the_log() {
    let upstream = Upstream::ok("hello");
    let proxy = Proxy::start(&yaml(upstream.address, "{ delay: 1ms, deadline: 90s }"));
    proxy.reload(&yaml(upstream.address, "{ delay: 1ms, deadline: 91s }"));
    for deadline in ["of 90s", "of 91s"] {
        let line = proxy.log().wait("warning", |line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let detail = line["detail"].as_str()?.to_owned();
            (line["message"] == "configuration warning" && detail.contains(deadline))
                .then_some(line)
        });
        assert_eq!((&line["code"], &line["line"]), (&"long-drain".into(), &2.into()), "{line}");
    }
}

#[test]
fn the_soft_limit_of_file_descriptors_is_raised_to_the_hard_one() {
    let dir = tempfile::tempdir().unwrap();
    let (admin, config) = (dir.path().join("admin.sock"), dir.path().join("outrigger.yaml"));
    let yaml = format!(
        "admin: \"unix:{}\"\nlisteners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ respond: 204 }}] }}\n",
        admin.display()
    );
    std::fs::write(&config, yaml).unwrap();
    let binary = env!("CARGO_BIN_EXE_outrigger");
    let script =
        format!("ulimit -S -n 100; ulimit -H -n 256; exec {binary} run -c {}", config.display());
    let mut shell = Command::new("sh");
    let mut child =
        shell.arg("-c").arg(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = support::Metrics::parse(&unix(&admin, "GET", "/metrics").text());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((metrics.sum("process_max_fds", &[]) - 256.0).abs() < 0.5, "{}", metrics.text);
}

/// CPU time of a process so far, in clock ticks (100 per second).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_file_descriptors_it_sheds_rests_and_recovers() {
    let upstream = Upstream::ok("hello");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("outrigger.yaml");
    std::fs::write(&config, yaml(upstream.address, AT_ONCE)).unwrap();
    let binary = env!("CARGO_BIN_EXE_outrigger");
    let mut shell = Command::new("sh");
    // Both limits: the proxy raises the soft one to the hard one.
    let script = format!("ulimit -n 64; exec {binary} run -c {}", config.display());
    let mut child =
        shell.arg("-c").arg(script).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut addresses = std::collections::HashMap::new();
    while !addresses.contains_key("admin") {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["message"] == "listening" {
            let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
            addresses.insert(line["listener"].as_str().unwrap().to_owned(), address);
        }
    }
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let (address, admin) = (addresses["outbound"], addresses["admin"]);
    assert_eq!(get(address, "/").status, 200);

    let mut held: Vec<Connection> = (0..200).map(|_| Connection::open(address)).collect();
    let shed = held.iter_mut().rev().find_map(|connection| {
        connection.stream.get_mut().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        matches!(connection.stream.get_mut().read(&mut [0]), Ok(0) | Err(_)).then_some(())
    });
    assert!(shed.is_some());
    let (before, began) = (cpu_ticks(child.id()), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        // The measured time itself.
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let share = (cpu_ticks(child.id()) - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    println!("CPU while out of file descriptors: {:.1} %", share * 100.0);
    assert!(share < 0.1, "{share}");

    drop(held);
    let end = Instant::now() + PATIENCE;
    wait_for("service as before", || {
        assert!(Instant::now() < end);
        let served = std::panic::catch_unwind(|| get(address, "/").status);
        served.is_ok_and(|status| status == 200).then_some(())
    });
    let metrics = support::Metrics::parse(&get(admin, "/metrics").text());
    let labels = [("listener", "outbound"), ("reason", "limit_reached")];
    assert!(metrics.sum("outrigger_rejected_total", &labels) >= 100.0, "{}", metrics.text);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn unix_sockets_serve_as_listener_upstream_and_admin_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    unix_upstream(&at("app.sock"), "over unix");
    let yaml = format!(
        "admin: \"unix:{0}/admin.sock\"\nruntime: {{ drain: {AT_ONCE} }}\nlisteners:\n  in:\n    bind: \"unix:{0}/in.sock\"\n    \
         routes: [{{ to: app }}]\nupstreams:\n  app: {{ endpoints: [\"unix:{0}/app.sock\"] }}\n",
        dir.path().display()
    );
    let mut first = Proxy::start(&yaml);
    assert_eq!(unix(&at("in.sock"), "GET", "/").text(), "over unix");
    let line = first.access_line(|line| line["status"] == 200);
    assert_eq!(line["peer"], "unix");
    assert_eq!(line["endpoint"], format!("unix:{}", at("app.sock").display()));
    assert_eq!(
        unix(&at("admin.sock"), "GET", "/config").status,
        200,
        "unix peers may ask anything"
    );

    // A second process must not take over what is served.
    let mut second = Proxy::spawn(&yaml, |command| command);
    assert_eq!(second.wait_exit(), 1);
    assert_eq!(unix(&at("in.sock"), "GET", "/").status, 200);

    // A killed process leaves its files, which the next one replaces.
    first.signal("KILL");
    first.wait_exit();
    assert!(std::fs::metadata(at("in.sock")).unwrap().file_type().is_socket());
    let mut third = Proxy::start(&yaml);
    assert_eq!(unix(&at("in.sock"), "GET", "/").text(), "over unix");
    assert_eq!(unix(&at("admin.sock"), "GET", "/ready").status, 200);
    third.signal("TERM");
    assert_eq!(third.wait_exit(), 0);
    assert!(!at("in.sock").exists() && !at("admin.sock").exists());
}
