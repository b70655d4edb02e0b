//! What the pure rules cost per request: a pick, a retry decision, the budget, a permit, the deadline headers.
//!
//! Counts processor time of the thread, not the clock's: so it may run on a machine that others use, and what is left of them is
//! in the caches.
#![allow(missing_docs, reason = "criterion's macros expand to undocumented functions")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, SamplingMode, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use outrigger::balance::endpoint_set::EndpointSet;
use outrigger::balance::{Balancer, Key, Policy, Tried};
use outrigger::base::endpoint::EndpointSpec;
use outrigger::base::rng::Rng;
use outrigger::policy::classify::Outcome;
use outrigger::policy::deadline::{CallerTimeout, Deadline, Exchange};
use outrigger::policy::limits::{LimitSettings, Limits};
use outrigger::policy::retry::{AttemptEnd, RetryPolicy, RetryState, RetryWhen};
use outrigger::policy::retry_budget::RetryBudget;
use tokio::time::Instant;

type Criterion = criterion::Criterion<CpuTime>;

/// Nanoseconds that this thread has run, as the scheduler counts them: to the tick of some milliseconds, so that samples are long.
struct CpuTime;

impl CpuTime {
    fn now() -> u64 {
        let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        counted.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    }
}

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = Duration;

    fn start(&self) -> u64 {
        Self::now()
    }

    fn end(&self, start: u64) -> Duration {
        Duration::from_nanos(Self::now().saturating_sub(start))
    }

    fn add(&self, v1: &Duration, v2: &Duration) -> Duration {
        *v1 + *v2
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        static SHOWN: WallTime = WallTime;
        SHOWN.formatter()
    }
}

fn processor() -> Criterion {
    criterion::Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

const POLICIES: [(&str, Policy); 6] = [
    ("peak_ewma", Policy::PeakEwma),
    ("least_request", Policy::LeastRequest),
    ("round_robin", Policy::RoundRobin),
    ("random", Policy::Random),
    ("ring_hash", Policy::RingHash(Some(125))),
    ("maglev", Policy::Maglev),
];

/// In three zones.
fn specs(count: u32, even: bool) -> Vec<EndpointSpec> {
    let spec = |number: u32| EndpointSpec {
        weight: if even { 1 } else { 1 + number % 7 },
        zone: Some(["a", "b", "c"][number as usize % 3].to_owned()),
        ..EndpointSpec::at(SocketAddr::from(((0x0a00_0000 | number).to_be_bytes(), 80)))
    };
    (0..count).map(spec).collect()
}

fn endpoints(balancer: &Balancer, count: u32, even: bool, now: Instant) -> EndpointSet {
    let set = balancer.prepare(EndpointSet::build(&specs(count, even), None, now));
    balancer.review(&set, now);
    for (micros, member) in (1_000..).zip(set.members()) {
        let ends = now + Duration::from_micros(micros);
        member.endpoint.start(now).settle(Outcome::Success, ends);
    }
    set
}

fn picks(c: &mut Criterion) {
    let now = Instant::now();
    for (name, policy) in POLICIES {
        let mut group = c.benchmark_group(format!("pick/{name}"));
        group.sampling_mode(SamplingMode::Flat);
        for (kind, even, zone) in
            [("even", true, None), ("weighted", false, None), ("zones", true, Some("a"))]
        {
            for count in [10, 1_000, 10_000] {
                let balancer = Balancer::new(policy).zone_aware(zone);
                let set = endpoints(&balancer, count, even, now);
                let mut rng = Rng::from_seed(1);
                let later = now + Duration::from_secs(1);
                group.bench_function(BenchmarkId::new(kind, count), |b| {
                    b.iter(|| {
                        let key = Key::of(&rng.bits().to_le_bytes());
                        let none = Tried::new();
                        let picked = balancer.pick_for(Some(key), &set, &none, later, &mut rng);
                        picked.map(|picked| picked.endpoint().id)
                    });
                });
            }
        }
        group.finish();
    }
}

/// A set that takes the place of another, 1 % of it new; and what the control thread looks at each second.
fn rebuilds(c: &mut Criterion) {
    let now = Instant::now();
    for (name, policy) in POLICIES {
        let mut group = c.benchmark_group(format!("rebuild/{name}"));
        group.sampling_mode(SamplingMode::Flat);
        for count in [10, 1_000, 10_000] {
            let balancer = Balancer::new(policy);
            let before = endpoints(&balancer, count, true, now);
            let mut specs = specs(count, true);
            for spec in specs.iter_mut().step_by(100) {
                spec.zone = None;
            }
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| balancer.prepare(EndpointSet::build(&specs, Some(&before), now)));
            });
        }
        group.finish();
    }
    let balancer = Balancer::new(Policy::PeakEwma);
    let set = endpoints(&balancer, 10_000, true, now);
    c.bench_function("review/10000", |b| b.iter(|| balancer.review(&set, now)));
}

fn attempt(c: &mut Criterion) {
    let now = Instant::now();
    let set = endpoints(&Balancer::new(Policy::PeakEwma), 3, true, now);
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

criterion_group! {
    name = benches;
    config = processor();
    targets = picks, rebuilds, attempt, retries, deadlines
}
criterion_main!(benches);
