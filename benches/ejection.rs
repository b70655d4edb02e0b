//! The bar for ejection, on real sockets and a clock: one of three endpoints refuses, resets, hangs or answers 503 for a
//! minute, at 500 requests a second. At least 99.9 % succeed after the first second, and none takes longer than the
//! route's timeout. Prints pass or fail for each kind.
//!
//! `cargo bench --bench ejection`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench"
)]

#[path = "../tests/support/steady.rs"]
mod steady;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::time::Duration;

use steady::{RETRY, load};
use support::{Proxy, Upstream, refusing};
use traffic::{Setup, answer, silent};

const TIMEOUT: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (hanging, resetting) = (silent(), Upstream::scripted(|_| Vec::new()));
    let failing = Upstream::scripted(|_| answer(503, "", "no"));
    println!("one of three     requests   good        slowest   probes that failed");
    for (kind, bad) in [
        ("refusing", refusing()),
        ("resetting", resetting.address),
        ("hanging", hanging.address),
        ("answering 503", failing.address),
    ] {
        let good: Vec<Upstream> = (0..2).map(|_| Upstream::ok("ok")).collect();
        let setup = Setup::new(&[good[0].address, bad, good[1].address]);
        let proxy = Proxy::start(&setup.route(&format!("timeout: 5s, {RETRY}")).yaml());
        let seen = load(&proxy, 500, Duration::from_secs(60));
        let probes = proxy.metrics().sum(
            "outrigger_upstream_ejections_total",
            &[("reason", "probe"), ("enforced", "true")],
        );
        let passed = seen.failed * 1_000 <= seen.asked && seen.slowest < TIMEOUT;
        println!(
            "{kind:<16} {:<10} {:>7.3} %   {:>4} ms   {probes:<5} {}",
            seen.asked,
            100.0 - 100.0 * seen.failed as f64 / seen.asked as f64,
            seen.slowest.as_millis(),
            if passed { "pass" } else { "FAIL" }
        );
    }
}
