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
    /// At most so many times another system's.
    RatioTo(&'static str, f64),
    /// No less than so many times the baseline's.
    LeastRatio(f64),
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    /// Returns the system that the value is compared with, if it is.
    fn other(self, baseline: &'static str) -> Option<&'static str> {
        match self {
            Self::Ratio(_) | Self::LeastRatio(_) => Some(baseline),
            Self::RatioTo(other, _) => Some(other),
            Self::AtMost(_) | Self::AtLeast(_) => None,
        }
    }

    /// Returns whether a value is where it should be, if that is its ratio or the value itself.
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Ratio(most) | Self::RatioTo(_, most) | Self::AtMost(most) => value <= most,
            Self::LeastRatio(least) | Self::AtLeast(least) => value >= least,
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "<= {most}x"),
            Self::LeastRatio(least) => write!(f, ">= {least}x"),
            Self::RatioTo(other, most) => write!(f, "<= {most:.2}x {other}"),
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
    /// How many records there were, where the subject says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
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
    /// What the value or the ratio should be; several aims are separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<String>,
    /// Whether all of them are met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// The measurements of a subject.
#[derive(Debug)]
pub struct Table {
    bench: &'static str,
    records: Option<u64>,
    baseline: &'static str,
    aims: &'static [Aim],
    measurements: Vec<Measurement>,
}

impl Table {
    /// Makes an empty table; systems are compared with `baseline` wherever it was measured too.
    pub fn new(bench: &'static str, baseline: &'static str, aims: &'static [Aim]) -> Self {
        Self { bench, records: None, baseline, aims, measurements: Vec::new() }
    }

    /// Says how many records everything in the table was measured with.
    #[must_use]
    pub fn with_records(self, records: u64) -> Self {
        Self { records: Some(records), ..self }
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
            records: self.records,
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
        let verdicts = self.verdicts(&row);
        if !verdicts.is_empty() {
            let aims: Vec<String> = verdicts.iter().map(|verdict| verdict.bound.to_string()).collect();
            row.aim = Some(aims.join(", "));
            row.met = Some(verdicts.iter().all(Verdict::met));
        }
        row
    }

    /// Judges a row by the aims for it, except where what it should be compared with was not
    /// measured.
    fn verdicts(&self, row: &Row) -> Vec<Verdict> {
        let meant = self.aims.iter().filter(|aim| {
            (aim.case, aim.system) == (row.case, row.system)
                && aim.metric.is_none_or(|metric| metric == row.metric)
        });
        let verdict = |aim: &Aim| match aim.bound.other(self.baseline) {
            None => Some(Verdict { bound: aim.bound, value: row.value }),
            Some(other) => {
                let others = self.values(row.case, row.metric, other);
                let value = row.value / median(&others);
                (!others.is_empty()).then_some(Verdict { bound: aim.bound, value })
            }
        };
        meant.filter_map(verdict).collect()
    }

    fn values(&self, case: &str, metric: &str, system: &str) -> Vec<f64> {
        let same = |other: &&Measurement| (other.case, other.metric, other.system) == (case, metric, system);
        self.measurements.iter().filter(same).map(|measurement| measurement.value).collect()
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
        write_columns(&mut out, &lines)
    }

    /// Writes a line for each case and a column for each system, for people: medians, then the
    /// spread where there was more than one repetition, ratios to the baseline, and the aims.
    pub fn write_matrix(&self, mut out: impl Write) -> anyhow::Result<()> {
        let rows = self.rows();
        write!(out, "{}", self.bench)?;
        if let Some(records) = self.records {
            write!(out, ", {records} records")?;
        }
        writeln!(out, ": medians")?;
        write_columns(&mut out, &matrix(&rows, |row| number(row.value)))?;
        if rows.iter().any(|row| row.min < row.max) {
            writeln!(out, "\nsmallest and largest of the repetitions")?;
            write_columns(
                &mut out,
                &matrix(&rows, |row| format!("{}..{}", number(row.min), number(row.max))),
            )?;
        }
        // How two of a system's own rates compare is compared no further.
        let compared: Vec<Row> = rows.iter().filter(|row| row.unit != "times").cloned().collect();
        if compared.iter().any(|row| row.ratio.is_some()) {
            writeln!(out, "\ntimes {}", self.baseline)?;
            let ratio = |row: &Row| row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            write_columns(&mut out, &matrix(&compared, ratio))?;
        }
        self.write_aims(&rows, &mut out)?;
        Ok(writeln!(out)?)
    }

    fn write_aims(&self, rows: &[Row], mut out: impl Write) -> anyhow::Result<()> {
        let mut lines = vec![["aim", "system", "is", "should be", "met"].map(str::to_owned)];
        for row in rows {
            lines.extend(self.verdicts(row).into_iter().map(|verdict| {
                [
                    row.case.to_owned(),
                    row.system.to_owned(),
                    number(verdict.value),
                    match verdict.bound {
                        Bound::Ratio(most) => Bound::RatioTo(self.baseline, most).to_string(),
                        Bound::LeastRatio(_) => format!("{} {}", verdict.bound, self.baseline),
                        bound => bound.to_string(),
                    },
                    met(verdict.met()).to_owned(),
                ]
            }));
        }
        if lines.len() > 1 {
            writeln!(out)?;
            write_columns(&mut out, &lines)?;
        }
        Ok(())
    }
}

/// How a value or ratio compares with what it should be.
struct Verdict {
    bound: Bound,
    value: f64,
}

impl Verdict {
    fn met(&self) -> bool {
        self.bound.holds(self.value)
    }
}

/// Arranges rows by case and system.
fn matrix(rows: &[Row], cell: impl Fn(&Row) -> String) -> Vec<Vec<String>> {
    let (mut cases, mut systems) = (Vec::new(), Vec::new());
    for row in rows {
        let case = (row.case, row.metric, row.unit);
        if !cases.contains(&case) {
            cases.push(case);
        }
        if !systems.contains(&row.system) {
            systems.push(row.system);
        }
    }
    let heads = ["case", "metric", "unit"].into_iter().chain(systems.iter().copied());
    let mut lines = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    for (case, metric, unit) in cases {
        let found = |system: &&str| {
            rows.iter().find(|row| (row.case, row.metric, row.system) == (case, metric, *system))
        };
        let cells = systems.iter().map(|system| found(system).map(&cell).unwrap_or_default());
        lines.push([case, metric, unit].map(str::to_owned).into_iter().chain(cells).collect());
    }
    lines
}

/// Writes lines with every column as wide as its widest cell.
fn write_columns(mut out: impl Write, lines: &[impl AsRef<[String]>]) -> anyhow::Result<()> {
    let mut widths = Vec::new();
    for line in lines {
        let line = line.as_ref();
        widths.resize(line.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    for line in lines {
        let cells = line.as_ref().iter().zip(&widths);
        let padded: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())?;
    }
    Ok(())
}

fn met(met: bool) -> &'static str {
    if met { "yes" } else { "NO" }
}

fn cells(row: &Row) -> [String; 11] {
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
        row.met.map(met).unwrap_or_default().to_owned(),
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
    fn a_matrix_has_a_line_for_each_case_and_a_column_for_each_system() {
        let mut text = Vec::new();
        table().with_records(5).write_matrix(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let expected = "test, 5 records: medians\n\
            case  metric  unit  bare   ours\n\
            put   p50     us    10.00  14.00\n\n\
            smallest and largest of the repetitions\n\
            case  metric  unit  bare          ours\n\
            put   p50     us    10.00..20.00  12.00..90.00\n\n\
            times bare\n\
            case  metric  unit  bare  ours\n\
            put   p50     us          1.40\n\n\
            aim  system  is    should be      met\n\
            put  ours    1.40  <= 1.50x bare  yes\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_aim_is_met_against_another_system_and_is_none_without_it() {
        const AIMS: [Aim; 1] =
            [Aim { case: "put", system: "ours", metric: None, bound: Bound::RatioTo("other", 2.0) }];
        let mut table = Table::new("test", "bare", &AIMS);
        let measurement =
            |system, value| Measurement { case: "put", system, metric: "p50", value, unit: "us", n: 1 };
        table.add(measurement("ours", 10.0));
        assert_eq!(table.rows()[0].met, None);
        table.add(measurement("other", 4.0));
        assert_eq!(table.rows()[0].met, Some(false));
        assert_eq!(table.rows()[0].aim.as_deref(), Some("<= 2.00x other"));
    }

    #[test]
    fn a_rate_may_be_asked_to_be_a_share_of_the_baseline() {
        const AIMS: [Aim; 1] =
            [Aim { case: "put", system: "ours", metric: None, bound: Bound::LeastRatio(0.7) }];
        for (value, met) in [(6.0, false), (7.0, true), (20.0, true)] {
            let mut table = Table::new("test", "bare", &AIMS);
            for (system, value) in [("bare", 10.0), ("ours", value)] {
                table.add(Measurement { case: "put", system, metric: "rate", value, unit: "puts/s", n: 1 });
            }
            let row = &table.rows()[1];
            assert_eq!((row.aim.as_deref(), row.met), (Some(">= 0.7x"), Some(met)));
        }
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
