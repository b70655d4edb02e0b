//! Upstreams from Consul: a scripted agent for what a real one rarely says, and a real one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "support/consul.rs"]
mod consul;
#[path = "support/local.rs"]
mod local;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/traffic.rs"]
mod traffic;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use consul::{Agent, Fake, instance, instances};
use local::{ask, endpoints, errors, silent, until, upstream, yaml};
use support::{Proxy, Upstream};
use tls::Authority;
use traffic::free_port;

/// A query of a target, as the agent got it.
fn parameters(target: &str) -> Vec<&str> {
    target.split_once('?').map_or(Vec::new(), |(_, query)| query.split('&').collect())
}

#[test]
fn a_change_is_followed_without_waiting_and_nothing_is_asked_twice() {
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!(
        "\"consul://{}/articles?passing&tag=prod&tag=eu&dc=dc1\"",
        agent.address
    )));
    until("the first answer", || ask(&proxy) == "one");
    agent.until_blocked();
    let asked = agent.asked();
    agent.set(&instances(&[two.address]));
    until("the change", || ask(&proxy) == "two");
    agent.until_blocked();
    let targets = agent.asked();
    assert_eq!(targets.len(), asked.len() + 1, "one question for one change: {targets:?}");
    assert_eq!(targets[0], "/v1/health/service/articles?passing&tag=prod&tag=eu&dc=dc1");
    let index = agent.index().to_string();
    let last = parameters(targets.last().unwrap());
    assert!(last.contains(&format!("index={index}").as_str()), "{last:?}");
    assert!(last.contains(&"wait=60s"), "{last:?}");
    assert_eq!(agent.connections(), 1, "all on one connection");
}

#[test]
fn a_change_reaches_picks_within_half_a_second() {
    let both = [Upstream::ok("one"), Upstream::ok("two")];
    let agent = Fake::start();
    agent.set(&instances(&[both[0].address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    // Four questions may follow at once. The best of them: a machine that is busy for a moment does not make a slow client.
    let times = (1..=3).map(|round| {
        agent.until_blocked();
        agent.set(&instances(&[both[round % 2].address]));
        until("the change", || ask(&proxy) == ["one", "two"][round % 2])
    });
    let best = times.min().unwrap();
    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[test]
fn weights_zones_and_metadata_are_on_the_page_of_upstreams() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&[instance(one.address, |instance| {
        instance["Service"]["Weights"]["Passing"] = 7.into();
        instance["Service"]["Meta"] = serde_json::json!({ "version": "v2", "zone": "eu-1a" });
    })]);
    let proxy = Proxy::start(&yaml(&format!(
        "{{ consul: {{ address: \"{}\", service: articles }} }}",
        agent.address
    )));
    until("the first answer", || ask(&proxy) == "one");
    let shown = upstream(&proxy);
    let endpoint = &shown["endpoints"][0];
    assert_eq!(endpoint["weight"], 7, "{shown}");
    assert_eq!(endpoint["zone"], "eu-1a", "{shown}");
    assert_eq!(endpoint["labels"]["version"], "v2", "{shown}");
    assert_eq!(shown["discovery"]["state"], "fresh", "{shown}");
    let source = format!("consul://{}/articles", agent.address);
    assert_eq!(shown["discovery"]["source"], source, "{shown}");
}

/// While the agent answers like that, the set stays and requests pass; afterwards all is well. What is counted, and told.
fn endure(cases: &[(&[u8], &str, &str)]) {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    for (answer, reason, text) in cases {
        let before = errors(&proxy, reason);
        agent.answer_with(Some(answer));
        until(text, || {
            assert_eq!(ask(&proxy), "one");
            errors(&proxy, reason) > before
        });
        let shown = upstream(&proxy);
        assert_eq!(shown["discovery"]["state"], "stale", "{shown}");
        let told = shown["discovery"]["last_error"]["text"].as_str().unwrap();
        assert!(told.contains(text), "{told}");
        agent.answer_with(None);
        until("it is well again", || {
            assert_eq!(ask(&proxy), "one");
            upstream(&proxy)["discovery"]["state"] == "fresh"
        });
    }
    let updates = proxy.metrics().sum("outrigger_discovery_updates_total", &[]);
    assert!((updates - 1.0).abs() < 0.5, "the set has never changed: {updates}");
}

#[test]
fn an_agent_that_refuses_or_fails_fails_no_request() {
    let denied = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\nACL not found";
    let broken =
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\n\r\nNo cluster leader";
    let filtered = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\n\
        X-Consul-Results-Filtered-By-ACLs: true\r\nContent-Length: 2\r\n\r\n[]";
    endure(&[
        (denied, "denied", "status 403: ACL not found"),
        (broken, "other", "status 500: No cluster leader"),
        (filtered, "denied", "may not see"),
    ]);
}

#[test]
fn an_agent_that_talks_nonsense_fails_no_request() {
    let html = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: 6\r\n\r\n<html>";
    let foreign = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
    let cut = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: 100\r\n\r\n[";
    endure(&[
        (html, "malformed", "not a list"),
        (foreign, "malformed", "X-Consul-Index"),
        (cut, "unreachable", "closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed", "not valid HTTP"),
    ]);
}

#[test]
fn an_agent_that_is_down_keeps_the_set_and_is_found_again() {
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    agent.stop();
    until("failures", || {
        assert_eq!(ask(&proxy), "one");
        errors(&proxy, "unreachable") >= 2.0
    });
    // Another history: its index is smaller than what was waited for.
    agent.restart(3);
    agent.set(&instances(&[two.address]));
    until("the restarted agent", || ask(&proxy) == "two");
}

#[test]
fn an_agent_that_hangs_fails_no_request() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    agent.until_blocked();
    agent.stop();
    // A question with an index may wait for more than a minute; the one after a failure has none.
    until("a failure", || errors(&proxy, "unreachable") >= 1.0);
    silent(agent.address);
    until("no answer in time", || {
        assert_eq!(ask(&proxy), "one");
        errors(&proxy, "timeout") >= 1.0
    });
    assert_eq!(upstream(&proxy)["discovery"]["state"], "stale");
}

#[test]
fn an_index_that_goes_backwards_is_started_anew() {
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    let agent = Fake::start();
    agent.set_at(1_000, &instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    agent.until_blocked();
    agent.set_at(5, &instances(&[two.address]));
    until("the change", || ask(&proxy) == "two");
    until("a question without index", || {
        agent.asked().iter().filter(|target| !target.contains("index=")).count() >= 2
    });
    agent.until_blocked();
    assert!(agent.asked().last().unwrap().contains("index=5&"), "{:?}", agent.asked());
    agent.set_at(6, &instances(&[one.address]));
    until("the next change", || ask(&proxy) == "one");
}

#[test]
fn an_index_of_zero_does_not_make_a_busy_loop() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set_at(0, &instances(&[one.address]));
    let started = Instant::now();
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    until("the questions are paced", || agent.asked().len() >= 6);
    let (asked, passed) = (agent.asked().len(), started.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = asked as f64;
    assert!(rate <= 6.0 + passed, "{asked} questions in {passed} s");
    assert!(agent.asked()[1].contains("index=1&"), "{:?}", agent.asked());
}

#[test]
fn an_empty_answer_is_believed_the_third_time() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    agent.until_blocked();
    agent.set(&[]);
    until("the first of three", || errors(&proxy, "empty") >= 1.0);
    assert_eq!(ask(&proxy), "one", "once is not enough");
    until("the set is empty", || ask(&proxy) == "503");
    assert!(errors(&proxy, "empty") >= 3.0);
    agent.set(&instances(&[one.address]));
    until("it is back", || ask(&proxy) == "one");
}

#[test]
fn the_token_is_read_again_for_each_question() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    agent.want_token("second");
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let proxy = Proxy::start(&yaml(&format!(
        "{{ consul: {{ address: \"{}\", service: articles, token_file: {} }} }}",
        agent.address,
        token.display()
    )));
    until("the first token is refused", || errors(&proxy, "denied") >= 1.0);
    assert_eq!(ask(&proxy), "503");
    std::fs::write(&token, "second\n").unwrap();
    until("the second is taken", || ask(&proxy) == "one");
    let log = proxy.log().all().join("\n");
    assert!(!log.contains("\"second\"") && !log.contains("first\""), "no token in the log");
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let one = Upstream::ok("one");
    let agent = Fake::start();
    agent.set(&instances(&[one.address]));
    let proxy = Proxy::start(&yaml(&format!("\"consul://{}/articles\"", agent.address)));
    until("the first answer", || ask(&proxy) == "one");
    agent.until_blocked();
    agent.flood();
    until("it is too much", || {
        assert_eq!(ask(&proxy), "one");
        upstream(&proxy)["discovery"]["last_error"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("more than 32 MiB"))
    });
}

// From here on: a real agent.

fn register(agent: &Agent, id: &str, at: SocketAddr) {
    let body = serde_json::json!({
        "ID": id, "Name": "articles", "Address": at.ip().to_string(), "Port": at.port(), "Tags": ["prod"],
        "Meta": { "version": "v2" }, "Weights": { "Passing": 5, "Warning": 2 },
        "Check": { "CheckID": format!("check-{id}"), "TTL": "600s", "Status": "passing" },
    });
    agent.put("/v1/agent/service/register", &body.to_string());
}

#[test]
fn a_real_agent_is_followed_through_registrations_and_health() {
    let Some(mut agent) = Agent::start("") else { return };
    let (one, two) = (Upstream::ok("one"), Upstream::ok("two"));
    register(&agent, "a1", one.address);
    let proxy = Proxy::start(&yaml(&format!(
        "\"consul://{}/articles?passing&tag=prod&dc=dc1\"",
        agent.address
    )));
    until("the first answer", || ask(&proxy) == "one");
    let shown = upstream(&proxy);
    assert_eq!(shown["endpoints"][0]["weight"], 5, "{shown}");
    assert_eq!(shown["endpoints"][0]["labels"]["version"], "v2", "{shown}");

    register(&agent, "a2", two.address);
    until("the second instance", || ask(&proxy) == "two");
    let mut slowest = Duration::ZERO;
    for turn in 0..3 {
        agent.put("/v1/agent/check/fail/check-a1", "");
        let changed = Instant::now();
        until("the first fails its check", || endpoints(&proxy) == 1);
        // Four questions may follow at once, then one a second: what is measured is a change by itself.
        if turn == 0 {
            slowest = changed.elapsed();
        }
        assert_eq!([ask(&proxy), ask(&proxy)], ["two", "two"]);
        agent.put("/v1/agent/check/pass/check-a1", "");
        until("it passes again", || endpoints(&proxy) == 2);
    }
    println!("a change reached picks in {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");

    // A restart forgets everything: what it had is kept until it is registered anew.
    agent.stop();
    until("failures", || {
        assert!(["one", "two"].contains(&ask(&proxy).as_str()));
        errors(&proxy, "unreachable") >= 1.0
    });
    agent.restart();
    until("an empty answer, of a smaller index", || {
        assert!(["one", "two"].contains(&ask(&proxy).as_str()));
        errors(&proxy, "empty") >= 1.0
    });
    register(&agent, "a2", two.address);
    until("the new registration", || endpoints(&proxy) == 1);
    assert_eq!([ask(&proxy), ask(&proxy)], ["two", "two"]);
}

#[test]
fn a_real_agent_is_asked_over_mutual_tls_with_files_as_they_are() {
    let (ours, theirs) = (Authority::new("agents"), Authority::new("others"));
    let server = ours.issue("agent", &["127.0.0.1", "localhost"]);
    let client = ours.issue("sidecar", &["sidecar.test"]);
    let https = free_port();
    let hcl = format!(
        "ports {{ https = {https} }} cert_file = \"{}\" key_file = \"{}\" ca_file = \"{}\" verify_incoming_https = true",
        server.cert.display(),
        server.key.display(),
        ours.ca().display()
    );
    let Some(agent) = Agent::start(&hcl) else { return };
    let one = Upstream::ok("one");
    register(&agent, "a1", one.address);
    let trusted = theirs.dir.path().join("trusted.crt");
    std::fs::copy(theirs.ca(), &trusted).unwrap();
    let proxy = Proxy::start(&yaml(&format!(
        "{{ consul: {{ address: \"127.0.0.1:{https}\", service: articles, tls: {{ ca: {}, cert: {}, key: {} }} }} }}",
        trusted.display(),
        client.cert.display(),
        client.key.display()
    )));
    until("the agent is not believed", || errors(&proxy, "unreachable") >= 1.0);
    let shown = upstream(&proxy);
    let told = shown["discovery"]["last_error"]["text"].as_str().unwrap().to_owned();
    assert!(told.contains("TLS"), "{told}");
    std::fs::copy(ours.ca(), &trusted).unwrap();
    until("the right authority", || ask(&proxy) == "one");
}

#[test]
fn a_real_agent_that_refuses_the_token_is_asked_again_with_the_next() {
    let acl = "acl { enabled = true, default_policy = \"deny\", tokens { master = \"3f3c3a6e-0000-4000-8000-000000000001\" } }";
    let Some(agent) = Agent::start(acl) else { return };
    let one = Upstream::ok("one");
    agent.with_token("3f3c3a6e-0000-4000-8000-000000000001");
    register(&agent, "a1", one.address);
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "3f3c3a6e-0000-4000-8000-00000000dead").unwrap();
    let proxy = Proxy::start(&yaml(&format!(
        "{{ consul: {{ address: \"{}\", service: articles, passing: true, token_file: {} }} }}",
        agent.address,
        token.display()
    )));
    until("the token is refused", || errors(&proxy, "denied") >= 1.0);
    let shown = upstream(&proxy);
    let told = shown["discovery"]["last_error"]["text"].as_str().unwrap().to_owned();
    assert!(told.contains("status 403: ACL not found"), "{told}");
    std::fs::write(&token, "3f3c3a6e-0000-4000-8000-000000000001").unwrap();
    until("the right token", || ask(&proxy) == "one");
}
