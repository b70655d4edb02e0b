//! Which endpoint gets how much, as the endpoints themselves see it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;

use support::{Connection, Proxy, Upstream, get, read_request, refusing};
use traffic::{Gate, Setup, ok, pause};

fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

fn ask(proxy: &Proxy, times: usize) {
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..times {
        caller.request("GET", "/", &[], b"");
        assert_eq!(caller.reply().status, 200);
    }
}

fn counts(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.requests().len()).collect()
}

#[test]
fn round_robin_takes_exact_turns() {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::ok("ok")).collect();
    let setup = Setup::new(&addresses(&upstreams)).upstream("balance: round_robin");
    let proxy = Proxy::start(&setup.yaml());
    for round in 1..=20 {
        ask(&proxy, 3);
        assert_eq!(counts(&upstreams), [round; 3]);
    }
}

/// How 400 requests fall on endpoints of weight 1, 2 and 5, none of which has been asked before.
fn by_weight(policy: &str) -> Vec<usize> {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::ok("ok")).collect();
    let weighed: Vec<String> = upstreams
        .iter()
        .zip([1, 2, 5])
        .map(|(upstream, weight)| {
            format!("{{ address: \"{}\", weight: {weight} }}", upstream.address)
        })
        .collect();
    let proxy = Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ \
         to: articles }}] }}\nupstreams:\n  articles: {{ endpoints: [{}], balance: {policy} }}\n",
        weighed.join(", ")
    ));
    ask(&proxy, 400);
    counts(&upstreams)
}

#[test]
fn weights_are_kept_exactly_by_round_robin_and_about_by_the_others() {
    // An endpoint's thread that does not run for a moment is a slow endpoint, which `peak_ewma` shuns for good reason: it may try again.
    for (policy, slack, tries) in
        [("round_robin", 0, 1), ("random", 60, 1), ("least_request", 60, 1), ("peak_ewma", 60, 5)]
    {
        let kept = |counts: &[usize]| {
            counts.iter().zip([50_usize, 100, 250]).all(|(count, due)| count.abs_diff(due) <= slack)
        };
        let round = |_| {
            let counts = by_weight(policy);
            println!("{policy}: {counts:?}");
            kept(&counts)
        };
        assert!((0..tries).any(round), "{policy}");
    }
}

/// Takes its time over each answer.
fn slow(millis: u64) -> Upstream {
    let received = std::sync::Arc::default();
    let kept: std::sync::Arc<std::sync::Mutex<Vec<Vec<u8>>>> = std::sync::Arc::clone(&received);
    let served = Upstream::serve(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            kept.lock().unwrap().push(request);
            pause(millis);
            if stream.get_mut().write_all(&ok("slow")).is_err() {
                return;
            }
        }
    });
    Upstream { received, ..served }
}

#[test]
fn peak_ewma_shuns_a_slow_endpoint() {
    let upstreams = [Upstream::ok("ok"), slow(150), Upstream::ok("ok")];
    let proxy = Proxy::start(&Setup::new(&addresses(&upstreams)).yaml());
    ask(&proxy, 300);
    let counts = counts(&upstreams);
    // A fair share would be a hundred.
    assert!(counts[1] <= 10, "{counts:?}");
    assert!(counts[0] >= 50 && counts[2] >= 50, "{counts:?}");
}

#[test]
fn failing_fast_attracts_nothing_under_peak_ewma() {
    // Answered at once, and never ejected; the others take their time.
    for (status, most) in [("429 Too Many Requests", 30), ("500 Internal Server Error", 60)] {
        let round = |_| {
            let refuses = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let fast = Upstream::scripted(move |_| refuses.clone().into_bytes());
            let upstreams = [slow(5), fast, slow(5)];
            let setup = Setup::new(&addresses(&upstreams)).upstream("outliers: never");
            let proxy = Proxy::start(&setup.yaml());
            let mut caller = Connection::open(proxy.address("outbound"));
            for _ in 0..300 {
                caller.request("GET", "/", &[], b"");
                caller.reply();
            }
            let counts = counts(&upstreams);
            println!("{status}: {counts:?}");
            counts[1] <= most
        };
        // A fair share would be a hundred, and by latency alone it would be nearly all. A thread that does not run for a moment makes the
        // others slow, once.
        assert!((0..3).any(round), "{status}");
    }
}

#[test]
fn least_request_avoids_the_endpoint_that_is_busy() {
    let (busy, idle) = (Gate::new("late"), Upstream::ok("ok"));
    let addresses = [busy.upstream.address, idle.address];
    let proxy = Proxy::start(&Setup::new(&addresses).upstream("balance: least_request").yaml());
    let to = proxy.address("outbound");
    // One request after another until the gate holds one.
    let held = loop {
        let asking = std::thread::spawn(move || get(to, "/").text());
        while !asking.is_finished() && !busy.has_arrived() {
            std::thread::yield_now();
        }
        if !asking.is_finished() {
            break asking;
        }
        assert_eq!(asking.join().unwrap(), "ok");
    };
    let before = idle.requests().len();
    ask(&proxy, 50);
    assert_eq!(idle.requests().len(), before + 50);
    busy.open(1);
    assert_eq!(held.join().unwrap(), "late");
}

fn endpoint(upstream: &Upstream, keys: &str) -> String {
    format!("{{ address: \"{}\", {keys} }}", upstream.address)
}

/// One worker, one upstream `articles` with `endpoints` and what `more` says of it; `top` at the top level.
fn one_upstream(top: &str, endpoints: &[String], more: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\n{top}listeners:\n  outbound: {{ bind: \"127.0.0.1:0\", routes: [{{ \
         to: articles }}] }}\nupstreams:\n  articles: {{ endpoints: [{}], {more} }}\n",
        endpoints.join(", ")
    )
}

fn shown(proxy: &Proxy) -> serde_json::Value {
    let page = get(proxy.address("admin"), "/upstreams");
    serde_json::from_str(&page.text()).unwrap()
}

#[test]
fn a_second_priority_is_used_for_what_the_first_cannot_take() {
    let (first, second) = (Upstream::ok("first"), Upstream::ok("second"));
    let endpoints = [endpoint(&second, "priority: 1"), endpoint(&first, "priority: 0")];
    let proxy = Proxy::start(&one_upstream("", &endpoints, "balance: random"));
    ask(&proxy, 50);
    assert_eq!((first.requests().len(), second.requests().len()), (50, 0));
    let page = shown(&proxy);
    assert_eq!(page[0]["shares"][0]["share"], 1.0, "{page}");
    assert_eq!(page[0]["endpoints"][0]["priority"], 1, "{page}");

    // Nobody is where the first priority should be.
    let absent = format!("{{ address: \"{}\" }}", refusing());
    let endpoints = [endpoint(&second, "priority: 7"), absent];
    let proxy = Proxy::start(&one_upstream("", &endpoints, "outliers: { eject: 5m }"));
    ask(&proxy, 50);
    assert_eq!(second.requests().len(), 50);
}

/// Upstreams that say their number.
fn numbered(count: usize) -> Vec<Upstream> {
    (0..count).map(|number| Upstream::ok(&number.to_string())).collect()
}

fn endpoints(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| format!("\"{}\"", upstream.address)).collect()
}

/// A hashing upstream on one route.
fn hashing(endpoints: &[String], policy: &str, hash: &str) -> String {
    one_upstream("", endpoints, &format!("balance: {policy}"))
        .replace("{ to: articles }", &format!("{{ to: articles, hash: {hash} }}"))
}

/// One request on a connection of its own.
fn one(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> support::Reply {
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", path, headers, b"");
    let reply = caller.reply();
    assert_eq!(reply.status, 200);
    reply
}

#[test]
fn a_header_value_sticks_to_its_endpoint_in_every_proxy_and_survives_the_loss_of_others() {
    let upstreams = numbered(5);
    let all = endpoints(&upstreams);
    for policy in ["ring_hash", "maglev"] {
        let proxy = Proxy::start(&hashing(&all, policy, "\"header:x-user\""));
        let homes = |proxy: &Proxy| -> Vec<String> {
            let users = (0..40).map(|user| format!("user-{user}"));
            users.map(|user| one(proxy, "/", &[("x-user", &user)]).text()).collect()
        };
        let before = homes(&proxy);
        let used: std::collections::BTreeSet<_> = before.iter().collect();
        assert!(used.len() >= 4, "{policy}: {before:?}");
        for _ in 0..2 {
            assert_eq!(homes(&proxy), before, "{policy}");
        }
        let mut turned = all.clone();
        turned.reverse();
        let other = Proxy::start(&hashing(&turned, policy, "[\"query:none\", \"header:x-user\"]"));
        assert_eq!(homes(&other), before, "{policy}");
        // Endpoint 2 leaves.
        let left: Vec<String> = [0, 1, 3, 4].map(|index| all[index].clone()).to_vec();
        proxy.reload(&hashing(&left, policy, "\"header:x-user\""));
        let after = homes(&proxy);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let had_to = before.iter().filter(|home| **home == "2").count();
        assert!(!after.contains(&"2".to_owned()));
        let slack = if policy == "maglev" { 2 } else { 0 };
        assert!(moved <= had_to + slack, "{policy}: {moved} moved, {had_to} had to");
    }
}

#[test]
fn a_cookie_is_set_once_and_brings_its_caller_back() {
    let upstreams = numbered(5);
    let hash = "[{ cookie: { name: sid, ttl: 1h } }]";
    let proxy = Proxy::start(&hashing(&endpoints(&upstreams), "maglev", hash));
    let mut homes = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let first = one(&proxy, "/", &[("cookie", "theme=dark")]);
        let cookie = first.header("set-cookie").unwrap().to_owned();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        let value = pair.strip_prefix("sid=").unwrap();
        assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{cookie}");
        for _ in 0..3 {
            let again = one(&proxy, "/", &[("cookie", &format!("theme=dark; {pair}"))]);
            assert_eq!(again.text(), first.text());
            assert_eq!(again.header("set-cookie"), None);
        }
        homes.insert(first.text());
    }
    assert!(homes.len() >= 4, "{homes:?}");
}

#[test]
fn over_http2_a_cookie_is_set_once_and_found_among_its_crumbs() {
    let upstreams = numbered(5);
    let proxy = Proxy::start(&hashing(&endpoints(&upstreams), "maglev", "cookie:sid"));
    http2::run(async {
        let send = http2::connect(proxy.address("outbound")).await;
        for _ in 0..10 {
            let first = http2::ask(&send, http2::get("/"), b"", None).await.unwrap();
            let cookie = first.header("set-cookie").unwrap().to_owned();
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
            // RFC 9113 §8.2.3: a client may send each pair in a field of its own.
            let mut again = http2::get("/");
            for crumb in ["theme=dark", pair, "lang=en"] {
                again.headers_mut().append("cookie", crumb.parse().unwrap());
            }
            let again = http2::ask(&send, again, b"", None).await.unwrap();
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
    });
}

#[test]
fn a_cookie_is_secure_where_its_keeper_speaks_tls() {
    let upstreams = numbered(2);
    let authority = tls::Authority::new("cookies");
    let own = authority.issue("service", &["localhost"]);
    let sidecar = authority.issue("sidecar", &["sidecar.test"]);
    let yaml = hashing(&endpoints(&upstreams), "maglev", "cookie:sid").replace(
        "bind: \"127.0.0.1:0\",",
        &format!(
            "bind: \"127.0.0.1:0\", direction: inbound, tls: {{ client_cert: optional, plain_text: accept, ca: {}, {} }},",
            authority.ca().display(),
            own.yaml()
        ),
    );
    let proxy = Proxy::start(&yaml);
    let ask = |own: Option<&tls::Issued>, proto: &str| {
        let config = std::sync::Arc::new(authority.client(own));
        let mut stream = tls::open(proxy.address("outbound"), &config, "localhost");
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: {proto}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie.ends_with("; HttpOnly; SameSite=Lax; Secure")
    };
    assert!(ask(None, "https"));
    assert!(ask(None, "http"), "what a stranger claims is nothing");
    assert!(ask(Some(&sidecar), "https"));
    assert!(!ask(Some(&sidecar), "http"), "the browser's own connection is in clear");
    let clear = one(&proxy, "/", &[("x-forwarded-proto", "https")]);
    assert!(!clear.header("set-cookie").unwrap().contains("Secure"));
}

#[test]
fn a_query_parameter_and_a_source_address_stick_and_what_is_absent_does_not() {
    let upstreams = numbered(5);
    let proxy = Proxy::start(&hashing(
        &endpoints(&upstreams),
        "{ policy: ring_hash, max_load: unlimited }",
        "\"query:id\"",
    ));
    for id in 0..10 {
        let home = one(&proxy, &format!("/?a=1&id=x%20{id}"), &[]).text();
        assert_eq!(one(&proxy, &format!("/other?id=x+{id}&id=9"), &[]).text(), home);
    }
    let used: std::collections::BTreeSet<_> =
        (0..60).map(|_| one(&proxy, "/", &[]).text()).collect();
    assert!(used.len() >= 4, "at random: {used:?}");

    let upstreams = numbered(5);
    let proxy = Proxy::start(&hashing(
        &endpoints(&upstreams),
        "ring_hash",
        "[\"header:x-user\", source_ip]",
    ));
    ask(&proxy, 20);
    let busy = counts(&upstreams).into_iter().filter(|count| *count > 0).count();
    assert_eq!(busy, 1);
}

#[test]
fn a_key_whose_endpoint_takes_no_connection_goes_to_one_other() {
    let upstreams = numbered(4);
    let mut all = endpoints(&upstreams);
    all.push(format!("\"{}\"", refusing()));
    for policy in ["ring_hash", "maglev"] {
        let mut yaml = hashing(&all, policy, "\"header:x-user\"");
        yaml = yaml.replace("balance:", "outliers: never, balance:");
        let proxy = Proxy::start(&yaml);
        for user in 0..40 {
            let user = format!("user-{user}");
            let home = one(&proxy, "/", &[("x-user", &user)]).text();
            for _ in 0..2 {
                assert_eq!(one(&proxy, "/", &[("x-user", &user)]).text(), home, "{policy} {user}");
            }
        }
    }
}

#[test]
fn only_endpoints_of_the_subset_are_used_and_none_is_said_clearly() {
    let upstreams = numbered(3);
    let labelled: Vec<String> = upstreams
        .iter()
        .zip(["v1", "v2", "v2"])
        .map(|(upstream, version)| {
            endpoint(upstream, &format!("labels: {{ version: {version}, stage: live }}"))
        })
        .collect();
    let with = |subset: &str| {
        one_upstream("", &labelled, &format!("balance: round_robin, subset: {{ {subset} }}"))
    };
    let proxy = Proxy::start(&with("version: v2, stage: live"));
    ask(&proxy, 10);
    assert_eq!(counts(&upstreams), [0, 5, 5]);
    let page = shown(&proxy);
    assert_eq!(page[0]["endpoints"].as_array().unwrap().len(), 2, "{page}");
    assert_eq!(page[0]["subset"]["outside"], 1, "{page}");
    let outside = |proxy: &Proxy| proxy.metrics().sum("outrigger_upstream_outside_subset", &[]);
    assert!((outside(&proxy) - 1.0).abs() < 0.1);

    proxy.reload(&with("version: v3"));
    let reply = get(proxy.address("outbound"), "/");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (503, Some("no_upstream")));
    assert!((outside(&proxy) - 3.0).abs() < 0.1);
    let line = proxy.access_line(|line| line["status"] == 503);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("none of the 3 endpoints of upstream articles"), "{detail}");
    assert!(detail.contains("version=v3"), "{detail}");

    proxy.reload(&one_upstream("", &labelled, "balance: round_robin"));
    ask(&proxy, 3);
    assert!(outside(&proxy) < 0.1, "the series is gone");
}

#[test]
fn a_zone_keeps_what_it_has_capacity_for() {
    let upstreams = numbered(4);
    let zoned = |zones: [&str; 4]| -> Vec<String> {
        let zones = zones.map(|zone| format!("zone: {zone}"));
        upstreams.iter().zip(zones).map(|(upstream, zone)| endpoint(upstream, &zone)).collect()
    };
    let aware = "balance: { policy: round_robin, zone_aware: true }";
    let proxy = Proxy::start(&one_upstream("zone: a\n", &zoned(["b", "a", "a", "b"]), aware));
    ask(&proxy, 40);
    assert_eq!(counts(&upstreams), [0, 20, 20, 0]);
    let page = shown(&proxy);
    assert_eq!(page[0]["balance"]["zone"], "a", "{page}");
    assert_eq!(page[0]["shares"][0]["zone"], "a", "{page}");
    let picks =
        |zone: &str| proxy.metrics().sum("outrigger_upstream_zone_picks_total", &[("zone", zone)]);
    assert!((picks("local") - 40.0).abs() < 0.1 && picks("other") < 0.1);

    // A quarter of the capacity in one of two zones: half of its requests leave.
    proxy.reload(&one_upstream("zone: a\n", &zoned(["b", "a", "b", "b"]), aware));
    let before = counts(&upstreams);
    ask(&proxy, 400);
    let after = counts(&upstreams);
    let local = after[1] - before[1];
    assert!((140..=260).contains(&local), "{local} of 400 stay");
    assert_eq!(shown(&proxy)[0]["shares"][0]["share"], 0.5);

    // Our zone is another one: only that has changed.
    proxy.reload(&one_upstream("zone: c\n", &zoned(["b", "a", "b", "b"]), aware));
    let before = counts(&upstreams);
    ask(&proxy, 40);
    let after = counts(&upstreams);
    assert!(after.iter().zip(before).all(|(after, before)| after - before == 10), "{after:?}");
}

#[test]
fn a_tcp_connection_sticks_to_the_endpoint_of_its_source_address() {
    let upstreams = numbered(5);
    let yaml = hashing(&endpoints(&upstreams), "maglev", "source_ip")
        .replace("bind: \"127.0.0.1:0\",", "bind: \"127.0.0.1:0\", protocol: tcp,");
    let proxy = Proxy::start(&yaml);
    for _ in 0..10 {
        assert_eq!(get(proxy.address("outbound"), "/").status, 200);
    }
    let busy = counts(&upstreams).into_iter().filter(|count| *count > 0).count();
    assert_eq!(busy, 1);
}

#[test]
fn a_hot_key_spills_to_other_endpoints_and_its_cookie_is_not_set_again() {
    let hold = std::sync::Arc::new(std::sync::RwLock::new(()));
    let held = hold.write().unwrap();
    let upstreams: Vec<Upstream> = (0..4)
        .map(|_| {
            let hold = std::sync::Arc::clone(&hold);
            Upstream::scripted(move |_| {
                drop(hold.read().unwrap());
                ok("late")
            })
        })
        .collect();
    let proxy = Proxy::start(&hashing(&endpoints(&upstreams), "ring_hash", "cookie:sid"));
    let mut callers: Vec<Connection> = (0..20)
        .map(|_| {
            let mut caller = Connection::open(proxy.address("outbound"));
            caller.request("GET", "/", &[("cookie", "sid=everybody")], b"");
            caller
        })
        .collect();
    while counts(&upstreams).iter().sum::<usize>() < 20 {
        std::thread::yield_now();
    }
    // With so few in flight at most eight at one; the rest goes on along the ring.
    let mut loads = counts(&upstreams);
    loads.sort_unstable();
    assert_eq!(loads, [0, 4, 8, 8]);
    drop(held);
    for caller in &mut callers {
        let reply = caller.reply();
        assert_eq!((reply.status, reply.header("set-cookie")), (200, None));
    }
}
