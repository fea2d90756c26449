//! What the `netabase` program takes: on the disk, until it is ready, and while nothing happens.
//!
//! The program is built by `cargo build --release`; its database has been filled before. Ready
//! means that `/health/ready` answers with 200, asked for over and over from the moment that the
//! process is started.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::usage::{mebibytes, resident_memory_of};
use crate::{Aim, Bound, Measurement, Table};

const OURS: &str = "netabase";
const AIMS: [Aim; 2] = [
    Aim { case: "start", system: OURS, metric: None, bound: Bound::AtMost(150.0) },
    Aim { case: "idle", system: OURS, metric: None, bound: Bound::AtMost(40.0) },
];
const SCHEMA: &str = r#"name = "footprint"

[[models]]
name = "Message"
primary_key = ["id"]
fields = [
  { name = "id", type = "u64" },
  { name = "room", type = "string" },
  { name = "text", type = "string" },
]
[[models.secondary_keys]]
name = "room"
fields = ["room"]
"#;
/// How long the program may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing happens before the memory is read.
const REST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(500);

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
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("netabase"),
    };
    let bytes = program
        .metadata()
        .with_context(|| format!("there is no {}; build it with `cargo build --release`", program.display()))?
        .len();
    let mut table = Table::new("footprint", OURS, &AIMS).with_records(options.records);
    let mut add = |case, metric, value, unit| {
        table.add(Measurement { case, system: OURS, metric, value, unit, n: 1 });
    };
    add("program", "size", mebibytes(bytes), "MiB");
    let directory = TempDir::new_in(&options.directory)?;
    let schema = directory.path().join("schema.toml");
    std::fs::write(&schema, SCHEMA)?;
    let database = directory.path().join("node");
    fill(&program, &schema, &database, options.records)?;
    for _ in 0..options.repetitions {
        let mut node = Node::start(&program, &schema, &database)?;
        add("start", "until ready", node.ready.as_secs_f64() * 1e3, "ms");
        thread::sleep(REST);
        add("idle", "resident memory", mebibytes(resident_memory_of(node.process.id())?), "MiB");
        node.end()?;
    }
    Ok(table)
}

/// Has a node import the records, as an operator would.
fn fill(program: &Path, schema: &Path, database: &Path, records: u64) -> anyhow::Result<()> {
    let mut node = Node::start(program, schema, database)?;
    let mut import = Command::new(program)
        .args(["import", "--api", &format!("http://{}", node.address), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut lines = std::io::BufWriter::new(import.stdin.take().context("it reads nothing")?);
    for id in 0..records {
        let room = id % 100;
        writeln!(
            lines,
            r#"{{"model":"Message","version":1,"value":{{"id":{id},"room":"room-{room}","text":"{id:085}"}}}}"#
        )?;
    }
    drop(lines.into_inner()?);
    let status = import.wait()?;
    ensure!(status.success(), "the import ended with {status}");
    node.end()
}

/// A node in a process of its own.
struct Node {
    process: Child,
    address: String,
    /// How long it took until it was ready.
    ready: Duration,
}

impl Node {
    fn start(program: &Path, schema: &Path, database: &Path) -> anyhow::Result<Self> {
        let start = Instant::now();
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--path")
            .arg(database)
            .arg("--schema")
            .arg(schema)
            .args(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--api-listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = BufReader::new(process.stdout.take().context("it says nothing")?);
        for line in said.lines() {
            let line = line?;
            let Some(url) = line.strip_prefix("api ") else { continue };
            let address = url.trim().trim_start_matches("http://").to_owned();
            while !is_ready(&address)? {
                ensure!(start.elapsed() < PATIENCE, "the node does not become ready");
                thread::sleep(PAUSE);
            }
            return Ok(Self { process, address, ready: start.elapsed() });
        }
        let status = process.wait()?;
        bail!("the node ended with {status}")
    }

    /// It has nothing to lose: what it has acknowledged is on the disk.
    fn end(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.end();
    }
}

fn is_ready(address: &str) -> anyhow::Result<bool> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Ok(false) };
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
