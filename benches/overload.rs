//! The bar for overload, on real sockets and a clock: at three times the capacity at least 90 % of it are served, and
//! half of the refusals come within 5 ms. Prints pass or fail for each line; for an otherwise idle machine.
//!
//! `cargo bench --bench overload`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench"
)]

#[path = "../tests/support/overload.rs"]
mod overload;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::time::Duration;

use overload::{Slots, offer};
use support::Proxy;
use traffic::Setup;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("limit         queue   offered/s  goodput        refused, median");
    for (name, keys, queue) in [
        ("in_flight: 16", "limits: { in_flight: 16, pending: 256, queue: 1s }", "1s"),
        ("in_flight: 16", "limits: { in_flight: 16, pending: 256, queue: 100ms }", "100ms"),
        ("gradient", "adaptive: gradient", "1s"),
        ("gradient", "adaptive: gradient, limits: { queue: 100ms }", "100ms"),
    ] {
        let slots = Slots::new(16, Duration::from_millis(40));
        let setup = Setup::new(&[slots.upstream.address]).upstream(keys).workers(2);
        let proxy = Proxy::start(&setup.yaml());
        let (to, rate) = (proxy.address("outbound"), slots.capacity() * 3.0);
        drop(offer(to, rate, Duration::from_secs(2), 600));
        let offered = offer(to, rate, Duration::from_secs(8), 600);
        let capacity = slots.capacity() * offered.elapsed.as_secs_f64();
        let goodput = offered.served as f64 / capacity;
        let median = offered.median_refusal();
        let passed = goodput >= 0.9 && median < Duration::from_millis(5);
        println!(
            "{name:<13} {queue:<7} {rate:<10.0} {:>5.1} %        {:>6.2} ms   {}",
            goodput * 100.0,
            median.as_secs_f64() * 1e3,
            if passed { "pass" } else { "FAIL" }
        );
    }
}
