use std::collections::VecDeque;

use super::*;
use crate::base::rng::Rng;

const STEP: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(50);

/// An upstream with `slots`, each taken for `service`, and an endless queue inside; asked by a caller that keeps to the
/// limit. In steps of a millisecond.
struct Bench {
    gradient: Gradient,
    sums: LatencySums,
    slots: usize,
    service: Duration,
    /// When they were sent.
    waiting: VecDeque<Instant>,
    /// When they end, when they were sent.
    served: Vec<(Instant, Instant)>,
    now: Instant,
    ticked: Instant,
    limits: Vec<u32>,
    done: u64,
}

impl Bench {
    fn new(slots: usize, service_ms: u64) -> Self {
        let now = Instant::now();
        Self {
            gradient: Gradient::new(now),
            sums: LatencySums::default(),
            slots,
            service: Duration::from_millis(service_ms),
            waiting: VecDeque::new(),
            served: Vec::new(),
            now,
            ticked: now,
            limits: Vec::new(),
            done: 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.served.len()
    }

    /// Runs for `seconds`, with at most `wanted` requests at once. Returns the share of its capacity that was used.
    fn run(&mut self, seconds: u64, wanted: usize) -> f64 {
        let (begun, end) = (self.done, self.now + Duration::from_secs(seconds));
        while self.now < end {
            let (now, sums, done) = (self.now, &self.sums, &mut self.done);
            self.served.retain(|(ends, sent)| {
                if *ends <= now {
                    sums.add(now - *sent);
                    *done += 1;
                }
                *ends > now
            });
            while self.in_flight() < wanted.min(self.gradient.limit() as usize) {
                self.waiting.push_back(self.now);
            }
            while self.served.len() < self.slots
                && let Some(sent) = self.waiting.pop_front()
            {
                self.served.push((self.now + self.service, sent));
            }
            if self.now >= self.ticked + TICK {
                self.ticked = self.now;
                let in_flight = u32::try_from(self.in_flight()).unwrap();
                self.limits.push(self.gradient.tick(self.sums.seen(), in_flight, self.now));
            }
            self.now += STEP;
        }
        let capacity = self.slots as f64 * seconds as f64 / self.service.as_secs_f64();
        (self.done - begun) as f64 / capacity
    }
}

#[test]
fn it_finds_the_capacity_and_uses_it() {
    for (slots, service) in [(1, 20), (4, 20), (10, 20), (10, 100), (100, 20), (300, 50)] {
        let mut bench = Bench::new(slots, service);
        bench.run(60, 2_000);
        bench.limits.clear();
        let used = bench.run(30, 2_000);
        let (least, most) =
            (bench.limits.iter().min().unwrap(), bench.limits.iter().max().unwrap());
        println!(
            "{slots} slots of {service} ms: limit {least} to {most}, {used:.3} of the capacity"
        );
        assert!(used > 0.97, "{slots} slots of {service} ms: {used} of the capacity");
        let bound = (slots * 5 / 2).max(6);
        assert!(*most as usize <= bound, "{slots} slots of {service} ms: {most} at once");
    }
}

#[test]
fn an_overload_of_half_an_hour_does_not_become_normal() {
    let mut bench = Bench::new(10, 20);
    bench.run(1_800, 2_000);
    bench.limits.clear();
    assert!(bench.run(30, 2_000) > 0.97);
    let most = bench.limits.iter().max();
    assert!(most <= Some(&25), "{most:?}");
}

#[test]
fn a_slower_upstream_gets_less_at_once_and_a_recovered_one_more_again() {
    let mut bench = Bench::new(20, 20);
    bench.run(30, 2_000);
    bench.slots = 4;
    bench.run(30, 2_000);
    let fewer = bench.gradient.limit();
    assert!(fewer <= 12, "{fewer}");
    bench.slots = 20;
    bench.run(30, 2_000);
    let again = bench.gradient.limit();
    assert!(again >= 20, "{again}");
}

#[test]
fn light_traffic_leaves_the_limit_alone() {
    let mut bench = Bench::new(100, 20);
    bench.run(60, 5);
    assert_eq!(bench.gradient.limit(), FIRST);
}

#[test]
fn answers_that_say_too_much_shrink_the_limit_however_fast_they_come() {
    let mut bench = Bench::new(100, 20);
    bench.run(20, 200);
    let before = bench.gradient.limit();
    for _ in 0..400 {
        bench.sums.refused();
        bench.sums.add(Duration::from_millis(1));
        bench.now += TICK;
        bench.gradient.tick(bench.sums.seen(), before, bench.now);
    }
    assert!(bench.gradient.limit() < before / 2, "{} of {before}", bench.gradient.limit());
}

#[test]
fn random_walks_keep_the_limit_within_bounds() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        let sums = LatencySums::default();
        for _ in 0..2_000 {
            for _ in 0..rng.below(30) {
                match rng.below(20) {
                    0 => sums.refused(),
                    1 => sums.add(Duration::ZERO),
                    2 => sums.add(Duration::from_secs(3_600)),
                    _ => sums.add(rng.duration_up_to(Duration::from_millis(300))),
                }
            }
            now += rng.duration_up_to(TICK * 3);
            let in_flight = u32::try_from(rng.below(3_000)).unwrap();
            let limit = gradient.tick(sums.seen(), in_flight, now);
            let least = if gradient.look.is_some() { LEAST / 3 } else { LEAST };
            assert!((least..=MOST).contains(&limit), "{limit}, seed {seed}");
            assert!(gradient.normal.is_finite() && gradient.normal >= 0.0, "seed {seed}");
        }
    }
}
