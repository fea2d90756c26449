//! Values with their bytes, for implementations of the format in other languages.
//!
//! `schema.toml` has the models, `schema_vectors.jsonl` a value on each line. `UPDATE_GOLDEN=1`
//! writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use netabase_store::dynamic::Schema;
use netabase_store::schema::{EncodedRecord, ModelSchema};
use netabase_store::{NetabaseDefinition, NetabaseModel};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::models::*;
use super::schema;

const VECTORS: usize = 8;

#[derive(Deserialize)]
struct Vector<'a> {
    model: String,
    version: u32,
    #[serde(borrow)]
    value: &'a RawValue,
    payload: String,
    key: String,
    index_keys: Vec<(String, String)>,
    blobs: Vec<String>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn golden(name: &str, current: impl FnOnce() -> String) -> String {
    let path = fixture(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, current()).unwrap();
    }
    fs::read_to_string(path).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Returns the index keys and the blobs of a record.
fn found(record: &EncodedRecord) -> (Vec<(String, String)>, Vec<String>) {
    let name = |(index, key): (usize, &[u8])| (record.model.indexes[index].name.to_owned(), hex(key));
    let blobs = record.keys.secondary.blobs().iter().map(|blob| blob.hash.to_string());
    (record.keys.secondary.iter().map(name).collect(), blobs.collect())
}

fn lines<M: NetabaseModel + std::fmt::Debug>(strategy: impl Strategy<Value = M>) -> String {
    let mut lines = String::new();
    for model in examples(strategy, VECTORS) {
        let record = EncodedRecord::of(&model).unwrap();
        let value = M::SCHEMA.codec.to_json(&record.payload).unwrap();
        let (index_keys, blobs) = found(&record);
        let rest = json!({ "payload": hex(&record.payload), "key": hex(&record.keys.primary), "index_keys": index_keys, "blobs": blobs });
        let rest = rest.to_string();
        let (model, version) = (M::SCHEMA.name, M::SCHEMA.version);
        writeln!(lines, "{{\"model\":\"{model}\",\"version\":{version},\"value\":{value},{}", &rest[1..])
            .unwrap();
    }
    lines
}

fn check(vector: &Vector<'_>, model: &ModelSchema) {
    let record = model.codec.from_json(vector.version, vector.value.get()).unwrap();
    assert_eq!(hex(&record.payload), vector.payload);
    assert_eq!(hex(&record.keys.primary), vector.key);
    assert_eq!(found(&record), (vector.index_keys.clone(), vector.blobs.clone()));
    assert_eq!(model.codec.to_json(&record.payload).unwrap(), vector.value.get());
    assert_eq!(model.codec.keys(&record.payload).unwrap(), record.keys);
}

/// What an earlier program wrote by positions is the same value, which is written by fields.
#[test]
fn values_by_positions_are_read() {
    let former = fs::read_to_string(fixture("schema_vectors_positions.jsonl")).unwrap();
    assert_eq!(former.lines().count(), 4 * VECTORS);
    for line in former.lines() {
        let vector: Vector<'_> = serde_json::from_str(line).unwrap();
        let payload: Vec<u8> = vector
            .payload
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        for definition in [ZooDefinition::SCHEMA, schema().definition()] {
            let codec = definition.model(&vector.model).unwrap().codec;
            assert_eq!(codec.to_json(&payload).unwrap(), vector.value.get());
            let upgraded = codec.upgrade(&payload).unwrap();
            assert_eq!(upgraded.keys, codec.canonical_keys(&payload).unwrap());
            assert_eq!(codec.to_json(&upgraded.payload).unwrap(), vector.value.get());
        }
    }
}

#[test]
fn the_vectors_hold_with_types_and_without() {
    let text = golden("schema.toml", || schema().to_toml());
    let vectors = golden("schema_vectors.jsonl", || {
        lines(simple()) + &lines(parts()) + &lines(owned()) + &lines(merged())
    });
    let read = Schema::from_toml(&text).unwrap();
    assert_eq!(read, schema());
    assert_eq!(vectors.lines().count(), 4 * VECTORS);
    for line in vectors.lines() {
        let vector: Vector<'_> = serde_json::from_str(line).unwrap();
        for definition in [ZooDefinition::SCHEMA, read.definition()] {
            check(&vector, definition.model(&vector.model).unwrap());
        }
    }
}
