//! What the `netabase` program takes: on the disk, until it is ready, and while nothing happens.
//!
//! The program is built by `cargo build --release`; its database has been filled before. Ready
//! means that `/health/ready` answers with 200, asked for over and over from the moment that the
//! process is started.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;

use crate::program::{self, Node};
use crate::usage::{mebibytes, resident_memory_of};
use crate::{Aim, Bound, Measurement, Table};

const OURS: &str = "netabase";
const AIMS: [Aim; 2] = [
    Aim { case: "start", system: OURS, metric: None, bound: Bound::AtMost(150.0) },
    Aim { case: "idle", system: OURS, metric: None, bound: Bound::AtMost(40.0) },
];
const LISTEN: [&str; 1] = ["/ip4/127.0.0.1/tcp/0"];
/// How long nothing happens before the memory is read.
const REST: Duration = Duration::from_secs(5);

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often the program is started
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// How many records its database has, of about 100 bytes
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// The program [default: `netabase` beside this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the database is put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// Measures the program.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let program = program::find(options.program.as_deref())?;
    let bytes = program.metadata()?.len();
    let mut table = Table::new("footprint", OURS, &AIMS).with_records(options.records);
    let mut add = |case, metric, value, unit| {
        table.add(Measurement { case, system: OURS, metric, value, unit, n: 1 });
    };
    add("program", "size", mebibytes(bytes), "MiB");
    let directory = TempDir::new_in(&options.directory)?;
    let schema = directory.path().join("schema.toml");
    std::fs::write(&schema, program::schema("footprint"))?;
    let database = directory.path().join("node");
    let mut node = Node::start(&program, &schema, &database, &LISTEN)?;
    node.import((0..options.records).map(line))?;
    node.end()?;
    for _ in 0..options.repetitions {
        let mut node = Node::start(&program, &schema, &database, &LISTEN)?;
        add("start", "until ready", node.ready.as_secs_f64() * 1e3, "ms");
        thread::sleep(REST);
        add("idle", "resident memory", mebibytes(resident_memory_of(node.id())?), "MiB");
        node.end()?;
    }
    Ok(table)
}

fn line(id: u64) -> String {
    let room = id % 100;
    program::import_line(&format!(r#"{{"id":{id},"room":"room-{room}","text":"{id:085}"}}"#))
}
