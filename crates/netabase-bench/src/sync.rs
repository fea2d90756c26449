//! Finding and following: writing, joining, comparing sets, live events, queries over peers, and
//! large values.
//!
//! | part | what is measured | beside |
//! | --- | --- | --- |
//! | `writes` | signed records per second until they are on the disk | iroh-docs |
//! | `join` | records per second until an empty node can read everything | iroh-docs |
//! | `reconcile` | bytes, round trips and time to find out how two sets differ | negentropy |
//! | `latency` | from a put on one of ten nodes to the event on each other; every event once | |
//! | `query` | the first and the last of a hundred results from twenty nodes; everything is found | |
//! | `blob` | a value of 256 MiB from three holders, one of them corrupting and one dying | a TCP connection |
//!
//! Databases are on the disk, nodes in this process on QUIC and loopback, where the part says
//! nothing else. iroh-docs is measured by a program of its own, in the same run, see
//! `comparisons/iroh-docs`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::{Aim, Bound, Table};

mod blob;
mod iroh;
mod join;
mod latency;
mod model;
mod node;
mod query;
mod reconcile;
mod writes;

pub use blob::{FetchOptions, HoldOptions, run_fetch, run_hold};

const OURS: &str = "netabase";
const OURS_INTERVAL: &str = "netabase-interval";
const IROH: &str = "iroh-docs";
const NEGENTROPY: &str = "negentropy";
const TCP: &str = "tcp";

const TIMES: f64 = 5.0;
const AIMS: [Aim; 5] = [
    aim("writes", OURS, "64 callers", Bound::LeastRatio(TIMES)),
    aim("writes", OURS, "batch", Bound::LeastRatio(TIMES)),
    aim("writes", OURS_INTERVAL, "one caller", Bound::LeastRatio(TIMES)),
    aim("writes", OURS_INTERVAL, "64 callers", Bound::LeastRatio(TIMES)),
    aim("join", OURS, "until readable", Bound::LeastRatio(TIMES)),
];
const RECONCILE_AIMS: [Aim; 6] = [
    aim("0 differences", OURS, "bytes", Bound::Ratio(1.0)),
    aim("100 differences", OURS, "bytes", Bound::Ratio(1.0)),
    aim("10000 differences", OURS, "bytes", Bound::Ratio(1.0)),
    // The sums are there already.
    aim("0 differences", OURS, "sets ready", Bound::Ratio(0.1)),
    aim("100 differences", OURS, "sets ready", Bound::Ratio(0.1)),
    aim("10000 differences", OURS, "sets ready", Bound::Ratio(0.1)),
];
const LATENCY_AIMS: [Aim; 3] = [
    aim("latency", OURS, "p50", Bound::AtMost(3000.0)),
    aim("latency", OURS, "missed", Bound::AtMost(0.0)),
    aim("latency", OURS, "repeated", Bound::AtMost(0.0)),
];
const QUERY_AIMS: [Aim; 1] = [aim("query", OURS, "complete", Bound::AtLeast(100.0))];
const BLOB_AIMS: [Aim; 2] = [
    aim("blob", OURS, "correct", Bound::AtLeast(100.0)),
    aim("blob", OURS, "peak memory", Bound::AtMost(64.0)),
];

const fn aim(case: &'static str, system: &'static str, metric: &'static str, bound: Bound) -> Aim {
    Aim { case, system, metric: Some(metric), bound }
}

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many records are written and joined; each number makes a table
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    records: Vec<u64>,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// The program that measures iroh-docs; by default it is looked for where it is built
    #[arg(long)]
    iroh: Option<PathBuf>,
    /// Leave iroh-docs out
    #[arg(long, conflicts_with = "iroh")]
    no_iroh: bool,
    /// How many items the sets have that are compared
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    items: u64,
    /// How many nodes hear of a put, with the one that puts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=100))]
    live_nodes: u32,
    /// How many records are put while others follow
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    puts: u64,
    /// How many nodes a query is about
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=100))]
    query_nodes: u32,
    /// How many records these have together
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    query_records: u64,
    /// How large the value is that is fetched, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    blob_mebibytes: u64,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What was found out.
#[derive(Debug)]
pub struct Report {
    /// A table for each number of records, and one for each other part.
    pub tables: Vec<Table>,
    /// Why parts were not measured to their end.
    pub failures: Vec<anyhow::Error>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Signed records per second until they are on the disk
    Writes,
    /// Records per second until an empty node can read everything
    Join,
    /// Bytes, round trips and time to find out how two sets differ
    Reconcile,
    /// From a put to the events
    Latency,
    /// Results from many nodes
    Query,
    /// A large value from several holders
    Blob,
}

/// What a part is told.
#[derive(Debug, Clone, Copy)]
struct Effort<'a> {
    records: u64,
    items: u64,
    nodes: usize,
    puts: u64,
    blob_bytes: u64,
    directory: &'a Path,
    iroh: Option<&'a Path>,
}

/// A part with a table of its own: with how many of what it is measured, what it is compared with,
/// and its aims.
type Other<'a> = (Part, Measure, Effort<'a>, u64, &'static str, &'static [Aim]);
type Measure = fn(&Effort<'_>, &mut Table) -> anyhow::Result<()>;

/// Measures the parts.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let parts = if options.only.is_empty() { Part::value_variants() } else { &options.only };
    let iroh = find_iroh(options, parts)?;
    let effort = Effort {
        records: 0,
        items: options.items,
        nodes: usize::try_from(options.live_nodes)?,
        puts: options.puts,
        blob_bytes: options.blob_mebibytes << 20,
        directory: &options.directory,
        iroh: iroh.as_deref(),
    };
    let (mut tables, mut failures) = (Vec::new(), Vec::new());
    for records in &options.records {
        let mut table = Table::new("sync", IROH, &AIMS).with_records(*records);
        let effort = Effort { records: *records, ..effort };
        for (part, measure) in [(Part::Writes, writes::measure as Measure), (Part::Join, join::measure)] {
            failures.extend(repeat(options, parts, part, &effort, measure, &mut table));
        }
        tables.push(table);
    }
    let query =
        Effort { records: options.query_records, nodes: usize::try_from(options.query_nodes)?, ..effort };
    let others: [Other<'_>; 4] = [
        (Part::Reconcile, reconcile::measure, effort, effort.items, NEGENTROPY, &RECONCILE_AIMS),
        (Part::Latency, latency::measure, effort, effort.puts, OURS, &LATENCY_AIMS),
        (Part::Query, query::measure, query, query.records, OURS, &QUERY_AIMS),
        (Part::Blob, blob::measure, effort, 1, TCP, &BLOB_AIMS),
    ];
    for (part, measure, effort, records, baseline, aims) in others {
        let mut table = Table::new("sync", baseline, aims).with_records(records);
        failures.extend(repeat(options, parts, part, &effort, measure, &mut table));
        tables.push(table);
    }
    tables.retain(|table| !table.rows().is_empty());
    Ok(Report { tables, failures })
}

/// Measures a part as often as it is wanted, if it is; returns what failed.
fn repeat(
    options: &Options,
    parts: &[Part],
    part: Part,
    effort: &Effort<'_>,
    measure: Measure,
    table: &mut Table,
) -> Vec<anyhow::Error> {
    let mut failures = Vec::new();
    if !parts.contains(&part) {
        return failures;
    }
    for repetition in 1..=options.repetitions {
        let start = Instant::now();
        let measured = measure(effort, table).with_context(|| format!("{part:?}, repetition {repetition}"));
        let how = if measured.is_ok() { "" } else { ", failed" };
        eprintln!("{part:?}, repetition {repetition}: {:.1} s{how}", start.elapsed().as_secs_f64());
        failures.extend(measured.err());
    }
    failures
}

/// Says how iroh-docs can be measured where it cannot.
fn find_iroh(options: &Options, parts: &[Part]) -> anyhow::Result<Option<PathBuf>> {
    let wanted = parts.contains(&Part::Writes) || parts.contains(&Part::Join);
    if options.no_iroh || !wanted {
        return Ok(None);
    }
    let found = iroh::find(options.iroh.as_deref())?;
    if found.is_none() {
        eprintln!("iroh-docs is not measured; build its program with:\n    {}", iroh::BUILD);
    }
    Ok(found)
}

#[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^53 records")]
fn per_second(records: u64, time: Duration) -> f64 {
    records as f64 / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn share(some: usize, all: usize) -> f64 {
    let number = |number| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    number(some) / number(all.max(1))
}
