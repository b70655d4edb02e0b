use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::{prelude::*, sample::select, test_runner::RngSeed};
use regex::Regex;

use super::*;
use crate::route::{Condition, GrpcMatch, HostPattern, PathPattern, ValueMatch};

/// A request that owns its parts.
#[derive(Debug, Clone)]
struct Request {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    grpc: bool,
}

impl Request {
    fn get(path: &str) -> Self {
        Self {
            host: "a".to_owned(),
            path: path.to_owned(),
            query: None,
            method: Method::GET,
            headers: HeaderMap::new(),
            grpc: false,
        }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            grpc: self.grpc,
        }
    }
}

/// Small alphabets, so that patterns and requests meet, and shadow each other, all the time.
const SEGMENTS: [&str; 6] = ["a", "b", "ab", "v1", "", "pkg.S"];
const HOSTS: [&str; 8] = ["a", "b", "a.b", "b.a.b", "a.b.c", "b.c", "", "c"];
const VALUES: [&str; 8] = ["", "a", "ab", "abc", "b", "v1", "t-1", "a b"];
const REGEXES: [&str; 12] = [
    "a",
    "^/a",
    "ab",
    "^/v[0-9]/",
    "/a/|/b$",
    "(?i)AB",
    "^t-[0-9]+$",
    "^$",
    "(ab|v1)",
    ".",
    "b/?$",
    "/ab/(a|b)",
];
const METHODS: [&str; 6] = ["GET", "POST", "CONNECT", "OPTIONS", "PURGE", "LOCK"];
const NAMES: usize = 9;

fn path() -> impl Strategy<Value = String> {
    let below_root = prop::collection::vec(select(SEGMENTS.as_slice()), 0..5)
        .prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect());
    prop_oneof![20 => below_root, 1 => Just("*".to_owned()), 1 => Just("/".to_owned())]
}

fn regex() -> impl Strategy<Value = Regex> {
    static COMPILED: LazyLock<Vec<Regex>> =
        LazyLock::new(|| REGEXES.iter().map(|text| Regex::new(text).unwrap()).collect());
    select(COMPILED.as_slice())
}

fn path_pattern() -> impl Strategy<Value = PathPattern> {
    let segment = prop::option::of(select(SEGMENTS.as_slice()).prop_map(str::to_owned));
    prop_oneof![
        path().prop_map(PathPattern::Exact),
        path().prop_map(PathPattern::Prefix),
        (prop::collection::vec(segment, 0..4), any::<bool>())
            .prop_map(|(segments, rest)| PathPattern::Template { segments, rest }),
        regex().prop_map(PathPattern::Regex),
    ]
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    let value = || select(VALUES.as_slice()).prop_map(str::to_owned);
    prop_oneof![
        value().prop_map(ValueMatch::Exact),
        value().prop_map(ValueMatch::Prefix),
        regex().prop_map(ValueMatch::Regex),
        any::<bool>().prop_map(ValueMatch::Present),
    ]
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    let host = || select(HOSTS.as_slice());
    prop_oneof![
        host().prop_map(|host| HostPattern::Exact(host.to_owned())),
        host().prop_map(|host| HostPattern::Suffix(format!(".{host}"))),
        host().prop_map(|host| HostPattern::Suffix(host.to_owned())),
    ]
}

fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    let method = prop::option::of(select(SEGMENTS.as_slice()).prop_map(str::to_owned));
    (select(SEGMENTS.as_slice()), method)
        .prop_map(|(service, method)| GrpcMatch { service: service.to_owned(), method })
}

fn method() -> impl Strategy<Value = Method> {
    select(METHODS.as_slice()).prop_map(|method| method.parse().unwrap())
}

/// Skewed: the first names are common, the last rare, so that both kinds of column are in use.
fn name() -> impl Strategy<Value = usize> {
    prop_oneof![0..2usize, 0..NAMES]
}

fn header_name(index: usize) -> HeaderName {
    HeaderName::from_bytes(format!("x-{index}").as_bytes()).unwrap()
}

/// Every condition is absent more often than not: else nothing would ever match.
fn route_match() -> impl Strategy<Value = RouteMatch> {
    let conditions = || prop::collection::vec((name(), value_match()), 0..3);
    (
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(host_pattern(), 1..3)],
        prop::option::weighted(0.6, path_pattern()),
        prop::option::weighted(0.1, grpc_match()),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(method(), 1..3)],
        prop_oneof![2 => Just(Vec::new()), 1 => conditions()],
        prop_oneof![2 => Just(Vec::new()), 1 => conditions()],
    )
        .prop_map(|(host, path, grpc, method, headers, query)| RouteMatch {
            host,
            path,
            grpc,
            method,
            headers: headers.into_iter().map(|(n, value)| (header_name(n), value)).collect(),
            query: query.into_iter().map(|(n, value)| (format!("x {n}"), value)).collect(),
        })
}

fn request() -> impl Strategy<Value = Request> {
    let pairs = || prop::collection::vec((name(), select(VALUES.as_slice())), 0..6);
    let encoded = prop::collection::vec((name(), select(VALUES.as_slice()), any::<bool>()), 0..6);
    (select(HOSTS.as_slice()), path(), prop::option::of(encoded), method(), pairs(), any::<bool>())
        .prop_map(|(host, path, query, method, headers, grpc)| Request {
            host: host.to_owned(),
            path,
            query: query.map(|pairs| {
                let pair = |(name, value, escape): (usize, &str, bool)| {
                    let value = value.replace(' ', "+");
                    let value = if escape { value.replace('a', "%61") } else { value };
                    format!("x+{name}={value}")
                };
                pairs.into_iter().map(pair).collect::<Vec<_>>().join("&")
            }),
            method,
            headers: headers
                .into_iter()
                .map(|(n, value)| (header_name(n), HeaderValue::from_static(value)))
                .fold(HeaderMap::new(), |mut map, (name, value)| {
                    map.append(name, value);
                    map
                }),
            grpc,
        })
}

fn scan(table: &RouteTable, request: &Request) -> Option<usize> {
    table.matchers.iter().position(|matcher| matcher.matches(&request.view()))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn the_index_finds_what_a_scan_finds(
        routes in prop::collection::vec(route_match(), 0..30),
        requests in prop::collection::vec(request(), 1..12),
    ) {
        let table = RouteTable::new(routes);
        for request in &requests {
            prop_assert_eq!(table.find(&request.view()), scan(&table, request), "{:?}", request);
        }
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn large_tables_find_what_a_scan_finds(
        routes in prop::collection::vec(route_match(), 150),
        copies in 1..12usize,
        requests in prop::collection::vec(request(), 20),
    ) {
        // Requests that the copies do not take either show that later blocks are searched too.
        let last = RouteMatch { host: vec![HostPattern::Exact("c".to_owned())], ..RouteMatch::default() };
        let routes = routes.iter().cycle().take(150 * copies).cloned().chain([last]).collect();
        let table = RouteTable::new(routes);
        for request in &requests {
            prop_assert_eq!(table.find(&request.view()), scan(&table, request), "{:?}", request);
        }
    }

    #[test]
    fn explanations_agree_with_the_table(
        routes in prop::collection::vec(route_match(), 0..20),
        request in request(),
    ) {
        let table = RouteTable::new(routes);
        let found = table.find(&request.view());
        let verdicts = table.explain(&request.view());
        prop_assert_eq!(verdicts.len(), table.len());
        for (at, (index, verdict)) in verdicts.into_iter().enumerate() {
            prop_assert_eq!(at, index);
            match verdict {
                Verdict::Takes => prop_assert_eq!(found, Some(index)),
                Verdict::Shadowed { by } => prop_assert!(found == Some(by) && by < index),
                Verdict::Fails { condition, why } => {
                    prop_assert_eq!(table.matchers[index].failed(&request.view()), Some(condition));
                    prop_assert!(!why.is_empty());
                }
            }
        }
    }
}

#[test]
fn random_requests_meet_random_routes_often() {
    // Guards the tests above: a generator whose requests match nothing would prove nothing.
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::new(config(1));
    let mut hits = [0; 3];
    for _ in 0..400 {
        let routes =
            prop::collection::vec(route_match(), 20).new_tree(&mut runner).unwrap().current();
        let request = request().new_tree(&mut runner).unwrap().current();
        match RouteTable::new(routes).find(&request.view()) {
            None => hits[0] += 1,
            Some(0..4) => hits[1] += 1,
            Some(_) => hits[2] += 1,
        }
    }
    assert!(hits.iter().all(|&count| count > 40), "none, early, late: {hits:?}");
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch { path: Some(PathPattern::Exact(path.to_owned())), ..RouteMatch::default() }
}

#[test]
fn the_first_match_wins_across_blocks() {
    let mut routes: Vec<_> = (0..2_500).map(|i| exact(&format!("/{}", i % 2_000))).collect();
    routes.push(RouteMatch::default());
    let table = RouteTable::new(routes);
    for (path, want) in
        [("/0", 0), ("/1023", 1_023), ("/1024", 1_024), ("/1999", 1_999), ("/x", 2_500)]
    {
        assert_eq!(table.find(&Request::get(path).view()), Some(want), "{path}");
    }
}

#[test]
fn an_empty_table_takes_nothing() {
    let table = RouteTable::new(Vec::new());
    assert!(table.is_empty() && table.find(&Request::get("/").view()).is_none());
}

#[test]
fn explanations_name_what_was_wanted_and_what_was_there() {
    let header = |value| RouteMatch {
        headers: vec![(HeaderName::from_static("x-tenant"), value)],
        ..RouteMatch::default()
    };
    let query = |value| RouteMatch { query: vec![("id".into(), value)], ..RouteMatch::default() };
    let hosts = ["b", "c"].map(|host| HostPattern::Exact(host.to_owned()));
    let hosts = hosts.into_iter().chain([HostPattern::Suffix(".d".to_owned())]).collect();
    let grpc = GrpcMatch { service: "p.S".to_owned(), method: None };
    let template = PathPattern::Template { segments: vec![Some("u".into()), None], rest: true };
    let mut request = Request::get("/x");
    request.query = Some("id=7&id=a%0Ab".to_owned());
    request.headers.insert("x-tenant", HeaderValue::from_static("t"));
    let cases = [
        (
            RouteMatch { host: hosts, ..RouteMatch::default() },
            Condition::Host,
            r#"host is "a", not b, c or *.d"#,
        ),
        (exact("/y"), Condition::Path, r#"path "/x" does not match /y"#),
        (
            RouteMatch { path: Some(template), ..RouteMatch::default() },
            Condition::Path,
            r#"path "/x" does not match /u/{}/*"#,
        ),
        (
            RouteMatch { grpc: Some(grpc), ..RouteMatch::default() },
            Condition::Grpc,
            "content-type is not application/grpc",
        ),
        (
            RouteMatch { method: vec![Method::PUT, Method::POST], ..RouteMatch::default() },
            Condition::Method,
            "method is GET, not PUT or POST",
        ),
        (
            header(ValueMatch::Exact("u".into())),
            Condition::Header(0),
            r#"header x-tenant is "t", not "u""#,
        ),
        (header(ValueMatch::Present(false)), Condition::Header(0), "header x-tenant is present"),
        (
            query(ValueMatch::Prefix("8".into())),
            Condition::Query(0),
            r#"query parameter id is "7" or "a\nb", which does not begin with "8""#,
        ),
        (
            query(ValueMatch::Regex(Regex::new("^x").unwrap())),
            Condition::Query(0),
            r#"query parameter id is "7" or "a\nb", which regex ^x does not match"#,
        ),
    ];
    let (routes, wants): (Vec<_>, Vec<_>) =
        cases.into_iter().map(|(route, condition, why)| (route, (condition, why))).unzip();
    let verdicts = RouteTable::new(routes).explain(&request.view());
    for ((_, verdict), (condition, why)) in verdicts.into_iter().zip(wants) {
        assert_eq!(verdict, Verdict::Fails { condition, why: why.to_owned() });
    }
}

#[test]
fn explanations_tell_absent_connect_and_shadowed() {
    let header = (HeaderName::from_static("x-a"), ValueMatch::Present(true));
    let wants_header = RouteMatch { headers: vec![header], ..RouteMatch::default() };
    let table = RouteTable::new(vec![wants_header, RouteMatch::default(), RouteMatch::default()]);
    let mut request = Request::get("/");
    let told = |request: &Request| {
        table
            .explain(&request.view())
            .iter()
            .map(|(_, verdict)| verdict.to_string())
            .collect::<Vec<_>>()
    };
    let shadowed = "matches too, but route 1 stands before it";
    assert_eq!(told(&request), ["header x-a is absent", "takes the request", shadowed]);
    request.method = Method::CONNECT;
    assert_eq!(told(&request), ["CONNECT is taken only where a route lists it"; 3]);
}
