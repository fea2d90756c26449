//! What was written, by whom, and what is read of it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use netabase::{NetabaseError, RecordKey, Version};

use super::keyspace::Position;
use super::model::{Entry, EntryPrimaryKey, entry, key};
use super::network::{Network, Node};
use crate::dice::Dice;

/// How many puts or gets are under way at a time in the whole network.
const CALLERS: usize = 32;

/// The newest version of one record.
pub(super) struct Record {
    id: u64,
    pub(super) key: RecordKey,
    pub(super) position: Position,
    revision: u32,
    pub(super) version: Option<Version>,
    /// The nodes that wrote a version of it.
    writers: HashSet<u64>,
}

impl Record {
    pub(super) fn new(id: u64) -> anyhow::Result<Self> {
        let key = key(id)?;
        let position = Position::of_record(&key);
        Ok(Self { id, key, position, revision: 0, version: None, writers: HashSet::new() })
    }

    /// Returns what reading it has come to.
    fn judge(&self, found: Option<&Entry>) -> Read {
        match found {
            None => Read::Missing,
            Some(entry) if entry.revision < self.revision => Read::Stale,
            Some(_) => Read::Current,
        }
    }

    /// Returns a random node that has written no version of it, or any if all have.
    fn reader<'a>(&self, nodes: &'a [Node], dice: &mut Dice) -> Option<&'a Node> {
        let others: Vec<&Node> = nodes.iter().filter(|node| !self.writers.contains(&node.serial)).collect();
        match others.len() {
            0 => nodes.get(dice.index(nodes.len())),
            count => others.get(dice.index(count)).copied(),
        }
    }
}

/// What a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Missing,
    /// An older version than the newest.
    Stale,
    Current,
}

/// What became of puts.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Writes {
    /// How many peers have accepted a version, in all puts together.
    pub(super) accepted: usize,
    /// Puts that were not answered in time.
    pub(super) late: usize,
}

/// Writes the next revision of the chosen records at random nodes.
pub(super) async fn write(
    network: &Network,
    records: &mut [Record],
    chosen: &HashSet<usize>,
    dice: &mut Dice,
) -> anyhow::Result<Writes> {
    let mut puts = Vec::new();
    for (place, record) in records.iter_mut().enumerate().filter(|(place, _)| chosen.contains(place)) {
        let Some(node) = network.nodes.get(dice.index(network.nodes.len())) else { continue };
        record.revision += 1;
        record.writers.insert(node.serial);
        puts.push((place, node, entry(record.id, record.revision), record.key.clone()));
    }
    let written: Vec<_> = stream::iter(puts)
        .map(|(place, node, entry, key)| async move { Ok((place, put(node, entry, &key).await?)) })
        .buffer_unordered(CALLERS)
        .try_collect::<Vec<_>>()
        .await
        .map_err(|error: anyhow::Error| error)?;
    let mut writes = Writes::default();
    for (place, (version, accepted)) in written {
        if let Some(record) = records.get_mut(place) {
            record.version = version;
        }
        writes.accepted += accepted.unwrap_or_default();
        writes.late += usize::from(accepted.is_none());
    }
    Ok(writes)
}

/// Puts one record; returns its version and how many peers accepted it, if that was known in time.
async fn put(node: &Node, entry: Entry, key: &RecordKey) -> anyhow::Result<(Option<Version>, Option<usize>)> {
    match node.netabase.put_record(entry).await {
        Ok(outcome) => Ok((Some(outcome.version), Some(outcome.accepted.len()))),
        Err(NetabaseError::Timeout { .. }) => {
            let here = node.netabase.store().envelope(key)?;
            Ok((here.and_then(|envelope| envelope.version()), None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads every record at a random node that did not write it; in the order of the records.
pub(super) async fn read(
    network: &Network,
    records: &[Record],
    dice: &mut Dice,
) -> anyhow::Result<Vec<(Read, Duration)>> {
    let readers: Vec<_> =
        records.iter().map(|record| (record, record.reader(&network.nodes, dice))).collect();
    let reads = stream::iter(readers).map(|(record, node)| async move {
        let (start, id) = (Instant::now(), EntryPrimaryKey(record.id));
        let found = match node {
            Some(node) => node.netabase.fetch_record(id).await,
            None => Ok(None),
        };
        match found {
            Ok(found) => Ok((record.judge(found.as_ref()), start.elapsed())),
            Err(NetabaseError::Timeout { .. }) => Ok((Read::Missing, start.elapsed())),
            Err(error) => Err(error.into()),
        }
    });
    reads.buffered(CALLERS).try_collect().await
}
