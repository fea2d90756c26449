//! The process that has a system to itself: how it is started, and what it says.
//!
//! It prints a line for each case, `<case> <value> <samples>`, and ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use super::case::Case;
use super::run::{Effort, Outcome, Run, bulk_insert_ten_keys};
use super::system::System;

/// What the process is told at its start.
#[derive(Debug, Args)]
pub struct ChildOptions {
    /// What it measures
    #[arg(long, value_enum)]
    system: System,
    /// How many records there are
    #[arg(long)]
    records: u64,
    /// Where its database is put
    #[arg(long)]
    directory: PathBuf,
    /// How long durable inserts go on, in milliseconds
    #[arg(long)]
    insert_millis: u64,
    /// How many gets there are
    #[arg(long)]
    gets: u64,
    /// What is measured
    #[arg(long = "case", value_enum, required = true)]
    cases: Vec<Case>,
}

/// Is the process: measures, and prints what it found.
pub fn run_child(options: &ChildOptions) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for Outcome { case, value, n } in measure_here(options)? {
        writeln!(out, "{} {value} {n}", case.name())?;
    }
    Ok(())
}

fn measure_here(options: &ChildOptions) -> anyhow::Result<Vec<Outcome>> {
    let ChildOptions { system, records, directory, insert_millis, gets, cases } = options;
    if cases.contains(&Case::BulkInsertTenKeys) {
        return bulk_insert_ten_keys(*system, *records, directory);
    }
    let effort = Effort { records: *records, inserts: Duration::from_millis(*insert_millis), gets: *gets };
    Run::new(*system, cases, effort, directory).measure()
}

/// Measures cases of one system in a process of its own, in a directory that is empty.
pub(super) fn measure(
    system: System,
    cases: &[Case],
    effort: Effort,
    directory: &Path,
) -> anyhow::Result<Vec<Outcome>> {
    let system = system.to_possible_value().context("a hidden system")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("store-child").args(["--system", system.get_name()]).arg("--directory").arg(directory);
    command.args(["--records", &effort.records.to_string()]);
    command.args(["--insert-millis", &effort.inserts.as_millis().to_string()]);
    command.args(["--gets", &effort.gets.to_string()]);
    for case in cases {
        command.args(["--case", case.name()]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the process ended with {}", output.status);
    String::from_utf8(output.stdout)?.lines().map(outcome).collect()
}

fn outcome(line: &str) -> anyhow::Result<Outcome> {
    let mut words = line.split(' ');
    let (Some(case), Some(value), Some(n), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("what is {line:?}?")
    };
    let case = Case::from_str(case, false).map_err(anyhow::Error::msg)?;
    Ok(Outcome { case, value: value.parse()?, n: n.parse()? })
}
