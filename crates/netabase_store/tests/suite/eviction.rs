//! How many records of others are kept, and which go first.

use netabase_store::admin::CheckOptions;
use netabase_store::changes::RemovalReason;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, ChangeKind, Envelope, NetabaseStore, RecordKey, Refusal, StorageBackend, Timestamp, WatchEvent,
    WatchFrom, WritePolicy,
};
use proptest::prelude::*;

use crate::common::*;

/// The most authors that statistics list.
const MAX_LISTED_AUTHORS: usize = 16;

on_every_backend! {
    an_author_has_a_quota,
    our_own_records_are_never_limited,
    the_farthest_records_go_first,
    what_is_farther_than_everything_is_refused,
    without_a_position_nothing_is_evicted,
    a_record_of_the_root_stays,
    a_copy_that_is_kept_for_ourselves_needs_room_too,
    statistics_say_whose_records_take_how_much,
}

const FROM: [u8; 32] = [0x5a; 32];

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn distance(key: &RecordKey) -> Vec<u8> {
    key.position().iter().zip(FROM).map(|(left, right)| left ^ right).collect()
}

/// Numbers of records, the farthest first.
fn by_distance(ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_by_key(|id| std::cmp::Reverse(distance(&key(*id))));
    ids
}

fn envelope(author: u8, id: i64, time: u64, notes: Option<&str>) -> Envelope {
    let payload = notes.map(|notes| {
        EncodedRecord::of(&Customer { notes: notes.into(), ..customer(id, "Ada") }).unwrap().payload
    });
    let timestamp = Timestamp::from_unix_millis(START + time);
    Envelope::sign(&identity(author), &key(id), timestamp, 0, payload.as_deref())
}

fn size(id: i64, envelope: &Envelope) -> u64 {
    (key(id).as_bytes().len() + envelope.as_bytes().len()) as u64
}

/// How much a record with these notes takes.
fn size_of(notes: &str) -> u64 {
    size(1, &envelope(2, 1, 0, Some(notes)))
}

fn admit(store: &NetabaseStore, id: i64, envelope: &Envelope) -> Result<bool, Refusal> {
    store.replica().admit(key(id).as_bytes(), envelope.as_bytes())
}

/// Waits until everything was written, and what follows from it swept.
fn settle(store: &NetabaseStore) {
    for _ in 0..3 {
        store.flush().unwrap();
    }
}

fn is_held(store: &NetabaseStore, id: i64) -> bool {
    store.envelope(&key(id)).unwrap().is_some()
}

fn assert_clean(store: &NetabaseStore) {
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// A place with room for so many records without notes.
fn with_room(place: &Place, records: u64) -> Place {
    let mut place = place.elsewhere();
    place.options.max_replica_bytes = records * size_of("") + size_of("") / 2;
    place.options.position = Some(FROM);
    place
}

fn an_author_has_a_quota(place: &Place) {
    let mut place = place.elsewhere();
    place.options.max_author_bytes = 2 * size_of("") + 10;
    let store = place.open();
    let first = envelope(2, 1, 0, Some(""));
    assert_eq!(admit(&store, 1, &first), Ok(true));
    settle(&store);
    assert_eq!(admit(&store, 2, &envelope(2, 2, 0, Some(""))), Ok(true));
    assert_eq!(
        admit(&store, 3, &envelope(2, 3, 0, Some(""))),
        Err(Refusal::OverQuota),
        "nor while they wait"
    );
    settle(&store);
    assert_eq!(admit(&store, 3, &envelope(2, 3, 0, Some(""))), Err(Refusal::OverQuota));
    assert_eq!(admit(&store, 3, &envelope(2, 3, 0, None)), Err(Refusal::OverQuota), "tombstones count, too");
    assert_eq!(admit(&store, 3, &envelope(3, 3, 0, Some(""))), Ok(true), "others have their own");
    // A newer version of what is here may take what is left, and no more.
    assert_eq!(admit(&store, 1, &envelope(2, 1, 1, Some(&"n".repeat(20)))), Err(Refusal::OverQuota));
    assert_eq!(admit(&store, 1, &envelope(2, 1, 1, Some("n"))), Ok(true));
    settle(&store);
    assert_eq!(admit(&store, 1, &first), Err(Refusal::Outdated), "it is known, whatever the quota");
    // A deletion makes room.
    assert_eq!(admit(&store, 1, &envelope(2, 1, 2, None)), Ok(true));
    settle(&store);
    assert_clean(&store);
}

fn our_own_records_are_never_limited(place: &Place) {
    let mut place = with_room(place, 0);
    place.options.max_author_bytes = 0;
    place.options.max_replica_bytes = 0;
    let store = place.open();
    store.open_tree().unwrap().put_many(&(0..20).map(|id| customer(id, "Ada")).collect::<Vec<_>>()).unwrap();
    settle(&store);
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 20);
    // Our own record may come from a peer, too.
    let ours = admit(&store, 30, &envelope(1, 30, 0, Some("")));
    assert_eq!(ours, if store.author().is_some() { Ok(true) } else { Err(Refusal::OverQuota) });
    assert_eq!(admit(&store, 31, &envelope(2, 31, 0, Some(""))), Err(Refusal::OverQuota));
    settle(&store);
    assert_clean(&store);
}

fn the_farthest_records_go_first(place: &Place) {
    let place = with_room(place, 10);
    let store = place.open();
    let own = store.author().is_some();
    if own {
        let customers: Vec<_> = (100..150).map(|id| customer(id, "Ada")).collect();
        store.open_tree().unwrap().put_many(&customers).unwrap();
    }
    let mut changes = store.changes(WatchFrom::Now).unwrap();
    let mut watch = store.open_tree::<Customer>().unwrap().watch(WatchFrom::Now).unwrap();
    // Closer and closer ones come, so that each takes the place of another.
    let order = by_distance(0..25);
    for (number, id) in order.iter().enumerate() {
        assert_eq!(admit(&store, *id, &envelope(2, *id, 0, Some(""))), Ok(true), "{number}");
        settle(&store);
    }
    let held: Vec<_> = order.iter().filter(|id| is_held(&store, **id)).copied().collect();
    assert_eq!(held, order[15..], "the closest ten are left");
    assert_eq!(store.replica().positions_len().unwrap(), 10 + if own { 50 } else { 0 });

    let evicted: Vec<_> = std::iter::from_fn(|| changes.try_next().unwrap())
        .filter(|change| change.change.kind == ChangeKind::Evicted)
        .map(|change| change.change)
        .collect();
    assert_eq!(evicted.len(), 15);
    for (change, id) in evicted.iter().zip(&order) {
        assert_eq!((&change.key, &change.envelope), (&key(*id), &change.previous), "and in their order");
    }
    let removed: Vec<_> = std::iter::from_fn(|| watch.try_next().unwrap())
        .filter_map(|watched| match watched.event {
            WatchEvent::Removed { record, reason } => Some((record.id, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(removed, order[..15].iter().map(|id| (*id, RemovalReason::Evicted)).collect::<Vec<_>>());
    assert_eq!(store.statistics().unwrap().tombstones.count, 0, "nothing was deleted");
    assert_clean(&store);
}

fn what_is_farther_than_everything_is_refused(place: &Place) {
    let place = with_room(place, 4);
    let store = place.open();
    let order = by_distance(0..6);
    for id in &order[1..5] {
        assert_eq!(admit(&store, *id, &envelope(2, *id, 0, Some(""))), Ok(true));
        settle(&store);
    }
    let farthest = order[0];
    assert_eq!(admit(&store, farthest, &envelope(2, farthest, 0, Some(""))), Err(Refusal::Full));
    assert_eq!(admit(&store, farthest, &envelope(2, farthest, 0, None)), Err(Refusal::Full));
    // A newer version of what is here is no larger.
    assert_eq!(admit(&store, order[1], &envelope(2, order[1], 1, Some(""))), Ok(true));
    settle(&store);
    // The deletion of the farthest is heard.
    assert_eq!(admit(&store, order[1], &envelope(2, order[1], 2, None)), Ok(true));
    settle(&store);
    assert!(is_held(&store, order[1]));
    // It is not remembered for longer than the record of the same place would be.
    assert_eq!(admit(&store, order[5], &envelope(2, order[5], 0, Some(""))), Ok(true));
    settle(&store);
    assert!(!is_held(&store, order[1]) && is_held(&store, order[5]));
    assert_clean(&store);
}

fn without_a_position_nothing_is_evicted(place: &Place) {
    let mut place = with_room(place, 2);
    place.options.position = None;
    let store = place.open();
    for id in 0..2 {
        assert_eq!(admit(&store, id, &envelope(2, id, 0, Some(""))), Ok(true));
        settle(&store);
    }
    assert_eq!(admit(&store, 2, &envelope(2, 2, 0, Some(""))), Err(Refusal::Full));
    settle(&store);
    assert_eq!(admit(&store, 2, &envelope(2, 2, 0, Some(""))), Err(Refusal::Full));
    assert!(is_held(&store, 0) && is_held(&store, 1));
}

fn a_record_of_the_root_stays(place: &Place) {
    let roots = RecordKey::with_policy(WritePolicy::Root, "ShopDefinition", "members", b"1").unwrap();
    assert_eq!(roots.policy(), WritePolicy::Root);
    let place = with_room(place, 0);
    let store = place.open();
    let envelope = Envelope::sign(&identity(9), &roots, Timestamp::from_unix_millis(START), 0, Some(b"all"));
    // Only a closed network takes it in; what counts here is that a lack of room is no reason.
    let refusal = store.replica().admit(roots.as_bytes(), envelope.as_bytes());
    assert!(!matches!(refusal, Err(Refusal::Full | Refusal::OverQuota)), "{refusal:?}");
    settle(&store);
    assert_eq!(store.envelope(&roots).unwrap().is_some(), refusal.is_ok());
}

fn a_copy_that_is_kept_for_ourselves_needs_room_too(place: &Place) {
    let place = with_room(place, 1);
    let store = place.open();
    let order = by_distance(0..2);
    for id in [order[1], order[0]] {
        let checked =
            store.replica().check_record(&key(id), envelope(2, id, 0, Some("")).as_bytes()).unwrap();
        store.replica().keep(checked);
        settle(&store);
    }
    assert!(is_held(&store, order[1]) && !is_held(&store, order[0]));
    assert_clean(&store);
}

fn statistics_say_whose_records_take_how_much(place: &Place) {
    let store = place.open();
    let own = store.author();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    for author in 2..40_u8 {
        let id = i64::from(author);
        admit(&store, id, &envelope(author, id, 0, Some(&"n".repeat(author.into())))).unwrap();
    }
    admit(&store, 50, &envelope(2, 50, 0, None)).unwrap();
    settle(&store);
    let statistics = store.statistics().unwrap();
    let (ours, others) = (statistics.own, statistics.others);
    assert_eq!((ours.records, ours.tombstones), (u64::from(own.is_some()), 0));
    assert_eq!((others.records, others.tombstones), (38, 1));
    assert_eq!(others.tombstone_bytes, size(50, &envelope(2, 50, 0, None)));
    let bytes = (2..40_u8).map(|author| size_of(&"n".repeat(author.into()))).sum::<u64>();
    assert_eq!(others.record_bytes, bytes);
    let largest = &statistics.largest_authors;
    assert_eq!(largest.len(), MAX_LISTED_AUTHORS);
    assert_eq!(
        largest[0].0,
        Author::from_bytes(identity(2).verifying_key().to_bytes()),
        "with the tombstone"
    );
    assert_eq!(largest[1].0, Author::from_bytes(identity(39).verifying_key().to_bytes()));
    assert!(largest.windows(2).all(|pair| pair[0].1.bytes() >= pair[1].1.bytes()));
}

/// A record that comes: whose, which, and how large.
fn arrival() -> impl Strategy<Value = (u8, i64, u64, Option<usize>)> {
    (2..5_u8, 0..30_i64, 0..4_u64, prop::option::weighted(0.8, 0..200_usize))
}

#[test]
fn what_is_held_is_what_is_closest_whatever_comes() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 30,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (evicted, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let run = |arrivals: Vec<(u8, i64, u64, Option<usize>)>| {
        let place = with_room(&Place::signed(StorageBackend::Memory), 8);
        let store = place.open();
        store
            .open_tree()
            .unwrap()
            .put_many(&(50..60).map(|id| customer(id, "Ada")).collect::<Vec<_>>())
            .unwrap();
        let own = store.replica().positions_len().unwrap();
        for (author, id, time, notes) in arrivals {
            let new = envelope(author, id, time, notes.map(|len| "n".repeat(len)).as_deref());
            let before = store.replica().positions_len().unwrap();
            let outcome = admit(&store, id, &new);
            settle(&store);
            let others = (0..30).filter_map(|id| Some((id, store.envelope(&key(id)).unwrap()?)));
            let others: Vec<_> = others.collect();
            let bytes: u64 = others.iter().map(|(id, envelope)| size(*id, envelope)).sum();
            prop_assert!(bytes <= place.options.max_replica_bytes);
            prop_assert_eq!(store.replica().positions_len().unwrap(), own + others.len() as u64);
            if outcome == Err(Refusal::Full) {
                refused.set(refused.get() + 1);
                prop_assert!(others.iter().all(|(held, _)| distance(&key(*held)) <= distance(&key(id))));
            }
            evicted.set(evicted.get() + u32::from(store.replica().positions_len().unwrap() < before));
        }
        assert_clean(&store);
        Ok(())
    };
    runner.run(&prop::collection::vec(arrival(), 1..60), run).unwrap();
    assert!(evicted.get() > 0 && refused.get() > 0, "{evicted:?} {refused:?}");
}

#[test]
fn tombstones_that_delete_nothing_are_dear_and_few() {
    /// The most of one author without records.
    const MOST: i64 = 8192;
    let place = Place::new(StorageBackend::Memory);
    let store = place.open();
    let tombstone = |author, id| envelope(author, id, 1, None);
    let admit = |id, envelope: &Envelope| match admit(&store, id, envelope) {
        Err(Refusal::Busy) => {
            store.flush().unwrap();
            admit(&store, id, envelope)
        }
        outcome => outcome,
    };
    assert_eq!(admit(-1, &envelope(2, -1, 0, Some(""))), Ok(true));
    let cost = |id| store.replica().admission_cost(key(id).as_bytes(), tombstone(2, id).as_bytes());
    assert_eq!((cost(-1), cost(0)), (1, 16));
    // The record of the author makes room for one more.
    for id in 0..=MOST {
        let mut admitted = admit(id, &tombstone(2, id));
        if admitted == Err(Refusal::OverQuota) {
            // Those that were just committed count twice for a moment.
            settle(&store);
            admitted = admit(id, &tombstone(2, id));
        }
        assert_eq!(admitted, Ok(true), "{id}");
    }
    assert_eq!(admit(MOST + 1, &tombstone(2, MOST + 1)), Err(Refusal::OverQuota), "also while they wait");
    settle(&store);
    assert_eq!(admit(MOST + 1, &tombstone(2, MOST + 1)), Err(Refusal::OverQuota));
    assert_eq!(admit(MOST + 1, &tombstone(3, MOST + 1)), Ok(true), "others have their own");
    assert_eq!(admit(-1, &tombstone(2, -1)), Ok(true), "one that deletes a record is taken");
    assert_eq!(cost(-1), 1);
}
