use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn trouble(kind: ErrorKind) -> Trouble {
    Trouble { kind, text: kind.word().to_owned() }
}

fn addresses(texts: &[&str], ttl: u64) -> FamilyAnswer {
    let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
    FamilyAnswer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
}

fn negative(kind: ErrorKind, ttl: Option<u64>) -> FamilyAnswer {
    FamilyAnswer::Negative { trouble: trouble(kind), ttl: ttl.map(Duration::from_secs) }
}

fn failed(kind: ErrorKind) -> FamilyAnswer {
    FamilyAnswer::Failed(trouble(kind))
}

fn nodata() -> FamilyAnswer {
    negative(ErrorKind::Empty, None)
}

fn nxdomain() -> Answer {
    let denied = negative(ErrorKind::NxDomain, Some(5));
    Answer { v4: denied.clone(), v6: denied }
}

fn servfail() -> Answer {
    Answer { v4: failed(ErrorKind::ServFail), v6: failed(ErrorKind::ServFail) }
}

fn v4(texts: &[&str], ttl: u64) -> Answer {
    Answer { v4: addresses(texts, ttl), v6: nodata() }
}

/// One step of a table: what is answered, and what has to follow.
struct Step {
    answer: Answer,
    /// Addresses published; `None`: nothing is.
    publishes: Option<&'static [&'static str]>,
    standing: Standing,
    /// Seconds until the next question, with jitter.
    waits: std::ops::RangeInclusive<f64>,
    counts: Option<ErrorKind>,
}

fn play(steps: impl IntoIterator<Item = Step>) {
    let mut state = DnsState::new(80, TtlRange::default());
    let mut rng = Rng::from_seed(7);
    let mut now = Instant::now();
    for (index, step) in steps.into_iter().enumerate() {
        let next = state.on_answer(now, step.answer, &mut rng);
        let published = next
            .verdict
            .publish
            .map(|set| set.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>());
        let expected = step.publishes.map(|set| set.iter().map(ToString::to_string).collect());
        assert_eq!(published, expected, "step {index}");
        assert_eq!(next.verdict.standing, step.standing, "step {index}");
        assert_eq!(next.verdict.trouble.map(|trouble| trouble.kind), step.counts, "step {index}");
        let wait = next.ask_at - now;
        assert!(step.waits.contains(&wait.as_secs_f64()), "step {index}: {wait:?}");
        now = next.ask_at;
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_and_repeated_addresses_are_no_change() {
    let fresh = |answer, publishes| Step {
        answer,
        publishes,
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: None,
    };
    play([
        fresh(v4(&["10.0.0.2", "10.0.0.1"], 10), Some(&["10.0.0.1:80", "10.0.0.2:80"])),
        fresh(v4(&["10.0.0.1", "10.0.0.2"], 10), None),
        fresh(v4(&["10.0.0.1", "10.0.0.2", "10.0.0.1"], 10), None),
        fresh(v4(&["10.0.0.2"], 10), Some(&["10.0.0.2:80"])),
    ]);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_ttl_of_both_families_counts_within_the_range() {
    let both = |a, aaaa| Answer { v4: addresses(&["10.0.0.1"], a), v6: addresses(&["::1"], aaaa) };
    let fresh = |answer, publishes, waits| Step {
        answer,
        publishes,
        standing: Standing::Fresh,
        waits,
        counts: None,
    };
    play([
        fresh(both(30, 20), Some(&["10.0.0.1:80", "[::1]:80"]), 18.0..=22.0),
        fresh(both(20, 30), None, 18.0..=22.0),
        // Below the range: never earlier than its start.
        fresh(both(0, 30), None, 1.0..=1.1),
        // Beyond the range: never later than its end.
        fresh(both(86_400, 3_600), None, 54.0..=60.0),
    ]);
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_last_good_set_and_back_off_from_1s_to_30s() {
    let first = Step {
        answer: v4(&["10.0.0.1"], 10),
        publishes: Some(&["10.0.0.1:80"]),
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: None,
    };
    let bounds = [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
    let failures = bounds.into_iter().cycle().take(200).enumerate().map(|(index, bound)| Step {
        answer: servfail(),
        publishes: None,
        standing: Standing::Stale,
        waits: 1.0..=if index < bounds.len() { bound } else { 30.0 },
        counts: Some(ErrorKind::ServFail),
    });
    let recovery = Step {
        answer: v4(&["10.0.0.1"], 10),
        publishes: None,
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: None,
    };
    play([first].into_iter().chain(failures).chain([recovery]));
}

#[tokio::test(start_paused = true)]
async fn a_denied_name_empties_the_set_at_the_third_time_in_a_row() {
    let denied = |publishes, standing, waits| Step {
        answer: nxdomain(),
        publishes,
        standing,
        waits,
        counts: Some(ErrorKind::NxDomain),
    };
    let good = || Step {
        answer: v4(&["10.0.0.1"], 10),
        publishes: None,
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: None,
    };
    let broken = || Step {
        answer: servfail(),
        publishes: None,
        standing: Standing::Stale,
        waits: 1.0..=30.0,
        counts: Some(ErrorKind::ServFail),
    };
    play([
        Step { publishes: Some(&["10.0.0.1:80"]), ..good() },
        denied(None, Standing::Stale, 4.5..=5.5),
        denied(None, Standing::Stale, 4.5..=5.5),
        good(),
        denied(None, Standing::Stale, 4.5..=5.5),
        denied(None, Standing::Stale, 4.5..=5.5),
        broken(),
        denied(None, Standing::Stale, 4.5..=5.5),
        denied(None, Standing::Stale, 4.5..=5.5),
        denied(Some(&[]), Standing::Empty, 1.0..=5.5),
        denied(None, Standing::Empty, 1.0..=5.5),
        Step { publishes: Some(&["10.0.0.1:80"]), ..good() },
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_existed_is_answered_as_empty_at_once_and_asked_soon() {
    let long = || negative(ErrorKind::NxDomain, Some(3_600));
    play([
        Step {
            answer: Answer { v4: long(), v6: long() },
            publishes: Some(&[]),
            standing: Standing::Empty,
            waits: 1.0..=2.0,
            counts: Some(ErrorKind::NxDomain),
        },
        Step {
            answer: v4(&["10.0.0.1"], 10),
            publishes: Some(&["10.0.0.1:80"]),
            standing: Standing::Fresh,
            waits: 9.0..=11.0,
            counts: None,
        },
    ]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_until_something_is_known() {
    let unknown = |answer, counts| Step {
        answer,
        publishes: None,
        standing: Standing::Failing,
        waits: 1.0..=30.0,
        counts: Some(counts),
    };
    let half = Answer { v4: failed(ErrorKind::Timeout), v6: nodata() };
    play([
        unknown(servfail(), ErrorKind::ServFail),
        unknown(half, ErrorKind::Timeout),
        Step {
            answer: Answer { v4: nodata(), v6: nodata() },
            publishes: Some(&[]),
            standing: Standing::Empty,
            waits: 1.0..=8.0,
            counts: Some(ErrorKind::Empty),
        },
        unknown(servfail(), ErrorKind::ServFail),
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_fails_keeps_its_addresses_beside_one_that_answers() {
    play([
        Step {
            answer: Answer { v4: addresses(&["10.0.0.1"], 10), v6: addresses(&["fd00::1"], 10) },
            publishes: Some(&["10.0.0.1:80", "[fd00::1]:80"]),
            standing: Standing::Fresh,
            waits: 9.0..=11.0,
            counts: None,
        },
        Step {
            answer: Answer { v4: failed(ErrorKind::Timeout), v6: addresses(&["fd00::2"], 10) },
            publishes: Some(&["10.0.0.1:80", "[fd00::2]:80"]),
            standing: Standing::Stale,
            waits: 1.0..=2.0,
            counts: Some(ErrorKind::Timeout),
        },
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_always_fails_does_not_disturb_the_other() {
    let step = |publishes| Step {
        answer: Answer { v4: addresses(&["10.0.0.1"], 10), v6: failed(ErrorKind::Timeout) },
        publishes,
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: Some(ErrorKind::Timeout),
    };
    play([step(Some(&["10.0.0.1:80"])), step(None), step(None)]);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_goes_away_is_confirmed_like_a_name() {
    let step = |v6, publishes| Step {
        answer: Answer { v4: addresses(&["10.0.0.1"], 10), v6 },
        publishes,
        standing: Standing::Fresh,
        waits: 9.0..=11.0,
        counts: None,
    };
    play([
        step(addresses(&["::1"], 10), Some(&["10.0.0.1:80", "[::1]:80"])),
        step(nodata(), None),
        step(nodata(), None),
        step(nodata(), Some(&["10.0.0.1:80"])),
        step(addresses(&["::1"], 10), Some(&["10.0.0.1:80", "[::1]:80"])),
        // An empty list is knowledge, not denial: the hosts file, or a family without a route.
        step(addresses(&[], 10), Some(&["10.0.0.1:80"])),
    ]);
}

#[test]
fn a_range_cannot_be_empty_or_a_busy_loop() {
    let mut rng = Rng::from_seed(3);
    let zero = TtlRange::new(Duration::ZERO, Duration::ZERO);
    assert_eq!(zero.pace(Duration::ZERO, &mut rng), TtlRange::FLOOR);
    let reversed = TtlRange::new(SECOND * 5, SECOND);
    assert_eq!(reversed.pace(SECOND, &mut rng), SECOND * 5);
    assert!(TtlRange::default().pace(Duration::MAX, &mut rng) <= SECOND * 60);
}

fn random_family(rng: &mut Rng, pool: &[&str]) -> FamilyAnswer {
    match rng.below(5) {
        0 | 1 => {
            let some: Vec<&str> = pool.iter().copied().filter(|_| rng.below(2) == 0).collect();
            addresses(&some, rng.below(100) as u64)
        }
        2 => negative(ErrorKind::NxDomain, Some(rng.below(100) as u64)),
        3 => nodata(),
        _ => failed(ErrorKind::ALL[1 + rng.below(2)]),
    }
}

/// What a family should hold, written the slow way: the last good answer, unless the three newest are denials.
fn expected(history: &[FamilyAnswer]) -> Vec<IpAddr> {
    let denial = |answer: &FamilyAnswer| matches!(answer, FamilyAnswer::Negative { .. });
    for end in (1..=history.len()).rev() {
        if let FamilyAnswer::Addresses { addresses, .. } = &history[end - 1] {
            let mut addresses = addresses.clone();
            addresses.sort();
            addresses.dedup();
            return addresses;
        }
        if end >= 3 && history[end - 3..end].iter().all(denial) {
            return vec![];
        }
    }
    vec![]
}

#[tokio::test(start_paused = true)]
async fn random_walks_hold_the_invariants() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let range = TtlRange::new(SECOND * 2, SECOND * 45);
        let mut state = DnsState::new(80, range);
        let (mut v4, mut v6) = (vec![], vec![]);
        let mut published: Option<Vec<IpAddr>> = None;
        let mut now = Instant::now();
        for step in 0..100 {
            v4.push(random_family(&mut rng, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
            v6.push(random_family(&mut rng, &["fd00::1", "fd00::2"]));
            let answer = Answer { v4: v4[step].clone(), v6: v6[step].clone() };
            let next = state.on_answer(now, answer, &mut rng);
            let at = format!("seed {seed} step {step}");

            let holds = [expected(&v4), expected(&v6)].concat();
            assert_eq!(state.holds_addresses(), !holds.is_empty(), "{at}");
            if let Some(set) = next.verdict.publish {
                let ips = set.iter().map(|endpoint| match endpoint.address {
                    crate::base::address::Address::Tcp(address) => address.ip(),
                    ref other => panic!("{at}: {other}"),
                });
                let set = Some(ips.collect());
                assert_ne!(set, published, "{at}: published again");
                published = set;
            }
            assert_eq!(published.clone().unwrap_or_default(), holds, "{at}");
            let empty = matches!(next.verdict.standing, Standing::Empty | Standing::Failing);
            assert_eq!(empty, holds.is_empty(), "{at}: {:?}", next.verdict.standing);
            let wait = next.ask_at - now;
            assert!((SECOND..=SECOND * 45).contains(&wait), "{at}: {wait:?}");
            now = next.ask_at;
        }
    }
}
