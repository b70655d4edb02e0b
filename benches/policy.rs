//! What the pure rules cost per request: a pick, a retry decision, the budget, a permit, the deadline headers.
#![allow(missing_docs, reason = "criterion's macros expand to undocumented functions")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use outrigger::balance::endpoint_set::EndpointSet;
use outrigger::balance::{Balancer, Policy, Tried};
use outrigger::base::endpoint::EndpointSpec;
use outrigger::base::rng::Rng;
use outrigger::policy::classify::Outcome;
use outrigger::policy::deadline::{CallerTimeout, Deadline, Exchange};
use outrigger::policy::limits::{LimitSettings, Limits};
use outrigger::policy::retry::{AttemptEnd, RetryPolicy, RetryState, RetryWhen};
use outrigger::policy::retry_budget::RetryBudget;
use tokio::time::Instant;

fn endpoints(count: u32, even: bool, now: Instant) -> EndpointSet {
    let spec = |number: u32| EndpointSpec {
        weight: if even { 1 } else { 1 + number % 7 },
        ..EndpointSpec::at(SocketAddr::from(((0x0a00_0000 | number).to_be_bytes(), 80)))
    };
    let specs: Vec<_> = (0..count).map(spec).collect();
    let set = EndpointSet::build(&specs, None, now);
    for (micros, member) in (1_000..).zip(set.members()) {
        let ends = now + Duration::from_micros(micros);
        member.endpoint.start(now).settle(Outcome::Success, ends);
    }
    set
}

fn picks(c: &mut Criterion) {
    let now = Instant::now();
    for (name, policy) in [
        ("peak_ewma", Policy::PeakEwma),
        ("least_request", Policy::LeastRequest),
        ("round_robin", Policy::RoundRobin),
        ("random", Policy::Random),
    ] {
        let mut group = c.benchmark_group(format!("pick/{name}"));
        for (weights, even) in [("even", true), ("weighted", false)] {
            for count in [3, 100, 10_000] {
                let set = endpoints(count, even, now);
                let (balancer, mut rng) = (Balancer::new(policy), Rng::from_seed(1));
                let later = now + Duration::from_secs(1);
                group.bench_function(BenchmarkId::new(weights, count), |b| {
                    b.iter(|| {
                        let picked = balancer.pick(&set, &Tried::new(), later, &mut rng);
                        picked.map(|picked| picked.endpoint().id)
                    });
                });
            }
        }
        group.finish();
    }
}

fn attempt(c: &mut Criterion) {
    let now = Instant::now();
    let set = endpoints(3, true, now);
    let endpoint = &set.members()[0].endpoint;
    let ends = now + Duration::from_millis(1);
    c.bench_function("endpoint/start_and_finish", |b| {
        b.iter(|| endpoint.start(now).settle(Outcome::Success, ends));
    });
    let limits = Limits::new(LimitSettings { in_flight: Some(1024), ..LimitSettings::default() });
    c.bench_function("limits/permit", |b| b.iter(|| drop(limits.try_in_flight())));
}

fn retries(c: &mut Criterion) {
    let now = Instant::now();
    let policy = RetryPolicy {
        when: RetryWhen { gateway_error: true, ..RetryWhen::default() },
        ..RetryPolicy::default()
    };
    let state = RetryState::first(&Method::GET, Some(Duration::from_secs(5)));
    let mut rng = Rng::from_seed(1);
    for (name, status) in [("success", StatusCode::OK), ("retry", StatusCode::BAD_GATEWAY)] {
        let end = AttemptEnd::Response { status, grpc_status: None };
        c.bench_function(&format!("retry/decide/{name}"), |b| {
            b.iter(|| policy.decide(black_box(end), black_box(&state), &mut rng));
        });
    }
    let mut budget = RetryBudget::new(0.2, 3.0, Duration::from_secs(10), now);
    c.bench_function("retry_budget/deposit", |b| b.iter(|| budget.deposit(black_box(now))));
    c.bench_function("retry_budget/withdraw", |b| {
        b.iter(|| budget.try_withdraw(black_box(now)));
    });
}

fn deadlines(c: &mut Criterion) {
    let now = Instant::now();
    let mut headers = HeaderMap::new();
    for name in ["host", "user-agent", "accept", "x-request-id"] {
        headers.insert(name, HeaderValue::from_static("value"));
    }
    let mut read = |name: &str, headers: &HeaderMap| {
        c.bench_function(&format!("deadline/read/{name}"), |b| {
            b.iter(|| {
                let caller = CallerTimeout::read(black_box(headers), false);
                Deadline::new(now, Some(Duration::from_secs(15)), &caller, Exchange::Http)
            });
        });
    };
    read("without", &headers);
    headers.insert("grpc-timeout", HeaderValue::from_static("250m"));
    read("grpc", &headers);
}

criterion_group!(benches, picks, attempt, retries, deadlines);
criterion_main!(benches);
