//! Those beside the strangers: an honest peer, newcomers and a client of the API, and what the node
//! takes meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libp2p::Multiaddr;
use libp2p::kad::Mode;
use netabase::StorageBackend;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::ground::Ground;
use super::target::Target;
use crate::http::connection::Connection;
use crate::node::case::wait_for_peer;
use crate::node::model::message;
use crate::node::ours::Ours;
use crate::node::system::Node;
use crate::usage::{cpu_time_of, forget_peak_memory_of, peak_memory_of};
use crate::{Latencies, program};

/// How many newcomers there are, and how long each may take to connect.
pub(super) const NEWCOMERS: u8 = 20;
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two calls: a neighbour is no attacker.
const PACE: Duration = Duration::from_millis(10);
const CALLS_PER_SECOND: u64 = 100;
/// How long a call may take, and how long a failed one counts as.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the honest peer may take to meet the node.
const MEETING: Duration = Duration::from_secs(10);
/// The first of the ids that the peer puts.
const PUTS: u64 = 1 << 33;

/// Returns how many records the node needs: each is got once, in one of two windows of so many
/// seconds.
pub(super) fn records(seconds: u32) -> u64 {
    2 * (u64::from(seconds) + 1) * CALLS_PER_SECOND
}

/// Returns the line of an import that has the record of an id.
pub(super) fn line(id: u64) -> String {
    let message = message(id);
    let json = serde_json::json!({ "id": message.id, "room": message.room, "text": message.text });
    program::import_line(&json.to_string())
}

/// An honest peer, with all that is needed to measure.
pub(super) struct Neighbour {
    peer: Ours,
    node: Multiaddr,
    api: SocketAddr,
    ground: Ground,
    directory: PathBuf,
    records: u64,
    /// How many gets and puts were made.
    gets: u64,
    puts: u64,
    windows: u8,
}

/// How calls were answered.
pub(super) struct Served {
    /// Of all calls; those that failed count as [`PATIENCE`], however soon they did.
    pub(super) latencies: Latencies,
    /// How many calls did not fail.
    pub(super) served: usize,
}

/// What was felt in a window of time.
pub(super) struct Felt {
    pub(super) puts: Served,
    pub(super) gets: Served,
    pub(super) calls: Served,
    pub(super) newcomers: usize,
    /// The most memory of the node.
    pub(super) memory: u64,
    /// How many cores the node has used.
    pub(super) processor: f64,
}

impl Neighbour {
    /// Starts the peer. It is a client, so that the node never sends it records by itself.
    pub(super) async fn start(directory: &Path, target: &Target, records: u64) -> anyhow::Result<Self> {
        let home = subdirectory(directory, "peer")?;
        let listen = target.ground.peer(0);
        let mut peer =
            Node::Ours(Ours::start_at(listen, StorageBackend::Redb, Mode::Client, &home, 0..0).await?);
        target.ground.come_from(0).await?;
        timeout(MEETING, peer.connect(target.address.clone())).await.context("the node is not there")??;
        wait_for_peer(&mut peer).await?;
        let Node::Ours(peer) = peer else { anyhow::bail!("the peer is no netabase") };
        Ok(Self {
            peer,
            node: target.address.clone(),
            api: target.api,
            ground: target.ground,
            directory: directory.to_owned(),
            records,
            gets: 0,
            puts: 0,
            windows: 0,
        })
    }

    /// Measures for a while.
    pub(super) async fn feel(&mut self, process: u32, window: Duration) -> anyhow::Result<Felt> {
        let newcomers = self.prepare_newcomers().await?;
        forget_peak_memory_of(process)?;
        let (start, used) = (Instant::now(), cpu_time_of(process)?);
        let end = start + window;
        let (first_put, first_get) = (self.puts, self.gets);
        let (peer, records) = (&self.peer, self.records);
        let (puts, gets, calls, newcomers) = tokio::join!(
            paced("put", end, |turn| peer.put(PUTS + first_put + turn)),
            paced("get", end, |turn| get(peer, first_get + turn, records)),
            paced("API get", end, |turn| self.call(turn % records)),
            self.admit(&newcomers, start, window),
        );
        let used = cpu_time_of(process)?.saturating_sub(used);
        let processor = used.as_secs_f64() / start.elapsed().as_secs_f64();
        let memory = peak_memory_of(process)?;
        self.puts += u64::try_from(puts.latencies.len())?;
        self.gets += u64::try_from(gets.latencies.len())?;
        Ok(Felt { puts, gets, calls, newcomers, memory, processor })
    }

    /// Starts nodes that know nobody.
    async fn prepare_newcomers(&mut self) -> anyhow::Result<Vec<Ours>> {
        let mut newcomers = Vec::new();
        for newcomer in 1..=NEWCOMERS {
            let number = self.windows * NEWCOMERS + newcomer;
            let home = subdirectory(&self.directory, &format!("newcomer-{number}"))?;
            let listen = self.ground.peer(number);
            newcomers.push(Ours::start_at(listen, StorageBackend::Memory, Mode::Client, &home, 0..0).await?);
        }
        self.windows += 1;
        Ok(newcomers)
    }

    /// Has them connect, spread over the window, and counts those that are connected in time.
    async fn admit(&self, newcomers: &[Ours], start: Instant, window: Duration) -> usize {
        let pause = window / u32::from(NEWCOMERS);
        let first = self.windows.saturating_sub(1) * NEWCOMERS + 1;
        let connect = async |(place, newcomer): (u8, &Ours)| {
            sleep_until((start + pause * u32::from(place)).into()).await;
            // The node does not tell it from others if that fails.
            let _ = self.ground.come_from(first + place).await;
            timeout(NEWCOMER_PATIENCE, newcomer.connect(self.node.clone())).await
        };
        let connected = futures::future::join_all((0..).zip(newcomers).map(connect)).await;
        connected.iter().filter(|connected| matches!(connected, Ok(Ok(())))).count()
    }

    /// Gets a record by the API.
    async fn call(&self, id: u64) -> anyhow::Result<()> {
        let mut connection = Connection::open_from(self.ground.client(), self.api).await?;
        let answer = connection.ask("GET", &format!("/v1/models/Message/records/{id}"), "").await?;
        ensure!(answer.status == 200, "the API has answered {}", answer.status);
        Ok(())
    }
}

async fn get(peer: &Ours, id: u64, records: u64) -> anyhow::Result<()> {
    ensure!(id < records, "all records were got; measure for less time");
    peer.ensure_absent(id)?;
    peer.get(id).await
}

/// Makes calls one after the other until `end`, with a pause between them. Says why the first one
/// has failed.
async fn paced<F: Future<Output = anyhow::Result<()>>>(
    name: &str,
    end: Instant,
    call: impl Fn(u64) -> F,
) -> Served {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    for turn in 0.. {
        ticks.tick().await;
        let start = Instant::now();
        if start >= end {
            break;
        }
        match timeout(PATIENCE, call(turn)).await.context("no answer in time").and_then(|answer| answer) {
            Ok(()) => latencies.push(start.elapsed()),
            Err(error) => {
                if failed == 0 {
                    eprintln!("{name}: {error:#}");
                }
                failed += 1;
                latencies.push(PATIENCE);
            }
        }
    }
    Served { served: latencies.len() - failed, latencies }
}

fn subdirectory(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let directory = directory.join(name);
    std::fs::create_dir(&directory)?;
    Ok(directory)
}
