//! Overload and recovery in virtual time: the real gate, queue and limits before an upstream of a known capacity.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;
use crate::balance::Policy;
use crate::base::rng::Rng;
use crate::io::tick::Tick;
use crate::metrics::{GateFeatures, Metrics};
use crate::policy::breaker::BreakerSettings;
use crate::policy::gradient;

const MS: Duration = Duration::from_millis(1);

/// What is on at an upstream with `slots`, each of which serves one request in `service`.
#[derive(Clone, Copy)]
struct Scene {
    slots: u32,
    service: Duration,
    in_flight: Option<u32>,
    queue: Duration,
    policy: GatePolicy,
    /// Of each request, from its arrival.
    deadline: Duration,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            slots: 10,
            service: 50 * MS,
            in_flight: Some(10),
            queue: Duration::from_secs(1),
            policy: GatePolicy::default(),
            deadline: Duration::from_secs(15),
        }
    }
}

/// How requests ended.
#[derive(Default)]
struct Tally {
    served: Cell<u32>,
    /// Those that were served while requests were offered.
    in_time: Cell<u32>,
    failed: Cell<u32>,
    /// How long those that were refused had waited for it.
    refused: RefCell<Vec<Duration>>,
    /// The most that were let in at once.
    most: Cell<u32>,
}

struct World {
    scene: Scene,
    upstream: Arc<Upstream>,
    locals: Rc<LocalUpstreams>,
    slots: Rc<Semaphore>,
    works: Rc<Cell<bool>>,
    tick: Tick,
    rng: Rc<RefCell<Rng>>,
}

impl World {
    fn new(scene: Scene) -> Self {
        let metrics = Metrics::new(&[]).unwrap();
        let policy = UpstreamPolicy {
            protocol: Protocol::Http1,
            connect_timeout: None,
            pool: PoolPolicy { idle: None, max_idle: 0, max_requests: None, max_age: None },
            queue: scene.queue,
            budget: BudgetPolicy { ratio: 0.0, floor_per_second: 0.0, window: 10_000 * MS },
        };
        let in_flight = if scene.policy.adaptive { Some(gradient::FIRST) } else { scene.in_flight };
        let limits = LimitSettings { connections: None, in_flight, pending: Some(256) };
        let now = Instant::now();
        let features = GateFeatures { breaker: true, adaptive: true, throttle: true };
        let handles = metrics.gate.gate("a", features, &breaker_words(), &rejection_words());
        let upstream = Arc::new(Upstream::new(
            "a",
            policy,
            limits,
            Gate::new(&scene.policy, handles, now),
            Balancer::starting_at(Policy::Random, 0),
            metrics.upstream.upstream("a", &[], &[], false),
            now,
        ));
        Self {
            scene,
            upstream,
            locals: Rc::new(LocalUpstreams::default()),
            slots: Rc::new(Semaphore::new(scene.slots as usize)),
            works: Rc::new(Cell::new(true)),
            tick: Tick::new(now),
            rng: Rc::new(RefCell::new(Rng::from_seed(7))),
        }
    }

    /// The worker's tick and the control thread's.
    fn start(&self) {
        let (locals, upstream) = (Rc::clone(&self.locals), Arc::clone(&self.upstream));
        drop(tokio::task::spawn_local(self.tick.clone().run(move |now| {
            locals.wake_waiting();
            upstream.tick(now);
        })));
    }

    async fn request(&self, tally: &Tally) {
        let start = Instant::now();
        let deadline = start + self.scene.deadline;
        let local = self.locals.get(&self.upstream, start);
        let entered = match local.try_enter(&self.rng) {
            Ok(Some(slot)) => Ok(slot),
            Ok(None) => local.wait_to_enter(&self.tick, Some(deadline)).await,
            Err(error) => Err(error),
        };
        let Ok(mut slot) = entered else {
            tally.refused.borrow_mut().push(start.elapsed());
            return;
        };
        let sent = Instant::now();
        tally.most.set(tally.most.get().max(self.upstream.limits.current(Resource::InFlight)));
        if !self.works.get() {
            slot.settle(&Ended::of_reason(Reason::ConnectFailed, sent.elapsed()));
            tally.failed.set(tally.failed.get() + 1);
            return;
        }
        let served = async {
            let _place = self.slots.acquire().await;
            tokio::time::sleep(self.scene.service).await;
        };
        if tokio::time::timeout_at(deadline, served).await.is_ok() {
            slot.settle(&Ended::of_response(http::StatusCode::OK, None, sent.elapsed()));
            tally.served.set(tally.served.get() + 1);
        } else {
            slot.settle(&Ended::of_reason(Reason::Timeout, sent.elapsed()));
            tally.failed.set(tally.failed.get() + 1);
        }
    }

    /// Offers `per_second` requests for `seconds`, at random intervals, and waits for the last of them.
    async fn offer(self: &Rc<Self>, per_second: f64, seconds: u64) -> Tally {
        let tally = Rc::new(Tally::default());
        let mut rng = Rng::from_seed(11);
        let (mut at, end) = (Instant::now(), Instant::now() + Duration::from_secs(seconds));
        let mut asked = Vec::new();
        while at < end {
            tokio::time::sleep_until(at).await;
            let (world, counts) = (Rc::clone(self), Rc::clone(&tally));
            asked.push(tokio::task::spawn_local(async move { world.request(&counts).await }));
            at += Duration::from_secs_f64(-(1.0 - rng.fraction()).ln() / per_second);
        }
        tally.in_time.set(tally.served.get());
        for request in asked {
            request.await.unwrap();
        }
        Rc::into_inner(tally).unwrap()
    }

    fn capacity(&self) -> f64 {
        f64::from(self.scene.slots) / self.scene.service.as_secs_f64()
    }
}

fn median(times: &Tally) -> Duration {
    let mut times = times.refused.borrow().clone();
    times.sort_unstable();
    times[times.len() / 2]
}

fn run<T>(scene: Scene, test: impl AsyncFnOnce(Rc<World>) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let world = async {
        let world = Rc::new(World::new(scene));
        world.start();
        test(world).await
    };
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), world)
}

/// Goodput at three times the capacity, as a share of it, the median time of a refusal, and the most that were let in at once.
fn overload(scene: Scene) -> (f64, Duration, u32) {
    run(scene, async |world| {
        const SECONDS: u64 = 5;
        // Adaptive limits learn first.
        world.offer(world.capacity() * 3.0, if scene.policy.adaptive { 20 } else { 1 }).await;
        let tally = world.offer(world.capacity() * 3.0, SECONDS).await;
        let served = f64::from(tally.in_time.get());
        (served / (world.capacity() * SECONDS as f64), median(&tally), tally.most.get())
    })
}

#[test]
fn at_three_times_the_capacity_nine_tenths_of_it_are_served_and_refusals_come_at_once() {
    let fixed = Scene::default();
    let adaptive = GatePolicy { adaptive: true, ..GatePolicy::default() };
    for (name, scene) in [
        ("fixed", fixed),
        ("fixed, few slots", Scene { slots: 2, in_flight: Some(2), service: 200 * MS, ..fixed }),
        ("fixed, many slots", Scene { slots: 50, in_flight: Some(50), ..fixed }),
        ("fixed, short queue", Scene { queue: 100 * MS, ..fixed }),
        ("fixed, short deadlines", Scene { deadline: 200 * MS, ..fixed }),
        ("gradient", Scene { policy: adaptive, ..fixed }),
        ("gradient, few slots", Scene { policy: adaptive, slots: 2, ..fixed }),
        ("gradient, many slots", Scene { policy: adaptive, slots: 50, ..fixed }),
    ] {
        let (goodput, refusal, most) = overload(scene);
        println!("{name}: {goodput:.3} of the capacity, refused after {refusal:?}, {most} at once");
        assert!(goodput >= 0.9, "{name}: {goodput:.3} of the capacity");
        assert!(refusal < 5 * MS, "{name}: refused after {refusal:?}");
        // What latency finds may be twice what is needed, and is not below what it starts with.
        let allowed = match scene.in_flight {
            Some(fixed) if !scene.policy.adaptive => fixed,
            _ => (2 * scene.slots).max(gradient::FIRST + 5),
        };
        assert!(most <= allowed, "{name}: {most} at once");
    }
}

#[test]
fn an_upstream_that_returns_has_all_of_its_traffic_two_seconds_after_the_breakers_time() {
    let breaker = BreakerSettings {
        errors: 0.5,
        slow: None,
        window: Duration::from_secs(10),
        min_requests: 20,
        open_for: Duration::from_secs(5),
        probes: 3,
    };
    let all = GatePolicy { breaker: Some(breaker), adaptive: true, throttle: Some(2.0) };
    let alone = |policy| Scene { policy, in_flight: Some(1_024), ..Scene::default() };
    for (name, scene) in [
        ("breaker", alone(GatePolicy { breaker: Some(breaker), ..GatePolicy::default() })),
        ("throttle", alone(GatePolicy { throttle: Some(2.0), ..GatePolicy::default() })),
        ("all three", alone(all)),
    ] {
        run(scene, async |world| {
            let rate = world.capacity() * 0.8;
            let before = world.offer(rate, 20).await;
            assert!(before.failed.get() == 0 && before.refused.borrow().is_empty(), "{name}");
            world.works.set(false);
            let down = world.offer(rate, 62).await;
            assert!(down.served.get() == 0, "{name}");
            if scene.policy.breaker.is_some() {
                // Until half of the window has failed, and then a probe each five seconds.
                let noticed = rate * 5.0;
                let failed = f64::from(down.failed.get());
                assert!(failed < noticed * 1.1 + 20.0, "{name}: {failed}");
            }
            world.works.set(true);
            let open = if scene.policy.breaker.is_some() { 5 } else { 0 };
            world.offer(rate, open + 2).await;
            let after = world.offer(rate, 10).await;
            assert_eq!(after.failed.get(), 0, "{name}");
            let refused = after.refused.borrow().len();
            assert_eq!(refused, 0, "{name}: of {}", after.served.get());
        });
    }
}

#[test]
fn who_waits_is_let_in_in_order_and_one_whose_time_is_over_costs_no_place() {
    let scene = Scene { slots: 1, in_flight: Some(1), service: 100 * MS, ..Scene::default() };
    run(scene, async |world| {
        let local = world.locals.get(&world.upstream, Instant::now());
        let first = local.try_enter(&world.rng).unwrap().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let waits = [(1, 5_000), (2, 30), (3, 5_000), (4, 30), (5, 5_000)].map(|(name, millis)| {
            let (world, order) = (Rc::clone(&world), Rc::clone(&order));
            tokio::task::spawn_local(async move {
                let local = world.locals.get(&world.upstream, Instant::now());
                let deadline = Instant::now() + millis * MS;
                let entered = local.wait_to_enter(&world.tick, Some(deadline)).await;
                order.borrow_mut().push((name, entered.is_ok()));
                tokio::time::sleep(10 * MS).await;
                drop(entered);
            })
        });
        tokio::time::sleep(100 * MS).await;
        drop(first);
        for wait in waits {
            wait.await.unwrap();
        }
        let order = order.borrow();
        assert_eq!(*order, [(2, false), (4, false), (1, true), (3, true), (5, true)]);
        assert_eq!(world.upstream.limits.in_flight(), 0);
    });
}
