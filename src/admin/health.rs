//! What the pages say about health checks.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::control::Managed;

use super::show::thousandths;

/// What is known of an endpoint, by its id; null where it is not checked.
pub(super) fn endpoint(managed: &Managed, id: u64, now: Instant) -> Value {
    let Some(report) = managed.health.as_ref().and_then(|health| health.report(id)) else {
        return Value::Null;
    };
    let last = report.last.map(|(finding, ended)| {
        json!({
            "outcome": finding.outcome.word(),
            "text": finding.text,
            "age_seconds": thousandths(now.saturating_duration_since(ended).as_secs_f64()),
        })
    });
    json!({
        "verdict": report.verdict.word(),
        "passes": report.passes,
        "failures": report.failures,
        "last": last,
    })
}
