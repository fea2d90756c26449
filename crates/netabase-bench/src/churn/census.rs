//! Who has what, counted in the stores themselves.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use netabase::{NetabaseStore, RecordKey, Version};
use tokio::task::{JoinSet, spawn_blocking};

use super::keyspace::by_distance;
use super::ledger::Record;
use super::network::Network;

/// The nodes with a copy of one record, by their serial numbers.
#[derive(Debug, Default, Clone)]
pub(super) struct Copies {
    pub(super) current: Vec<u64>,
    pub(super) old: Vec<u64>,
}

impl Copies {
    pub(super) fn any(&self) -> bool {
        !self.current.is_empty() || !self.old.is_empty()
    }

    /// Returns all nodes with a copy, whatever its version.
    pub(super) fn holders(&self) -> HashSet<u64> {
        self.current.iter().chain(&self.old).copied().collect()
    }
}

/// Counts the copies of every record, in the order of the records.
pub(super) async fn take(network: &Network, records: &[Record]) -> anyhow::Result<Vec<Copies>> {
    let mut counts = JoinSet::new();
    for node in &network.nodes {
        let (serial, store) = (node.serial, node.netabase.store().clone());
        counts.spawn(async move { (serial, spawn_blocking(move || held(&store)).await) });
    }
    let mut copies = vec![Copies::default(); records.len()];
    let numbers: HashMap<&RecordKey, usize> = records.iter().map(|record| &record.key).zip(0..).collect();
    while let Some(counted) = counts.join_next().await {
        let (node, held) = counted?;
        for (key, version) in held?? {
            let number = *numbers.get(&key).context("a record that nobody wrote")?;
            let (Some(copies), Some(record)) = (copies.get_mut(number), records.get(number)) else {
                continue;
            };
            if version == record.version { &mut copies.current } else { &mut copies.old }.push(node);
        }
    }
    Ok(copies)
}

fn held(store: &NetabaseStore) -> anyhow::Result<Vec<(RecordKey, Option<Version>)>> {
    // Records that wait for the writer are not in the tables yet.
    store.flush()?;
    let records = store.local_records(None)?;
    Ok(records.into_iter().map(|(key, envelope)| (key, envelope.version())).collect())
}

/// Returns how many of the nodes that should have the newest version have it, and how many should.
pub(super) fn placed(
    network: &Network,
    records: &[Record],
    copies: &[Copies],
    replication: usize,
) -> (usize, usize) {
    let positions = network.positions();
    let (mut placed, mut wanted) = (0, 0);
    for (record, copies) in records.iter().zip(copies) {
        let closest = by_distance(record.position, &positions).into_iter().take(replication);
        let closest = closest.filter_map(|place| network.nodes.get(place));
        for node in closest {
            wanted += 1;
            placed += usize::from(copies.current.contains(&node.serial));
        }
    }
    (placed, wanted)
}
