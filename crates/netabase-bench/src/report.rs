//! Rows of results, and how they are printed.

use std::fmt::{self, Display};
use std::io::Write;

use serde::Serialize;

use crate::sample::median;

/// What one repetition of a case found out about one system.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// What was done.
    pub case: &'static str,
    /// What did it.
    pub system: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// How much it was.
    pub value: f64,
    /// The unit of the value.
    pub unit: &'static str,
    /// How many samples the value stands for.
    pub n: usize,
}

/// What the rows of a case, system and metric should come to.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// The case.
    pub case: &'static str,
    /// The system.
    pub system: &'static str,
    /// The metric; none means all of them.
    pub metric: Option<&'static str>,
    /// What is asked.
    pub bound: Bound,
}

/// Where a value should lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most so many times the baseline's.
    Ratio(f64),
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, row: &Row) -> bool {
        match self {
            Self::Ratio(most) => row.ratio.is_some_and(|ratio| ratio <= most),
            Self::AtMost(most) => row.value <= most,
            Self::AtLeast(least) => row.value >= least,
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "<= {most}x"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// The repetitions of a case, system and metric in one line.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The subject.
    pub bench: &'static str,
    /// What was done.
    pub case: &'static str,
    /// What did it.
    pub system: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// The median of the repetitions.
    pub value: f64,
    /// The unit of the values.
    pub unit: &'static str,
    /// How many samples there were in all repetitions together.
    pub n: usize,
    /// The smallest value of a repetition.
    pub min: f64,
    /// The largest value of a repetition.
    pub max: f64,
    /// The system that this one is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<&'static str>,
    /// The value divided by the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What the value or the ratio should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<String>,
    /// Whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// The measurements of a subject.
#[derive(Debug)]
pub struct Table {
    bench: &'static str,
    baseline: &'static str,
    aims: &'static [Aim],
    measurements: Vec<Measurement>,
}

impl Table {
    /// Makes an empty table; systems are compared with `baseline` wherever it was measured too.
    pub fn new(bench: &'static str, baseline: &'static str, aims: &'static [Aim]) -> Self {
        Self { bench, baseline, aims, measurements: Vec::new() }
    }

    /// Adds what a repetition found out.
    pub fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// Returns a row for each case, metric and system, in the order they first appeared.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for first in &self.measurements {
            let known =
                |row: &Row| (row.case, row.metric, row.system) == (first.case, first.metric, first.system);
            if !rows.iter().any(known) {
                let after = rows.iter().rposition(|row| (row.case, row.metric) == (first.case, first.metric));
                rows.insert(after.map_or(rows.len(), |position| position + 1), self.row(first));
            }
        }
        rows
    }

    fn row(&self, first: &Measurement) -> Row {
        let Measurement { case, system, metric, unit, .. } = *first;
        let values = self.values(case, metric, system);
        let baseline = self.values(case, metric, self.baseline);
        let compared = system != self.baseline && !baseline.is_empty();
        let value = median(&values);
        let same = |other: &&Measurement| (other.case, other.metric, other.system) == (case, metric, system);
        let mut row = Row {
            bench: self.bench,
            case,
            system,
            metric,
            value,
            unit,
            n: self.measurements.iter().filter(same).map(|measurement| measurement.n).sum(),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            baseline: compared.then_some(self.baseline),
            ratio: compared.then(|| value / median(&baseline)),
            aim: None,
            met: None,
        };
        if let Some(aim) = self.aim(&row) {
            row.aim = Some(aim.bound.to_string());
            row.met = Some(aim.bound.holds(&row));
        }
        row
    }

    fn values(&self, case: &str, metric: &str, system: &str) -> Vec<f64> {
        let same = |other: &&Measurement| (other.case, other.metric, other.system) == (case, metric, system);
        self.measurements.iter().filter(same).map(|measurement| measurement.value).collect()
    }

    fn aim(&self, row: &Row) -> Option<&'static Aim> {
        self.aims.iter().find(|aim| {
            (aim.case, aim.system) == (row.case, row.system)
                && aim.metric.is_none_or(|metric| metric == row.metric)
        })
    }

    /// Writes one JSON object per row and line.
    pub fn write_json(&self, mut out: impl Write) -> anyhow::Result<()> {
        for row in self.rows() {
            serde_json::to_writer(&mut out, &row)?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// Writes aligned columns for people.
    pub fn write_text(&self, mut out: impl Write) -> anyhow::Result<()> {
        const HEADS: [&str; 11] =
            ["case", "metric", "system", "median", "min", "max", "unit", "n", "ratio", "aim", "met"];
        let mut lines = vec![HEADS.map(str::to_owned)];
        lines.extend(self.rows().iter().map(cells));
        let mut widths = [0; HEADS.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.len().max(*width);
            }
        }
        for line in &lines {
            let padded: Vec<String> =
                line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(out, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 11] {
    let met = row.met.map(|met| if met { "yes" } else { "NO" });
    [
        row.case.to_owned(),
        row.metric.to_owned(),
        row.system.to_owned(),
        number(row.value),
        number(row.min),
        number(row.max),
        row.unit.to_owned(),
        row.n.to_string(),
        row.ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
        row.aim.clone().unwrap_or_default(),
        met.unwrap_or_default().to_owned(),
    ]
}

/// Three digits are more than the spread of any measurement here deserves.
fn number(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIMS: [Aim; 1] =
        [Aim { case: "put", system: "ours", metric: Some("p50"), bound: Bound::Ratio(1.5) }];

    fn table() -> Table {
        let mut table = Table::new("test", "bare", &AIMS);
        for (system, value) in
            [("bare", 10.0), ("ours", 12.0), ("bare", 20.0), ("ours", 90.0), ("ours", 14.0), ("bare", 10.0)]
        {
            table.add(Measurement { case: "put", system, metric: "p50", value, unit: "us", n: 5 });
        }
        table
    }

    #[test]
    fn a_row_has_median_spread_and_ratio() {
        let rows = table().rows();
        let json = serde_json::to_string(&rows[1]).unwrap();
        assert_eq!(
            json,
            "{\"bench\":\"test\",\"case\":\"put\",\"system\":\"ours\",\"metric\":\"p50\",\"value\":14.0,\
             \"unit\":\"us\",\"n\":15,\"min\":12.0,\"max\":90.0,\"baseline\":\"bare\",\"ratio\":1.4,\
             \"aim\":\"<= 1.5x\",\"met\":true}"
        );
        assert_eq!((rows[0].baseline, rows[0].ratio), (None, None));
    }

    #[test]
    fn the_columns_of_the_text_are_aligned() {
        let mut text = Vec::new();
        table().write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let columns: Vec<_> = text.lines().map(|line| line.find("us").or(line.find("unit"))).collect();
        assert!(columns.iter().all(|column| column.is_some() && *column == columns[0]), "{text}");
    }
}
