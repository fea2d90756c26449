//! Properties: both codecs make the same of every value, and of everything that is none.

use netabase_store::dynamic::Schema;
use netabase_store::schema::{EncodedRecord, ModelSchema};
use netabase_store::{NetabaseModel, ValueError};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::dynamic;
use super::models::*;

/// Returns what an encoded record is made of, or that there is none.
fn outcome(
    result: Result<EncodedRecord, ValueError>,
) -> Option<(netabase_store::schema::RecordKeys, Vec<u8>)> {
    result.ok().map(|record| (record.keys, record.payload))
}

fn same_description(typed: &ModelSchema, dynamic: &ModelSchema) {
    assert_eq!(
        (typed.name, typed.version, typed.policy, typed.lifetime, typed.merge, typed.blobs),
        (dynamic.name, dynamic.version, dynamic.policy, dynamic.lifetime, dynamic.merge, dynamic.blobs)
    );
    assert_eq!((typed.indexes, typed.primary_key), (dynamic.indexes, dynamic.primary_key));
    let names = |model: &ModelSchema| model.fields.iter().map(|field| field.name).collect::<Vec<_>>();
    assert_eq!(names(typed), names(dynamic));
}

#[test]
fn the_described_models_are_those_of_the_types() {
    same_description(Simple::SCHEMA, dynamic::<Simple>());
    same_description(Parts::SCHEMA, dynamic::<Parts>());
    same_description(Owned::SCHEMA, dynamic::<Owned>());
    same_description(Merged::SCHEMA, dynamic::<Merged>());
}

fn agree<M: NetabaseModel>(model: &M) -> TestCaseResult {
    let (typed, dynamic) = (M::SCHEMA.codec, dynamic::<M>().codec);
    let record = EncodedRecord::of(model).unwrap();
    prop_assert_eq!(&dynamic.keys(&record.payload).unwrap(), &record.keys);
    let upgraded = dynamic.upgrade(&record.payload).unwrap();
    prop_assert_eq!((&upgraded.payload, &upgraded.keys), (&record.payload, &record.keys));
    let json = typed.to_json(&record.payload).unwrap();
    prop_assert_eq!(&dynamic.to_json(&record.payload).unwrap(), &json);
    let again = dynamic.from_json(M::SCHEMA.version, &json).unwrap();
    prop_assert_eq!((again.payload, again.keys), (record.payload, record.keys));
    Ok(())
}

/// Cuts, flips and repeats bytes.
fn damage(bytes: &[u8], at: prop::sample::Index, how: u8) -> Vec<u8> {
    let at = at.index(bytes.len());
    let mut damaged = bytes.to_vec();
    match how % 4 {
        0 => damaged.truncate(at),
        1 => damaged[at] ^= how,
        2 => damaged.insert(at, how),
        _ => drop(damaged.remove(at)),
    }
    damaged
}

fn agree_on_damage<M: NetabaseModel>(model: &M, at: prop::sample::Index, how: u8) -> TestCaseResult {
    let (typed, dynamic) = (M::SCHEMA.codec, dynamic::<M>().codec);
    let payload = EncodedRecord::of(model).unwrap().payload;
    let damaged = damage(&payload, at, how);
    prop_assert_eq!(outcome(typed.upgrade(&damaged)), outcome(dynamic.upgrade(&damaged)));
    prop_assert_eq!(typed.keys(&damaged).ok(), dynamic.keys(&damaged).ok());
    let json = damage(typed.to_json(&payload).unwrap().as_bytes(), at, how);
    let Ok(json) = String::from_utf8(json) else { return Ok(()) };
    let version = M::SCHEMA.version;
    let dynamic = dynamic.from_json(version, &json);
    // Rust types ignore an unknown field, which is refused here: its name may be a mistake.
    if !matches!(&dynamic, Err(ValueError::Json { message }) if message.contains("unknown field")) {
        prop_assert_eq!(outcome(typed.from_json(version, &json)), outcome(dynamic), "{}", json);
    }
    Ok(())
}

fn merge_alike(contributions: &[Merged], wanted: &Merged, own: Option<&Merged>) -> TestCaseResult {
    let (typed, dynamic) = (Merged::SCHEMA.codec, dynamic::<Merged>().codec);
    let payload = |model: &Merged| EncodedRecord::of(model).unwrap().payload;
    let mut payloads: Vec<_> = contributions.iter().map(payload).collect();
    // A payload of an unknown version.
    payloads.push(vec![9, 1]);
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    for primary in [[0], [1]] {
        let merged = [typed, dynamic].map(|codec| codec.merge(&primary, &payloads).unwrap());
        let [typed, dynamic] = merged.map(|record| record.map(|record| (record.keys, record.payload)));
        prop_assert_eq!(typed, dynamic);
    }
    let (wanted, own) = (payload(wanted), own.map(payload));
    let own = own.as_deref();
    prop_assert_eq!(
        outcome(typed.contribution(&wanted, own, &payloads)),
        outcome(dynamic.contribution(&wanted, own, &payloads))
    );
    Ok(())
}

proptest! {
    #[test]
    fn simple_types(model in simple()) { agree(&model)?; }
    #[test]
    fn types_with_parts(model in parts()) { agree(&model)?; }
    #[test]
    fn owned_models_and_blobs(model in owned()) { agree(&model)?; }
    #[test]
    fn merged_models(model in merged()) { agree(&model)?; }
    #[test]
    fn merges(
        contributions in prop::collection::vec(merged(), 0..5),
        wanted in merged(),
        own in prop::option::of(merged()),
    ) {
        merge_alike(&contributions, &wanted, own.as_ref())?;
    }
    #[test]
    fn damaged_simple_types(model in simple(), at: prop::sample::Index, how: u8) {
        agree_on_damage(&model, at, how)?;
    }
    #[test]
    fn damaged_types_with_parts(model in parts(), at: prop::sample::Index, how: u8) {
        agree_on_damage(&model, at, how)?;
    }
    #[test]
    fn damaged_owned_models(model in owned(), at: prop::sample::Index, how: u8) {
        agree_on_damage(&model, at, how)?;
    }
}

#[test]
fn floats_that_json_does_not_have_are_refused_alike() {
    let mut model = examples(simple(), 1).remove(0);
    for float in [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE, f64::MAX] {
        model.double = float;
        let record = EncodedRecord::of(&model).unwrap();
        let dynamic = dynamic::<Simple>();
        assert_eq!(dynamic.codec.keys(&record.payload).unwrap(), record.keys);
        let json = Simple::SCHEMA.codec.to_json(&record.payload).unwrap();
        assert_eq!(dynamic.codec.to_json(&record.payload).unwrap(), json);
        let (typed, dynamic) = (Simple::SCHEMA.codec.from_json(3, &json), dynamic.codec.from_json(3, &json));
        assert_eq!(outcome(typed), outcome(dynamic));
    }
}

#[test]
fn maps_whose_keys_are_no_text_are_refused_alike() {
    let mut model = examples(parts(), 1).remove(0);
    model.by_colour.insert((1, "one".into()), Colour::Grey(7));
    let payload = EncodedRecord::of(&model).unwrap().payload;
    assert_eq!(dynamic::<Parts>().codec.upgrade(&payload).unwrap().payload, payload);
    let json = [Parts::SCHEMA, dynamic::<Parts>()].map(|model| model.codec.to_json(&payload).unwrap_err());
    assert_eq!(json[0], json[1]);
}

#[test]
fn values_of_other_versions_are_refused() {
    let codec = dynamic::<Simple>().codec;
    for (found, payload) in [(1, &[1][..]), (4, &[4, 0]), (300, &[0xac, 2])] {
        assert_eq!(codec.keys(payload), Err(ValueError::Version { found, known: 3 }));
        if found > 3 {
            assert_eq!(codec.from_json(found, "{}").unwrap_err(), ValueError::Version { found, known: 3 });
        }
    }
}

#[test]
fn the_json_of_an_earlier_version_is_read_where_nothing_is_missing() {
    let codec = |more: &str| {
        let text = format!(
            r#"
            name = "Chat"
            [[models]]
            name = "Message"
            version = 2
            primary_key = ["id"]
            fields = [{{ name = "id", type = "u64" }}, {{ name = "text", type = "string" }}, {more}]
            "#
        );
        Schema::from_toml(&text).unwrap().definition().model("Message").unwrap().codec
    };
    let earlier = r#"{"id":7,"text":"hello"}"#;
    let record = codec(r#"{ name = "room", type = "option<string>" }"#).from_json(1, earlier).unwrap();
    // Two fields: the option is absent.
    assert_eq!(record.payload, b"\x82\x40\x9e\xc3\x05hello\xee\xc0\x07");
    let likes = codec(r#"{ name = "likes", type = "u8", default = 3 }"#).from_json(1, earlier).unwrap();
    assert_eq!(likes.payload, b"\x82\x40\x5b\xa0\x03\x9e\xc3\x05hello\xee\xc0\x07");
    let error = codec(r#"{ name = "room", type = "string" }"#).from_json(1, earlier).unwrap_err();
    assert!(error.to_string().contains("missing field `room`"), "{error}");
}

#[test]
fn unknown_fields_are_refused() {
    let json = r#"{"id":1,"title":"","highest":[1,""],"lowest":null,"small":1,"votes":1,"tags":[],"more":1}"#;
    let error = dynamic::<Merged>().codec.from_json(1, json).unwrap_err();
    assert!(error.to_string().contains("unknown field `more`"), "{error}");
}
