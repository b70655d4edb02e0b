//! `outrigger simulate`: the same seed gives the same bytes, the page has the figures of a fresh run, and the policies
//! keep in virtual time what they promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outrigger::config::{Config, Scenario, load_file, load_str, render, scenario_from};
use outrigger::simulate::{Phase, Run, json, plot, run, table};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn outrigger(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.current_dir(root()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scenario(yaml: &str) -> Scenario {
    let loaded = scenario_from("scenario.yaml", yaml, &|_| None);
    let findings = render(&loaded.diagnostics, &loaded.source, false);
    loaded.scenario.unwrap_or_else(|| panic!("{findings}"))
}

/// A route with `route`'s keys to an upstream with `upstream`'s.
fn policies(route: &str, upstream: &str) -> Config {
    let yaml = format!(
        "listeners: {{ outbound: {{ bind: 127.0.0.1:1, routes: [{{ to: app{route} }}] }} }}\nupstreams: {{ app: {{ endpoints: [127.0.0.1:2]{upstream} }} }}\n"
    );
    let loaded = load_str("outrigger.yaml", &yaml, &|_| None);
    let findings = render(&loaded.diagnostics, &loaded.source, false);
    loaded.config.unwrap_or_else(|| panic!("{findings}"))
}

fn play(yaml: &str, config: &Config) -> Run {
    run(&scenario(yaml), config, None, 1).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let yaml = "
duration: 40s
grace: 5s
clients: { sidecars: 7, workers: 3, rate: 100/s }
servers: { endpoints: 4, service_time: { median: 10ms, p99: 80ms }, slots: 2 }
events:
  - { at: 10s, for: 5s, endpoints: 1, fault: { flap: { every: 2s, down: 1s } } }
  - { at: 12s, for: 5s, fault: { errors: 20% } }
  - { at: 14s, for: 5s, load: 3x }
";
    let scenario = scenario(yaml);
    let shaped = ", retry: { when: [5xx, reset] }, hedge: p90, rate_limit: { rate: 10/s }";
    let config = policies(shaped, ", balance: round_robin");
    let all = |seed: u64| {
        let runs = [("one".to_owned(), run(&scenario, &config, None, seed).unwrap())];
        let json = json(&scenario, seed, &runs).to_string();
        [table(&scenario, seed, &runs), json, plot(&scenario, seed, &runs)]
    };
    assert_eq!(all(7), all(7));
    for (one, other) in all(7).iter().zip(all(8)) {
        assert_ne!(*one, other);
    }
}

#[test]
fn the_command_prints_a_table_or_json_and_draws() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("run.svg");
    let file = "config/scenarios/flapping.yaml";
    let output = outrigger(&["simulate", file, "--seed", "3", "--svg", svg.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("seed 3") && shown.contains("\ndefaults  before"), "{shown}");
    let drawn = std::fs::read_to_string(svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));

    let fixed = "config/scenarios/policies/fixed-retries.yaml";
    let args = ["simulate", "-c", "config/nine-lines.yaml", "-c", fixed, file, "--format", "json"];
    let output = outrigger(&args);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["runs"][1]["policies"], "fixed-retries");
    let run = &report["runs"][0]["result"];
    assert_eq!(run["seconds"].as_array().unwrap().len(), 120);
    assert!(run["during"]["requests"].as_u64().unwrap() > 5_000, "{run}");
}

#[test]
fn all_mistakes_of_a_scenario_are_told_with_their_places() {
    let yaml = "\
duratoin: 60s
clients: { rate: 100 }
servers:
  endpoints: 0
  service_time: { median: 10ms, p99: 5ms }
events:
  - { at: 10s, for: 10s, fault: refusal }
  - { at: 10s, fault: { slow: 10 } }
  - { at: 10s, for: 10s, load: 2x, fault: hang }
";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = outrigger(&["simulate", "-c", "no-such-file.yaml", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for part in [
        "error[unknown-key]: `duratoin` is not a key of a scenario",
        "did you mean `duration`?",
        "bad.yaml:1:1",
        "error[missing-unit]: `rate` lacks its unit: `100`",
        "error[out-of-range]: `endpoints` is out of range: `0`",
        "the 99th percentile is not below the median",
        "bad.yaml: 4 errors, 0 warnings",
        "no-such-file.yaml",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }

    // What events may be is known only once their clients and servers are.
    std::fs::write(
        &file,
        yaml.replace("duratoin", "duration")
            .replace("rate: 100", "rate: 100/s")
            .replace("endpoints: 0", "endpoints: 2")
            .replace("p99: 5ms", "p99: 50ms"),
    )
    .unwrap();
    let said = text(&outrigger(&["simulate", file.to_str().unwrap()]).stderr);
    for part in [
        "did you mean `refuse`?",
        "write a factor like `3x`, from 0.01x to 1000x",
        "an event needs `for`",
        "error[exclusive-keys]: `load` and `fault` exclude each other",
        "bad.yaml: 4 errors, 0 warnings",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn a_route_is_found_by_its_name() {
    let config = load_file(&root().join("config/retries.yaml")).config.unwrap();
    let scenario = scenario(
        "
duration: 40s
grace: 10s
clients: { rate: 50/s }
servers: { endpoints: 3, service_time: 5ms }
events: [{ at: 10s, for: 10s, fault: { errors: 50% } }]
",
    );
    let amplification = |route: Option<&str>| {
        run(&scenario, &config, route, 1).unwrap().during.amplification.unwrap()
    };
    // `charge` is the first, and never retries; `orders` retries 503.
    assert!((amplification(None) - 1.0).abs() < 1e-9);
    assert!(amplification(Some("orders")) > 1.1);
    let error = run(&scenario, &config, Some("nobody"), 1).unwrap_err();
    assert_eq!(error.to_string(), "the configuration has no route nobody `to` an upstream");
}

/// Without a fault every server answers in its own time: the simulator adds nothing but the wire.
#[test]
fn an_idle_system_answers_in_the_service_time_and_a_round_trip() {
    let run = play(
        "
duration: 20s
clients: { sidecars: 3, rate: 20/s }
servers: { endpoints: 2, service_time: 10ms, rtt: 2ms, slots: 100 }
",
        &policies("", ""),
    );
    let Phase { requests, failed, p50_ms, p99_ms, amplification, .. } = &run.before;
    assert!((250..400).contains(requests) && *failed == 0, "{run:?}");
    // A new connection costs another round trip.
    assert!(p50_ms.unwrap() >= 12.0 && p99_ms.unwrap() < 14.3, "{run:?}");
    assert_eq!(amplification, &Some(1.0));
    assert_eq!((run.recovery_seconds, run.metastable), (None, false));
}

/// An M/M/c queue is too much to hope for, but capacity is slots ÷ service time, and no more.
#[test]
fn servers_serve_what_their_slots_allow() {
    let run = play(
        "
duration: 40s
clients: { sidecars: 4, rate: 400/s }
servers: { endpoints: 2, service_time: 20ms, slots: 2, queue: 5 }
",
        &policies("", ", balance: least_request, outliers: never"),
    );
    let good: u64 = run.seconds[5..35].iter().map(|second| second.good).sum();
    // 4 slots ÷ 20 ms = 200/s.
    assert!((5_900..=6_030).contains(&good), "{good}");
}

/// What is promised of a total outage, whatever its kind: at any rate, with any number of workers, attempts ≤ 1.2 × requests + 3/s × t + one second's floor.
#[test]
fn a_total_outage_costs_no_more_than_the_budget() {
    let config = policies(
        ", timeout: 2s, retry: { when: [5xx, reset, per-try-timeout], attempts: 4, per_try: 300ms }",
        ", limits: { in_flight: unlimited }",
    );
    let all = [(5, 1), (5, 4), (50, 1), (50, 4), (1_000, 1), (1_000, 4)];
    for (fault, rates) in [
        ("{ errors: 100% }", &all[..]),
        ("refuse", &all),
        ("{ reset: 100% }", &[(5, 4), (50, 4)]),
        ("hang", &[(5, 4), (50, 4)]),
    ] {
        for (rate, workers) in rates {
            // Requests of an earlier time have left the budget's window when the outage begins.
            let run = play(
                &format!(
                    "
duration: 30s
grace: 4s
clients: {{ sidecars: 1, workers: {workers}, rate: {rate}/s }}
servers: {{ endpoints: 3, service_time: 5ms, slots: 1000 }}
events: [{{ at: 10s, for: 10s, fault: {fault} }}]
"
                ),
                &config,
            );
            let seconds = &run.seconds[10..20];
            let requests: u64 = seconds.iter().map(|second| second.offered).sum();
            let attempts: u64 = seconds.iter().map(|second| second.attempts).sum();
            // Credit that was earned in the 10 s before, and one request that arrived before and is tried again now.
            let earlier: u64 = run.seconds[..10].iter().map(|second| second.offered).sum();
            let most = 1.2 * requests as f64 + 0.2 * earlier as f64 + 3.0 * 10.0 + 3.0 + 1.0;
            assert!(attempts as f64 <= most, "{fault} {rate}/s {workers}: {attempts} > {most}");
            assert!(attempts > requests, "{fault} {rate}/s {workers}: it is tried again");
            let after = run.recovery_seconds.unwrap();
            assert!(after <= 2.0, "{fault} {rate}/s {workers}: recovered after {after} s");
            assert!(!run.metastable, "{fault} {rate}/s {workers}");
        }
    }
}

/// Refused connections, with the defaults: nothing of it lasts.
#[test]
fn after_refused_connections_everything_is_well_within_two_seconds() {
    for (rate, workers) in [(5, 1), (50, 4), (1_000, 4)] {
        let run = play(
            &format!(
                "
duration: 30s
grace: 4s
clients: {{ sidecars: 1, workers: {workers}, rate: {rate}/s }}
servers: {{ endpoints: 3, service_time: 5ms, slots: 1000 }}
events: [{{ at: 10s, for: 10s, fault: refuse }}]
"
            ),
            &policies("", ""),
        );
        let after = run.recovery_seconds.unwrap();
        assert!(after <= 2.0, "{rate}/s {workers}: recovered after {after} s");
        let late: u64 = run.seconds[22..].iter().map(|second| second.failed).sum();
        assert_eq!(late, 0, "{rate}/s {workers}");
    }
}

#[test]
fn one_slow_endpoint_of_five_hardly_shows_in_the_tail() {
    let p99 = |balance: &str, slow: &str| {
        let run = play(
            &format!(
                "
duration: 70s
grace: 5s
clients: {{ sidecars: 4, rate: 200/s }}
servers: {{ endpoints: 5, service_time: {{ median: 10ms, p99: 30ms }}, slots: 64 }}
events: [{{ at: 10s, for: 50s, endpoints: 1, fault: {{ slow: {slow} }} }}]
"
            ),
            &policies("", &format!(", balance: {balance}")),
        );
        run.during.p99_ms.unwrap()
    };
    let (without, with, turns) =
        (p99("peak_ewma", "1x"), p99("peak_ewma", "10x"), p99("round_robin", "10x"));
    assert!(with <= 1.5 * without, "{with} ms with a slow endpoint, {without} ms without");
    assert!(3.0 * with <= turns, "{with} ms by latency, {turns} ms in turns");
}

/// Keys are spread evenly enough, and a breakdown of one endpoint fails no request that another can take.
#[test]
fn policies_that_hash_play_as_well() {
    let yaml = "
duration: 40s
grace: 5s
clients: { sidecars: 4, rate: 200/s }
servers: { endpoints: 5, service_time: { median: 10ms, p99: 30ms }, slots: 64 }
events: [{ at: 10s, for: 20s, endpoints: 1, fault: refuse }]
";
    for policy in ["ring_hash", "maglev", "{ policy: maglev, zone_aware: true }"] {
        let config = policies(", hash: source_ip", &format!(", balance: {policy}"));
        let run = play(yaml, &config);
        assert_eq!(run.before.failed, 0, "{policy}");
        let shares = &run.before.endpoints_percent;
        assert!(shares.iter().all(|share| (15.0..25.0).contains(share)), "{policy} {shares:?}");
        let during = run.during.success_percent.unwrap();
        assert!(during > 99.5, "{policy}: {during} %");
        let shares = &run.during.endpoints_percent;
        assert!(shares[1..].iter().all(|share| *share > 15.0), "{policy} {shares:?}");
    }
}

#[test]
fn a_rate_limit_admits_its_rate_and_refuses_the_rest_at_once() {
    let yaml = "
duration: 60s
grace: 5s
clients: { sidecars: 2, workers: 2, rate: 100/s }
servers: { endpoints: 2, service_time: 10ms }
";
    let play_with = |limit: &str| play(yaml, &policies(&format!(", rate_limit: {limit}"), ""));
    let run = play_with("{ rate: 20/s, burst: 20 }");
    // Two sidecars of 20 per second each. The first 5 s are not counted.
    let good = (run.before.requests - run.before.failed) as f64;
    assert!((good / 55.0 - 40.0).abs() < 1.0, "{good}");
    assert_eq!(run.before.failures["rate_limited"], run.before.failed);
    assert!(run.before.amplification.unwrap() < 0.5, "what is refused is not sent");
    // 10 000 callers of one request in 100 s each.
    let run = play_with("{ rate: 1/s, by: source }");
    let share = run.before.success_percent.unwrap();
    assert!(share > 95.0, "{share}");
}

#[test]
fn zone_aware_sidecars_stay_in_their_zone_until_it_fails() {
    let yaml = "
duration: 60s
grace: 5s
clients: { sidecars: 1, rate: 100/s }
servers: { endpoints: 4, zones: 2, service_time: 10ms }
events: [{ at: 20s, for: 20s, endpoints: 2, fault: refuse }]
";
    let shares = |run: &Run| {
        [&run.before, &run.during].map(|phase| phase.endpoints_percent.iter().take(2).sum::<f64>())
    };
    // The one sidecar stands in the first zone, which is the first half of the endpoints.
    let aware = play(yaml, &policies("", ", balance: { policy: peak_ewma, zone_aware: true }"));
    let [before, during] = shares(&aware);
    assert!(before > 99.9 && during < 25.0, "{before} {during}");
    assert!(aware.during.success_percent.unwrap() > 99.0);
    let [before, _] = shares(&play(yaml, &policies("", "")));
    assert!((40.0..60.0).contains(&before), "{before}");
    // Two sidecars, one in each: both halves are used alike.
    let two = play(
        &yaml.replace("sidecars: 1", "sidecars: 2"),
        &policies("", ", balance: { policy: peak_ewma, zone_aware: true }"),
    );
    let [before, _] = shares(&two);
    assert!((40.0..60.0).contains(&before), "{before}");
}

#[test]
fn spare_endpoints_are_asked_for_what_the_others_cannot_take() {
    let run = play(
        "
duration: 60s
grace: 5s
clients: { sidecars: 2, rate: 100/s }
servers: { endpoints: 4, spare: 2, service_time: 10ms }
events: [{ at: 20s, for: 20s, endpoints: 2, fault: refuse }]
",
        &policies("", ", health: { tcp: true, interval: 1s }"),
    );
    let spare = |phase: &Phase| phase.endpoints_percent.iter().skip(2).sum::<f64>();
    assert!(spare(&run.before) < 0.1, "{:?}", run.before.endpoints_percent);
    assert!(spare(&run.during) > 80.0, "{:?}", run.during.endpoints_percent);
}

/// One of three endpoints answers in 1 s, the others in 10 ms.
const IN_TURNS: &str = "
duration: 80s
grace: 5s
clients: { sidecars: 1, rate: 50/s }
servers: { endpoints: 3, service_time: 10ms, slots: 100 }
events: [{ at: 10s, for: 60s, endpoints: 1, fault: { slow: 100x } }]
";

const RICH: &str = "limits: { retry_budget: { ratio: 100%, floor: 1000/s } }";

#[test]
fn a_hedge_turns_one_slow_endpoint_in_three_into_its_delay() {
    let with = |route: &str, upstream: &str| {
        let upstream = format!(", balance: round_robin, {upstream}");
        play(IN_TURNS, &policies(route, &upstream)).during
    };
    let without = with("", RICH);
    assert!(without.p99_ms.unwrap() > 950.0 && without.amplification.unwrap() < 1.01);
    let hedged = with(", hedge: { after: 50ms }", RICH);
    assert!(hedged.p99_ms.unwrap() < 70.0, "{:?}", hedged.p99_ms);
    // A third, and some: a hedge takes a turn as well.
    let amplification = hedged.amplification.unwrap();
    assert!((1.3..1.4).contains(&amplification), "{amplification}");
    // A fifth of 50/s and the floor, 3/s, are 13 hedges per second; 17 are wanted.
    let budgeted = with(", hedge: { after: 50ms }", "slow_start: never");
    let extra = (budgeted.amplification.unwrap() - 1.0) * 50.0;
    assert!((12.0..14.0).contains(&extra), "{extra} per second");
}

/// The figures of `docs/policies/hedge.md`.
fn hedged_results() -> String {
    let file = |name: &str| {
        std::fs::read_to_string(root().join(format!("config/scenarios/{name}.yaml"))).unwrap()
    };
    let mut out = String::from(
        "| Scenario | `balance` | Without | p95 | after 50 ms |\n| --- | --- | --- | --- | --- |\n",
    );
    let scenarios = [
        ("one in three slow, in turns, a budget of 100 %", IN_TURNS.to_owned(), "round_robin"),
        ("[`stragglers`](../../config/scenarios/stragglers.yaml)", file("stragglers"), "peak_ewma"),
        ("[`one-slow`](../../config/scenarios/one-slow.yaml)", file("one-slow"), "peak_ewma"),
        ("[`brown-out`](../../config/scenarios/brown-out.yaml)", file("brown-out"), "peak_ewma"),
    ];
    for (name, yaml, balance) in scenarios {
        write!(out, "| {name} | `{balance}` |").unwrap();
        for hedge in ["", ", hedge: p95", ", hedge: { after: 50ms }"] {
            let budget = if yaml == IN_TURNS { format!(", {RICH}") } else { String::new() };
            let upstream = format!(", balance: {balance}{budget}");
            let run = play(&yaml, &policies(hedge, &upstream)).during;
            let (success, p99) = (run.success_percent.unwrap(), run.p99_ms.unwrap());
            let attempts = run.amplification.unwrap();
            write!(out, " {success:.0} %, {p99:.0} ms, {attempts:.2} |").unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn what_is_not_played_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("much.yaml");
    let yaml = "listeners: { outbound: { bind: 127.0.0.1:1, routes: [{ name: all, to: app, fault: { abort: { share: 1% } }, mirror: { shadow: 5% } }] } }
upstreams:
  app: { endpoints: [{ address: 127.0.0.1:2, labels: { version: two } }], subset: { version: two }, limits: { connections: 10 } }
  shadow: { endpoints: [127.0.0.1:3] }
";
    std::fs::write(&file, yaml).unwrap();
    let scenario = "config/scenarios/flapping.yaml";
    let output = outrigger(&["simulate", "-c", file.to_str().unwrap(), scenario]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    for what in [
        "much: `fault` of route all is not played: a scenario has",
        "much: `mirror` of route all is not played: no caller waits",
        "much: `subset` of upstream app is not played: all endpoints",
        "much: `limits.connections` of upstream app is not played: each request",
    ] {
        assert!(said.contains(what), "{what}\n{said}");
    }
    let output = outrigger(&["simulate", scenario]);
    assert_eq!(text(&output.stderr), "", "nothing is left out of the defaults");
}

#[test]
fn overload_at_three_times_the_capacity_leaves_the_capacity_and_refuses_at_once() {
    // 16 slots ÷ 20 ms = 800/s. The sidecar beside the service lets in as many as it works on, and two more.
    let config = policies("", ", limits: { in_flight: 18, pending: 4, queue: 5ms }");
    let run = play(
        "
duration: 60s
grace: 10s
clients: { sidecars: 1, rate: 400/s }
servers: { endpoints: 1, service_time: { median: 16.8ms, p99: 65ms }, slots: 16, rtt: 100us }
events: [{ at: 10s, for: 30s, load: 6x }]
",
        &config,
    );
    // exp(σ² ÷ 2) × 16.8 ms, σ = ln(65 ÷ 16.8) ÷ 2.326: 19.9 ms in the mean, 804/s.
    let good = run.during.requests - run.during.failed;
    let share = good as f64 / (804.0 * 30.0);
    assert!(share >= 0.9, "{share} of the capacity: {run:?}");
    let refused = run.during.refused_p50_ms.unwrap();
    assert!(refused < 5.0, "{refused} ms");
    assert!(run.recovery_seconds.unwrap() < 1.0 && !run.metastable, "{run:?}");
}

#[test]
fn a_breaker_spares_an_upstream_that_is_down_and_lets_it_return() {
    let run = play(
        "
duration: 60s
grace: 10s
clients: { sidecars: 2, workers: 2, rate: 200/s }
servers: { endpoints: 3, service_time: 5ms }
events: [{ at: 10s, for: 20s, fault: refuse }]
",
        &policies("", ", breaker: {}"),
    );
    // Three attempts each until half of the last 10 s have failed, then next to none.
    assert!(run.during.amplification.unwrap() < 0.5, "{:?}", run.during);
    let late: u64 = run.seconds[16..30].iter().map(|second| second.attempts).sum();
    assert!(late < 100, "{late} attempts in the last 14 s");
    // Open for 5 s at most, then one request at a time, then a ramp.
    assert!(run.recovery_seconds.unwrap() <= 15.0, "{:?}", run.recovery_seconds);
    assert!(run.during.failures.contains_key("breaker_open"), "{:?}", run.during.failures);
}

/// One endpoint of three that fails is taken out; one that fails now and then keeps most of its share.
#[test]
fn a_failing_endpoint_is_ejected_and_one_that_seldom_fails_is_not_shunned() {
    let share = |errors: &str| {
        let run = play(
            &format!(
                "
duration: 100s
grace: 20s
clients: {{ sidecars: 2, rate: 200/s }}
servers: {{ endpoints: 3, service_time: 5ms, slots: 64 }}
events: [{{ at: 10s, for: 60s, endpoints: 1, fault: {{ errors: {{ share: {errors}, status: 500 }} }} }}]
"
            ),
            &policies("", ""),
        );
        (run.during.endpoints_percent[0], run.during.failed)
    };
    let (failing, failed) = share("100%");
    assert!(failing < 1.0 && failed < 60, "{failing} % of the attempts, {failed} failed");
    let (seldom, _) = share("1%");
    assert!(seldom > 10.0, "{seldom} % of the attempts");
}

#[test]
fn an_adaptive_limit_keeps_goodput_where_time_outs_would_waste_it() {
    let good = |upstream: &str| {
        let run = play(
            "
duration: 60s
grace: 5s
clients: { sidecars: 4, rate: 250/s }
servers: { endpoints: 5, service_time: { median: 40ms, p99: 160ms }, slots: 4 }
events: [{ at: 20s, for: 25s, load: 2x }]
",
            &policies(", retry: { when: [5xx, per-try-timeout], per_try: 1s }", upstream),
        );
        run.during.success_percent.unwrap()
    };
    let (fixed, adaptive) = (good(""), good(", adaptive: gradient"));
    assert!(adaptive > fixed + 20.0, "{adaptive} % with an adaptive limit, {fixed} % without");
}

#[test]
fn health_checks_take_a_hanging_endpoint_out_for_good() {
    let timed_out = |upstream: &str| {
        let run = play(
            "
duration: 120s
grace: 10s
clients: { sidecars: 4, rate: 100/s }
servers: { endpoints: 3, service_time: 5ms }
events: [{ at: 20s, for: 60s, endpoints: 1, fault: hang }]
",
            &policies(", timeout: 1s", &format!(", balance: round_robin{upstream}")),
        );
        // From when the checks have decided: 3 failures, 5 s and 2 × 1 s apart.
        let late: u64 = run.seconds[35..80].iter().map(|second| second.failed).sum();
        (late, run.after.endpoints_percent[0])
    };
    let (checked, returned) = timed_out(", outliers: never, health: { http: /healthz }");
    assert_eq!(checked, 0, "an endpoint that fails its checks is not asked");
    assert!(returned > 20.0, "it returns: {returned} %");
    let (unchecked, _) = timed_out(", outliers: never");
    assert!(unchecked > 1_000, "{unchecked}");
}

/// What the page compares, by the names of the files.
const COMPARED: [(&str, &str); 4] = [
    ("defaults", "config/nine-lines.yaml"),
    ("retries, budgeted", "config/scenarios/policies/budgeted-retries.yaml"),
    ("the same, guarded", "config/scenarios/policies/guarded-retries.yaml"),
    ("3 retries, no budget", "config/scenarios/policies/fixed-retries.yaml"),
];

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    found.sort();
    found
}

fn results() -> String {
    let mut out = String::from(
        "| Scenario | Policies | Success during | p50 | p99 | Attempts per request | Peak load | Recovered after | Stays broken |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let paths = files("config/scenarios");
    // Half of them on each of two threads: what takes longest is all of them together.
    let rows: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|half| {
                let mine = paths.iter().skip(half).step_by(2);
                scope.spawn(move || mine.map(|path| rows_of(path)).collect::<Vec<_>>())
            })
            .collect();
        let mut halves: Vec<_> =
            threads.into_iter().map(|thread| thread.join().unwrap().into_iter()).collect();
        (0..paths.len()).map(|index| halves[index % 2].next().unwrap()).collect()
    });
    out.extend(rows);
    out
}

fn rows_of(path: &Path) -> String {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let scenario = scenario(&std::fs::read_to_string(path).unwrap());
    let mut out = String::new();
    for (index, (policies, config)) in COMPARED.into_iter().enumerate() {
        let config = load_file(&root().join(config)).config.unwrap();
        let run = run(&scenario, &config, None, 1).unwrap();
        let link = format!("[`{name}`](../config/scenarios/{name}.yaml)");
        let millis = |millis: Option<f64>| {
            millis.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.0} ms"))
        };
        let during = &run.during;
        writeln!(
            out,
            "| {} | {policies} | {:.2} % | {} | {} | {:.2} | {}/s | {} | {} |",
            if index == 0 { link } else { String::new() },
            during.success_percent.unwrap(),
            millis(during.p50_ms),
            millis(during.p99_ms),
            during.amplification.unwrap(),
            run.seconds.iter().map(|second| second.attempts).max().unwrap(),
            run.recovery_seconds.map_or_else(|| "never".to_owned(), |s| format!("{s:.1} s")),
            if run.metastable { "**yes**" } else { "no" },
        )
        .unwrap();
    }
    out
}

/// The picture on the page.
fn picture() -> String {
    let scenario =
        scenario(&std::fs::read_to_string(root().join("config/scenarios/brown-out.yaml")).unwrap());
    let runs = COMPARED.map(|(policies, config)| {
        let config = load_file(&root().join(config)).config.unwrap();
        (policies.to_owned(), run(&scenario, &config, None, 1).unwrap())
    });
    plot(&scenario, 1, &runs)
}

/// Holds what a page has between its marks against `found`, or writes it there.
fn compare(page: &str, found: &str) {
    let path = root().join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- results -->\n", "<!-- end of results -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (written, after) = rest.split_once(end).unwrap();
    if std::env::var_os("OUTRIGGER_WRITE").is_some() {
        std::fs::write(path, format!("{before}{begin}{found}{end}{after}")).unwrap();
        return;
    }
    assert!(
        written == found,
        "{page} is out of date; write it anew with OUTRIGGER_WRITE=1 cargo test --test simulate the_page\n{found}"
    );
}

#[test]
fn the_page_of_hedging_has_the_results_of_a_fresh_run() {
    compare("docs/policies/hedge.md", &hedged_results());
}

/// To write the figures of a fresh run into the page: `OUTRIGGER_WRITE=1 cargo test --test simulate the_page`.
#[test]
fn the_page_has_the_results_of_a_fresh_run() {
    let picture_path = root().join("docs/brown-out.svg");
    if std::env::var_os("OUTRIGGER_WRITE").is_some() {
        std::fs::write(&picture_path, picture()).unwrap();
    }
    assert!(std::fs::read_to_string(picture_path).unwrap() == picture(), "docs/brown-out.svg");
    compare("docs/SIMULATE.md", &results());
}

#[test]
fn the_page_names_every_key_of_a_scenario() {
    let page = std::fs::read_to_string(root().join("docs/SIMULATE.md")).unwrap();
    let keys = std::fs::read_to_string(root().join("src/config/keys.rs")).unwrap();
    let (_, sections) = keys.split_once("SCENARIOS:").unwrap();
    let (sections, _) = sections.split_once("\n}").unwrap();
    let lists = sections.split('[').skip(1).step_by(2).map(|rest| rest.split(']').next().unwrap());
    let keys: Vec<&str> = lists.flat_map(|list| list.split('"').skip(1).step_by(2)).collect();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        let named = page.contains(&format!("`{key}`"))
            || page.contains(&format!("`{key}: "))
            || page.contains(&format!(" {key}: "));
        assert!(named, "{key}");
    }
}
