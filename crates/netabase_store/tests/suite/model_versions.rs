//! Records of earlier versions of a model.

use netabase_store::schema::{Encoded, EncodedRecord, decode_payload, payload_version};
use netabase_store::{
    ModelVersion, NetabaseDefinition, NetabaseModel, StorageBackend, ValueError, netabase_definition_module,
};
use serde::Serialize;

use crate::common::Place;

#[netabase_definition_module(NotesDefinition, NotesKeys, name = "notes")]
mod notes {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    /// The present version; versions 3 and 4 have never been.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition, version = 5, migrate_from = NoteV2)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) tags: Vec<String>,
        pub(crate) text: String,
    }

    /// The helper attribute may come before the derive.
    #[netabase(version = 2, migrate_from = NoteV1)]
    #[derive(NetabaseVersion, Serialize, Deserialize)]
    pub(crate) struct NoteV2 {
        pub(crate) id: u32,
        pub(crate) tags: String,
        pub(crate) text: String,
    }

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct NoteV1 {
        pub(crate) id: String,
        pub(crate) text: String,
    }

    impl TryFrom<NoteV1> for NoteV2 {
        type Error = std::num::ParseIntError;

        fn try_from(NoteV1 { id, text }: NoteV1) -> Result<Self, Self::Error> {
            Ok(Self { id: id.parse()?, tags: String::new(), text })
        }
    }

    impl From<NoteV2> for Note {
        fn from(NoteV2 { id, tags, text }: NoteV2) -> Self {
            Self { id: id.into(), tags: tags.split_whitespace().map(str::to_owned).collect(), text }
        }
    }

    /// A later version that knows no earlier one.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(NotesDefinition, version = 3)]
    pub(crate) struct Forgetful {
        #[primary_key]
        pub(crate) id: u8,
    }
}

/// The first program's definition of the same name.
#[netabase_definition_module(FirstDefinition, FirstKeys, name = "notes")]
mod first {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// The former model, now `NoteV2`.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(FirstDefinition, version = 2)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u64,
        pub(crate) tags: String,
        pub(crate) text: String,
    }
}

use notes::{Forgetful, Note, NotePrimaryKey, NoteTagsSecondaryKey, NoteV1, NoteV2, NotesDefinition};

fn payload(version: u32, value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(&(version, value)).unwrap()
}

fn first_note(id: &str) -> NoteV1 {
    NoteV1 { id: id.into(), text: "hello".into() }
}

fn second_note() -> NoteV2 {
    NoteV2 { id: 7, tags: "red green".into(), text: "hello".into() }
}

fn note(tags: &[&str]) -> Note {
    Note { id: 7, tags: tags.iter().map(ToString::to_string).collect(), text: "hello".into() }
}

#[test]
fn every_earlier_version_is_read() {
    assert_eq!(decode_payload::<Note>(&payload(1, &first_note("7"))).unwrap(), note(&[]));
    assert_eq!(decode_payload::<Note>(&payload(2, &second_note())).unwrap(), note(&["red", "green"]));
    assert_eq!(decode_payload::<Note>(&payload(5, &note(&["red"]))).unwrap(), note(&["red"]));
    let definition = NotesDefinition::decode("Note", &payload(1, &first_note("7"))).unwrap();
    assert_eq!(Note::try_from(definition).unwrap(), note(&[]));
}

#[test]
fn a_payload_begins_with_the_version_of_its_model() {
    let payload = EncodedRecord::of(&note(&["red"])).unwrap().payload;
    assert_eq!((payload_version(&payload).unwrap(), Note::SCHEMA.version, Note::VERSION), (5, 5, 5));
    assert_eq!((NoteV1::VERSION, NoteV2::VERSION), (1, 2));
    assert!(matches!(payload_version(&[]), Err(ValueError::Decode(_))));
}

#[test]
fn the_keys_of_an_earlier_version_are_those_it_has_now() {
    let keys = Note::SCHEMA.codec.keys(&payload(2, &second_note())).unwrap();
    assert_eq!(keys, EncodedRecord::of(&note(&["red", "green"])).unwrap().keys);
}

#[test]
fn json_of_every_version_is_read_and_written_as_the_present_one() {
    let codec = Note::SCHEMA.codec;
    let json = codec.to_json(&payload(2, &second_note())).unwrap();
    assert_eq!(json, r#"{"id":7,"tags":["red","green"],"text":"hello"}"#);
    let present = EncodedRecord::of(&note(&["red", "green"])).unwrap();
    for (version, json) in [(5, json.as_str()), (2, r#"{"id":7,"tags":"red green","text":"hello"}"#)] {
        let record = codec.from_json(version, json).unwrap();
        assert_eq!(
            (record.model.name, record.keys, record.payload),
            ("Note", present.keys.clone(), present.payload.clone())
        );
    }
    let first = codec.from_json(1, r#"{"id":"7","text":"hello"}"#).unwrap();
    assert_eq!(first.payload, EncodedRecord::of(&note(&[])).unwrap().payload);
}

#[test]
fn json_that_is_no_value_says_why() {
    let error = Note::SCHEMA.codec.from_json(5, r#"{"id":7}"#).unwrap_err();
    let ValueError::Json { message } = &error else { panic!("{error:?}") };
    assert!(message.starts_with("missing field `tags`"), "{message}");
    assert!(Note::SCHEMA.codec.from_json(5, r#"{"id":7,"tags":[],"text":""} more"#).is_err());
}

#[test]
fn a_conversion_that_fails_says_between_which_versions_and_why() {
    let error = decode_payload::<Note>(&payload(1, &first_note("seven"))).unwrap_err();
    let message = "invalid digit found in string".to_owned();
    assert_eq!(error, ValueError::Migration { from: 1, to: 2, message });
    let shown = error.to_string();
    assert_eq!(
        shown,
        "the value of model version 1 cannot be migrated to version 2: invalid digit found in string"
    );
}

#[test]
fn a_version_that_nobody_knows_is_refused() {
    for found in [0, 3, 4, 6, 8191] {
        let error = decode_payload::<Note>(&payload(found, &note(&[]))).unwrap_err();
        assert_eq!(error, ValueError::Version { found, known: 5 });
    }
    for found in [1, 2, 4] {
        let error = Forgetful::decode_version(found, Encoded::Postcard(&[1])).unwrap_err();
        assert_eq!(error, ValueError::Version { found, known: 3 });
    }
    assert_eq!(Forgetful::decode_version(3, Encoded::Json(r#"{"id":1}"#)).unwrap(), Forgetful { id: 1 });
}

#[test]
fn bytes_after_an_earlier_version_are_refused() {
    let payload = [payload(2, &second_note()), vec![0]].concat();
    assert_eq!(decode_payload::<Note>(&payload), Err(ValueError::TrailingBytes { extra: 1 }));
}

#[test]
fn a_database_of_an_earlier_version_is_read_and_indexed() {
    let place = Place::signed(StorageBackend::Redb);
    let store = place.try_open::<first::FirstDefinition>().unwrap();
    let earlier = first::Note { id: 7, tags: "red green".into(), text: "hello".into() };
    store.open_tree().unwrap().put(&earlier).unwrap();
    drop(store);
    let store = place.try_open::<NotesDefinition>().unwrap();
    let notes = store.open_tree::<Note>().unwrap();
    let note = note(&["red", "green"]);
    assert_eq!(notes.get(&NotePrimaryKey(7)).unwrap().as_ref(), Some(&note));
    assert_eq!(notes.find(NoteTagsSecondaryKey("green".into())).unwrap(), [note]);
}
