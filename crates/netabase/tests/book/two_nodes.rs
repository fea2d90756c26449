// Two nodes that know each other, for the block of docs/network.md.
use netabase::{
    MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseError, StoreOptions, netabase_definition_module,
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
        pub text: String,
    }
}
use chat::*;

async fn start() -> Result<Netabase<ChatDefinition>, NetabaseError> {
    let node = Netabase::new_with_config(NetabaseConfig {
        store: StoreOptions::in_memory(),
        listen_addresses: vec!["/memory/0".parse().unwrap()],
        mdns: MDNSDiscoveryConfig { enabled: false, ..Default::default() },
        ..NetabaseConfig::default()
    })?;
    node.start_swarm().await?;
    Ok(node)
}

async fn two_nodes() -> Result<[Netabase<ChatDefinition>; 2], NetabaseError> {
    let (ada, bob) = (start().await?, start().await?);
    let mut events = bob.subscribe_to_broadcasts();
    bob.add_address(ada.local_peer_id(), ada.listen_addresses().remove(0)).await?;
    while bob.bootstrap().await? == 0 {
        let _ = events.recv().await;
    }
    Ok([ada, bob])
}
