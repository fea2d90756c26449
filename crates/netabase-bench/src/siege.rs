//! Strangers that attack a node, and what those beside them feel.
//!
//! The node is the program `netabase` with its default settings, in a process of its own. In every
//! case a fresh one is measured twice: `idle`, then `attacked`. Beside the strangers are an honest
//! peer that puts records at the node and gets others from it, 20 newcomers that connect one after
//! the other, and a client of the API that opens a connection for each get.
//!
//! | row | what the strangers do |
//! | --- | --- |
//! | `sockets` | open TCP connections and say nothing; send first packets of QUIC from many ports |
//! | `kad` | ask for a record of 1 MiB and never read it; put one and keep its last byte back |
//! | `streams` | open streams and reset them |
//! | `routes` | connect once each, claim 16 made-up addresses and leave |
//! | `lookups` | ask for absent records, compare ranges, and leave answers of 1 MiB unread |
//! | `identify` | push 100 new addresses again and again |
//! | `api` | begin requests to the HTTP API and never end them |
//! | `ping` | flood pings of yamux, and pings on streams |
//! | `gossip` | say to gossipsub whatever it takes |
//! | `give` | hand over records, signed and forged |
//! | `squat` | stay connected, claim to hold records, and answer nothing |
//! | `slow` | send and read a byte a second; cut handshakes |
//! | `conversations` | have conversations of every protocol that are cut, slow, reordered, repeated and altered |
//! | `mixed` | all but the conversations at once |
//!
//! The strangers share little code with the node: noise, keys and hashes. Their multistream-select,
//! yamux and the messages of every protocol are written by hand, in `wire` and `link`;
//! `conversations` alters them. They share the processors with the node, on threads of the lowest
//! priority, since strangers elsewhere have processors of their own.
//!
//! The node bounds what a network prefix takes, and loopback has no prefixes. So the subject runs
//! itself again in a network namespace, in which a block of public addresses is local; `ground`
//! says who has which of them. With `--loopback` everybody comes from 127/8. `bar` has the aims of
//! `--check`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use tempfile::TempDir;

use crate::node::with_runtime;
use crate::program::{self, Node};
use crate::usage::mebibytes;
use crate::{Measurement, Table};

mod attack;
mod bar;
mod conversations;
mod ground;
mod hosts;
mod initial;
mod link;
mod neighbour;
mod target;
mod wire;

use ground::Ground;
pub use ground::ensure_namespaces;
use neighbour::{Felt, NEWCOMERS, Neighbour, Served};
use target::{Counted, Target};

const IDLE: &str = "idle";
const ATTACKED: &str = "attacked";
/// The longest time without strangers: it only tells what they are compared with.
const LONGEST_IDLE: Duration = Duration::from_secs(10);
/// The definition of [`node::model`](crate::node::model), which is the network's name.
const DEFINITION: &str = "BenchDefinition";
/// The id of the record that is too large to be sent in one piece, and the bytes of its text.
const LARGE_ID: u64 = 1 << 40;
const LARGE_BYTES: usize = 1_000_000;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How long each case is measured with strangers; before that it is measured without, for 10 s
    /// at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Measure only these rows
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROW")]
    only: Vec<Row>,
    /// How many /24s the strangers come from
    #[arg(
        long,
        default_value_t = 50,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(ground::MAX_PREFIXES))
    )]
    prefixes: u32,
    /// Do without a network namespace: everybody comes from 127/8, which has no prefixes
    #[arg(long, conflicts_with = "prefixes")]
    loopback: bool,
    /// This is in a namespace already
    #[arg(long, hide = true)]
    confined: bool,
    /// What the conversations of `conversations` follow from [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Fail if what was measured misses an aim, and print each of them behind the table
    #[arg(long)]
    check: bool,
    /// The program [default: `netabase` beside this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where databases are put
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What the strangers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Silent TCP connections, and first packets of QUIC
    Sockets,
    /// Kademlia's values, unread and unfinished
    Kad,
    /// Streams that are opened and reset
    Streams,
    /// Peers that claim made-up addresses and leave
    Routes,
    /// Costly questions of the record protocol
    Lookups,
    /// Pushed addresses
    Identify,
    /// Unfinished requests to the HTTP API
    Api,
    /// Pings on streams and of yamux
    Ping,
    /// What gossipsub takes
    Gossip,
    /// Records, signed and forged
    Give,
    /// Silent peers that claim to hold records
    Squat,
    /// A byte a second, and cut handshakes
    Slow,
    /// Conversations that are cut, slow, reordered, repeated and altered
    Conversations,
    /// Everything but the conversations at once
    Mixed,
}

/// A number of strangers that do one thing until they are stopped.
struct Case {
    name: &'static str,
    strangers: usize,
    attack: fn(Arc<Target>, usize) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// Makes a [`Case`] of an asynchronous function.
macro_rules! case {
    ($name:literal, $strangers:literal, $attack:path) => {
        Case {
            name: $name,
            strangers: $strangers,
            attack: |target, strangers| Box::pin($attack(target, strangers)),
        }
    };
}

impl Row {
    fn cases(self) -> &'static [Case] {
        match self {
            Self::Sockets => {
                &const {
                    [
                        case!("64 sockets", 64, attack::sockets),
                        case!("300 sockets", 300, attack::sockets),
                        case!("300 QUIC ports", 300, attack::initials),
                    ]
                }
            }
            Self::Kad => &const { [case!("kad", 30, attack::kad)] },
            Self::Streams => {
                &const { [case!("8 resetting", 8, attack::streams), case!("16 resetting", 16, attack::streams)] }
            }
            Self::Routes => &const { [case!("routes", 240, attack::routes)] },
            Self::Lookups => &const { [case!("lookups", 16, attack::lookups)] },
            Self::Identify => {
                &const { [case!("4 pushing", 4, attack::identify), case!("16 pushing", 16, attack::identify)] }
            }
            Self::Api => &const { [case!("api", 256, attack::api)] },
            Self::Ping => &const { [case!("ping", 16, attack::ping)] },
            Self::Gossip => &const { [case!("gossip", 16, attack::gossip)] },
            Self::Give => &const { [case!("give", 16, attack::give)] },
            Self::Squat => &const { [case!("squat", 100, attack::squat)] },
            Self::Slow => &const { [case!("slow", 60, attack::slow)] },
            Self::Conversations => &const { [case!("conversations", 48, conversations::conversations)] },
            Self::Mixed => &const { [case!("mixed", 200, attack::mixed)] },
        }
    }
}

/// What was measured, and what of it is not as it should be.
#[derive(Debug)]
pub struct Outcome {
    /// The measurements.
    pub table: Table,
    /// The aims that are missed, if they were asked for.
    missed: Vec<String>,
}

impl Outcome {
    /// Fails if an aim is missed.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.missed.is_empty(), "{} aims are missed:\n{}", self.missed.len(), self.missed.join("\n"));
        Ok(())
    }
}

/// Measures the cases one after the other, each on a node of its own. Without `--loopback` the
/// command runs once more in a network namespace, instead of this process.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    ensure!(
        cfg!(target_os = "linux"),
        "`siege` needs Linux, which answers on all of 127/8 and tells what a process takes; run it there"
    );
    let ground = match (options.loopback, options.confined) {
        (true, _) => Ground::Loopback,
        (false, false) => match ground::confine("--confined")? {},
        (false, true) => {
            ground::lay_out()?;
            Ground::Namespace { prefixes: options.prefixes }
        }
    };
    let program = program::find(options.program.as_deref())?;
    let seed = options.seed.unwrap_or_else(wire::now);
    let rows = if options.only.is_empty() { Row::value_variants() } else { &options.only };
    let (mut table, mut missed) = (Table::new("siege", IDLE, &[]), Vec::new());
    if rows.contains(&Row::Conversations) {
        eprintln!("conversations: --seed {seed}");
    }
    for case in rows.iter().flat_map(|row| row.cases()) {
        let measured = besiege(case, &program, ground, seed, options).with_context(|| case.name)?;
        if options.check {
            missed.extend(bar::missed(&measured));
        }
        for measurement in measured {
            table.add(measurement);
        }
    }
    Ok(Outcome { table, missed })
}

fn besiege(
    case: &'static Case,
    program: &Path,
    ground: Ground,
    seed: u64,
    options: &Options,
) -> anyhow::Result<Vec<Measurement>> {
    let directory = TempDir::new_in(&options.directory)?;
    let schema = directory.path().join("schema.toml");
    std::fs::write(&schema, program::schema(DEFINITION))?;
    let database = directory.path().join("node");
    let listen = ["tcp/0", "udp/0/quic-v1"].map(|port| format!("/ip4/{}/{port}", ground.node()));
    let listen = listen.each_ref().map(String::as_str);
    let records = neighbour::records(options.seconds);
    let mut node = Node::start(program, &schema, &database, &listen)?;
    node.import((0..records).map(neighbour::line).chain([large_line()]))?;
    node.end()?;
    // Without what the import has left in memory.
    let mut node = Node::start(program, &schema, &database, &listen)?;
    let window = Duration::from_secs(options.seconds.into());
    with_runtime(async move {
        let target = Arc::new(Target::new(&node, ground, seed)?);
        let mut neighbour = Neighbour::start(directory.path(), &target, records).await?;
        let idle = neighbour.feel(node.id(), window.min(LONGEST_IDLE)).await?;
        let siege = target::Siege::begin(Arc::clone(&target), case.strangers, case.attack).await?;
        let attacked = neighbour.feel(node.id(), window).await;
        let time = siege.end().await?;
        // An error of the neighbour may only say that the node is gone.
        let attacked = node.ensure_runs().and(attacked);
        let attacked = attacked.inspect_err(|_| target.log.print(seed))?;
        let mut report = Report { case: case.name, measurements: Vec::new() };
        report.add_felt(IDLE, &idle);
        report.add_felt(ATTACKED, &attacked);
        report.add_memory(&idle, &attacked);
        report.add_share(&idle, &attacked)?;
        report.add_counted(&target.counts.read(), time)?;
        if !bar::missed(&report.measurements).is_empty() {
            target.log.print(seed);
        }
        Ok(report.measurements)
    })
}

fn large_line() -> String {
    let text = "x".repeat(LARGE_BYTES);
    program::import_line(&format!(r#"{{"id":{LARGE_ID},"room":"large","text":"{text}"}}"#))
}

/// What a case has come to.
struct Report {
    case: &'static str,
    measurements: Vec<Measurement>,
}

impl Report {
    fn add(&mut self, system: &'static str, metric: &'static str, value: f64, unit: &'static str, n: usize) {
        self.measurements.push(Measurement { case: self.case, system, metric, value, unit, n });
    }

    fn add_felt(&mut self, system: &'static str, felt: &Felt) {
        for (metrics, served) in [
            (["put p50", "put p99", "puts served"], &felt.puts),
            (["get p50", "get p99", "gets served"], &felt.gets),
            (["API get p50", "API get p99", "API gets served"], &felt.calls),
        ] {
            self.add_served(system, metrics, served);
        }
        self.add(system, "newcomers connected", count(felt.newcomers), "of 20", NEWCOMERS.into());
        self.add(system, "memory", mebibytes(felt.memory), "MiB", 1);
        self.add(system, "processor", felt.processor * 100.0, "% of a core", 1);
    }

    fn add_served(&mut self, system: &'static str, metrics: [&'static str; 3], served: &Served) {
        let (mut latencies, n) = (served.latencies.clone(), served.latencies.len());
        let [p50, p99, share] = metrics;
        self.add(system, p50, latencies.percentile(50) / 1e3, "ms", n);
        self.add(system, p99, latencies.percentile(99) / 1e3, "ms", n);
        self.add(system, share, count(served.served) / count(n) * 100.0, "%", n);
    }

    fn add_memory(&mut self, idle: &Felt, attacked: &Felt) {
        let more = mebibytes(attacked.memory) - mebibytes(idle.memory);
        self.add(ATTACKED, "memory over idle", more, "MiB", 1);
    }

    /// Adds how much of all processors the node has used because of the strangers.
    fn add_share(&mut self, idle: &Felt, attacked: &Felt) -> anyhow::Result<()> {
        let cores = count(std::thread::available_parallelism()?.get());
        let share = (attacked.processor - idle.processor) / cores * 100.0;
        self.add(ATTACKED, "strangers' share", share, "% of all cores", 1);
        Ok(())
    }

    fn add_counted(&mut self, counted: &Counted, time: Duration) -> anyhow::Result<()> {
        let messages = f64::from(u32::try_from(counted.messages)?) / time.as_secs_f64();
        self.add(ATTACKED, "strangers' messages", messages, "1/s", 1);
        self.add(ATTACKED, "strangers' bytes", mebibytes(counted.bytes), "MiB", 1);
        self.add(ATTACKED, "strangers' connections", count(counted.connections), "connections", 1);
        self.add(ATTACKED, "dials of chosen hosts", count(counted.dials), "dials", 1);
        self.add(ATTACKED, "sent to chosen hosts", mebibytes(counted.sent_to_hosts) * 1024.0, "KiB", 1);
        if counted.bytes > 0 {
            let amplification = mebibytes(counted.sent_to_hosts) / mebibytes(counted.bytes);
            self.add(ATTACKED, "amplification", amplification, "times", 1);
        }
        Ok(())
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_aim_is_an_error_that_names_it() {
        let outcome = |missed| Outcome { table: Table::new("siege", IDLE, &[]), missed };
        assert!(outcome(Vec::new()).check().is_ok());
        let error = outcome(vec!["kad: put p99 is 60.00 ms".to_owned()]).check().unwrap_err();
        assert!(error.to_string().ends_with("\nkad: put p99 is 60.00 ms"), "{error}");
    }
}
