//! From a put on one node to the event on those that follow it.
//!
//! Ten nodes, connected with each other. One puts a record, and the next when all others have heard
//! of it. In the end it puts a last one, and every node must have had an event for each of those
//! before, once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{Stream, StreamExt};
use netabase::changes::Watched;
use netabase::{Netabase, Query, WatchEvent};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::model::{Message, SyncDefinition, message};
use super::node::network;
use super::{Effort, OURS};
use crate::node::with_runtime;
use crate::{Latencies, Measurement, Table};

const CASE: &str = "latency";
/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many puts come before those that are measured.
const WARM_UP: u64 = 10;

/// What a node has heard: which one, of what, and when.
type Heard = (usize, u64, Instant);

/// Measures `effort.puts` puts.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    let (nodes, puts) = (effort.nodes, effort.puts);
    let directory = TempDir::new_in(effort.directory)?;
    let heard = with_runtime(async move { follow(directory.path(), nodes, puts).await })?;
    let mut latencies = heard.latencies;
    let n = latencies.len();
    for (metric, percent) in [("p50", 50), ("p99", 99)] {
        let value = latencies.percentile(percent);
        table.add(Measurement { case: CASE, system: OURS, metric, value, unit: "us", n });
    }
    for (metric, count) in [("missed", heard.missed), ("repeated", heard.repeated)] {
        let value = f64::from(u32::try_from(count)?);
        table.add(Measurement { case: CASE, system: OURS, metric, value, unit: "events", n });
    }
    Ok(())
}

struct Outcome {
    latencies: Latencies,
    missed: usize,
    repeated: usize,
}

async fn follow(directory: &Path, nodes: usize, puts: u64) -> anyhow::Result<Outcome> {
    let nodes = network::<SyncDefinition>(directory, nodes).await?;
    let (writer, followers) = nodes.split_first().context("there is no node")?;
    let (sender, mut events) = mpsc::channel(followers.len().max(1) * 64);
    for (follower, netabase) in followers.iter().enumerate() {
        let (mut events, sender) = (Box::pin(watch(netabase)?), sender.clone());
        tokio::spawn(async move {
            while let Some(Ok(watched)) = events.next().await {
                let (WatchEvent::Inserted { record } | WatchEvent::Updated { new: record, .. }) =
                    watched.event
                else {
                    continue;
                };
                if sender.send((follower, record.id, Instant::now())).await.is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut times: HashMap<(usize, u64), Vec<Instant>> = HashMap::new();
    let mut latencies = Latencies::default();
    // One more than is counted, the last: whatever was sent before it has come before it.
    for id in 0..=WARM_UP + puts {
        let start = Instant::now();
        let put = tokio::spawn({
            let writer = writer.clone();
            async move { writer.put_record(message(id)).await }
        });
        let all = hear(&mut events, &mut times, id, followers.len());
        timeout(PATIENCE, all).await.with_context(|| format!("not everybody has heard of {id}"))??;
        if (WARM_UP..WARM_UP + puts).contains(&id) {
            let first = |follower| times.get(&(follower, id)).and_then(|times| times.first());
            let events = (0..followers.len()).filter_map(first);
            events.for_each(|time| latencies.push(time.duration_since(start)));
        }
        put.await??;
    }
    while let Ok((follower, id, time)) = events.try_recv() {
        times.entry((follower, id)).or_default().push(time);
    }
    let expected = followers.len() * usize::try_from(WARM_UP + puts + 1)?;
    let heard: usize = times.values().map(Vec::len).sum();
    ensure!(!latencies.is_empty(), "nothing was measured");
    Ok(Outcome { latencies, missed: expected - times.len(), repeated: heard - times.len() })
}

/// Waits until all have heard of a record.
async fn hear(
    events: &mut mpsc::Receiver<Heard>,
    times: &mut HashMap<(usize, u64), Vec<Instant>>,
    id: u64,
    followers: usize,
) -> anyhow::Result<()> {
    let mut left = followers;
    while left > 0 {
        let (follower, heard, time) = events.recv().await.context("nobody follows any more")?;
        let known = times.entry((follower, heard)).or_default();
        left -= usize::from(heard == id && known.is_empty());
        known.push(time);
    }
    Ok(())
}

/// Follows every message, whoever writes it.
fn watch(
    netabase: &Netabase<SyncDefinition>,
) -> anyhow::Result<impl Stream<Item = anyhow::Result<Watched<Message>>> + Send + 'static> {
    let watch = netabase.watch(Query::<Message>::new())?;
    Ok(watch.map(|watched| Ok(watched?)))
}
