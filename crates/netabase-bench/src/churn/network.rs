//! The nodes, all in this process, on libp2p's memory transport.

use futures::{StreamExt, TryStreamExt, stream};
use libp2p::Multiaddr;
use netabase::{
    DHTDiscoveryConfig, EventError, Keypair, MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseError,
    StorageBackend, StoreOptions,
};

use super::Settings;
use super::keyspace::Position;
use super::model::ChurnDefinition;
use crate::dice::Dice;

/// How much memory a node's database may use as cache: there are many nodes, with few records each.
const CACHE_BYTES: usize = 256 * 1024;
/// How many nodes join at a time.
const JOINING: usize = 8;
/// Through how many nodes a new one joins.
const INTRODUCTIONS: usize = 3;

/// One node, from its start until it goes, never to return.
pub(super) struct Node {
    /// The number of nodes that were started before.
    pub(super) serial: u64,
    pub(super) position: Position,
    pub(super) netabase: Netabase<ChurnDefinition>,
}

impl Node {
    fn address(&self) -> Option<Multiaddr> {
        self.netabase.listen_addresses().into_iter().next()?.with_p2p(self.netabase.local_peer_id()).ok()
    }
}

/// The nodes that are there.
pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    started: u64,
    settings: Settings,
}

impl Network {
    /// Starts a network whose nodes join through each other, twice as many in every wave.
    pub(super) async fn start(settings: Settings) -> anyhow::Result<Self> {
        let mut network = Self { nodes: Vec::new(), started: 0, settings };
        while network.nodes.len() < settings.nodes {
            let wave = network.nodes.len().max(1).min(settings.nodes - network.nodes.len());
            network.join(wave).await?;
        }
        Ok(network)
    }

    /// Starts nodes that join through random ones of those that are there.
    pub(super) async fn join(&mut self, count: usize) -> anyhow::Result<()> {
        let addresses: Vec<Multiaddr> = self.nodes.iter().filter_map(Node::address).collect();
        let serials = self.started..self.started + u64::try_from(count)?;
        self.started = serials.end;
        let joined: Vec<Node> = stream::iter(serials)
            .map(|serial| join(serial, self.settings, &addresses))
            .buffered(JOINING)
            .try_collect()
            .await?;
        self.nodes.extend(joined);
        Ok(())
    }

    /// Has every node refresh its routing table once. By default each does so every five minutes.
    pub(super) async fn refresh(&self) -> anyhow::Result<()> {
        let refreshed = stream::iter(&self.nodes)
            .map(|node: &Node| async move { anyhow::Ok(node.netabase.bootstrap().await?) })
            .buffer_unordered(JOINING);
        refreshed.try_for_each(|_| async { Ok(()) }).await
    }

    /// Ends nodes at once, without a goodbye, and waits until nothing is left of them.
    pub(super) async fn stop(&mut self, gone: &[usize]) {
        let nodes = std::mem::take(&mut self.nodes);
        let mut ends = Vec::new();
        for (place, node) in nodes.into_iter().enumerate() {
            if gone.contains(&place) {
                ends.push(node.netabase.subscribe_to_broadcasts());
            } else {
                self.nodes.push(node);
            }
        }
        for mut end in ends {
            // The swarm and the store both hold on to the channel.
            while !matches!(end.recv().await, Err(EventError::Closed)) {}
        }
    }

    pub(super) fn positions(&self) -> Vec<Position> {
        self.nodes.iter().map(|node| node.position).collect()
    }
}

async fn join(serial: u64, settings: Settings, addresses: &[Multiaddr]) -> anyhow::Result<Node> {
    let mut dice = Dice::new(&[settings.seed, serial]);
    let introductions = dice.sample(INTRODUCTIONS, addresses.len());
    let bootstrap_peers = introductions.into_iter().filter_map(|chosen| addresses.get(chosen).cloned());
    let netabase = Netabase::new_with_config(NetabaseConfig {
        store: StoreOptions {
            backend: StorageBackend::Memory,
            cache_bytes: CACHE_BYTES,
            ..StoreOptions::default()
        },
        identity: Some(identity(&mut dice)?),
        listen_addresses: vec!["/memory/0".parse()?],
        dht: DHTDiscoveryConfig {
            bootstrap_peers: bootstrap_peers.collect(),
            replication_factor: settings.replication,
            // A put returns when every copy is where it belongs, or cannot be.
            write_concern: settings.replication.get(),
            // In rounds, and when they are wanted.
            repair_interval: None,
            ..DHTDiscoveryConfig::default()
        },
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    })?;
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.start_swarm().await?;
    while !addresses.is_empty() {
        match netabase.bootstrap().await {
            Ok(known) if known > 0 => break,
            Ok(_) | Err(NetabaseError::NoKnownPeers) => {}
            Err(error) => return Err(error.into()),
        }
        // Missed events are news enough to ask again.
        if matches!(events.recv().await, Err(EventError::Closed)) {
            anyhow::bail!("a node has ended by itself");
        }
    }
    Ok(Node { serial, position: Position::of_node(netabase.local_peer_id()), netabase })
}

/// Makes the key of a node; its place in the keyspace follows from the seed, and who is a neighbour
/// of whom.
fn identity(dice: &mut Dice) -> anyhow::Result<Keypair> {
    let mut secret = [0; 32];
    for eight in secret.chunks_exact_mut(8) {
        eight.copy_from_slice(&dice.next().to_le_bytes());
    }
    Ok(Keypair::ed25519_from_bytes(&mut secret)?)
}
