//! Models and nodes that the tests share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test file uses its own part"
)]

pub mod bare;
pub mod flood;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use netabase::{
    DHTDiscoveryConfig, Events, MDNSDiscoveryConfig, Multiaddr, Netabase, NetabaseConfig, NetabaseSwarmEvent,
    RecordEvent, StoreOptions, netabase_definition_module,
};

/// No wait in a test is longer; one that is has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[netabase_definition_module(NotesDefinition, NotesKeys)]
pub mod notes {
    use netabase::{Author, NetabaseModel};
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

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition)]
    pub struct Page {
        #[primary_key]
        pub id: u64,
        #[secondary_key(unique)]
        pub slug: String,
    }

    /// One to an author.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition, owned)]
    pub struct Profile {
        #[primary_key]
        pub owner: Author,
        pub name: String,
    }

    /// What everybody counts in.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition)]
    pub struct Tally {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        #[merge(counter)]
        pub count: i64,
    }

    /// What its owner alone writes.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition, owned)]
    pub struct Card {
        #[primary_key]
        pub owner: Author,
        #[primary_key]
        pub number: u64,
        pub text: String,
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
        store: StoreOptions::in_memory(),
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
    network_with(count, |config| config).await
}

/// The same, where a record that one node stores alone stays there alone.
pub async fn network_without_repair(count: usize) -> Vec<Notes> {
    network_with(count, without_repair).await
}

/// A node that never compares what it has with what its peers have.
pub fn without_repair(mut config: NetabaseConfig) -> NetabaseConfig {
    config.dht.repair_interval = None;
    config
}

async fn network_with(count: usize, setting: impl Fn(NetabaseConfig) -> NetabaseConfig) -> Vec<Notes> {
    let mut nodes = vec![started(setting(memory_config())).await];
    for _ in 1..count {
        let config = setting(config_knowing(&nodes[0]));
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

/// Runs an ignored test of this program in a network namespace of its own, where mDNS has an
/// interface that reaches nobody else. Without the permission to make one there is nothing to run
/// it in.
pub fn run_in_network_namespace(test: &str) {
    let possible = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces need root and util-linux's `unshare`");
        return;
    }
    let setup = "ip link set lo up && ip link add veth0 type veth peer name veth1 && ip link set veth1 up \
                 && ip addr add 10.77.0.1/24 dev veth0 && ip link set veth0 up multicast on \
                 && exec \"$0\" \"$1\" --exact --ignored --nocapture";
    // More rounds are for those who ask for them, and take their time.
    let deadline = if std::env::var_os("NETABASE_TEST_ROUNDS").is_some() { "7200" } else { "120" };
    let within_deadline = ["--net", "timeout", deadline, "sh", "-c", setup];
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare").args(within_deadline).arg(program).arg(test).output().unwrap();
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    eprintln!("{printed}");
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// Returns the program of an example. A run of all tests has built it already; a run of one file
/// alone has not.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "netabase", "--example", name, "--target-dir"]);
        assert!(build.arg(program.ancestors().nth(3).unwrap()).status().unwrap().success());
    }
    program
}
