//! Stores that are opened with a run-time schema, and with types.

use std::sync::mpsc::sync_channel;

use netabase_store::admin::CheckOptions;
use netabase_store::dynamic::Schema;
use netabase_store::schema::SchemaError;
use netabase_store::schema::{DefinitionSchema, EncodedRecord};
use netabase_store::{NetabaseDefinition, NetabaseStore, RecordKey, SigningKey, StoreError, StoreOptions};

use super::models::*;
use super::{dynamic, schema};

fn open(path: &std::path::Path, schema: &'static DefinitionSchema) -> NetabaseStore {
    let identity = Some(SigningKey::from_bytes(&[7; 32]));
    NetabaseStore::open_with(path, Some(schema), StoreOptions { identity, ..StoreOptions::default() })
        .unwrap()
}

fn assert_clean(store: &NetabaseStore, records: u64, entries: u64) {
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.records, report.index_entries), (records, entries));
}

fn put(store: &NetabaseStore, record: &EncodedRecord) -> RecordKey {
    let (sender, receiver) = sync_channel(1);
    let (key, _) = store.replica().submit(record, move |result| sender.send(result).unwrap()).unwrap();
    receiver.recv().unwrap().unwrap();
    key
}

#[test]
fn a_store_has_the_same_records_with_types_and_without() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zoo.redb");
    let parts = examples(parts(), 20);
    let merged = examples(merged(), 6);

    let typed = open(&path, ZooDefinition::SCHEMA);
    typed.open_tree::<Parts>().unwrap().put_many(&parts).unwrap();
    for model in &merged {
        typed.open_tree::<Merged>().unwrap().put(model).unwrap();
    }
    let report = typed.check(CheckOptions::default()).unwrap();
    assert!(report.index_entries > 0);
    drop(typed);

    // The indexes are not built again, or what is checked would be the new ones.
    let definition = schema().definition();
    let untyped = open(&path, definition);
    assert_clean(&untyped, report.records, report.index_entries);
    let tag = parts.iter().find_map(|model| model.tags.first()).unwrap();
    let described = schema();
    let query = described.query("made-of.parts").unwrap().index("tags").unwrap();
    let bounds = netabase_store::query::PageBounds { entries: 1000, bytes: 1 << 20 };
    let query = query.equal((&serde_json::json!(tag)).into()).unwrap().raw().resolve(definition).unwrap();
    let mut found = Vec::new();
    query
        .page(
            &untyped,
            bounds,
            |_| true,
            |_, envelope| {
                found.push(dynamic::<Parts>().codec.to_json(envelope.payload()).unwrap());
                true
            },
        )
        .unwrap();
    assert!(!found.is_empty());
    for json in &found {
        assert!(serde_json::from_str::<Parts>(json).unwrap().tags.contains(tag));
    }
    drop(untyped);
    assert_clean(&open(&path, ZooDefinition::SCHEMA), report.records, report.index_entries);
}

#[test]
fn what_a_program_without_types_writes_is_found_with_types() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zoo.redb");
    let untyped = open(&path, schema().definition());
    let model = examples(parts(), 1).remove(0);
    let json = serde_json::to_string(&model).unwrap();
    let record = dynamic::<Parts>().codec.from_json(1, &json).unwrap();
    let key = put(&untyped, &record);
    assert_eq!(key, RecordKey::of(&PartsPrimaryKey(model.id)).unwrap());
    let entries = record.keys.secondary.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_clean(&untyped, 1, entries.try_into().unwrap());
    drop(untyped);

    let typed = open(&path, ZooDefinition::SCHEMA);
    assert_clean(&typed, 1, entries.try_into().unwrap());
    assert_eq!(typed.open_tree::<Parts>().unwrap().get(&PartsPrimaryKey(model.id)).unwrap(), Some(model));
}

/// Messages with some policy and some secondary keys.
fn messages(policy: &str, keys: &[&str]) -> &'static DefinitionSchema {
    let keys = keys.iter().fold(String::new(), |keys, key| {
        keys + &format!("[[models.secondary_keys]]\nname = \"{key}\"\nfields = [\"{key}\"]\n")
    });
    let text = format!(
        r#"
        name = "Chat"
        [[models]]
        name = "Message"
        policy = "{policy}"
        primary_key = ["by", "id"]
        fields = [
            {{ name = "by", type = "author" }},
            {{ name = "id", type = "u64" }},
            {{ name = "room", type = "string" }},
            {{ name = "topic", type = "string" }},
        ]
        {keys}"#
    );
    Schema::from_toml(&text).unwrap().definition()
}

#[test]
fn a_record_of_another_form_of_its_model_is_refused_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("chat.redb"), messages("open", &["room"]));
    let by = store.author().unwrap();
    let record = |schema: &DefinitionSchema| {
        let json = format!(r#"{{"by":"{by}","id":1,"room":"general","topic":"weather"}}"#);
        schema.model("Message").unwrap().codec.from_json(1, &json).unwrap()
    };
    for (policy, keys) in [("open", &["room", "topic"][..]), ("open", &["topic"]), ("owned", &["room"])] {
        let result = store.replica().submit(&record(messages(policy, keys)), |_| {});
        assert!(
            matches!(result, Err(StoreError::Schema(SchemaError::OtherSchema { model: "Message" }))),
            "{policy} {keys:?}"
        );
    }
    put(&store, &record(messages("open", &["room"])));
    assert_clean(&store, 1, 1);
}

#[test]
fn records_are_merged_by_a_program_without_types() {
    let path = |directory: &tempfile::TempDir| directory.path().join("zoo.redb");
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let identity = Some(SigningKey::from_bytes(&[8; 32]));
    let options = StoreOptions { identity, ..StoreOptions::default() };
    let typed =
        NetabaseStore::open_with(path(&directories[0]), Some(ZooDefinition::SCHEMA), options).unwrap();
    let untyped = open(&path(&directories[1]), schema().definition());

    let ours = examples(merged(), 1).remove(0);
    let theirs = Merged { votes: 30, title: "later".into(), ..ours.clone() };
    typed.open_tree::<Merged>().unwrap().put(&Merged { votes: 12, ..ours.clone() }).unwrap();
    let key = RecordKey::of(&MergedPrimaryKey(ours.id)).unwrap();
    let on_wire = typed.envelope(&key).unwrap().unwrap().to_wire();
    assert!(untyped.replica().admit(key.as_bytes(), on_wire.as_bytes()).unwrap());
    let json = serde_json::to_string(&theirs).unwrap();
    put(&untyped, &dynamic::<Merged>().codec.from_json(1, &json).unwrap());
    let whole = untyped.envelope(&key).unwrap().unwrap();
    let seen: Merged = netabase_store::schema::decode_payload(whole.payload()).unwrap();
    assert_eq!((seen.votes, seen.title.as_str()), (30, "later"));
    untyped.flush().unwrap();
    assert!(untyped.check(CheckOptions::default()).unwrap().is_clean());
}
