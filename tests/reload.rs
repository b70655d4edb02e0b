//! Putting another configuration in force: when it is noticed, what it leaves alone, what it cleans up.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/ops.rs"]
mod ops;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ops::{Gate, bound, gated, ok, try_unix, unix, wait_for, wait_refused};
use support::{Connection, Proxy, Reply, Upstream, get, http};

/// A proxy that answers `text` itself.
fn saying(text: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - respond: {{ status: 200, body: {text} }}\n"
    )
}

/// With these listeners and upstreams.
fn yaml(listeners: &str, upstreams: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 2 }}\naccess_log: {{ only: errors }}\nlisteners:\n{listeners}upstreams:\n{upstreams}"
    )
}

fn wait_saying(proxy: &Proxy, text: &str) {
    wait_for(text, || (get(proxy.address("web"), "/").text() == text).then_some(()));
}

fn taken(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// An upstream that counts its connections.
fn counted(body: &str) -> (Upstream, Arc<AtomicUsize>) {
    let (connections, answer) = (Arc::new(AtomicUsize::new(0)), ok(body));
    let count = Arc::clone(&connections);
    let upstream = Upstream::serve(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut stream = std::io::BufReader::new(stream);
        while support::read_request(&mut stream).is_some() {
            if stream.get_mut().write_all(&answer).is_err() {
                return;
            }
        }
    });
    (upstream, connections)
}

#[test]
fn every_way_to_change_the_file_is_noticed() {
    let proxy = Proxy::start(&saying("one"));
    assert_eq!(get(proxy.address("web"), "/").text(), "one");

    std::fs::write(&proxy.config, saying("in-place")).unwrap();
    wait_saying(&proxy, "in-place");

    let next = proxy.dir.path().join("next.yaml");
    std::fs::write(&next, saying("renamed")).unwrap();
    std::fs::rename(&next, &proxy.config).unwrap();
    wait_saying(&proxy, "renamed");

    let metrics = proxy.metrics();
    assert!(
        (metrics.sum("outrigger_config_generation", &[]) - 3.0).abs() < 0.5,
        "{}",
        metrics.text
    );
    assert!((metrics.sum("outrigger_config_reloads_total", &[]) - 2.0).abs() < 0.5);
    proxy.signal("HUP");
    proxy.wait_metrics("SIGHUP", |metrics| metrics.sum("outrigger_config_generation", &[]) > 3.5);
}

#[test]
fn the_swapped_symlink_of_a_kubernetes_volume_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("..one", "one"), ("..two", "two")] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("outrigger.yaml"), saying(text)).unwrap();
    }
    symlink("..one", at("..data")).unwrap();
    symlink("..data/outrigger.yaml", at("outrigger.yaml")).unwrap();
    let proxy = Proxy::spawn(&saying("one"), |command| command);
    wait_saying(&proxy, "one");
    let mounted = |name: &str| proxy.dir.path().join(name);
    std::fs::rename(at("..one"), mounted("..one")).unwrap();
    std::fs::rename(at("..two"), mounted("..two")).unwrap();
    symlink("..one", mounted("..data")).unwrap();
    symlink("..data/outrigger.yaml", mounted("link")).unwrap();
    std::fs::rename(mounted("link"), &proxy.config).unwrap();
    symlink("..two", mounted("..swap")).unwrap();
    std::fs::rename(mounted("..swap"), mounted("..data")).unwrap();
    wait_saying(&proxy, "two");
}

#[test]
fn a_bad_file_leaves_the_old_generation_in_force_and_says_what_is_wrong() {
    let proxy = Proxy::start(&saying("one"));
    let bad = saying("two").replace("bind:", "bnid:");
    let reply = proxy.reload(&bad);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("bnid") && reply.text().contains("bind"), "{}", reply.text());
    assert_eq!(get(proxy.address("web"), "/").text(), "one");
    let metrics = proxy.metrics();
    let value = |name: &str| metrics.sum(name, &[]);
    assert!(value("outrigger_config_reload_failures_total") > 0.5);
    assert!(value("outrigger_config_last_reload_success") < 0.5);
    assert!((value("outrigger_config_generation") - 1.0).abs() < 0.5);
    let config = get(proxy.address("admin"), "/config").text();
    assert!(
        config.contains("# the newest file was refused:") && config.contains("bnid"),
        "{config}"
    );
    assert_eq!(get(proxy.address("admin"), "/ready").status, 200, "what is in force still serves");

    taken(&proxy.reload(&saying("three")));
    assert_eq!(get(proxy.address("web"), "/").text(), "three");
    assert!(proxy.metrics().sum("outrigger_config_last_reload_success", &[]) > 0.5);
    assert!(!get(proxy.address("admin"), "/config").text().contains("refused"));

    std::fs::remove_file(&proxy.config).unwrap();
    let reply = http(proxy.address("admin"), "POST", "/reload", &[], b"");
    assert_eq!(reply.status, 400);
    assert_eq!(get(proxy.address("web"), "/").text(), "three", "a missing file changes nothing");
}

#[test]
fn what_was_asked_for_is_not_reloaded_again_by_the_watch() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("outrigger.yaml");
    let proxy = Proxy::start(&saying("one"));
    // Behind the link's back: the folder that is watched does not change with the content.
    std::fs::write(&target, saying("one")).unwrap();
    let link = proxy.dir.path().join("link");
    symlink(&target, &link).unwrap();
    std::fs::rename(&link, &proxy.config).unwrap();
    std::fs::write(&target, saying("two")).unwrap();
    taken(&http(proxy.address("admin"), "POST", "/reload", &[], b""));
    assert_eq!(get(proxy.address("web"), "/").text(), "two");
    // Two more looks at the file: the first finds what is in force already.
    std::fs::write(proxy.dir.path().join("other"), "").unwrap();
    std::fs::write(proxy.dir.path().join("next"), saying("three")).unwrap();
    std::fs::rename(proxy.dir.path().join("next"), &proxy.config).unwrap();
    wait_saying(&proxy, "three");
    let reloads = proxy.metrics().sum("outrigger_config_reloads_total", &[]);
    assert!((reloads - 2.0).abs() < 0.5, "{reloads}");
}

/// Requests in a row until told to stop, each counted. Any answer but 200, and any broken connection, panics.
fn keep_asking(
    to: SocketAddr,
    (asked, stop): (Arc<AtomicUsize>, Arc<AtomicBool>),
    fresh: bool,
) -> std::thread::JoinHandle<()> {
    // Now, not when the thread comes to run: the listener may have moved by then.
    let mut connection = Connection::open(to);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if fresh {
                connection = Connection::open(to);
            }
            connection.request("GET", "/x", &[], b"");
            let reply = connection.reply();
            assert_eq!(reply.status, 200, "{}", reply.text());
            asked.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn fifty_reloads_under_load_lose_no_request() {
    const KEPT: usize = 4;
    let (steady, connections) = counted("steady");
    let (other, _) = counted("other");
    let file = |turn: usize| {
        let name = if turn.is_multiple_of(2) { "even" } else { "odd" };
        let (port, limit) = (turn % 3, 1000 + turn);
        yaml(
            &format!(
                "  main:\n    bind: 127.0.0.1:0\n    limits: {{ connections: {limit} }}\n    routes:\n      - {{ name: {name}, match: {{ path: \
                 /never }}, respond: 404 }}\n      - {{ name: all, to: {{ steady: {}, other: 10 }} }}\n  moving:\n    bind: \
                 127.0.{port}.1:0\n    routes: [{{ to: other }}]\n",
                turn + 1
            ),
            &format!(
                "  steady: {{ endpoints: [\"{}\"], pool: {{ idle: 60s }} }}\n  other: {{ endpoints: [\"{}\"], connect_timeout: {}ms }}\n",
                steady.address,
                other.address,
                900 + turn
            ),
        )
    };
    let proxy = Proxy::start(&file(0));
    let (asked, stop): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
    let ask = |to, fresh| keep_asking(to, (Arc::clone(&asked), Arc::clone(&stop)), fresh);
    let main = proxy.address("main");
    let mut load: Vec<_> = (0..KEPT).map(|_| ask(main, false)).collect();
    load.extend([ask(main, true), ask(proxy.address("moving"), false)]);
    for turn in 1..=50 {
        let before = asked.load(Ordering::Relaxed);
        taken(&proxy.reload(&file(turn)));
        wait_for("requests between reloads", || {
            let served = asked.load(Ordering::Relaxed) >= before + 20;
            (served || load.iter().any(std::thread::JoinHandle::is_finished)).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{} requests during 50 reloads", asked.load(Ordering::Relaxed));
    let connections = connections.load(Ordering::SeqCst);
    // Each caller has one request at a time, and the one that connects anew may meet either worker.
    assert!(
        connections <= KEPT + 2,
        "{connections} connections to an upstream that did not change"
    );
    let metrics = proxy.metrics();
    assert!((metrics.sum("outrigger_downstream_requests_total", &[("code", "5xx")])).abs() < 0.5);
    // The watch may take a written file just before it is asked for.
    assert!(metrics.sum("outrigger_config_generation", &[]) > 50.5);
    no_gauge_is_negative(&metrics.text);
}

fn no_gauge_is_negative(text: &str) {
    let negative: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#') && line.contains(" -")).collect();
    assert!(negative.is_empty(), "{negative:?}");
}

#[test]
fn an_unchanged_upstream_keeps_its_connections_and_its_state() {
    let (steady, connections) = counted("steady");
    let file = |timeout: usize| {
        yaml(
            &format!(
                "  main: {{ bind: 127.0.0.1:0, routes: [{{ to: steady, timeout: {timeout}s }}] }}\n"
            ),
            &format!(
                "  steady: {{ endpoints: [\"{}\"], pool: {{ idle: 60s }} }}\n",
                steady.address
            ),
        )
    };
    let proxy = Proxy::start(&file(1));
    let mut connection = Connection::open(proxy.address("main"));
    for turn in 2..12 {
        connection.request("GET", "/", &[], b"");
        assert_eq!(connection.reply().status, 200);
        taken(&proxy.reload(&file(turn)));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let upstreams: serde_json::Value =
        serde_json::from_str(&get(proxy.address("admin"), "/upstreams").text()).unwrap();
    assert_eq!(upstreams[0]["endpoints"][0]["requests"], 10);
    let attempts =
        proxy.metrics().sum("outrigger_upstream_attempts_total", &[("upstream", "steady")]);
    assert!((attempts - 10.0).abs() < 0.5, "{attempts}");
}

#[test]
fn a_request_is_answered_by_the_configuration_it_began_with() {
    let gate = Gate::default();
    let held = gated(&gate, "held");
    let upstreams = format!("  held: {{ endpoints: [\"{}\"] }}\n", held.address);
    let proxy = Proxy::start(&yaml(
        "  main: { bind: 127.0.0.1:0, routes: [{ to: held, response_headers: { set: { x-at: one } } }] }\n",
        &upstreams,
    ));
    let mut call = ops::begin(proxy.address("main"), "/");
    gate.wait_waiting(1);
    taken(&proxy.reload(
        "admin: 127.0.0.1:0\nlisteners:\n  main: { bind: 127.0.0.1:0, routes: [{ respond: { status: 200, body: new } }] }\n",
    ));
    assert_eq!(get(proxy.address("main"), "/").text(), "new");
    gate.open();
    let reply = call.reply();
    assert_eq!((reply.text().as_str(), reply.header("x-at")), ("held", Some("one")));
    call.request("GET", "/", &[], b"");
    assert_eq!(call.reply().text(), "new", "the same connection, the next request");
}

#[test]
fn listeners_are_added_moved_and_removed() {
    let listener = |name: &str, ip: &str| {
        format!(
            "  {name}: {{ bind: {ip}:0, routes: [{{ respond: {{ status: 200, body: {name} }} }}] }}\n"
        )
    };
    let file =
        |listeners: &[String]| format!("admin: 127.0.0.1:0\nlisteners:\n{}", listeners.concat());
    let one = listener("one", "127.0.0.1");
    let proxy = Proxy::start(&file(std::slice::from_ref(&one)));
    let first = bound(&proxy, "one").unwrap();

    taken(&proxy.reload(&file(&[one.clone(), listener("two", "127.0.0.1")])));
    let two = bound(&proxy, "two").unwrap();
    assert_eq!(get(two, "/").text(), "two");
    assert_eq!(bound(&proxy, "one"), Some(first), "what has not changed stays");

    let mut on_two = ops::begin(two, "/");
    assert_eq!(on_two.reply().text(), "two");
    taken(&proxy.reload(&file(&[one.clone(), listener("two", "127.0.0.2")])));
    let moved = bound(&proxy, "two").unwrap();
    assert_eq!(moved.ip().to_string(), "127.0.0.2");
    assert_eq!(get(moved, "/").text(), "two");
    wait_refused(two);
    on_two.request("GET", "/", &[], b"");
    assert_eq!(on_two.reply().text(), "two", "connections of a moved listener go on");

    let mut on_two = ops::begin(moved, "/");
    assert_eq!(on_two.reply().text(), "two");
    let reply = proxy.reload(&file(&[one]));
    taken(&reply);
    let applied: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(applied["listeners_closed"], serde_json::json!(["two"]));
    wait_refused(moved);
    assert_eq!(on_two.rest(), b"", "those of a removed one end");
    assert_eq!(get(first, "/").text(), "one");
}

#[test]
fn a_listener_changes_its_protocol_name_and_direction_where_it_is() {
    let (plain, _) = counted("over http");
    let raw = Upstream::serve(|_, mut stream| {
        let mut start = [0; 5];
        stream.read_exact(&mut start).unwrap();
        stream.write_all(b"raw bytes").unwrap();
    });
    let upstreams = format!(
        "  plain: {{ endpoints: [\"{}\"] }}\n  raw: {{ endpoints: [\"{}\"] }}\n",
        plain.address, raw.address
    );
    let file = |listener: &str| yaml(&format!("  {listener}\n"), &upstreams);
    let proxy = Proxy::start(&file("main: { bind: 127.0.0.1:0, routes: [{ to: plain }] }"));
    let address = bound(&proxy, "main").unwrap();
    assert_eq!(get(address, "/").text(), "over http");

    taken(
        &proxy.reload(&file("main: { bind: 127.0.0.1:0, protocol: tcp, routes: [{ to: raw }] }")),
    );
    assert_eq!(bound(&proxy, "main"), Some(address));
    // Until the old sockets are closed, the kernel may still give them a connection.
    wait_for("raw bytes", || {
        let mut connection = Connection::open(address);
        connection.send(b"hello");
        connection.send(b" \r\n\r\n");
        (connection.rest() == b"raw bytes").then_some(())
    });

    taken(
        &proxy
            .reload(&file(&format!("other: {{ bind: \"{address}\", routes: [{{ to: plain }}] }}"))),
    );
    assert_eq!((bound(&proxy, "main"), bound(&proxy, "other")), (None, Some(address)));
    wait_for("HTTP again", || {
        let mut connection = ops::begin(address, "/");
        connection.rest_is_http().then_some(())
    });

    taken(&proxy.reload(&file(&format!(
        "other: {{ bind: \"{address}\", direction: inbound, routes: [{{ to: plain }}] }}"
    ))));
    assert_eq!(bound(&proxy, "other"), Some(address));
    wait_for("still HTTP", || {
        let mut connection = ops::begin(address, "/");
        connection.rest_is_http().then_some(())
    });
}

trait RestIsHttp {
    fn rest_is_http(&mut self) -> bool;
}

impl RestIsHttp for Connection {
    fn rest_is_http(&mut self) -> bool {
        let mut start = [0; 12];
        self.stream.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 200"
    }
}

#[test]
fn two_listeners_swap_their_ports() {
    let file = |one: SocketAddr, two: SocketAddr| {
        format!(
            "admin: 127.0.0.1:0\nlisteners:\n  one: {{ bind: \"{one}\", routes: [{{ respond: {{ status: 200, body: one }} }}] }}\n  \
             two: {{ bind: \"{two}\", routes: [{{ respond: {{ status: 200, body: two }} }}] }}\n"
        )
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(&file(any, any));
    let (one, two) = (bound(&proxy, "one").unwrap(), bound(&proxy, "two").unwrap());
    taken(&proxy.reload(&file(two, one)));
    wait_for("the swap", || {
        (get(one, "/").text() == "two" && get(two, "/").text() == "one").then_some(())
    });
}

#[test]
fn a_unix_listener_is_renamed_without_a_gap_and_its_file_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    let file = |name: &str| {
        format!(
            "admin: 127.0.0.1:0\nlisteners:\n  {name}: {{ bind: \"unix:{}\", routes: [{{ respond: {{ status: 200, body: {name} }} }}] }}\n",
            path.display()
        )
    };
    let proxy = Proxy::start(&file("one"));
    assert_eq!(unix(&path, "GET", "/").text(), "one");
    taken(&proxy.reload(&file("two")));
    wait_for("the new name", || {
        let reply = try_unix(&path, "GET", "/").unwrap();
        (reply.text() == "two").then_some(())
    });
    taken(&proxy.reload(&saying("elsewhere")));
    assert!(!path.exists());
}

#[test]
fn an_address_in_use_refuses_the_whole_reload() {
    let taken_by_others = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken_by_others.local_addr().unwrap();
    let web = |text: &str| {
        format!(
            "  web: {{ bind: 127.0.0.1:0, routes: [{{ respond: {{ status: 200, body: {text} }} }}] }}\n"
        )
    };
    let proxy = Proxy::start(&yaml(&web("one"), "  {}\n"));
    let more = format!(
        "  more: {{ bind: \"{address}\", routes: [{{ to: fresh }}] }}\n  free: {{ bind: 127.0.0.1:0, routes: [{{ to: fresh }}] }}\n"
    );
    let reply = proxy
        .reload(&yaml(&format!("{}{more}", web("two")), "  fresh: { endpoints: [127.0.0.1:1] }\n"));
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().contains(&format!("listener more: cannot bind {address}")),
        "{}",
        reply.text()
    );
    assert_eq!(get(proxy.address("web"), "/").text(), "one");
    assert_eq!((bound(&proxy, "more"), bound(&proxy, "free")), (None, None));
    let metrics = proxy.metrics();
    assert!(metrics.sum("outrigger_config_last_reload_success", &[]) < 0.5);
    for series in ["\"fresh\"", "\"more\"", "\"free\""] {
        assert!(!metrics.text.contains(series), "{series} is not in force:\n{}", metrics.text);
    }
}

#[test]
fn series_of_what_is_removed_disappear() {
    let (app, _) = counted("app");
    let upstream = |name: &str| format!("  {name}: {{ endpoints: [\"{}\"] }}\n", app.address);
    let before = yaml(
        "  keep:\n    bind: 127.0.0.1:0\n    routes:\n      - { name: gone-route, match: { path: /gone }, to: gone-up }\n      - { name: \
         stays, match: { path: /x }, to: app }\n  gone-listener: { bind: 127.0.0.1:0, routes: [{ name: r, match: { path: /x }, to: gone-up \
         }] }\n",
        &format!("{}{}", upstream("app"), upstream("gone-up")),
    );
    let after = yaml(
        "  keep:\n    bind: 127.0.0.1:0\n    routes:\n      - { name: stays, match: { path: /x }, to: app }\n",
        &upstream("app"),
    );
    let proxy = Proxy::start(&before);
    let mut held = ops::begin(proxy.address("gone-listener"), "/x");
    assert_eq!(held.reply().status, 200);
    assert_eq!(get(proxy.address("gone-listener"), "/unrouted").status, 404);
    for path in ["/gone", "/x", "/unrouted"] {
        get(proxy.address("keep"), path);
    }
    let metrics = proxy.metrics().text;
    assert!(metrics.contains("gone-route") && metrics.contains("gone-listener"));

    taken(&proxy.reload(&after));
    let metrics = proxy.metrics();
    let left: Vec<&str> = metrics.text.lines().filter(|line| line.contains("gone-")).collect();
    assert!(left.is_empty(), "{left:#?}");
    let stays = [("listener", "keep"), ("route", "stays"), ("code", "2xx")];
    assert!(
        metrics.sum("outrigger_downstream_requests_total", &stays) > 0.5,
        "what stays is not reset"
    );
    assert_eq!(held.rest(), b"");

    for _ in 0..5 {
        taken(&proxy.reload(&before));
        taken(&proxy.reload(&after));
    }
    let metrics = proxy.metrics();
    assert!(!metrics.text.contains("gone-"));
    no_gauge_is_negative(&metrics.text);
}

#[test]
fn what_takes_a_restart_is_named() {
    let proxy = Proxy::start(&saying("one"));
    let reply = proxy.reload(&format!(
        "runtime: {{ workers: 3 }}\naccess_log: {{ to: stderr }}\n{}",
        saying("two")
    ));
    taken(&reply);
    let applied: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(applied["generation"], 2);
    assert_eq!(applied["needs_restart"], serde_json::json!(["runtime.workers", "access_log.to"]));
    assert_eq!(get(proxy.address("web"), "/").text(), "two", "all else is in force");
}

#[test]
fn a_caller_that_hangs_up_does_not_stop_a_reload() {
    let proxy = Proxy::start(&saying("one"));
    std::fs::write(&proxy.config, saying("two")).unwrap();
    let mut call = Connection::open(proxy.address("admin"));
    call.request("POST", "/reload", &[], b"");
    drop(call);
    wait_saying(&proxy, "two");
}
