use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::*;
use crate::base::error::Reason;

const SAFE_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];

fn status(code: u16) -> AttemptEnd {
    AttemptEnd::Response { status: StatusCode::from_u16(code).unwrap(), grpc_status: None }
}

fn grpc(code: u8) -> AttemptEnd {
    AttemptEnd::Response { status: StatusCode::OK, grpc_status: Some(code) }
}

/// A first attempt of a request without a body.
fn request(method: &Method) -> RetryState<'_> {
    RetryState::first(method, Some(Duration::from_secs(10)))
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        backoff: Backoff { first: Duration::ZERO, max: Duration::ZERO },
        ..RetryPolicy::default()
    }
}

/// Every ground listed.
fn eager() -> RetryPolicy {
    let when = RetryWhen {
        reset: true,
        gateway_error: true,
        server_error: true,
        per_try_timeout: true,
        statuses: [429, 409].into_iter().collect(),
        grpc: RetryWhen::grpc_codes([8, 14]),
    };
    RetryPolicy { when, ..policy() }
}

fn decide(policy: &RetryPolicy, end: AttemptEnd, request: &RetryState<'_>) -> RetryDecision {
    policy.decide(end, request, &mut Rng::from_seed(1))
}

const RETRY: RetryDecision = RetryDecision::Retry { wait: Duration::ZERO };
const RESEND: RetryDecision = RetryDecision::Resend;
const ONCE: RetryDecision = RetryDecision::ResendOnce;
const NONE: RetryDecision = RetryDecision::Stop(None);
const NOT_SAFE: RetryDecision = RetryDecision::Stop(Some(SuppressedReason::NotSafe));

fn stop(reason: SuppressedReason) -> RetryDecision {
    RetryDecision::Stop(Some(reason))
}

/// Each end × (safe only, everything listed, everything listed and any method) × (GET, POST, POST with a key).
#[test]
fn the_decision_table() {
    let any_method = RetryPolicy { methods: RetryMethods::Any, ..eager() };
    #[rustfmt::skip]
    let table = [
        // end                        safe only: GET, POST, key   listed: GET, POST, key          any method: GET, POST, key
        (AttemptEnd::NotSent,         [RESEND, RESEND, RESEND],   [RESEND, RESEND, RESEND],       [RESEND, RESEND, RESEND]),
        (AttemptEnd::Refused,         [ONCE, ONCE, ONCE],         [ONCE, ONCE, ONCE],             [ONCE, ONCE, ONCE]),
        (AttemptEnd::KeepAliveRace,   [ONCE, NOT_SAFE, ONCE],     [ONCE, NOT_SAFE, ONCE],         [ONCE, RETRY, ONCE]),
        (AttemptEnd::Reset,           [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (AttemptEnd::PerTryTimeout,   [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (AttemptEnd::Final,           [NONE, NONE, NONE],         [NONE, NONE, NONE],             [NONE, NONE, NONE]),
        (status(200),                 [NONE, NONE, NONE],         [NONE, NONE, NONE],             [NONE, NONE, NONE]),
        (status(404),                 [NONE, NONE, NONE],         [NONE, NONE, NONE],             [NONE, NONE, NONE]),
        (status(409),                 [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (status(429),                 [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (status(500),                 [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (status(503),                 [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
        (grpc(0),                     [NONE, NONE, NONE],         [NONE, NONE, NONE],             [NONE, NONE, NONE]),
        (grpc(13),                    [NONE, NONE, NONE],         [NONE, NONE, NONE],             [NONE, NONE, NONE]),
        (grpc(14),                    [NONE, NONE, NONE],         [RETRY, NOT_SAFE, RETRY],       [RETRY, RETRY, RETRY]),
    ];
    let keyed = RetryState { idempotency_key: true, ..request(&Method::POST) };
    for (end, safe_only, listed, with_any) in table {
        for (policy, expected) in
            [(&policy(), safe_only), (&eager(), listed), (&any_method, with_any)]
        {
            let states = [request(&Method::GET), request(&Method::POST), keyed];
            assert_eq!(states.map(|state| decide(policy, end, &state)), expected, "{end:?}");
        }
    }
}

#[test]
fn each_word_lists_its_own_ends_only() {
    let none = RetryWhen::default();
    let ends = [
        AttemptEnd::Reset,
        status(502),
        status(503),
        status(504),
        status(500),
        status(505),
        AttemptEnd::PerTryTimeout,
        status(418),
        grpc(4),
    ];
    let listed = |when: RetryWhen| ends.map(|end| u8::from(when.lists(end)));
    assert_eq!(listed(none), [0; 9]);
    assert_eq!(listed(RetryWhen { reset: true, ..none }), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(listed(RetryWhen { gateway_error: true, ..none }), [0, 1, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(listed(RetryWhen { server_error: true, ..none }), [0, 1, 1, 1, 1, 1, 0, 0, 0]);
    assert_eq!(listed(RetryWhen { per_try_timeout: true, ..none }), [0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let statuses = [418].into_iter().collect();
    assert_eq!(listed(RetryWhen { statuses, ..none }), [0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let grpc = RetryWhen::grpc_codes([4]);
    assert_eq!(listed(RetryWhen { grpc, ..none }), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_keep_alive_race_is_resent_once_and_then_counts_as_a_reset() {
    let again = RetryState { attempt: 2, resent_once: true, ..request(&Method::GET) };
    assert_eq!(decide(&policy(), AttemptEnd::KeepAliveRace, &again), NONE);
    assert_eq!(decide(&eager(), AttemptEnd::KeepAliveRace, &again), RETRY);
}

#[test]
fn a_refused_stream_is_resent_at_once_and_then_after_a_wait() {
    let again = RetryState { attempt: 2, resent_once: true, ..request(&Method::POST) };
    assert_eq!(decide(&policy(), AttemptEnd::Refused, &again), RETRY);
}

#[test]
fn the_last_attempt_is_followed_by_none() {
    let exhausted = stop(SuppressedReason::Exhausted);
    for end in [AttemptEnd::NotSent, AttemptEnd::Refused, AttemptEnd::KeepAliveRace, status(503)] {
        let second = RetryState { attempt: 2, ..request(&Method::GET) };
        assert_ne!(decide(&eager(), end, &second), exhausted);
        let third = RetryState { attempt: 3, ..request(&Method::GET) };
        assert_eq!(decide(&eager(), end, &third), exhausted);
    }
}

#[test]
fn never_turns_everything_off_without_a_word() {
    for end in [AttemptEnd::NotSent, AttemptEnd::Refused, AttemptEnd::KeepAliveRace, status(503)] {
        assert_eq!(decide(&RetryPolicy::never(), end, &request(&Method::GET)), NONE);
    }
}

#[test]
fn nothing_is_sent_again_once_the_caller_has_part_of_a_response() {
    for end in [AttemptEnd::NotSent, AttemptEnd::Reset, status(503)] {
        let committed = RetryState { committed: true, ..request(&Method::GET) };
        assert_eq!(decide(&eager(), end, &committed), NONE);
    }
}

#[test]
fn a_body_that_is_gone_cannot_be_sent_again_whatever_the_ground() {
    for end in [AttemptEnd::NotSent, AttemptEnd::Refused, AttemptEnd::KeepAliveRace, status(503)] {
        let large = RetryState { body: BodyReplay::TooLarge, ..request(&Method::PUT) };
        assert_eq!(decide(&eager(), end, &large), stop(SuppressedReason::BodyTooLarge));
        let unsent = RetryState { body: BodyReplay::Unsent, ..request(&Method::PUT) };
        assert!(!matches!(decide(&eager(), end, &unsent), RetryDecision::Stop(_)));
    }
}

#[test]
fn listed_methods_replace_the_idempotent_ones() {
    let policy = RetryPolicy { methods: RetryMethods::Listed(vec![Method::POST]), ..eager() };
    let end = AttemptEnd::Reset;
    assert_eq!(decide(&policy, end, &request(&Method::POST)), RETRY);
    let get = decide(&policy, end, &request(&Method::GET));
    assert_eq!(get, stop(SuppressedReason::MethodNotListed));
    assert_eq!(decide(&policy, end, &request(&Method::PATCH)), NOT_SAFE);
    let keyed = RetryState { idempotency_key: true, ..request(&Method::PATCH) };
    assert_eq!(decide(&policy, end, &keyed), RETRY);
    // `safe` is always included.
    assert_eq!(decide(&policy, AttemptEnd::KeepAliveRace, &request(&Method::GET)), ONCE);
}

#[test]
fn a_wait_that_ends_after_the_deadline_is_not_begun() {
    let state = |millis, pushback| RetryState {
        remaining: Some(Duration::from_millis(millis)),
        pushback,
        ..request(&Method::GET)
    };
    let asked = Pushback::After(Duration::from_secs(2));
    let expected = RetryDecision::Retry { wait: Duration::from_secs(2) };
    assert_eq!(decide(&eager(), status(503), &state(2_001, asked)), expected);
    let late = stop(SuppressedReason::Timeout);
    assert_eq!(decide(&eager(), status(503), &state(2_000, asked)), late);
    for end in [AttemptEnd::NotSent, AttemptEnd::Refused, AttemptEnd::KeepAliveRace] {
        assert_eq!(decide(&eager(), end, &state(0, Pushback::None)), late);
    }
    let unlimited = RetryState { remaining: None, ..state(0, asked) };
    assert_eq!(decide(&eager(), status(503), &unlimited), expected);
}

#[test]
fn an_upstream_may_ask_for_more_than_the_backoff_or_for_nothing_at_all() {
    let policy = RetryPolicy { backoff: Backoff::default(), ..eager() };
    let mut rng = Rng::from_seed(3);
    for _ in 0..100 {
        let least = Duration::from_secs(1);
        let state = RetryState { pushback: Pushback::After(least), ..request(&Method::GET) };
        let RetryDecision::Retry { wait } = policy.decide(status(503), &state, &mut rng) else {
            panic!("seed 3: no retry");
        };
        assert!((least..=least + policy.backoff.first).contains(&wait), "seed 3: {wait:?}");
    }
    let never = RetryState { pushback: Pushback::Never, ..request(&Method::GET) };
    assert_eq!(decide(&policy, status(503), &never), stop(SuppressedReason::Pushback));
}

#[test]
fn without_budget_only_what_was_never_written_goes_on_and_only_with_hope() {
    let now = Instant::now();
    let mut empty = RetryBudget::new(0.0, 0.0, Duration::from_secs(10), now);
    assert_eq!(RESEND.paid_from(&mut empty, true, now), RESEND);
    assert_eq!(NONE.paid_from(&mut empty, true, now), NONE);
    for (paid, hope) in [(RETRY, true), (ONCE, true), (RESEND, false)] {
        assert_eq!(paid.paid_from(&mut empty, hope, now), stop(SuppressedReason::BudgetEmpty));
        let mut one = RetryBudget::new(0.0, 1.0, Duration::from_secs(10), now);
        assert_eq!(paid.paid_from(&mut one, hope, now), paid);
        assert!(one.available(now) < 1e-9);
    }
}

#[test]
fn idempotent_methods_are_those_of_the_rfc() {
    assert!(SAFE_METHODS.iter().all(|method| idempotent(method, false)));
    let purge = Method::from_bytes(b"PURGE").unwrap();
    for method in [Method::POST, Method::PATCH, Method::CONNECT, purge] {
        assert!(!idempotent(&method, false) && idempotent(&method, true), "{method}");
    }
}

#[test]
fn status_sets_hold_400_to_599_and_nothing_else() {
    let all: StatusSet = (0..=u16::MAX).collect();
    assert!((0..=u16::MAX).all(|code| all.contains(code) == (400..600).contains(&code)));
    let one: StatusSet = [463].into_iter().collect();
    assert!((400..600).all(|code| one.contains(code) == (code == 463)));
}

#[test]
fn suppressed_reasons_have_distinct_words_in_order() {
    for (index, reason) in SuppressedReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), index);
    }
    let words: std::collections::BTreeSet<_> =
        SuppressedReason::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(words.len(), SuppressedReason::ALL.len());
}

fn depth(number: u32) -> RetryDepth {
    let value = http::HeaderValue::from(number);
    RetryDepth::read(&http::HeaderMap::from_iter([(crate::policy::retry_depth::ATTEMPTS, value)]))
}

#[test]
fn listed_retries_leave_it_to_the_hop_that_tries_already() {
    let told = |above, below| RetryState {
        above: depth(above),
        below: depth(below),
        ..request(&Method::GET)
    };
    let (above, below) = (stop(SuppressedReason::TriedAbove), stop(SuppressedReason::TriedBelow));
    for (numbers, expected) in
        [((0, 0), RETRY), ((1, 0), RETRY), ((2, 0), above), ((0, 1), below), ((2, 3), below)]
    {
        let state = told(numbers.0, numbers.1);
        assert_eq!(decide(&eager(), status(503), &state), expected, "{numbers:?}");
    }
    // What did not run is nobody else's: the hop above cannot know of it, and repeats nothing.
    let state = told(2, 0);
    assert_eq!(decide(&eager(), AttemptEnd::NotSent, &state), RESEND);
    assert_eq!(decide(&eager(), AttemptEnd::Refused, &state), ONCE);
    assert_eq!(decide(&eager(), AttemptEnd::KeepAliveRace, &state), ONCE);
    assert_eq!(decide(&eager(), AttemptEnd::Reset, &state), above);
}

#[test]
fn an_attempt_that_was_not_made_has_the_reason_of_what_kept_it() {
    for (reason, expected) in [
        (Reason::LimitReached, SuppressedReason::LimitReached),
        (Reason::QueueTimeout, SuppressedReason::QueueTimeout),
        (Reason::Timeout, SuppressedReason::Timeout),
        (Reason::NoHealthyEndpoint, SuppressedReason::NoEndpoint),
        (Reason::DnsFailed, SuppressedReason::NoEndpoint),
    ] {
        assert_eq!(SuppressedReason::of_attempt_not_made(reason), expected);
        // The words are those that the request itself would fail with.
        assert!(Reason::ALL.iter().any(|known| known.word() == expected.word()), "{expected:?}");
    }
}

fn ends() -> impl Strategy<Value = AttemptEnd> {
    prop_oneof![
        Just(AttemptEnd::NotSent),
        Just(AttemptEnd::Refused),
        Just(AttemptEnd::KeepAliveRace),
        Just(AttemptEnd::Reset),
        Just(AttemptEnd::PerTryTimeout),
        Just(AttemptEnd::Final),
        (200..600_u16).prop_map(status),
        (0..20_u8).prop_map(grpc),
    ]
}

fn policies() -> impl Strategy<Value = RetryPolicy> {
    let methods = prop_oneof![
        Just(RetryMethods::Idempotent),
        Just(RetryMethods::Any),
        Just(RetryMethods::Listed(vec![Method::POST])),
        Just(RetryMethods::Listed(vec![Method::GET, Method::PATCH])),
    ];
    (
        any::<[bool; 4]>(),
        prop::collection::vec(400..600_u16, 0..4),
        any::<u32>(),
        1..=10_u32,
        methods,
    )
        .prop_map(|(words, statuses, grpc, attempts, methods)| RetryPolicy {
            when: RetryWhen {
                reset: words[0],
                gateway_error: words[1],
                server_error: words[2],
                per_try_timeout: words[3],
                statuses: statuses.into_iter().collect(),
                grpc,
            },
            attempts,
            methods,
            ..RetryPolicy::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_may_have_run_is_repeated_only_where_method_and_ground_allow_it(
        policy in policies(),
        end in ends(),
        method in prop::sample::select(vec!["GET", "PUT", "POST", "PATCH", "PURGE"]),
        flags in any::<[bool; 3]>(),
        attempt in 1..12_u32,
        body in prop::sample::select(vec![
            BodyReplay::Whole, BodyReplay::Unsent, BodyReplay::TooLarge,
        ]),
        told in prop::sample::select(vec![[0, 0], [1, 0], [0, 1], [2, 0], [3, 3]]),
        remaining in prop::option::of(0..500_u64),
    ) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let [idempotency_key, resent_once, committed] = flags;
        let remaining = remaining.map(Duration::from_millis);
        let state = RetryState {
            attempt, method: &method, idempotency_key, body, resent_once, committed, remaining,
            pushback: Pushback::None, above: depth(told[0]), below: depth(told[1]),
        };
        let decision = policy.decide(end, &state, &mut Rng::from_seed(u64::from(attempt)));
        if matches!(decision, RetryDecision::Stop(_)) {
            return Ok(());
        }
        let may_have_run = !matches!(end, AttemptEnd::NotSent | AttemptEnd::Refused);
        if may_have_run && !idempotent(&method, idempotency_key) {
            prop_assert!(policy.when.lists(end));
            let allowed = match &policy.methods {
                RetryMethods::Idempotent => false,
                RetryMethods::Any => true,
                RetryMethods::Listed(methods) => methods.contains(&method),
            };
            prop_assert!(allowed);
        }
        prop_assert!(attempt < policy.attempts && !committed);
        prop_assert!(matches!(body, BodyReplay::Whole | BodyReplay::Unsent));
        if matches!(decision, RetryDecision::Retry { .. }) {
            prop_assert!(told[0] < 2 && told[1] == 0, "no hop above or below tries again");
        }
        prop_assert_eq!(decision == RetryDecision::Resend, end == AttemptEnd::NotSent);
        if let (RetryDecision::Retry { wait }, Some(remaining)) = (decision, remaining) {
            prop_assert!(wait < remaining);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// A whole request, attempt by attempt, with one budget for many of them.
    #[test]
    fn a_request_is_sent_no_more_often_than_allowed_and_paid_for(
        policy in policies(),
        method in prop::sample::select(vec!["GET", "PUT", "POST"]),
        idempotency_key in any::<bool>(),
        requests in prop::collection::vec(prop::collection::vec(ends(), 12), 1..30),
        ratio in 0.0..1.0_f64,
        seed in any::<u64>(),
    ) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (mut rng, now) = (Rng::from_seed(seed), Instant::now());
        let mut budget = RetryBudget::new(ratio, 3.0, Duration::from_secs(10), now);
        let (mut earned, mut paid) = (3.0, 0.0);
        for ends in requests {
            budget.deposit(now);
            earned += ratio;
            let (mut resent_once, mut ran, mut attempts) = (false, 0, 0);
            for (attempt, end) in (1..).zip(ends) {
                attempts = attempt;
                ran += u32::from(end.may_have_run());
                let state = RetryState {
                    attempt, idempotency_key, resent_once, ..RetryState::first(&method, None)
                };
                let decision = policy.decide(end, &state, &mut rng);
                let decision = decision.paid_from(&mut budget, false, now);
                prop_assert!(budget.available(now) >= 0.0);
                match decision {
                    RetryDecision::Stop(_) => break,
                    RetryDecision::ResendOnce => {
                        prop_assert!(!resent_once, "once at once, whatever was the ground");
                        resent_once = true;
                    }
                    RetryDecision::Resend | RetryDecision::Retry { .. } => {}
                }
                paid += 1.0;
            }
            prop_assert!(attempts <= policy.attempts.max(1), "{} attempts", attempts);
            let may_repeat = idempotent(&method, idempotency_key)
                || policy.methods != RetryMethods::Idempotent;
            prop_assert!(ran <= 1 || may_repeat, "ran {} times", ran);
        }
        prop_assert!(paid <= earned + 1e-6, "{} paid of {}", paid, earned);
    }
}
