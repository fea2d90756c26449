//! One database, opened by programs whose models differ.
//!
//! Values have their fields under tags: what may change without a new version of the model is what
//! leaves former values readable. The database knows what it was written with, and refuses the
//! rest. Earlier programs wrote values by positions, and what leaves their bytes as they are may
//! change.

use netabase_store::dynamic::Schema;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Envelope, KeyField, NetabaseDefinition, NetabaseModel, NetabaseStore, OpenError, RecordKey, StoreError,
    StoreOptions, Timestamp, ValueError, WriteError, netabase_definition_module,
};

use crate::common::tables::{Tables, rewrite};
use crate::common::*;

on_every_backend! {
    records_of_earlier_versions_are_converted_when_they_are_read,
    a_record_that_cannot_be_converted_is_an_error_for_itself,
    an_earlier_program_keeps_the_records_of_a_later_one,
    a_later_version_from_a_peer_is_kept_for_a_later_program,
    a_peer_may_replace_a_later_version_by_an_earlier_one,
    a_field_may_be_renamed_with_its_former_name,
    a_shape_that_reads_no_values_is_refused,
    a_shape_that_reads_other_values_by_positions_is_refused,
    what_former_values_can_be_read_with_needs_no_new_version,
    what_a_program_does_not_know_is_kept,
    an_enum_may_have_more_variants,
    a_model_without_records_may_have_any_shape,
    a_version_without_a_conversion_is_refused_unless_it_is_to_be_left_unread,
    a_conversion_may_go_when_no_record_needs_it,
    a_schema_without_types_has_the_shape_of_its_types,
    an_index_whose_declaration_changed_is_built_again,
    a_database_of_format_1_is_brought_up_to_date,
    later_versions_in_a_database_of_format_1_are_not_overwritten,
    a_migration_that_was_interrupted_is_completed,
    a_migration_that_was_interrupted_is_completed_by_an_earlier_program,
    a_migration_from_format_1_that_was_interrupted_is_completed,
    a_database_of_a_later_format_is_refused,
}

/// The first version.
#[netabase_definition_module(FirstDefinition, FirstKeys, name = "NotesDefinition")]
mod first {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(FirstDefinition)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) title: String,
    }
}

/// The title has become a number of words, and there is an author to find notes by.
#[netabase_definition_module(SecondDefinition, SecondKeys, name = "NotesDefinition")]
mod second {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct NoteV1 {
        id: u64,
        title: String,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(SecondDefinition, version = 2, migrate_from = NoteV1)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) words: Vec<String>,
        #[secondary_key]
        pub(crate) author: Option<String>,
    }

    impl TryFrom<NoteV1> for Note {
        type Error = String;

        fn try_from(NoteV1 { id, title }: NoteV1) -> Result<Self, String> {
            if title.is_empty() {
                return Err("a note needs a title".to_owned());
            }
            Ok(Self { id, words: title.split(' ').map(Into::into).collect(), author: None })
        }
    }
}

/// Every note has an author, and words are not found any more.
#[netabase_definition_module(ThirdDefinition, ThirdKeys, name = "NotesDefinition")]
mod third {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct NoteV1 {
        id: u64,
        title: String,
    }

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 2, migrate_from = NoteV1)]
    pub(crate) struct NoteV2 {
        id: u64,
        words: Vec<String>,
        author: Option<String>,
    }

    impl TryFrom<NoteV1> for NoteV2 {
        type Error = String;

        fn try_from(NoteV1 { id, title }: NoteV1) -> Result<Self, String> {
            if title.is_empty() {
                return Err("a note needs a title".to_owned());
            }
            Ok(Self { id, words: title.split(' ').map(Into::into).collect(), author: None })
        }
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ThirdDefinition, version = 3, migrate_from = NoteV2)]
    #[secondary_key(name = "by", fields(author, id))]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u64,
        pub(crate) author: String,
        pub(crate) words: u64,
    }

    impl From<NoteV2> for Note {
        fn from(NoteV2 { id, words, author }: NoteV2) -> Self {
            let words = words.len().try_into().unwrap_or_default();
            Self { id, author: author.unwrap_or_else(|| "nobody".into()), words }
        }
    }
}

use first::FirstDefinition;
use second::SecondDefinition;
// The methods of queries.
use second::NoteQuery as _;
use tagged::ItemQuery as _;
use third::ThirdDefinition;

fn first(id: u64, title: &str) -> first::Note {
    first::Note { id, title: title.into() }
}

fn second(id: u64, words: &[&str], author: Option<&str>) -> second::Note {
    second::Note {
        id,
        words: words.iter().map(|word| (*word).into()).collect(),
        author: author.map(Into::into),
    }
}

fn third(id: u64, author: &str, words: u64) -> third::Note {
    third::Note { id, author: author.into(), words }
}

fn key(id: u64) -> RecordKey {
    RecordKey::new("NotesDefinition", "Note", &id.to_key_bytes()).unwrap()
}

/// Opens the database as another program; one in memory has only one program.
fn open<D: NetabaseDefinition>(place: &Place) -> NetabaseStore {
    place.try_open::<D>().unwrap()
}

fn put_all<D: NetabaseDefinition, M: NetabaseModel>(place: &Place, records: &[M]) {
    open::<D>(place).open_tree().unwrap().put_many(records).unwrap();
}

fn all<M: NetabaseModel>(store: &NetabaseStore) -> Vec<M> {
    store.open_tree().unwrap().iter().unwrap().collect::<Result<_, _>>().unwrap()
}

fn by_word(store: &NetabaseStore, word: &str) -> Vec<u64> {
    let tree = store.open_tree::<second::Note>().unwrap();
    tree.query().words(word).rows().unwrap().map(|note| note.unwrap().id).collect()
}

fn by_title(store: &NetabaseStore, title: &str) -> Vec<u64> {
    let tree = store.open_tree::<first::Note>().unwrap();
    tree.find(first::NoteTitleSecondaryKey(title.into())).unwrap().iter().map(|note| note.id).collect()
}

fn by_author(store: &NetabaseStore, author: &str) -> Vec<u64> {
    use third::NoteQuery;
    let tree = store.open_tree::<third::Note>().unwrap();
    tree.query().by((author, ..)).rows().unwrap().map(|note| note.unwrap().id).collect()
}

fn records_of_earlier_versions_are_converted_when_they_are_read(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    put_all::<FirstDefinition, _>(place, &[first(1, "a b"), first(2, "b"), first(3, "c")]);
    let envelope = open::<FirstDefinition>(place).envelope(&key(1)).unwrap();
    let store = open::<SecondDefinition>(place);
    assert_eq!(
        all::<second::Note>(&store),
        [second(1, &["a", "b"], None), second(2, &["b"], None), second(3, &["c"], None)]
    );
    assert_eq!((by_word(&store, "a"), by_word(&store, "b")), (vec![1], vec![1, 2]));
    assert_eq!(store.envelope(&key(1)).unwrap(), envelope, "what is on the disk is as it was signed");
    let notes = store.open_tree::<second::Note>().unwrap();
    let updated = notes.update(&second::NotePrimaryKey(2), |note| note.author = Some("ada".into())).unwrap();
    assert_eq!(updated, Some(second(2, &["b"], Some("ada"))));
    drop((store, notes));
    let store = open::<ThirdDefinition>(place);
    assert_eq!(
        all::<third::Note>(&store),
        [third(1, "nobody", 2), third(2, "ada", 1), third(3, "nobody", 1)]
    );
    assert_eq!((by_author(&store, "nobody"), by_author(&store, "ada")), (vec![1, 3], vec![2]));
    let notes = store.open_tree::<third::Note>().unwrap();
    assert!(notes.remove(&third::NotePrimaryKey(3)).unwrap());
    notes.put(&third(1, "ada", 5)).unwrap();
    assert_eq!((by_author(&store, "nobody"), by_author(&store, "ada")), (vec![], vec![1, 2]));
}

fn a_record_that_cannot_be_converted_is_an_error_for_itself(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    put_all::<FirstDefinition, _>(place, &[first(1, "a"), first(2, ""), first(3, "c")]);
    let store = open::<SecondDefinition>(place);
    let notes = store.open_tree::<second::Note>().unwrap();
    let error = notes.get(&second::NotePrimaryKey(2)).unwrap_err();
    let expected = ValueError::Migration { from: 1, to: 2, message: "a note needs a title".into() };
    assert!(matches!(&error, StoreError::Value(error) if *error == expected), "{error:?}");
    let rows: Vec<_> = notes.iter().unwrap().map(|row| row.map(|note| note.id).ok()).collect();
    assert_eq!(rows, [Some(1), None, Some(3)]);
    assert_eq!(notes.query().words(..).count().unwrap(), 2);
    assert_eq!((by_word(&store, "a"), by_word(&store, "c"), by_word(&store, "")), (vec![1], vec![3], vec![]));
    notes.put(&second(2, &["b"], None)).unwrap();
    assert_eq!((by_word(&store, "b"), all::<second::Note>(&store).len()), (vec![2], 3));
    drop((store, notes));
    assert_eq!(by_author(&open::<ThirdDefinition>(place), "nobody"), [1, 2, 3]);
}

/// Opens the database as a program of version 1, and checks that note 2 is one of version `newer`.
fn assert_kept(place: &Place, newer: u32, envelope: &Envelope) {
    let store = open::<FirstDefinition>(place);
    let notes = store.open_tree::<first::Note>().unwrap();
    let id = first::NotePrimaryKey(2);
    let error = notes.get(&id).unwrap_err();
    let version = ValueError::Version { found: newer, known: 1 };
    assert!(matches!(&error, StoreError::Value(found) if *found == version), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("the value has model version {newer}, this program knows version 1")
    );
    let mut rows = notes.iter().unwrap();
    assert_eq!(
        (rows.by_ref().map(Result::unwrap).collect::<Vec<_>>(), rows.skipped()),
        (vec![first(1, "a b")], 1)
    );
    let page = notes.query().page().unwrap();
    assert_eq!((page.records.len(), page.skipped, page.next), (1, 1, None));
    assert_eq!((by_title(&store, "a b"), by_title(&store, "b")), (vec![1], vec![]));
    let refused = |outcome: Result<(), StoreError>| {
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, StoreError::Write(WriteError::NewerRecord { key: found, found: version, known: 1 }) if *found == key(2) && *version == newer),
            "{error:?}"
        );
    };
    refused(notes.put(&first(2, "old")));
    refused(notes.put_many(&[first(5, "x"), first(2, "old")]));
    let mut transaction = store.begin_write();
    transaction.put(&first(6, "x")).unwrap();
    transaction.put(&first(2, "old")).unwrap();
    refused(transaction.commit());
    assert!(matches!(notes.insert(&first(2, "old")), Err(StoreError::Write(WriteError::Exists { .. }))));
    assert!(matches!(notes.update(&id, |_| ()), Err(StoreError::Value(_))));
    notes.put(&first(1, "a b")).unwrap();
    assert_eq!(all::<first::Note>(&store), [first(1, "a b")], "nothing of the others is left");
    assert_eq!(store.envelope(&key(2)).unwrap().as_ref(), Some(envelope));
    #[cfg(feature = "libp2p")]
    if store.author().is_some() {
        use libp2p::kad::store::RecordStore;
        let relayed = store.get(&libp2p::kad::RecordKey::new(&key(2).as_bytes())).unwrap();
        assert_eq!(relayed.value, envelope.as_bytes());
    }
}

fn an_earlier_program_keeps_the_records_of_a_later_one(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    put_all::<FirstDefinition, _>(place, &[first(1, "a b")]);
    put_all::<SecondDefinition, _>(place, &[second(2, &["b"], Some("ada"))]);
    let envelope = open::<SecondDefinition>(place).envelope(&key(2)).unwrap().unwrap();
    // Twice: the second time, the program finds nothing changed.
    (0..2).for_each(|_| assert_kept(place, 2, &envelope));
    let store = open::<SecondDefinition>(place);
    assert_eq!(all::<second::Note>(&store), [second(1, &["a", "b"], None), second(2, &["b"], Some("ada"))]);
    assert_eq!(by_word(&store, "b"), [1, 2]);
    drop(store);
    assert_eq!(by_author(&open::<ThirdDefinition>(place), "ada"), [2]);
    // And it may be deleted by a program that cannot read it.
    let store = open::<FirstDefinition>(place);
    assert!(store.open_tree::<first::Note>().unwrap().remove(&first::NotePrimaryKey(2)).unwrap());
    drop(store);
    let store = open::<ThirdDefinition>(place);
    assert_eq!((by_author(&store, "ada"), by_author(&store, "nobody")), (vec![], vec![1]));
}

/// Delivers a peer's version and waits until it is written.
fn deliver<M: NetabaseModel>(store: &NetabaseStore, place: &Place, id: u64, record: &M) -> Envelope {
    place.time.advance(std::time::Duration::from_millis(10));
    let payload = EncodedRecord::of(record).unwrap().payload;
    let timestamp = Timestamp::from_unix_millis(place.time.now() + 1_000);
    let envelope = Envelope::sign(&identity(9), &key(id), timestamp, 0, Some(&payload));
    assert_eq!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    envelope
}

fn a_later_version_from_a_peer_is_kept_for_a_later_program(place: &Place) {
    let store = open::<FirstDefinition>(place);
    store.open_tree().unwrap().put_many(&[first(1, "a b"), first(2, "b")]).unwrap();
    let envelope = deliver(&store, place, 2, &second(2, &["c"], Some("ada")));
    assert_eq!(store.envelope(&key(2)).unwrap(), Some(envelope.clone()));
    assert_eq!(by_title(&store, "b"), [0; 0], "the version before is not found any more");
    let error = store.open_tree().unwrap().put(&first(2, "old")).unwrap_err();
    assert!(
        matches!(error, StoreError::Write(WriteError::NewerRecord { found: 2, known: 1, .. })),
        "{error:?}"
    );
    drop(store);
    if place.is_on_disk() {
        (0..2).for_each(|_| assert_kept(place, 2, &envelope));
        assert_eq!(by_word(&open::<SecondDefinition>(place), "c"), [2]);
        assert_eq!(by_author(&open::<ThirdDefinition>(place), "ada"), [2]);
    }
}

fn a_peer_may_replace_a_later_version_by_an_earlier_one(place: &Place) {
    let store = open::<FirstDefinition>(place);
    deliver(&store, place, 2, &second(2, &["c"], None));
    deliver(&store, place, 2, &first(2, "d"));
    assert_eq!(by_title(&store, "d"), [2]);
    store.open_tree().unwrap().put(&first(2, "e")).unwrap();
    assert_eq!((by_title(&store, "d"), by_title(&store, "e")), (vec![], vec![2]));
}

/// The second version, with a conversion and without.
#[netabase_definition_module(GentleDefinition, GentleKeys, name = "ItemsDefinition")]
mod gentle {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(GentleDefinition, version = 2, migrate_from = ItemV1)]
    pub(crate) struct Item {
        #[primary_key]
        pub(crate) id: u64,
    }

    #[derive(NetabaseVersion, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct ItemV1 {
        id: u64,
        #[serde(rename = "left")]
        _left: String,
        #[serde(rename = "right")]
        _right: String,
    }

    impl From<ItemV1> for Item {
        fn from(former: ItemV1) -> Self {
            Self { id: former.id }
        }
    }
}

#[netabase_definition_module(AbruptDefinition, AbruptKeys, name = "ItemsDefinition")]
mod abrupt {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(AbruptDefinition, version = 2)]
    pub(crate) struct Item {
        #[primary_key]
        pub(crate) id: u64,
    }
}

/// The types of fields.
mod shapes {
    use netabase_store::FieldType;
    use serde::{Deserialize, Serialize};

    #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Name(pub(crate) String);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Undescribed(pub(crate) String);

    macro_rules! figure {
        ($name:ident { $($variants:tt)* }) => {
            #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub(crate) enum $name { $($variants)* }
        };
    }
    figure!(Figure { Point, Circle { x: u8, y: u8 }, Group(Vec<Self>) });
    figure!(Figures { Point, Circle { x: u8, y: u8 }, Group(Vec<Self>), Line(u8) });

    pub(crate) mod moved {
        use super::*;
        figure!(Figure { Circle { x: u8, y: u8 }, Point, Group(Vec<Self>) });
    }
    pub(crate) mod fewer {
        use super::*;
        figure!(Figure { Point, Circle { x: u8, y: u8 } });
    }
    pub(crate) mod inner {
        use super::*;
        figure!(Figure { Point, Circle { y: u8, x: u8 }, Group(Vec<Self>) });
    }
}

/// Definitions whose models differ in their fields, but not in their version.
macro_rules! items {
    ($($module:ident $definition:ident $keys:ident { $($fields:tt)* } $($attribute:meta)*;)*) => {$(
        #[netabase_definition_module($definition, $keys, name = "ItemsDefinition")]
        mod $module {
            use netabase_store::NetabaseModel;
            use serde::{Deserialize, Serialize};

            /// A key of another name than `Option`, which is encoded whole.
            #[allow(dead_code, reason = "not all modules use it")]
            pub(crate) type Maybe = Option<String>;

            #[allow(dead_code, reason = "not all modules use it")]
            fn nine() -> u8 {
                9
            }

            #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[netabase($definition)]
            $(#[$attribute])*
            pub(crate) struct Item { #[primary_key] pub(crate) id: u64, $($fields)* }
        }
    )*};
}
items! {
    plain PlainDefinition PlainKeys { #[secondary_key] pub(crate) left: String, pub(crate) right: String };
    renamed RenamedDefinition RenamedKeys {
        #[secondary_key] #[serde(alias = "left")] pub(crate) west: String, #[serde(alias = "right")] pub(crate) east: String
    };
    fresh FreshDefinition FreshKeys { #[secondary_key] pub(crate) west: String, pub(crate) right: String };
    grown GrownDefinition GrownKeys {
        #[serde(default)] pub(crate) count: u32,
        #[secondary_key] pub(crate) left: String,
        #[serde(default = "nine")] pub(crate) rank: u8,
        pub(crate) right: Option<String>,
    };
    swapped SwappedDefinition SwappedKeys { pub(crate) right: String, #[secondary_key] pub(crate) left: String };
    added AddedDefinition AddedKeys {
        #[secondary_key] pub(crate) left: String, pub(crate) right: String, pub(crate) more: Option<u8>
    };
    removed RemovedDefinition RemovedKeys { #[secondary_key] pub(crate) left: String };
    typed TypedDefinition TypedKeys { #[secondary_key] pub(crate) left: String, pub(crate) right: Vec<u8> };
    wrapped WrappedDefinition WrappedKeys { #[secondary_key] pub(crate) left: String, pub(crate) right: super::shapes::Name };
    unknown UnknownDefinition UnknownKeys {
        #[secondary_key] pub(crate) left: String, pub(crate) right: super::shapes::Undescribed
    };
    figures FiguresDefinition FiguresKeys { pub(crate) figures: Vec<super::shapes::Figure> };
    moved MovedDefinition MovedKeys { pub(crate) figures: Vec<super::shapes::moved::Figure> };
    fewer FewerDefinition FewerKeys { pub(crate) figures: Vec<super::shapes::fewer::Figure> };
    inner InnerDefinition InnerKeys { pub(crate) figures: Vec<super::shapes::inner::Figure> };
    more MoreDefinition MoreKeys { pub(crate) figures: Vec<super::shapes::Figures> };
    tagged TaggedDefinition TaggedKeys {
        #[secondary_key] pub(crate) tag: Option<String>, #[secondary_key] pub(crate) code: u8, pub(crate) weight: u8
    } secondary_key(name = "both", fields(code, weight));
    retagged RetaggedDefinition RetaggedKeys {
        #[secondary_key] pub(crate) tag: Maybe, #[secondary_key(unique)] pub(crate) code: u8, pub(crate) weight: u8
    } secondary_key(name = "both", fields(weight, code));
    whole WholeDefinition WholeKeys {
        #[secondary_key] pub(crate) left: String, pub(crate) right: String, pub(crate) count: u32, pub(crate) rank: u8
    } serde(default);
}

impl Default for whole::Item {
    fn default() -> Self {
        Self { id: 0, left: String::new(), right: String::new(), count: 5, rank: 6 }
    }
}

fn plain_items(place: &Place) {
    let item = |id, left: &str, right: &str| plain::Item { id, left: left.into(), right: right.into() };
    put_all::<plain::PlainDefinition, _>(place, &[item(1, "a", "b"), item(2, "c", "d")]);
}

fn a_field_may_be_renamed_with_its_former_name(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    plain_items(place);
    let store = open::<renamed::RenamedDefinition>(place);
    let items = store.open_tree::<renamed::Item>().unwrap();
    let item = |east: &str| renamed::Item { id: 1, west: "a".into(), east: east.into() };
    assert_eq!(items.find(renamed::ItemWestSecondaryKey("a".into())).unwrap(), [item("b")]);
    items.put(&item("e")).unwrap();
    assert_eq!(items.get(&renamed::ItemPrimaryKey(1)).unwrap(), Some(item("e")));
    drop((store, items));
    // It is stored under its first name, which programs from before know.
    let store = open::<plain::PlainDefinition>(place);
    let items = store.open_tree::<plain::Item>().unwrap();
    let item = plain::Item { id: 1, left: "a".into(), right: "e".into() };
    assert_eq!(items.find(plain::ItemLeftSecondaryKey("a".into())).unwrap(), [item]);
}

/// Opens the database with another definition, which is refused; returns why.
fn refused<D: NetabaseDefinition>(place: &Place) -> OpenError {
    match place.try_open::<D>() {
        Err(StoreError::Open(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_other_shape<D: NetabaseDefinition>(place: &Place, at: &str, was: Option<&str>, is: Option<&str>) {
    let error = refused::<D>(place);
    let OpenError::OtherShape { place: found_at, found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((found_at.as_str(), found.as_deref(), expected.as_deref()), (at, was, is), "{error}");
}

fn a_shape_that_reads_no_values_is_refused(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    plain_items(place);
    let right = Some("right: string");
    assert_other_shape::<typed::TypedDefinition>(place, "field `right`", right, Some("right: bytes"));
    assert_other_shape::<fresh::FreshDefinition>(place, "field `west`", None, Some("west: string"));
    assert_eq!(
        refused::<fresh::FreshDefinition>(place).to_string(),
        "the database has 2 records of the model `Item` in which field `west` is nothing, and in this program it is \
         `west: string`, under the same version 1, so they would not be read, or be taken for other values: put it back \
         as it was, let it be absent (an `Option`, or a default), or give the model a new version with a conversion from \
         the former one"
    );
    // Nothing was lost.
    let store = open::<plain::PlainDefinition>(place);
    let items = store.open_tree::<plain::Item>().unwrap();
    assert_eq!(items.get(&plain::ItemPrimaryKey(1)).unwrap().unwrap().right, "b");
    assert_eq!(items.find(plain::ItemLeftSecondaryKey("c".into())).unwrap().len(), 1);
}

/// Makes of the values and the shape of items what an earlier program would have written.
fn make_positions(place: &Place, shape: &str) {
    rewrite(place, |tables| {
        let version = [b"/Item\0".as_slice(), &1_u32.to_be_bytes()].concat();
        let key = |start: &str| ("meta".to_owned(), [start.as_bytes(), &version].concat());
        tables.remove(&key("fields")).unwrap();
        tables.insert(key("shape"), shape.as_bytes().to_vec());
        let records = tables.iter_mut().filter(|((table, _), _)| table == "records/Item");
        for (text, (_, record)) in ["a", "c"].iter().zip(records) {
            let payload = [&[1, 1, 1], text.as_bytes(), &[1, b'b']].concat();
            *record = Envelope::unsigned(&payload).as_bytes().to_vec();
        }
    });
}

fn a_shape_that_reads_other_values_by_positions_is_refused(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_some() {
        return;
    }
    plain_items(place);
    let fields = r#"[["id","u64"],["left","string"],["right","string"]]"#;
    make_positions(place, &format!(r#"{{"fields":{fields},"types":[]}}"#));
    let [left, right] = [Some("left: string"), Some("right: string")];
    assert_other_shape::<swapped::SwappedDefinition>(place, "field 2", left, right);
    assert_other_shape::<added::AddedDefinition>(place, "field 4", None, Some("more: option<u8>"));
    assert_other_shape::<removed::RemovedDefinition>(place, "field 3", right, None);
    assert_other_shape::<typed::TypedDefinition>(place, "field 3", right, Some("right: bytes"));
    let store = open::<plain::PlainDefinition>(place);
    let items = store.open_tree::<plain::Item>().unwrap();
    let read = items.get(&plain::ItemPrimaryKey(1)).unwrap().unwrap();
    assert_eq!((read.left.as_str(), read.right.as_str()), ("a", "b"));
    // Once all are written again, nothing is left of it.
    items.put_many(&[plain::Item { id: 1, ..read.clone() }, plain::Item { id: 2, ..read }]).unwrap();
    drop((store, items));
    let store = open::<swapped::SwappedDefinition>(place);
    let items = store.open_tree::<swapped::Item>().unwrap();
    let read = items.get(&swapped::ItemPrimaryKey(2)).unwrap().unwrap();
    assert_eq!((read.left.as_str(), read.right.as_str()), ("a", "b"));
}

fn what_former_values_can_be_read_with_needs_no_new_version(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    plain_items(place);
    let store = open::<wrapped::WrappedDefinition>(place);
    let items = store.open_tree::<wrapped::Item>().unwrap();
    let expected = wrapped::Item { id: 1, left: "a".into(), right: shapes::Name("b".into()) };
    assert_eq!(items.get(&wrapped::ItemPrimaryKey(1)).unwrap(), Some(expected));
    drop((store, items));
    let store = open::<unknown::UnknownDefinition>(place);
    let items = store.open_tree::<unknown::Item>().unwrap();
    assert_eq!(
        items.get(&unknown::ItemPrimaryKey(1)).unwrap().unwrap().right,
        shapes::Undescribed("b".into())
    );
    drop((store, items));
    let store = open::<swapped::SwappedDefinition>(place);
    let items = store.open_tree::<swapped::Item>().unwrap();
    let expected = swapped::Item { id: 1, right: "b".into(), left: "a".into() };
    assert_eq!(items.get(&swapped::ItemPrimaryKey(1)).unwrap(), Some(expected));
    drop((store, items));
    let store = open::<grown::GrownDefinition>(place);
    let items = store.open_tree::<grown::Item>().unwrap();
    let expected = grown::Item { id: 1, count: 0, left: "a".into(), rank: 9, right: Some("b".into()) };
    assert_eq!(items.get(&grown::ItemPrimaryKey(1)).unwrap(), Some(expected));
    drop((store, items));
    let store = open::<whole::WholeDefinition>(place);
    let items = store.open_tree::<whole::Item>().unwrap();
    let expected = whole::Item { id: 1, left: "a".into(), right: "b".into(), count: 5, rank: 6 };
    assert_eq!(items.get(&whole::ItemPrimaryKey(1)).unwrap(), Some(expected.clone()));
    drop((store, items));
    // A schema has the same defaults.
    let schema = Schema::from_toml(&Schema::of::<whole::WholeDefinition>().unwrap().to_toml()).unwrap();
    let store =
        NetabaseStore::open_with(place.path(), Some(schema.definition()), place.options.clone()).unwrap();
    let key = RecordKey::new("ItemsDefinition", "Item", &1_u64.to_key_bytes()).unwrap();
    let payload = store.envelope(&key).unwrap().unwrap().payload().to_vec();
    let json = schema.definition().model("Item").unwrap().codec.to_json(&payload).unwrap();
    assert_eq!(json, serde_json::to_string(&expected).unwrap());
}

fn what_a_program_does_not_know_is_kept(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let more = |id, more| added::Item { id, left: "a".into(), right: "b".into(), more };
    put_all::<added::AddedDefinition, _>(place, &[more(1, Some(7)), more(2, None)]);
    let store = open::<removed::RemovedDefinition>(place);
    let items = store.open_tree::<removed::Item>().unwrap();
    items.put(&removed::Item { id: 1, left: "c".into() }).unwrap();
    items.update(&removed::ItemPrimaryKey(2), |item| item.left = "d".into()).unwrap();
    items.put(&removed::Item { id: 3, left: "e".into() }).unwrap();
    assert_eq!(items.find(removed::ItemLeftSecondaryKey("c".into())).unwrap().len(), 1);
    drop((store, items));
    // A new record lacks what must be there.
    assert_other_shape::<added::AddedDefinition>(place, "field `right`", None, Some("right: string"));
    let store = open::<grown::GrownDefinition>(place);
    let items = store.open_tree::<grown::Item>().unwrap();
    let right = |id| items.get(&grown::ItemPrimaryKey(id)).unwrap().unwrap().right;
    assert_eq!([right(1), right(2), right(3)], [Some("b".into()), Some("b".into()), None]);
    drop((store, items));
    rewrite(place, |tables| {
        let lacks = |id: u64| {
            !tables[&("records/Item".into(), id.to_key_bytes())].windows(2).any(|at| at == more_tag())
        };
        assert_eq!([1, 2, 3].map(lacks), [false, true, true], "what was not known is as it was");
    });
}

/// The tag of the field `more`, whose value is a number.
fn more_tag() -> [u8; 2] {
    netabase_store::__private::tag("more").to_be_bytes()
}

fn an_enum_may_have_more_variants(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let item = figures::Item {
        id: 1,
        figures: vec![
            shapes::Figure::Circle { x: 1, y: 2 },
            shapes::Figure::Group(vec![shapes::Figure::Point]),
        ],
    };
    put_all::<figures::FiguresDefinition, _>(place, std::slice::from_ref(&item));
    assert_other_shape::<fewer::FewerDefinition>(place, "variant `Group` of `Figure`", Some("Group"), None);
    // Neither variants nor fields have a place.
    let store = open::<moved::MovedDefinition>(place);
    assert_eq!(all::<moved::Item>(&store).first().map(|item| item.figures.len()), Some(2));
    drop(store);
    let store = open::<inner::InnerDefinition>(place);
    let found = all::<inner::Item>(&store).remove(0).figures.remove(0);
    assert_eq!(found, shapes::inner::Figure::Circle { y: 2, x: 1 });
    drop(store);
    let store = open::<more::MoreDefinition>(place);
    let items = store.open_tree::<more::Item>().unwrap();
    assert_eq!(items.get(&more::ItemPrimaryKey(1)).unwrap().unwrap().figures.len(), 2);
    drop((store, items));
    // The shape with more variants is that of the database now.
    assert_other_shape::<figures::FiguresDefinition>(place, "variant `Line` of `Figure`", Some("Line"), None);
}

fn a_model_without_records_may_have_any_shape(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    drop(open::<plain::PlainDefinition>(place));
    drop(open::<typed::TypedDefinition>(place));
    let item = typed::Item { id: 1, left: "b".into(), right: vec![1] };
    put_all::<typed::TypedDefinition, _>(place, &[item]);
    assert!(matches!(refused::<plain::PlainDefinition>(place), OpenError::OtherShape { records: 1, .. }));
}

fn a_version_without_a_conversion_is_refused_unless_it_is_to_be_left_unread(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    plain_items(place);
    let error = refused::<abrupt::AbruptDefinition>(place);
    assert!(
        matches!(error, OpenError::NoConversion { model: "Item", found: 1, version: 2, records: 2 }),
        "{error:?}"
    );
    assert!(error.to_string().contains("`migrate_from`"), "{error}");
    let options = StoreOptions { keep_unread_versions: true, ..place.options.clone() };
    let schema = Some(abrupt::AbruptDefinition::SCHEMA);
    let store = NetabaseStore::open_with(place.path(), schema, options).unwrap();
    let items = store.open_tree::<abrupt::Item>().unwrap();
    items.put(&abrupt::Item { id: 3 }).unwrap();
    assert!(matches!(
        items.get(&abrupt::ItemPrimaryKey(1)),
        Err(StoreError::Value(ValueError::Version { found: 1, known: 2 }))
    ));
    drop((store, items));
    assert!(matches!(refused::<abrupt::AbruptDefinition>(place), OpenError::NoConversion { records: 2, .. }));
}

fn a_conversion_may_go_when_no_record_needs_it(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    plain_items(place);
    let store = open::<gentle::GentleDefinition>(place);
    assert!(store.migrate(|_| std::ops::ControlFlow::Continue(())).unwrap().complete);
    drop(store);
    let store = open::<abrupt::AbruptDefinition>(place);
    assert_eq!(store.open_tree::<abrupt::Item>().unwrap().len().unwrap(), 2);
}

fn a_schema_without_types_has_the_shape_of_its_types(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let item = figures::Item { id: 1, figures: vec![shapes::Figure::Point] };
    put_all::<figures::FiguresDefinition, _>(place, &[item]);
    let text = Schema::of::<figures::FiguresDefinition>().unwrap().to_toml();
    let open = |text: &str| {
        let schema = Schema::from_toml(text).unwrap().definition();
        NetabaseStore::open_with(place.path(), Some(schema), place.options.clone())
    };
    drop(open(&text).unwrap());
    let other = text.replace("u8", "i8");
    assert_ne!(other, text);
    let error = open(&other).unwrap_err();
    assert!(
        matches!(&error, StoreError::Open(OpenError::OtherShape { place, .. }) if place == "field `x` of `Figure::Circle`")
    );
    drop(open(&text.replace("u8", "u16")).unwrap());
}

fn an_index_whose_declaration_changed_is_built_again(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let item =
        |id, tag: Option<&str>, code, weight| tagged::Item { id, tag: tag.map(Into::into), code, weight };
    put_all::<tagged::TaggedDefinition, _>(
        place,
        &[item(1, Some("a"), 1, 9), item(2, None, 1, 2), item(3, None, 3, 3)],
    );
    for _ in 0..2 {
        let store = open::<tagged::TaggedDefinition>(place);
        let items = store.open_tree::<tagged::Item>().unwrap();
        let ids = |rows: netabase_store::Rows<_>| {
            rows.map(|row: Result<tagged::Item, _>| row.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(
            ids(items.query().tag(..).rows().unwrap()),
            [1],
            "an item without a tag is not found by tag"
        );
        assert_eq!(ids(items.query().both(..).rows().unwrap()), [2, 1, 3]);
        items.put(&item(3, None, 3, 3)).unwrap();
        drop((store, items));
        let store = open::<retagged::RetaggedDefinition>(place);
        let items = store.open_tree::<retagged::Item>().unwrap();
        let ids = |rows: netabase_store::Rows<_>| {
            rows.map(|row: Result<retagged::Item, _>| row.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(ids(retagged::ItemQuery::tag(items.query(), None).rows().unwrap()), [2, 3]);
        assert_eq!(ids(retagged::ItemQuery::both(items.query(), ..).rows().unwrap()), [2, 3, 1]);
        assert_eq!(
            items.find(retagged::ItemCodeSecondaryKey(1)).unwrap().len(),
            2,
            "what is double is still found"
        );
        let double = retagged::Item { id: 4, tag: None, code: 3, weight: 0 };
        assert!(matches!(
            items.put(&double),
            Err(StoreError::Write(WriteError::NotUnique { index: "code", .. }))
        ));
    }
}

fn meta(key: &str) -> (String, Vec<u8>) {
    ("meta".to_owned(), key.as_bytes().to_vec())
}

/// Makes of the tables of a shop what a program of format 1 would have written.
fn make_format_1(tables: &mut Tables) {
    tables.insert(meta("format"), 1_u32.to_be_bytes().to_vec());
    let later = ["history", "positions", "buried", "authors"];
    tables.retain(|(name, _), _| !later.contains(&name.as_str()));
    for (model, indexes) in [("Customer", &b"name\0city\0"[..]), ("Order", b"customer\0"), ("Visit", b"")] {
        tables.insert(meta(&format!("model/{model}")), [&[0, 0, 0, 1], indexes].concat());
    }
    let before = std::mem::take(tables);
    for ((name, key), value) in before {
        match name.as_str() {
            "index/Customer/city" => drop(tables.insert((name, [&[1][..], &key].concat()), Vec::new())),
            name if name.starts_with("index/") => drop(tables.insert((name.to_owned(), key), Vec::new())),
            "records/Customer" => {
                if !tables
                    .keys()
                    .any(|(table, entry)| table == "index/Customer/city" && entry.ends_with(&key))
                {
                    tables.insert(("index/Customer/city".into(), [&[0][..], &key].concat()), Vec::new());
                }
                tables.insert((name, key), value);
            }
            _ => drop(tables.insert((name, key), value)),
        }
    }
}

fn a_shop(place: &Place) {
    let store = place.open();
    let in_city = |id, city: &str| Customer { city: Some(city.into()), ..customer(id, "Ada") };
    store
        .open_tree()
        .unwrap()
        .put_many(&[in_city(1, "Paris"), customer(2, "Bob"), in_city(3, "Rome")])
        .unwrap();
    store.open_tree().unwrap().put_many(&[order(1, 3), order(2, 3)]).unwrap();
    store.open_tree().unwrap().put(&visit("home", 1)).unwrap();
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(3)).unwrap();
}

fn assert_shop(store: &NetabaseStore) {
    let customers = store.open_tree::<Customer>().unwrap();
    let ids = |found: Vec<Customer>| found.iter().map(|customer| customer.id).collect::<Vec<_>>();
    assert_eq!(ids(all(store)), [1, 2]);
    assert_eq!(ids(customers.query().city(..).page().unwrap().records), [1]);
    assert_eq!(ids(customers.find(CustomerCitySecondaryKey("Paris".into())).unwrap()), [1]);
    assert_eq!(ids(customers.query().name(..).page().unwrap().records), [1, 2]);
    let counts = [customers.query().city(..).count(), customers.query().name(..).count()];
    assert_eq!(counts.map(Result::unwrap), [1, 2]);
    let orders = store.open_tree::<Order>().unwrap();
    assert_eq!(orders.find(OrderCustomerSecondaryKey(3)).unwrap(), [order(1, 3), order(2, 3)]);
    assert_eq!(all::<Visit>(store), [visit("home", 1)]);
}

fn a_database_of_format_1_is_brought_up_to_date(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    a_shop(place);
    rewrite(place, |tables| {
        make_format_1(tables);
        assert_eq!(tables.keys().filter(|(name, _)| name == "index/Customer/city").count(), 2);
    });
    let store = place.open();
    assert_shop(&store);
    let mut changes = store.changes(netabase_store::WatchFrom::Oldest).unwrap();
    store.open_tree().unwrap().put(&visit("home", 1)).unwrap();
    assert_eq!(changes.try_next().unwrap().unwrap().sequence, 1);
    drop(store);
    rewrite(place, |tables| assert_eq!(tables[&meta("format")], 5_u32.to_be_bytes()));
    assert_shop(&place.open());
}

fn later_versions_in_a_database_of_format_1_are_not_overwritten(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    a_shop(place);
    // A model without indexes is described alike in both formats.
    rewrite(place, |tables| {
        make_format_1(tables);
        let payload = EncodedRecord::of(&visit("home", 1)).unwrap().payload;
        let later = [&[0, 0x82], &payload[1..]].concat();
        let key = VisitPrimaryKey("home".into(), 1).to_key_bytes();
        *tables.get_mut(&("records/Visit".into(), key)).unwrap() = later;
    });
    let store = place.open();
    let error = store.open_tree().unwrap().put(&visit("home", 1)).unwrap_err();
    assert!(
        matches!(error, StoreError::Write(WriteError::NewerRecord { found: 2, known: 1, .. })),
        "{error:?}"
    );
}

/// Leaves the tables as an interrupted migration does: some entries are missing, some are left
/// over.
fn interrupt(tables: &mut Tables, model: &str, indexes: &[&str]) {
    let mut mark = vec![0; 4];
    for index in indexes {
        mark.extend([index.as_bytes(), &[0, 0, 0]].concat());
    }
    tables.insert(meta(&format!("model/{model}")), mark);
    for index in indexes {
        let table = format!("index/{model}/{index}");
        let mut number = 0;
        tables.retain(|(name, _), _| {
            number += u32::from(*name == table);
            *name != table || number % 2 == 0
        });
        // The beginning of a longer key: to be read, it would have to be cleared first.
        tables.insert((table.clone(), b"left\0over".to_vec()), vec![0, 5]);
        tables.insert((table, b"damaged".to_vec()), Vec::new());
    }
}

fn interrupted_notes(place: &Place) {
    put_all::<FirstDefinition, _>(place, &[first(1, "a b"), first(3, "c"), first(4, "d"), first(5, "e")]);
    put_all::<SecondDefinition, _>(place, &[second(2, &["b"], Some("ada"))]);
    rewrite(place, |tables| {
        interrupt(tables, "Note", &["author", "title", "words"]);
        // A model that comes or goes moves its records; this one was half way.
        let (table, prefix) = ("records/Note".to_owned(), key(3));
        let moved = tables.remove(&(table, prefix.primary_key().to_vec())).unwrap();
        tables.insert(("foreign".into(), prefix.as_bytes().to_vec()), moved);
    });
}

fn a_migration_that_was_interrupted_is_completed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    interrupted_notes(place);
    let store = open::<SecondDefinition>(place);
    assert_eq!(all::<second::Note>(&store).len(), 5);
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(|word| by_word(&store, word)),
        [vec![1], vec![1, 2], vec![3], vec![4], vec![5]]
    );
    let notes = store.open_tree::<second::Note>().unwrap();
    assert_eq!(notes.query().words(..).count().unwrap(), 6);
    assert_eq!(notes.query().author(..).page().unwrap().records, [second(2, &["b"], Some("ada"))]);
}

fn a_migration_that_was_interrupted_is_completed_by_an_earlier_program(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    interrupted_notes(place);
    let store = open::<FirstDefinition>(place);
    assert_eq!(all::<first::Note>(&store), [first(1, "a b"), first(3, "c"), first(4, "d"), first(5, "e")]);
    assert_eq!(["a b", "b", "c"].map(|title| by_title(&store, title)), [vec![1], vec![], vec![3]]);
    let error = store.open_tree().unwrap().put(&first(2, "old")).unwrap_err();
    assert!(
        matches!(error, StoreError::Write(WriteError::NewerRecord { found: 2, known: 1, .. })),
        "{error:?}"
    );
    drop(store);
    rewrite(place, |tables| {
        let left =
            tables.keys().filter(|(name, _)| name == "index/Note/author" || name == "index/Note/words");
        assert_eq!(left.count(), 0, "what the earlier program does not know is gone");
    });
    let store = open::<SecondDefinition>(place);
    assert_eq!(by_word(&store, "b"), [1, 2]);
    let notes = store.open_tree::<second::Note>().unwrap();
    assert_eq!((notes.query().words(..).count().unwrap(), notes.query().author(..).count().unwrap()), (6, 1));
}

fn a_migration_from_format_1_that_was_interrupted_is_completed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    for unfinished in [true, false] {
        let place = place.elsewhere();
        a_shop(&place);
        let mut finished = Vec::new();
        rewrite(&place, |tables| finished.clone_from(&tables[&meta("model/Customer")]));
        rewrite(&place, |tables| {
            let new: Vec<_> = tables
                .clone()
                .into_iter()
                .filter(|((name, _), _)| name.starts_with("index/Customer"))
                .collect();
            make_format_1(tables);
            // The first model was done, or half done, when the program ended.
            tables.retain(|(name, _), _| !name.starts_with("index/Customer"));
            tables.extend(new);
            tables.insert(meta("model/Customer"), finished.clone());
            if unfinished {
                interrupt(tables, "Customer", &["city", "name"]);
            }
        });
        assert_shop(&place.open());
        rewrite(&place, |tables| assert_eq!(tables[&meta("model/Customer")], finished));
        assert_shop(&place.open());
    }
}

fn a_database_of_a_later_format_is_refused(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    a_shop(place);
    let mut before = Tables::new();
    rewrite(place, |tables| {
        tables.insert(meta("format"), 7_u32.to_be_bytes().to_vec());
        before.clone_from(tables);
    });
    let error = place.try_open::<ShopDefinition>().unwrap_err();
    assert!(matches!(error, StoreError::Open(OpenError::UnknownFormat { found: 7, known: 5 })), "{error:?}");
    assert!(error.to_string().contains("use a newer program"), "{error}");
    rewrite(place, |tables| assert_eq!(*tables, before));
}
