//! A value has one encoding: peers' payloads that are another are refused, and those that are
//! stored stay readable.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use netabase_store::dynamic::Schema;
use netabase_store::export::ExportOptions;
use netabase_store::schema::{DefinitionSchema, EncodedRecord};
use netabase_store::{
    Envelope, KeyField, NetabaseDefinition, NetabaseModel, NetabaseStore, RecordKey, Refusal, StorageBackend,
    StoreOptions, Timestamp, netabase_definition_module,
};

use crate::common::tables;
use crate::common::*;

#[netabase_definition_module(BagDefinition, BagKeys)]
mod bags {
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    use netabase_store::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(BagDefinition)]
    pub(crate) struct Bag {
        #[primary_key]
        pub(crate) id: u32,
        pub(crate) numbers: BTreeSet<u16>,
        pub(crate) names: BTreeMap<String, u16>,
    }

    /// The same, whose types have no order.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(BagDefinition)]
    pub(crate) struct Loose {
        #[primary_key]
        pub(crate) id: u32,
        pub(crate) numbers: HashSet<u16>,
        pub(crate) inner: Vec<Inner>,
    }

    #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Inner {
        pub(crate) names: HashMap<String, u16>,
        pub(crate) inner: Vec<Inner>,
    }
}
use bags::*;

/// The payloads of one value: version, id, numbers and names.
fn payload(version: &[u8], id: &[u8], numbers: &[u8], names: &[u8]) -> Vec<u8> {
    [version, id, numbers, names].concat()
}

fn key<M: NetabaseModel>(id: u32) -> RecordKey {
    M::SCHEMA.record_key("BagDefinition", &id.to_key_bytes()).unwrap()
}

fn in_memory(schema: &'static DefinitionSchema) -> NetabaseStore {
    let options =
        StoreOptions { backend: StorageBackend::Memory, ..Place::new(StorageBackend::Memory).options };
    NetabaseStore::open_with("", Some(schema), options).unwrap()
}

/// A store that has the types, and one that has the description.
fn stores() -> [NetabaseStore; 2] {
    let described = Schema::of::<BagDefinition>().unwrap().definition();
    [in_memory(BagDefinition::SCHEMA), in_memory(described)]
}

fn admit<M: NetabaseModel>(store: &NetabaseStore, payload: &[u8]) -> Result<bool, Refusal> {
    let key = key::<M>(1);
    let time = Timestamp::from_unix_millis(START);
    let envelope = Envelope::sign(&identity(9), &key, time, 0, Some(payload));
    store.replica().admit(key.as_bytes(), envelope.as_bytes())
}

/// A field of a value: its tag with its form, and its bytes.
fn field(name: &str, form: u16, bytes: &[u8]) -> (u16, Vec<u8>) {
    (netabase_store::__private::tag(name) | form, bytes.to_vec())
}

/// The payload of fields in the order of their tags.
fn fields(mut fields: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    fields.sort();
    written(&fields)
}

fn written(fields: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let field = |(tag, bytes): &(u16, Vec<u8>)| [&tag.to_be_bytes(), bytes.as_slice()].concat();
    [vec![0x81, 0x40], fields.iter().flat_map(field).collect()].concat()
}

#[test]
fn what_is_not_the_encoding_of_its_fields_is_refused() {
    let id = || field("id", 0, b"\x01");
    let numbers =
        |bytes: &[u8]| field("numbers", 3, &[&[u8::try_from(bytes.len()).unwrap()], bytes].concat());
    let names = |bytes: &[u8]| field("names", 3, &[&[u8::try_from(bytes.len()).unwrap()], bytes].concat());
    let (two, both) = (b"\x03\x80\x02".as_slice(), b"\x01a\x01\x01b\x02".as_slice());
    let good = fields(vec![id(), numbers(two), names(both)]);
    let bag = Bag {
        id: 1,
        numbers: BTreeSet::from([3, 256]),
        names: BTreeMap::from([("a".into(), 1), ("b".into(), 2)]),
    };
    assert_eq!(EncodedRecord::of(&bag).unwrap().payload, good);
    let refused = [
        ("element out of order", fields(vec![id(), numbers(b"\x80\x02\x03"), names(both)]), true),
        ("element twice", fields(vec![id(), numbers(b"\x03\x03\x80\x02"), names(both)]), true),
        ("entry out of order", fields(vec![id(), numbers(two), names(b"\x01b\x02\x01a\x01")]), true),
        ("version", [&[0x81, 0xc0, 0], &good[2..]].concat(), true),
        ("number", fields(vec![field("id", 0, b"\x81\x00"), numbers(two), names(both)]), false),
        ("form", fields(vec![field("id", 1, b"\x01\0\0\0"), numbers(two), names(both)]), false),
        ("unknown form", fields(vec![id(), numbers(two), names(both), field("more", 7, b"")]), false),
        ("field missing", fields(vec![id(), numbers(two)]), false),
        ("field twice", fields(vec![id(), id(), numbers(two), names(both)]), false),
        ("fields out of order", written(&[names(both), id(), numbers(two)]), false),
        ("cut off", good[..good.len() - 1].to_vec(), false),
        ("bytes left over", [good.as_slice(), &[0]].concat(), false),
    ];
    for store in stores() {
        for (what, payload, is_value) in &refused {
            let reason = if *is_value { Refusal::NotCanonical } else { Refusal::InvalidValue };
            assert_eq!(admit::<Bag>(&store, payload), Err(reason), "{what}");
        }
    }
    // Programs with other fields write others, which nobody here can judge.
    let more = fields(vec![id(), numbers(two), names(both), field("more", 3, b"\x02hi")]);
    for store in stores() {
        assert_eq!(admit::<Bag>(&store, &more), Ok(true));
        store.flush().unwrap();
        let envelope = store.envelope(&key::<Bag>(1)).unwrap().unwrap();
        assert_eq!(envelope.payload(), more, "it is passed on with all fields");
        assert_eq!(netabase_store::schema::decode_payload::<Bag>(&more).unwrap(), bag);
    }
    for store in stores() {
        assert_eq!(admit::<Bag>(&store, &good), Ok(true));
    }
}

#[test]
fn what_is_not_the_encoding_of_its_value_is_refused() {
    let (version, id, numbers, names) =
        (b"\x01".as_slice(), b"\x01".as_slice(), b"\x02\x03\x80\x02".as_slice(), b"\x02\x01a\x01\x01b\x02");
    let good = payload(version, id, numbers, names);
    let bag = Bag {
        id: 1,
        numbers: BTreeSet::from([3, 256]),
        names: BTreeMap::from([("a".into(), 1), ("b".into(), 2)]),
    };
    assert_eq!(netabase_store::schema::decode_payload::<Bag>(&good).unwrap(), bag);
    let bad = [
        ("version", payload(b"\x81\x00", id, numbers, names)),
        ("number", payload(version, b"\x81\x80\x00", numbers, names)),
        ("length", payload(version, id, b"\x82\x00\x03\x80\x02", names)),
        ("element out of order", payload(version, id, b"\x02\x80\x02\x03", names)),
        ("element twice", payload(version, id, b"\x03\x03\x03\x80\x02", names)),
        ("entry out of order", payload(version, id, numbers, b"\x02\x01b\x02\x01a\x01")),
        ("entry twice", payload(version, id, numbers, b"\x03\x01a\x05\x01a\x01\x01b\x02")),
    ];
    for store in stores() {
        for (what, payload) in &bad {
            assert_eq!(admit::<Bag>(&store, payload), Err(Refusal::NotCanonical), "{what}");
        }
        // A later version is not read, and its number has one encoding all the same.
        assert_eq!(admit::<Bag>(&store, b"\x87\x00later"), Err(Refusal::NotCanonical));
        assert_eq!(admit::<Bag>(&store, b"\x01no value"), Err(Refusal::InvalidValue));
        assert_eq!(admit::<Bag>(&store, &good), Ok(true));
    }
}

#[test]
fn types_without_an_order_are_written_in_one() {
    let names: HashMap<_, _> = (0..32_u16).map(|n| (format!("name {n}"), n)).collect();
    let deepest = Inner { names: names.clone(), inner: Vec::new() };
    let inner = vec![Inner { names, inner: vec![deepest] }];
    let loose = Loose { id: 1, numbers: (0..64).collect(), inner };
    let written = EncodedRecord::of(&loose).unwrap().payload;
    // Another map of the same entries has another order in memory.
    assert_eq!(EncodedRecord::of(&loose.clone()).unwrap().payload, written);
    assert_eq!(netabase_store::schema::decode_payload::<Loose>(&written).unwrap(), loose);
    for store in stores() {
        assert_eq!(admit::<Loose>(&store, &written), Ok(true));
    }
    // Earlier programs wrote such types in the order of memory. A program with the types accepts
    // that, and no program accepts an element twice.
    let [typed, described] = stores();
    let unsorted = b"\x01\x01\x02\x04\x03\x00";
    assert_eq!(admit::<Loose>(&typed, unsorted), Ok(true));
    assert_eq!(admit::<Loose>(&described, unsorted), Err(Refusal::NotCanonical));
    for store in stores() {
        assert_eq!(admit::<Loose>(&store, b"\x01\x01\x02\x03\x03\x00"), Err(Refusal::NotCanonical));
    }
}

#[test]
fn what_is_stored_already_is_read_and_exported() {
    let place = Place::new(StorageBackend::Redb);
    let bag = Bag { id: 1, numbers: BTreeSet::from([3]), names: BTreeMap::new() };
    place.try_open::<BagDefinition>().unwrap().open_tree().unwrap().put(&bag).unwrap();
    tables::rewrite(&place, |tables| {
        let record = tables.get_mut(&("records/Bag".into(), 1_u32.to_key_bytes())).unwrap();
        *record = b"\x00\x01\x81\x00\x02\x83\x00\x03\x00".to_vec();
    });
    let store = place.try_open::<BagDefinition>().unwrap();
    assert_eq!(store.open_tree::<Bag>().unwrap().get(&BagPrimaryKey(1)).unwrap(), Some(bag));
    let mut lines = Vec::new();
    let report = store.export_json(&mut lines, ExportOptions::default()).unwrap();
    assert_eq!((report.records, report.left_out.len()), (1, 0));
    assert!(String::from_utf8(lines).unwrap().contains(r#""numbers":[3]"#));
}
