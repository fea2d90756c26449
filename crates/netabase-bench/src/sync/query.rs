//! A query over twenty nodes, each of which has a part of the records.
//!
//! Every record is at two of the nodes, at random, by one of several authors. One node asks for the
//! first hundred records of a room, one room after the other, and for all records of some:
//! everything must be what a scan of all databases together finds, in the same order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netabase::Netabase;
use netabase_store::{Refusal, SigningKey};
use tempfile::TempDir;
use tokio::time::timeout;

use super::model::{Message, MessageQuery as _, ROOMS, SyncDefinition, now, room, signed};
use super::node::{meet, prepare};
use super::{Effort, OURS, share};
use crate::dice::Dice;
use crate::node::with_runtime;
use crate::{Latencies, Measurement, Table};

const CASE: &str = "query";
/// At how many nodes each record is.
const COPIES: usize = 2;
const AUTHORS: u8 = 16;
/// How many records are asked for.
const LIMIT: u64 = 100;
/// How many rooms are asked for as a whole.
const WHOLE: u64 = 5;
/// How long a query may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for each room once.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    let (nodes, records) = (effort.nodes, effort.records);
    let directory = TempDir::new_in(effort.directory)?;
    let outcome = with_runtime(async move { ask(directory.path(), nodes, records).await })?;
    let Outcome { mut first, mut last, mut whole, peers, right, all } = outcome;
    let n = first.len();
    let mut add =
        |metric, value, unit| table.add(Measurement { case: CASE, system: OURS, metric, value, unit, n });
    add("first, p50", first.percentile(50), "us");
    add("first, p99", first.percentile(99), "us");
    add("last, p50", last.percentile(50), "us");
    add("last, p99", last.percentile(99), "us");
    add("whole room, p50", whole.percentile(50), "us");
    add("peers asked", share(peers, n), "peers");
    add("complete", share(right, all) * 100.0, "%");
    Ok(())
}

#[derive(Default)]
struct Outcome {
    first: Latencies,
    last: Latencies,
    whole: Latencies,
    /// How many peers were asked by all queries of a hundred together.
    peers: usize,
    /// How many answers were right.
    right: usize,
    all: usize,
}

/// What came.
struct Found {
    records: Vec<Message>,
    first: Duration,
    last: Duration,
    peers: usize,
}

async fn ask(directory: &Path, nodes: usize, records: u64) -> anyhow::Result<Outcome> {
    let nodes: Vec<Netabase<SyncDefinition>> =
        (0..nodes).map(|node| prepare(directory, node)).collect::<Result<_, _>>()?;
    place(&nodes, records)?;
    let rooms = scan(&nodes)?;
    let kept: usize = rooms.values().map(Vec::len).sum();
    ensure!(u64::try_from(kept)? == records, "{kept} of {records} records are there");
    meet(&nodes).await?;
    let asker = nodes.first().context("there is no node")?;
    let mut outcome = Outcome::default();
    for id in 0..ROOMS.min(records) {
        let expected = rooms.get(&room(id)).map(Vec::as_slice).unwrap_or_default();
        let found = timeout(PATIENCE, find(asker, room(id), Some(LIMIT))).await??;
        outcome.first.push(found.first);
        outcome.last.push(found.last);
        outcome.peers += found.peers;
        outcome.all += 1;
        outcome.right += usize::from(found.records.iter().eq(expected.iter().take(usize::try_from(LIMIT)?)));
        if id < WHOLE {
            let found = timeout(PATIENCE, find(asker, room(id), None)).await??;
            outcome.whole.push(found.last);
            outcome.all += 1;
            outcome.right += usize::from(found.records == expected);
        }
    }
    Ok(outcome)
}

/// Gives each record to some of the nodes, as peers would.
fn place(nodes: &[Netabase<SyncDefinition>], records: u64) -> anyhow::Result<()> {
    let authors: Vec<SigningKey> =
        (1..=AUTHORS).map(|author| SigningKey::from_bytes(&[author; 32])).collect();
    let mut dice = Dice::new(&[records]);
    for (id, author) in (0..records).zip(authors.iter().cycle()) {
        let (key, envelope) = signed(id, author, now())?;
        for node in dice.sample(COPIES, nodes.len()).into_iter().filter_map(|node| nodes.get(node)) {
            let store = node.store();
            while let Err(refusal) = store.replica().admit(key.as_bytes(), envelope.as_bytes()) {
                ensure!(refusal == Refusal::Busy, "{refusal}");
                store.flush()?;
            }
        }
    }
    Ok(nodes.iter().try_for_each(|node| node.store().flush())?)
}

/// Returns the records of each room in all databases together, in their order.
fn scan(nodes: &[Netabase<SyncDefinition>]) -> anyhow::Result<BTreeMap<String, Vec<Message>>> {
    let mut all = BTreeMap::new();
    for node in nodes {
        for message in node.store().open_tree::<Message>()?.iter()? {
            let message = message?;
            all.insert(message.id, message);
        }
    }
    let mut rooms: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in all.into_values() {
        rooms.entry(message.room.clone()).or_default().push(message);
    }
    Ok(rooms)
}

/// Asks the network for records of a room.
async fn find(
    netabase: &Netabase<SyncDefinition>,
    room: String,
    limit: Option<u64>,
) -> anyhow::Result<Found> {
    let query = netabase.query::<Message>().room(room);
    let query = match limit {
        Some(limit) => query.limit(limit),
        None => query,
    };
    let start = Instant::now();
    let mut rows = query.stream()?;
    let (mut records, mut first) = (Vec::new(), None);
    while let Some(record) = rows.next().await {
        records.push(record?);
        first.get_or_insert_with(|| start.elapsed());
    }
    let last = start.elapsed();
    Ok(Found { records, first: first.unwrap_or(last), last, peers: rows.report().peers.len() })
}
