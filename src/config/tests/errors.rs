//! Bad files and what their writers read. The snapshots are the product: read each as its user would.

use crate::config::{Severity, load_file, render, render_json};

use super::load;

/// The findings of `text` as their reader sees them.
fn findings(text: &str) -> String {
    let loaded = load(text);
    assert_eq!(
        loaded.config.is_some(),
        loaded.diagnostics.iter().all(|found| found.severity == Severity::Warning)
    );
    render(&loaded.diagnostics, &loaded.source, false)
}

/// A file with one route, whose keys are `keys`, and the upstreams `articles` and `articles-canary`.
fn route(keys: &str) -> String {
    let first = keys.trim().replace('\n', "\n        ");
    format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:8080
    routes:
      - {first}
upstreams:
  articles: {{ endpoints: [127.0.0.1:5001] }}
  articles-canary: {{ endpoints: [127.0.0.1:5002] }}
"
    )
}

/// A file with one upstream, whose keys are `keys`.
fn upstream(keys: &str) -> String {
    let keys = keys.trim().replace('\n', "\n    ");
    format!(
        "listeners: {{ outbound: {{ bind: 127.0.0.1:8080, routes: [{{ to: articles }}] }} }}
upstreams:
  articles:
    {keys}
"
    )
}

/// A file with one listener, whose keys are `keys`.
fn listener(keys: &str) -> String {
    let keys = keys.trim().replace('\n', "\n    ");
    format!(
        "listeners:
  outbound:
    {keys}
upstreams: {{ articles: {{ endpoints: [127.0.0.1:5001] }} }}
"
    )
}

/// The keys of the top, before a listener that is right.
fn top(keys: &str) -> String {
    format!(
        "{}\nlisteners: {{ o: {{ bind: 127.0.0.1:80, routes: [{{ respond: 404 }}] }} }}\n",
        keys.trim()
    )
}

/// One snapshot for each bad file.
macro_rules! told {
    ($($name:ident: $text:expr;)+) => {
        $(#[test]
        fn $name() {
            let mut settings = insta::Settings::clone_current();
            settings.set_omit_expression(true);
            settings.set_prepend_module_to_snapshot(false);
            settings.bind(|| insta::assert_snapshot!(stringify!($name), findings(&$text)));
        })+
    };
}

// Syntax.
told! {
    braces_in_a_flow_map: route("{ match: { path: /users/{id} }, to: articles }");
    star_in_a_flow_list: route("{ match: { host: [*.articles] }, to: articles }");
    star_in_a_block: route("match:\n  host: *.articles\nto: articles");
    brackets_of_an_address: listener("bind: [::1]:8080\nroutes: [{ to: articles }]");
    variable_in_a_flow_map: top("admin: { bind: ${ADMIN} }");
    comma_in_a_flow_map: route("{ match: { path: /a,b }, to: articles }");
    tab: "listeners:\n\toutbound:\n";
    indentation: "listeners:\n  outbound:\n    bind: 127.0.0.1:80\n   routes: []\n";
    second_colon: "admin: 127.0.0.1:80\nlisteners:\n  outbound: bind: 127.0.0.1:80\n";
    unclosed_brace: "listeners: { outbound: { bind: 127.0.0.1:80 }\n";
    unclosed_quote: "service: \"orders\nlisteners: {}\n";
    backslash_in_double_quotes: route(r#"{ match: { path: { regex: "\d+" } }, to: articles }"#);
    second_document: "service: a\n---\nservice: b\n";
    tag: top("service: !name orders");
    empty_file: "# nothing yet\n";
    list_at_the_top: "- listeners\n";
    two_duplicate_keys: top("service: a\nzone: z\nservice: b\nzone: y");
}

// Breakers, adaptive limits, throttles.
told! {
    breaker_out_of_range: upstream("endpoints: [127.0.0.1:1]\nbreaker: { errors: 0%, window: 500ms, min_requests: 0, open_for: 2h, probes: 101 }");
    breaker_turned_off_with_a_wrong_word: upstream("endpoints: [127.0.0.1:1]\nbreaker: off\nthrottle: none\nadaptive: gradiant");
    slow_calls_without_a_time: upstream("endpoints: [127.0.0.1:1]\nbreaker: { slow: { share: 50% } }");
    words_of_other_breakers: upstream("endpoints: [127.0.0.1:1]\nbreaker: { failure_rate_threshold: 50%, wait_duration_in_open_state: 5s }");
    throttle_out_of_range: upstream("endpoints: [127.0.0.1:1]\nthrottle: { k: 1 }");
    adaptive_beside_in_flight: upstream("endpoints: [127.0.0.1:1]\nlimits: { in_flight: 10 }\nadaptive: gradient");
    breaker_that_sees_nothing_slow: upstream("endpoints: [127.0.0.1:1]\nbreaker: { slow: { over: 20s } }");
    breaker_that_a_hanging_upstream_never_opens: upstream("endpoints: [127.0.0.1:1]\nlimits: { in_flight: 10 }\nbreaker: { min_requests: 20 }");
}

// TLS.
told! {
    tls_without_a_certificate: listener("bind: 127.0.0.1:1\ntls: { client_cert: required }\nroutes: [{ to: articles }]");
    tls_that_contradicts_itself: listener("bind: 127.0.0.1:1\ntls: { cert: /c, allow: [\"spiffe://blog/ns/*/sa\", \"*\", web internal] }\nroutes: [{ to: articles }]");
    tls_turned_off_with_a_wrong_word: listener("bind: 127.0.0.1:1\ntls: off\nroutes: [{ to: articles }]");
    tls_in_words_of_other_proxies: listener("bind: 127.0.0.1:1\ntls: { certificate: /c, private_key: /k, mode: strict }\nroutes: [{ to: articles }]");
    tls_of_an_upstream_with_mistakes: upstream("endpoints: [127.0.0.1:1]\ntls: { sni: \"https://articles\", verify: [], ca: ca.crt }");
    tls_to_a_unix_socket_without_a_name: upstream("endpoints: [unix:/run/app.sock]\ntls: { verify: \"spiffe://blog/ns/web/*\" }");
    identity_without_a_key: top("identity: { cert: /certs/tls.crt, ca: certs/ca.crt }");
    plain_text_beside_an_identity: format!("identity: {{ cert: /c, key: /k }}\n{}", upstream("endpoints: [\"192.0.2.1:80\"]"));
    plain_text_beside_required_certificates: format!("identity: {{ cert: /c, key: /k, ca: /a }}\n{}", listener("bind: 127.0.0.1:1\ntls: { client_cert: required, plain_text: accept }\nroutes: [{ to: articles }]"));
}

// Consul.
told! {
    consul_without_a_service: upstream("discover: consul://127.0.0.1:8500");
    consul_without_a_port: upstream("discover: consul://consul.internal/articles");
    consul_parameter_of_no_meaning: upstream("discover: \"consul://127.0.0.1:8500/articles?tags=prod\"");
    consul_passing_with_a_value: upstream("discover: \"consul://127.0.0.1:8500/articles?passing=true\"");
    consul_tag_that_needs_the_long_form: upstream("discover: \"consul://127.0.0.1:8500/articles?tag=a=b\"");
    consul_long_form_with_mistakes: upstream("discover: { consul: { address: consul.internal, service: \"\", token_file: token, dc: dc1 } }");
}

// Balancing.
told! {
    hash_items_that_are_wrong: route("to: articles\nhash: [\"header:x user\", \"cookie:a b\", source, \"query:\", { cookie: { name: sid, ttl: 1500ms } }, { cookie: { ttl: 1h } }]");
    hash_without_items: route("to: articles\nhash: []");
    balance_keys_that_are_wrong: upstream("endpoints: [127.0.0.1:1]\nbalance: { policy: maglev, max_load: 90%, zone_aware: 1 }\nsubset: {}");
    hash_that_nobody_chooses_by: route("to: articles\nhash: source_ip");
    balancing_that_does_not_do_what_it_says: upstream("endpoints: [{ address: 127.0.0.1:1, labels: { version: v1 } }]\nbalance: { policy: ring_hash, zone_aware: true }\nsubset: { version: v2 }");
    subset_of_what_has_no_labels: upstream("discover: dns://articles:80\nsubset: { version: v2 }");
    hash_behind_a_cookie: format!("{}upstreams: {{ articles: {{ endpoints: [127.0.0.1:1], balance: maglev }} }}\n", route("to: articles\nhash: [cookie:sid, source_ip]").split("upstreams:").next().unwrap());
}

// Words and values.
told! {
    unknown_key: route("to: articles\ntimout: 2s");
    unknown_key_without_a_near_one: route("to: articles\nfoo: 2s");
    words_of_other_proxies: "clusters: {}\nlisteners:\n  o:\n    listen: 127.0.0.1:80\n    routes:\n      - match: { prefix: /a }\n        cluster: a\n        retries: { on: 5xx, num_retries: 3 }\nupstreams: { a: { servers: [127.0.0.1:1], lb_policy: round_robin } }\n";
    key_in_the_wrong_place: upstream("endpoints: [127.0.0.1:1]\nper_try: 1s");
    key_of_a_later_version: top("tracing: {}");
    unquoted_boolean: route("match: { headers: { x-canary: yes } }\nto: articles");
    unquoted_number: top("service: 1.10");
    boolean_key: "listeners: { on: { bind: 127.0.0.1:80, routes: [{ respond: 404 }] } }\n";
    missing_unit: route("to: articles\ntimeout: 2");
    wrong_unit: route("to: articles\ntimeout: 2sec");
    duration_of_zero: route("to: articles\ntimeout: 0s\nidle: 0ms");
    duration_out_of_range: route("to: articles\ntimeout: 9000h");
    size_without_unit: listener("bind: 127.0.0.1:80\nlimits: { header_bytes: 65536 }\nroutes: [{ to: articles }]");
    size_out_of_range: listener("bind: 127.0.0.1:80\nlimits: { header_bytes: 1KiB }\nroutes: [{ to: articles }]");
    share_out_of_range: upstream("endpoints: [127.0.0.1:1]\nlimits: { retry_budget: 120% }");
    rate_without_unit: upstream("endpoints: [127.0.0.1:1]\nlimits: { retry_budget: { floor: 3 } }");
    zero_for_unlimited: upstream("endpoints: [127.0.0.1:1]\nlimits: { connections: 0 }");
    unlimited_with_a_slip: upstream("endpoints: [127.0.0.1:1]\nlimits: { pending: unlimted, connections: off }");
    number_out_of_range: top("runtime: { workers: 1000 }");
    word_with_a_slip: listener("bind: 127.0.0.1:80\nprotocol: htpp\nroutes: [{ to: articles }]");
    list_for_a_value: route("to: articles\ntimeout: [1s]");
    nothing_for_a_value: route("to: articles\ntimeout:");
    bind_without_port: listener("bind: 127.0.0.1\nroutes: [{ to: articles }]");
    bind_of_a_port_alone: listener("bind: 8080\nroutes: [{ to: articles }]");
    bind_without_an_address: listener("bind: \":8080\"\nroutes: [{ to: articles }]");
    bind_of_a_name: listener("bind: localhost:8080\nroutes: [{ to: articles }]");
    endpoint_by_name: upstream("endpoints: [articles.internal:5001]");
    discovery_by_a_relative_path: upstream("discover: file://articles.yaml");
    discovery_by_records_with_a_port: upstream("discover: dns+srv://_http._tcp.articles:80");
    discovery_by_the_original_with_a_name: upstream("discover: original://articles");
    health_of_original_destinations: upstream("discover: original://\nhealth: /healthz");
    discovery_by_two: upstream("discover: { dns: { host: articles, port: 80 }, file: { path: /articles.yaml } }");
    discovery_by_nobody: upstream("discover: { dsn: { host: articles, port: 80 } }");
    discovery_without_port: upstream("discover: dns://articles.internal");
    discovery_of_an_address: upstream("discover: dns://10.0.0.1:80");
    unset_variable: listener("bind: \"${HOST}:80\"\nroutes: [{ to: articles }]");
    expanded_value: listener("bind: \"127.0.0.1:${PORT}0\"\nroutes: [{ to: articles }]");
    buckets_that_descend: top("metrics: { buckets: [1s, 500ms] }");
    backoff_that_descends: route("to: articles\nretry: { backoff: 1s..25ms }");
    drain_delay_beyond_its_deadline: top("runtime: { drain: { delay: 40s } }");
    bad_name: "listeners: { \"my listener\": { bind: 127.0.0.1:80, routes: [{ respond: 404 }] } }\n";
}

// Routes and upstreams.
told! {
    unknown_upstream: route("to: { articels: 95, articles-canary: 5 }");
    weights_of_zero: route("to: { articles: 0, articles-canary: 0 }");
    two_actions: route("to: articles\nrespond: { status: 404 }");
    no_action: route("match: { path: /x }");
    path_and_grpc: route("match: { path: /x, grpc: blog.Articles }\nto: articles");
    endpoints_and_discover: upstream("endpoints: [127.0.0.1:1]\ndiscover: dns://articles:80");
    neither_endpoints_nor_discover: upstream("connect_timeout: 1s");
    same_endpoint_twice: upstream("endpoints: [127.0.0.1:1, { address: 127.0.0.1:1, weight: 3 }]");
    regex_that_does_not_compile: route("match: { path: { regex: \"^/v(\" } }\nto: articles");
    regex_that_is_too_large: route("match: { path: { regex: '(\\w{500}){50}' } }\nto: articles");
    star_inside_a_path: route("match: { path: /a/*/b }\nto: articles");
    path_with_a_query: route("match: { path: \"/a?x=1\" }\nto: articles");
    host_with_a_port: route("match: { host: \"articles:80\" }\nto: articles");
    method_in_lower_case: route("match: { method: get }\nto: articles");
    prefix_without_a_rest: route("match: { path: /old }\nto: articles\nrewrite: { prefix: /new }");
    redirect_to_nowhere: route("redirect: { status: 301 }");
    body_where_none_may_be: route("respond: { status: 204, body: hello }");
    hop_by_hop_header: route("to: articles\nrequest_headers: { set: { connection: close, Host: a }, remove: [te] }");
    header_that_is_none: route("to: articles\nrequest_headers: { set: { \"x y\": \"a\\nb\" } }");
    per_try_beyond_timeout: route("to: articles\ntimeout: 1s\nretry: { when: per-try-timeout, per_try: 2s }");
    retry_word_with_a_slip: route("to: articles\nretry: { when: [gateway_error, 200, { grpc: unavailabel }] }");
    retry_off: route("to: articles\nretry: off");
    attempts_of_zero: route("to: articles\nretry: { attempts: 0 }");
    authorize_rules_that_cannot_be: listener("bind: 127.0.0.1:80\nauthorize: { enforce: maybe, deny: [{}], allow: [{ from: [\"*\", \"spiffe://Blog/a\", \"spiffe://blog/*/a\", 10.0.0.1], source: [10.0.0.1/8, host, \"::ffff:10.0.0.0/104\"], method: get, path: admin, headers: { host: a }, role: x }, { from: [] }] }\nroutes: [{ to: articles }]");
    authorize_of_a_tcp_listener: listener("bind: 127.0.0.1:80\nprotocol: tcp\nauthorize: [{ source: 10.0.0.0/8, path: /x, method: GET }]\nroutes: [{ to: articles }]");
    authorize_rules_that_decide_nothing: listener("bind: 127.0.0.1:80\nauthorize: { deny: [{ path: \"/admin/*\" }, { path: /admin/x }], allow: [{ path: /admin/y, method: GET }, { source: 10.0.0.0/8 }, { source: 10.1.0.0/16, method: GET }] }\nroutes: [{ to: articles }]");
    authorize_by_identities_that_nobody_has: listener("bind: 127.0.0.1:80\nauthorize: [{ from: \"spiffe://blog/ns/web/*\" }]\nroutes: [{ to: articles }]");
    authorize_that_denies_everything: listener("bind: 127.0.0.1:80\nauthorize: { deny: [{ path: /x }] }\nroutes: [{ to: articles }]");
    jwt_that_cannot_be: listener("bind: 127.0.0.1:80\njwt: [{ issuer: a, jwks: keys.json }, { jwks: \"https://u:p@h/\", leeway: 1h, claims: { sub: authorization, aud: te } }, { issuer: b, jwks: \"file://keys\", secret: x }]\nroutes: [{ to: articles, jwt: maybe }]");
    jwt_of_a_tcp_listener: listener("bind: 127.0.0.1:80\nprotocol: tcp\njwt: { issuer: a, jwks: \"file:///k\" }\nroutes: [{ to: articles, jwt: never }]");
    jwt_of_a_route_alone: route("to: articles\njwt: required");
    jwt_that_is_taken_too_easily: listener("bind: 127.0.0.1:80\njwt: { issuer: a, jwks: \"http://auth.blog/keys\" }\nroutes: [{ to: articles }]");
    rate_limits_that_cannot_be: route("to: articles\nrate_limit: { rate: 0/s, burst: 0, by: ip }");
    rate_limit_without_a_rate: route("to: articles\nrate_limit: { burst: 5, keys: 7 }");
    rate_limit_by_no_header: route("to: articles\nrate_limit: { rate: 100, by: \"header:x y\" }");
    faults_that_cannot_be: route("to: articles\nfault: { delay: { share: 2, for: 0s }, abort: { percentage: 5%, status: 99 } }");
    fault_of_nothing: route("to: articles\nfault: {}");
    fault_off: route("to: articles\nfault: off");
    mirrors_that_cannot_be: route("to: articles\nmirror: { articels: 5%, articles-canary: 5 }");
    mirror_without_a_share: route("to: articles\nmirror: articles-canary");
    hedges_that_cannot_be: route("to: articles\nhedge: { after: p30 }");
    hedge_after_nothing: route("to: articles\nhedge: { after: 0s, delay: 5ms }");
    outliers_that_cannot_be: upstream("endpoints: [127.0.0.1:1]\noutliers: { consecutive: 0, gateway: off, success_rate: { stdev: 50, min_host: 3 }, eject: 10ms, max_ejected: 50 }");
    outliers_off: upstream("endpoints: [127.0.0.1:1]\noutliers: off");
    outliers_in_other_words: upstream("endpoints: [127.0.0.1:1]\noutlier_detection: { base_ejection_time: 30s }");
    slow_start_without_end: upstream("endpoints: [127.0.0.1:1]\nslow_start: 2h");
    panic_beyond_all: upstream("endpoints: [127.0.0.1:1]\nbalance: { policy: random, panic: 120% }");
    duplicate_route_names: "listeners:\n  o:\n    bind: 127.0.0.1:80\n    routes:\n      - { name: a, match: { path: /a }, respond: 404 }\n      - { name: a, respond: 404 }\n";
    duplicate_bind: "admin: 0.0.0.0:80\nlisteners:\n  o: { bind: 127.0.0.1:80, routes: [{ respond: 404 }] }\n  p: { bind: \"127.0.0.1:80\", routes: [{ respond: 404 }] }\n";
    tcp_with_http_keys: listener("bind: 127.0.0.1:80\nprotocol: tcp\nroutes:\n  - { match: { path: /a }, to: articles, timeout: 1s, rate_limit: 5/s }\n  - respond: 404");
    no_routes: listener("bind: 127.0.0.1:80\nroutes: []");
    no_listeners: "service: orders\n";
    two_kinds_of_health_checks: upstream("endpoints: [127.0.0.1:1]\nhealth:\n  http: /healthz\n  tcp: true");
    no_kind_of_health_check: upstream("endpoints: [127.0.0.1:1]\nhealth: { interval: 2s }");
    health_check_with_a_slip: upstream("endpoints: [127.0.0.1:1]\nhealth: grcp");
    health_check_off: upstream("endpoints: [127.0.0.1:1]\nhealth: off");
    health_check_by_url: upstream("endpoints: [127.0.0.1:1]\nhealth: { http: \"http://127.0.0.1/healthz\" }");
    health_check_out_of_range: upstream("endpoints: [127.0.0.1:1]\nhealth: { tcp: true, interval: 1ms, timeout: 2m, rise: 0, fall: 1000 }");
    health_check_with_bad_values: upstream("endpoints: [127.0.0.1:1]\nhealth: { http: /healthz, status: [299..200, 1xx], host: \"a b\", interval: 5 }");
    health_check_that_is_false: upstream("endpoints: [127.0.0.1:1]\nhealth: { tcp: false }");
    health_key_of_another_kind: upstream("endpoints: [127.0.0.1:1]\nhealth: { tcp: true, status: 200, host: articles }");
    health_words_of_kubernetes: upstream("endpoints: [127.0.0.1:1]\nhealth: { path: /healthz, periodSeconds: 10s, failureThreshold: 3 }");
    mistake_in_defaults: format!("defaults: {{ route: {{ timeout: 2, to: articles }}, upstream: {{ pool: {{ idl: 3s }} }} }}\n{}", route("to: articles"));
}

// Warnings.
told! {
    retries_that_do_not_fit: route("to: articles\ntimeout: 2s\nretry: { when: per-try-timeout, per_try: 800ms }");
    retries_that_never_fire: route("{ match: { method: POST }, to: articles, retry: { when: [reset, per-try-timeout] } }");
    one_attempt: route("to: articles\nretry: { when: reset, attempts: 1 }");
    retry_of_a_reply: route("respond: 404\nretry: { when: reset }");
    unsafe_retries: route("to: articles\nretry: { when: gateway-error, methods: [GET, POST] }");
    fault_beyond_the_timeout: route("to: articles\ntimeout: 1s\nfault: { delay: { share: 1%, for: 2s } }");
    mirror_of_itself: route("to: articles\nmirror: { articles: 5%, articles-canary: 1% }");
    mirror_of_a_reply: route("respond: 404\nmirror: { articles: 5% }");
    hedge_of_posts: route("{ match: { method: [POST, PATCH] }, to: articles, hedge: p95 }");
    hedge_with_nobody_else: route("to: articles-canary\nhedge: 20ms");
    hedge_beyond_the_timeout: route("to: articles\ntimeout: 1s\nhedge: { after: 1s }");
    shadowed_route: "listeners:\n  o:\n    bind: 127.0.0.1:80\n    routes:\n      - { match: { path: \"/v2/*\" }, respond: 404 }\n      - { match: { path: /v3, method: GET }, respond: 404 }\n      - { name: late, match: { path: /v2/x, method: GET }, respond: 404 }\n";
    unused_upstream: route("to: articles");
    long_pool_idle: upstream("endpoints: [127.0.0.1:1]\npool: { idle: 60s }");
    long_drain: top("runtime: { drain: { deadline: 1m } }");
    open_admin: top("admin: 0.0.0.0:9901");
    upstream_that_nobody_watches: upstream("endpoints: [127.0.0.1:1, 127.0.0.1:2]\noutliers: never");
    health_timeout_beyond_its_interval: upstream("endpoints: [127.0.0.1:1]\nhealth: { http: /healthz, interval: 1s, timeout: 2s }");
    ejection_of_nobody: upstream("endpoints: [127.0.0.1:1]\noutliers: { max_ejected: 0% }");
    ejection_of_nearly_all: upstream("endpoints: [127.0.0.1:1]\noutliers: { max_ejected: 100% }");
    connect_outlasts_timeout: format!("defaults: {{ route: {{ timeout: 1s }} }}\n{}", upstream("endpoints: [127.0.0.1:1]\nconnect_timeout: 3s"));
}

#[test]
fn ten_faults_in_one_file_are_ten_findings() {
    let text = "\
service: yes
admin: 127.0.0.1
compat: linkerd
listeners:
  outbound:
    bind: 127.0.0.1:8080
    routes:
      - to: artcles
        timeout: 2
        hash: []
        retry: { attempts: 30 }
      - { to: articles, respond: 404 }
upstreams:
  articles:
    discover: dns://articles
    pools: {}
";
    let loaded = load(text);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(
        codes,
        [
            "needs-quotes",
            "bad-value",
            "bad-value",
            "unknown-upstream",
            "missing-unit",
            "out-of-range",
            "out-of-range",
            "exclusive-keys",
            "bad-value",
            "unknown-key"
        ]
    );
    assert!(loaded.config.is_none());
}

#[test]
fn a_mistake_in_defaults_is_told_once() {
    let items: String =
        (0..50).map(|i| format!("  u{i}: {{ endpoints: [127.0.0.1:1] }}\n")).collect();
    let text =
        format!("{}upstreams:\n{items}", top("defaults: { upstream: { connect_timeout: 3 } }"));
    let errors = load(&text).diagnostics.into_iter().filter(|d| d.severity == Severity::Error);
    let paths: Vec<String> = errors.map(|error| error.path).collect();
    assert_eq!(paths, ["defaults.upstream.connect_timeout"]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let missing = load_file(std::path::Path::new("/nonexistent/outrigger.yaml"));
    assert!(missing.config.is_none());
    let text = render(&missing.diagnostics, &missing.source, false);
    assert!(text.contains("No such file"), "{text}");
    assert!(text.contains("/nonexistent/outrigger.yaml"), "{text}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"a: 1\nb: \xff\n").unwrap();
    let text = load_file(file.path()).diagnostics.remove(0).message;
    assert_eq!(text, "the file is no UTF-8 text: see line 2");
}

#[test]
fn json_carries_places_and_paths() {
    let loaded = load(&route("to: articles\ntimeout: 2\nrespond: 404"));
    let json = render_json(&loaded.diagnostics, &loaded.source);
    assert_eq!(json[0]["path"], "listeners.outbound.routes[0].timeout");
    assert_eq!(json[0]["place"]["line"], 6);
    assert_eq!(json[0]["place"]["column"], 18);
    assert_eq!(json[1]["code"], "exclusive-keys");
    assert_eq!(json[1]["related"][0]["place"]["line"], 5);
}

#[test]
fn many_findings_are_cut_short() {
    let keys: String = (0..300).map(|i| format!("unknown{i}: 1\n")).collect();
    let text = findings(&top(&keys));
    assert!(text.contains("… and 200 more"), "{text}");
    assert!(text.ends_with("outrigger.yaml: 300 errors, 0 warnings\n"), "{text}");
}

#[cfg(feature = "kubernetes")]
told! {
    kubernetes_without_a_namespace: upstream("discover: k8s://articles:http");
    kubernetes_without_a_port: upstream("discover: k8s://blog/articles");
    kubernetes_names_that_nothing_has: upstream("discover: { k8s: { namespace: Blog, service: articles.blog, port: 0, kubeconfig: config } }");
}

#[cfg(feature = "xds")]
told! {
    control_plane_without_resource: upstream("discover: xds://control-plane:18000");
    control_plane_without_port: upstream("discover: xds://control-plane/articles");
    control_plane_with_mistakes: upstream("discover: { xds: { address: \"control_plane:0\", resource: \"\", node: { name: a }, tls: { cert: own.pem } } }");
}

#[cfg(not(any(feature = "kubernetes", feature = "xds")))]
told! {
    provider_of_another_build: upstream("discover: k8s://blog/articles:http");
    control_plane_of_another_build: upstream("discover: xds://control-plane:18000/articles");
}
