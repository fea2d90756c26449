//! Hostile payloads and JSON.

use std::fmt::Write;

use netabase_store::dynamic::{MAX_VALUE_DEPTH, MAX_VALUE_PARTS, Schema};
use netabase_store::schema::ModelCodec;
use netabase_store::{NetabaseModel, ValueError};
use proptest::prelude::*;

use super::models::*;
use super::{dynamic, schema};

fn codecs() -> Vec<&'static dyn ModelCodec> {
    schema().definition().models.iter().map(|model| model.codec).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_not(bytes: Vec<u8>, version in 1_u8..4) {
        for codec in codecs() {
            let payload = [&[version], bytes.as_slice()].concat();
            if let Ok(record) = codec.upgrade(&payload) {
                prop_assert_eq!(&codec.keys(&payload).unwrap(), &record.keys);
            }
            let _ = codec.to_json(&payload);
            let _ = codec.merge(&bytes, &[&payload, &bytes]);
            let _ = codec.contribution(&payload, Some(&bytes), &[&payload]);
        }
    }

    #[test]
    fn any_json_is_a_value_or_not(json in "[\\[\\]{},:\"a-e0-9.-]{0,60}") {
        for codec in codecs() {
            let _ = codec.from_json(1, &json);
        }
    }
}

fn single(ty: &str) -> &'static dyn ModelCodec {
    let text = format!(
        "name = \"Hostile\"\n[[models]]\nname = \"Model\"\nprimary_key = [\"id\"]\n\
         fields = [{{ name = \"id\", type = \"u8\" }}, {{ name = \"value\", type = \"{ty}\" }}]\n\
         [[types]]\nname = \"Node\"\nfields = [{{ name = \"next\", type = \"list<Node>\" }}]\n\
         [[types]]\nname = \"Blank\"\nfields = [{}]\n",
        (0..200)
            .map(|at| format!("{{ name = \"f{at}\", type = \"option<u8>\" }}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    Schema::from_toml(&text).unwrap().definition().models[0].codec
}

#[test]
fn claimed_lengths_reserve_nothing() {
    // A list of 2^63 items, of which there are none.
    let claimed = [&[1, 0][..], &[0xff; 8], &[0x7f]].concat();
    for ty in ["list<u64>", "bytes", "string", "set<string>", "map<u8, u8>", "list<Node>", "list<(u8, bool)>"]
    {
        assert!(matches!(single(ty).keys(&claimed), Err(ValueError::Decode(_))), "{ty}");
    }
}

#[test]
fn values_nest_no_deeper_than_is_said() {
    let codec = single("Node");
    let nested = |depth: usize| [&[1, 0][..], &vec![1; depth], &[0]].concat();
    assert!(codec.keys(&nested(MAX_VALUE_DEPTH / 2 - 1)).is_ok());
    assert!(codec.keys(&nested(1_000_000)).is_err());
    let json = |depth: usize| {
        format!("{{\"id\":0,\"value\":{}{{\"next\":[]}}{}}}", "{\"next\":[".repeat(depth), "]}".repeat(depth))
    };
    assert!(codec.from_json(1, &json(MAX_VALUE_DEPTH / 2 - 1)).is_ok());
    assert!(codec.from_json(1, &json(100_000)).is_err());
}

#[test]
fn types_are_read_and_written_no_deeper_than_a_stack_has_room_for() {
    let of_depth = |depth: usize| {
        let below = |inner, _| Node { children: vec![inner], ..Node::default() };
        let mut model = examples(parts(), 1).remove(0);
        *model.tree = (0..depth).fold(Node::default(), below);
        netabase_store::schema::EncodedRecord::of(&model).map(|record| record.payload)
    };
    let payload = of_depth(MAX_VALUE_DEPTH / 2 - 2).unwrap();
    assert!(Parts::SCHEMA.codec.keys(&payload).is_ok() && dynamic::<Parts>().codec.keys(&payload).is_ok());
    assert!(matches!(of_depth(MAX_VALUE_DEPTH), Err(ValueError::TooDeep { .. })));
    // Of what a peer sends, the tree has some thousand levels, and is cut off at the last one.
    let sized = |tag: u16, bytes: &[u8]| {
        let length = postcard::to_allocvec(&bytes.len()).unwrap();
        [&tag.to_be_bytes(), length.as_slice(), bytes].concat()
    };
    let tag = netabase_store::__private::tag;
    let tree = (0..4000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let item = [postcard::to_allocvec(&inner.len()).unwrap(), inner].concat();
        [sized(tag("children") | 3, &item), sized(tag("name") | 3, b"")].concat()
    });
    let begin = [tag("tree").to_be_bytes()[0], tag("tree").to_be_bytes()[1] | 4];
    let position = payload.windows(2).position(|bytes| bytes == begin).unwrap();
    let hostile = [&payload[..position], &sized(u16::from_be_bytes(begin), &tree)].concat();
    assert!(matches!(Parts::SCHEMA.codec.keys(&hostile), Err(ValueError::TooDeep { .. })));
    let error = dynamic::<Parts>().codec.keys(&hostile).unwrap_err();
    assert!(error.to_string().contains("nest"), "{error}");
}

#[test]
fn a_little_json_makes_no_large_value() {
    // Three bytes for a struct of 200 fields that are not there.
    let mut json = "{\"id\":0,\"value\":[{}".to_owned();
    for _ in 0..=MAX_VALUE_PARTS / 200 {
        write!(json, ",{{}}").unwrap();
    }
    json += "]}";
    let error = single("list<Blank>").from_json(1, &json).err().unwrap();
    assert!(error.to_string().contains("parts"), "{error}");
}
