use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::base::rng::Rng;

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn quota(per_second: f64, burst: u32) -> Quota {
    Quota::new(per_second, count(burst)).unwrap()
}

fn admitted(limiter: &RateLimiter, key: u64, now: Instant) -> bool {
    limiter.take(key, now).verdict == Verdict::Admitted
}

#[test]
fn a_burst_goes_at_once_and_then_one_for_each_interval() {
    let now = Instant::now();
    let limiter = RateLimiter::new(quota(10.0, 3), None, now);
    let taken: Vec<bool> = (0..5).map(|_| admitted(&limiter, 0, now)).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    let later = now + Duration::from_millis(100);
    assert_eq!([admitted(&limiter, 0, later), admitted(&limiter, 0, later)], [true, false]);
    let much_later = now + Duration::from_secs(3600);
    let taken = (0..5).filter(|_| admitted(&limiter, 0, much_later)).count();
    assert_eq!(taken, 3, "a rest earns the burst and no more");
}

#[test]
fn who_waits_as_long_as_told_is_admitted_and_not_a_nanosecond_before() {
    let start = Instant::now();
    let mut rng = Rng::from_seed(7);
    for keys in [None, Some(count(16))] {
        let limiter = RateLimiter::new(quota(7.0, 2), keys, start);
        let mut now = start;
        for _ in 0..1_000 {
            now += rng.duration_up_to(Duration::from_millis(150));
            if let Verdict::Limited { wait } = limiter.take(5, now).verdict {
                assert!(!admitted(&limiter, 5, now + wait - Duration::from_nanos(1)));
                now += wait;
                assert!(admitted(&limiter, 5, now));
            }
        }
    }
}

#[test]
fn never_more_than_burst_plus_rate_in_any_window() {
    for seed in 0..30 {
        let mut rng = Rng::from_seed(seed);
        let rate = [0.5, 3.0, 7.0, 100.0, 9_999.0][rng.below(5)];
        let burst = u32::try_from(1 + rng.below(20)).unwrap();
        let start = Instant::now();
        let limiter = RateLimiter::new(quota(rate, burst), Some(count(8)), start);
        let pace = Duration::from_secs_f64(2.0 / rate);
        let (mut now, mut times) = (start, Vec::new());
        for _ in 0..2_000 {
            if rng.below(3) == 0 {
                now += rng.duration_up_to(pace);
            }
            if admitted(&limiter, 1, now) {
                times.push(now);
            }
        }
        for (first, from) in times.iter().enumerate() {
            for (last, to) in times.iter().enumerate().skip(first).step_by(7) {
                let most = f64::from(burst) + rate * (*to - *from).as_secs_f64();
                let got = (last - first + 1) as f64;
                assert!(got <= most + 1e-6, "seed {seed}: {got} of {most}");
            }
        }
        let whole = (now - start).as_secs_f64();
        assert!(times.len() as f64 <= f64::from(burst) + rate * whole + 1e-6);
    }
}

#[test]
fn a_steady_caller_gets_the_rate() {
    for rate in [0.01, 1.0, 3.0, 1_000.0, 300_000.0, 1e6] {
        let start = Instant::now();
        let limiter = RateLimiter::new(quota(rate, 2), None, start);
        let interval = Duration::from_secs_f64(1.0 / rate);
        let (mut now, mut got) = (start, 0);
        for _ in 0..10_000 {
            got += u32::from(admitted(&limiter, 0, now));
            now += interval / 2;
        }
        let due = rate * (now - start).as_secs_f64();
        assert!(f64::from(got) <= due + 2.0, "{rate}: {got} of {due}");
        assert!(f64::from(got) >= due * 0.998, "{rate}: {got} of {due}");
    }
}

#[test]
fn rates_that_cannot_be_kept_are_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e6, 1e-300] {
        assert_eq!(Quota::new(rate, count(1)), None, "{rate}");
    }
    assert_eq!(Quota::new(1.0 / 3600.0, count(u32::MAX)), None);
    assert!(Quota::new(1.0 / 3600.0, count(1_000_000)).is_some());
}

#[test]
fn keys_do_not_touch_each_other() {
    let now = Instant::now();
    let limiter = RateLimiter::new(quota(1.0, 2), Some(count(100)), now);
    let keys: Vec<u64> = (0..100_u8).map(|number| limiter.key([&[number][..]])).collect();
    for _ in 0..4 {
        for key in &keys {
            let _whatever = limiter.take(*key, now);
        }
    }
    let later = now + Duration::from_secs(1);
    for key in &keys {
        assert_eq!(
            [admitted(&limiter, *key, later), admitted(&limiter, *key, later)],
            [true, false]
        );
    }
}

#[test]
fn keys_are_told_apart_by_their_parts_and_by_process() {
    let now = Instant::now();
    let limiter = RateLimiter::new(quota(1.0, 1), Some(count(1)), now);
    let parts = |parts: &[&'static str]| limiter.key(parts.iter().map(|part| part.as_bytes()));
    assert_eq!(parts(&["ab", "c"]), parts(&["ab", "c"]));
    assert_ne!(parts(&["ab", "c"]), parts(&["a", "bc"]));
    assert_ne!(parts(&[]), parts(&[""]));
    let other = RateLimiter::new(quota(1.0, 1), Some(count(1)), now);
    assert_ne!(parts(&["a"]), other.key([&b"a"[..]]), "the hash has a secret");
}

#[test]
fn the_table_keeps_its_size_and_tells_as_many_keys_apart_as_promised() {
    let now = Instant::now();
    let limiter = RateLimiter::new(quota(1.0, 1), Some(count(10_000)), now);
    assert_eq!(limiter.table_bytes(), 32_768 * 16);
    let mut rng = Rng::from_seed(1);
    let overflows = (0..10_000).filter(|_| limiter.take(rng.bits(), now).overflow).count();
    assert!(overflows <= 5, "{overflows} of 10 000 keys had no bucket of their own");
    // Ten times as many at once: what has no place shares one bucket, so that the whole stays bounded.
    let more = (0..100_000).filter(|_| admitted(&limiter, rng.bits(), now)).count();
    assert!(10_000 + more <= 32_768 + 1, "{more}");
    assert_eq!(limiter.table_bytes(), 32_768 * 16);
}

#[test]
fn keys_that_owe_nothing_make_room() {
    let mut now = Instant::now();
    let limiter = RateLimiter::new(quota(10.0, 5), Some(count(1_000)), now);
    let mut rng = Rng::from_seed(2);
    for _ in 0..100 {
        let overflows = (0..1_000).filter(|_| limiter.take(rng.bits(), now).overflow).count();
        assert!(overflows <= 3, "{overflows}");
        now += Duration::from_millis(100);
    }
}

#[test]
fn a_debt_is_not_pushed_out_by_new_keys() {
    let now = Instant::now();
    let limiter = RateLimiter::new(quota(1.0, 1), Some(count(8)), now);
    assert!(admitted(&limiter, 42, now));
    let mut rng = Rng::from_seed(3);
    for _ in 0..10_000 {
        let _other = limiter.take(rng.bits(), now);
    }
    assert!(!admitted(&limiter, 42, now));
}

#[test]
fn workers_together_admit_exactly_the_burst_of_each_key() {
    const BURST: usize = 3;
    // Few slots and fresh keys in each round: slots change hands all the time, while others look at them.
    let base = Instant::now();
    let limiter = RateLimiter::new(quota(1.0, 3), Some(count(64)), base);
    let turns: Vec<AtomicUsize> = (0..300).map(|_| AtomicUsize::new(0)).collect();
    let totals: Vec<HashMap<u64, (usize, usize)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (limiter, turns) = (&limiter, &turns);
                scope.spawn(move || {
                    let mut taken: HashMap<u64, (usize, usize)> = HashMap::new();
                    for (round, turn) in turns.iter().enumerate() {
                        // All of them begin a round together.
                        turn.fetch_add(1, Ordering::SeqCst);
                        while turn.load(Ordering::SeqCst) < 4 {
                            std::thread::yield_now();
                        }
                        let now = base + Duration::from_secs(10 * round as u64);
                        let mut keys = Rng::from_seed(round as u64);
                        for _ in 0..20 {
                            let key = keys.bits();
                            for _ in 0..BURST + worker {
                                let decision = limiter.take(key, now);
                                let one = usize::from(decision.verdict == Verdict::Admitted);
                                let counts = taken.entry(key).or_default();
                                match decision.overflow {
                                    false => counts.0 += one,
                                    true => counts.1 += 1,
                                }
                            }
                        }
                    }
                    taken
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut whole: HashMap<u64, (usize, usize)> = HashMap::new();
    for (key, (admitted, overflowed)) in totals.into_iter().flatten() {
        let counts = whole.entry(key).or_default();
        *counts = (counts.0 + admitted, counts.1 + overflowed);
    }
    let mut overflowed = 0;
    for (key, (admitted, overflows)) in &whole {
        assert!(*admitted <= BURST, "{key}: {admitted}");
        assert!(*overflows > 0 || *admitted == BURST, "{key}: {admitted}");
        overflowed += usize::from(*overflows > 0);
    }
    assert!(overflowed < whole.len() / 50, "{overflowed} of {} keys", whole.len());
}

/// The tables of `docs/policies/rate-limit.md`.
#[test]
fn the_page_has_the_right_numbers() {
    for (rate, burst, at_once, then, retry_after) in [
        (100.0, 1, 1, 1_000, 1),
        (100.0, 50, 50, 1_000, 1),
        (100.0, 100, 100, 1_000, 1),
        (10.0 / 60.0, 1, 1, 1, 6),
        (10.0 / 60.0, 20, 20, 1, 6),
        (1.0 / 3600.0, 5, 5, 0, 3600),
    ] {
        let mut now = Instant::now();
        let limiter = RateLimiter::new(quota(rate, burst), None, now);
        assert_eq!((0..1_000).filter(|_| admitted(&limiter, 0, now)).count(), at_once);
        let Verdict::Limited { wait } = limiter.take(0, now).verdict else { panic!("admitted") };
        assert_eq!(wait.as_secs() + u64::from(wait.subsec_nanos() > 0), retry_after);
        let mut later = 0;
        for _ in 0..2_000 {
            now += Duration::from_millis(5);
            later += u32::from(admitted(&limiter, 0, now));
        }
        assert_eq!(later, then, "{rate} {burst}");
    }
    for (keys, kib, without) in [(1_000, 32, 0), (10_000, 512, 0), (1_000_000, 32 * 1024, 333)] {
        let now = Instant::now();
        let limiter = RateLimiter::new(quota(1.0, 1), Some(count(keys)), now);
        assert_eq!(limiter.table_bytes(), kib * 1024);
        let mut rng = Rng::from_seed(4);
        let overflows = (0..keys).filter(|_| limiter.take(rng.bits(), now).overflow).count();
        assert!(overflows <= without, "{overflows} of {keys}");
    }
}
