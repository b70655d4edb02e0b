//! The run over time, as an SVG: one column for each configuration, the same scales in all of them.

use std::fmt::Write;

use super::report::{Point, Run};
use super::table;
use crate::config::Scenario;

/// Pixels, of the drawing at its natural size.
const PANEL: f64 = 440.0;
const LEFT: f64 = 74.0;
const GAP: f64 = 36.0;
const TOP: f64 = 64.0;

const STYLE: &str = "<style>text{font:12px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#3b4048}\
.title{font-size:17px;font-weight:600;fill:#16191d}.name{font-size:14px;font-weight:600;fill:#16191d}\
.small{font-size:11px;fill:#6a717b}.bad{fill:#c0322b;font-weight:600}.grid{stroke:#e3e6ea;stroke-width:1}\
.axis{stroke:#9aa1ab;stroke-width:1}.fault{fill:#f6d9d6;opacity:.55}path{fill:none;stroke-width:1.7;stroke-linejoin:round}\
.offered{stroke:#8a919b;stroke-dasharray:4 3}.attempts{stroke:#e07b00}.good{stroke:#23915a}.failed{stroke:#c0322b}\
.p50{stroke:#6fa8dc}.p99{stroke:#1d5fa6}</style>";

/// A curve: its class in the style, its name in the legend, its value in a second.
type Curve = (&'static str, &'static str, fn(&Point) -> Option<f64>);

/// One of the diagrams of a column.
struct Diagram {
    title: &'static str,
    height: f64,
    scale: Scale,
    curves: &'static [Curve],
}

/// From values to heights.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    /// From 0, with lines at every `step`.
    Linear { top: f64, step: f64 },
    /// Milliseconds, by powers of ten.
    Decades { first: i32, last: i32 },
}

const RATES: &[Curve] = &[
    ("attempts", "load on the upstream (attempts)", |second| Some(count(second.attempts))),
    ("offered", "offered", |second| Some(count(second.offered))),
    ("good", "goodput", |second| Some(count(second.good))),
];

const FAILURES: &[Curve] = &[("failed", "failed", |second| {
    let ended = second.good + second.failed;
    (ended > 0).then(|| count(second.failed) / count(ended) * 100.0)
})];

const LATENCIES: &[Curve] =
    &[("p99", "p99", |second| second.p99_ms), ("p50", "p50", |second| second.p50_ms)];

/// Draws `runs` beside each other.
pub fn plot(scenario: &Scenario, seed: u64, runs: &[(String, Run)]) -> String {
    let diagrams = diagrams(runs);
    let height = diagrams.iter().map(|diagram| diagram.height + GAP + 22.0).sum::<f64>() + TOP;
    let columns = count(runs.len() as u64);
    let width = LEFT + columns * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">\n{STYLE}\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = if scenario.about.is_empty() { "outrigger simulate" } else { &scenario.about };
    put(&mut out, LEFT, 26.0, "title", "start", title);
    for (number, (name, run)) in runs.iter().enumerate() {
        let x = LEFT + count(number as u64) * (PANEL + GAP);
        put(&mut out, x, 48.0, "name", "start", name);
        let (class, told) = outcome(run);
        put(&mut out, x + PANEL, 48.0, class, "end", &told);
        let mut y = TOP;
        for diagram in &diagrams {
            y += 22.0;
            draw(&mut out, diagram, run, (x, y), number == 0);
            y += diagram.height + GAP;
        }
    }
    put(
        &mut out,
        width - GAP,
        26.0,
        "small",
        "end",
        &format!("shaded: while the cause lasts · seed {seed}"),
    );
    out.push_str("</svg>\n");
    out
}

/// What stands above a column.
fn outcome(run: &Run) -> (&'static str, String) {
    let during = run.during.success_percent.map(|share| format!("{share:.1} % during, "));
    let text = format!("{}{}", during.unwrap_or_default(), table::recovery(run));
    if run.metastable { ("small bad", format!("{text}, METASTABLE")) } else { ("small", text) }
}

fn diagrams(runs: &[(String, Run)]) -> [Diagram; 3] {
    let highest = |curves: &[Curve]| {
        let values = runs.iter().flat_map(|(_, run)| &run.seconds);
        let values = values.flat_map(|second| curves.iter().filter_map(move |(.., of)| of(second)));
        values.fold(0.0_f64, f64::max)
    };
    let lowest = runs.iter().flat_map(|(_, run)| &run.seconds).filter_map(|second| second.p50_ms);
    let lowest = lowest.fold(f64::INFINITY, f64::min);
    let decade = |value: f64| if value.is_finite() && value > 0.0 { value.log10() } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "between -6 and 7")]
    let (first, last) = (decade(lowest).floor() as i32, decade(highest(LATENCIES)).ceil() as i32);
    let last = last.max(first + 1);
    [
        Diagram {
            title: "requests per second",
            height: 190.0,
            scale: linear(highest(RATES)),
            curves: RATES,
        },
        Diagram {
            title: "failed, % of what ended",
            height: 90.0,
            scale: Scale::Linear { top: 100.0, step: 50.0 },
            curves: FAILURES,
        },
        Diagram {
            title: "latency",
            height: 150.0,
            scale: Scale::Decades { first, last },
            curves: LATENCIES,
        },
    ]
}

/// Four or five lines, at round numbers.
fn linear(highest: f64) -> Scale {
    let rough = highest.max(1.0) / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|digit| digit * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(power * 10.0);
    Scale::Linear { top: (highest.max(1.0) / step).ceil() * step, step }
}

impl Scale {
    /// 0 at the bottom, 1 at the top.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { top, .. } => value / top,
            Self::Decades { first, last } => {
                (value.max(1e-6).log10() - f64::from(first)) / f64::from(last - first)
            }
        };
        share.clamp(0.0, 1.0)
    }

    /// Where lines are, and what stands beside them.
    fn lines(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { top, step } => {
                let mut lines = Vec::new();
                let mut value = 0.0;
                while value <= top * 1.001 {
                    lines.push((value, format!("{}", (value * 100.0).round() / 100.0)));
                    value += step;
                }
                lines
            }
            Self::Decades { first, last } => (first..=last)
                .map(|power| {
                    let value = 10_f64.powi(power);
                    let told = match power {
                        ..0 => format!("{value} ms"),
                        0..3 => format!("{value:.0} ms"),
                        _ => format!("{:.0} s", value / 1e3),
                    };
                    (value, told)
                })
                .collect(),
        }
    }
}

fn draw(out: &mut String, diagram: &Diagram, run: &Run, (x, y): (f64, f64), first: bool) {
    let duration = count(run.seconds.len() as u64).max(1.0);
    let across = |second: f64| x + second / duration * PANEL;
    let up = |share: f64| y + diagram.height * (1.0 - share);
    if run.fault_ends > run.fault_starts {
        let (from, to) = (across(run.fault_starts), across(run.fault_ends));
        let (width, height) = (to - from, diagram.height);
        line(
            out,
            format_args!(
                "<rect class=\"fault\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            ),
        );
    }
    for (value, told) in diagram.scale.lines() {
        let at = up(diagram.scale.share(value));
        let end = x + PANEL;
        line(
            out,
            format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{at:.1}\" x2=\"{end:.1}\" y2=\"{at:.1}\"/>"
            ),
        );
        if first {
            put(out, x - 8.0, at + 4.0, "small", "end", &told);
        }
    }
    legend(out, diagram, (x, y), first);
    time_axis(out, duration, (x, y + diagram.height));
    for (class, _, of) in diagram.curves {
        let mut path = String::new();
        let mut pen = 'M';
        for (second, point) in run.seconds.iter().enumerate() {
            let Some(value) = of(point) else {
                pen = 'M';
                continue;
            };
            let (px, py) = (across(count(second as u64) + 0.5), up(diagram.scale.share(value)));
            let _infallible = write!(path, "{pen}{px:.1} {py:.1}");
            pen = 'L';
        }
        line(out, format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
    }
}

fn legend(out: &mut String, diagram: &Diagram, (x, y): (f64, f64), first: bool) {
    if first {
        put(out, x - 8.0 - 58.0, y - 8.0, "small", "start", diagram.title);
    }
    let mut right = x + PANEL;
    for (class, name, _) in diagram.curves {
        put(out, right, y - 8.0, "small", "end", name);
        // As wide as the letters are on average.
        right -= count(name.len() as u64) * 6.2 + 28.0;
        let (from, to) = (right + 2.0, right + 20.0);
        let at = y - 12.0;
        line(
            out,
            format_args!("<path class=\"{class}\" d=\"M{from:.1} {at:.1}L{to:.1} {at:.1}\"/>"),
        );
        right -= 10.0;
    }
}

fn time_axis(out: &mut String, duration: f64, (x, y): (f64, f64)) {
    let end = x + PANEL;
    line(
        out,
        format_args!(
            "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{end:.1}\" y2=\"{y:.1}\"/>"
        ),
    );
    let steps = [5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
    let step = steps.into_iter().find(|step| duration / step <= 8.0).unwrap_or(600.0);
    let mut second = 0.0;
    while second <= duration {
        let at = x + second / duration * PANEL;
        let told = if second > 0.0 { format!("{second:.0} s") } else { "0".to_owned() };
        put(out, at, y + 15.0, "small", "middle", &told);
        second += step;
    }
}

fn put(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    line(
        out,
        format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ),
    );
}

fn line(out: &mut String, element: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(element);
    out.push('\n');
}

fn count(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let number = number as f64;
    number
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "sums of exact halves")]

    use super::*;

    #[test]
    fn lines_are_at_round_numbers() {
        for (highest, top, step) in [
            (119.0, 150.0, 50.0),
            (351.0, 400.0, 100.0),
            (0.0, 1.0, 0.25),
            (9_100.0, 10_000.0, 2_500.0),
        ] {
            assert_eq!(linear(highest), Scale::Linear { top, step }, "{highest}");
        }
        let told: Vec<String> = Scale::Decades { first: -1, last: 4 }
            .lines()
            .into_iter()
            .map(|(_, told)| told)
            .collect();
        assert_eq!(told, ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn values_outside_a_scale_stay_at_its_edge() {
        let scale = Scale::Decades { first: 0, last: 2 };
        assert_eq!(
            [0.0, 1.0, 10.0, 100.0, 1e9].map(|ms| scale.share(ms)),
            [0.0, 0.0, 0.5, 1.0, 1.0]
        );
    }
}
