//! Models and nodes that the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::time::Duration;

use netabase::{
    DHTDiscoveryConfig, Events, MDNSDiscoveryConfig, Multiaddr, Netabase, NetabaseConfig, NetabaseSwarmEvent,
    RecordEvent, StorageBackend, netabase_definition_module,
};

/// No wait in a test is longer; one that is has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[netabase_definition_module(NotesDefinition, NotesKeys)]
pub mod notes {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition)]
    pub struct Note {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub topic: String,
        pub text: String,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition)]
    pub struct Topic {
        #[primary_key]
        pub name: String,
        pub title: String,
    }
}
pub use notes::*;

pub type Notes = Netabase<NotesDefinition>;

pub fn note(id: u64, text: &str) -> Note {
    Note { id, topic: format!("topic {}", id % 3), text: text.into() }
}

/// A node in memory, on libp2p's memory transport, that finds nobody by itself.
pub fn memory_config() -> NetabaseConfig {
    NetabaseConfig {
        backend: StorageBackend::Memory,
        listen_addresses: vec!["/memory/0".parse().unwrap()],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    }
}

/// The same, knowing `peer`.
pub fn config_knowing(peer: &Notes) -> NetabaseConfig {
    let dht =
        DHTDiscoveryConfig { bootstrap_peers: vec![full_address(peer)], ..DHTDiscoveryConfig::default() };
    NetabaseConfig { dht, ..memory_config() }
}

pub async fn started(config: NetabaseConfig) -> Notes {
    let netabase = Netabase::new_with_config(config).unwrap();
    netabase.start_swarm().await.unwrap();
    netabase
}

/// `count` nodes that all have each other in their routing tables.
pub async fn network(count: usize) -> Vec<Notes> {
    let first = started(memory_config()).await;
    let mut nodes = vec![first];
    for _ in 1..count {
        let config = config_knowing(&nodes[0]);
        nodes.push(started(config).await);
    }
    for node in &nodes {
        knows_peers(node, count - 1).await;
    }
    nodes
}

/// Waits until `count` peers are in the routing table.
pub async fn knows_peers(node: &Notes, count: usize) {
    let mut events = node.subscribe_to_broadcasts();
    within_deadline("the routing table to fill", async {
        while node.bootstrap().await.unwrap_or(0) < count {
            let _ = events.recv().await;
        }
    })
    .await;
}

/// The first address of a node, with its name.
pub fn full_address(node: &Notes) -> Multiaddr {
    let address = node.listen_addresses().into_iter().next().expect("the swarm listens");
    address.with_p2p(node.local_peer_id()).expect("the address names no other peer")
}

/// Waits for the first event that `wanted` makes something of.
pub async fn wait_for<T>(events: &mut Events, wanted: impl Fn(&NetabaseSwarmEvent) -> Option<T>) -> T {
    within_deadline("an event", async {
        loop {
            if let Some(found) = events.recv().await.ok().and_then(|event| wanted(&event)) {
                return found;
            }
        }
    })
    .await
}

/// Waits for the first record event that `wanted` accepts.
pub async fn wait_for_record(events: &mut Events, wanted: impl Fn(&RecordEvent) -> bool) -> RecordEvent {
    wait_for(events, |event| match event {
        NetabaseSwarmEvent::Record(record) if wanted(record) => Some(record.clone()),
        _ => None,
    })
    .await
}

pub async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}
