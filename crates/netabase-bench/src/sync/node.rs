//! Nodes with databases on the disk, on QUIC and loopback.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identify};
use netabase::{
    DHTDiscoveryConfig, MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseDefinition, NetabaseSwarmEvent,
};
use tokio::time::timeout;

/// How long two nodes may take to meet.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until two nodes that are connected know what the other one speaks.
const SETTLING_TIME: Duration = Duration::from_millis(200);

/// Opens or creates the database of a node that has not been started.
pub(super) fn open<D: NetabaseDefinition>(
    directory: &Path,
    dht: DHTDiscoveryConfig,
) -> anyhow::Result<Netabase<D>> {
    Ok(Netabase::new_with_config(NetabaseConfig {
        database_path: Some(directory.join("node.redb")),
        listen_addresses: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse()?],
        dht,
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    })?)
}

/// Nothing that goes on by itself, so that nothing but what is measured is.
pub(super) fn quiet() -> DHTDiscoveryConfig {
    DHTDiscoveryConfig { bootstrap_interval: None, repair_interval: None, ..DHTDiscoveryConfig::default() }
}

pub(super) fn address<D: NetabaseDefinition>(netabase: &Netabase<D>) -> anyhow::Result<Multiaddr> {
    let address = netabase.listen_addresses().into_iter().next().context("it does not listen")?;
    Ok(address.with(Protocol::P2p(netabase.local_peer_id())))
}

/// Has a node connect to another, and waits until it knows what that speaks.
pub(super) async fn connect<D: NetabaseDefinition>(
    netabase: &Netabase<D>,
    mut address: Multiaddr,
) -> anyhow::Result<()> {
    let Some(Protocol::P2p(peer)) = address.pop() else { anyhow::bail!("the address has no peer") };
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.add_address(peer, address).await?;
    // They may have met by way of others, and know each other already.
    let has_met = netabase.connected_peers().await?.contains(&peer);
    let identified = async {
        loop {
            if let NetabaseSwarmEvent::Identify(event) = events.recv().await?
                && matches!(*event, identify::Event::Received { peer_id, .. } if peer_id == peer)
            {
                return anyhow::Ok(());
            }
        }
    };
    match timeout(if has_met { SETTLING_TIME } else { PATIENCE }, identified).await {
        Ok(identified) => identified,
        Err(_) if has_met => Ok(()),
        Err(elapsed) => Err(elapsed).context("a peer does not answer"),
    }
}

/// Starts nodes in directories of their own, until each has met all others.
pub(super) async fn network<D: NetabaseDefinition>(
    directory: &Path,
    count: usize,
) -> anyhow::Result<Vec<Netabase<D>>> {
    let nodes: Vec<_> = (0..count).map(|node| prepare(directory, node)).collect::<Result<_, _>>()?;
    meet(&nodes).await?;
    Ok(nodes)
}

/// Opens the database of one of several nodes.
pub(super) fn prepare<D: NetabaseDefinition>(directory: &Path, node: usize) -> anyhow::Result<Netabase<D>> {
    let directory = directory.join(node.to_string());
    std::fs::create_dir(&directory)?;
    open(&directory, quiet())
}

/// Starts nodes and connects each with all others.
pub(super) async fn meet<D: NetabaseDefinition>(nodes: &[Netabase<D>]) -> anyhow::Result<()> {
    for (place, node) in nodes.iter().enumerate() {
        node.start_swarm().await?;
        for other in nodes.iter().take(place) {
            connect(node, address(other)?).await?;
        }
    }
    Ok(())
}
