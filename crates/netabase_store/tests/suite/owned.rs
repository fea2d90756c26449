//! Owned models: records that their owner alone may write.

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::export::ExportOptions;
use netabase_store::import::{ImportOptions, LineError};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, Envelope, KeyField, NetabaseDefinition, NetabaseStore, OpenError, Query, RecordKey, Refusal,
    StoreError, StoreOptions, Timestamp, Tree, WatchFrom, WriteError, WritePolicy,
    netabase_definition_module,
};

use crate::common::tables;
use crate::common::*;

#[netabase_definition_module(WallDefinition, WallKeys)]
mod wall {
    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    /// The owner and a number.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(WallDefinition, owned)]
    pub(crate) struct Post {
        #[primary_key]
        pub(crate) author: Author,
        #[primary_key]
        pub(crate) number: u32,
        #[secondary_key]
        pub(crate) topic: String,
    }

    /// One to an owner.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(WallDefinition, owned)]
    pub(crate) struct Profile {
        #[primary_key]
        pub(crate) author: Author,
        pub(crate) name: String,
    }
}
use open::OpenDefinition;
use wall::*;

/// The same model, before it was owned.
#[netabase_definition_module(OpenDefinition, OpenKeys, name = "WallDefinition")]
mod open {
    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(OpenDefinition)]
    pub(crate) struct Post {
        #[primary_key]
        pub(crate) author: Author,
        #[primary_key]
        pub(crate) number: u32,
        #[secondary_key]
        pub(crate) topic: String,
    }
}

on_every_backend! {
    the_owner_writes_reads_and_removes,
    no_write_to_the_record_of_another_is_taken,
    an_import_reports_the_records_of_others,
    peers_cannot_squat,
    another_policy_than_that_of_the_records_is_refused,
    a_record_that_changes_its_policy_becomes_foreign_and_comes_back,
    a_change_of_policy_that_was_interrupted_is_completed,
}

fn author(seed: u8) -> Author {
    Author::from_bytes(identity(seed).verifying_key().to_bytes())
}

fn post(seed: u8, number: u32) -> Post {
    Post { author: author(seed), number, topic: "tea".into() }
}

fn key(post: &Post) -> RecordKey {
    RecordKey::of(&PostPrimaryKey(post.author, post.number)).unwrap()
}

fn open_wall(place: &Place) -> (NetabaseStore, Tree<Post>) {
    let store = place.try_open::<WallDefinition>().unwrap();
    let posts = store.open_tree().unwrap();
    (store, posts)
}

fn signed(seed: u8, key: &RecordKey, post: Option<&Post>) -> Envelope {
    let payload = post.map(|post| EncodedRecord::of(post).unwrap().payload);
    Envelope::sign(&identity(seed), key, Timestamp::from_unix_millis(START), 0, payload.as_deref())
}

/// Asserts the error of a store that may not write.
fn assert_not_owner<T: std::fmt::Debug>(outcome: Result<T, StoreError>, of: &Post) {
    match outcome.unwrap_err() {
        StoreError::Write(WriteError::NotOwner { key: found, owner }) => {
            assert_eq!((found, owner), (key(of), of.author));
        }
        error => panic!("{error:?}"),
    }
}

fn the_owner_writes_reads_and_removes(place: &Place) {
    let (store, posts) = open_wall(place);
    let mine = post(1, 7);
    if store.author().is_none() {
        return assert_not_owner(posts.put(&mine), &mine);
    }
    posts.put(&mine).unwrap();
    posts.update(&PostPrimaryKey(author(1), 7), |post| post.topic = "coffee".into()).unwrap();
    assert_eq!(posts.find(PostTopicSecondaryKey("coffee".into())).unwrap().len(), 1);
    assert_eq!(store.envelope(&key(&mine)).unwrap().unwrap().author(), store.author());
    assert!(posts.remove(&PostPrimaryKey(author(1), 7)).unwrap());
    assert_eq!(posts.get(&PostPrimaryKey(author(1), 7)).unwrap(), None);
    let profiles = store.open_tree::<Profile>().unwrap();
    profiles.insert(&Profile { author: author(1), name: "Ada".into() }).unwrap();
    assert!(profiles.contains(&author(1).into()).unwrap());
}

fn no_write_to_the_record_of_another_is_taken(place: &Place) {
    let (store, posts) = open_wall(place);
    let (mine, other) = (post(1, 1), Post { topic: "milk".into(), ..post(9, 1) });
    let primary = PostPrimaryKey(other.author, other.number);
    if store.author().is_some() {
        posts.put(&mine).unwrap();
    }
    let events = events(&store);
    store.replica().admit(key(&other).as_bytes(), signed(9, &key(&other), Some(&other)).as_bytes()).unwrap();
    next_change(&events);
    assert_not_owner(posts.put(&other), &other);
    assert_not_owner(posts.insert(&other), &other);
    assert_not_owner(posts.compare_and_swap(&other, None), &other);
    assert_not_owner(posts.update(&primary, |post| post.topic.clear()), &other);
    assert_not_owner(posts.remove(&primary), &other);
    assert_not_owner(posts.remove_all(Query::new().topic("milk")), &other);
    if store.author().is_some() {
        assert_not_owner(posts.put_many(&[post(1, 2), other.clone()]), &other);
    }
    let mut transaction = store.begin_write();
    assert_not_owner(transaction.put(&other), &other);
    let outcome = transaction.remove(&primary).and_then(|()| transaction.commit());
    assert_not_owner(outcome, &other);
    assert_not_owner(store.replica().submit(&EncodedRecord::of(&other).unwrap(), |_| ()), &other);
    if store.author().is_some() {
        assert_not_owner(store.replica().submit_removal(&key(&other), |_| ()), &other);
    }
    assert_eq!(posts.get(&primary).unwrap(), Some(other));
    assert_eq!(posts.len().unwrap(), 1 + u64::from(store.author().is_some()));
}

fn an_import_reports_the_records_of_others(place: &Place) {
    let (store, posts) = open_wall(&Place::signed(place.options.backend));
    posts.put(&post(1, 1)).unwrap();
    let mut lines = Vec::new();
    let _ = store.export_json(&mut lines, ExportOptions::default()).unwrap();
    let text = String::from_utf8(lines).unwrap();
    assert!(text.contains(&format!(r#""author":"{}""#, author(1))), "{text}");
    let mut other = Place::new(place.options.backend);
    other.options.identity = Some(identity(2));
    let (store, posts) = open_wall(&other);
    let report = store.import_json(text.as_bytes(), ImportOptions::default()).unwrap();
    assert_eq!((report.records, report.bad), (0, 1));
    let LineError::Refused(error) = &report.bad_lines[0].error else { panic!("{report:?}") };
    assert!(matches!(**error, StoreError::Write(WriteError::NotOwner { .. })), "{error}");
    assert!(posts.is_empty().unwrap());
}

fn peers_cannot_squat(place: &Place) {
    let (store, posts) = open_wall(place);
    let (events, mine) = (events(&store), post(9, 1));
    let key = key(&mine);
    let refused =
        |key: &RecordKey, envelope: &Envelope| store.replica().admit(key.as_bytes(), envelope.as_bytes());
    // Another author's record and tombstone, before and after the owner's; its own signature
    // elsewhere.
    for _ in 0..2 {
        assert_eq!(refused(&key, &signed(8, &key, Some(&mine))), Err(Refusal::NotOwner));
        assert_eq!(refused(&key, &signed(8, &key, None)), Err(Refusal::NotOwner));
        let _ = store.replica().admit(key.as_bytes(), signed(9, &key, Some(&mine)).as_bytes()).unwrap();
    }
    let forged = [&signed(9, &key, Some(&mine)).as_bytes()[..120], &[0; 64]].concat();
    assert!(store.replica().admit(key.as_bytes(), &forged).is_err());
    // Under the key that it would have if anybody could write.
    let open = RecordKey::new("WallDefinition", "Post", key.primary_key()).unwrap();
    assert_eq!(refused(&open, &signed(8, &open, Some(&mine))), Err(Refusal::OtherPolicy));
    let merged =
        RecordKey::with_policy(WritePolicy::Merged, "WallDefinition", "Post", key.primary_key()).unwrap();
    assert_eq!(refused(&merged, &signed(9, &merged, Some(&mine))), Err(Refusal::OtherPolicy));
    drop(events);
    store.flush().unwrap();
    assert_eq!(posts.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [mine]);
}

#[test]
fn a_store_without_the_model_judges_by_the_key() {
    let store = NetabaseStore::open_with(
        "unused",
        None,
        StoreOptions { backend: netabase_store::StorageBackend::Memory, ..StoreOptions::default() },
    )
    .unwrap();
    let mine = post(9, 1);
    let key = key(&mine);
    let admit = |envelope: Envelope| store.replica().admit(key.as_bytes(), envelope.as_bytes());
    assert_eq!(admit(signed(8, &key, Some(&mine))), Err(Refusal::NotOwner));
    assert_eq!(admit(signed(8, &key, None)), Err(Refusal::NotOwner));
    assert_eq!(admit(signed(9, &key, Some(&mine))), Ok(true));
    let short = [b"/WallDefinition/@Post/".as_slice(), &[7; 31]].concat();
    assert_eq!(store.replica().admit(&short, &[1]), Err(Refusal::InvalidKey));
}

fn open_posts(place: &Place) -> Tree<open::Post> {
    place.try_open::<OpenDefinition>().unwrap().open_tree().unwrap()
}

fn open_post(number: u32) -> open::Post {
    open::Post { author: author(1), number, topic: "tea".into() }
}

/// Opens a database that may have records of a model under another policy.
fn set_aside<D: NetabaseDefinition>(place: &Place) -> NetabaseStore {
    let options = StoreOptions { set_aside_other_policy: true, ..place.options.clone() };
    NetabaseStore::open_with(place.path(), Some(D::SCHEMA), options).unwrap()
}

fn another_policy_than_that_of_the_records_is_refused(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    drop(open_posts(place));
    // A model without records may change.
    drop(place.try_open::<WallDefinition>().unwrap());
    let posts = open_posts(place);
    posts.put_many(&[open_post(1), open_post(2)]).unwrap();
    drop(posts);
    let error = place.try_open::<WallDefinition>().unwrap_err();
    let (found, expected) = (WritePolicy::Open, WritePolicy::Owned);
    assert!(
        matches!(error, StoreError::Open(OpenError::OtherPolicy { model: "Post", found: f, expected: e, records: 2 })
            if (f, e) == (found, expected)),
        "{error:?}"
    );
    assert_eq!(open_posts(place).len().unwrap(), 2, "nothing has changed");
    let report = set_aside::<WallDefinition>(place).check(CheckOptions::default()).unwrap();
    assert_eq!(report.problems, [Problem::OtherPolicy { model: "Post", found, expected, records: 2 }]);
    // They were set aside.
    drop(place.try_open::<WallDefinition>().unwrap());
    assert_eq!(open_posts(place).len().unwrap(), 2, "they return with the former schema");
}

fn a_record_that_changes_its_policy_becomes_foreign_and_comes_back(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let posts = open_posts(place);
    posts.put_many(&[open_post(1), open_post(2)]).unwrap();
    drop(posts);
    let store = set_aside::<WallDefinition>(place);
    let posts = store.open_tree::<Post>().unwrap();
    assert_eq!(posts.len().unwrap(), 0, "they are records of another model");
    assert_eq!(posts.find(PostTopicSecondaryKey("tea".into())).unwrap(), []);
    assert_eq!(store.statistics().unwrap().foreign.count, 2);
    let former = RecordKey::new("WallDefinition", "Post", &PostPrimaryKey(author(1), 1).to_key_bytes());
    assert!(store.envelope(&former.unwrap()).unwrap().is_some(), "nothing is lost");
    let mut changes = posts.watch(WatchFrom::Oldest).unwrap();
    if store.author().is_some() {
        posts.put(&post(1, 1)).unwrap();
    }
    let seen = std::iter::from_fn(|| changes.try_next().unwrap()).count();
    assert_eq!(seen, usize::from(store.author().is_some()), "changes of the former model are not its own");
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    drop((store, posts, changes));
    let posts = set_aside::<OpenDefinition>(place).open_tree::<open::Post>().unwrap();
    let all: Vec<_> = posts.iter().unwrap().map(Result::unwrap).collect();
    assert_eq!(all, [open_post(1), open_post(2)]);
    assert_eq!(posts.find(open::PostTopicSecondaryKey("tea".into())).unwrap().len(), 2);
}

fn a_change_of_policy_that_was_interrupted_is_completed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    open_posts(place).put_many(&[open_post(1), open_post(2)]).unwrap();
    tables::rewrite(place, |tables| {
        let primary = PostPrimaryKey(author(1), 1).to_key_bytes();
        let record = tables.remove(&("records/Post".into(), primary.clone())).unwrap();
        let key = RecordKey::new("WallDefinition", "Post", &primary).unwrap();
        tables.insert(("foreign".into(), key.as_bytes().to_vec()), record);
        let description = tables.get_mut(&("meta".into(), b"model/Post".to_vec())).unwrap();
        description[..4].fill(0);
    });
    let store = set_aside::<WallDefinition>(place);
    let posts = store.open_tree::<Post>().unwrap();
    assert_eq!((posts.len().unwrap(), store.statistics().unwrap().foreign.count), (0, 2));
    drop((store, posts));
    let posts = open_posts(place);
    assert_eq!(posts.find(open::PostTopicSecondaryKey("tea".into())).unwrap(), [open_post(1), open_post(2)]);
}

#[test]
fn an_author_is_a_field_like_others() {
    let author = author(1);
    let text = author.to_string();
    assert_eq!((text.len(), text.parse(), Author::try_from(text.as_str())), (64, Ok(author), Ok(author)));
    assert_eq!(text.to_uppercase().parse(), Ok(author));
    for wrong in
        ["", "8a", &text[1..], &format!("{text}00"), &format!("+{}", &text[1..]), &"\u{e9}".repeat(32)]
    {
        assert!(wrong.parse::<Author>().is_err(), "{wrong}");
    }
    assert_eq!(serde_json::to_string(&author).unwrap(), format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<Author>(&format!("\"{text}\"")).unwrap(), author);
    assert_eq!(postcard::to_stdvec(&author).unwrap(), author.as_bytes());
    assert_eq!(postcard::from_bytes::<Author>(author.as_bytes()).unwrap(), author);
    assert_eq!(author.to_key_bytes(), author.as_bytes());
    assert_eq!(Author::from_key_bytes(author.as_bytes()), Ok(author));
}
