//! Two nodes on loopback: one puts records, the other reads, changes and removes them.
//!
//! `cargo run -p netabase --example two_nodes`
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]

use anyhow::{Context, Result, ensure};
use netabase::{
    DHTDiscoveryConfig, MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseSwarmEvent, StoreOptions,
    netabase_definition_module,
};

#[netabase_definition_module(CityDefinition, CityKeys)]
pub mod cities {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(CityDefinition)]
    pub struct City {
        #[primary_key]
        pub name: String,
        #[secondary_key]
        pub country: String,
        pub people: u64,
    }
}
use cities::*;

fn config() -> Result<NetabaseConfig> {
    Ok(NetabaseConfig {
        store: StoreOptions::in_memory(),
        listen_addresses: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    let first = Netabase::<CityDefinition>::new_with_config(config()?)?;
    first.start_swarm().await?;

    // The second node knows the first one's address and name.
    let address = first.listen_addresses().pop().context("the first node listens")?;
    let bootstrap_peers =
        vec![address.with_p2p(first.local_peer_id()).map_err(|other| anyhow::anyhow!("{other}"))?];
    let dht = DHTDiscoveryConfig { bootstrap_peers, ..DHTDiscoveryConfig::default() };
    let second = Netabase::<CityDefinition>::new_with_config(NetabaseConfig { dht, ..config()? })?;
    let mut events = first.subscribe_to_broadcasts();
    second.start_swarm().await?;
    while !matches!(events.recv().await?, NetabaseSwarmEvent::Identify(_)) {}
    second.bootstrap().await?;

    let lima = City { name: "Lima".into(), country: "Peru".into(), people: 10_092_000 };
    let outcome = first.put_record(lima).await?;
    println!("put: {} of {} peers accepted", outcome.accepted.len(), outcome.asked.len());

    let mut found = second.get_record(CityPrimaryKey("Lima".into())).await?.context("the record is there")?;
    println!("read at the second node: {found:?}");

    found.people += 1;
    second.put_record(found.clone()).await?;
    let agreed = first.fetch_record(CityPrimaryKey("Lima".into())).await?;
    ensure!(agreed.as_ref() == Some(&found), "the first node has {agreed:?}");
    println!("changed at the second node, read at the first: {} people", found.people);

    second.remove_record(CityPrimaryKey("Lima".into())).await?;
    ensure!(first.fetch_record(CityPrimaryKey("Lima".into())).await?.is_none(), "the record is still there");
    println!("removed at the second node, gone at the first");
    Ok(())
}
