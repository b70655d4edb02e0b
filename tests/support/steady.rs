//! Callers at a steady rate, and what they see.
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Connection, Proxy};
use crate::traffic::pause;

/// The retries under which one broken endpoint of three is to be unseen.
pub const RETRY: &str = "retry: { when: [reset, gateway-error, per-try-timeout], per_try: 300ms }";

fn wait_until(then: Instant) {
    let left = then.saturating_duration_since(Instant::now());
    pause(u64::try_from(left.as_millis()).unwrap());
}

/// What callers at a steady rate saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub asked: usize,
    /// Other than 200, after the first second.
    pub failed: usize,
    pub slowest: Duration,
}

/// Asks `per_second` times a second for `time`, from eight connections.
pub fn load(proxy: &Proxy, per_second: u32, time: Duration) -> Seen {
    const CALLERS: u32 = 8;
    let to = proxy.address("outbound");
    let start = Instant::now();
    let asked = AtomicUsize::new(0);
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let asked = &asked;
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    let mut connection = Connection::open(to);
                    let gap = Duration::from_secs(1) * CALLERS / per_second;
                    let mut next = start + gap * caller / CALLERS;
                    while start.elapsed() < time {
                        wait_until(next);
                        let sent = Instant::now();
                        connection.request("GET", "/", &[], b"");
                        let reply = connection.reply();
                        seen.slowest = seen.slowest.max(sent.elapsed());
                        let counts = sent.saturating_duration_since(start) > Duration::from_secs(1);
                        seen.failed += usize::from(counts && reply.status != 200);
                        asked.fetch_add(1, Ordering::Relaxed);
                        next += gap;
                    }
                    seen
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    Seen {
        asked: asked.into_inner(),
        failed: all.iter().map(|seen| seen.failed).sum(),
        slowest: all.iter().map(|seen| seen.slowest).max().unwrap(),
    }
}
