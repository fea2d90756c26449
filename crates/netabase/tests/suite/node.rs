//! The handle without types, beside a typed program in the same network.

use netabase::netabase_store::NetabaseDefinition;
use netabase::netabase_store::schema::EncodedRecord;
use netabase::{
    GetOptions, NetabaseConfig, Node, PutOptions, Query, QueryOptions, RecordKey, StorageBackend,
    StoreOptions,
};

use crate::common::*;

fn told(id: u64) -> Note {
    Note { id, topic: "cooking".into(), text: "soup".into() }
}

#[tokio::test]
async fn a_program_without_the_types_shares_records_with_one_that_has_them() {
    let typed = started(memory_config()).await;
    let node = Node::open(NotesDefinition::SCHEMA, config_knowing(&typed)).unwrap();
    node.start_swarm().await.unwrap();
    knows_peers(&typed, 1).await;

    typed.put_record(told(1)).await.unwrap();
    let model = node.schema().model("Note").unwrap();
    let record = model.codec.from_json(1, r#"{"id":2,"topic":"cooking","text":"soup"}"#).unwrap();
    let key = node.key_of(&record).unwrap();
    let outcome = node.put(record, PutOptions::default()).await.unwrap();
    assert_eq!(outcome.accepted, [typed.local_peer_id()]);
    assert_eq!(typed.get_record(NotePrimaryKey(2)).await.unwrap(), Some(told(2)));

    let found = node.get(&RecordKey::of(&NotePrimaryKey(1)).unwrap(), GetOptions::default()).await.unwrap();
    assert_eq!(found.author, typed.store().author());
    assert_eq!(
        model.codec.to_json(found.record.unwrap().payload()).unwrap(),
        r#"{"id":1,"topic":"cooking","text":"soup"}"#
    );

    let query = Query::<Note>::new().topic("cooking");
    let page = node.find(&query.raw(), query.scope(), &QueryOptions::default()).await.unwrap();
    let keys: Vec<&RecordKey> = page.records.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [&RecordKey::of(&NotePrimaryKey(1)).unwrap(), &key]);

    let health = node.health(key.clone()).await.unwrap();
    assert_eq!(health.holders.len(), 1);
    assert!(node.why(key.clone()).await.unwrap().to_string().contains("Note"));
    node.remove(key, PutOptions::default()).await.unwrap();
    assert_eq!(typed.get_record(NotePrimaryKey(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_record_of_another_definition_is_refused() {
    let node = Node::open(NotesDefinition::SCHEMA, memory_config()).unwrap();
    let record = EncodedRecord::of(&other::Thing { id: 1 }).unwrap();
    assert!(node.put(record, PutOptions::default()).await.is_err());
}

#[netabase::netabase_definition_module(OtherDefinition, OtherKeys)]
mod other {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(OtherDefinition)]
    pub(crate) struct Thing {
        #[primary_key]
        pub(crate) id: u64,
    }
}

#[tokio::test]
async fn the_last_handle_of_a_node_closes_its_database() {
    let directory = tempfile::tempdir().unwrap();
    let database_path = Some(directory.path().join("notes.redb"));
    let config = NetabaseConfig {
        store: StoreOptions { backend: StorageBackend::Redb, ..memory_config().store },
        database_path,
        ..memory_config()
    };
    for _ in 0..2 {
        let node = Node::open(NotesDefinition::SCHEMA, config.clone()).unwrap();
        node.start_swarm().await.unwrap();
        node.put(EncodedRecord::of(&told(1)).unwrap(), PutOptions::default()).await.unwrap();
        node.stop_swarm().await.unwrap();
    }
}
