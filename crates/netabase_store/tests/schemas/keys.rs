//! Keys as JSON and text, and questions made of them.

use std::ops::Bound;

use netabase_store::dynamic::{DynamicKeyError, IndexKind, Schema};
use netabase_store::schema::EncodedRecord;
use netabase_store::{KeyField, NetabaseModel, Query, prefix};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::{Value, json};

use super::models::*;
use super::schema;

/// Every key of a record comes back from its JSON and from its text.
fn come_back<M: NetabaseModel>(model: &M) -> TestCaseResult {
    let schema = schema();
    let described = schema.model(M::SCHEMA.name).unwrap();
    let keys = EncodedRecord::of(model).unwrap().keys;
    let json = described.primary_key_to_json(&keys.primary).unwrap();
    prop_assert_eq!(&described.primary_key_from_json(&json).unwrap(), &keys.primary);
    let text = described.primary_key_to_text(&keys.primary).unwrap();
    prop_assert_eq!(&described.primary_key_from_text(&text).unwrap(), &keys.primary);
    for (index, key) in keys.secondary.iter() {
        let name = M::SCHEMA.indexes[index].name;
        let json = described.index_key_to_json(name, key).unwrap();
        prop_assert_eq!(described.index_key_from_json(name, &json).unwrap(), key, "{}", json);
        let text = described.index_key_to_text(name, key).unwrap();
        prop_assert_eq!(described.index_key_from_text(name, &text).unwrap(), key, "{}", text);
        if let Value::Array(parts) = &json
            && described.index(name).unwrap().kind == IndexKind::Compound
        {
            for len in 1..=parts.len() {
                let leading = Value::Array(parts[..len].to_vec());
                let leading = described.index_prefix_from_json(name, &leading).unwrap();
                prop_assert!(key.starts_with(&leading));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn keys_of_simple_types_come_back(model in simple()) { come_back(&model)?; }
    #[test]
    fn keys_of_types_with_parts_come_back(model in parts()) { come_back(&model)?; }
    #[test]
    fn keys_of_owned_models_come_back(model in owned()) { come_back(&model)?; }
    #[test]
    fn keys_of_merged_models_come_back(model in merged()) { come_back(&model)?; }
    #[test]
    fn any_bytes_are_a_key_or_not(bytes: Vec<u8>, text: String) {
        let schema = schema();
        for model in schema.models() {
            for index in model.indexes() {
                if let Ok(json) = model.index_key_to_json(&index.name, &bytes) {
                    let _ = model.index_key_from_json(&index.name, &json);
                }
                let _ = model.index_key_from_text(&index.name, &text);
            }
            let _ = model.primary_key_to_text(&bytes);
            let _ = model.primary_key_from_text(&text);
        }
    }
}

#[test]
fn wide_and_unusual_numbers_are_text() {
    let schema = schema();
    let simple = schema.model("Simple").unwrap();
    let key = (u128::MAX, "a".to_owned()).to_key_bytes();
    let json = simple.primary_key_to_json(&key).unwrap();
    assert_eq!(json, json!(["340282366920938463463374607431768211455", "a"]));
    let nan = f64::NAN.to_key_bytes();
    assert_eq!(simple.index_key_to_text("double", &nan).unwrap(), "NaN");
    assert_eq!(simple.index_key_from_text("double", "NaN").unwrap(), nan);
    assert_eq!(simple.index_key_from_text("double", "-inf").unwrap(), f64::NEG_INFINITY.to_key_bytes());
    assert_eq!(simple.index_key_from_text("double", "1e3").unwrap(), 1000_f64.to_key_bytes());
    assert_eq!(simple.index_key_from_text("wide", "17").unwrap(), 17_u64.to_key_bytes());
}

#[test]
fn text_stands_for_itself_where_it_can() {
    let schema = schema();
    let (parts, owned) = (schema.model("made-of.parts").unwrap(), schema.model("Owned").unwrap());
    assert_eq!(
        parts.index_key_from_text("tags", "\"quoted\"").unwrap(),
        "\"quoted\"".to_owned().to_key_bytes()
    );
    assert_eq!(parts.index_key_from_text("colour", "Red").unwrap(), Colour::Red.to_key_bytes());
    assert_eq!(parts.index_key_from_text("colour", r#"{"Grey":7}"#).unwrap(), Colour::Grey(7).to_key_bytes());
    assert_eq!(parts.index_key_from_text("days", "[1,2]").unwrap(), Days(vec![1, 2]).to_key_bytes());
    let author = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let key = owned.primary_key_from_text(&format!("[\"{author}\",null]")).unwrap();
    assert_eq!(owned.primary_key_to_json(&key).unwrap(), json!([author, null]));
}

#[test]
fn wrong_keys_say_what_is_expected() {
    let schema = schema();
    let parts = schema.model("made-of.parts").unwrap();
    let error = parts.index_key_from_json("maybe", &json!("seven")).unwrap_err();
    assert!(error.to_string().starts_with("the key is `u32`, and this is not: "), "{error}");
    let error = parts.index_key_from_json("mixed", &json!(["Red"])).unwrap_err();
    assert!(error.to_string().contains("an array of `Colour`, `Days`, `option<u32>`"), "{error}");
    assert!(parts.index_key_from_json("mixed", &json!(["Red", [], null, ["", null], 1])).is_err());
    assert!(parts.index_prefix_from_json("mixed", &json!([])).is_err());
    let error = parts.index_key_from_text("street", "x").unwrap_err();
    assert_eq!(error.to_string(), "the model `made-of.parts` has no secondary key `street`");
    assert!(matches!(
        parts.index_prefix_from_json("maybe", &json!(7)),
        Err(DynamicKeyError::NoPrefix { .. })
    ));
    assert!(matches!(schema.query("Ape"), Err(DynamicKeyError::UnknownModel { .. })));
    assert!(matches!(parts.primary_key_to_json(&[1]), Err(DynamicKeyError::Bytes(_))));
}

#[test]
fn questions_are_those_of_types() {
    let schema: Schema = schema();
    let of = |model, index| schema.query(model).unwrap().index(index).unwrap();
    let (low, high) = (json!(5), json!(9));
    let bounds = (Bound::Included((&low).into()), Bound::Excluded((&high).into()));
    let query = of("Simple", "wide").range(bounds.0, bounds.1).unwrap().reverse(true).limit(Some(3));
    assert_eq!(query.raw(), Query::<Simple>::new().wide(5..9).reverse().limit(3).raw());

    let bounds = (Bound::Excluded("5".into()), Bound::Included("9".into()));
    let query = of("Simple", "wide").range(bounds.0, bounds.1).unwrap().raw();
    let both = Query::<Simple>::new().wide(6..=9).raw().span;
    assert_eq!((query.span.start.as_slice(), query.span.end), (&both.start[..], both.end));

    let query = of("made-of.parts", "tags").prefix("gen".into()).unwrap().raw();
    assert_eq!(query, Query::<Parts>::new().tags(prefix("gen")).raw());
    let query = of("made-of.parts", "tags").equal((&json!("a")).into()).unwrap().raw();
    assert_eq!(query, Query::<Parts>::new().tags("a").raw());
    let query = of("made-of.parts", "mixed").prefix("[\"Red\"]".into()).unwrap().raw();
    let typed = Query::<Parts>::new().mixed(netabase_store::starts_with((Colour::Red,))).raw();
    assert_eq!(query, typed);
    let query = schema.query("Merged").unwrap().equal("1".into()).unwrap().raw();
    assert_eq!(query, Query::<Merged>::new().id(1).raw());
}
