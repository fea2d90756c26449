//! Nodes that are served on free ports of loopback.

#![allow(dead_code, unreachable_pub, reason = "each test program uses some of it")]

use std::net::SocketAddr;

use netabase::{
    MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseDefinition, StoreOptions,
    netabase_definition_module,
};
use netabase_client::Client;
use netabase_http::{ApiConfig, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub id: String,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
pub use chat::*;

/// A node and its interface.
pub struct Served<D: NetabaseDefinition = ChatDefinition> {
    pub netabase: Netabase<D>,
    pub client: Client,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

/// Opens a node in memory without a swarm.
pub fn node() -> Netabase<ChatDefinition> {
    node_of()
}

/// Does so for another definition.
pub fn node_of<D: NetabaseDefinition>() -> Netabase<D> {
    Netabase::new_with_config(node_config()).unwrap()
}

/// Returns the configuration of such a node.
pub fn node_config() -> NetabaseConfig {
    NetabaseConfig {
        store: StoreOptions::in_memory(),
        listen_addresses: vec!["/memory/0".parse().unwrap()],
        mdns: MDNSDiscoveryConfig { enabled: false, ..Default::default() },
        ..NetabaseConfig::default()
    }
}

/// Returns a configuration with a port that is free.
pub fn config() -> ApiConfig {
    ApiConfig { bind: ([127, 0, 0, 1], 0).into(), ..ApiConfig::default() }
}

pub fn message(id: &str, room: &str) -> Message {
    Message { id: id.into(), room: room.into(), text: format!("{id} in {room}") }
}

impl Served {
    pub async fn start() -> Self {
        Self::with(node(), config()).await
    }
}

impl<D: NetabaseDefinition> Served<D> {
    pub async fn with(netabase: Netabase<D>, config: ApiConfig) -> Self {
        let token = config.token.clone();
        let server = Server::bind(netabase.node().clone(), config).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        let client = Client::new(&format!("http://{address}")).unwrap();
        let client = token.iter().fold(client, Client::with_token);
        Self { netabase, client, address, stop: Some(stop), running: Some(running) }
    }

    /// Tells the server to end, and returns what ends with it.
    pub fn stop(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.running.take().unwrap()
    }
}
