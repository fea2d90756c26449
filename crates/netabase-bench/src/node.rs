//! Two nodes on loopback, in two processes, against a bare libp2p Kademlia pair.
//!
//! Both pairs have the same transport (TCP, noise, yamux), the same kind of tokio runtime and the
//! same Kademlia settings, and move the same payloads. The bare pair is driven by the measuring
//! task itself, keeps its records in a hash map and signs nothing; `netabase` signs, verifies and
//! keeps its records on disk; `netabase-memory` is the same without the disk. `fdatasync` is one
//! page written to the same disk and flushed: no durable put can be faster.
//!
//! The bare pair looks for the closest peers before every put. A Netabase does so too, but in a
//! network smaller than the replication factor one lookup serves the puts of the next moments.
//!
//! On a machine that has nothing else to do, most of a latency is the waking of idle processors; on
//! a busy one it is work. Compare ratios only with those of a machine in the same state.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{Aim, Bound, Measurement, Table};

mod bare;
pub(crate) mod case;
mod disk;
pub(crate) mod model;
pub(crate) mod ours;
pub(crate) mod peer;
pub(crate) mod system;

pub use peer::PeerOptions;
use system::System;

const BARE: &str = "libp2p-kad";
const OURS: &str = "netabase";
const AIMS: [Aim; 4] = [
    Aim { case: "put", system: OURS, metric: None, bound: Bound::Ratio(1.5) },
    Aim { case: "get", system: OURS, metric: None, bound: Bound::Ratio(1.2) },
    Aim { case: "put_64_callers", system: OURS, metric: Some("64 to 1"), bound: Bound::AtLeast(4.0) },
    Aim { case: "loop_delay_ingest", system: OURS, metric: Some("p99"), bound: Bound::AtMost(5000.0) },
];

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often each case is measured on each system
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// How many records a repetition moves; ten times as many arrive during `loop_delay_ingest`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    records: u32,
    /// Measure only these cases
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Case {
    /// Puts one after the other: durable here and accepted by the peer
    Put,
    /// Gets one after the other, of records that only the peer has
    Get,
    /// Puts of 64 callers at a time
    #[value(name = "put_64_callers")]
    Put64Callers,
    /// How long a command waits for the event loop while a peer sends records
    LoopDelayIngest,
}

impl Case {
    fn systems(self) -> &'static [System] {
        match self {
            Self::Put => &[System::Bare, System::Disk, System::Netabase, System::NetabaseMemory],
            Self::Get | Self::Put64Callers => &[System::Bare, System::Netabase, System::NetabaseMemory],
            Self::LoopDelayIngest => &[System::Netabase, System::NetabaseMemory],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Put64Callers => "put_64_callers",
            Self::LoopDelayIngest => "loop_delay_ingest",
        }
    }
}

/// Measures the cases one after the other.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let cases = if options.cases.is_empty() { Case::value_variants() } else { &options.cases };
    let mut table = Table::new("node", BARE, &AIMS);
    for case in cases {
        for repetition in 1..=options.repetitions {
            for system in case.systems() {
                let measured = measure(*case, *system, options);
                let context = || format!("{} on {}, repetition {repetition}", case.name(), system.name());
                for value in measured.with_context(context)? {
                    table.add(value);
                }
            }
        }
    }
    Ok(table)
}

/// Is the other process: does what it reads from its input, and ends when that is closed.
pub fn run_peer(options: PeerOptions) -> anyhow::Result<()> {
    with_runtime(peer::run(options))
}

fn measure(case: Case, system: System, options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let directory = TempDir::new_in(&options.directory)?;
    let setup =
        case::Setup { system, directory: directory.path().to_owned(), records: u64::from(options.records) };
    with_runtime(async move {
        match case {
            Case::Put if system == System::Disk => disk::put(&setup),
            Case::Put => case::put(&setup).await,
            Case::Get => case::get(&setup).await,
            Case::Put64Callers => case::put_64_callers(&setup).await,
            Case::LoopDelayIngest => case::loop_delay_ingest(&setup).await,
        }
    })
}

/// Runs a future as a task on a runtime of its own, which is gone afterwards with all its tasks.
pub(crate) fn with_runtime<T: Send + 'static>(
    future: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    run_on(&mut Builder::new_multi_thread(), future)
}

/// Does so on a runtime of a builder.
pub(crate) fn run_on<T: Send + 'static>(
    builder: &mut Builder,
    future: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    const GOODBYE: Duration = Duration::from_secs(2);
    let runtime: Runtime = builder.enable_all().build()?;
    let result = runtime.block_on(async { tokio::spawn(future).await });
    runtime.shutdown_timeout(GOODBYE);
    result?
}
