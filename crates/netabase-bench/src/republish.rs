//! A node with many records of its own on disk, whose republisher has work for hours.
//!
//! A process of its own fills the database, so that nothing of that is left in this one's memory.
//! Then this process starts the node and asks its event loop for something trivial every
//! millisecond: at first while nobody is there to publish to (`idle`), then while a second process
//! accepts what is published (`republishing`), and what the repair sends, which compares everything
//! with a new peer at once. Delays are those of the questions; memory is the most there was in that
//! time above what there was before; `processor` is the share of one processor that the whole
//! process took.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use libp2p::kad::Mode;
use netabase::{DhtMode, StorageBackend};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::node::case::Setup;
use crate::node::ours::Ours;
use crate::node::peer::Peer;
use crate::node::system::System;
use crate::node::with_runtime;
use crate::usage::{cpu_time, disk_bytes, forget_peak_memory, mebibytes, peak_memory, resident_memory};
use crate::{Aim, Bound, Latencies, Measurement, Table};

const IDLE: &str = "idle";
const REPUBLISHING: &str = "republishing";
const AIMS: [Aim; 2] = [aim("event loop", "p99 over idle", 5000.0), aim("memory", "peak over idle", 64.0)];

const fn aim(case: &'static str, metric: &'static str, most: f64) -> Aim {
    Aim { case, system: REPUBLISHING, metric: Some(metric), bound: Bound::AtMost(most) }
}

/// How many records are written in one transaction.
const FILL_BATCH: u64 = 10_000;
/// How often to look whether everything is due.
const PAUSE: Duration = Duration::from_secs(2);

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many records there are
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    records: u32,
    /// For how many seconds the republisher is watched, and the idle node before it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What the process that fills the database is told.
#[derive(Debug, Args)]
pub struct FillOptions {
    /// How many records there are to be
    #[arg(long)]
    records: u64,
    /// Where the database is put
    #[arg(long)]
    directory: PathBuf,
}

/// Is the process that fills the database.
pub fn run_fill(options: &FillOptions) -> anyhow::Result<()> {
    let ours = Ours::open(StorageBackend::Redb, DhtMode::Server, &options.directory)?;
    let mut from = 0;
    while from < options.records {
        let to = options.records.min(from + FILL_BATCH);
        ours.store(from..to)?;
        from = to;
    }
    Ok(())
}

/// Fills a database and watches its node.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let directory = TempDir::new_in(&options.directory)?;
    let start = Instant::now();
    fill(options.records, directory.path())?;
    let mut table = Table::new("republish", IDLE, &AIMS).with_records(options.records.into());
    let filled = start.elapsed().as_secs_f64();
    eprintln!("{} records: {filled:.0} s", options.records);
    let n = usize::try_from(options.records)?;
    let mut add = |metric, value, unit| {
        table.add(Measurement { case: "database", system: IDLE, metric, value, unit, n });
    };
    add("filled in", filled, "s");
    add("size", mebibytes(disk_bytes(directory.path())?), "MiB");
    let (seconds, path) = (options.seconds, directory.path().to_owned());
    for measurement in with_runtime(async move { watch(n, seconds, path).await })? {
        table.add(measurement);
    }
    Ok(table)
}

fn fill(records: u32, directory: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("republish-fill").args(["--records", &records.to_string()]).arg("--directory").arg(directory);
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the process that fills the database ended with {status}");
    Ok(())
}

async fn watch(records: usize, seconds: u32, directory: PathBuf) -> anyhow::Result<Vec<Measurement>> {
    let time = Duration::from_secs(seconds.into());
    let node = Ours::start(StorageBackend::Redb, Mode::Server, &directory, 0..0).await?;
    while scheduled(&node).await? < records {
        sleep(PAUSE).await;
    }
    let idle = Watched::watch(&node, time).await?;
    let setup = Setup { system: System::NetabaseMemory, directory, records: 0 };
    let peer = Peer::start(&setup, 0).await?;
    node.connect(peer.address.clone()).await?;
    let busy = Watched::watch(&node, time).await?;
    node.netabase().stop_swarm().await?;
    let accepted = records.saturating_sub(scheduled(&node).await?);
    peer.end().await?;
    ensure!(accepted > 0, "nothing was published");
    Ok(measurements(idle, busy, f64::from(u32::try_from(accepted)?)))
}

/// Returns how many records wait for their publication.
async fn scheduled(node: &Ours) -> anyhow::Result<usize> {
    let store = node.netabase().store().clone();
    spawn_blocking(move || {
        // What was scheduled anew may wait for the disk.
        store.flush()?;
        Ok(store.replica().due(usize::MAX)?.len())
    })
    .await?
}

/// What was seen of the node for some time.
struct Watched {
    delays: Latencies,
    time: Duration,
    cpu: Duration,
    /// The memory before.
    memory: u64,
    /// The most memory there was.
    peak: u64,
}

impl Watched {
    async fn watch(node: &Ours, time: Duration) -> anyhow::Result<Self> {
        forget_peak_memory()?;
        let (start, cpu, memory) = (Instant::now(), cpu_time()?, resident_memory()?);
        let delays = node.probe(sleep(time)).await?;
        let (time, cpu) = (start.elapsed(), cpu_time()?.saturating_sub(cpu));
        Ok(Self { delays, time, cpu, memory, peak: peak_memory()?.context("no peak is told")? })
    }
}

fn measurements(mut idle: Watched, mut busy: Watched, accepted: f64) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    let mut add = |case, system, metric, value, unit, n| {
        measurements.push(Measurement { case, system, metric, value, unit, n });
    };
    let over = busy.delays.percentile(99) - idle.delays.percentile(99);
    // What the node had before anybody was there to publish to.
    let memory = mebibytes(busy.peak.saturating_sub(idle.memory));
    for (system, watched) in [(IDLE, &mut idle), (REPUBLISHING, &mut busy)] {
        let (time, n) = (watched.time.as_secs_f64(), watched.delays.len());
        for (metric, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
            add("event loop", system, metric, watched.delays.percentile(percent), "us", n);
        }
        add("processor", system, "share", watched.cpu.as_secs_f64() / time * 100.0, "%", 1);
        add("memory", system, "peak", mebibytes(watched.peak), "MiB", 1);
    }
    add("event loop", REPUBLISHING, "p99 over idle", over, "us", busy.delays.len());
    add("memory", REPUBLISHING, "peak over idle", memory, "MiB", 1);
    add("published", REPUBLISHING, "rate", accepted / busy.time.as_secs_f64(), "records/s", 1);
    measurements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(delay: u64, peak: u64) -> Watched {
        let delays = (0..100).map(|_| Duration::from_micros(delay)).collect();
        let (time, cpu) = (Duration::from_secs(20), Duration::from_secs(1));
        Watched { delays, time, cpu, memory: 100 << 20, peak: peak << 20 }
    }

    #[test]
    fn the_aims_are_about_what_is_over_idle() {
        let mut table = Table::new("republish", IDLE, &AIMS);
        for measurement in measurements(watched(100, 110), watched(5200, 150), 5120.0) {
            table.add(measurement);
        }
        let rows = table.rows();
        let row = |case, metric| rows.iter().find(|row| (row.case, row.metric) == (case, metric)).unwrap();
        let (delay, memory) = (row("event loop", "p99 over idle"), row("memory", "peak over idle"));
        assert_eq!((format!("{:.0}", delay.value), delay.met), ("5100".into(), Some(false)));
        assert_eq!((format!("{:.0}", memory.value), memory.met), ("50".into(), Some(true)));
        assert_eq!(format!("{:.0}", row("published", "rate").value), "256");
    }
}
