//! How long tombstones are kept, and what becomes of a store that was away for longer.

use std::collections::HashMap;
use std::time::Duration;

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Envelope, NetabaseStore, RecordKey, Refusal, StorageBackend, Timestamp, Version, WatchFrom,
};
use proptest::prelude::*;

use crate::common::tables::rewrite;
use crate::common::*;

/// How long a store remembers a deletion.
const TOMBSTONE_FLOOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A day less than the floor.
const NEARLY_THE_FLOOR: Duration = Duration::from_secs(29 * 24 * 60 * 60);

on_every_backend! {
    tombstones_are_forgotten_at_the_floor,
    many_tombstones_are_forgotten_in_batches,
    a_deletion_that_no_peer_has_heard_of_is_kept,
    deletions_that_wait_for_a_peer_are_in_nobodys_way,
    what_replaces_a_deletion_ends_its_wait,
    what_is_said_of_deletions_that_are_not_here_is_found,
    a_record_that_came_back_is_not_forgotten,
    an_old_tombstone_is_taken_only_where_it_deletes,
    damaged_ages_are_found_and_repaired,
    a_deleted_record_does_not_come_back_with_who_was_away,
    a_store_that_was_away_keeps_its_own_records,
    a_discard_that_was_interrupted_goes_on,
    a_store_that_stays_online_is_not_away,
    a_clock_that_peers_say_is_ahead_makes_no_absence_and_forgets_nothing,
    tombstones_are_forgotten_after_the_clock_was_set_back,
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn envelope(author: u8, id: i64, unix_millis: u64, name: Option<&str>) -> Envelope {
    let payload = name.map(|name| EncodedRecord::of(&customer(id, name)).unwrap().payload);
    let timestamp = Timestamp::from_unix_millis(unix_millis);
    Envelope::sign(&identity(author), &key(id), timestamp, 0, payload.as_deref())
}

fn admit(store: &NetabaseStore, id: i64, envelope: &Envelope) -> Result<bool, Refusal> {
    store.replica().admit(key(id).as_bytes(), envelope.as_bytes())
}

/// Waits until what is due is swept: the sweep runs behind a commit.
fn sweep(store: &NetabaseStore) {
    store.flush().unwrap();
    store.flush().unwrap();
}

fn is_clean(store: &NetabaseStore) -> bool {
    store.check(CheckOptions::default()).unwrap().is_clean()
}

fn held(store: &NetabaseStore, id: i64) -> Option<Envelope> {
    store.envelope(&key(id)).unwrap()
}

fn tombstones_are_forgotten_at_the_floor(place: &Place) {
    let store = place.open();
    let own = store.author().is_some();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Bob")]).unwrap();
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(1)).unwrap();
    note_heard(&store, 1);
    place.time.advance(DAY);
    admit(&store, 3, &envelope(2, 3, place.time.now(), None)).unwrap();
    sweep(&store);
    assert_eq!(store.statistics().unwrap().tombstones.count, u64::from(own) + 1);
    let mut changes = store.changes(WatchFrom::Now).unwrap();

    place.time.advance(NEARLY_THE_FLOOR);
    sweep(&store);
    assert_eq!(held(&store, 1), None);
    assert!(held(&store, 3).is_some());
    place.time.advance(DAY);
    sweep(&store);
    assert_eq!(store.statistics().unwrap().tombstones.count, 0);
    assert!(held(&store, 2).is_some(), "records are kept");
    assert!(changes.try_next().unwrap().is_none(), "nothing that was to be seen has changed");
    assert_eq!(store.replica().positions_len().unwrap(), u64::from(own));
    assert!(is_clean(&store));
}

fn many_tombstones_are_forgotten_in_batches(place: &Place) {
    let store = place.open();
    for id in 0..2500 {
        while admit(&store, id, &envelope(2, id, START, None)) == Err(Refusal::Busy) {
            store.flush().unwrap();
        }
    }
    sweep(&store);
    place.time.advance(TOMBSTONE_FLOOR);
    (0..4).for_each(|_| sweep(&store));
    assert_eq!(store.statistics().unwrap().tombstones.count, 0);
    assert!(is_clean(&store));
}

fn note_heard(store: &NetabaseStore, id: i64) {
    if let Some(tombstone) = held(store, id) {
        store.replica().note_heard(&key(id), &tombstone);
        store.flush().unwrap();
    }
}

fn remove(store: &NetabaseStore, id: i64) {
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(id)).unwrap();
}

/// Moves the time and waits for the sweep, which looks for old tombstones once a minute.
fn sweep_after(place: &Place, store: &NetabaseStore, passed: Duration) {
    place.time.advance(passed + Duration::from_secs(60));
    sweep(store);
}

fn a_deletion_that_no_peer_has_heard_of_is_kept(place: &Place) {
    if place.options.identity.is_none() {
        return;
    }
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Bob")]).unwrap();
    (1..3).for_each(|id| remove(&store, id));
    let (first, second) = (held(&store, 1).unwrap(), held(&store, 2).unwrap());
    sweep_after(place, &store, 2 * TOMBSTONE_FLOOR);
    assert_eq!((held(&store, 1), held(&store, 2)), (Some(first.clone()), Some(second.clone())));

    note_heard(&store, 1);
    sweep_after(place, &store, NEARLY_THE_FLOOR);
    assert!(held(&store, 1).is_some(), "it is younger where a peer heard of it");
    note_heard(&store, 1);
    sweep_after(place, &store, DAY);
    assert_eq!((held(&store, 1), held(&store, 2)), (None, Some(second)), "since the first time");
    assert!(is_clean(&store));
}

fn deletions_that_wait_for_a_peer_are_in_nobodys_way(place: &Place) {
    if place.options.identity.is_none() {
        return;
    }
    let store = place.open();
    let (own, all) = (1500, 3000);
    store.open_tree().unwrap().put_many(&(0..own).map(|id| customer(id, "Ada")).collect::<Vec<_>>()).unwrap();
    (0..own).for_each(|id| remove(&store, id));
    for id in own..all {
        while admit(&store, id, &envelope(2, id, place.time.now() + 1, None)) == Err(Refusal::Busy) {
            store.flush().unwrap();
        }
    }
    place.time.advance(DAY);
    sweep_after(place, &store, TOMBSTONE_FLOOR);
    (0..6).for_each(|_| sweep(&store));
    assert_eq!(store.statistics().unwrap().tombstones.count, own.unsigned_abs());
    // It looks for others again, and is not looking all the time.
    let commits = store.counters().commits;
    sweep_after(place, &store, Duration::ZERO);
    assert_eq!(store.counters().commits, commits + 2, "one for each flush");
    (0..own).for_each(|id| note_heard(&store, id));
    sweep_after(place, &store, TOMBSTONE_FLOOR);
    (0..6).for_each(|_| sweep(&store));
    assert_eq!(store.statistics().unwrap().tombstones.count, 0);
    assert!(is_clean(&store));
}

fn what_replaces_a_deletion_ends_its_wait(place: &Place) {
    if place.options.identity.is_none() {
        return;
    }
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Bob")]).unwrap();
    (1..3).for_each(|id| remove(&store, id));
    let first = held(&store, 1).unwrap();
    place.time.advance(DAY);
    // Another author deletes the one as well; the other comes back and is deleted again.
    admit(&store, 1, &envelope(2, 1, place.time.now(), None)).unwrap();
    store.open_tree().unwrap().put(&customer(2, "Bob")).unwrap();
    store.replica().note_heard(&key(1), &first);
    assert!(is_clean(&store));
    remove(&store, 2);
    store.replica().note_heard(&key(2), &first);
    sweep_after(place, &store, TOMBSTONE_FLOOR);
    assert_eq!(held(&store, 1), None, "it is another one's");
    assert!(held(&store, 2).is_some(), "what was heard of was another version");
    assert!(is_clean(&store));
}

fn what_is_said_of_deletions_that_are_not_here_is_found(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    drop(place.open());
    let entry = ("deletions".to_owned(), key(1).as_bytes().to_vec());
    rewrite(place, |tables| drop(tables.insert(entry, vec![0; 8])));
    let store = place.open();
    let expected = [Problem::SuperfluousDeletion { key: key(1) }];
    assert_eq!(store.check(CheckOptions::default()).unwrap().problems, expected);
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean() && report.repaired == expected, "{report:?}");
}

fn a_record_that_came_back_is_not_forgotten(place: &Place) {
    let store = place.open();
    admit(&store, 1, &envelope(2, 1, START, None)).unwrap();
    admit(&store, 2, &envelope(2, 2, START, None)).unwrap();
    store.flush().unwrap();
    place.time.advance(DAY);
    admit(&store, 1, &envelope(2, 1, place.time.now(), Some("Ada"))).unwrap();
    let later = envelope(2, 2, place.time.now(), None);
    admit(&store, 2, &later).unwrap();
    sweep(&store);
    place.time.advance(NEARLY_THE_FLOOR);
    sweep(&store);
    assert!(!held(&store, 1).unwrap().is_tombstone());
    assert_eq!(held(&store, 2), Some(later), "the later deletion is younger");
    assert!(is_clean(&store));
}

fn an_old_tombstone_is_taken_only_where_it_deletes(place: &Place) {
    let store = place.open();
    let record = envelope(2, 1, START, Some("Ada"));
    admit(&store, 1, &record).unwrap();
    store.flush().unwrap();
    place.time.advance(TOMBSTONE_FLOOR + DAY);
    assert_eq!(admit(&store, 2, &envelope(2, 2, START + 1, None)), Err(Refusal::Expired));
    assert_eq!(admit(&store, 1, &envelope(2, 1, START + 1, None)), Ok(true));
    sweep(&store);
    // The writer looks for old ones every minute.
    place.time.advance(Duration::from_secs(60));
    sweep(&store);
    assert_eq!(held(&store, 1), None);
    assert_eq!(store.statistics().unwrap().tombstones.count, 0, "it has done what it was for");
    assert_eq!(admit(&store, 1, &envelope(2, 1, START + 1, None)), Err(Refusal::Expired));
    assert!(is_clean(&store));
}

fn damaged_ages_are_found_and_repaired(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    for id in 1..3 {
        admit(&store, id, &envelope(2, id, START, None)).unwrap();
    }
    drop(store);
    let entry = |time: u64, id| ("buried".to_owned(), [&time.to_be_bytes()[..], key(id).as_bytes()].concat());
    rewrite(place, |tables| {
        tables.remove(&entry(START, 1)).unwrap();
        tables.insert(entry(START + 1, 2), Vec::new());
        let total = ("authors".to_owned(), Vec::new());
        assert!(tables.contains_key(&total));
        tables.insert(total, vec![0; 32]);
    });
    let store = place.open();
    let report = store.check(CheckOptions::default()).unwrap();
    let expected = [
        Problem::MissingBurial { key: key(1) },
        Problem::SuperfluousBurial { key: key(2), time: START + 1 },
        Problem::WrongUsage,
    ];
    assert_eq!(report.problems, expected);
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean() && report.repaired == expected, "{report:?}");
    place.time.advance(TOMBSTONE_FLOOR);
    sweep(&store);
    assert_eq!(store.statistics().unwrap().tombstones.count, 0);
}

/// Two stores with an identity of their own and the same time.
fn two(place: &Place) -> (NetabaseStore, Place) {
    let mut away = place.elsewhere();
    away.options.identity = Some(identity(3));
    away.options.clock = place.time.clock();
    (place.open(), away)
}

fn a_deleted_record_does_not_come_back_with_who_was_away(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let (a, away) = two(place);
    let (first, second) = (envelope(2, 1, START, Some("Ada")), envelope(2, 2, START, Some("Bob")));
    let b = away.open();
    assert!(!b.replica().was_away(), "it never was online");
    assert!(b.replica().note_online());
    for store in [&a, &b] {
        admit(store, 1, &first).unwrap();
        admit(store, 2, &second).unwrap();
    }
    drop(b);
    place.time.advance(DAY);
    admit(&a, 1, &envelope(2, 1, place.time.now(), None)).unwrap();
    sweep(&a);
    place.time.advance(TOMBSTONE_FLOOR);
    sweep(&a);
    assert_eq!(held(&a, 1), None, "nobody knows of the deletion any more");

    let b = away.open();
    assert!(b.replica().was_away());
    assert!(!b.replica().note_online(), "it has to discard first");
    let events = events(&b);
    let discarded = b.replica().discard_unvouched().unwrap();
    assert_eq!((discarded.records, discarded.tombstones), (2, 0));
    assert_eq!(next_change(&events).kind, ChangeKind::Evicted);
    assert!(!b.replica().was_away() && b.replica().note_online());
    assert_eq!((held(&b, 1), held(&b, 2)), (None, None));
    // Records that still exist come from A again, and B sends nothing to A.
    admit(&b, 2, &held(&a, 2).unwrap()).unwrap();
    b.flush().unwrap();
    assert_eq!(b.replica().positions(&[0; 32], 9).unwrap(), a.replica().positions(&[0; 32], 9).unwrap());
    assert!(is_clean(&b));
}

fn a_store_that_was_away_keeps_its_own_records(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    store.replica().note_online();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    admit(&store, 2, &envelope(2, 2, START, Some("Bob"))).unwrap();
    admit(&store, 3, &envelope(2, 3, START + 60_000, None)).unwrap();
    drop(store);
    place.time.advance(TOMBSTONE_FLOOR + Duration::from_secs(30));
    let store = place.open();
    assert_eq!(
        store.replica().was_away(),
        store.author().is_some(),
        "without an identity there are no peers"
    );
    let discarded = store.replica().discard_unvouched().unwrap();
    if store.author().is_none() {
        assert_eq!((discarded.records, discarded.tombstones), (0, 0));
        return;
    }
    assert_eq!((discarded.records, discarded.tombstones), (1, 1));
    assert!(held(&store, 1).is_some());
    assert_eq!(store.replica().positions_len().unwrap(), 1);
    assert_eq!(store.replica().discard_unvouched().unwrap().records, 0, "it is done once");
    drop(store);
    assert!(!place.open().replica().was_away());
}

fn a_discard_that_was_interrupted_goes_on(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let store = place.open();
    store.replica().note_online();
    for id in 0..1500 {
        while admit(&store, id, &envelope(2, id, START, Some("Ada"))) == Err(Refusal::Busy) {
            store.flush().unwrap();
        }
    }
    drop(store);
    place.time.advance(2 * TOMBSTONE_FLOOR);
    // The first batch was done when the program ended.
    let mut left = 0;
    rewrite(place, |tables| {
        let positions: Vec<_> =
            tables.keys().filter(|(name, _)| name == "positions").map(|(_, key)| key.clone()).collect();
        for position in positions.iter().take(1024) {
            let primary = RecordKey::parse(&position[32..]).unwrap().primary_key().to_vec();
            tables.remove(&("records/Customer".to_owned(), primary)).unwrap();
            tables.remove(&("positions".to_owned(), position.clone())).unwrap();
        }
        left = positions.len() as u64 - 1024;
    });
    let store = place.open();
    assert_eq!(store.replica().discard_unvouched().unwrap().records, left);
    assert_eq!(store.replica().positions_len().unwrap(), 0);
    assert!(!store.replica().was_away());
}

fn a_store_that_stays_online_is_not_away(place: &Place) {
    let store = place.open();
    for _ in 0..5 {
        assert!(store.replica().note_online());
        place.time.advance(NEARLY_THE_FLOOR);
        assert!(!store.replica().was_away());
    }
}

fn a_clock_that_peers_say_is_ahead_makes_no_absence_and_forgets_nothing(place: &Place) {
    if place.options.identity.is_none() {
        return;
    }
    let year = 12 * TOMBSTONE_FLOOR;
    let ahead = Some(i64::try_from(year.as_millis()).unwrap());
    let store = place.open();
    assert!(store.replica().note_online() && !store.replica().is_clock_compared());
    admit(&store, 1, &envelope(2, 1, START, Some("Ada"))).unwrap();
    admit(&store, 2, &envelope(2, 2, START, None)).unwrap();
    store.replica().note_clock_ahead(Some(0));
    place.time.advance(year);
    assert!(
        store.replica().was_away() && !store.replica().is_clock_compared(),
        "nobody knows yet which of the two it is"
    );
    sweep(&store);
    assert!(held(&store, 2).is_some());

    store.replica().note_clock_ahead(ahead);
    assert!(store.replica().is_clock_compared() && !store.replica().was_away());
    assert_eq!(store.replica().discard_unvouched().unwrap(), netabase_store::replica::Discarded::default());
    sweep(&store);
    assert!(held(&store, 1).is_some() && held(&store, 2).is_some());
    let told = envelope(2, 3, START + 1, None);
    assert_eq!(admit(&store, 3, &told), Ok(true), "it is not as old as it seems");
    assert!(store.replica().note_online());
    let last = store.replica().last_online().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(last, Duration::from_millis(START), "as of the peers' clocks");

    // The comparison of clocks does not hold after the clock was set right.
    place.time.set_back(year);
    assert!(
        !store.replica().is_clock_compared() && !store.replica().was_away() && store.replica().note_online()
    );
    store.replica().note_clock_ahead(Some(0));
    assert!(!store.replica().was_away());

    // A long absence is one, also for a clock that is behind.
    place.time.advance(year);
    store.replica().note_clock_ahead(Some(-60_000));
    assert!(store.replica().was_away() && store.replica().is_clock_compared());
    let discarded = store.replica().discard_unvouched().unwrap();
    assert_eq!(discarded.records, 1, "{discarded:?}");
    assert!(held(&store, 1).is_none() && !store.replica().was_away());
}

fn tombstones_are_forgotten_after_the_clock_was_set_back(place: &Place) {
    let store = place.open();
    let year = 12 * TOMBSTONE_FLOOR;
    place.time.advance(year);
    sweep(&store);
    place.time.set_back(year);
    admit(&store, 1, &envelope(2, 1, START, None)).unwrap();
    sweep(&store);
    assert!(held(&store, 1).is_some());
    place.time.advance(TOMBSTONE_FLOOR);
    sweep(&store);
    assert_eq!(held(&store, 1), None);
}

/// A step of some replicas.
#[derive(Debug, Clone)]
enum Step {
    Put {
        at: usize,
        id: i64,
    },
    Remove {
        at: usize,
        id: i64,
    },
    /// One replica sends what it has of a record; it arrives at the other when the network likes.
    Send {
        from: usize,
        to: usize,
        id: i64,
    },
    /// The network delivers one of the messages on their way.
    Deliver(prop::sample::Index),
    /// A share of the longest time that anybody is away has passed.
    Wait,
}

const REPLICAS: usize = 3;
const IDS: i64 = 2;
/// So many waits are the longest time that anybody is away, or a message on its way.
const WAITS: u32 = 3;

fn step() -> impl Strategy<Value = Step> {
    let at = 0..REPLICAS;
    prop_oneof![
        2 => (at.clone(), 0..IDS).prop_map(|(at, id)| Step::Put { at, id }),
        2 => (at.clone(), 0..IDS).prop_map(|(at, id)| Step::Remove { at, id }),
        6 => (at.clone(), at, 0..IDS).prop_map(|(from, to, id)| Step::Send { from, to, id }),
        6 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        4 => Just(Step::Wait),
    ]
}

type Message = (usize, i64, Envelope);

/// Delivers a message; the replica may know better.
fn deliver(replicas: &[NetabaseStore], (to, id, envelope): Message) {
    let _ = admit(&replicas[to], id, &envelope);
    sweep(&replicas[to]);
}

/// All replicas receive all messages, in some order: no absence is longer.
fn meet(replicas: &[NetabaseStore], messages: &mut Vec<Message>) {
    messages.drain(..).for_each(|message| deliver(replicas, message));
    for from in replicas {
        for to in 0..REPLICAS {
            for id in 0..IDS {
                if let Some(envelope) = held(from, id) {
                    deliver(replicas, (to, id, envelope));
                }
            }
        }
    }
}

#[test]
fn no_deleted_record_rises_among_those_who_are_not_away_for_long() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let forgotten = std::cell::Cell::new(0);
    let run = |steps: Vec<Step>| {
        let place = Place::signed(StorageBackend::Memory);
        let replicas: Vec<_> = (0..REPLICAS)
            .map(|seed| {
                let mut place = place.elsewhere();
                place.options.identity = Some(identity(u8::try_from(seed).unwrap() + 1));
                place.options.tombstone_floor = WAITS * DAY + DAY;
                place
            })
            .map(|mut at| {
                at.options.clock = place.time.clock();
                at.open()
            })
            .collect();
        let (mut messages, mut waits) = (Vec::<Message>::new(), 0);
        // Of each record the newest version that was ever written, and the newest deletion that
        // each has seen.
        let mut newest = HashMap::<i64, Envelope>::new();
        let mut deleted = HashMap::<(usize, i64), Version>::new();
        for step in steps {
            match step {
                Step::Put { at, id } => replicas[at].open_tree().unwrap().put(&customer(id, "Ada")).unwrap(),
                Step::Remove { at, id } => {
                    replicas[at].open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(id)).unwrap();
                }
                Step::Send { from, to, id } => {
                    messages.extend(held(&replicas[from], id).map(|envelope| (to, id, envelope)));
                }
                Step::Deliver(index) if !messages.is_empty() => {
                    let index = index.index(messages.len());
                    deliver(&replicas, messages.swap_remove(index));
                }
                Step::Deliver(_) => {}
                Step::Wait => {
                    place.time.advance(DAY);
                    waits += 1;
                    if waits % WAITS == 0 {
                        meet(&replicas, &mut messages);
                    }
                    replicas.iter().for_each(sweep);
                }
            }
            for (at, replica) in replicas.iter().enumerate() {
                for id in 0..IDS {
                    let Some(found) = held(replica, id) else {
                        forgotten.set(forgotten.get() + u32::from(deleted.contains_key(&(at, id))));
                        continue;
                    };
                    let version = found.version().unwrap();
                    if found.is_tombstone() {
                        deleted.insert((at, id), version);
                    } else {
                        let deleted = deleted.get(&(at, id));
                        prop_assert!(
                            deleted.is_none_or(|deleted| *deleted < version),
                            "a deleted record rose"
                        );
                    }
                    if newest.get(&id).is_none_or(|newest| newest.cmp_version(&found).is_lt()) {
                        newest.insert(id, found);
                    }
                }
            }
        }
        meet(&replicas, &mut messages);
        meet(&replicas, &mut messages);
        for replica in &replicas {
            for id in 0..IDS {
                let live = held(replica, id).filter(|held| !held.is_tombstone());
                let newest = newest.get(&id).cloned();
                prop_assert_eq!(live, newest.filter(|newest| !newest.is_tombstone()));
            }
        }
        Ok(())
    };
    runner.run(&prop::collection::vec(step(), 10..120), run).unwrap();
    assert!(forgotten.get() > 0, "no tombstone was ever collected");
}
