//! How few candidates are left: the bound of the table, without a clock.

use http::{HeaderMap, HeaderValue};
use regex::Regex;

use super::*;
use crate::route::{GrpcMatch, RouteMatch};

const ROUTES: usize = 200;

/// Indexes `route(0..ROUTES)`, and returns what is left of them for a request.
fn left(route: impl Fn(usize) -> RouteMatch, request: &RequestView<'_>) -> Vec<usize> {
    let matchers: Vec<_> = (0..ROUTES).map(|i| Matcher::new(route(i))).collect();
    Index::new(&matchers).candidates(request).0.iter().collect()
}

fn get<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView { host, path, query: None, method: &Method::GET, headers, grpc: false }
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
}

fn header(name: &str, value: ValueMatch) -> RouteMatch {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    RouteMatch { headers: vec![(name, value)], ..RouteMatch::default() }
}

#[test]
fn hosts_leave_one() {
    let none = HeaderMap::new();
    let route = |host| RouteMatch { host: vec![host], ..RouteMatch::default() };
    let exact = |i| route(HostPattern::Exact(format!("s{i}.a")));
    assert_eq!(left(exact, &get("s7.a", "/", &none)), [7]);
    let suffix = |i| route(HostPattern::Suffix(format!(".s{i}.a")));
    assert_eq!(left(suffix, &get("x.s7.a", "/", &none)), [7]);
    assert_eq!(left(suffix, &get("s7.a", "/", &none)), Vec::<usize>::new());
}

#[test]
fn paths_leave_one() {
    let none = HeaderMap::new();
    let patterns: [fn(usize) -> PathPattern; 4] = [
        |i| PathPattern::Exact(format!("/a/{i}/b")),
        |i| PathPattern::Prefix(format!("/a/{i}")),
        |i| {
            let segments = vec![Some("a".to_owned()), Some(i.to_string()), None];
            PathPattern::Template { segments, rest: false }
        },
        |i| PathPattern::Regex(Regex::new(&format!("^/[a-z]+/{i}/b")).unwrap()),
    ];
    for (kind, pattern) in patterns.into_iter().enumerate() {
        let route = |i| RouteMatch { path: Some(pattern(i)), ..RouteMatch::default() };
        assert_eq!(left(route, &get("h", "/a/77/b", &none)), [77], "{kind}");
        assert_eq!(left(route, &get("h", "/b/b/b", &none)), Vec::<usize>::new(), "{kind}");
    }
    let grpc = |i| GrpcMatch { service: format!("p.S{i}"), method: None };
    let route = |i| RouteMatch { grpc: Some(grpc(i)), ..RouteMatch::default() };
    assert_eq!(left(route, &get("h", "/p.S7/List", &none)), [7]);
}

#[test]
fn a_template_takes_no_empty_segment() {
    let none = HeaderMap::new();
    let template = PathPattern::Template { segments: vec![Some("a".into()), None], rest: false };
    let route = |_| RouteMatch { path: Some(template.clone()), ..RouteMatch::default() };
    assert_eq!(left(route, &get("h", "/a/", &none)), Vec::<usize>::new());
}

#[test]
fn host_and_path_together_leave_one_where_neither_does() {
    let none = HeaderMap::new();
    let route = |i: usize| RouteMatch {
        host: vec![HostPattern::Exact(format!("s{}", i / 20))],
        path: Some(PathPattern::Prefix(format!("/{}", i % 20))),
        ..RouteMatch::default()
    };
    assert_eq!(left(route, &get("s3", "/5/x", &none)), [65]);
}

#[test]
fn header_values_leave_one() {
    let values: [fn(usize) -> ValueMatch; 3] = [
        |i| ValueMatch::Exact(format!("t-{i}-")),
        |i| ValueMatch::Prefix(format!("t-{i}-")),
        |i| ValueMatch::Regex(Regex::new(&format!("^[a-z]-{i}-")).unwrap()),
    ];
    for (kind, value) in values.into_iter().enumerate() {
        let route = |i| header("x-tenant", value(i));
        assert_eq!(left(route, &get("h", "/", &headers("x-tenant", "t-77-"))), [77], "{kind}");
        assert_eq!(left(route, &get("h", "/", &HeaderMap::new())), Vec::<usize>::new(), "{kind}");
    }
}

#[test]
fn header_names_leave_one_and_those_with_columns() {
    let route = |i| header(&format!("x-{i}"), ValueMatch::Present(true));
    let got = left(route, &get("h", "/", &headers("x-77", "1")));
    assert_eq!(got, [77]);
}

#[test]
fn two_headers_together_leave_one_where_neither_does() {
    let route = |i: usize| {
        let a = header("x-a", ValueMatch::Exact((i / 20).to_string()));
        let b = header("x-b", ValueMatch::Exact((i % 20).to_string()));
        RouteMatch { headers: [a.headers, b.headers].concat(), ..RouteMatch::default() }
    };
    let mut sent = headers("x-a", "3");
    sent.insert("x-b", HeaderValue::from_static("5"));
    assert_eq!(left(route, &get("h", "/", &sent)), [65]);
}

#[test]
fn query_parameters_leave_one() {
    let none = HeaderMap::new();
    let request = RequestView { query: Some("x=1&t=%377"), ..get("h", "/", &none) };
    let condition = |i: usize| ("t".to_owned(), ValueMatch::Exact(i.to_string()));
    let route = |i| RouteMatch { query: vec![condition(i)], ..RouteMatch::default() };
    assert_eq!(left(route, &request), [77]);

    let request = RequestView { query: Some("p%377=1"), ..request };
    let condition = |i| (format!("p{i}"), ValueMatch::Present(true));
    let route = |i| RouteMatch { query: vec![condition(i)], ..RouteMatch::default() };
    assert_eq!(left(route, &request), [77]);
}

#[test]
fn methods_leave_those_that_list_them() {
    let none = HeaderMap::new();
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let listed = |i| match i {
        7 => vec![Method::CONNECT],
        9 => vec![purge.clone()],
        _ if i < 100 => vec![Method::PUT],
        _ => Vec::new(),
    };
    let route = |i| RouteMatch { method: listed(i), ..RouteMatch::default() };
    let request = get("h", "/", &none);
    assert_eq!(left(route, &RequestView { method: &Method::CONNECT, ..request }), [7]);
    let others: Vec<_> = (100..ROUTES).collect();
    assert_eq!(left(route, &request), others);
    let got = left(route, &RequestView { method: &purge, ..request });
    assert_eq!(got, [&[9], others.as_slice()].concat());
}
