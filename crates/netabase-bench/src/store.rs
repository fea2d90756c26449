//! `netabase_store` alone, against databases that are written to by hand or made for the same
//! purpose.
//!
//! Records have about 150 bytes and two secondary keys: a room that 100 records have, and a serial
//! number that one has. They are made from their numbers when they are needed, and their primary
//! keys are spread over all of `u64` in no order. Every system reads and writes the same records in
//! the same order, in a process of its own, so that caches and peak memory are its own; the systems
//! take turns within a repetition. Everything that is read is decoded into the same struct and
//! summed up field by field. The sum is compared with that of what was written, except that a room
//! is checked by name and number of records, and a range by number and order. Records are counted
//! after everything that writes.
//!
//! | system | what it is | what makes a commit durable |
//! | --- | --- | --- |
//! | `netabase` | `netabase_store` on redb, unsigned | redb's default; many writers share a commit |
//! | `netabase-sled` | `netabase_store` on sled 0.34 | a flush after each batch; many writers share it |
//! | `redb` | redb, by hand: the tables and bytes of `docs/formats.md` | redb's default |
//! | `native_db` | `native_db` on redb 2, with `native_model` | redb's default |
//! | `sqlite` | `SQLite`, bundled, a table and an index for each key | WAL, `synchronous = FULL` |
//! | `raw-sled` | sled 0.34, by hand: a tree per table, transactions | a flush after each transaction |
//! | `fjall` | fjall 3, by hand: a keyspace per table, transactions | `PersistMode::SyncAll` at each commit |
//!
//! All of them have a cache of 64 MiB. fjall has its write buffers beside it. None of them
//! compresses.
//!
//! Times are the mean of all calls in a repetition; inserts of one record go on for a given time.
//! `update` and `delete` are of 100 records in a durable transaction, so that they measure more
//! than the disk. The data fits into the memory that the operating system has for files: reads
//! beyond the cache are calls to the system, and not to the disk. Records with ten keys are a case
//! of its own, up to 100,000 of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::{Aim, Bound, Measurement, Table};

mod bytes;
mod case;
mod child;
mod fjall;
pub(crate) mod model;
mod native_db;
mod ours;
mod redb;
mod run;
mod sled;
mod sqlite;
mod system;

use case::Case;
pub use child::{ChildOptions, run_child};
use run::{Effort, Outcome};
use system::System;

const OURS: &str = "netabase";
const REDB: &str = "redb";
const NATIVE_DB: &str = "native_db";
const SQLITE: &str = "sqlite";

const AIMS: [Aim; 27] = [
    aim("bulk_insert", Bound::Ratio(1.15)),
    aim("get", Bound::Ratio(1.15)),
    aim("get_many_100", Bound::Ratio(1.15)),
    aim("find_1", Bound::Ratio(1.15)),
    aim("find_100", Bound::Ratio(1.15)),
    aim("range_1000", Bound::Ratio(1.15)),
    aim("scan", Bound::Ratio(1.15)),
    aim("bulk_insert", Bound::RatioTo(NATIVE_DB, 1.0 / 3.0)),
    aim("insert", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("insert_64_threads", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("update", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("delete", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("get", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("get_many_100", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("find_1", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("find_100", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("range_1000", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("scan", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("open", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("file_size", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("peak_memory", Bound::RatioTo(NATIVE_DB, 1.0)),
    aim("64_threads_to_1", Bound::AtLeast(50.0)),
    aim("64_threads_to_bulk", Bound::AtLeast(0.7)),
    aim("open", Bound::AtMost(100.0)),
    // The cache, and as much again for everything else.
    aim("peak_memory", Bound::AtMost(128.0)),
    aim("bulk_insert_10_keys", Bound::RatioTo(NATIVE_DB, 0.2)),
    aim("bulk_insert_10_keys", Bound::RatioTo(SQLITE, 1.5)),
];

const fn aim(case: &'static str, bound: Bound) -> Aim {
    Aim { case, system: OURS, metric: None, bound }
}

/// How many records with ten keys there are at most.
const TEN_KEYS_RECORDS: u64 = 100_000;
/// From how many records on one repetition is enough, and sled too slow, unless they are asked for.
const MANY_RECORDS: u64 = 1_000_000;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many records there are; each number makes a table
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    #[arg(value_parser = clap::value_parser!(u64).range(300..=100_000_000))]
    records: Vec<u64>,
    /// How often everything is measured; by default three times, and once from a million records on
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: Option<u32>,
    /// Measure only these systems; by default all, but with a million records none on sled
    #[arg(long, value_enum, value_delimiter = ',')]
    systems: Vec<System>,
    /// Measure only these cases
    #[arg(long = "case", value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// How long durable inserts go on, in milliseconds
    #[arg(long, default_value_t = 2000)]
    insert_millis: u64,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

impl Options {
    fn systems(&self, records: u64) -> Vec<System> {
        if !self.systems.is_empty() {
            return self.systems.clone();
        }
        // With a million records sled takes minutes more than the others.
        let quick = |system: &System| records < MANY_RECORDS || !system.is_on_sled();
        System::value_variants().iter().copied().filter(quick).collect()
    }

    fn cases(&self) -> &[Case] {
        if self.cases.is_empty() { Case::value_variants() } else { &self.cases }
    }

    fn repetitions(&self, records: u64) -> u32 {
        self.repetitions.unwrap_or(if records < MANY_RECORDS { 3 } else { 1 })
    }
}

/// Measures the systems; returns a table for each number of records.
pub fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    options.records.iter().map(|records| run_with(*records, options)).collect()
}

fn run_with(records: u64, options: &Options) -> anyhow::Result<Table> {
    let mut outcomes = Vec::new();
    for repetition in 1..=options.repetitions(records) {
        for system in options.systems(records) {
            let what = format!("{} with {records} records, repetition {repetition}", system.name());
            let start = Instant::now();
            let measured = measure(system, records, options).with_context(|| what.clone())?;
            eprintln!("{what}: {:.0} s", start.elapsed().as_secs_f64());
            outcomes.extend(measured.into_iter().map(|outcome| (system, outcome)));
        }
    }
    let mut table = Table::new("store", REDB, &AIMS).with_records(records);
    for case in Case::value_variants() {
        for (system, Outcome { value, n, .. }) in outcomes.iter().filter(|(_, outcome)| outcome.case == *case)
        {
            let ((metric, unit), n) = (case.metric(), usize::try_from(*n)?);
            let (case, system, value) = (case.name(), system.name(), *value);
            table.add(Measurement { case, system, metric, value, unit, n });
        }
    }
    Ok(table)
}

fn measure(system: System, records: u64, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let measured = |case: &&Case| case.is_measured_on(system);
    let (ten_keys, cases): (Vec<Case>, Vec<Case>) =
        options.cases().iter().filter(measured).partition(|case| **case == Case::BulkInsertTenKeys);
    let effort =
        Effort { records, inserts: Duration::from_millis(options.insert_millis), gets: gets(records) };
    let mut outcomes = Vec::new();
    if !cases.is_empty() {
        let directory = TempDir::new_in(&options.directory)?;
        outcomes.extend(child::measure(system, &cases, effort, directory.path())?);
    }
    if !ten_keys.is_empty() && records <= TEN_KEYS_RECORDS {
        let directory = TempDir::new_in(&options.directory)?;
        outcomes.extend(child::measure(system, &ten_keys, effort, directory.path())?);
    }
    Ok(outcomes)
}

/// Returns how many gets are enough to measure.
fn gets(records: u64) -> u64 {
    (records / 2).min(50_000)
}
