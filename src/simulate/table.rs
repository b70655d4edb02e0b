//! The report for people, and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use super::report::{Phase, Run};
use crate::base::units::format_duration;
use crate::config::Scenario;

/// The report as JSON; every key is described in `docs/SIMULATE.md`.
pub fn json(scenario: &Scenario, seed: u64, runs: &[(String, Run)]) -> serde_json::Value {
    let runs: Vec<_> =
        runs.iter().map(|(name, run)| json!({ "policies": name, "result": run })).collect();
    json!({ "scenario": scenario.about, "seed": seed, "runs": runs })
}

/// The report as aligned columns: three lines for each configuration, and what is to be said of it as a whole.
pub fn table(scenario: &Scenario, seed: u64, runs: &[(String, Run)]) -> String {
    let mut text = String::new();
    if !scenario.about.is_empty() {
        text.push_str(&format!("{}\n", scenario.about));
    }
    text.push_str(&format!("{}\n\n", setting(scenario, seed, runs)));
    let head = ["policies", "phase", "requests", "success", "p50", "p99", "amplification", "load"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, run) in runs {
        let phases = [("before", &run.before), ("during", &run.during), ("after", &run.after)];
        for (index, (word, phase)) in phases.into_iter().enumerate() {
            let name = if index == 0 { name.as_str() } else { "" };
            rows.push(row(name, word, phase));
        }
    }
    text.push_str(&aligned(&rows, 2));
    for (name, run) in runs {
        text.push_str(&format!("\n{name}: {}\n", verdict(run)));
        let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
        for phase in [&run.before, &run.during, &run.after] {
            for (why, count) in &phase.failures {
                *failures.entry(why).or_default() += count;
            }
        }
        let mut failures: Vec<_> = failures.into_iter().collect();
        failures.sort_by_key(|(why, count)| (std::cmp::Reverse(*count), *why));
        let told: Vec<String> =
            failures.iter().map(|(why, count)| format!("{why} {count}")).collect();
        if !told.is_empty() {
            text.push_str(&format!("  failures: {}\n", told.join(", ")));
        }
    }
    text
}

/// Who asks whom, and when the cause lasts.
fn setting(scenario: &Scenario, seed: u64, runs: &[(String, Run)]) -> String {
    let clients = &scenario.clients;
    let many =
        |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut text = many(clients.sidecars, "sidecar");
    if clients.workers > 1 {
        text.push_str(&format!(" of {}", many(clients.workers, "worker")));
    }
    text.push_str(&format!(", {}, ", clients.rate));
    let hops: Vec<String> =
        scenario.hops.iter().map(|hop| many(hop.endpoints, "endpoint")).collect();
    text.push_str(&format!("{}; {}", hops.join(" → "), format_duration(scenario.duration)));
    if let Some((_, run)) = runs.first().filter(|_| !scenario.events.is_empty()) {
        let (start, end) = (run.fault_starts, run.fault_ends);
        let _infallible = write!(text, ", cause from {start} s to {end} s");
    }
    let _infallible = write!(text, "; seed {seed}");
    text
}

fn row(name: &str, word: &str, phase: &Phase) -> Vec<String> {
    let dash = || "–".to_owned();
    vec![
        name.to_owned(),
        word.to_owned(),
        phase.requests.to_string(),
        phase.success_percent.map_or_else(dash, |share| format!("{share:.2} %")),
        phase.p50_ms.map_or_else(dash, latency),
        phase.p99_ms.map_or_else(dash, latency),
        phase.amplification.map_or_else(dash, |ratio| format!("{ratio:.2}")),
        format!("{}/s", phase.peak_load),
    ]
}

/// Three digits are enough for an eye.
pub(super) fn latency(millis: f64) -> String {
    match millis {
        m if m >= 9_995.0 => format!("{:.1} s", m / 1e3),
        m if m >= 999.5 => format!("{:.2} s", m / 1e3),
        m if m >= 99.95 => format!("{m:.0} ms"),
        m if m >= 9.995 => format!("{m:.1} ms"),
        m => format!("{m:.2} ms"),
    }
}

/// What the run comes to.
pub(super) fn verdict(run: &Run) -> String {
    let recovery = recovery(run);
    let state =
        if run.metastable { "METASTABLE: broken after its cause is gone" } else { "stable" };
    format!(
        "{recovery}; {state}; {:.2} attempts per request in all, {:.1} % of the work wasted",
        run.amplification, run.wasted_work_percent
    )
}

/// When it recovered.
pub(super) fn recovery(run: &Run) -> String {
    match run.recovery_seconds {
        _ if run.fault_ends <= run.fault_starts => "nothing went wrong".to_owned(),
        Some(0.0) => "recovered at once".to_owned(),
        Some(seconds) => format!("recovered after {seconds:.1} s"),
        None => "not recovered".to_owned(),
    }
}

/// Rows as columns: the first `text` of them from the left, numbers from the right.
fn aligned(rows: &[Vec<String>], text: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits() {
        let shown = [0.5, 9.99, 9.996, 99.94, 99.96, 999.4, 999.6, 9_994.0, 15_000.0].map(latency);
        let wanted = [
            "0.50 ms", "9.99 ms", "10.0 ms", "99.9 ms", "100 ms", "999 ms", "1.00 s", "9.99 s",
            "15.0 s",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = aligned(&[row(["a", "µ", "1"]), row(["bcd", "", "200"])], 1);
        assert_eq!(text, "a    µ    1\nbcd     200\n");
    }
}
