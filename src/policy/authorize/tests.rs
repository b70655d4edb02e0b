//! Tests of the order of rules and of their conditions.

use super::*;

fn path(text: &str) -> PathRule {
    let (text, rest) = match text.strip_suffix("/*") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let segments: Vec<_> = text.split('/').skip(1).map(Some).collect();
    PathRule::segments(&segments, rest)
}

fn judge(
    rules: &Authorization,
    identity: Option<&Identity>,
    source: &str,
    request: Option<(&str, &str, &HeaderMap)>,
) -> Verdict {
    let method = request.map(|(method, ..)| method.parse::<Method>().unwrap());
    let request = request.zip(method.as_ref());
    let request = request.map(|((_, path, headers), method)| AskedFor { method, path, headers });
    rules.judge(&Asked { identity, source: source.parse().ok(), request })
}

fn get(rules: &Authorization, path: &str) -> Verdict {
    judge(rules, None, "10.0.0.1", Some(("GET", path, &HeaderMap::new())))
}

#[test]
fn without_a_rule_everything_is_denied() {
    assert_eq!(get(&Authorization::default(), "/"), Verdict::NotAllowed);
}

#[test]
fn deny_is_asked_before_allow() {
    let rules = Authorization {
        deny: vec![
            Rule { path: vec![path("/x/*")], ..Rule::default() },
            Rule { path: vec![path("/a/b")], ..Rule::default() },
        ],
        allow: vec![
            Rule { path: vec![path("/y")], ..Rule::default() },
            Rule { path: vec![path("/a/*")], ..Rule::default() },
        ],
    };
    assert_eq!(get(&rules, "/a/b"), Verdict::DeniedBy(1));
    assert_eq!(get(&rules, "/a/c"), Verdict::Allowed(1));
    assert_eq!(get(&rules, "/b"), Verdict::NotAllowed);
}

#[test]
fn every_condition_of_a_rule_must_hold_and_any_value_of_a_condition() {
    let cart = Identity::new(["spiffe://blog/ns/web/sa/cart"], []);
    let other = Identity::new(["spiffe://blog/ns/jobs/sa/cart"], []);
    let rules = Authorization {
        deny: Vec::new(),
        allow: vec![Rule {
            from: vec!["spiffe://blog/ns/web/*".parse().unwrap(), "a.b".parse().unwrap()],
            source: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            method: vec![Method::GET, Method::HEAD],
            path: vec![path("/orders/*"), path("/items")],
            headers: vec![(
                HeaderName::from_static("x-tenant"),
                HeaderRule::Prefix("t-".to_owned()),
            )],
        }],
    };
    let mut tenant = HeaderMap::new();
    tenant.insert("x-tenant", HeaderValue::from_static("t-1"));
    let none = HeaderMap::new();
    for (identity, source, method, path, headers, want) in [
        (Some(&cart), "10.1.2.3", "GET", "/orders/7", &tenant, true),
        (Some(&cart), "fd00::1", "HEAD", "/items", &tenant, true),
        (Some(&other), "10.1.2.3", "GET", "/orders/7", &tenant, false),
        (None, "10.1.2.3", "GET", "/orders/7", &tenant, false),
        (Some(&cart), "11.1.2.3", "GET", "/orders/7", &tenant, false),
        (Some(&cart), "unix", "GET", "/orders/7", &tenant, false),
        (Some(&cart), "10.1.2.3", "POST", "/orders/7", &tenant, false),
        (Some(&cart), "10.1.2.3", "GET", "/other", &tenant, false),
        (Some(&cart), "10.1.2.3", "GET", "/orders/7", &none, false),
    ] {
        let verdict = judge(&rules, identity, source, Some((method, path, headers)));
        assert_eq!(verdict == Verdict::Allowed(0), want, "{source} {method} {path}");
    }
}

#[test]
fn a_tcp_connection_meets_only_rules_of_identity_and_source() {
    let rules = Authorization {
        deny: vec![Rule { path: vec![path("/*")], ..Rule::default() }],
        allow: vec![Rule { source: vec!["10.0.0.0/8".parse().unwrap()], ..Rule::default() }],
    };
    assert_eq!(judge(&rules, None, "10.0.0.1", None), Verdict::Allowed(0));
    assert_eq!(judge(&rules, None, "11.0.0.1", None), Verdict::NotAllowed);
}

#[test]
fn a_header_sent_twice_is_denied_by_either_value_and_allowed_by_both() {
    let of = |values: &[&'static str]| -> HeaderMap {
        values
            .iter()
            .map(|value| (HeaderName::from_static("x-role"), HeaderValue::from_static(value)))
            .collect()
    };
    let rule = |rule| {
        vec![Rule { headers: vec![(HeaderName::from_static("x-role"), rule)], ..Rule::default() }]
    };
    let exact = |text: &str| HeaderRule::Exact(text.to_owned());
    let deny = Authorization { deny: rule(exact("root")), allow: vec![Rule::default()] };
    let allow = Authorization { deny: Vec::new(), allow: rule(exact("user")) };
    for (values, denied, allowed) in [
        (&["user"][..], false, true),
        (&["user", "user"], false, true),
        (&["user", "root"], true, false),
        (&["user, root"], true, false),
        (&["root"], true, false),
        (&[], false, false),
    ] {
        let headers = of(values);
        let verdict = |rules| judge(rules, None, "10.0.0.1", Some(("GET", "/", &headers)));
        assert_eq!(verdict(&deny) == Verdict::DeniedBy(0), denied, "{values:?}");
        assert_eq!(verdict(&allow) == Verdict::Allowed(0), allowed, "{values:?}");
    }
    let absent = Authorization { deny: Vec::new(), allow: rule(HeaderRule::Present(false)) };
    let present = Authorization {
        deny: Vec::new(),
        allow: rule(HeaderRule::Regex(Regex::new("^u").unwrap())),
    };
    for (rules, values, want) in [
        (&absent, &[][..], Verdict::Allowed(0)),
        (&absent, &["x"], Verdict::NotAllowed),
        (&present, &["user"], Verdict::Allowed(0)),
        (&present, &["user", "x"], Verdict::NotAllowed),
    ] {
        let verdict = judge(rules, None, "10.0.0.1", Some(("GET", "/", &of(values))));
        assert_eq!(verdict, want, "{values:?}");
    }
}
