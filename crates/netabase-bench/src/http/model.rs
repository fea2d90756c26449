//! The records that are asked for.

use std::path::Path;

use anyhow::Context;
use netabase::key::KeyField;
use netabase::netabase_store::schema::ModelSchema;
use netabase::{
    MDNSDiscoveryConfig, Netabase, NetabaseConfig, NetabaseDefinition, Node, RecordKey,
    netabase_definition_module,
};

/// How many records are written in a transaction.
const BATCH: u64 = 1000;
const TEXT_BYTES: usize = 85;

#[netabase_definition_module(HttpDefinition, HttpKeys)]
mod definition {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(HttpDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub text: String,
    }
}
use definition::{HttpDefinition, Message};

fn message(id: u64) -> Message {
    let text = format!("{id:08x} ").chars().cycle().take(TEXT_BYTES).collect();
    Message { id, room: format!("room-{}", id % 100), text }
}

/// Opens the database of a node, and fills a new one with the records whose ids are below
/// `records`.
pub(super) fn open(directory: &Path, records: u64) -> anyhow::Result<Node> {
    let netabase = Netabase::<HttpDefinition>::new_with_config(NetabaseConfig {
        database_path: Some(directory.join("http.redb")),
        listen_addresses: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
        ..NetabaseConfig::default()
    })?;
    let tree = netabase.store().open_tree::<Message>()?;
    for first in (0..records).step_by(usize::try_from(BATCH)?) {
        tree.put_many(&(first..records.min(first + BATCH)).map(message).collect::<Vec<_>>())?;
    }
    Ok(netabase.node().clone())
}

pub(super) fn model() -> anyhow::Result<&'static ModelSchema> {
    HttpDefinition::SCHEMA.model("Message").context("there is no such model")
}

/// Returns one of the ids below `records`: another one each turn, in no order.
pub(super) fn some_id(turn: u64, records: u64) -> u64 {
    turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % records
}

pub(super) fn key(id: u64) -> anyhow::Result<RecordKey> {
    Ok(model()?.record_key(HttpDefinition::SCHEMA.name, &id.to_key_bytes())?)
}

pub(super) fn path(id: u64) -> String {
    format!("/v1/models/Message/records/{id}")
}

pub(super) fn json(id: u64) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&message(id))?)
}
