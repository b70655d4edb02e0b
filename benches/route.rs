//! What finding a route costs, by the size of the table and by what tells its routes apart.
//!
//! Requests go round all routes of the table, so that large tables pay for their memory too. The bound to
//! hold: 1 000 routes cost at most three times what 10 cost.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::{cell::Cell, hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outrigger::route::{
    GrpcMatch, HostPattern, PathPattern, RequestView, RouteMatch, RouteTable, ValueMatch,
    normalise_path,
};
use regex::Regex;

const SIZES: [usize; 3] = [10, 100, 1_000];

struct Request {
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    grpc: bool,
}

impl Request {
    /// A browser's usual headers, so that lookups by name have something to pass over.
    fn new(host: &str, path: &str) -> Self {
        let headers = [
            ("host", "shop.example"),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            ("accept-language", "en-US,en;q=0.5"),
            ("accept-encoding", "gzip, deflate, br"),
            ("cookie", "session=0123456789abcdef"),
            ("x-request-id", "5f2b1c0de9a84b7c8d1e2f3a4b5c6d7e"),
        ];
        let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let headers = headers.into_iter().map(pair).collect();
        Self { host: host.to_owned(), path: path.to_owned(), query: None, headers, grpc: false }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &Method::GET,
            headers: &self.headers,
            grpc: self.grpc,
        }
    }
}

fn path(path: PathPattern) -> RouteMatch {
    RouteMatch { path: Some(path), ..RouteMatch::default() }
}

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn header(name: &str, value: ValueMatch) -> RouteMatch {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    RouteMatch { headers: vec![(name, value)], ..RouteMatch::default() }
}

/// The `i`-th route of a kind of table, and a request that it takes.
type Kind = fn(usize) -> (RouteMatch, Request);

const KINDS: [(&str, Kind); 14] = [
    ("host_exact", |i| {
        let host = format!("svc-{i}.ns.svc.cluster.local");
        let request = Request::new(&host, "/v1/articles/7");
        (RouteMatch { host: vec![HostPattern::Exact(host)], ..RouteMatch::default() }, request)
    }),
    ("host_suffix", |i| {
        let suffix = format!(".svc-{i}.example");
        let request = Request::new(&format!("eu.a{suffix}"), "/v1/articles/7");
        (RouteMatch { host: vec![HostPattern::Suffix(suffix)], ..RouteMatch::default() }, request)
    }),
    ("path_exact", |i| {
        let text = format!("/api/v1/resource-{i}/list");
        let request = Request::new("shop.example", &text);
        (path(PathPattern::Exact(text)), request)
    }),
    ("path_prefix", |i| {
        let text = format!("/api/v1/resource-{i}");
        let request = Request::new("shop.example", &format!("{text}/items/7"));
        (path(PathPattern::Prefix(text)), request)
    }),
    ("path_template", |i| {
        let segments = ["api".to_owned(), format!("resource-{i}")].map(Some);
        let segments = segments.into_iter().chain([None, Some("items".to_owned())]).collect();
        let request = Request::new("shop.example", &format!("/api/resource-{i}/7/items"));
        (path(PathPattern::Template { segments, rest: false }), request)
    }),
    ("host_and_path", |i| {
        let host = format!("svc-{}.example", i / 32);
        let text = format!("/v1/resource-{}", i % 32);
        let request = Request::new(&host, &format!("{text}/7"));
        let host = vec![HostPattern::Exact(host)];
        (RouteMatch { host, ..path(PathPattern::Prefix(text)) }, request)
    }),
    ("grpc", |i| {
        let service = format!("blog.Service{i}");
        let mut request = Request::new("shop.example", &format!("/{service}/List"));
        request.grpc = true;
        let grpc = Some(GrpcMatch { service, method: None });
        (RouteMatch { grpc, ..RouteMatch::default() }, request)
    }),
    ("header_exact", |i| {
        let tenant = format!("tenant-{i}");
        let request = Request::new("shop.example", "/").header("x-tenant", &tenant);
        (header("x-tenant", ValueMatch::Exact(tenant)), request)
    }),
    ("header_prefix", |i| {
        let tenant = format!("tenant-{i}/");
        let request = Request::new("shop.example", "/").header("x-tenant", &format!("{tenant}eu"));
        (header("x-tenant", ValueMatch::Prefix(tenant)), request)
    }),
    ("header_name", |i| {
        let name = format!("x-feature-{i}");
        let request = Request::new("shop.example", "/").header(&name, "1");
        (header(&name, ValueMatch::Present(true)), request)
    }),
    ("header_regex", |i| {
        let request =
            Request::new("shop.example", "/").header("x-tenant", &format!("t42-org{i}-eu"));
        (header("x-tenant", ValueMatch::Regex(regex(&format!("^t[0-9]+-org{i}-")))), request)
    }),
    ("query_exact", |i| {
        let mut request = Request::new("shop.example", "/");
        request.query = Some(format!("page=2&sort=name&tenant=t-{i}"));
        let query = vec![("tenant".to_owned(), ValueMatch::Exact(format!("t-{i}")))];
        (RouteMatch { query, ..RouteMatch::default() }, request)
    }),
    ("regex_with_text", |i| {
        let request = Request::new("shop.example", &format!("/api/v2/resource-{i}/items/7"));
        (path(PathPattern::Regex(regex(&format!("^/api/v[0-9]+/resource-{i}/")))), request)
    }),
    // Nothing to index by: each is asked in turn.
    ("regex_without_text", |i| {
        let request = Request::new("shop.example", &format!("/{i}/"));
        let digits: Vec<_> = i.to_string().chars().map(|digit| format!("[{digit}x]")).collect();
        (path(PathPattern::Regex(regex(&format!("^/{}/$", digits.concat())))), request)
    }),
];

fn find(c: &mut Criterion) {
    for (kind, route) in KINDS {
        let mut group = c.benchmark_group(kind);
        for size in SIZES {
            let (mut routes, requests): (Vec<_>, Vec<_>) = (0..size).map(route).unzip();
            routes.push(RouteMatch::default());
            let table = RouteTable::new(routes);
            for (index, request) in requests.iter().enumerate() {
                assert_eq!(table.find(&request.view()), Some(index), "{kind}");
            }
            let next = Cell::new(0);
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    next.set((next.get() + 7) % size);
                    table.find(black_box(&requests[next.get()].view()))
                });
            });
        }
        group.finish();
    }
}

fn normalise(c: &mut Criterion) {
    let mut group = c.benchmark_group("normalise_path");
    let paths =
        [("normal", "/api/v1/users/42/articles%2F7"), ("changed", "/api/./v1/%75sers/42/../7")];
    for (name, path) in paths {
        group.bench_function(name, |b| b.iter(|| normalise_path(black_box(path)).map(|p| p.len())));
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = quick(); targets = find, normalise);
criterion_main!(benches);
