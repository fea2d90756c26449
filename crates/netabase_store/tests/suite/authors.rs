//! Refused authors, and the removal of what an author wrote.

use std::collections::BTreeMap;
use std::sync::Mutex;

use netabase_store::admin::CheckOptions;
use netabase_store::replica::AuthorLimit;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, ChangeKind, Envelope, NetabaseStore, Origin, RecordKey, Refusal, StorageBackend, StoreError,
    StoreOptions, Timestamp, WriteError, netabase_definition_module,
};

use crate::common::*;

#[netabase_definition_module(TallyDefinition, TallyKeys)]
mod tallies {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(TallyDefinition)]
    pub(crate) struct Tally {
        #[primary_key]
        pub(crate) id: u8,
        #[merge(counter)]
        pub(crate) votes: i64,
    }
}
use tallies::*;

/// The seeds of authors' keys; the stores of the tests sign with 1.
const HONEST: u8 = 2;
const FLOODER: u8 = 3;
const ROOT: u8 = 9;

fn author(seed: u8) -> Author {
    Author::of(&identity(seed))
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn at(after: u64) -> Timestamp {
    Timestamp::from_unix_millis(START + after)
}

/// Offers a customer that `seed` has signed.
fn offer(store: &NetabaseStore, seed: u8, id: i64) -> Result<bool, Refusal> {
    let payload = EncodedRecord::of(&customer(id, "Ada")).unwrap().payload;
    let envelope = Envelope::sign(&identity(seed), &key(id), at(seed.into()), 0, Some(&payload));
    store.replica().admit(key(id).as_bytes(), envelope.as_bytes())
}

/// Offers a tombstone that `seed` has signed.
fn bury(store: &NetabaseStore, seed: u8, id: i64) -> Result<bool, Refusal> {
    let tombstone = Envelope::sign(&identity(seed), &key(id), at(seed.into()), 0, None);
    store.replica().admit(key(id).as_bytes(), tombstone.as_bytes())
}

fn ids(store: &NetabaseStore) -> Vec<i64> {
    let customers = store.open_tree::<Customer>().unwrap().iter().unwrap();
    customers.map(|customer| customer.unwrap().id).collect()
}

/// Returns the number of signed records and tombstones.
fn kept(store: &NetabaseStore) -> (u64, u64) {
    let usage = store.counters().usage;
    (usage.records, usage.tombstones)
}

/// Waits until so many records and tombstones are left: each flush lets the writer take a step.
fn wait_until_left(store: &NetabaseStore, left: (u64, u64)) {
    const STEPS: usize = 1000;
    for _ in 0..STEPS {
        store.flush().unwrap();
        if kept(store) == left {
            break;
        }
    }
    assert_eq!(kept(store), left);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

on_every_backend! { @each [a_refused_author_is_refused_and_what_it_wrote_is_removed]
    redb = crate::common::Place::signed(netabase_store::StorageBackend::Redb);
    sled = crate::common::Place::signed(netabase_store::StorageBackend::Sled);
    memory = crate::common::Place::signed(netabase_store::StorageBackend::Memory);
}

fn a_refused_author_is_refused_and_what_it_wrote_is_removed(place: &Place) {
    let store = place.open();
    for id in 0..20 {
        assert_eq!(offer(&store, FLOODER, id), Ok(true));
    }
    assert_eq!((offer(&store, HONEST, 100), offer(&store, HONEST, 101)), (Ok(true), Ok(true)));
    assert_eq!(bury(&store, FLOODER, 101), Ok(true), "it deletes a record of another author");
    store.flush().unwrap();
    assert_eq!((kept(&store), ids(&store).len()), ((21, 1), 21));

    assert!(store.replica().refuse_author(author(FLOODER)).unwrap());
    assert!(!store.replica().refuse_author(author(FLOODER)).unwrap(), "it is refused already");
    assert_eq!(offer(&store, FLOODER, 30), Err(Refusal::RefusedAuthor));
    assert_eq!(bury(&store, FLOODER, 100), Err(Refusal::RefusedAuthor));
    assert_eq!(store.replica().refusals(), [(Refusal::RefusedAuthor, 2)]);
    wait_until_left(&store, (1, 0));
    assert_eq!(ids(&store), [100]);
    assert_eq!(offer(&store, HONEST, 101), Ok(true), "what the author deleted can return");

    // The list is kept, and nothing of the author comes after a restart.
    drop(store);
    if place.is_on_disk() {
        let store = place.open();
        assert_eq!(store.replica().refused_authors(), [author(FLOODER)]);
        assert_eq!(offer(&store, FLOODER, 1), Err(Refusal::RefusedAuthor));
        assert!(store.replica().allow_author(author(FLOODER)).unwrap());
        assert!(!store.replica().allow_author(author(FLOODER)).unwrap());
        assert_eq!(offer(&store, FLOODER, 1), Ok(true));
        drop(store);
        assert_eq!(place.open().replica().refused_authors(), []);
    }
}

#[test]
fn followers_see_removals_by_the_network() {
    let store = Place::signed(StorageBackend::Memory).open();
    assert_eq!(offer(&store, FLOODER, 1), Ok(true));
    store.flush().unwrap();
    let events = events(&store);
    assert!(store.replica().refuse_author(author(FLOODER)).unwrap());
    let change = next_change(&events);
    assert_eq!((change.key, change.kind, change.origin), (key(1), ChangeKind::Removed, Origin::Network));
    assert_eq!(change.envelope, None, "there is no tombstone");
}

#[test]
fn of_a_merged_record_only_the_contribution_goes() {
    let place = Place::signed(StorageBackend::Memory);
    let store = place.try_open::<TallyDefinition>().unwrap();
    let key = RecordKey::of(&TallyPrimaryKey(1)).unwrap();
    let vote = |seed: u8| {
        let payload = EncodedRecord::of(&Tally { id: 1, votes: seed.into() }).unwrap().payload;
        Envelope::sign(&identity(seed), &key, at(0), 0, Some(&payload))
    };
    let admit = |seeds: &[u8]| {
        let bundle = Envelope::bundle(&seeds.iter().map(|seed| vote(*seed)).collect::<Vec<_>>()).unwrap();
        store.replica().admit(key.as_bytes(), bundle.as_bytes())
    };
    let votes = || store.open_tree::<Tally>().unwrap().get(&TallyPrimaryKey(1)).unwrap().unwrap().votes;
    assert_eq!(admit(&[HONEST, FLOODER]), Ok(true));
    store.flush().unwrap();
    assert_eq!(votes(), i64::from(HONEST + FLOODER));

    let removed = store.replica().remove_author(author(FLOODER)).unwrap();
    assert_eq!((removed.records, removed.tombstones, votes()), (1, 0, i64::from(HONEST)));
    assert_eq!(admit(&[HONEST, FLOODER]), Ok(true), "the author is not refused");
    store.flush().unwrap();

    let events = events(&store);
    assert!(store.replica().refuse_author(author(FLOODER)).unwrap());
    while votes() != i64::from(HONEST) {
        let _ = events.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(admit(&[FLOODER, HONEST]), Ok(false), "the other contribution is known");
    assert_eq!(admit(&[FLOODER]), Err(Refusal::RefusedAuthor));
}

#[test]
fn what_an_author_wrote_is_removed_without_tombstones() {
    // More than one transaction removes.
    const MANY: i64 = 1500;
    let store = Place::signed(StorageBackend::Memory).open();
    for id in 0..MANY {
        assert_eq!(offer(&store, FLOODER, id), Ok(true));
    }
    assert_eq!((offer(&store, HONEST, -1), bury(&store, FLOODER, -2)), (Ok(true), Ok(true)));
    let removed = store.replica().remove_author(author(FLOODER)).unwrap();
    assert_eq!((removed.records, removed.tombstones), (1500, 1));
    assert_eq!((ids(&store), kept(&store)), (vec![-1], (1, 0)));
    assert_eq!(store.replica().largest_authors().unwrap().len(), 1);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    assert_eq!(offer(&store, FLOODER, 1), Ok(true), "the author is not refused");
}

#[test]
fn the_store_cannot_refuse_whom_it_needs_or_too_many() {
    let mut place = Place::signed(StorageBackend::Redb);
    place.options.root = Some(author(ROOT));
    let store = place.open();
    for seed in [1, ROOT] {
        for error in [
            store.replica().refuse_author(author(seed)).unwrap_err(),
            store.replica().remove_author(author(seed)).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Write(WriteError::NeededAuthor { .. })), "{error}");
        }
    }
    drop(store);
    let others = |count: u32| {
        let other = |number: u32| {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            Author::from_bytes(bytes)
        };
        (0..count).map(other).collect::<Vec<_>>()
    };
    // Opening passes over the authors that are needed.
    place.options.refused_authors = [vec![author(1), author(ROOT)], others(1024)].concat();
    let store = place.open();
    assert_eq!(store.replica().refused_authors().len(), 1024);
    let error = store.replica().refuse_author(author(FLOODER)).unwrap_err();
    assert!(matches!(error, StoreError::Write(WriteError::TooManyRefusedAuthors)), "{error}");
    drop(store);
    place.options.refused_authors = others(1025);
    let error = place.try_open::<ShopDefinition>().unwrap_err();
    assert!(matches!(error, StoreError::Write(WriteError::TooManyRefusedAuthors)), "{error}");
}

#[test]
fn opening_refuses_the_authors_of_the_options() {
    let mut place = Place::signed(StorageBackend::Redb);
    let store = place.open();
    assert_eq!((offer(&store, FLOODER, 1), offer(&store, HONEST, 2)), (Ok(true), Ok(true)));
    drop(store);
    place.options = StoreOptions { refused_authors: vec![author(FLOODER)], ..place.options };
    let store = place.open();
    wait_until_left(&store, (1, 0));
    assert_eq!((ids(&store), offer(&store, FLOODER, 1)), (vec![2], Err(Refusal::RefusedAuthor)));
    store.flush().unwrap();
    drop(store);
    // The list of the database has the author by now.
    place.options.refused_authors.clear();
    assert_eq!(place.open().replica().refused_authors(), [author(FLOODER)]);
}

/// A limit of so many new records of each author.
#[derive(Default)]
struct Limit {
    counted: Mutex<BTreeMap<Author, u32>>,
    refused: Mutex<Vec<Author>>,
    most: u32,
}

impl AuthorLimit for Limit {
    fn allows(&self, author: Author) -> bool {
        self.counted.lock().unwrap().get(&author).is_none_or(|counted| *counted < self.most)
    }

    fn count(&self, author: Author) {
        *self.counted.lock().unwrap().entry(author).or_default() += 1;
    }

    fn note_refused(&self, author: Author) {
        self.refused.lock().unwrap().push(author);
    }
}

impl Limit {
    fn of(most: u32) -> Self {
        Self { most, ..Self::default() }
    }

    fn counted(&self, seed: u8) -> u32 {
        self.counted.lock().unwrap().get(&author(seed)).copied().unwrap_or_default()
    }

    /// Offers a customer that `seed` has signed so many milliseconds after the start.
    fn offer(&self, store: &NetabaseStore, seed: u8, id: i64, after: u64) -> Result<bool, Refusal> {
        let payload = EncodedRecord::of(&customer(id, "Ada")).unwrap().payload;
        let envelope = Envelope::sign(&identity(seed), &key(id), at(after), 0, Some(&payload));
        store.replica().admit_limited(key(id).as_bytes(), envelope.as_bytes(), Some(self))
    }
}

#[test]
fn only_new_records_of_others_count_against_a_limit() {
    let store = Place::signed(StorageBackend::Memory).open();
    let limit = Limit::of(2);
    assert_eq!([1, 2].map(|id| limit.offer(&store, FLOODER, id, 0)), [Ok(true); 2]);
    assert_eq!(limit.offer(&store, FLOODER, 3, 0), Err(Refusal::TooFast));
    assert_eq!(*limit.refused.lock().unwrap(), [author(FLOODER)]);
    // A version of a record that is here, on the disk or waiting for it, is not a new record.
    assert_eq!(limit.offer(&store, FLOODER, 2, 0), Ok(false));
    assert_eq!(limit.offer(&store, FLOODER, 2, 1), Ok(true));
    store.flush().unwrap();
    assert_eq!(limit.offer(&store, FLOODER, 1, 1), Ok(true));
    assert_eq!(limit.offer(&store, HONEST, 3, 0), Ok(true));
    assert_eq!(limit.offer(&store, FLOODER, 3, 1), Ok(true), "another author's record is here");
    // Tombstones of keys that are not here are new; this store's own author is not limited.
    let tombstone = Envelope::sign(&identity(FLOODER), &key(4), at(0), 0, None);
    let buried = store.replica().admit_limited(
        key(4).as_bytes(),
        tombstone.as_bytes(),
        Some(&limit as &dyn AuthorLimit),
    );
    assert_eq!(buried, Err(Refusal::TooFast));
    (5..10).for_each(|id| assert_eq!(limit.offer(&store, 1, id, 0), Ok(true)));
    assert_eq!([FLOODER, HONEST, 1].map(|seed| limit.counted(seed)), [2, 1, 0]);
}

#[test]
fn a_forged_record_does_not_count_and_members_are_not_limited() {
    let limit = Limit::of(1);
    let store = Place::signed(StorageBackend::Memory).open();
    let payload = EncodedRecord::of(&customer(1, "Ada")).unwrap().payload;
    let signed = Envelope::sign(&identity(HONEST), &key(1), at(0), 0, Some(&payload));
    let mut forged = signed.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let admitted = store.replica().admit_limited(key(1).as_bytes(), &forged, Some(&limit));
    assert_eq!((admitted, limit.counted(HONEST)), (Err(Refusal::InvalidSignature), 0));
    drop(store);

    let mut place = Place::signed(StorageBackend::Memory);
    place.options.root = Some(author(ROOT));
    let store = place.open();
    let limit = Limit::of(0);
    assert_eq!(limit.offer(&store, ROOT, 1, 0), Ok(true));
    assert_eq!(limit.counted(ROOT), 0);
}

#[test]
fn a_merged_record_is_new_while_one_of_its_authors_may_add_it() {
    let mut place = Place::signed(StorageBackend::Memory);
    place.options.max_author_bytes = u64::MAX;
    let store = place.try_open::<TallyDefinition>().unwrap();
    let limit = Limit::of(1);
    let offer = |id: u8, seeds: &[u8]| {
        let key = RecordKey::of(&TallyPrimaryKey(id)).unwrap();
        let payload = EncodedRecord::of(&Tally { id, votes: 1 }).unwrap().payload;
        let sign = |seed: &u8| Envelope::sign(&identity(*seed), &key, at(0), 0, Some(&payload));
        let bundle = Envelope::bundle(&seeds.iter().map(sign).collect::<Vec<_>>()).unwrap();
        store.replica().admit_limited(key.as_bytes(), bundle.as_bytes(), Some(&limit))
    };
    assert_eq!(offer(1, &[FLOODER]), Ok(true));
    assert_eq!(offer(2, &[FLOODER]), Err(Refusal::TooFast));
    assert_eq!(offer(2, &[FLOODER, HONEST]), Ok(true));
    assert_eq!(offer(3, &[FLOODER, HONEST]), Err(Refusal::TooFast));
    assert_eq!(offer(1, &[FLOODER, HONEST]), Ok(true), "a contribution is no new record");
}
