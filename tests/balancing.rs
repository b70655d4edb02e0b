//! Which endpoint gets how much, as the endpoints themselves see it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Write};
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

#[test]
fn weights_are_kept_exactly_by_round_robin_and_about_by_the_others() {
    for (policy, slack) in
        [("round_robin", 0), ("random", 60), ("least_request", 60), ("peak_ewma", 60)]
    {
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
        for (count, due) in counts(&upstreams).into_iter().zip([50, 100, 250]) {
            assert!(count.abs_diff(due) <= slack, "{policy}: {:?}", counts(&upstreams));
        }
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
    assert_eq!(page[0]["priorities"][0]["share"], 1.0, "{page}");
    assert_eq!(page[0]["endpoints"][0]["priority"], 1, "{page}");

    // Nobody is where the first priority should be.
    let absent = format!("{{ address: \"{}\" }}", refusing());
    let endpoints = [endpoint(&second, "priority: 7"), absent];
    let proxy = Proxy::start(&one_upstream("", &endpoints, "outliers: { eject: 5m }"));
    ask(&proxy, 50);
    assert_eq!(second.requests().len(), 50);
}
