//! Files that load, and what they load to.

use super::{NINE, load};

/// Every supported key.
const FULL: &str = include_str!("../../../config/full.yaml");

#[test]
fn the_nine_lines_load_without_a_finding() {
    let loaded = load(NINE);
    assert_eq!(loaded.diagnostics, []);
    assert!(loaded.config.is_some());
}

#[test]
#[cfg_attr(
    not(all(feature = "kubernetes", feature = "xds")),
    ignore = "needs every provider: --features full"
)]
fn the_full_file_loads_without_a_finding() {
    let loaded = load(FULL);
    let text = crate::config::render(&loaded.diagnostics, &loaded.source, false);
    assert!(loaded.diagnostics.is_empty(), "{text}");
    assert!(loaded.config.is_some());
}

#[test]
#[cfg_attr(
    not(all(feature = "kubernetes", feature = "xds")),
    ignore = "needs every provider: --features full"
)]
fn what_is_printed_as_effective_loads_to_the_same() {
    for text in [NINE, FULL] {
        let first = load(text);
        let yaml = first.effective_yaml();
        let second = load(&yaml);
        let found = crate::config::render(&second.diagnostics, &second.source, false);
        assert!(second.diagnostics.is_empty(), "{found}\n{yaml}");
        assert!(first.config == second.config, "{yaml}");
        assert_eq!(yaml.lines().count(), second.effective_yaml().lines().count());
    }
}

/// What is in force where nothing but the nine lines is written.
#[test]
fn defaults_are_those_of_the_documentation() {
    let yaml = load(NINE).effective_yaml();
    let values: Vec<String> = yaml
        .lines()
        .map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!("defaults", values.join("\n")));
}

#[test]
fn origins_tell_written_values_from_defaults_and_built_in_ones() {
    let text = "\
defaults: { upstream: { connect_timeout: 3s } }
listeners: { o: { bind: \"127.0.0.1:${PORT}\", routes: [{ to: a }] } }
upstreams: { a: { endpoints: [127.0.0.1:1], limits: { retry_budget: 10% } } }
";
    let yaml = load(text).effective_yaml();
    let origin = |start: &str| {
        let line = yaml.lines().find(|line| line.trim_start().starts_with(start));
        line.and_then(|line| line.rsplit_once(" # ")).map(|(_, origin)| origin.to_owned())
    };
    assert_eq!(origin("connect_timeout: 3s").unwrap(), "defaults, outrigger.yaml:1");
    assert_eq!(origin("bind: \"127.0.0.1:9000\"").unwrap(), "outrigger.yaml:2");
    assert_eq!(origin("ratio: 10%").unwrap(), "outrigger.yaml:3");
    assert_eq!(origin("floor: 3/s").unwrap(), "built in");
    assert_eq!(origin("timeout: 15s").unwrap(), "built in");
}

#[test]
fn of_adaptive_and_in_flight_an_upstreams_own_holds() {
    let text = "\
defaults: { upstream: { limits: { in_flight: 100 }, breaker: 40%, throttle: 2 } }
listeners: { o: { bind: 127.0.0.1:1, routes: [{ to: a }, { to: b }] } }
upstreams:
  a: { endpoints: [127.0.0.1:1], adaptive: gradient, breaker: never, throttle: never }
  b: { endpoints: [127.0.0.1:1] }
";
    let loaded = load(text);
    let upstreams = loaded.config.unwrap().upstreams;
    assert!(upstreams[0].adaptive.is_some() && upstreams[1].adaptive.is_none());
    assert!(upstreams[0].breaker.is_none() && upstreams[1].breaker.is_some());
    assert!(upstreams[0].throttle.is_none() && upstreams[1].throttle.is_some());
    let text = text.replace("limits: { in_flight: 100 }", "adaptive: gradient");
    let own = text.replace(":1], adaptive: gradient", ":1], limits: { in_flight: 9 }");
    let upstreams = load(&own).config.unwrap().upstreams;
    assert_eq!(upstreams[0].limits.in_flight, Some(9));
    assert!(upstreams[0].adaptive.is_none() && upstreams[1].adaptive.is_some());
}

#[test]
fn own_values_win_over_defaults_key_by_key() {
    let text = "\
defaults:
  route: { timeout: 3s, retry: { attempts: 2, replay: 1KiB } }
  listener: { limits: { headers: 50 } }
listeners:
  o:
    bind: 127.0.0.1:1
    limits: { streams: 9 }
    routes:
      - { name: own, match: { path: /a }, respond: 404, timeout: 1s }
      - { name: merged, match: { path: /b }, to: u, retry: { attempts: 5 } }
      - { name: never, to: u, retry: never }
upstreams: { u: { endpoints: [127.0.0.1:2] } }
";
    let config = load(text).config.unwrap();
    let listener = &config.listeners[0];
    assert_eq!((listener.limits.headers, listener.limits.streams), (50, 9));
    let [own, merged, never] = listener.routes.as_slice() else { panic!("three routes") };
    assert_eq!(own.timeout, Some(std::time::Duration::from_secs(1)));
    let retry = merged.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.replay.0), (5, 1024));
    assert_eq!(never.retry, None);
}

#[test]
fn paths_and_hosts_are_kept_as_requests_are_matched() {
    use crate::config::{HostPattern, PathPattern};
    let matched = |text: &str| {
        let file = format!(
            "listeners: {{ o: {{ bind: 127.0.0.1:1, routes: [{{ match: {text}, respond: 404 }}] }} }}"
        );
        let loaded = load(&file);
        let found = crate::config::render(&loaded.diagnostics, &loaded.source, false);
        let config = loaded.config.unwrap_or_else(|| panic!("{found}"));
        config.listeners[0].routes[0].matches.clone()
    };
    let path = |text: &str| matched(&format!("{{ path: \"{text}\" }}")).path.unwrap();
    let fixed = |text: &str| Some(text.to_owned());
    assert_eq!(path("/*"), PathPattern::Prefix(String::new()));
    assert_eq!(path("/"), PathPattern::Exact("/".to_owned()));
    assert_eq!(path("/v2/*"), PathPattern::Prefix("/v2".to_owned()));
    assert_eq!(path("/%7ea%2fb"), PathPattern::Exact("/~a%2Fb".to_owned()));
    let segments = vec![fixed("users"), None];
    assert_eq!(path("/users/{id}"), PathPattern::Template { segments, rest: false });
    let segments = vec![None];
    assert_eq!(path("/{id}/*"), PathPattern::Template { segments, rest: true });
    let hosts = matched("{ host: [Articles., \"*.Svc\", \"[::1]\"] }").host;
    let exact = |text: &str| HostPattern::Exact(text.to_owned());
    let suffix = HostPattern::Suffix(".svc".to_owned());
    assert_eq!(hosts, [exact("articles"), suffix, exact("[::1]")]);
}

#[test]
fn the_direction_follows_the_address() {
    use crate::config::Direction;
    for (bind, wanted) in [
        ("127.0.0.1:1", Direction::Outbound),
        ("[::1]:1", Direction::Outbound),
        ("unix:/run/a.sock", Direction::Outbound),
        ("0.0.0.0:1", Direction::Inbound),
        ("10.0.0.1:1", Direction::Inbound),
    ] {
        let text =
            format!("listeners: {{ o: {{ bind: \"{bind}\", routes: [{{ respond: 404 }}] }} }}");
        assert_eq!(load(&text).config.unwrap().listeners[0].direction, wanted, "{bind}");
    }
}

#[test]
fn routes_that_only_look_alike_are_not_shadowed() {
    let text = "\
listeners:
  o:
    bind: 127.0.0.1:1
    routes:
      - { match: { path: \"/v2/*\", method: GET }, respond: 200 }
      - { match: { path: \"/v2/*\", headers: { x-a: b } }, respond: 201 }
      - { match: { path: /v22 }, respond: 202 }
      - { match: { host: \"*.svc\" }, respond: 203 }
      - { match: { host: svc }, respond: 204 }
      - { match: { host: [a.svc, b] }, respond: 205 }
      - { match: { path: \"/v2/*\" }, respond: 206 }
      - { match: { path: \"/users/{id}\" }, respond: 207 }
      - { match: { path: \"/users/{id}/*\" }, respond: 208 }
      - { match: { path: { regex: /x } }, respond: 226 }
      - { match: { method: CONNECT }, respond: 200 }
      - respond: 404
";
    assert_eq!(load(text).diagnostics, []);
}

#[test]
fn a_thousand_routes_load() {
    let mut text = "listeners:\n  o:\n    bind: 127.0.0.1:1\n    routes:\n".to_owned();
    for index in 0..1_000 {
        text.push_str(&format!(
            "      - {{ match: {{ host: h{index}.svc, path: \"/v1/r{index}/*\", headers: {{ x-a: {{ regex: \"^a{index}$\" }} }} }}, to: u{}, timeout: 2s }}\n",
            index % 100
        ));
    }
    text.push_str("upstreams:\n");
    for index in 0..100 {
        text.push_str(&format!("  u{index}: {{ endpoints: [127.0.0.1:{}] }}\n", index + 1));
    }
    let start = tokio::time::Instant::now();
    let loaded = load(&text);
    println!("{} bytes in {:?}", text.len(), start.elapsed());
    assert_eq!(loaded.config.unwrap().listeners[0].routes.len(), 1_000);
}

#[test]
fn the_documentation_names_every_key_and_warning() {
    let docs = include_str!("../../../docs/CONFIG.md");
    for section in crate::config::keys::ALL {
        for key in section.keys {
            assert!(docs.contains(&format!("**`{key}`**")), "{key} of {}", section.name);
        }
    }
    let sources = [
        include_str!("../validate.rs"),
        include_str!("../validate/authorize.rs"),
        include_str!("../validate/jwt.rs"),
        include_str!("../validate/shadow.rs"),
        include_str!("../validate/shaping.rs"),
    ];
    let names = regex::Regex::new(r#"(?:warning|push)\w*\(\s*"([a-z-]+)""#).unwrap();
    let warnings: Vec<&str> = sources
        .iter()
        .flat_map(|source| names.captures_iter(source).filter_map(|found| found.get(1)))
        .map(|name| name.as_str())
        .collect();
    assert!(warnings.len() >= 9, "{warnings:?}");
    for warning in warnings {
        assert!(docs.contains(&format!("| `{warning}` |")), "{warning}");
    }
}

#[test]
fn the_full_file_uses_every_key() {
    let used = regex::Regex::new(r"([a-z_0-9+]+):").unwrap();
    let used: std::collections::HashSet<&str> =
        used.captures_iter(FULL).filter_map(|found| found.get(1)).map(|key| key.as_str()).collect();
    for section in crate::config::keys::ALL {
        for key in section.keys {
            assert!(used.contains(key), "{key} of {}", section.name);
        }
    }
}

#[test]
fn health_checks_have_short_forms_and_own_kinds_win_over_defaults() {
    let text = "\
defaults: { upstream: { health: { http: /healthz, status: [204, 200..202], interval: 2s } } }
listeners: { o: { bind: 127.0.0.1:1, routes: [{ to: { a: 1, b: 1, c: 1, d: 1, e: 1, f: 1 } }] } }
upstreams:
  a: { endpoints: [127.0.0.1:2] }
  b: { endpoints: [127.0.0.1:2], health: { tcp: true } }
  c: { endpoints: [127.0.0.1:2], health: { grpc: blog.Articles, fall: 1 } }
  d: { endpoints: [127.0.0.1:2], health: grpc }
  e: { endpoints: [127.0.0.1:2], health: never }
  f: { endpoints: [127.0.0.1:2], health: \"/live?deep=1\" }
";
    let config = load(text).config.unwrap();
    let effective: Vec<String> = config
        .upstreams
        .iter()
        .map(|upstream| match &upstream.health {
            None => "never".to_owned(),
            Some(check) => {
                format!("{:?} every {:?}, fall {}", check.probe, check.interval, check.fall)
            }
        })
        .collect();
    assert_eq!(
        effective,
        [
            "Http { path: \"/healthz\", status: [(200, 202), (204, 204)] } every 2s, fall 3",
            "Tcp every 2s, fall 3",
            "Grpc { service: \"blog.Articles\" } every 2s, fall 1",
            "Grpc { service: \"\" } every 5s, fall 3",
            "never",
            "Http { path: \"/live?deep=1\", status: [(200, 299)] } every 5s, fall 3",
        ]
    );
    let again = load(&load(text).effective_yaml()).config.unwrap();
    assert!(again == config);
}

#[test]
fn a_file_of_endpoints_is_read_as_the_list_in_the_file_would_be() {
    let read = |text: &str| crate::config::endpoints_from("e.yaml", text);
    let yaml = "- 127.0.0.1:1\n- { address: \"[::1]:2\", weight: 3, priority: 1, zone: a, labels: { v: v2 } }\n";
    let json = r#"["127.0.0.1:1", {"address": "[::1]:2", "weight": 3, "priority": 1, "zone": "a", "labels": {"v": "v2"}}]"#;
    let endpoints = read(yaml).unwrap();
    assert_eq!(read(json).unwrap(), endpoints);
    let written = format!(
        "listeners: {{ o: {{ bind: 127.0.0.1:1, routes: [{{ to: a }}] }} }}\nupstreams: {{ a: {{ endpoints: {json} }} }}"
    );
    let config = load(&written).config.unwrap();
    assert_eq!(config.upstreams[0].discover, crate::config::Discover::Endpoints(endpoints));
    assert_eq!(read("[]").unwrap(), []);
}

#[test]
fn a_mistake_in_a_file_of_endpoints_is_told_with_its_place() {
    let error = |text: &str| crate::config::endpoints_from("e.yaml", text).unwrap_err();
    let found = [
        "- 127.0.0.1\n",
        "- 127.0.0.1:1\n- { address: 127.0.0.1:2, wieght: 2 }\n- nonsense\n",
        "- 127.0.0.1:1\n- 127.0.0.1:1\n",
        "endpoints: [127.0.0.1:1]\n",
        "",
        "# nothing\n",
        "[127.0.0.1:1\n",
    ]
    .map(error);
    insta::assert_snapshot!(found.join("\n"));
}
