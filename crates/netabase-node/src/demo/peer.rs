//! A peer of the demonstration: a database of its own, and a swarm on loopback.

use std::time::Duration;

use anyhow::{Context, ensure};
use netabase::libp2p::kad;
use netabase::{
    EventError, Events, MDNSDiscoveryConfig, Multiaddr, Netabase, NetabaseConfig, NetabaseSwarmEvent, PeerId,
    StorageBackend, StoreOptions, Tree,
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::models::{Package, PackageDefinition, PackagePrimaryKey};

/// A running peer.
pub(super) type Node = Netabase<PackageDefinition>;

/// The deadline for peers to find each other, or to notice that one has stopped.
const MEETING_DEADLINE: Duration = Duration::from_secs(30);
/// The deadline for a condition to hold after an event.
const CONDITION_DEADLINE: Duration = Duration::from_secs(60);
/// The listen addresses: real sockets on loopback, with ports that the system chooses.
const LISTEN: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// A peer, running or not. Its directory is removed when the peer is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    name: &'static str,
    backend: StorageBackend,
    node: Option<Node>,
    id: Option<PeerId>,
    directory: TempDir,
}

impl Peer {
    pub(super) fn new(name: &'static str, backend: StorageBackend) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("netabase-demo-").tempdir();
        let directory = directory.context("cannot create a temporary directory")?;
        Ok(Self { name, backend, node: None, id: None, directory })
    }

    /// Opens the database, without starting the swarm.
    pub(super) fn open(&mut self, bootstrap_peers: Vec<Multiaddr>) -> anyhow::Result<&Node> {
        let mut config = NetabaseConfig {
            store: StoreOptions { backend: self.backend, ..StoreOptions::default() },
            database_path: Some(self.directory.path().join("packages")),
            listen_addresses: LISTEN.into_iter().map(str::parse).collect::<Result<_, _>>()?,
            mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
            ..NetabaseConfig::default()
        };
        config.dht.bootstrap_peers = bootstrap_peers;
        // A new peer is sent the records that it should hold after a second. The steps show how a
        // peer fetches packages that it does not have, so nothing may be sent before, even on a
        // slow machine.
        config.dht.repair_interval = None;
        let node = Netabase::new_with_config(config).with_context(|| format!("cannot open {}", self.name))?;
        self.id = Some(node.local_peer_id());
        Ok(self.node.insert(node))
    }

    /// Starts the swarm, and returns its events from before the start on.
    pub(super) async fn start(&self) -> anyhow::Result<Events> {
        let events = self.node()?.subscribe_to_broadcasts();
        self.node()?.start_swarm().await.with_context(|| format!("cannot start {}", self.name))?;
        Ok(events)
    }

    /// Stops the swarm and closes the database.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let node = self.node.take().with_context(|| self.not_running())?;
        node.stop_swarm().await.with_context(|| format!("cannot stop {}", self.name))
    }

    pub(super) fn node(&self) -> anyhow::Result<&Node> {
        self.node.as_ref().with_context(|| self.not_running())
    }

    /// Returns the peer id, which is known once the peer has been opened.
    pub(super) fn id(&self) -> anyhow::Result<PeerId> {
        self.id.with_context(|| self.not_running())
    }

    /// Returns the addresses at which others reach the peer.
    pub(super) fn addresses(&self) -> anyhow::Result<Vec<Multiaddr>> {
        let id = self.id()?;
        let addresses = self.node()?.listen_addresses().into_iter();
        Ok(addresses.map(|address| address.with(netabase::libp2p::multiaddr::Protocol::P2p(id))).collect())
    }

    /// Returns the packages in the peer's own database.
    pub(super) fn packages(&self) -> anyhow::Result<Tree<Package>> {
        Ok(self.node()?.store().open_tree::<Package>()?)
    }

    /// Fails unless this peer gets `expected` for `key` from the network and then keeps it.
    pub(super) async fn agrees(
        &self,
        key: PackagePrimaryKey,
        expected: Option<&Package>,
    ) -> anyhow::Result<()> {
        let (node, name) = (self.node()?, &key.0);
        let mut events = node.subscribe_to_broadcasts();
        let fetched = node.fetch_record(key.clone()).await?;
        ensure!(fetched.as_ref() == expected, "{} fetched another version of {name}", self.name);
        let kept = async || Ok(node.get_record(key.clone()).await?.as_ref() == expected);
        wait_until(&mut events, kept)
            .await
            .with_context(|| format!("{} keeps another version of {name}", self.name))
    }

    fn not_running(&self) -> String {
        format!("{} is not running", self.name)
    }
}

/// Waits until `events` report that all of `peers` are in the routing table.
pub(super) async fn learns_of(events: &mut Events, peers: &[PeerId]) -> anyhow::Result<()> {
    let mut missing = peers.to_vec();
    let learn = async {
        while !missing.is_empty() {
            match events.recv().await {
                Ok(NetabaseSwarmEvent::Kad(event)) => {
                    if let kad::Event::RoutingUpdated { peer, .. } = &*event {
                        missing.retain(|other| other != peer);
                    }
                }
                Ok(_) | Err(EventError::Lagged { .. }) => {}
                Err(EventError::Closed) => break,
            }
        }
    };
    let in_time = timeout(MEETING_DEADLINE, learn).await.is_ok();
    ensure!(in_time && missing.is_empty(), "not found in {} s: {missing:?}", MEETING_DEADLINE.as_secs());
    Ok(())
}

/// Waits until `node` has no connection to `peer`.
pub(super) async fn loses(node: &Node, peer: PeerId) -> anyhow::Result<()> {
    let mut events = node.subscribe_to_broadcasts();
    let gone = async || Ok(!node.connected_peers().await?.contains(&peer));
    wait_until(&mut events, gone).await.context("the connection was not closed")
}

/// Waits until `holds` returns true. Calls it again after events.
pub(super) async fn wait_until(
    events: &mut Events,
    holds: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let wait = async {
        while !holds().await? {
            ensure!(!matches!(events.recv().await, Err(EventError::Closed)), "the peer is gone");
            // One call of `holds` is enough for all events so far.
            while !matches!(events.try_recv(), Ok(None) | Err(EventError::Closed)) {}
        }
        Ok(())
    };
    timeout(CONDITION_DEADLINE, wait).await?
}
