//! The code that the macros generate, from a user's view.
#![deny(missing_docs)]

use std::collections::{BTreeSet, HashMap, HashSet};

use netabase_store::{
    KeyError, KeyField, NetabaseDefinition, NetabaseKey, NetabaseModel, PrimaryKey, SecondaryKey,
    SecondaryKeys, ValueError, netabase_definition_module,
};

/// Everything in one definition: compound keys, raw identifiers, visibilities, generic fields.
#[netabase_definition_module(LibraryDefinition, LibraryKeys)]
pub mod library {
    use std::collections::HashMap;

    use netabase_store::NetabaseModel;
    // The macros find the derive under any path.
    use netabase_store as db;
    use serde::{Deserialize, Serialize};

    /// A book: several secondary keys.
    #[derive(Clone, Debug, PartialEq, NetabaseModel, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    pub struct Book {
        /// Its number.
        #[primary_key]
        pub isbn: u64,
        /// Its writer.
        #[secondary_key]
        pub author: String,
        /// Its genre.
        #[secondary_key]
        pub r#type: Genre,
        /// When it appeared.
        #[secondary_key]
        pub first_published: Option<i32>,
        /// Everything else, nested and generic.
        #[serde(default)]
        pub details: HashMap<String, Vec<Shelf<Option<u32>>>>,
    }

    /// A page: a compound key, no secondary keys, its own name, the helper before the derive.
    #[netabase(LibraryDefinition, name = "page")]
    #[derive(db::NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Page {
        /// The text.
        pub text: String,
        /// The book.
        #[primary_key]
        pub book: u64,
        /// The language.
        pub language: String,
        /// The number, which comes second in the key.
        #[primary_key]
        pub number: i16,
    }

    /// Raw identifiers, seen by this crate alone.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    #[allow(non_camel_case_types, reason = "the raw identifier is the point")]
    pub(crate) struct r#try {
        #[primary_key]
        pub(crate) r#fn: String,
        #[secondary_key]
        pub(crate) r#in: f64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    struct Loan {
        #[primary_key]
        id: LoanId,
    }

    #[derive(db::NetabaseKey, Clone, Debug, Serialize, Deserialize)]
    struct LoanId([u8; 4]);

    /// An enum as a key.
    #[derive(db::NetabaseKey, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Genre {
        /// Invented.
        Fiction,
        /// True.
        Science(String),
    }

    /// A generic type in a field.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Shelf<T> {
        /// Whatever.
        pub value: T,
    }

    #[cfg(any())]
    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(LibraryDefinition)]
    pub struct Missing {
        #[primary_key]
        pub id: u8,
    }

    /// Not a model.
    pub const SHELVES: u32 = 3;

    /// Not a model either.
    pub fn loan(id: [u8; 4]) -> LibraryDefinition {
        Loan { id: LoanId(id) }.into()
    }

    pub use self::inner::one;

    mod inner {
        /// Returns one.
        pub fn one() -> u32 {
            1
        }
    }
}

use library::{
    Book, BookAuthorSecondaryKey, BookFirstPublishedSecondaryKey, BookKey, BookPrimaryKey, BookSecondaryKeys,
    BookTypeSecondaryKey, Genre, LibraryDefinition, LibraryKeys, Page, PageKey, PagePrimaryKey,
    PageSecondaryKeys, Shelf, tryInSecondaryKey, tryPrimaryKey,
};

/// A definition with a name of its own.
#[netabase_definition_module(RenamedDefinition, RenamedKeys, name = "renamed-1.0")]
mod renamed {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(RenamedDefinition)]
    pub(super) struct Only {
        #[primary_key]
        pub(super) id: char,
    }
}

fn book() -> Book {
    Book {
        isbn: 7,
        author: "Ada".into(),
        r#type: Genre::Science("maths".into()),
        first_published: Some(-3),
        details: HashMap::from([("hall".into(), vec![Shelf { value: Some(1) }, Shelf { value: None }])]),
    }
}

fn page(book: u64, number: i16) -> Page {
    Page { text: "text".into(), book, language: "en".into(), number }
}

fn hash_set_of<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> HashSet<T> {
    items.into_iter().collect()
}

#[test]
fn a_record_comes_back_from_its_encoding() {
    let definition = LibraryDefinition::from(book());
    let encoded = definition.encode().unwrap();
    assert_eq!(encoded.model.name, "Book");
    let decoded = LibraryDefinition::decode("Book", &encoded.payload).unwrap();
    assert_eq!(Book::try_from(decoded).unwrap(), book());
}

#[test]
fn a_definition_refuses_models_that_it_does_not_know() {
    let error = LibraryDefinition::decode("Page", &[]).unwrap_err();
    assert_eq!(error, ValueError::UnknownModel { name: "Page".into() }, "the model is called `page`");
}

#[test]
fn a_definition_of_another_model_gives_itself_back() {
    let definition = Page::try_from(LibraryDefinition::from(book())).unwrap_err();
    assert_eq!(Book::try_from(definition).unwrap(), book());
}

#[test]
fn the_schema_names_models_and_indexes_in_the_order_of_declaration() {
    let schema = LibraryDefinition::SCHEMA;
    assert_eq!(schema.name, "LibraryDefinition");
    let models: Vec<_> = schema.models.iter().map(|model| (model.name, model.version)).collect();
    assert_eq!(models, [("Book", 1), ("page", 1), ("try", 1), ("Loan", 1)]);
    let indexes: Vec<_> = Book::SCHEMA.indexes.iter().map(|index| index.name).collect();
    assert_eq!(indexes, ["author", "type", "first_published"]);
    assert!(Page::SCHEMA.indexes.is_empty());
}

#[test]
fn a_definition_can_have_a_name_of_its_own() {
    assert_eq!(renamed::RenamedDefinition::SCHEMA.name, "renamed-1.0");
    let only = renamed::Only { id: 'a' };
    assert_eq!(renamed::Only::try_from(renamed::RenamedDefinition::from(only)).unwrap().id, 'a');
}

#[test]
fn a_compound_key_is_its_fields_in_the_order_of_declaration() {
    let key = page(1, -2).primary_key();
    assert_eq!(key, PagePrimaryKey(1, -2));
    assert_eq!(key.to_key_bytes(), (1_u64, -2_i16).to_key_bytes());
    assert_eq!(PagePrimaryKey::from_key_bytes(&key.to_key_bytes()).unwrap(), key);
}

#[test]
fn the_model_encodes_the_same_key_bytes_as_its_keys_do() {
    let book = book();
    let record = LibraryDefinition::from(book.clone()).encode().unwrap();
    assert_eq!(record.keys.primary, book.primary_key().to_key_bytes());
    let of_keys = book.secondary_keys().into_iter().map(|key| {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        (key.index(), bytes)
    });
    let of_model = record.keys.secondary.iter().map(|(index, bytes)| (index, bytes.to_vec()));
    assert_eq!(of_keys.collect::<Vec<_>>(), of_model.collect::<Vec<_>>());
    assert_eq!(Book::SCHEMA.codec.keys(&record.payload).unwrap(), record.keys);
}

#[test]
fn a_secondary_key_knows_its_index() {
    assert_eq!(<BookAuthorSecondaryKey as SecondaryKey>::INDEX, 0);
    assert_eq!(<BookTypeSecondaryKey as SecondaryKey>::INDEX, 1);
    assert_eq!(<BookFirstPublishedSecondaryKey as SecondaryKey>::INDEX, 2);
    assert_eq!(BookSecondaryKeys::FirstPublished(1.into()).index(), 2);
}

#[test]
fn keys_convert_to_every_enum_above_them() {
    let author = BookAuthorSecondaryKey::from("Ada".to_owned());
    let secondary = BookSecondaryKeys::from(author.clone());
    assert_eq!(secondary, BookSecondaryKeys::Author(author.clone()));
    assert_eq!(BookKey::from(secondary.clone()), BookKey::Secondary(secondary));
    assert_eq!(BookKey::from(author.clone()), BookKey::Secondary(BookSecondaryKeys::Author(author)));
    let primary = BookPrimaryKey::from(7);
    assert_eq!(BookKey::from(primary.clone()), BookKey::Primary(primary.clone()));
    assert_eq!(LibraryKeys::from(primary.clone()), LibraryKeys::from(BookKey::from(primary)));
    assert_eq!(LibraryDefinition::from(book()).key(), LibraryKeys::Book(BookPrimaryKey(7).into()));
}

#[test]
fn a_model_without_secondary_keys_has_none() {
    assert!(page(1, 1).secondary_keys().is_empty());
    assert_eq!(size_of::<PageSecondaryKeys>(), 0, "the enum has no variants");
    // The compiler knows that there is no other case.
    let PageKey::Primary(key) = PageKey::from(page(1, 1).primary_key());
    assert_eq!(key, PagePrimaryKey(1, 1));
}

#[test]
fn keys_are_ordered_as_their_fields_are() {
    let pages = [(2, -1), (1, 300), (1, -300), (1, 0)].map(|(book, number)| PagePrimaryKey(book, number));
    let sorted: Vec<_> = BTreeSet::from(pages).into_iter().map(|key| (key.0, key.1)).collect();
    assert_eq!(sorted, [(1, -300), (1, 0), (1, 300), (2, -1)]);
}

#[test]
fn keys_are_equal_and_hash_alike_where_their_bytes_are_equal() {
    assert_eq!(tryInSecondaryKey(0.0), tryInSecondaryKey(-0.0));
    assert_eq!(tryInSecondaryKey(f64::NAN), tryInSecondaryKey(-f64::NAN));
    let keys = hash_set_of([0.0, -0.0, f64::NAN, -f64::NAN, 1.5].map(tryInSecondaryKey));
    assert_eq!(keys.len(), 3);
}

#[test]
fn raw_identifiers_lose_their_prefix() {
    let model = library::r#try { r#fn: "f".into(), r#in: 1.0 };
    assert_eq!(model.primary_key(), tryPrimaryKey("f".into()));
    assert_eq!(LibraryDefinition::from(model.clone()).encode().unwrap().model.name, "try");
    assert_eq!(library::r#try::SCHEMA.indexes[0].name, "in");
    assert!(matches!(LibraryDefinition::from(model), LibraryDefinition::r#try(_)));
}

#[test]
fn a_definition_is_debugged_as_its_key() {
    let shown = format!("{:?}", LibraryDefinition::from(page(1, 2)));
    assert_eq!(shown, "Page(Primary(PagePrimaryKey(1, 2)))");
}

#[test]
fn other_items_of_the_module_stay_as_they_are() {
    assert_eq!((library::SHELVES, library::one()), (3, 1));
    let loan = library::loan([1, 2, 3, 4]).encode().unwrap();
    assert_eq!((loan.model.name, loan.keys.primary), ("Loan", vec![1, 2, 3, 4]));
}

#[test]
fn key_types_lead_to_their_model() {
    fn name<K: PrimaryKey>(_: &K) -> &'static str {
        K::Model::SCHEMA.name
    }
    assert_eq!(name(&BookPrimaryKey(1)), "Book");
    assert_eq!(name(&PagePrimaryKey(1, 1)), "page");
}

/// Every shape of key type.
#[derive(NetabaseKey, Clone, Debug, PartialEq, PartialOrd)]
enum Shape {
    Unit,
    Tuple(u16, String),
    Named { r#type: i8, inner: Inner },
    Nothing {},
}

#[derive(NetabaseKey, Clone, Debug, PartialEq, PartialOrd)]
struct Inner {
    first: Option<bool>,
    second: Unit,
    third: Pair,
}

#[derive(NetabaseKey, Clone, Debug, PartialEq, PartialOrd)]
struct Unit;

#[derive(NetabaseKey, Clone, Debug, PartialEq, PartialOrd)]
struct Pair(char, u8);

#[derive(NetabaseKey, Clone, Debug, PartialEq)]
enum Never {}

#[test]
fn derived_keys_come_back_and_keep_their_order() {
    let inner = |first, letter| Inner { first, second: Unit, third: Pair(letter, 9) };
    let ascending = [
        Shape::Unit,
        Shape::Tuple(0, "z".into()),
        Shape::Tuple(256, String::new()),
        Shape::Tuple(256, "a".into()),
        Shape::Named { r#type: -1, inner: inner(Some(true), 'b') },
        Shape::Named { r#type: 1, inner: inner(None, 'b') },
        Shape::Named { r#type: 1, inner: inner(Some(false), 'a') },
        Shape::Named { r#type: 1, inner: inner(Some(false), 'b') },
        Shape::Nothing {},
    ];
    for pair in ascending.windows(2) {
        assert!(pair[0] < pair[1] && pair[0].to_key_bytes() < pair[1].to_key_bytes(), "{pair:?}");
    }
    for shape in ascending {
        assert_eq!(Shape::from_key_bytes(&shape.to_key_bytes()).unwrap(), shape);
    }
}

#[test]
fn derived_enum_keys_start_with_the_index_of_the_variant() {
    assert_eq!(Shape::Unit.to_key_bytes(), [0]);
    assert_eq!(Shape::Tuple(1, String::new()).to_key_bytes(), [1, 0, 1, 0]);
    assert_eq!(Shape::Nothing {}.to_key_bytes(), [3]);
    assert!(Unit.to_key_bytes().is_empty());
}

#[test]
fn bytes_of_no_variant_are_not_a_key() {
    assert_eq!(Shape::from_key_bytes(&[4]), Err(KeyError::Malformed { expected: "a variant of `Shape`" }));
    assert_eq!(Shape::from_key_bytes(&[]), Err(KeyError::Truncated));
    assert_eq!(Never::from_key_bytes(&[0]), Err(KeyError::Malformed { expected: "a variant of `Never`" }));
}
