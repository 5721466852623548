//! A figure, as JSON for programs and in a table with its goal for people.

use anyhow::Result;
use serde::Serialize;

/// The fields are what `--json` promises.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    #[serde(rename = "figure")]
    name: String,
    value: f64,
    unit: Unit,
    /// The same without Netkeel's part in it, measured in the same run.
    baseline: Option<f64>,
    /// Value over baseline.
    ratio: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "connections/s")]
    Connections,
    #[serde(rename = "round trips/s")]
    RoundTrips,
    #[serde(rename = "queries/s")]
    Queries,
    #[serde(rename = "Gbit/s")]
    Gigabits,
    /// Of CPU time, for ten thousand round trips or connections.
    #[serde(rename = "CPU s/10k")]
    CpuPerTenThousand,
    #[serde(rename = "CPU s/Gbit")]
    CpuPerGigabit,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "ADD/s")]
    Adds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Self::Connections => "connections/s",
            Self::RoundTrips => "round trips/s",
            Self::Queries => "queries/s",
            Self::Gigabits => "Gbit/s",
            Self::CpuPerTenThousand => "CPU s/10k",
            Self::CpuPerGigabit => "CPU s/Gbit",
            Self::Milliseconds => "ms",
            Self::Nanoseconds => "ns",
            Self::Adds => "ADD/s",
            Self::Mebibytes => "MiB",
            Self::Percent => "%",
        }
    }
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self { name: name.into(), value: rounded(value), unit, baseline: None, ratio: None }
    }

    /// `ratio` is given, since the median of ratios is not the ratio of medians.
    pub(super) fn against(self, baseline: f64, ratio: f64) -> Self {
        Self { baseline: Some(rounded(baseline)), ratio: Some(rounded(ratio)), ..self }
    }

    /// The same goal whatever it was measured with.
    fn goal(&self) -> Option<Goal> {
        let name = self.name.strip_suffix(IPV6).unwrap_or(&self.name);
        GOALS.iter().find(|(known, _)| *known == name).map(|(_, goal)| *goal)
    }

    fn row(&self) -> [String; 6] {
        let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
        let (goal, met) = self.goal().map_or_else(Default::default, |goal| (goal.text(), goal.verdict(self)));
        let value = format!("{} {}", self.value, self.unit.text());
        [self.name.clone(), value, number(self.baseline), number(self.ratio), goal, met.into()]
    }
}

#[derive(Clone, Copy)]
enum Goal {
    ValueAtMost(f64),
    ValueAtLeast(f64),
    RatioAtLeast(f64),
}

/// How names of figures end that were measured with IPv6.
pub(super) const IPV6: &str = "-ipv6";

/// Figures without a goal are there for comparison.
const GOALS: [(&str, Goal); 29] = [
    ("dns-abuse-success", Goal::ValueAtLeast(99.9)),
    ("dns-abuse-p99", Goal::ValueAtMost(5.0)),
    ("dns-abuse-random-success", Goal::ValueAtLeast(99.9)),
    ("dns-abuse-random-p99", Goal::ValueAtMost(5.0)),
    ("dns-abuse-memory", Goal::ValueAtMost(128.0)),
    ("dns-qps", Goal::RatioAtLeast(3.0)),
    ("dns-qps-external", Goal::RatioAtLeast(2.0)),
    ("dns-memory", Goal::ValueAtMost(32.0)),
    ("dns-half-load-p99", Goal::ValueAtMost(1.0)),
    ("dns-ready", Goal::ValueAtMost(1000.0)),
    ("dns-endpoint-p99", Goal::ValueAtMost(50.0)),
    ("dns-footprint-large", Goal::ValueAtMost(60.0)),
    ("local-rr", Goal::RatioAtLeast(0.95)),
    ("native-rr", Goal::RatioAtLeast(0.95)),
    ("cni-del", Goal::ValueAtMost(5.0)),
    ("footprint-agent-large", Goal::ValueAtMost(64.0)),
    ("overlay-rr", Goal::RatioAtLeast(1.10)),
    ("overlay-crr", Goal::RatioAtLeast(1.20)),
    ("overlay-gbit", Goal::RatioAtLeast(1.0)),
    ("service-crr", Goal::RatioAtLeast(0.95)),
    ("service-crr-remote", Goal::RatioAtLeast(0.95)),
    ("policy-crr", Goal::RatioAtLeast(0.97)),
    ("policy-update-p99", Goal::ValueAtMost(100.0)),
    ("verdict-ns", Goal::ValueAtMost(150.0)),
    ("cni-add-p99", Goal::ValueAtMost(10.0)),
    ("cni-add-rate", Goal::ValueAtLeast(200.0)),
    ("footprint-agent", Goal::ValueAtMost(64.0)),
    ("footprint-agent-maps", Goal::ValueAtMost(128.0)),
    ("image", Goal::ValueAtMost(40.0)),
];

impl Goal {
    fn text(self) -> String {
        match self {
            Self::ValueAtMost(limit) => format!("≤ {limit}"),
            Self::ValueAtLeast(limit) => format!("≥ {limit}"),
            Self::RatioAtLeast(limit) => format!("ratio ≥ {limit}"),
        }
    }

    fn verdict(self, figure: &Figure) -> &'static str {
        let met = match self {
            Self::ValueAtMost(limit) => figure.value <= limit,
            Self::ValueAtLeast(limit) => figure.value >= limit,
            Self::RatioAtLeast(limit) => figure.ratio.is_some_and(|ratio| ratio >= limit),
        };
        if met { "met" } else { "missed" }
    }
}

/// Three decimals for small numbers, none for large ones: more is noise.
fn rounded(value: f64) -> f64 {
    let scale = if value.abs() >= 1000.0 { 1.0 } else { 1000.0 };
    (value * scale).round() / scale
}

/// Bytes in MiB.
#[expect(clippy::cast_precision_loss, reason = "2^52 bytes are far away")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The middle of the values, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) }
}

/// Prints JSON as figures come, or a table at the end.
pub(super) struct Report {
    json: bool,
    /// Of the names of what is added.
    pub(super) suffix: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, suffix: "", figures: Vec::new() }
    }

    pub(super) fn add(&mut self, mut figure: Figure) -> Result<()> {
        figure.name.push_str(self.suffix);
        if self.json {
            println!("{}", serde_json::to_string(&figure)?);
        }
        self.figures.push(figure);
        Ok(())
    }

    pub(super) fn extend(&mut self, figures: Vec<Figure>) -> Result<()> {
        figures.into_iter().try_for_each(|figure| self.add(figure))
    }

    pub(super) fn finish(self) {
        if !self.json {
            print!("{}", table(&self.figures));
        }
    }
}

fn table(figures: &[Figure]) -> String {
    let head = ["figure", "value", "baseline", "ratio", "goal", ""].map(String::from);
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(Figure::row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_exactly_the_five_fields_that_are_promised() {
        let text = |figure| serde_json::to_string(&figure).unwrap();
        let alone = Figure::new("image", 12.3456, Unit::Mebibytes);
        assert_eq!(
            text(alone),
            r#"{"figure":"image","value":12.346,"unit":"MiB","baseline":null,"ratio":null}"#
        );
        let pair = Figure::new("service-crr", 19_000.4, Unit::Connections).against(20_000.0, 0.951);
        assert_eq!(
            text(pair),
            r#"{"figure":"service-crr","value":19000.0,"unit":"connections/s","baseline":20000.0,"ratio":0.951}"#
        );
    }

    #[test]
    fn what_is_measured_with_ipv6_has_the_same_goal_under_a_name_of_its_own() {
        let mut report = Report::new(false);
        report.suffix = IPV6;
        report.add(Figure::new("cni-del", 6.0, Unit::Milliseconds)).unwrap();
        assert_eq!(report.figures[0].row()[0], "cni-del-ipv6");
        assert_eq!(report.figures[0].row()[4..], ["≤ 5", "missed"]);
    }

    #[test]
    fn the_table_tells_goals_and_whether_they_are_met() {
        let figures = [
            Figure::new("service-crr", 9.0, Unit::Connections).against(10.0, 0.9),
            Figure::new("cni-add-p50", 3.0, Unit::Milliseconds),
            Figure::new("cni-add-p99", 9.0, Unit::Milliseconds),
        ];
        assert_eq!(
            table(&figures),
            "figure       value            baseline  ratio  goal\n\
             service-crr  9 connections/s  10        0.9    ratio ≥ 0.95  missed\n\
             cni-add-p50  3 ms\n\
             cni-add-p99  9 ms                              ≤ 10          met\n"
        );
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(
            [median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 3.0, 2.0])].map(|m| m.to_string()),
            ["2", "2.5"]
        );
        assert!(median(&[]).is_nan());
    }
}
