//! Records from peers: how much of the cost of taking them in is the checking of their signatures.
//!
//! The same signed records, made beforehand by several authors, are checked alone (`verify`), and
//! given to stores that know their model, with one secondary key, until everything is committed
//! (`netabase` on redb, `netabase-memory`). `per processor second` counts the time of every thread
//! of the process, that of the store's writer too; `two threads` is by the clock. A store whose
//! queue is full refuses a record: it is given once more when the store has caught up, and counted
//! as `busy`.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use netabase_store::{
    Clock, Envelope, NetabaseDefinition, NetabaseStore, RecordKey, Refusal, SigningKey, StorageBackend,
    StoreOptions, Timestamp, netabase_definition_module,
};
use tempfile::TempDir;

use crate::usage::cpu_time;
use crate::{Aim, Bound, Measurement, Table};

#[netabase_definition_module(IngestDefinition, IngestKeys)]
mod definition {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(IngestDefinition)]
    pub(crate) struct Post {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
use definition::{IngestDefinition, Post};

const VERIFY: &str = "verify";
const DISK: &str = "netabase";
const MEMORY: &str = "netabase-memory";
const AIMS: [Aim; 2] = [aim(DISK), aim(MEMORY)];

const fn aim(system: &'static str) -> Aim {
    let (case, metric) = ("one thread", Some("per processor second"));
    Aim { case, system, metric, bound: Bound::LeastRatio(0.7) }
}

/// How many authors there are.
const AUTHORS: u8 = 16;
const TEXT_BYTES: usize = 80;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many records are taken in
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    records: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Where databases are put; it should be on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// A record as a peer sends it.
#[derive(Debug)]
struct Sent {
    key: RecordKey,
    envelope: Envelope,
}

/// Makes the records, and measures.
pub fn run(options: &Options) -> anyhow::Result<Table> {
    let sent = make(options.records)?;
    let mut table = Table::new("ingest", VERIFY, &AIMS).with_records(options.records.into());
    for _ in 0..options.repetitions {
        for (case, threads) in [("one thread", 1), ("two threads", 2)] {
            let verified = measure(&sent, threads, verify, || Ok(()))?;
            add(&mut table, case, VERIFY, &verified);
            for (system, backend) in [(DISK, StorageBackend::Redb), (MEMORY, StorageBackend::Memory)] {
                let directory = TempDir::new_in(&options.directory)?;
                let schema = Some(IngestDefinition::SCHEMA);
                let store_options =
                    StoreOptions { backend, identity: Some(key_of(u8::MAX)), ..StoreOptions::default() };
                let path = directory.path().join("ingest.redb");
                let store = NetabaseStore::open_with(path, schema, store_options)?;
                let admitted = measure(&sent, threads, |sent| admit(&store, sent), || Ok(store.flush()?))?;
                let stored = store.open_tree::<Post>()?.len()?;
                ensure!(stored == u64::from(options.records), "{stored} of {} are there", options.records);
                add(&mut table, case, system, &admitted);
            }
        }
    }
    Ok(table)
}

fn key_of(author: u8) -> SigningKey {
    SigningKey::from_bytes(&[author; 32])
}

fn make(records: u32) -> anyhow::Result<Vec<Sent>> {
    let authors: Vec<SigningKey> = (0..AUTHORS).map(key_of).collect();
    let now = Timestamp::from_unix_millis(Clock::default().unix_millis());
    let make = |(id, author): (u32, &SigningKey)| {
        let text = format!("{id:08x} ").chars().cycle().take(TEXT_BYTES).collect();
        let post = Post { id: u64::from(id), room: format!("room-{}", id % 100), text };
        let encoded = IngestDefinition::from(post).encode()?;
        let key = encoded.model.record_key(IngestDefinition::SCHEMA.name, &encoded.keys.primary)?;
        let envelope = Envelope::sign(author, &key, now, 0, Some(&encoded.payload));
        Ok(Sent { key, envelope })
    };
    (0..records).zip(authors.iter().cycle()).map(make).collect()
}

fn verify(sent: &Sent) -> anyhow::Result<bool> {
    sent.envelope.verify(&sent.key)?;
    Ok(true)
}

/// Returns whether the store has taken it, which it does not if its queue is full.
fn admit(store: &NetabaseStore, sent: &Sent) -> anyhow::Result<bool> {
    match store.replica().admit(sent.key.as_bytes(), sent.envelope.as_bytes()) {
        Ok(news) => {
            ensure!(news, "the store had the record already");
            Ok(true)
        }
        Err(Refusal::Busy) => {
            store.flush()?;
            Ok(false)
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// What taking in all records has cost.
#[derive(Debug)]
struct Cost {
    records: usize,
    wall: Duration,
    cpu: Duration,
    /// How often a record had to be given once more.
    busy: usize,
}

/// Gives every record to `take` until it is taken, on so many threads, and then calls `finish`.
fn measure(
    sent: &[Sent],
    threads: usize,
    take: impl Fn(&Sent) -> anyhow::Result<bool> + Sync,
    finish: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Cost> {
    let (start, cpu) = (Instant::now(), cpu_time()?);
    let take_all = |share: &[Sent]| {
        let mut busy = 0;
        for sent in share {
            while !take(sent)? {
                busy += 1;
            }
        }
        anyhow::Ok(busy)
    };
    let busy = thread::scope(|scope| {
        let take_all = &take_all;
        let shares = sent.chunks(sent.len().div_ceil(threads));
        let threads: Vec<_> = shares.map(|share| scope.spawn(move || take_all(share))).collect();
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().ok().context("a thread panicked")?;
        threads.into_iter().map(join).sum::<anyhow::Result<usize>>()
    })?;
    finish()?;
    Ok(Cost { records: sent.len(), wall: start.elapsed(), cpu: cpu_time()?.saturating_sub(cpu), busy })
}

fn add(table: &mut Table, case: &'static str, system: &'static str, cost: &Cost) {
    let n = cost.records;
    let rate = |time: Duration| u32::try_from(n).map_or(f64::INFINITY, f64::from) / time.as_secs_f64();
    let mut add = |metric, value, unit| table.add(Measurement { case, system, metric, value, unit, n });
    // Its clock has hundredths of a second, and a few records take less.
    if !cost.cpu.is_zero() {
        add("per processor second", rate(cost.cpu), "records");
    }
    add("per second", rate(cost.wall), "records");
    if cost.busy > 0 {
        add("busy", f64::from(u32::try_from(cost.busy).unwrap_or(u32::MAX)), "times");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_valid_and_by_all_authors() {
        let sent = make(u32::from(AUTHORS) * 2).unwrap();
        let mut authors: Vec<_> = sent.iter().map(|sent| sent.envelope.author().unwrap()).collect();
        authors.sort_unstable();
        authors.dedup();
        assert_eq!(authors.len(), usize::from(AUTHORS));
        for sent in &sent {
            assert!(verify(sent).unwrap());
            assert!((90..110).contains(&sent.envelope.payload().len()), "{}", sent.envelope.payload().len());
        }
    }

    #[test]
    fn every_record_is_taken_once_whatever_the_number_of_threads() {
        let sent = make(100).unwrap();
        for threads in [1, 2, 3] {
            let store = NetabaseStore::in_memory::<IngestDefinition>().unwrap();
            let cost = measure(&sent, threads, |sent| admit(&store, sent), || Ok(store.flush()?)).unwrap();
            assert_eq!((cost.records, store.open_tree::<Post>().unwrap().len().unwrap()), (100, 100));
        }
    }
}
