use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use super::*;
use crate::route::{GrpcMatch, HostPattern, PathPattern};

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

fn view<'a>(method: &'a Method, headers: &'a HeaderMap, query: Option<&'a str>) -> RequestView<'a> {
    RequestView { host: "a", path: "/p.S/List", query, method, headers, grpc: false }
}

fn takes_method(listed: &[Method], method: &Method) -> bool {
    let matcher = Matcher::new(RouteMatch { method: listed.to_vec(), ..RouteMatch::default() });
    matcher.matches(&view(method, &HeaderMap::new(), None))
}

#[test]
fn connect_is_taken_only_where_it_is_listed() {
    assert!(!takes_method(&[], &Method::CONNECT));
    assert!(!takes_method(&[Method::GET], &Method::CONNECT));
    assert!(takes_method(&[Method::GET, Method::CONNECT], &Method::CONNECT));
}

#[test]
fn methods_are_taken_by_list_and_without_a_list_all() {
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let lower = Method::from_bytes(b"get").unwrap();
    for method in [&Method::GET, &Method::PATCH, &Method::TRACE, &purge, &lower] {
        assert!(takes_method(&[], method), "{method}");
        assert!(takes_method(std::slice::from_ref(method), method), "{method}");
        assert!(!takes_method(&[Method::PUT, Method::from_bytes(b"LOCK").unwrap()], method));
    }
    assert!(!takes_method(&[Method::GET], &lower), "methods are case-sensitive");
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::Regex(Regex::new(text).unwrap())
}

fn header_holds(wanted: &ValueMatch, values: &[&[u8]]) -> bool {
    let headers = vec![(TENANT, wanted.clone())];
    let matcher = Matcher::new(RouteMatch { headers, ..RouteMatch::default() });
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(TENANT, HeaderValue::from_bytes(value).unwrap());
    }
    matcher.matches(&view(&Method::GET, &headers, None))
}

#[test]
fn headers_hold_if_any_value_does() {
    let exact = ValueMatch::Exact("b".to_owned());
    let prefix = ValueMatch::Prefix("b".to_owned());
    let expression = regex("^b+$");
    for wanted in [&exact, &prefix, &expression] {
        assert!(header_holds(wanted, &[b"b"]) && header_holds(wanted, &[b"a", b"b"]), "{wanted:?}");
        assert!(!header_holds(wanted, &[]) && !header_holds(wanted, &[b"a", b"ab"]), "{wanted:?}");
    }
    assert!(header_holds(&prefix, &[b"bc"]) && !header_holds(&exact, &[b"bc"]));
    assert!(!header_holds(&exact, &[b"a, b"]), "a list in one value is one value");
}

#[test]
fn presence_is_asked_whatever_the_value() {
    let (present, absent) = (ValueMatch::Present(true), ValueMatch::Present(false));
    assert!(header_holds(&present, &[b""]) && !header_holds(&present, &[]));
    assert!(header_holds(&absent, &[]) && !header_holds(&absent, &[b""]));
}

#[test]
fn values_that_are_not_utf8_match_by_bytes_but_no_expression() {
    let bytes = &[&b"t\xff"[..]];
    assert!(header_holds(&ValueMatch::Prefix("t".to_owned()), bytes));
    assert!(!header_holds(&regex("t"), bytes));
}

fn query_holds(name: &str, wanted: &ValueMatch, query: Option<&str>) -> bool {
    let conditions = vec![(name.to_owned(), wanted.clone())];
    let matcher = Matcher::new(RouteMatch { query: conditions, ..RouteMatch::default() });
    matcher.matches(&view(&Method::GET, &HeaderMap::new(), query))
}

#[test]
fn parameters_are_decoded_and_hold_if_any_value_does() {
    let exact = ValueMatch::Exact("a b".to_owned());
    for query in ["q=a+b", "q=a%20b", "%71=a%20b", "x=1&q=c&q=a+b", "q=a%20%62"] {
        assert!(query_holds("q", &exact, Some(query)), "{query}");
    }
    for query in ["", "q", "q=a%2Bb", "Q=a+b", "q=a+b+", "qq=a+b"] {
        assert!(!query_holds("q", &exact, Some(query)), "{query}");
    }
    assert!(!query_holds("q", &exact, None));
    assert!(query_holds("q", &regex("^[0-9]+$"), Some("q=x&q=%31%32")));
}

#[test]
fn parameters_without_a_value_are_present() {
    let (present, absent) = (ValueMatch::Present(true), ValueMatch::Present(false));
    for query in ["q", "q=", "a&q", "q=1"] {
        assert!(query_holds("q", &present, Some(query)), "{query}");
        assert!(!query_holds("q", &absent, Some(query)), "{query}");
    }
    assert!(query_holds("q", &absent, None) && query_holds("q", &absent, Some("qq=1")));
}

#[test]
fn grpc_asks_for_the_content_type_too() {
    let grpc = Some(GrpcMatch { service: "p.S".to_owned(), method: None });
    let matcher = Matcher::new(RouteMatch { grpc, ..RouteMatch::default() });
    let headers = HeaderMap::new();
    let plain = view(&Method::POST, &headers, None);
    assert_eq!(matcher.failed(&plain), Some(Condition::Grpc));
    assert!(matcher.matches(&RequestView { grpc: true, ..plain }));
    assert!(!matcher.matches(&RequestView { grpc: true, path: "/p.T/List", ..plain }));
}

#[test]
fn the_first_failure_in_written_order_is_named() {
    let mut wants = RouteMatch {
        host: vec![HostPattern::Exact("b".to_owned())],
        path: Some(PathPattern::Exact("/b".to_owned())),
        grpc: Some(GrpcMatch { service: "b".to_owned(), method: None }),
        method: vec![Method::PUT],
        headers: vec![(TENANT, ValueMatch::Present(false)), (TENANT, ValueMatch::Present(true))],
        query: vec![("q".to_owned(), ValueMatch::Present(true))],
    };
    let headers = HeaderMap::new();
    let request = view(&Method::GET, &headers, None);
    let failed = |wants: &RouteMatch| Matcher::new(wants.clone()).failed(&request);
    assert_eq!(failed(&wants), Some(Condition::Host));
    wants.host.clear();
    assert_eq!(failed(&wants), Some(Condition::Path));
    wants.path = None;
    assert_eq!(failed(&wants), Some(Condition::Grpc));
    wants.grpc = None;
    assert_eq!(failed(&wants), Some(Condition::Method));
    wants.method.clear();
    assert_eq!(failed(&wants), Some(Condition::Header(1)));
    wants.headers.clear();
    assert_eq!(failed(&wants), Some(Condition::Query(0)));
    wants.query.clear();
    assert_eq!(failed(&wants), None);
}
