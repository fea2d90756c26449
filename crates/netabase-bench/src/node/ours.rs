//! A Netabase as a user would run it.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libp2p::kad::Mode;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identify};
use netabase::{
    DHTDiscoveryConfig, DhtMode, MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseSwarmEvent,
    StorageBackend, StoreOptions,
};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::model::{BenchDefinition, Message, MessagePrimaryKey, key, message};
use crate::Latencies;

/// Where a node listens that was told nothing else.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// How often the event loop's delay is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);

pub(crate) struct Ours(Netabase<BenchDefinition>);

impl Ours {
    pub(crate) async fn start(
        backend: StorageBackend,
        mode: Mode,
        directory: &Path,
        stored: Range<u64>,
    ) -> anyhow::Result<Self> {
        Self::start_at(LISTEN.parse()?, backend, mode, directory, stored).await
    }

    /// Starts one that listens on an address of its own.
    pub(crate) async fn start_at(
        listen: Multiaddr,
        backend: StorageBackend,
        mode: Mode,
        directory: &Path,
        stored: Range<u64>,
    ) -> anyhow::Result<Self> {
        let mode = match mode {
            Mode::Server => DhtMode::Server,
            Mode::Client => DhtMode::Client,
        };
        // Or a comparison would bring the records that are to be fetched.
        let dht = DHTDiscoveryConfig { mode, repair_interval: None, ..DHTDiscoveryConfig::default() };
        let ours = Self::open_with(listen, backend, dht, directory)?;
        ours.store(stored)?;
        ours.0.start_swarm().await?;
        Ok(ours)
    }

    /// Opens or creates the database, without telling anybody.
    pub(crate) fn open(backend: StorageBackend, mode: DhtMode, directory: &Path) -> anyhow::Result<Self> {
        let dht = DHTDiscoveryConfig { mode, ..DHTDiscoveryConfig::default() };
        Self::open_with(LISTEN.parse()?, backend, dht, directory)
    }

    fn open_with(
        listen: Multiaddr,
        backend: StorageBackend,
        dht: DHTDiscoveryConfig,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let netabase = Netabase::new_with_config(NetabaseConfig {
            store: StoreOptions { backend, ..StoreOptions::default() },
            database_path: Some(directory.join("bench.redb")),
            listen_addresses: vec![listen],
            dht,
            mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
            ..NetabaseConfig::default()
        })?;
        Ok(Self(netabase))
    }

    pub(crate) fn netabase(&self) -> &Netabase<BenchDefinition> {
        &self.0
    }

    /// Stores records in one transaction.
    pub(crate) fn store(&self, ids: Range<u64>) -> anyhow::Result<()> {
        let messages: Vec<Message> = ids.map(message).collect();
        Ok(self.0.store().open_tree::<Message>()?.put_many(&messages)?)
    }

    pub(crate) fn address(&self) -> anyhow::Result<Multiaddr> {
        let address = self.0.listen_addresses().into_iter().next().context("it does not listen")?;
        Ok(address.with(Protocol::P2p(self.0.local_peer_id())))
    }

    pub(crate) async fn connect(&self, mut address: Multiaddr) -> anyhow::Result<()> {
        let Some(Protocol::P2p(peer)) = address.pop() else { anyhow::bail!("the address has no peer") };
        let mut events = self.0.subscribe_to_broadcasts();
        self.0.add_address(peer, address).await?;
        loop {
            if let NetabaseSwarmEvent::Identify(event) = events.recv().await?
                && matches!(*event, identify::Event::Received { .. })
            {
                return Ok(());
            }
        }
    }

    pub(crate) async fn put(&self, id: u64) -> anyhow::Result<()> {
        put(&self.0, id).await
    }

    pub(crate) async fn put_all(&self, ids: Range<u64>, callers: u64) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let netabase = self.0.clone();
            let ids = (ids.start + caller..ids.end).step_by(usize::try_from(callers)?);
            tasks.spawn(async move {
                for id in ids {
                    put(&netabase, id).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    pub(crate) fn ensure_absent(&self, id: u64) -> anyhow::Result<()> {
        ensure!(self.0.store().envelope(&key(id)?)?.is_none(), "record {id} is here already");
        Ok(())
    }

    pub(crate) async fn get(&self, id: u64) -> anyhow::Result<()> {
        let found: Message = self.0.get_record(MessagePrimaryKey(id)).await?.context("not found")?;
        ensure!(found.id == id, "record {} came for {id}", found.id);
        Ok(())
    }

    /// Asks the event loop for something trivial again and again until `end`.
    ///
    /// Each question is a task of its own, so that a slow answer delays no later question and is
    /// not the only one to notice.
    pub(crate) async fn probe(&self, end: impl Future<Output = ()>) -> anyhow::Result<Latencies> {
        tokio::pin!(end);
        let mut ticks = interval(PROBE_INTERVAL);
        let mut probes = JoinSet::new();
        let mut latencies = Latencies::default();
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = ticks.tick() => {
                    let (netabase, start) = (self.0.clone(), Instant::now());
                    probes.spawn(async move { netabase.get_mode().await.map(|_| start.elapsed()) });
                }
                Some(probe) = probes.join_next() => latencies.push(probe??),
            }
        }
        while let Some(probe) = probes.join_next().await {
            latencies.push(probe??);
        }
        Ok(latencies)
    }

    /// Returns how many records below `end` are on the disk, once everything before is.
    pub(crate) async fn count_stored(&self, end: u64) -> anyhow::Result<usize> {
        // The writer works in order: when this one is durable, all before it are.
        self.0.put_record(message(end)).await?;
        let tree = self.0.store().open_tree::<Message>()?;
        let mut count = 0;
        for found in tree.iter()? {
            if found?.id < end {
                count += 1;
            }
        }
        Ok(count)
    }
}

async fn put(netabase: &Netabase<BenchDefinition>, id: u64) -> anyhow::Result<()> {
    let outcome = netabase.put_record(message(id)).await?;
    ensure!(outcome.accepted.len() == 1, "record {id} was accepted by {} peers", outcome.accepted.len());
    Ok(())
}
