//! What is counted: two nodes in memory, on libp2p's memory transport and one thread beside those
//! of the stores; everything that both do, signatures and encryption included.

use std::ops::Range;

use netabase::libp2p::multiaddr::Protocol;
use netabase::{
    DHTDiscoveryConfig, MDNSDiscoveryConfig, Multiaddr, Netabase, NetabaseConfig, NetabaseSwarmEvent,
    StoreOptions, netabase_definition_module,
};

use crate::harness::{Operation, Outcome};

/// How many records a query finds.
const PER_ROOM: u64 = 10;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// A record of about a hundred bytes.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) room: u64,
        pub(crate) text: String,
    }
}
use chat::*;

type Chat = Netabase<ChatDefinition>;

/// Returns what is counted.
pub(crate) fn all() -> Vec<Operation> {
    let operation = |name, rounds, perform: fn(usize, usize) -> Outcome| Operation {
        name,
        rounds,
        counted: &[],
        profiled: &[],
        // Prepared for the longer run in both.
        perform: Box::new(move |times| perform(times, times.max(2 * rounds))),
    };
    vec![operation("put", 100, put), operation("get", 200, get), operation("query of 10", 40, query)]
}

/// Puts records that the peer accepts.
fn put(times: usize, _: usize) -> Outcome {
    between_nodes(0..0, async move |node| {
        for message in messages(0..number(times)?) {
            let outcome = node.put_record(message).await?;
            if outcome.accepted.len() != 1 {
                return Err(format!("the peer has not accepted: {outcome:?}").into());
            }
        }
        Ok(())
    })
}

/// Gets records that only the peer has.
fn get(times: usize, prepared: usize) -> Outcome {
    between_nodes(0..number(prepared)?, async move |node| {
        for id in 0..number(times)? {
            let found: Option<Message> = node.get_record(MessagePrimaryKey(id)).await?;
            found.ok_or_else(|| format!("record {id} was not found"))?;
        }
        Ok(())
    })
}

/// Finds records that only the peer has, each time others.
fn query(times: usize, prepared: usize) -> Outcome {
    between_nodes(0..number(prepared)? * PER_ROOM, async move |node| {
        for room in 0..number(times)? {
            let found = node.query::<Message>().room(room).collect().await?;
            if number(found.records.len())? != PER_ROOM {
                return Err(format!("{} records were found in room {room}", found.records.len()).into());
            }
        }
        Ok(())
    })
}

fn messages(ids: Range<u64>) -> impl Iterator<Item = Message> {
    let text = "lives here and is rarely seen, but pays in time, and comes to every party";
    ids.map(move |id| Message { id, room: id / PER_ROOM, text: text.into() })
}

fn number(count: usize) -> Outcome<u64> {
    Ok(u64::try_from(count)?)
}

/// Does something at a node that is connected to one that has some records.
fn between_nodes(stored: Range<u64>, act: impl AsyncFnOnce(&Chat) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let peer = started(None, stored).await?;
        let address = peer.listen_addresses().pop().ok_or("the node does not listen")?;
        let address = address.with(Protocol::P2p(peer.local_peer_id()));
        let node = started(Some(address), 0..0).await?;
        act(&node).await?;
        // What stopping costs depends on what is under way.
        std::mem::forget((node, peer));
        Ok(())
    });
    std::mem::forget(runtime);
    outcome
}

/// Starts a node with some records; it has another one in its routing table if there is one.
async fn started(peer: Option<Multiaddr>, stored: Range<u64>) -> Outcome<Chat> {
    let knows_peer = peer.is_some();
    let config = NetabaseConfig {
        store: StoreOptions::in_memory(),
        listen_addresses: vec!["/memory/0".parse()?],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        dht: DHTDiscoveryConfig {
            bootstrap_peers: peer.into_iter().collect(),
            // Comparisons would bring what is to be got.
            repair_interval: None,
            ..DHTDiscoveryConfig::default()
        },
        ..NetabaseConfig::default()
    };
    let node = Chat::new_with_config(config)?;
    node.store().open_tree::<Message>()?.put_many(messages(stored).collect::<Vec<_>>().iter())?;
    let mut events = node.subscribe_to_broadcasts();
    node.start_swarm().await?;
    if knows_peer {
        while !matches!(events.recv().await?, NetabaseSwarmEvent::Identify(_)) {}
    }
    Ok(node)
}
