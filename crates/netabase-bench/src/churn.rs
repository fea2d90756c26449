//! A network that loses nodes, and what becomes of its records.
//!
//! All nodes are in this process, on libp2p's memory transport and with stores in memory. Records
//! are put at random nodes. Then, round after round, a random share of the nodes goes at once, with
//! their stores, and as many new ones join through random survivors; some records get a newer
//! version; the nodes repair what they can; and every record is read at a random node that did not
//! write it.
//!
//! | case | what is measured |
//! | --- | --- |
//! | `set-up` | starting the network: until every node has filled its routing table |
//! | `put` | writing the records; `placed` is the share of the copies that are at the closest nodes of all |
//! | `join` | until the new nodes of a round have filled their routing tables |
//! | `survive` | the share of the records with a replica left, at one of the nodes that were closest |
//! | `find` | the share of the records that a reader finds |
//! | `read` | what readers get, of all records; latencies are those of `fetch_record` |
//! | `copies` | copies in the stores after repair, `old` ones are of an earlier version |
//! | `repair` | a round of repair after nodes have gone and come; traffic is requests and answers |
//! | `steady` | another round, with nobody gone or come but routing tables refreshed: an hour by default |
//!
//! `survive` and `find` are compared with `no-repair`, what chance would leave if nothing were
//! repaired, drawn from who had which copy before the round, and with `1-churn^K`, what the
//! textbook says of K copies. A lookup asks the K closest nodes only: for a small K the newcomers
//! hide as many records as are lost, see `expected.rs`. Both are about records that had a copy
//! before the round and were not updated in it. Its author has a copy of a record, too, where no
//! lookup finds it: it counts in `copies` alone.
//!
//! Nodes, their places in the keyspace, and who does what follow from the seed; which message comes
//! first does not.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::runtime::Builder;

use crate::dice::Dice;
use crate::usage::{cpu_time, mebibytes, peak_memory, resident_memory};
use crate::{Aim, Bound, Latencies, Measurement, Table};

mod census;
mod expected;
mod keyspace;
mod ledger;
mod model;
mod network;
mod repair;

use census::Copies;
use expected::{Surroundings, count, expect, textbook};
use ledger::{Read, Record};
use network::Network;
use repair::{Work, repair_round};

const OURS: &str = "netabase";
const NO_REPAIR: &str = "no-repair";
const TEXTBOOK: &str = "1-churn^K";

const AIMS_WITH_REPAIR: [Aim; 4] = [
    aim("read", "retrieved", Bound::AtLeast(100.0)),
    aim("read", "current", Bound::AtLeast(100.0)),
    aim("read", "stale", Bound::AtMost(0.0)),
    aim("steady", "traffic per record", Bound::AtMost(1024.0)),
];
/// Chance is further away once in 370 times.
const AIMS_WITHOUT: [Aim; 2] =
    [aim("survive", "deviations", Bound::AtMost(3.0)), aim("find", "deviations", Bound::AtMost(3.0))];

const fn aim(case: &'static str, metric: &'static str, bound: Bound) -> Aim {
    Aim { case, system: OURS, metric: Some(metric), bound }
}

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many nodes there are
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=2000))]
    nodes: u32,
    /// How many records are kept
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    records: u32,
    /// How many nodes are replaced in a round, in percent
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=99))]
    replace: u32,
    /// How many records get a newer version in a round, in percent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    update: u32,
    /// How many rounds there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many nodes hold each record: Kademlia's K
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=20))]
    replication: u8,
    /// Whether the nodes repair
    #[arg(long, value_enum, default_value_t = Repair::On)]
    repair: Repair,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Repair {
    On,
    Off,
}

/// What the network is made of.
#[derive(Debug, Clone, Copy)]
struct Settings {
    nodes: usize,
    replication: NonZeroUsize,
    seed: u64,
}

/// Sets the network up and goes through the rounds.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    /// How long the nodes have to end by themselves.
    const GOODBYE: Duration = Duration::from_secs(2);
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(Run::new(options)?.measure());
    runtime.shutdown_timeout(GOODBYE);
    result
}

/// Everything that is known while it goes on.
struct Run {
    options: Options,
    settings: Settings,
    records: Vec<Record>,
    table: Table,
}

impl Run {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let aims: &'static [Aim] =
            if options.repair == Repair::On { &AIMS_WITH_REPAIR } else { &AIMS_WITHOUT };
        let replication = NonZeroUsize::MIN.saturating_add(usize::from(options.replication) - 1);
        let nodes = usize::try_from(options.nodes)?;
        Ok(Self {
            settings: Settings { nodes, replication, seed: options.seed },
            records: (0..options.records.into()).map(Record::new).collect::<Result<_, _>>()?,
            table: Table::new("churn", NO_REPAIR, aims).with_records(options.records.into()),
            options: options.clone(),
        })
    }

    async fn measure(mut self) -> anyhow::Result<Table> {
        let mut network = self.set_up().await?;
        self.put(&network).await?;
        for round in 1..=self.options.rounds {
            self.round(&mut network, round).await?;
        }
        if self.options.repair == Repair::On {
            network.refresh().await?;
            self.repair("steady", &network).await?;
        }
        if let Some(peak) = peak_memory()? {
            self.add("process", "peak memory", mebibytes(peak), "MiB", network.nodes.len());
        }
        self.add("process", "processor time", cpu_time()?.as_secs_f64(), "s", 1);
        Ok(self.table)
    }

    async fn set_up(&mut self) -> anyhow::Result<Network> {
        let (start, cpu, memory) = (Instant::now(), cpu_time()?, resident_memory()?);
        let network = Network::start(self.settings).await?;
        let nodes = network.nodes.len();
        self.add("set-up", "time", start.elapsed().as_secs_f64(), "s", nodes);
        let cpu = (cpu_time()?.saturating_sub(cpu)).as_secs_f64() * 1e3 / count(nodes);
        self.add("set-up", "processor time per node", cpu, "ms", nodes);
        let memory = mebibytes(resident_memory()?.saturating_sub(memory)) / count(nodes);
        self.add("set-up", "memory per node", memory, "MiB", nodes);
        eprintln!("{nodes} nodes: {:.1} s", start.elapsed().as_secs_f64());
        Ok(network)
    }

    async fn put(&mut self, network: &Network) -> anyhow::Result<()> {
        let start = Instant::now();
        let all = (0..self.records.len()).collect();
        let mut dice = self.dice(0, Purpose::Write);
        let writes = ledger::write(network, &mut self.records, &all, &mut dice).await?;
        let (time, records) = (start.elapsed().as_secs_f64(), self.records.len());
        self.add("put", "rate", count(records) / time, "records/s", records);
        self.add("put", "accepted", count(writes.accepted) / count(records), "peers", records);
        self.add("put", "late", count(writes.late), "records", records);
        let copies = census::take(network, &self.records).await?;
        self.add_placed("put", network, &copies);
        eprintln!("{records} records: {time:.1} s");
        Ok(())
    }

    async fn round(&mut self, network: &mut Network, round: u32) -> anyhow::Result<()> {
        let begin = Instant::now();
        let nodes = network.nodes.len();
        let replaced = percent(self.options.replace, nodes);
        let before = census::take(network, &self.records).await?;
        let updated = self.choose_updates(round, &before);
        let unchanged: Vec<usize> = (0..self.records.len())
            .filter(|record| before.get(*record).is_some_and(Copies::any) && !updated.contains(record))
            .collect();
        let surroundings = self.surroundings(network, &unchanged, &before);
        let expected = expect(&surroundings, nodes, replaced, &mut self.dice(round, Purpose::Expect));
        let serial = |node: usize| network.nodes.get(node).map(|node| node.serial);
        let replicas: Vec<HashSet<u64>> =
            surroundings.iter().map(|record| record.replicas().filter_map(serial).collect()).collect();

        network.stop(&self.dice(round, Purpose::Stop).sample(replaced, nodes)).await;
        let left = census::take(network, &self.records).await?;
        let is_left = |(record, replicas): &(&usize, &HashSet<u64>)| {
            left.get(**record).is_some_and(|copies| !copies.holders().is_disjoint(replicas))
        };
        let survived = unchanged.iter().zip(&replicas).filter(is_left).count();

        let start = Instant::now();
        network.join(replaced).await?;
        self.add("join", "time", start.elapsed().as_secs_f64(), "s", replaced);
        let mut dice = self.dice(round, Purpose::Write);
        let writes = ledger::write(network, &mut self.records, &updated, &mut dice).await?;
        self.add("update", "late", count(writes.late), "records", updated.len());
        self.repair("repair", network).await?;
        self.add_copies(network, &census::take(network, &self.records).await?);

        let reads = ledger::read(network, &self.records, &mut self.dice(round, Purpose::Read)).await?;
        let is_found = |record: &&usize| reads.get(**record).is_some_and(|(read, _)| *read != Read::Missing);
        let found = unchanged.iter().filter(is_found).count();
        self.add_compared("survive", survived, expected.survive, unchanged.len());
        self.add_compared("find", found, expected.found, unchanged.len());
        self.add_reads(&reads);
        eprintln!(
            "round {round}: of {} records {survived} survived, {found} were found: {:.1} s",
            unchanged.len(),
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Chooses records that are still there.
    fn choose_updates(&self, round: u32, copies: &[Copies]) -> HashSet<usize> {
        let there: Vec<usize> =
            (0..self.records.len()).filter(|record| copies.get(*record).is_some_and(Copies::any)).collect();
        let chosen = percent(self.options.update, there.len());
        let chosen = self.dice(round, Purpose::Choose).sample(chosen, there.len());
        chosen.into_iter().filter_map(|place| there.get(place).copied()).collect()
    }

    fn surroundings(&self, network: &Network, records: &[usize], copies: &[Copies]) -> Vec<Surroundings> {
        let positions = network.positions();
        let replication = self.settings.replication.get();
        let surroundings = records.iter().filter_map(|record| {
            let (record, holders) = (self.records.get(*record)?, copies.get(*record)?.holders());
            let holds =
                |node: usize| network.nodes.get(node).is_some_and(|node| holders.contains(&node.serial));
            Some(Surroundings::new(record.position, &positions, replication, holds))
        });
        surroundings.collect()
    }

    async fn repair(&mut self, case: &'static str, network: &Network) -> anyhow::Result<()> {
        if self.options.repair == Repair::Off {
            return Ok(());
        }
        let start = Instant::now();
        let Work { messages, bytes, comparisons, equal, made, released, unreachable } =
            repair_round(network).await?;
        let (time, records, nodes) = (start.elapsed().as_secs_f64(), self.records.len(), network.nodes.len());
        let number = |number: u64| Ok(f64::from(u32::try_from(number)?));
        let mut add = |metric, value: anyhow::Result<f64>, of, unit| {
            self.add(case, metric, value? / count(of), unit, of);
            anyhow::Ok(())
        };
        add("time", Ok(time), 1, "s")?;
        add("messages per record", number(messages), records, "messages")?;
        add("traffic per record", number(bytes), records, "bytes")?;
        add("copies made per record", number(made), records, "copies")?;
        add("copies given up per record", number(released), records, "copies")?;
        add("comparisons per node", number(comparisons), nodes, "peers")?;
        add("without a difference", number(equal), nodes, "peers")?;
        add("no answer", number(unreachable), 1, "peers")?;
        eprintln!("{case}: {time:.1} s");
        Ok(())
    }

    /// Compares how many of some records something is true of with what was expected.
    fn add_compared(&mut self, case: &'static str, result: usize, expected: expected::Chance, of: usize) {
        if of == 0 {
            return;
        }
        let churn = count(percent(self.options.replace, self.settings.nodes)) / count(self.settings.nodes);
        let textbook = textbook(churn, self.settings.replication.get());
        let share = |number: f64| number / count(of) * 100.0;
        for (system, value) in
            [(NO_REPAIR, share(expected.mean)), (TEXTBOOK, textbook * 100.0), (OURS, share(count(result)))]
        {
            self.table.add(Measurement { case, system, metric: "records", value, unit: "%", n: of });
        }
        self.add(case, "deviations", expected.deviations(count(result)), "sigma", of);
    }

    fn add_copies(&mut self, network: &Network, copies: &[Copies]) {
        let counts = copies.iter().map(|copies| copies.current.len());
        let records = copies.len();
        let old: usize = copies.iter().map(|copies| copies.old.len()).sum();
        self.add("copies", "min", count(counts.clone().min().unwrap_or(0)), "copies", records);
        self.add("copies", "mean", count(counts.sum()) / count(records), "copies", records);
        self.add("copies", "old", count(old) / count(records), "copies", records);
        self.add_placed("copies", network, copies);
    }

    fn add_placed(&mut self, case: &'static str, network: &Network, copies: &[Copies]) {
        let replication = self.settings.replication.get();
        let (placed, wanted) = census::placed(network, &self.records, copies, replication);
        self.add(case, "placed", count(placed) / count(wanted) * 100.0, "%", wanted);
    }

    fn add_reads(&mut self, reads: &[(Read, Duration)]) {
        let (n, number) = (reads.len(), |wanted| reads.iter().filter(|(read, _)| *read == wanted).count());
        let (missing, stale, current) = (number(Read::Missing), number(Read::Stale), number(Read::Current));
        self.add("read", "retrieved", count(n - missing) / count(n) * 100.0, "%", n);
        self.add("read", "current", count(current) / count(n) * 100.0, "%", n);
        self.add("read", "stale", count(stale), "records", n);
        let mut latencies: Latencies = reads.iter().map(|(_, latency)| *latency).collect();
        self.add("read", "p50", latencies.percentile(50) / 1e3, "ms", n);
        self.add("read", "p99", latencies.percentile(99) / 1e3, "ms", n);
    }

    fn add(&mut self, case: &'static str, metric: &'static str, value: f64, unit: &'static str, n: usize) {
        self.table.add(Measurement { case, system: OURS, metric, value, unit, n });
    }

    /// Chance, of its own for each purpose, so that one that takes more of it changes no other.
    fn dice(&self, round: u32, purpose: Purpose) -> Dice {
        Dice::new(&[self.settings.seed, u64::from(round), purpose as u64, u64::MAX])
    }
}

/// What chance decides.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Stop,
    Choose,
    Write,
    Read,
    Expect,
}

/// Returns a share of a number, to the nearest; only all of it if it is 100 percent.
fn percent(percent: u32, of: usize) -> usize {
    let percent = usize::try_from(percent).unwrap_or(100);
    (of * percent + 50) / 100
}
