//! An upstream of a known capacity, and callers that offer more than that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Connection, Upstream, read_request};
use crate::traffic::ok;

/// Serves so many requests at once, each for the same time; the others wait inside it.
pub struct Slots {
    pub upstream: Upstream,
    pub slots: u32,
    pub service: Duration,
    pub served: Arc<AtomicU32>,
    /// The most that were inside it at once.
    pub most: Arc<AtomicU32>,
    /// For how long its slots were taken, all together, in microseconds.
    pub busy: Arc<AtomicU64>,
}

#[expect(clippy::disallowed_methods, reason = "a thread of a test, not a worker")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

impl Slots {
    pub fn new(slots: u32, service: Duration) -> Self {
        let (served, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let busy: Arc<AtomicU64> = Arc::default();
        let (done, seen, taken) = (Arc::clone(&served), Arc::clone(&most), Arc::clone(&busy));
        let (free, freed) = (Mutex::new(slots), Condvar::new());
        let inside = AtomicU32::new(0);
        let upstream = Upstream::serve(move |_, stream| {
            let mut stream = BufReader::new(stream);
            while read_request(&mut stream).is_some() {
                seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut slots = freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap();
                *slots -= 1;
                drop(slots);
                let begun = Instant::now();
                sleep(service);
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
                taken.fetch_add(micros, Ordering::SeqCst);
                *free.lock().unwrap() += 1;
                freed.notify_one();
                inside.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                if stream.get_mut().write_all(&ok("served")).is_err() {
                    return;
                }
            }
        });
        Self { upstream, slots, service, served, most, busy }
    }

    /// The share of `time` for which its slots were taken: what of its capacity was used, on a machine that starves as well.
    pub fn used(&self, time: Duration) -> f64 {
        let busy = Duration::from_micros(self.busy.load(Ordering::SeqCst));
        busy.as_secs_f64() / (time.as_secs_f64() * f64::from(self.slots))
    }

    /// Requests per second.
    pub fn capacity(&self) -> f64 {
        f64::from(self.slots) / self.service.as_secs_f64()
    }
}

/// What became of the requests that were offered.
#[derive(Default)]
pub struct Offered {
    pub all: usize,
    pub served: usize,
    /// How long each refusal took, and its reason.
    pub refused: Vec<(Duration, String)>,
    pub elapsed: Duration,
}

impl Offered {
    pub fn median_refusal(&self) -> Duration {
        let mut times: Vec<Duration> = self.refused.iter().map(|(time, _)| *time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.served += other.served;
        self.refused.extend(other.refused);
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Offers `per_second` requests for `time`, from so many callers in turn, each with a connection of its own.
pub fn offer(to: SocketAddr, per_second: f64, time: Duration, callers: u32) -> Offered {
    let pace = Duration::from_secs_f64(f64::from(callers) / per_second);
    let begun = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let first = begun + pace * caller / callers;
            std::thread::spawn(move || one_caller(to, begun, first, begun + time, pace))
        })
        .collect();
    let mut all = Offered::default();
    threads.into_iter().for_each(|thread| all.add(thread.join().unwrap()));
    all
}

fn one_caller(
    to: SocketAddr,
    begun: Instant,
    mut next: Instant,
    end: Instant,
    pace: Duration,
) -> Offered {
    let mut connection = Connection::open(to);
    let mut offered = Offered::default();
    while next < end {
        sleep(next.saturating_duration_since(Instant::now()));
        next += pace;
        let start = Instant::now();
        connection.request("GET", "/", &[], b"");
        let reply = connection.reply();
        offered.all += 1;
        match (reply.status, reply.header("x-outrigger-reason")) {
            (200, None) => offered.served += 1,
            (503, Some(reason)) => offered.refused.push((start.elapsed(), reason.to_owned())),
            other => panic!("{other:?}: {}", reply.text()),
        }
    }
    offered.elapsed = begun.elapsed();
    offered
}
