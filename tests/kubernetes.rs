//! Upstreams from Kubernetes, with an API server that can be told to fail.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![cfg(feature = "kubernetes")]

#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/local.rs"]
mod local;
#[path = "support/namespace.rs"]
mod namespace;
mod support;

use std::path::Path;
use std::time::Duration;

use kubernetes::{Api, Fault, SERVICE_ACCOUNT, replace, slice, slice_with, stranger};
use local::{ask, endpoints, errors, one_port, silent, until, upstream, yaml};
use serde_json::{Value, json};
use support::Proxy;

fn of(api: &Api) -> String {
    let kubeconfig = api.kubeconfig();
    let kubeconfig = kubeconfig.display();
    yaml(&format!(
        "{{ k8s: {{ namespace: blog, service: articles, port: http, kubeconfig: {kubeconfig} }} }}"
    ))
}

fn both(proxy: &Proxy) -> Vec<String> {
    let mut both = vec![ask(proxy), ask(proxy)];
    both.sort();
    both
}

fn updates(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("outrigger_discovery_updates_total", &[])
}

#[test]
fn slices_are_merged_and_their_changes_followed() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    let shown = upstream(&proxy);
    assert_eq!(shown["discovery"]["source"], "k8s://blog/articles:http", "{shown}");
    assert_eq!(shown["discovery"]["state"], "fresh", "{shown}");
    let endpoint = &shown["endpoints"][0];
    assert_eq!(endpoint["zone"], "eu-1a", "{shown}");
    assert_eq!(endpoint["labels"]["node"], "node-1", "{shown}");
    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Darticles";
    assert!(api.lists()[0].contains(selector), "{:?}", api.lists());

    api.until_watched();
    let mut took = Vec::new();
    for _ in 0..5 {
        api.put("articles-b", slice(&at[1..]));
        took.push(until("the second slice", || endpoints(&proxy) == 2));
        assert_eq!(both(&proxy), ["one", "two"]);
        api.delete("articles-b");
        until("it is gone", || endpoints(&proxy) == 1);
    }
    took.sort();
    println!("changes reached picks in {took:?}");
    // The better half of them: a machine that is busy for a moment does not make a slow client.
    assert!(took[2] < Duration::from_millis(500), "{took:?}");

    // The other slice takes the endpoint over: for a moment both have it.
    api.put("articles-b", slice(&at));
    until("both", || endpoints(&proxy) == 2);
    api.delete("articles-a");
    api.put("articles-c", slice(&[]));
    until("the watch goes on", || api.watches().len() == 1 && both(&proxy) == ["one", "two"]);
    assert_eq!(api.lists().len(), 1, "one list is enough: {:?}", api.lists());
}

#[test]
fn pods_that_leave_are_used_only_while_there_is_nobody_else() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    let state = |ready: bool, serving: bool, terminating: bool| json!({ "ready": ready, "serving": serving, "terminating": terminating });
    let with = |first: &Value, second: &Value| {
        let (first, second) = (first.clone(), second.clone());
        slice_with(&at, move |number, endpoint| {
            endpoint["conditions"] = [first.clone(), second.clone()][number].clone();
        })
    };
    let (ready, leaving, starting) =
        (state(true, true, false), state(false, true, true), state(false, false, false));
    api.put("articles-a", with(&ready, &leaving));
    let proxy = Proxy::start(&of(&api));
    until("the ready one", || ask(&proxy) == "one");
    assert_eq!(both(&proxy), ["one", "one"]);
    api.put("articles-a", with(&starting, &leaving));
    until("the one that leaves", || ask(&proxy) == "two");
    api.put("articles-a", with(&ready, &state(false, false, true)));
    until("the ready one again", || ask(&proxy) == "one");
}

#[test]
fn a_list_in_pages_is_published_as_a_whole() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    api.put("articles-b", slice(&at[1..]));
    api.put("articles-c", slice(&[]));
    api.pages_of(1);
    let proxy = Proxy::start(&of(&api));
    until("both", || both(&proxy) == ["one", "two"]);
    assert!((updates(&proxy) - 1.0).abs() < 0.5, "{}", updates(&proxy));
    assert_eq!(api.lists().len(), 3, "{:?}", api.lists());
}

#[test]
fn events_in_small_pieces_are_events() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    api.pieces_of(3);
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    api.put("articles-a", slice(&at));
    until("both", || endpoints(&proxy) == 2);
    assert!(errors(&proxy, "") < 0.5);
}

#[test]
fn a_watch_that_ends_goes_on_where_the_last_bookmark_was() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    let version = api.bookmark();
    api.put("articles-a", slice(&at));
    until("both", || endpoints(&proxy) == 2);
    let version = version + 1;
    api.end_watches(true);
    until("another watch", || api.watches().len() == 2);
    let last = api.watches().pop().unwrap();
    assert!(last.contains(&format!("resourceVersion={version}")), "{last}");
    assert!(last.contains("allowWatchBookmarks=true"), "{last}");
    let version = api.bookmark();
    // What was told is read before the end.
    api.end_watches(true);
    until("a third watch", || api.watches().len() == 3);
    let last = api.watches().pop().unwrap();
    assert!(last.contains(&format!("resourceVersion={version}")), "{last}");
    api.put("articles-a", slice(&at[1..]));
    until("the change", || endpoints(&proxy) == 1 && ask(&proxy) == "two");
    assert_eq!(api.lists().len(), 1, "{:?}", api.lists());
    assert!(errors(&proxy, "") < 0.5);
}

#[test]
fn a_version_that_is_gone_is_no_failure_and_leads_to_another_list() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    api.compact();
    api.put("articles-a", slice(&at));
    api.end_watches(true);
    until("what was missed", || {
        assert!(["one", "two"].contains(&ask(&proxy).as_str()));
        endpoints(&proxy) == 2
    });
    assert!(api.lists().len() >= 2);
    assert!(errors(&proxy, "") < 0.5, "410 is not an error");
    assert_eq!(upstream(&proxy)["discovery"]["state"], "fresh");
}

#[test]
fn whatever_the_api_server_does_no_request_fails() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    let faults = [
        (Fault::Status(500), "other", "status 500"),
        (Fault::Status(403), "denied", "status 403"),
        (Fault::Garbage, "malformed", "API server"),
        (Fault::Close, "unreachable", "API server"),
    ];
    for (fault, reason, text) in faults {
        api.until_watched();
        let before = errors(&proxy, reason);
        api.fail(Some(fault));
        api.end_watches(true);
        until(text, || {
            assert_eq!(ask(&proxy), "one");
            errors(&proxy, reason) > before
        });
        let shown = upstream(&proxy);
        assert_eq!(shown["discovery"]["state"], "stale", "{shown}");
        let told = shown["discovery"]["last_error"]["text"].as_str().unwrap();
        assert!(told.contains(text), "{told}");
        api.fail(None);
        until("it is well again", || {
            assert_eq!(ask(&proxy), "one");
            upstream(&proxy)["discovery"]["state"] == "fresh"
        });
    }
    assert!((updates(&proxy) - 1.0).abs() < 0.5, "the set has never changed");
    let log = proxy.log().all().join("\n");
    assert!(!log.contains("watch list error"), "our own lines only:\n{log}");
}

#[test]
fn an_api_server_that_is_down_or_breaks_off_is_found_again() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    // A half-closed watch: it ends in the middle of a chunk.
    api.end_watches(false);
    api.put("articles-a", slice(&at[1..]));
    until("the change", || {
        assert_ne!(ask(&proxy), "503");
        ask(&proxy) == "two"
    });
    api.until_watched();
    api.stop();
    until("failures", || {
        assert_eq!(ask(&proxy), "two");
        errors(&proxy, "unreachable") >= 2.0
    });
    api.put("articles-a", slice(&at[..1]));
    api.restart();
    until("the restarted server", || ask(&proxy) == "one");
}

#[test]
fn an_api_server_that_hangs_fails_no_request() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    api.stop();
    silent(api.address);
    until("no answer in time", || {
        assert_eq!(ask(&proxy), "one");
        errors(&proxy, "timeout") >= 1.0
    });
    assert_eq!(upstream(&proxy)["discovery"]["state"], "stale");
}

#[test]
fn a_token_that_is_replaced_is_read_again() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    api.want_token("second");
    api.end_watches(true);
    until("the old token is refused", || {
        assert_eq!(ask(&proxy), "one");
        errors(&proxy, "denied") >= 1.0
    });
    replace(&api.token_file(), "second");
    api.put("articles-a", slice(&at[1..]));
    until("the new one is taken", || ask(&proxy) == "two");
}

#[test]
fn an_api_server_of_another_authority_is_not_believed() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    api.trust(&stranger());
    let proxy = Proxy::start(&of(&api));
    until("it is refused", || errors(&proxy, "unreachable") >= 1.0);
    let shown = upstream(&proxy);
    let told = shown["discovery"]["last_error"]["text"].as_str().unwrap();
    assert!(told.contains("certificate"), "{told}");
    assert_eq!(ask(&proxy), "503");
    assert!(api.lists().is_empty(), "the token was shown to nobody");
    api.trust(&api.authority.pem);
    until("the right one", || ask(&proxy) == "one");
}

#[test]
fn a_service_without_endpoints_is_emptied_by_the_third_list() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    let proxy = Proxy::start(&of(&api));
    until("the first answer", || ask(&proxy) == "one");
    api.until_watched();
    api.put("articles-a", slice(&[]));
    until("the first of three", || errors(&proxy, "empty") >= 1.0);
    assert_eq!(ask(&proxy), "one", "once is not enough");
    until("the set is empty", || ask(&proxy) == "503");
    assert!(errors(&proxy, "empty") >= 3.0);
    assert!(api.lists().len() >= 3, "{:?}", api.lists());
    api.put("articles-a", slice(&at));
    until("it is back", || both(&proxy) == ["one", "two"]);
}

#[test]
fn a_port_that_the_service_does_not_have_is_told_of() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    let mut other = slice(&at);
    other["ports"][0]["name"] = json!("grpc");
    api.put("articles-a", other);
    let proxy = Proxy::start(&of(&api));
    until("it is told", || errors(&proxy, "malformed") >= 1.0);
    let shown = upstream(&proxy);
    let told = shown["discovery"]["last_error"]["text"].as_str().unwrap();
    assert!(told.contains("2 endpoints have no port named `http`"), "{told}");
    api.put("articles-a", slice(&at));
    until("it has one", || both(&proxy) == ["one", "two"]);
}

#[test]
fn outside_of_a_pod_it_is_said_what_is_missing() {
    let yaml = "admin: 127.0.0.1:0\nlisteners:\n  outbound: { bind: \"127.0.0.1:0\", routes: [{ to: articles }] }\n\
                upstreams:\n  articles: { discover: \"k8s://blog/articles:http\" }\n";
    let proxy = Proxy::start(yaml);
    until("it is told", || errors(&proxy, "other") >= 1.0);
    let shown = upstream(&proxy);
    let told = shown["discovery"]["last_error"]["text"].as_str().unwrap();
    assert!(told.contains("the API server's credentials"), "{told}");
}

/// Where `/run` is empty, and nobody else's.
#[test]
fn in_a_pod_its_service_account_is_enough() {
    let name = "in_a_pod_its_service_account_is_enough";
    if !namespace::is_inside(name, &["--mount"], "mount -t tmpfs tmpfs /run") {
        return;
    }
    let at = one_port(["one", "two"]);
    let api = Api::start();
    api.put("articles-a", slice(&at[..1]));
    api.write_service_account();
    let yaml = "admin: 127.0.0.1:0\nlisteners:\n  outbound: { bind: \"127.0.0.1:0\", routes: [{ to: articles }] }\n\
                upstreams:\n  articles: { discover: \"k8s://blog/articles:http\" }\n";
    let proxy = Proxy::spawn(yaml, |command| {
        command
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", api.address.port().to_string())
    });
    proxy.log().wait("start", |line| line.contains("outrigger is running").then_some(()));
    until("the first answer", || ask(&proxy) == "one");
    // The kubelet replaces tokens, too.
    api.until_watched();
    api.want_token("second");
    api.end_watches(true);
    until("the old token is refused", || errors(&proxy, "denied") >= 1.0);
    replace(&Path::new(SERVICE_ACCOUNT).join("token"), "second");
    api.put("articles-a", slice(&at[1..]));
    until("the new one is taken", || ask(&proxy) == "two");
}

#[test]
fn our_zone_is_looked_for_among_hints_anew_when_it_changes() {
    let at = one_port(["one", "two"]);
    let api = Api::start();
    let hinted = slice_with(&at, |_, endpoint| {
        endpoint["hints"] = json!({ "forZones": [{ "name": "eu-1a" }, { "name": "eu-1b" }] });
        endpoint["zone"] = json!("eu-1c");
    });
    api.put("articles-a", hinted);
    let yaml = of(&api);
    let zones = |proxy: &Proxy| {
        let shown = upstream(proxy);
        let zones = shown["endpoints"].as_array().unwrap().iter();
        zones.map(|endpoint| endpoint["zone"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let proxy = Proxy::start(&format!("zone: eu-1a\n{yaml}"));
    until("our zone", || zones(&proxy) == ["eu-1a", "eu-1a"]);
    assert_eq!(proxy.reload(&format!("zone: eu-1b\n{yaml}")).status, 200);
    until("our other zone", || {
        assert_ne!(ask(&proxy), "503");
        zones(&proxy) == ["eu-1b", "eu-1b"]
    });
}
