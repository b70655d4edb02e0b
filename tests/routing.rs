//! Routes from end to end: which one takes a request, and what it makes of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use support::{Connection, Proxy, Upstream, get, http};
use traffic::field;

/// A proxy whose routes are given as the lines of the list, with upstreams `a` and `b` that say their names.
fn proxy(routes: &[&str], upstream: &Upstream) -> Proxy {
    let list: String = routes.iter().map(|route| format!("      - {{ {route} }}\n")).collect();
    let at = upstream.address;
    let upstreams = format!(
        "  a: {{ endpoints: [\"{at}\"], protocol: http1 }}\n  b: {{ endpoints: [\"{at}\"], protocol: http1 }}\n"
    );
    Proxy::start(&format!(
        "admin: 127.0.0.1:0\nruntime: {{ workers: 1 }}\nlisteners:\n  outbound:\n    bind: 127.0.0.1:0\n    routes:\n{list}\
         upstreams:\n{upstreams}"
    ))
}

#[test]
fn the_first_route_that_matches_in_all_takes_the_request() {
    let upstream = Upstream::ok("ok");
    let named = |name: &str, wanted: &str| {
        format!("name: {name}, match: {{ {wanted} }}, respond: {{ status: 200, body: {name} }}")
    };
    let routes = [
        named(
            "all",
            "host: h.test, path: \"/all/*\", method: [PUT], headers: { x-a: \"1\" }, query: { q: \"2\" }",
        ),
        named("exact-host", "host: one.test"),
        named("suffix-host", "host: \"*.suffix.test\""),
        named("exact-path", "path: /exact"),
        named("prefix", "path: \"/prefix/*\""),
        named("template", "path: \"/users/{id}/posts\""),
        named("regex", "path: { regex: \"^/v[0-9]+/x$\" }"),
        named("method", "method: [DELETE]"),
        named("header-regex", "headers: { x-tenant: { regex: \"^t-[0-9]+$\" } }"),
        named("header-prefix", "headers: { x-tenant: { prefix: \"p-\" } }"),
        named("header-present", "headers: { x-debug: { present: true } }"),
        named("query-present", "query: { preview: { present: true } }"),
        named("grpc-method", "grpc: blog.Articles/List"),
        named("grpc-service", "grpc: blog.Articles"),
        named("header-absent", "path: /absent, headers: { x-no: { present: false } }"),
    ];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let proxy = proxy(
        &[&routes[..], &["match: { path: /b }, to: b", "match: { path: /a }, to: a"]].concat(),
        &upstream,
    );
    let to = proxy.address("outbound");
    let grpc = ("content-type", "application/grpc+proto");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        ("PUT", "/all/x?q=2", &[("host", "h.test:8080"), ("x-a", "1")], "all"),
        ("PUT", "/all/x?q=3", &[("host", "h.test"), ("x-a", "1")], ""),
        ("PUT", "/all/x?q=2", &[("host", "h.test"), ("x-a", "2")], ""),
        ("POST", "/all/x?q=2", &[("host", "h.test"), ("x-a", "1")], ""),
        ("GET", "/", &[("host", "ONE.test.:80")], "exact-host"),
        ("GET", "/exact", &[("host", "one.test")], "exact-host"),
        ("GET", "/", &[("host", "a.b.suffix.test")], "suffix-host"),
        ("GET", "/", &[("host", "suffix.test")], ""),
        ("GET", "/exact", &[], "exact-path"),
        ("GET", "/exact/", &[], ""),
        ("GET", "/prefix", &[], "prefix"),
        ("GET", "/prefix/a/b", &[], "prefix"),
        ("GET", "/prefixes", &[], ""),
        ("GET", "/a/../prefix/./%61", &[], "prefix"),
        ("GET", "/users/7/posts", &[], "template"),
        ("GET", "/users//posts", &[], ""),
        ("GET", "/v12/x", &[], "regex"),
        ("DELETE", "/any", &[], "method"),
        ("GET", "/", &[("x-tenant", "t-1")], "header-regex"),
        ("GET", "/", &[("x-tenant", "p-1")], "header-prefix"),
        ("GET", "/", &[("X-Debug", "")], "header-present"),
        ("GET", "/?a=1&preview", &[], "query-present"),
        ("POST", "/blog.Articles/List", &[grpc], "grpc-method"),
        ("POST", "/blog.Articles/Get", &[grpc], "grpc-service"),
        ("POST", "/blog.Articles/Get", &[], ""),
        ("GET", "/absent", &[], "header-absent"),
        ("GET", "/absent", &[("x-no", "1")], ""),
    ];
    for (number, (method, path, headers, route)) in cases.iter().enumerate() {
        let id = format!("case-{number}");
        let headers = [headers, &[("x-request-id", &*id)][..]].concat();
        let reply = http(to, method, path, &headers, b"");
        let answered = if reply.status == 200 { reply.text() } else { String::new() };
        assert_eq!(&answered, route, "{method} {path} {headers:?}: {reply:?}");
    }
    for (path, wanted) in [("/a", "a"), ("/b", "b")] {
        assert_eq!(get(to, path).status, 200);
        assert_eq!(proxy.access_line(|line| line["path"] == path)["upstream"], wanted);
    }
    let reply = get(to, "/nothing");
    assert_eq!((reply.status, reply.header("x-outrigger-reason")), (404, Some("no_route")));
    let line = proxy.access_line(|line| line["path"] == "/nothing");
    assert_eq!((&line["route"], &line["flag"]), (&serde_json::Value::Null, &"NR".into()));
}

#[test]
fn weights_share_requests_out() {
    let upstream = Upstream::ok("ok");
    let proxy = proxy(&["to: { a: 90, b: 10 }"], &upstream);
    let mut caller = Connection::open(proxy.address("outbound"));
    for _ in 0..2000 {
        caller.request("GET", "/", &[], b"");
        assert_eq!(caller.reply().status, 200);
    }
    let to_b = proxy.metrics().sum("outrigger_upstream_attempts_total", &[("upstream", "b")]);
    // 200 of 2 000 with a standard deviation of 13: six of them either way.
    assert!((120.0..=280.0).contains(&to_b), "{to_b}");
}

#[test]
fn redirects_keep_the_rest_of_the_path_and_the_query() {
    let upstream = Upstream::ok("ok");
    let routes = [
        "match: { path: \"/old/*\" }, redirect: { prefix: /new/, status: 308 }",
        "match: { path: /host }, redirect: { host: other.test, status: 302 }",
        "match: { path: /secure }, redirect: { scheme: https }",
        "match: { path: /fixed }, redirect: { path: /there }",
    ];
    let proxy = proxy(&routes, &upstream);
    for (path, status, location) in [
        ("/old/a/b?x=1&y=2", 308, "/new/a/b?x=1&y=2"),
        ("/old", 308, "/new"),
        ("/old/?q", 308, "/new/?q"),
        ("/host?x", 302, "http://other.test/host?x"),
        ("/secure", 308, "https://test/secure"),
        ("/fixed?x", 308, "/there?x"),
    ] {
        let reply = get(proxy.address("outbound"), path);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("location"), Some(location), "{path}");
        assert_eq!(reply.header("x-outrigger-reason"), Some("direct_response"));
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn respond_answers_with_what_is_written() {
    let upstream = Upstream::ok("ok");
    let routes = [
        "match: { path: /text }, respond: { status: 418, body: \"tea\\n\" }, response_headers: { set: { x-pot: short } }",
        "respond: { status: 204 }",
    ];
    let proxy = proxy(&routes, &upstream);
    let reply = get(proxy.address("outbound"), "/text");
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("x-pot")),
        (418, "tea\n", Some("short"))
    );
    assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
    let mut caller = Connection::open(proxy.address("outbound"));
    caller.request("GET", "/", &[], b"");
    let reply = caller.reply();
    assert_eq!((reply.status, reply.header("content-length")), (204, None));
    caller.request("HEAD", "/text", &[], b"");
    let reply = caller.reply();
    assert_eq!((reply.status, reply.header("content-length")), (418, Some("4")));
    caller.request("POST", "/text", &[], b"unread body");
    assert_eq!(caller.reply().text(), "tea\n", "the connection goes on");
}

#[test]
fn paths_hosts_and_headers_are_rewritten() {
    let upstream = Upstream::scripted(|_| {
        traffic::answer(200, "Server: secret\r\nX-Kept: 1\r\nX-Set: theirs\r\nVary: a\r\n", "ok")
    });
    let edits = "request_headers: { set: { x-from: orders, x-both: ours }, append: { x-list: b }, remove: [cookie] }, \
                 response_headers: { set: { x-set: ours }, append: { vary: b }, remove: [server] }";
    let routes = [
        &format!(
            "match: {{ path: \"/api/v1/*\" }}, to: a, rewrite: {{ prefix: /, host: inner.test }}, {edits}"
        )[..],
        "match: { path: \"/deep/*\" }, to: a, rewrite: { prefix: /very/deep/ }",
        "to: a",
    ];
    let proxy = proxy(&routes, &upstream);
    let to = proxy.address("outbound");
    let headers = [("x-both", "theirs"), ("x-list", "a"), ("cookie", "sid=1"), ("x-kept", "1")];
    let reply = http(to, "GET", "/api/v1/items/7?full=1", &headers, b"");
    assert_eq!((reply.header("server"), reply.header("x-set")), (None, Some("ours")));
    assert_eq!(reply.header("x-kept"), Some("1"));
    let vary: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "vary").collect();
    assert_eq!(vary.len(), 2);
    get(to, "/api/v1");
    get(to, "/deep/x?y");
    get(to, "/plain/x");
    let seen = upstream.requests();
    let line = |number: usize| seen[number].lines().next().unwrap();
    assert_eq!(line(0), "GET /items/7?full=1 HTTP/1.1");
    assert_eq!(line(1), "GET / HTTP/1.1");
    assert_eq!(line(2), "GET /very/deep/x?y HTTP/1.1");
    assert_eq!(line(3), "GET /plain/x HTTP/1.1");
    let sent = &seen[0];
    assert_eq!(field(sent, "host"), Some("inner.test"));
    assert_eq!(field(&seen[3], "host"), Some("test"));
    assert_eq!((field(sent, "x-from"), field(sent, "x-both")), (Some("orders"), Some("ours")));
    assert_eq!((field(sent, "cookie"), field(sent, "x-kept")), (None, Some("1")));
    let lists: Vec<&str> = sent.lines().filter_map(|line| line.strip_prefix("x-list: ")).collect();
    assert_eq!(lists, ["a", "b"]);
    // The access log says what came, not what was made of it.
    let line = proxy.access_line(|line| line["path"] == "/api/v1/items/7?full=1");
    assert_eq!(line["host"], "test");
}
