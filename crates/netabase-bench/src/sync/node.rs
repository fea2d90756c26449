//! Nodes with databases on the disk, on QUIC and loopback.

use std::path::Path;

use anyhow::Context;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identify};
use netabase::{
    DHTDiscoveryConfig, MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseDefinition, NetabaseSwarmEvent,
};

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
    loop {
        if let NetabaseSwarmEvent::Identify(event) = events.recv().await?
            && matches!(*event, identify::Event::Received { peer_id, .. } if peer_id == peer)
        {
            return Ok(());
        }
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
