//! Which keys a record has, for every kind of secondary key, and how they are asked for.

use std::collections::BTreeSet;

use netabase_store::key::KeySpan;
use netabase_store::query::{PageBounds, QueryError, RawQuery, Select};
use netabase_store::schema::{EncodedRecord, IndexSchema};
use netabase_store::{
    Cursor, KeyField, KeyRange, NetabaseDefinition, NetabaseModel, NetabaseStore, Query, StorageBackend,
    netabase_definition_module, prefix, starts_with,
};

use crate::common::Place;
use chat::*;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    use std::collections::BTreeSet;

    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// A secondary key of every kind.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key(name = "room_time", fields(room, sent_at))]
    #[secondary_key(name = "thread", fields(reply_to, tags), unique)]
    #[secondary_key(name = "domain", type = String, with = Message::domain)]
    #[secondary_key(name = "mentioned", type = Option<String>, with = super::mentioned)]
    #[secondary_key(unique, with = Message::words, type = Vec<String>, name = "words")]
    pub(crate) struct Message {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) room: String,
        #[secondary_key(unique)]
        pub(crate) slug: String,
        #[secondary_key]
        pub(crate) reply_to: Option<u64>,
        #[secondary_key(unique)]
        pub(crate) tags: Vec<String>,
        #[secondary_key]
        pub(crate) readers: BTreeSet<i8>,
        #[secondary_key]
        pub(crate) digest: Vec<u8>,
        #[secondary_key]
        pub(crate) parts: Option<Vec<u8>>,
        pub(crate) sent_at: u64,
        pub(crate) text: String,
    }

    impl Message {
        fn domain(&self) -> String {
            self.room.rsplit('.').next().unwrap_or_default().to_owned()
        }

        fn words(&self) -> Vec<String> {
            self.text.split_whitespace().map(str::to_lowercase).collect()
        }
    }

    /// Keys with the names of methods of queries, and a compound primary key.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    #[secondary_key(name = "type", fields(first, page))]
    pub(crate) struct Line {
        #[primary_key]
        pub(crate) page: u32,
        #[primary_key]
        pub(crate) number: u32,
        #[secondary_key]
        pub(crate) first: char,
        #[secondary_key]
        pub(crate) limit: Option<i32>,
    }
}

fn mentioned(message: &Message) -> Option<String> {
    message.text.split_whitespace().find_map(|word| word.strip_prefix('@')).map(str::to_owned)
}

fn message() -> Message {
    Message {
        id: 1,
        room: "rust.general".into(),
        slug: "hello".into(),
        reply_to: Some(7),
        tags: vec!["b".into(), "a".into()],
        readers: BTreeSet::from([3, -3]),
        digest: vec![0, 1],
        parts: Some(vec![2]),
        sent_at: 5,
        text: "Hi @ada".into(),
    }
}

fn plain() -> Message {
    let Message { id, room, slug, digest, sent_at, .. } = message();
    let (tags, readers, text) = (Vec::new(), BTreeSet::new(), String::new());
    Message { id, room, slug, digest, sent_at, tags, readers, text, reply_to: None, parts: None }
}

/// The names and bytes of the secondary keys of a record.
fn keys(message: &Message) -> Vec<(&'static str, Vec<u8>)> {
    let keys = EncodedRecord::of(message).unwrap().keys;
    keys.secondary.iter().map(|(index, key)| (Message::SCHEMA.indexes[index].name, key.to_vec())).collect()
}

fn text(text: &str) -> Vec<u8> {
    text.to_owned().to_key_bytes()
}

#[test]
fn a_record_has_a_key_for_each_value() {
    let expected = [
        ("room", text("rust.general")),
        ("slug", text("hello")),
        ("reply_to", 7_u64.to_key_bytes()),
        ("tags", text("b")),
        ("tags", text("a")),
        ("readers", (-3_i8).to_key_bytes()),
        ("readers", 3_i8.to_key_bytes()),
        ("digest", vec![1, 1, 1, 2, 0]),
        ("parts", vec![2, 0]),
        ("room_time", ("rust.general".to_owned(), 5_u64).to_key_bytes()),
        ("thread", (Some(7_u64), message().tags).to_key_bytes()),
        ("domain", text("general")),
        ("mentioned", text("ada")),
        ("words", text("hi")),
        ("words", text("@ada")),
    ];
    assert_eq!(keys(&message()), expected);
}

#[test]
fn what_is_none_or_empty_is_not_indexed() {
    let expected = [
        ("room", text("rust.general")),
        ("slug", text("hello")),
        ("digest", vec![1, 1, 1, 2, 0]),
        ("room_time", ("rust.general".to_owned(), 5_u64).to_key_bytes()),
        ("thread", (None::<u64>, Vec::<String>::new()).to_key_bytes()),
        ("domain", text("general")),
    ];
    assert_eq!(keys(&plain()), expected, "but a compound key has its fields whole");
}

#[test]
fn the_keys_of_a_model_are_the_bytes_that_are_indexed() {
    use netabase_store::SecondaryKeys;
    for message in [message(), plain()] {
        let of_model = message.secondary_keys().into_iter().map(|key| {
            let mut bytes = Vec::new();
            key.encode_key(&mut bytes);
            (Message::SCHEMA.indexes[key.index()].name, bytes)
        });
        assert_eq!(of_model.collect::<Vec<_>>(), keys(&message));
    }
    let of_line = Line { page: 1, number: 2, first: 'a', limit: None }.secondary_keys();
    let expected = [LineFirstSecondaryKey('a').into(), LineTypeSecondaryKey('a', 1).into()];
    assert_eq!(of_line, expected);
}

#[test]
fn the_schema_says_what_each_key_is_made_of() {
    let index = |name, source, unique| IndexSchema { name, source, unique };
    let expected = [
        index("room", "room", false),
        index("slug", "slug", true),
        index("reply_to", "reply_to?", false),
        index("tags", "tags*", true),
        index("readers", "readers*", false),
        index("digest", "digest", false),
        index("parts", "parts?", false),
        index("room_time", "room,sent_at", false),
        index("thread", "reply_to,tags", true),
        index("domain", "=Message::domain", false),
        index("mentioned", "=super::mentioned", false),
        index("words", "=Message::words", true),
    ];
    assert_eq!(Message::SCHEMA.indexes, expected);
}

fn messages() -> Query<Message> {
    Query::new()
}

/// The index and the keys of a query.
fn asked(raw: RawQuery) -> (Option<String>, KeySpan) {
    (raw.index, raw.span)
}

#[test]
fn every_key_is_asked_for_by_its_method() {
    let index = |name: &str, span| (Some(name.to_owned()), span);
    assert_eq!(asked(messages().raw()), (None, KeySpan::all()));
    assert_eq!(asked(messages().id(5..).raw()), (None, (5_u64..).span()));
    assert_eq!(asked(messages().room("a").raw()), index("room", "a".span()));
    assert_eq!(
        asked(messages().room(prefix("a")).raw()),
        index("room", KeyRange::<String>::span(&prefix("a")))
    );
    assert_eq!(asked(messages().reply_to(..=9).raw()), index("reply_to", (..=9_u64).span()));
    assert_eq!(asked(messages().tags("a".."c").raw()), index("tags", ("a".."c").span()));
    assert_eq!(asked(messages().readers(-3).raw()), index("readers", (-3_i8).span()));
    assert_eq!(asked(messages().digest(vec![1]).raw()), index("digest", vec![1_u8].span()));
    assert_eq!(asked(messages().words(..).raw()), index("words", KeySpan::all()));
    let key = ("rust".to_owned(), 5_u64);
    let exactly = index("room_time", KeySpan::prefix(key.to_key_bytes()));
    assert_eq!(asked(messages().room_time(("rust", 5)).raw()), exactly);
    assert_eq!(asked(messages().room_time(&key).raw()), exactly);
    assert_eq!(asked(messages().room_time(MessageRoomTimeSecondaryKey(key.0, key.1)).raw()), exactly);
    let of_room = index("room_time", KeySpan::prefix(text("rust")));
    assert_eq!(asked(messages().room_time(starts_with(("rust",))).raw()), of_room);
    assert_eq!(asked(messages().thread((Some(7), ..)).raw()).1, starts_with_thread(7));
}

fn starts_with_thread(id: u64) -> KeySpan {
    KeySpan::prefix(Some(id).to_key_bytes())
}

#[test]
fn keys_with_the_names_of_methods_have_an_underscore() {
    let lines = || Query::<Line>::new();
    assert_eq!(lines().limit_(1).limit(2).raw().limit, Some(2));
    assert_eq!(lines().first_('a').raw().index.as_deref(), Some("first"));
    assert_eq!(lines().r#type(('a', 1)).raw().index.as_deref(), Some("type"));
    assert_eq!(lines().primary_key((1, ..)).raw().span, KeySpan::prefix(1_u32.to_key_bytes()));
}

#[test]
fn code_for_any_key_asks_by_type() {
    let query = messages().secondary_key::<MessageRoomSecondaryKey>("a");
    assert_eq!(query, messages().room("a"));
    assert_eq!(messages().primary_key(1).reverse(), messages().reverse().id(1), "the order of words is free");
}

#[test]
fn a_query_comes_back_from_every_format() {
    let query = messages().room_time(("rust", 5..)).reverse().limit(3);
    let json = serde_json::to_string(&query).unwrap();
    assert_eq!(serde_json::from_str::<Query<Message, MessageRoomTimeSecondaryKey>>(&json).unwrap(), query);
    let cursor: Cursor = serde_json::from_str("[1,2]").unwrap();
    let query = query.after(cursor.clone());
    let bytes = postcard::to_stdvec(&query).unwrap();
    let back: Query<Message, MessageRoomTimeSecondaryKey> = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back, query);
    let raw: RawQuery = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(raw, query.raw());
    assert_eq!((raw.after, raw.reverse, raw.definition.as_str()), (Some(cursor), true, "ChatDefinition"));
}

#[test]
fn a_query_is_refused_where_another_is_expected() {
    let by_room = messages().room("a").raw();
    let of_another = RawQuery { definition: "Other".into(), ..by_room.clone() };
    assert_eq!(
        Query::<Message, MessageRoomSecondaryKey>::try_from(of_another),
        Err(QueryError::Definition { found: "Other".into(), expected: "ChatDefinition" })
    );
    assert_eq!(
        Query::<Line>::try_from(by_room.clone()),
        Err(QueryError::Model { found: "Message".into(), expected: "Line" })
    );
    let json = serde_json::to_string(&by_room).unwrap();
    let error = serde_json::from_str::<Query<Message, MessageTagsSecondaryKey>>(&json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the query asks by the secondary key `room`, not by the secondary key `tags`"
    );
    let error = Query::<Message>::try_from(by_room).unwrap_err();
    assert_eq!(error.to_string(), "the query asks by the secondary key `room`, not by the primary key");
}

#[test]
fn a_query_shows_what_it_asks() {
    let shown = format!("{:?}", messages().room("a").limit(1));
    assert!(shown.starts_with(r#"Query { model: "Message", index: Some("room"), span: KeySpan"#), "{shown}");
}

/// Two programs that call different keys by one name.
#[netabase_definition_module(ByFirstWord, ByFirstWordKeys, name = "words")]
mod by_first_word {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ByFirstWord)]
    #[secondary_key(name = "word", type = Option<String>, with = Note::first)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u8,
        pub(crate) text: String,
    }

    impl Note {
        fn first(&self) -> Option<String> {
            self.text.split(' ').next().map(str::to_owned)
        }
    }
}

#[netabase_definition_module(ByEveryWord, ByEveryWordKeys, name = "words")]
mod by_every_word {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ByEveryWord)]
    #[secondary_key(name = "word", type = Vec<String>, with = Note::every)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u8,
        pub(crate) text: String,
    }

    impl Note {
        fn every(&self) -> Vec<String> {
            self.text.split(' ').map(str::to_owned).collect()
        }
    }
}

#[test]
fn an_index_whose_key_is_made_of_something_else_is_built_again() {
    let place = Place::signed(StorageBackend::Redb);
    let store = place.try_open::<by_first_word::ByFirstWord>().unwrap();
    let notes = store.open_tree::<by_first_word::Note>().unwrap();
    notes.put(&by_first_word::Note { id: 1, text: "hello again hello".into() }).unwrap();
    assert!(notes.find(by_first_word::NoteWordSecondaryKey("again".into())).unwrap().is_empty());
    drop((notes, store));
    let store = place.try_open::<by_every_word::ByEveryWord>().unwrap();
    let notes = store.open_tree::<by_every_word::Note>().unwrap();
    for word in ["hello", "again"] {
        let found = notes.find(by_every_word::NoteWordSecondaryKey(word.into())).unwrap();
        assert_eq!(found.len(), 1, "{word}");
    }
    assert!(notes.remove(&by_every_word::NotePrimaryKey(1)).unwrap());
    assert!(notes.find(by_every_word::NoteWordSecondaryKey("again".into())).unwrap().is_empty());
}

#[test]
fn a_page_does_not_read_again_what_is_not_wanted() {
    let store = NetabaseStore::in_memory::<ChatDefinition>().unwrap();
    let messages = store.open_tree::<Message>().unwrap();
    messages.put(&Message { readers: (0..100).collect(), text: "long ".repeat(800), ..message() }).unwrap();
    let query = Query::<Message>::new().readers(..).raw();
    let query = query.resolve(ChatDefinition::SCHEMA).unwrap();
    let bounds = PageBounds { entries: 1000, bytes: 6000 };
    let reads = |once: bool| {
        let taken = std::cell::Cell::new(0);
        let end = query.page(
            &store,
            bounds,
            |_| !once || taken.get() == 0,
            |_, _| {
                taken.set(taken.get() + 1);
                true
            },
        );
        (taken.get(), end.unwrap().is_last)
    };
    assert_eq!(reads(true), (1, true), "all entries are of one record");
    assert_eq!(reads(false), (2, false), "each reading of it counts");
}
