//! Finding the network again after a restart.

use netabase::{Multiaddr, NetabaseConfig, NetabaseSwarmEvent, PeerId, StorageBackend, StoreOptions};

use crate::common::*;

/// A node on a disk, that is found at the same place at every start.
fn disk_config(directory: &tempfile::TempDir, knows: &Notes) -> NetabaseConfig {
    NetabaseConfig {
        store: StoreOptions { backend: StorageBackend::Redb, ..StoreOptions::default() },
        database_path: Some(directory.path().join("notes.redb")),
        ..config_knowing(knows)
    }
}

/// Waits until a node is connected to a peer.
async fn connects_to(node: &Notes, peer: PeerId) {
    let mut events = node.subscribe_to_broadcasts();
    while !node.connected_peers().await.unwrap().contains(&peer) {
        wait_for(&mut events, |event| {
            matches!(event, NetabaseSwarmEvent::ConnectionEstablished { .. }).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_rejoins_after_the_only_bootstrap_peer_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let bootstrap = started(memory_config()).await;
    let other = started(config_knowing(&bootstrap)).await;
    let config = disk_config(&directory, &bootstrap);
    let node = started(config.clone()).await;
    knows_peers(&node, 2).await;
    knows_peers(&other, 2).await;
    node.stop_swarm().await.unwrap();
    drop(node);
    bootstrap.stop_swarm().await.unwrap();
    other.put_record(note(1, "while it was away")).await.unwrap();

    let node = started(config).await;
    connects_to(&node, other.local_peer_id()).await;
    knows_peers(&node, 1).await;
    assert_eq!(node.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "while it was away")));
}

#[tokio::test]
async fn an_isolated_node_looks_for_the_peers_it_knew() {
    let place: Multiaddr = "/memory/7160".parse().unwrap();
    let other =
        Notes::new_with_config(NetabaseConfig { listen_addresses: vec![place.clone()], ..memory_config() })
            .unwrap();
    other.start_swarm().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = disk_config(&directory, &other);
    config.dht.bootstrap_peers.clear();
    let node = started(config.clone()).await;
    node.add_address(other.local_peer_id(), place).await.unwrap();
    knows_peers(&node, 1).await;
    node.stop_swarm().await.unwrap();
    // It is told of nobody at this start.
    node.start_swarm().await.unwrap();
    connects_to(&node, other.local_peer_id()).await;
}

#[tokio::test]
async fn a_damaged_file_of_peers_does_not_keep_a_node_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let peer = started(memory_config()).await;
    let saved = directory.path().join("notes.redb.peers");
    std::fs::write(&saved, b"\xff\x00 no peers at all").unwrap();
    let node = started(disk_config(&directory, &peer)).await;
    knows_peers(&node, 1).await;
    node.stop_swarm().await.unwrap();
    let text = std::fs::read_to_string(&saved).unwrap();
    assert!(text.contains(&peer.local_peer_id().to_string()), "{text}");
}

#[tokio::test]
async fn a_node_in_memory_leaves_no_file() {
    let peer = started(memory_config()).await;
    let node = started(config_knowing(&peer)).await;
    knows_peers(&node, 1).await;
    node.stop_swarm().await.unwrap();
    assert_eq!(node.database_path(), None);
    assert!(!std::path::Path::new("NotesDefinition.memory.peers").exists());
}
