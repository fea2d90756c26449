//! Serves a node with a peer, for a program that compares the interface with its own description.
//!
//! Prints the address, and ends when its input does.

use std::io::Read;

use netabase::{
    Keypair, MDNSDiscoveryConfig, Multiaddr, Netabase, NetabaseConfig, netabase_definition_module,
};
use netabase_http::{ApiConfig, Server};

#[netabase_definition_module(ContractDefinition, ContractKeys, name = "contract")]
mod definition {
    use std::collections::BTreeMap;

    use netabase::NetabaseModel;
    use netabase::netabase_store::FieldType;
    use serde::{Deserialize, Serialize};

    /// Has a key of text.
    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ContractDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub(crate) id: String,
        #[secondary_key]
        pub(crate) room: String,
        #[secondary_key]
        pub(crate) reply_to: Option<u64>,
        #[secondary_key]
        pub(crate) tags: Vec<String>,
        pub(crate) text: String,
    }

    /// Has a number for a key, and all kinds of fields.
    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(ContractDefinition)]
    pub(crate) struct Reading {
        #[primary_key]
        pub(crate) number: u64,
        #[secondary_key]
        pub(crate) ok: bool,
        pub(crate) temperature: f64,
        pub(crate) colour: Colour,
        pub(crate) place: Option<Place>,
        pub(crate) counts: BTreeMap<String, i32>,
        pub(crate) pair: (u8, String),
    }

    #[derive(FieldType, Clone, Serialize, Deserialize)]
    pub(crate) enum Colour {
        Red,
        Grey(u8),
        Rgb { red: u8, green: u8, blue: u8 },
    }

    #[derive(FieldType, Clone, Serialize, Deserialize)]
    pub(crate) struct Place {
        pub(crate) name: String,
        pub(crate) altitude: i16,
    }
}
use definition::{ContractDefinition, Message};

fn config(directory: &std::path::Path, name: &str) -> NetabaseConfig {
    NetabaseConfig {
        database_path: Some(directory.join(name).join("contract.redb")),
        identity: Some(Keypair::generate_ed25519()),
        listen_addresses: vec![Multiaddr::empty().with(netabase::libp2p::multiaddr::Protocol::Memory(0))],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        std::fs::create_dir(directory.path().join(name))?;
        let node = Netabase::<ContractDefinition>::new_with_config(config(directory.path(), name))?;
        node.start_swarm().await?;
        nodes.push(node);
    }
    let [one, two] = &*nodes else { return Ok(()) };
    for address in two.listen_addresses() {
        one.add_address(two.local_peer_id(), address).await?;
    }
    for id in ["a", "b", "c"] {
        let (room, text) = ("general".to_owned(), "hello".to_owned());
        one.put_record(Message { id: id.to_owned(), room, reply_to: None, tags: Vec::new(), text }).await?;
    }
    let config = ApiConfig { bind: ([127, 0, 0, 1], 0).into(), ..ApiConfig::default() };
    let server = Server::bind(one.node().clone(), config).await?;
    #[expect(clippy::print_stdout, reason = "whoever started it reads it")]
    {
        println!("http://{}", server.local_addr());
    }
    let input_ends = async {
        let read = || std::io::stdin().read_to_end(&mut Vec::new());
        // However it ends, it has ended.
        drop(tokio::task::spawn_blocking(read).await);
    };
    server.run(input_ends).await;
    Ok(())
}
