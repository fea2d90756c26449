//! How long records count, and how leases are renewed.

use std::ops::ControlFlow;
use std::time::{Duration, UNIX_EPOCH};

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::query::PageBounds;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Envelope, Lifetime, NetabaseDefinition, NetabaseModel, NetabaseStore, Query, RecordKey, Refusal,
    StoreError, Timestamp, Tree, WatchEvent, WatchFrom, WriteError, netabase_definition_module,
};

use crate::common::tables::rewrite;
use crate::common::*;

on_every_backend! {
    a_model_says_how_long_its_records_count,
    a_record_has_a_lifetime_of_its_own,
    a_lease_is_renewed_when_half_of_it_is_over,
    a_renewal_is_no_change,
    a_renewal_comes_before_what_was_written_since,
    a_lease_that_is_over_is_not_renewed,
    a_lease_ends_with_its_record,
    a_lease_survives_a_restart,
    leases_are_renewed_in_batches,
    a_migration_keeps_the_lease,
    damaged_leases_are_found_and_repaired,
    lifetimes_need_an_identity,
    a_page_counts_what_it_reads_of_expired_records,
    what_an_expired_version_has_replaced_does_not_come_back,
    a_peer_hears_of_an_expired_version_that_ends_its_own,
    an_expired_version_that_ends_nothing_leaves_nothing,
}

#[netabase_definition_module(PresenceDefinition, PresenceKeys)]
mod presence {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "2d")]
    pub(crate) struct Presence {
        #[primary_key]
        pub(crate) id: u32,
        #[secondary_key]
        pub(crate) place: String,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PresenceDefinition)]
    pub(crate) struct Note {
        #[primary_key]
        pub(crate) id: u32,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "90s", owned)]
    pub(crate) struct Typing {
        #[primary_key]
        pub(crate) author: netabase_store::Author,
    }
}

/// The definition in a later program.
#[netabase_definition_module(LaterDefinition, LaterKeys, name = "PresenceDefinition")]
mod later {
    use netabase_store::{NetabaseModel, NetabaseVersion};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LaterDefinition, version = 2, migrate_from = PresenceV1)]
    pub(crate) struct Presence {
        #[primary_key]
        pub(crate) id: u32,
        #[secondary_key]
        pub(crate) place: String,
        pub(crate) mood: String,
    }

    #[derive(NetabaseVersion, Serialize, Deserialize)]
    #[netabase(version = 1)]
    pub(crate) struct PresenceV1 {
        id: u32,
        place: String,
    }

    impl TryFrom<PresenceV1> for Presence {
        type Error = &'static str;

        fn try_from(PresenceV1 { id, place }: PresenceV1) -> Result<Self, Self::Error> {
            Ok(Self { id, place, mood: String::new() })
        }
    }
}

use presence::{Note, Presence, PresenceDefinition, PresencePlaceSecondaryKey, PresencePrimaryKey, Typing};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

fn at(id: u32, place: &str) -> Presence {
    Presence { id, place: place.into() }
}

fn key(id: u32) -> RecordKey {
    RecordKey::of(&PresencePrimaryKey(id)).unwrap()
}

/// Another author's version, so many milliseconds after the start, with its expiry or 0.
fn version(after: u64, expires: u64) -> Envelope {
    let payload = EncodedRecord::of(&at(1, "hall")).unwrap().payload;
    let time = Timestamp::from_unix_millis(START + after);
    Envelope::sign(&identity(9), &key(1), time, expires, Some(&payload))
}

fn admit(store: &NetabaseStore, version: &Envelope) -> Result<bool, Refusal> {
    let outcome = store.replica().admit(key(1).as_bytes(), version.as_bytes());
    // The second group comes after what the first has led to.
    store.flush().unwrap();
    store.flush().unwrap();
    outcome
}

fn what_an_expired_version_has_replaced_does_not_come_back(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    let (first, second) = (version(0, 0), version(1, START + DAY_MILLIS));
    assert_eq!((admit(&store, &first), admit(&store, &second)), (Ok(true), Ok(true)));
    assert_eq!(tree.len().unwrap(), 1);
    place.time.advance(2 * DAY);
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!((tree.len().unwrap(), held(&store, 1)), (0, None));
    assert_eq!(tree.find(PresencePlaceSecondaryKey("hall".into())).unwrap(), []);
    assert_eq!(store.replica().version_for_peers(&key(1)).unwrap(), Some(second.clone()));
    assert_eq!(admit(&store, &first), Err(Refusal::Outdated));
    assert_eq!(admit(&store, &second), Ok(false), "it is known");
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let store = if place.is_on_disk() {
        drop((store, tree));
        open(place).unwrap().0
    } else {
        store
    };
    assert_eq!(admit(&store, &first), Err(Refusal::Outdated));
    // A later version takes its place, and ends it.
    assert_eq!(admit(&store, &version(2, START + 3 * DAY_MILLIS)), Ok(true));
    assert!(held(&store, 1).is_some());
    place.time.advance(2 * DAY);
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(admit(&store, &first), Err(Refusal::Outdated));
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    // It is forgotten when a tombstone would be.
    place.time.advance(place.options.tombstone_floor);
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(store.replica().version_for_peers(&key(1)).unwrap(), None);
    assert_eq!(store.replica().positions_len().unwrap(), 0);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    assert_eq!(admit(&store, &first), Ok(true));
}

fn a_peer_hears_of_an_expired_version_that_ends_its_own(place: &Place) {
    let Some((one, _)) = open(place) else { return };
    let elsewhere = place.elsewhere();
    let (other, others) = open(&elsewhere).unwrap();
    let (first, second) = (version(0, 0), version(1, START + DAY_MILLIS));
    assert_eq!((admit(&one, &first), admit(&one, &second)), (Ok(true), Ok(true)));
    assert_eq!(admit(&other, &first), Ok(true));
    for place in [place, &elsewhere] {
        place.time.advance(2 * DAY);
    }
    one.flush().unwrap();
    one.flush().unwrap();
    let told = one.replica().version_for_peers(&key(1)).unwrap().unwrap();
    let mut changes = others.watch(WatchFrom::Now).unwrap();
    assert_eq!(admit(&other, &told), Ok(true));
    assert!(matches!(changes.try_next().unwrap().unwrap().event, WatchEvent::Removed { .. }));
    assert_eq!((held(&other, 1), others.len().unwrap()), (None, 0));
    for store in [&one, &other] {
        assert_eq!(admit(store, &first), Err(Refusal::Outdated));
        assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    }
    assert_eq!(
        one.replica().positions(&[0; 32], 10).unwrap(),
        other.replica().positions(&[0; 32], 10).unwrap()
    );
}

fn an_expired_version_that_ends_nothing_leaves_nothing(place: &Place) {
    let Some((store, _)) = open(place) else { return };
    let (first, second) = (version(0, START + DAY_MILLIS), version(1, START + 2 * DAY_MILLIS));
    assert_eq!((admit(&store, &first), admit(&store, &second)), (Ok(true), Ok(true)));
    place.time.advance(3 * DAY);
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(store.replica().positions_len().unwrap(), 0);
    assert_eq!(admit(&store, &second), Err(Refusal::Expired));
    assert_eq!(store.replica().positions_len().unwrap(), 0);
}

/// A store that signs; `None` on the places without an identity.
fn open(place: &Place) -> Option<(NetabaseStore, Tree<Presence>)> {
    place.options.identity.as_ref()?;
    let store = place.try_open::<PresenceDefinition>().unwrap();
    let tree = store.open_tree().unwrap();
    Some((store, tree))
}

fn held(store: &NetabaseStore, id: u32) -> Option<Envelope> {
    store.envelope(&key(id)).unwrap()
}

fn expires(store: &NetabaseStore, id: u32) -> Option<u64> {
    held(store, id).unwrap().expires()
}

fn assert_clean(store: &NetabaseStore) {
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Another author's version, written now.
fn from_peer(store: &NetabaseStore, place: &Place, id: u32, place_name: &str) -> Envelope {
    let payload = EncodedRecord::of(&at(id, place_name)).unwrap().payload;
    let timestamp = Timestamp::from_unix_millis(place.time.now());
    let envelope = Envelope::sign(&identity(2), &key(id), timestamp, 0, Some(&payload));
    store.replica().admit(key(id).as_bytes(), envelope.as_bytes()).unwrap();
    store.flush().unwrap();
    envelope
}

fn a_model_says_how_long_its_records_count(place: &Place) {
    assert_eq!(Presence::SCHEMA.lifetime, Some(2 * DAY_MILLIS));
    assert_eq!((Note::SCHEMA.lifetime, Typing::SCHEMA.lifetime), (None, Some(90_000)));
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(DAY);
    let Some((store, tree)) = open(&place) else { return };
    tree.put(&at(1, "home")).unwrap();
    store.open_tree().unwrap().put(&Note { id: 1 }).unwrap();
    assert_eq!(expires(&store, 1), Some(START + 2 * DAY_MILLIS));
    let note = store.open_tree::<Note>().unwrap().entry(&presence::NotePrimaryKey(1)).unwrap().unwrap();
    assert_eq!(note.expires(), Some(START + DAY_MILLIS));
    assert_clean(&store);
}

fn a_record_has_a_lifetime_of_its_own(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put_with_lifetime(&at(1, "home"), Lifetime::Forever).unwrap();
    tree.put_with_lifetime(&at(2, "home"), Lifetime::Lease(DAY)).unwrap();
    let end = UNIX_EPOCH + Duration::from_millis(START) + 5 * DAY;
    tree.put_with_lifetime(&at(3, "home"), Lifetime::Until(end)).unwrap();
    tree.put_with_lifetime(&at(4, "home"), Lifetime::Default).unwrap();
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let record = EncodedRecord::of(&at(5, "home")).unwrap();
    let submitted =
        store.replica().submit_with(&record, Lifetime::Lease(DAY), move |result| done.send(result).unwrap());
    assert_eq!(submitted.unwrap().1.expires(), Some(START + DAY_MILLIS));
    is_done.recv_timeout(PATIENCE).unwrap().unwrap();
    let ends: Vec<_> = (1..5).map(|id| expires(&store, id)).collect();
    let days = |days| Some(START + days * DAY_MILLIS);
    assert_eq!(ends, [None, days(1), days(5), days(2)]);
    assert_clean(&store);

    place.time.advance(DAY / 2);
    assert_eq!(store.replica().renew_due(9).unwrap(), 2, "those of a day");
    place.time.advance(DAY / 2);
    assert_eq!(store.replica().renew_due(9).unwrap(), 3, "and now that of two days, too");
    place.time.advance(4 * DAY);
    store.replica().renew_due(9).unwrap();
    assert_eq!((held(&store, 1).is_some(), held(&store, 3)), (true, None), "an end stays where it is");
}

fn a_lease_is_renewed_when_half_of_it_is_over(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    let first = held(&store, 1).unwrap();
    place.time.advance(Duration::from_millis(DAY_MILLIS - 1));
    assert_eq!(store.replica().renew_due(9).unwrap(), 0);
    place.time.advance(Duration::from_millis(1));
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    let second = held(&store, 1).unwrap();
    assert!(second.cmp_version(&first).is_gt());
    second.verify(&key(1)).unwrap();
    assert_eq!(second.payload(), first.payload());
    assert_eq!(second.expires(), Some(START + 3 * DAY_MILLIS));
    assert_eq!(store.replica().renew_due(9).unwrap(), 0, "it has just been");
    for _ in 0..5 {
        place.time.advance(DAY);
        store.flush().unwrap();
        assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    }
    assert_eq!(tree.find(PresencePlaceSecondaryKey("home".into())).unwrap(), [at(1, "home")]);
    assert_clean(&store);
    place.time.advance(Duration::from_secs(60));
    assert_eq!(store.replica().due(9).unwrap(), [key(1)], "it is published, too");
}

fn a_renewal_is_no_change(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    let mut changes = store.changes(WatchFrom::Now).unwrap();
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    tree.put(&at(2, "home")).unwrap();
    assert_eq!(changes.try_next().unwrap().unwrap().change.key, key(2));
}

fn a_renewal_comes_before_what_was_written_since(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    place.time.advance(DAY / 2);
    // Another author changes the record at another store meanwhile.
    let payload = EncodedRecord::of(&at(1, "work")).unwrap().payload;
    let timestamp = Timestamp::from_unix_millis(place.time.now());
    let theirs = Envelope::sign(&identity(2), &key(1), timestamp, 0, Some(&payload));
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    assert_eq!(store.replica().admit(key(1).as_bytes(), theirs.as_bytes()), Ok(true));
    store.flush().unwrap();
    assert_eq!(held(&store, 1), Some(theirs));
    place.time.advance(10 * DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 0, "it is theirs now");
    assert_clean(&store);
}

fn a_lease_that_is_over_is_not_renewed(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    place.time.advance(2 * DAY);
    // Whether it was swept already or not.
    assert_eq!(store.replica().renew_due(9).unwrap(), 0);
    assert_eq!(held(&store, 1), None);
    store.flush().unwrap();
    store.flush().unwrap();
    assert_clean(&store);
    tree.put(&at(1, "work")).unwrap();
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 1, "put again, it is a new lease");
    assert_eq!(tree.get(&PresencePrimaryKey(1)).unwrap(), Some(at(1, "work")));
}

fn a_lease_ends_with_its_record(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    tree.put_many(&(1..6).map(|id| at(id, "home")).collect::<Vec<_>>()).unwrap();
    tree.remove(&PresencePrimaryKey(1)).unwrap();
    tree.put_with_lifetime(&at(2, "work"), Lifetime::Forever).unwrap();
    place.time.advance(Duration::from_secs(1));
    let theirs = from_peer(&store, place, 3, "work");
    // A tombstone of a peer.
    let timestamp = Timestamp::from_unix_millis(place.time.now());
    let tombstone = Envelope::sign(&identity(2), &key(4), timestamp, 0, None);
    store.replica().admit(key(4).as_bytes(), tombstone.as_bytes()).unwrap();
    store.flush().unwrap();
    assert_clean(&store);
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    assert!(held(&store, 1).unwrap().is_tombstone());
    assert_eq!((held(&store, 3), held(&store, 4)), (Some(theirs), Some(tombstone)));
    assert_eq!(expires(&store, 2), None);
    assert_clean(&store);
}

fn a_lease_survives_a_restart(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    drop((store, tree));
    place.time.advance(DAY + DAY / 2);
    let (store, tree) = open(place).unwrap();
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    drop((store, tree));
    place.time.advance(DAY);
    let (store, _) = open(place).unwrap();
    assert_eq!(store.replica().renew_due(9).unwrap(), 1, "so does its renewal");
    drop(store);
    // Another author uses the database, and does not renew records of the first one.
    let mut other = place.options.clone();
    other.identity = Some(identity(5));
    place.time.advance(DAY);
    let schema = <PresenceDefinition as NetabaseDefinition>::SCHEMA;
    let store = NetabaseStore::open_with(place.path(), Some(schema), other).unwrap();
    assert_eq!(store.replica().renew_due(9).unwrap(), 0);
    assert!(held(&store, 1).is_some());
    assert_clean(&store);
}

fn leases_are_renewed_in_batches(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    for id in 0..10 {
        tree.put(&at(id, "home")).unwrap();
        place.time.advance(Duration::from_millis(1));
    }
    place.time.advance(DAY);
    assert_eq!([4, 4, 4, 4].map(|limit| store.replica().renew_due(limit).unwrap()), [4, 4, 2, 0]);
    assert_clean(&store);
}

fn a_migration_keeps_the_lease(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let Some((store, tree)) = open(place) else { return };
    tree.put(&at(1, "home")).unwrap();
    drop((store, tree));
    let store = place.try_open::<later::LaterDefinition>().unwrap();
    assert_eq!(store.migrate(|_| ControlFlow::Continue(())).unwrap().rewritten, 1);
    assert_eq!(expires(&store, 1), Some(START + 2 * DAY_MILLIS));
    assert_clean(&store);
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 1);
    let found = store.open_tree::<later::Presence>().unwrap().get(&later::PresencePrimaryKey(1)).unwrap();
    assert_eq!(found.unwrap().place, "home");
}

fn damaged_leases_are_found_and_repaired(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let Some((store, tree)) = open(place) else { return };
    tree.put_many(&(1..4).map(|id| at(id, "home")).collect::<Vec<_>>()).unwrap();
    drop((store, tree));
    let due = START + DAY_MILLIS;
    let renewal =
        |time: u64, id| ("renewals".to_owned(), [&time.to_be_bytes()[..], key(id).as_bytes()].concat());
    rewrite(place, |tables| {
        tables.remove(&renewal(due, 1)).unwrap();
        tables.insert(renewal(due + 1, 2), Vec::new());
        let lease = ("leases".to_owned(), key(3).as_bytes().to_vec());
        assert!(tables.contains_key(&lease));
        let gone = ("leases".to_owned(), key(9).as_bytes().to_vec());
        tables.insert(gone, tables[&lease].clone());
    });
    let (store, _) = open(place).unwrap();
    let report = store.check(CheckOptions::default()).unwrap();
    let expected = [
        Problem::MissingRenewal { key: key(1) },
        Problem::WrongLease { key: key(9) },
        Problem::SuperfluousRenewal { key: key(2), time: due + 1 },
    ];
    assert_eq!(report.problems, expected);
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean() && report.repaired == expected, "{report:?}");
    place.time.advance(DAY);
    assert_eq!(store.replica().renew_due(9).unwrap(), 3);
}

fn lifetimes_need_an_identity(place: &Place) {
    let store = place.try_open::<PresenceDefinition>().unwrap();
    let tree = store.open_tree().unwrap();
    tree.put(&at(1, "home")).unwrap();
    let outcome = tree.put_with_lifetime(&at(1, "home"), Lifetime::Lease(DAY));
    if store.author().is_some() {
        return outcome.unwrap();
    }
    assert!(matches!(outcome, Err(StoreError::Write(WriteError::NoIdentity))));
    assert_eq!(store.replica().renew_due(9).unwrap(), 0);
    tree.put_with_lifetime(&at(1, "home"), Lifetime::Forever).unwrap();
}

fn a_page_counts_what_it_reads_of_expired_records(place: &Place) {
    let Some((store, tree)) = open(place) else { return };
    let long = |id| at(id, &"long".repeat(250));
    for id in 0..19 {
        tree.put_with_lifetime(&long(id), Lifetime::Lease(DAY)).unwrap();
    }
    // The writer waits until the end, so that it does not delete what has expired.
    let ((sender, written), (end_wait, wait)) =
        (std::sync::mpsc::sync_channel(1), std::sync::mpsc::sync_channel::<()>(1));
    let record = EncodedRecord::of(&long(19)).unwrap();
    let done = move |result| {
        sender.send(result).unwrap();
        let _ = wait.recv();
    };
    store.replica().submit_with(&record, Lifetime::Forever, done).unwrap();
    written.recv().unwrap().unwrap();
    let query = Query::<Presence>::new().raw().resolve(PresenceDefinition::SCHEMA).unwrap();
    let bounds = PageBounds { entries: 100, bytes: 5000 };
    let page = |query: &netabase_store::query::ResolvedQuery| {
        let mut ids = Vec::new();
        let end = query.page(
            &store,
            bounds,
            |_| true,
            |key, _| {
                ids.push(key.clone());
                true
            },
        );
        (ids, end.unwrap())
    };
    let (live, end) = page(&query);
    assert!((4..6).contains(&live.len()) && !end.is_last, "{}", live.len());
    place.time.advance(2 * DAY);
    // As far as with records that count.
    let (none, same_end) = page(&query);
    assert_eq!((none.len(), &same_end), (0, &end));
    let (mut span, mut found, mut end) = (query.span().clone(), Vec::new(), end);
    while !end.is_last {
        span = span.after_entry(end.last.as_deref().unwrap(), false);
        let next;
        (next, end) = page(&query.narrowed(span.clone(), 100));
        found.extend(next);
    }
    assert_eq!(found, [key(19)]);
    drop(end_wait);
}
