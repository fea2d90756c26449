//! Two nodes that have only a `schema.toml`, and a program with the same models in Rust, are one
//! network.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use netabase::libp2p::multiaddr::Protocol;
use netabase::netabase_store::dynamic::Schema;
use netabase::{
    Events, MDNSDiscoveryConfig, Netabase, NetabaseConfig, RecordKey, Replication, Scope,
    netabase_definition_module,
};
use serde_json::{Value, json};
use support::{Node, program, run};
use tokio::time::timeout;

mod support;

/// How long the nodes may take to do what the test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

#[netabase_definition_module(ChatDefinition, ChatKeys, name = "chat")]
mod chat {
    use netabase::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(FieldType, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) enum Mood {
        Calm,
        Excited(u8),
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub(crate) struct Message {
        #[primary_key]
        pub(crate) id: String,
        #[secondary_key]
        pub(crate) room: String,
        pub(crate) text: String,
        #[secondary_key]
        pub(crate) tags: Vec<String>,
        pub(crate) reply_to: Option<String>,
        pub(crate) mood: Mood,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub(crate) struct Score {
        #[primary_key]
        pub(crate) game: String,
        #[primary_key]
        pub(crate) player: u32,
        pub(crate) points: i64,
    }
}
use chat::*;

fn message(id: &str, mood: Mood, reply_to: Option<&str>) -> Message {
    Message {
        id: id.into(),
        room: "general".into(),
        text: format!("from {id}"),
        tags: vec!["a".into(), id.into()],
        reply_to: reply_to.map(str::to_owned),
        mood,
    }
}

/// The program that knows the models.
struct Typed {
    netabase: Netabase<ChatDefinition>,
    events: Events,
    _all: Replication,
}

impl Typed {
    async fn start(path: &Path) -> Self {
        let mut config = NetabaseConfig {
            database_path: Some(path.join("typed.redb")),
            listen_addresses: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            mdns: MDNSDiscoveryConfig { enabled: false, ..MDNSDiscoveryConfig::default() },
            ..NetabaseConfig::default()
        };
        config.sync_interval = Duration::from_secs(1);
        let netabase = Netabase::<ChatDefinition>::new_with_config(config).unwrap();
        let events = netabase.subscribe_to_broadcasts();
        let all = netabase.replicate(Scope::definition::<ChatDefinition>()).unwrap();
        netabase.start_swarm().await.unwrap();
        Self { netabase, events, _all: all }
    }

    fn address(&self) -> String {
        let address = self.netabase.listen_addresses().remove(0);
        address.with(Protocol::P2p(self.netabase.local_peer_id())).to_string()
    }

    /// Waits until a record here is as `is` wants it.
    async fn until(&mut self, id: &str, is: impl Fn(Option<&Message>) -> bool) {
        let messages = self.netabase.store().open_tree::<Message>().unwrap();
        let waiting = async {
            while !is(messages.get(&MessagePrimaryKey(id.into())).unwrap().as_ref()) {
                // Whatever happens may be what is waited for.
                self.events.recv().await.unwrap();
            }
        };
        assert!(timeout(DEADLINE, waiting).await.is_ok(), "{id} does not come");
    }

    /// Returns the version of a record, as the others show it.
    fn version(&self, id: &str) -> String {
        let key = RecordKey::of(&MessagePrimaryKey(id.into())).unwrap();
        let version = self.netabase.store().envelope(&key).unwrap().unwrap().version().unwrap();
        version.hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }
}

/// A node that has only a schema.
struct General {
    _node: Node,
    address: String,
    api: String,
    changes: Node,
    /// The changes that came while another one was waited for.
    earlier: RefCell<Vec<Value>>,
}

impl General {
    fn start(path: &Path, schema: &str, peer: &str) -> Self {
        let arguments = [
            &["--schema", schema, "--peer", peer, "--replicate", "all", "--listen", "/ip4/127.0.0.1/tcp/0"][..],
            &["--set", "sync.interval=1s"],
        ];
        let node = Node::start(path, &arguments.concat());
        // The address is printed before the API.
        let address = node.printed("address");
        let api = node.api();
        let changes = Node::spawn(&mut program(&["watch", "--json", "--since", "0", "--api", &api]));
        Self { _node: node, address, api, changes, earlier: RefCell::default() }
    }

    /// Waits for a change, and returns the record.
    fn until(&self, event: &str, id: &str) -> Value {
        let is_it = |line: &Value| line["event"] == event && line["record"]["key"] == id;
        let mut earlier = self.earlier.borrow_mut();
        if let Some(place) = earlier.iter().position(is_it) {
            return earlier.remove(place)["record"].clone();
        }
        loop {
            let line = self.changes.json_line(|line| Some(line.clone()));
            if is_it(&line) {
                return line["record"].clone();
            }
            earlier.push(line);
        }
    }

    fn put(&self, message: &Message) {
        let value = serde_json::to_string(message).unwrap();
        run(&["put", "Message", &value, "--api", &self.api]).ok();
    }

    /// Returns the values that a query finds, in order.
    fn query(&self, arguments: &[&str]) -> Vec<Value> {
        let all = [&["query", "Message", "--json", "--api", &self.api], arguments].concat();
        run(&all).ok().lines().into_iter().map(|record| record["value"].clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_a_schema_and_a_typed_program_share_records_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    // The typed program says what its models are; nobody else has its code.
    let schema = Schema::of::<ChatDefinition>().unwrap();
    let written = include_str!("support/chat.toml");
    assert_eq!(schema, Schema::from_toml(written).unwrap(), "{}", schema.to_toml());
    let file = directory.path().join("schema.toml");
    std::fs::write(&file, schema.to_toml()).unwrap();
    let file = file.display().to_string();

    let mut typed = Typed::start(directory.path()).await;
    let first = General::start(&directory.path().join("first"), &file, &typed.address());
    let second = General::start(&directory.path().join("second"), &file, &first.address);

    let messages = [
        message("1", Mood::Excited(3), None),
        message("2", Mood::Calm, Some("1")),
        message("3", Mood::Calm, Some("2")),
    ];
    typed.netabase.put_record(messages[0].clone()).await.unwrap();
    first.put(&messages[1]);
    second.put(&messages[2]);
    let compound = json!({ "game": "chess", "player": 7, "points": -3 });
    run(&["put", "Score", &compound.to_string(), "--api", &second.api]).ok();

    // Everybody has everything, with its authors' signatures, in the same version.
    for message in &messages {
        typed.until(&message.id, |found| found == Some(message)).await;
        for node in [&first, &second] {
            let record = node.until("put", &message.id);
            assert_eq!(record["value"], serde_json::to_value(message).unwrap());
            assert_eq!(record["version"]["hash"], typed.version(&message.id));
        }
    }

    // Everybody answers by primary key, by both secondary keys, and backwards.
    let values: Vec<Value> = messages.iter().map(|message| serde_json::to_value(message).unwrap()).collect();
    let mut reversed = values.clone();
    reversed.reverse();
    for node in [&first, &second] {
        assert_eq!(node.query(&[]), values);
        assert_eq!(node.query(&["--by", "room=general"]), values);
        assert_eq!(node.query(&["--by", "tags=2"]), values[1..2]);
        assert_eq!(node.query(&["--reverse"]), reversed);
    }
    let found = typed.netabase.query::<Message>().room("general").page().await.unwrap();
    let found: Vec<Value> =
        found.records.iter().map(|message| serde_json::to_value(message).unwrap()).collect();
    assert_eq!(found, values);
    let tree = typed.netabase.store().open_tree::<Message>().unwrap();
    assert_eq!(tree.find(MessageTagsSecondaryKey("2".into())).unwrap(), messages[1..2]);

    for node in [&first, &second] {
        assert_eq!(node.query(&["--by", "room=general", "--network"]), values);
        let score = run(&["get", "Score", r#"["chess",7]"#, "--json", "--api", &node.api]).ok().json();
        assert_eq!(score["value"], compound);
    }
    let score = typed.netabase.get_record(ScorePrimaryKey("chess".into(), 7)).await.unwrap();
    assert_eq!(score, Some(Score { game: "chess".into(), player: 7, points: -3 }));

    // All nodes see the changes and removals of each other, whoever wrote the record first.
    let changed = Message { text: "changed".into(), mood: Mood::Excited(255), ..messages[0].clone() };
    second.put(&changed);
    typed.until("1", |found| found == Some(&changed)).await;
    let seen = first.until("put", "1");
    assert_eq!(seen["value"]["mood"], json!({ "Excited": 255 }));
    typed.netabase.remove_record(MessagePrimaryKey("2".into())).await.unwrap();
    for node in [&first, &second] {
        node.until("remove", "2");
        run(&["get", "Message", "2", "--api", &node.api]).failed(4, "There is no such record");
    }
    run(&["remove", "Message", "3", "--api", &first.api]).ok();
    typed.until("3", |found| found.is_none()).await;
    second.until("remove", "3");
    for node in [&first, &second] {
        assert_eq!(node.query(&["--by", "room=general"]), [serde_json::to_value(&changed).unwrap()]);
    }
    typed.netabase.stop_swarm().await.unwrap();
}
