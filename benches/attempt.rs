//! What our own code adds to each attempt: everything around the sockets, as the request path calls it.
//!
//! A place at the upstream, a pick, the endpoint's guard, the attempt's timer, metrics, the retry decision and the budget that
//! pays for it; all is given back at the end. What writes and reads HTTP is not in it: `benches/peers/instr.py` counts that.
#![allow(missing_docs, reason = "criterion's macros expand to undocumented functions")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, StatusCode};
use outrigger::balance::Tried;
use outrigger::balance::endpoint_set::EndpointSet;
use outrigger::base::endpoint::EndpointSpec;
use outrigger::base::rng::Rng;
use outrigger::config::load_str;
use outrigger::control::compiled;
use outrigger::io::tick::Tick;
use outrigger::metrics::{AttemptOutcome, Metrics};
use outrigger::policy::classify::Outcome;
use outrigger::policy::deadline::{CallerTimeout, Deadline, Exchange};
use outrigger::policy::retry::{AttemptEnd, RetryDecision, RetryPolicy, RetryState, RetryWhen};
use outrigger::upstream::{Ended, LocalUpstream, LocalUpstreams};
use tokio::time::Instant;

/// The defaults, but for the budget: each round of the bench is to be paid for.
const CONFIG: &str = "
listeners: { a: { bind: 127.0.0.1:1, direction: outbound, routes: [{ to: a }] } }
upstreams:
  a:
    endpoints: [10.0.0.1:80, 10.0.0.2:80, 10.0.0.3:80]
    limits: { retry_budget: { ratio: 100%, floor: 1000000/s } }
";

/// An upstream of three endpoints, and the policy of retries of the route to it.
fn compiled_upstream(now: Instant) -> (Rc<LocalUpstream>, RetryPolicy) {
    let loaded = load_str("bench.yaml", CONFIG, &|_| None);
    let Some(config) = loaded.config else { panic!("{:?}", loaded.diagnostics) };
    let metrics = Metrics::new(&config.metrics.buckets).unwrap();
    let snapshot = compiled(&config, &metrics, &mut Rng::from_seed(1), now).unwrap();
    let spec = |last| EndpointSpec::at(SocketAddr::from(([10, 0, 0, last], 80)));
    let upstream = &snapshot.upstreams[0];
    upstream.publish(EndpointSet::build(&[1, 2, 3].map(spec), None, now), now);
    let local = LocalUpstreams::default().get(upstream, now);
    let policy = RetryPolicy {
        when: RetryWhen { gateway_error: true, ..RetryWhen::default() },
        ..RetryPolicy::default()
    };
    (local, policy)
}

/// One request: attempts until the policy stops them, each answered with the next of `statuses`, 200 where none is left.
fn request(
    local: &Rc<LocalUpstream>,
    policy: &RetryPolicy,
    tick: &Tick,
    rng: &RefCell<Rng>,
    statuses: &[StatusCode],
) -> u32 {
    let started = Instant::now();
    local.budget().deposit(started);
    let caller = CallerTimeout::default();
    let deadline = Deadline::new(started, Some(Duration::from_secs(15)), &caller, Exchange::Http);
    let mut tried = Tried::new();
    let mut state = RetryState::first(&Method::GET, None);
    loop {
        let start = Instant::now();
        let mut slot = local.try_enter(rng).unwrap().unwrap();
        let endpoints = local.upstream.endpoints();
        let mut picked =
            local.upstream.balancer.pick(&endpoints, &tried, start, &mut rng.borrow_mut()).unwrap();
        tried.note(picked.endpoint().id);
        let timer = tick.timer(deadline.of_attempt(None, start));
        let guard = picked.start(start);
        // Here the request goes out and the head of the answer comes in.
        let now = Instant::now();
        let status = statuses.get(state.attempt as usize - 1).copied().unwrap_or(StatusCode::OK);
        let metrics = &local.upstream.metrics;
        let took = now.saturating_duration_since(start);
        metrics.duration.observe(took.as_secs_f64());
        slot.settle(&Ended::of_response(status, None, took));
        let outcome = Outcome::of_response(status, None);
        guard.settle(outcome, now);
        metrics.attempt(match outcome {
            Outcome::Failure => AttemptOutcome::Failure,
            _ => AttemptOutcome::Success,
        });
        let end = AttemptEnd::Response { status, grpc_status: None };
        drop((timer, guard, slot));
        if !policy.when.lists(end) {
            return state.attempt;
        }
        state.remaining = deadline.remaining(now);
        let decision = local.upstream.pay(
            policy.decide(end, &state, &mut rng.borrow_mut()),
            &mut local.budget(),
            now,
        );
        if let RetryDecision::Stop(reason) = decision {
            reason.into_iter().for_each(|reason| metrics.suppress(reason.index()));
            return state.attempt;
        }
        state.attempt += 1;
    }
}

fn overhead(c: &mut Criterion) {
    let now = Instant::now();
    let ((local, policy), tick) = (compiled_upstream(now), Tick::new(now));
    let rng = RefCell::new(Rng::from_seed(1));
    let failed = [StatusCode::BAD_GATEWAY];
    for (name, statuses, attempts) in [("first", &failed[..0], 1), ("with_one_retry", &failed, 2)] {
        assert_eq!(request(&local, &policy, &tick, &rng, statuses), attempts);
        c.bench_function(&format!("attempt/{name}"), |b| {
            b.iter(|| request(&local, &policy, &tick, &rng, black_box(statuses)));
        });
    }
}

criterion_group!(benches, overhead);
criterion_main!(benches);
