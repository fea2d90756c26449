//! Measures how long a change takes from the put on one node to the event on another: ten nodes in
//! this process, on loopback, with databases on the disk.
//!
//! `cargo run --release -p netabase --example live_latency -- [tcp|quic|memory] [puts] [memory]`;
//! with the last word the databases are in memory.
#![allow(clippy::disallowed_methods, reason = "an example uses clocks and tasks directly")]
#![allow(clippy::print_stdout, unreachable_pub, reason = "a program that prints what it measures")]

use std::time::{Duration, Instant};

use netabase::{
    DHTDiscoveryConfig, LiveWatch, MDNSDiscoveryConfig, Netabase, NetabaseConfig, Query, StorageBackend,
    StoreOptions, WatchEvent, netabase_definition_module,
};

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
use chat::*;

const NODES: usize = 10;

fn config(
    address: &str,
    path: Option<std::path::PathBuf>,
    known: &[Netabase<ChatDefinition>],
) -> NetabaseConfig {
    let bootstrap_peers = known
        .iter()
        .filter_map(|node| node.listen_addresses().into_iter().next()?.with_p2p(node.local_peer_id()).ok())
        .collect();
    NetabaseConfig {
        store: StoreOptions {
            backend: if path.is_some() { StorageBackend::Redb } else { StorageBackend::Memory },
            ..StoreOptions::default()
        },
        database_path: path,
        listen_addresses: address.parse().into_iter().collect(),
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        dht: DHTDiscoveryConfig { bootstrap_peers, ..DHTDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    }
}

async fn event(watch: &mut LiveWatch<Message>, id: u64) -> Result<Instant, netabase::NetabaseError> {
    loop {
        if let Some(seen) = watch.next().await.transpose()?
            && let WatchEvent::Inserted { record } = seen.event
            && record.id == id
        {
            return Ok(Instant::now());
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let micros = |percent| percentile(&times, percent).as_micros();
    println!("{name}: p50 {} us, p90 {} us, p99 {} us", micros(50), micros(90), micros(99));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let transport = arguments.next().unwrap_or_else(|| "quic".into());
    let puts: u64 = arguments.next().map_or(Ok(500), |puts| puts.parse())?;
    let in_memory = arguments.next().is_some();
    let address = match transport.as_str() {
        "tcp" => "/ip4/127.0.0.1/tcp/0",
        "memory" => "/memory/0",
        _ => "/ip4/127.0.0.1/udp/0/quic-v1",
    };
    let directory = tempfile::tempdir()?;
    let mut nodes: Vec<Netabase<ChatDefinition>> = Vec::new();
    for number in 0..NODES {
        let path = (!in_memory).then(|| directory.path().join(format!("{number}.redb")));
        let node = Netabase::new_with_config(config(address, path, &nodes))?;
        node.start_swarm().await?;
        nodes.push(node);
    }
    let (Some(writer), Some(reader)) = (nodes.first(), nodes.last()) else { return Ok(()) };
    while writer.bootstrap().await.unwrap_or_default() < NODES - 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut watch = reader.watch(Query::<Message>::new().room("general"))?;
    let message = |id| Message { id, room: "general".into(), text: "x".repeat(60) };
    // Until the subscription has arrived.
    let mut id = 0;
    while reader.live_stats().received < 20 {
        id += 1;
        writer.put_record(message(id)).await?;
    }
    let (mut events, mut written, mut local) = (Vec::new(), Vec::new(), Vec::new());
    for id in id + 1..=id + puts {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        let put = async {
            writer.put_record(message(id)).await?;
            Ok::<_, netabase::NetabaseError>(began.elapsed())
        };
        let (put, seen) = tokio::join!(put, event(&mut watch, id));
        written.push(put?);
        events.push(seen?.duration_since(began));
    }
    let tree = reader.store().open_tree::<Message>()?;
    for id in 1 << 40..(1_u64 << 40) + puts.min(100) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let began = Instant::now();
        tree.put(&Message { id, room: "elsewhere".into(), text: "x".repeat(60) })?;
        local.push(began.elapsed());
    }
    println!("{NODES} nodes, {transport}, {puts} puts");
    print("put on A to event on B", events);
    print("put on A answered", written);
    print("one durable write on B alone", local);
    println!("{:?}", reader.live_stats());
    Ok(())
}
