//! Following the changes of a store.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use netabase_store::ChangeKind::{Removed, Stored, Updated};
use netabase_store::Origin::{Local, Network};
use netabase_store::changes::HistoryError;
use netabase_store::changes::RemovalReason::{Deleted, Left};
use netabase_store::changes::{NumberedChange, RemovalReason};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Envelope, NetabaseStore, RecordKey, StorageBackend, StoreError, Timestamp, Tree, Watch,
    WatchEvent, WatchFrom,
};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use crate::common;
use crate::common::chat::*;
use crate::common::{HeldWriter, PATIENCE, Place, identity, on_every_backend};

on_every_backend! {
    every_kind_of_change_is_seen_with_old_and_new,
    a_range_of_keys_is_watched,
    a_record_enters_and_leaves_what_is_watched,
    a_change_of_several_records_is_seen_whole_and_in_order,
    the_order_is_that_of_the_commits,
    following_again_after_a_restart_loses_and_repeats_nothing,
    what_is_no_longer_kept_is_an_error_once,
    a_small_history_stays_small,
    a_large_change_does_not_make_a_small_history_large,
    a_group_that_is_longer_than_the_history_reaches_who_waits_for_it,
    without_a_history_nobody_follows,
    a_history_that_was_off_for_a_while_says_what_is_missing,
    a_change_that_there_is_not_yet_is_refused,
    a_position_of_another_history_is_gone,
    following_ends_when_the_store_is_closed,
    a_follower_does_not_keep_the_store_open,
    a_watch_begins_elsewhere,
    a_stream_wakes_its_task,
    a_watch_that_is_dropped_leaves_no_waker,
    a_waker_may_drop_another_follower,
    a_waker_that_panics_stops_nobody,
    a_list_is_followed_without_a_gap,
    changes_by_peers_are_seen,
    an_expired_record_is_seen_to_leave,
    a_batch_that_fails_is_no_change,
    a_wait_ends_in_time,
}

fn open(place: &Place) -> (NetabaseStore, Tree<Message>) {
    let store = place.try_open::<ChatDefinition>().unwrap();
    let messages = store.open_tree().unwrap();
    (store, messages)
}

fn key(id: u64) -> MessagePrimaryKey {
    MessagePrimaryKey(id)
}

fn record_key(id: u64) -> RecordKey {
    RecordKey::of(&key(id)).unwrap()
}

/// Returns the present events of a watch.
fn drain(watch: &mut Watch<Message>) -> Vec<WatchEvent<Message>> {
    std::iter::from_fn(|| watch.try_next().unwrap()).map(|watched| watched.event).collect()
}

fn inserted(record: Message) -> WatchEvent<Message> {
    WatchEvent::Inserted { record }
}

fn updated(old: Message, new: Message) -> WatchEvent<Message> {
    WatchEvent::Updated { old, new }
}

fn removed(record: Message, reason: RemovalReason) -> WatchEvent<Message> {
    WatchEvent::Removed { record, reason }
}

/// Every change from `from` on that is there now.
fn changes(store: &NetabaseStore, from: WatchFrom) -> Result<Vec<NumberedChange>, StoreError> {
    let mut changes = store.changes(from)?;
    let mut all = Vec::new();
    while let Some(change) = changes.try_next()? {
        all.push(change);
    }
    Ok(all)
}

fn every_kind_of_change_is_seen_with_old_and_new(place: &Place) {
    let (store, messages) = open(place);
    let mut watch = messages.watch(WatchFrom::Now).unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    let (first, second) = (message(1, "hall"), message(1, "yard"));
    messages.put(&first).unwrap();
    messages.update(&key(1), |message| message.room = "yard".into()).unwrap();
    messages.put(&second).unwrap();
    messages.remove(&key(1)).unwrap();
    messages.remove(&key(1)).unwrap();
    messages.insert(&first).unwrap();
    store.open_tree().unwrap().put(&account("ada", "a@x")).unwrap();
    let expected = [
        inserted(first.clone()),
        updated(first.clone(), second.clone()),
        updated(second.clone(), second.clone()),
        removed(second, Deleted),
        inserted(first),
    ];
    assert_eq!(drain(&mut watch), expected);
    let all = changes(&store, WatchFrom::Oldest).unwrap();
    let kinds: Vec<_> = all.iter().map(|change| change.change.kind).collect();
    assert_eq!(kinds, [Stored, Updated, Updated, Removed, Stored, Stored]);
    for (sequence, NumberedChange { sequence: found, change }) in (1..).zip(all) {
        assert_eq!((found, change.origin), (sequence, Local));
        let live = matches!(change.kind, Stored | Updated) || store.author().is_some();
        assert_eq!(change.envelope.is_some(), live);
        assert_eq!(change.previous.is_some(), change.kind != Stored);
    }
}

fn a_range_of_keys_is_watched(place: &Place) {
    let (_store, messages) = open(place);
    let mut watch = messages.query().id(2..4).reverse().limit(1).watch(WatchFrom::Now).unwrap();
    messages.put_many(&[1, 2, 3, 4].map(|id| message(id, "hall"))).unwrap();
    messages.remove(&key(4)).unwrap();
    messages.remove(&key(2)).unwrap();
    let expected =
        [inserted(message(2, "hall")), inserted(message(3, "hall")), removed(message(2, "hall"), Deleted)];
    assert_eq!(drain(&mut watch), expected);
}

fn a_watch_begins_elsewhere(place: &Place) {
    let (store, messages) = open(place);
    messages.put(&message(1, "hall")).unwrap();
    messages.put(&message(2, "yard")).unwrap();
    messages.put(&message(3, "hall")).unwrap();
    let watch = messages.query().room("hall").watch(WatchFrom::Now).unwrap();
    let mut watch = watch.from(WatchFrom::Oldest).unwrap();
    assert_eq!(watch.try_next().unwrap().map(|seen| seen.sequence), Some(1));
    let mut watch = watch.from(WatchFrom::After(1)).unwrap();
    assert_eq!(watch.try_next().unwrap().map(|seen| seen.event), Some(inserted(message(3, "hall"))));
    let watch = messages.query().room("hall").watch(WatchFrom::Now).unwrap();
    assert!(matches!(
        watch.from(WatchFrom::After(4)),
        Err(StoreError::History(HistoryError::NoSuchChange { .. }))
    ));
    let watch = messages.query().room("hall").watch(WatchFrom::Now).unwrap();
    drop((store, messages));
    assert_eq!(watch.from(WatchFrom::Oldest).unwrap().try_next().unwrap(), None);
}

fn a_record_enters_and_leaves_what_is_watched(place: &Place) {
    let (_store, messages) = open(place);
    let tagged = |tags: &[&str], room| Message {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..message(1, room)
    };
    let states = [
        tagged(&[], "hall"),
        tagged(&["a", "b"], "hall"),
        tagged(&["b", "a", "a"], "yard"),
        tagged(&["c"], "yard"),
        tagged(&["a"], "hall"),
    ];
    let mut by_tag = messages.query().tags("a").watch(WatchFrom::Now).unwrap();
    let mut by_tags = messages.query().tags("a".."d").watch(WatchFrom::Now).unwrap();
    let mut by_room = messages.query().room("hall").watch(WatchFrom::Now).unwrap();
    let mut by_time = messages.query().room_time(("yard", ..1)).watch(WatchFrom::Now).unwrap();
    let mut by_initial = messages.query().initial('y').watch(WatchFrom::Now).unwrap();
    let mut by_reply = messages.query().reply_to(..).watch(WatchFrom::Now).unwrap();
    for state in &states {
        messages.put(state).unwrap();
    }
    messages.remove(&key(1)).unwrap();
    let [none, both, swapped, other, last] = states;
    let expected = [
        inserted(both.clone()),
        updated(both.clone(), swapped.clone()),
        removed(swapped.clone(), Left),
        inserted(last.clone()),
        removed(last.clone(), Deleted),
    ];
    assert_eq!(drain(&mut by_tag), expected);
    let expected = [
        inserted(both.clone()),
        updated(both.clone(), swapped.clone()),
        updated(swapped.clone(), other.clone()),
        updated(other.clone(), last.clone()),
        removed(last.clone(), Deleted),
    ];
    assert_eq!(drain(&mut by_tags), expected);
    let expected = [
        inserted(none.clone()),
        updated(none, both.clone()),
        removed(both, Left),
        inserted(last.clone()),
        removed(last, Deleted),
    ];
    assert_eq!(drain(&mut by_room), expected);
    let expected = [inserted(swapped.clone()), updated(swapped, other.clone()), removed(other, Left)];
    assert_eq!(drain(&mut by_time), expected);
    assert_eq!(drain(&mut by_initial), expected);
    assert_eq!(drain(&mut by_reply), []);
}

fn a_change_of_several_records_is_seen_whole_and_in_order(place: &Place) {
    let (store, messages) = open(place);
    messages.put_many(&[3, 1, 2].map(|id| message(id, "hall"))).unwrap();
    let mut transaction = store.begin_write();
    transaction.put(&message(4, "hall")).unwrap();
    transaction.remove(&key(1)).unwrap();
    transaction.put(&account("ada", "a@x")).unwrap();
    transaction.commit().unwrap();
    let keys = [3, 1, 2].map(record_key).into_iter();
    let account = RecordKey::of(&AccountPrimaryKey("ada".into())).unwrap();
    let keys: Vec<_> = keys.chain([account, record_key(1), record_key(4)]).collect();
    let all = changes(&store, WatchFrom::Oldest).unwrap();
    assert_eq!(all.iter().map(|change| change.change.key.clone()).collect::<Vec<_>>(), keys);
    assert_eq!(all.iter().map(|change| change.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

fn the_order_is_that_of_the_commits(place: &Place) {
    let (threads, times) = (4, 50);
    let (store, messages) = open(place);
    let follow = |mut changes: netabase_store::Changes| {
        let total = usize::try_from(threads * times * 2).unwrap();
        let next = || changes.next_timeout(PATIENCE).unwrap().unwrap();
        std::iter::repeat_with(next).take(total).collect::<Vec<_>>()
    };
    let (seen, late): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let from_now = store.changes(WatchFrom::Now).unwrap();
        let follower = scope.spawn(move || follow(from_now));
        for thread in 0..threads {
            let messages = &messages;
            scope.spawn(move || {
                for round in 0..times {
                    let records = [thread, threads].map(|id| Message {
                        room: format!("{thread} {round}"),
                        slug: format!("{id}"),
                        ..message(id, "")
                    });
                    messages.put_many(&records).unwrap();
                }
            });
        }
        let seen = follower.join().unwrap();
        (seen, follow(store.changes(WatchFrom::Oldest).unwrap()))
    });
    let mut last = std::collections::HashMap::<RecordKey, Envelope>::new();
    for (sequence, NumberedChange { sequence: found, change }) in (1..).zip(&seen) {
        assert_eq!(*found, sequence);
        let before = last.insert(change.key.clone(), change.envelope.clone().unwrap());
        assert_eq!(change.previous, before, "each change begins where the last one ended");
    }
    assert_eq!(late.len(), seen.len());
    for (late, seen) in late.iter().zip(&seen) {
        assert_eq!((late.sequence, &late.change.envelope), (seen.sequence, &seen.change.envelope));
    }
    for (key, envelope) in last {
        assert_eq!(store.envelope(&key).unwrap(), Some(envelope));
    }
}

/// Sessions of a store, each with some writes; `true` stores a message, `false` removes one.
fn following_again_after_a_restart_loses_and_repeats_nothing(place: &Place) {
    let config = ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() };
    let write = prop::collection::vec((0..4_u64, prop::bool::weighted(0.7)), 1..4);
    let sessions = prop::collection::vec(prop::collection::vec(write, 0..5), 1..5);
    let run = |sessions: Vec<Vec<Vec<(u64, bool)>>>| -> TestCaseResult {
        let place = place.elsewhere();
        let (mut store, mut messages) = open(&place);
        let mut expected = Vec::new();
        for session in sessions {
            for batch in session {
                let mut present: Vec<_> = batch.clone();
                present.sort_unstable();
                present.dedup_by_key(|write| write.0);
                let mut transaction = store.begin_write();
                for (id, stored) in present {
                    let was = messages.contains(&key(id)).unwrap();
                    let kind = match (stored, was) {
                        (true, false) => Stored,
                        (true, true) => Updated,
                        (false, _) => Removed,
                    };
                    if stored {
                        transaction.put(&message(id, "hall")).unwrap();
                    } else {
                        transaction.remove(&key(id)).unwrap();
                    }
                    if stored || was {
                        expected.push((record_key(id), kind));
                    }
                }
                transaction.commit().unwrap();
            }
            if place.is_on_disk() {
                drop((store, messages));
                (store, messages) = open(&place);
            }
            for after in 0..=expected.len() {
                let from = WatchFrom::After(after.try_into().unwrap());
                let seen: Vec<_> = changes(&store, from).unwrap();
                let numbers: Vec<_> =
                    seen.iter().map(|change| usize::try_from(change.sequence).unwrap()).collect();
                prop_assert_eq!(numbers, (after + 1..=expected.len()).collect::<Vec<_>>());
                let seen: Vec<_> = seen.into_iter().map(|seen| (seen.change.key, seen.change.kind)).collect();
                prop_assert_eq!(&seen[..], &expected[after..]);
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&sessions, run).unwrap();
}

fn large(id: u64, bytes: usize) -> Message {
    Message { room: "hall".into(), tags: vec!["t".repeat(1000); bytes / 1000], ..message(id, "") }
}

/// A place where about `bytes` of history are kept.
fn with_history(place: &Place, bytes: u64) -> Place {
    let mut place = place.elsewhere();
    place.options.history_bytes = bytes;
    place
}

fn what_is_no_longer_kept_is_an_error_once(place: &Place) {
    let place = with_history(place, 20_000);
    let (store, messages) = open(&place);
    let (mut behind, mut watch) =
        (store.changes(WatchFrom::Now).unwrap(), messages.watch(WatchFrom::Now).unwrap());
    let mut first = store.changes(WatchFrom::Now).unwrap();
    for id in 0..40 {
        messages.put(&large(id, 1000)).unwrap();
        if id == 0 {
            assert_eq!(first.try_next().unwrap().unwrap().sequence, 1);
        }
    }
    let error = behind.try_next().unwrap_err();
    let StoreError::History(HistoryError::Trimmed { next: 1, oldest }) = error else { panic!("{error:?}") };
    assert!(oldest > 20, "{oldest}");
    assert!(behind.try_next().unwrap().is_none(), "it has ended");
    assert!(matches!(watch.next(), Some(Err(StoreError::History(HistoryError::Trimmed { .. })))));
    assert!(watch.next().is_none());
    assert!(matches!(first.next(), Some(Err(StoreError::History(HistoryError::Trimmed { next: 2, .. })))));
    let error = store.changes(WatchFrom::After(oldest - 2)).unwrap_err();
    assert!(
        matches!(error, StoreError::History(HistoryError::Trimmed { oldest: found, .. }) if found == oldest),
        "{error:?}"
    );
    let kept = changes(&store, WatchFrom::After(oldest - 1)).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.sequence).collect::<Vec<_>>(), (oldest..=40).collect::<Vec<_>>());
    assert_eq!(changes(&store, WatchFrom::Oldest).unwrap().len(), kept.len());
}

/// The bytes of the table of changes of a closed database.
fn history_bytes(place: &Place) -> Option<usize> {
    match place.options.backend {
        StorageBackend::Redb => {
            use ::redb::{ReadableDatabase, ReadableTable};
            let database = ::redb::Database::open(place.path()).unwrap();
            let definition = ::redb::TableDefinition::<&[u8], &[u8]>::new("5/history");
            let table = database.begin_read().unwrap().open_table(definition).unwrap();
            let sizes = table.iter().unwrap().map(|entry| {
                let (key, value) = entry.unwrap();
                key.value().len() + value.value().len()
            });
            Some(sizes.sum())
        }
        StorageBackend::Sled => {
            let entries = common::open_sled(&place.path()).scan_prefix(b"\0\x095/history");
            Some(entries.map(|entry| entry.map(|(key, value)| key.len() + value.len()).unwrap()).sum())
        }
        _ => None,
    }
}

fn a_small_history_stays_small(place: &Place) {
    let place = with_history(place, 20_000);
    let (store, messages) = open(&place);
    for round in 0..30 {
        messages.put(&large(round % 3, 1000)).unwrap();
        messages.put_many(&[large(4, 3000), large(5, 2000)]).unwrap();
        messages.remove(&key(5)).unwrap();
    }
    let kept = changes(&store, WatchFrom::Oldest).unwrap();
    assert!(kept.len() > 2, "{}", kept.len());
    assert_eq!(kept.last().unwrap().sequence, 120);
    drop((store, messages));
    if let Some(bytes) = history_bytes(&place) {
        assert!((5_000..25_000).contains(&bytes), "{bytes}");
    }
    if place.is_on_disk() {
        let (store, messages) = open(&place);
        messages.remove(&key(4)).unwrap();
        assert_eq!(changes(&store, WatchFrom::After(120)).unwrap()[0].sequence, 121);
    }
}

fn a_large_change_does_not_make_a_small_history_large(place: &Place) {
    let place = with_history(place, 1);
    let (store, messages) = open(&place);
    let records: Vec<_> = (0..40).map(|id| large(id, 100_000)).collect();
    messages.put_many(&records).unwrap();
    messages.put_many(&records).unwrap();
    // Rows that followers may still have to read are dropped with the next write.
    messages.put(&message(50, "hall")).unwrap();
    drop((store, messages));
    if let Some(bytes) = history_bytes(&place) {
        assert!(bytes < 10_000, "{bytes}");
    }
    if place.is_on_disk() {
        let (store, messages) = open(&place);
        messages.remove(&key(4)).unwrap();
        let last = changes(&store, WatchFrom::Oldest).unwrap();
        assert_eq!(last.iter().map(|last| last.sequence).collect::<Vec<_>>(), [82]);
    }
}

fn a_group_that_is_longer_than_the_history_reaches_who_waits_for_it(place: &Place) {
    let place = with_history(place, 1000);
    let (_store, messages) = open(&place);
    let mut watch = messages.watch(WatchFrom::Now).unwrap();
    let records: Vec<_> = (0..200).map(|id| large(id, 1000)).collect();
    messages.put_many(&records).unwrap();
    let seen = (0..200).map(|_| watch.next_timeout(PATIENCE).unwrap().unwrap().sequence);
    assert_eq!(seen.collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
}

fn without_a_history_nobody_follows(place: &Place) {
    let place = with_history(place, 0);
    let (store, messages) = open(&place);
    messages.put(&message(1, "hall")).unwrap();
    for from in [WatchFrom::Now, WatchFrom::Oldest, WatchFrom::After(0), WatchFrom::After(9)] {
        assert!(matches!(store.changes(from), Err(StoreError::History(HistoryError::NotKept))));
        assert!(matches!(messages.watch(from), Err(StoreError::History(HistoryError::NotKept))));
    }
    if place.has_snapshots() {
        assert_eq!(store.read().unwrap().sequence().unwrap(), 1, "changes are still counted");
    }
    drop((store, messages));
    if let Some(bytes) = history_bytes(&place) {
        assert!(bytes < 64, "{bytes}");
    }
}

fn a_history_that_was_off_for_a_while_says_what_is_missing(place: &Place) {
    let mut place = place.elsewhere();
    if !place.is_on_disk() {
        return;
    }
    let put = |place: &Place, ids: std::ops::Range<u64>| {
        let (store, messages) = open(place);
        ids.for_each(|id| messages.put(&message(id, "hall")).unwrap());
        store
    };
    drop(put(&place, 1..3));
    place.options.history_bytes = 0;
    drop(put(&place, 3..5));
    place.options.history_bytes = 1_000_000;
    let store = put(&place, 5..5);
    for seen in 0..4 {
        let error = changes(&store, WatchFrom::After(seen)).unwrap_err();
        assert!(matches!(error, StoreError::History(HistoryError::Trimmed { oldest: 5, .. })), "{error:?}");
    }
    assert_eq!(changes(&store, WatchFrom::After(4)).unwrap().len(), 0);
    assert_eq!(changes(&store, WatchFrom::Oldest).unwrap().len(), 0);
    drop(store);
    let store = put(&place, 5..7);
    for from in [WatchFrom::After(4), WatchFrom::Oldest] {
        let seen = changes(&store, from).unwrap();
        assert_eq!(seen.iter().map(|seen| seen.sequence).collect::<Vec<_>>(), [5, 6]);
    }
    assert!(matches!(
        changes(&store, WatchFrom::After(3)),
        Err(StoreError::History(HistoryError::Trimmed { oldest: 5, .. }))
    ));
}

fn a_position_of_another_history_is_gone(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let put = |messages: &Tree<Message>, ids: std::ops::Range<u64>| {
        ids.for_each(|id| messages.put(&message(id, "hall")).unwrap());
    };
    let end = |store: &NetabaseStore| store.changes(WatchFrom::Now).unwrap().position();
    let seen = |store: &NetabaseStore, position| {
        changes(store, WatchFrom::Position(position)).map(|seen| {
            let numbers: Vec<_> = seen.iter().map(|seen| seen.sequence).collect();
            numbers
        })
    };
    let is_gone = |store: &NetabaseStore, position| {
        let error = seen(store, position).unwrap_err();
        assert!(
            matches!(error, StoreError::History(HistoryError::Gone { position: found }) if found == position),
            "{error:?}"
        );
    };

    let place = place.elsewhere();
    let (store, messages) = open(&place);
    let beginning = end(&store);
    let mut watch = messages.watch(WatchFrom::Now).unwrap();
    put(&messages, 1..3);
    let (_, second) = (watch.try_next().unwrap(), watch.try_next().unwrap().unwrap().position);
    assert_eq!((second, second.sequence()), (end(&store), 2));
    let copies = tempfile::tempdir().unwrap();
    store.backup(copies.path().join("copy")).unwrap();
    put(&messages, 3..5);
    let fourth = end(&store);
    drop((store, messages, watch));
    let (store, messages) = open(&place);
    assert_eq!(end(&store), fourth, "an opening that changes nothing has no history of its own");
    put(&messages, 5..6);
    let fifth = end(&store);
    assert_eq!(seen(&store, beginning).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(seen(&store, second).unwrap(), [3, 4, 5]);
    assert_eq!(seen(&store, fourth).unwrap(), [5]);
    assert!(seen(&store, fifth).unwrap().is_empty());

    // The copy that is restored numbers its changes with the same numbers.
    let restored = place.elsewhere();
    NetabaseStore::restore(copies.path().join("copy"), restored.path(), restored.options.backend).unwrap();
    let (store, messages) = open(&restored);
    assert_eq!(end(&store), second);
    is_gone(&store, fourth);
    is_gone(&store, fifth);
    put(&messages, 10..20);
    is_gone(&store, fourth);
    is_gone(&store, fifth);
    assert_eq!(seen(&store, second).unwrap(), (3..13).collect::<Vec<_>>());
    assert_eq!(changes(&store, WatchFrom::After(5)).unwrap().len(), 7, "a number is not compared");

    // And so does another database.
    let (store, messages) = open(&place.elsewhere());
    is_gone(&store, second);
    put(&messages, 1..9);
    for position in [second, fourth, fifth] {
        is_gone(&store, position);
    }
    assert_eq!(seen(&store, beginning).unwrap().len(), 8, "who has seen nothing misses nothing");
}

fn a_change_that_there_is_not_yet_is_refused(place: &Place) {
    let (store, messages) = open(place);
    assert_eq!(changes(&store, WatchFrom::After(0)).unwrap().len(), 0);
    let error = store.changes(WatchFrom::After(1)).unwrap_err();
    assert!(
        matches!(error, StoreError::History(HistoryError::NoSuchChange { sequence: 1, newest: 0 })),
        "{error:?}"
    );
    messages.put(&message(1, "hall")).unwrap();
    assert_eq!(changes(&store, WatchFrom::After(1)).unwrap().len(), 0);
    for sequence in [2, u64::MAX] {
        let error = messages.watch(WatchFrom::After(sequence)).unwrap_err();
        assert!(
            matches!(error, StoreError::History(HistoryError::NoSuchChange { sequence: found, newest: 1 }) if found == sequence)
        );
    }
}

fn following_ends_when_the_store_is_closed(place: &Place) {
    let (store, messages) = open(place);
    let watch = messages.watch(WatchFrom::Now).unwrap();
    let (sender, receiver) = sync_channel(1);
    let follower = thread::spawn(move || {
        let mut seen = Vec::new();
        for watched in watch {
            seen.push(watched.unwrap().event);
            sender.send(()).unwrap();
        }
        seen
    });
    messages.put(&message(1, "hall")).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    drop((store, messages));
    assert_eq!(follower.join().unwrap(), [inserted(message(1, "hall"))]);
}

fn a_follower_does_not_keep_the_store_open(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let mut followers = Vec::new();
    for round in 0..20 {
        // The follower of the session before may be reading at this very moment.
        let (store, messages) = open(place);
        let watch = messages.watch(WatchFrom::Oldest).unwrap();
        followers.push(thread::spawn(move || watch.map(Result::unwrap).count()));
        for id in 0..5 {
            messages.put(&Message { sent_at: round, ..message(id, "hall") }).unwrap();
        }
        drop((store, messages));
    }
    for follower in followers {
        assert!(follower.join().unwrap() <= 100);
    }
}

/// Wakes by sending a message.
struct Bell(SyncSender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_send(());
    }
}

fn bell() -> (Arc<Bell>, Receiver<()>) {
    let (sender, receiver) = sync_channel(1);
    (Arc::new(Bell(sender)), receiver)
}

fn poll<S: Stream + Unpin>(stream: &mut S, waker: &Waker) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

/// Polls a stream until it has something or ends.
fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    let (bell, rings) = bell();
    let waker = Waker::from(bell);
    loop {
        match poll(stream, &waker) {
            Poll::Ready(item) => return item,
            Poll::Pending => rings.recv_timeout(PATIENCE).unwrap(),
        }
    }
}

fn a_stream_wakes_its_task(place: &Place) {
    let (store, messages) = open(place);
    let mut stream = messages.query().id(..1000).watch(WatchFrom::Now).unwrap().into_stream();
    let all = store.changes(WatchFrom::Now).unwrap().into_stream();
    let follower = thread::spawn(move || {
        let mut all = all;
        std::iter::from_fn(|| next(&mut all)).map(|change| change.unwrap().sequence).collect::<Vec<_>>()
    });
    let (bell, rings) = bell();
    let waker = Waker::from(bell);
    assert!(poll(&mut stream, &waker).is_pending());
    assert!(rings.try_recv().is_err());
    messages.put(&message(1, "hall")).unwrap();
    rings.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next(&mut stream).unwrap().unwrap().event, inserted(message(1, "hall")));
    // So many changes of other records that a poll gives way in between.
    let others: Vec<_> = (1000..1600).map(|id| message(id, "hall")).collect();
    messages.put_many(&others).unwrap();
    assert!(poll(&mut stream, &waker).is_pending());
    rings.recv_timeout(PATIENCE).unwrap();
    messages.remove(&key(1)).unwrap();
    assert_eq!(next(&mut stream).unwrap().unwrap().sequence, 602);
    assert!(poll(&mut stream, &waker).is_pending());
    drop((store, messages));
    rings.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(poll(&mut stream, &waker), Poll::Ready(None)));
    assert!(matches!(poll(&mut stream, &waker), Poll::Ready(None)));
    let seen = follower.join().unwrap();
    assert!(seen.iter().copied().eq(1..=u64::try_from(seen.len()).unwrap()), "{seen:?}");
}

fn a_watch_that_is_dropped_leaves_no_waker(place: &Place) {
    let (_store, messages) = open(place);
    let (bell, rings) = bell();
    let waker = Waker::from(Arc::clone(&bell));
    let mut streams: Vec<_> = (0..3).map(|_| messages.watch(WatchFrom::Now).unwrap().into_stream()).collect();
    for stream in &mut streams {
        assert!(poll(stream, &waker).is_pending());
        assert!(poll(stream, &waker).is_pending());
    }
    assert_eq!(Arc::strong_count(&bell), 5, "one for each that waits");
    streams.truncate(1);
    assert_eq!(Arc::strong_count(&bell), 3);
    messages.put(&message(1, "hall")).unwrap();
    rings.recv_timeout(PATIENCE).unwrap();
    assert!(poll(&mut streams[0], &waker).is_ready());
    assert!(poll(&mut streams[0], &waker).is_pending());
    drop(streams);
    assert_eq!(Arc::strong_count(&bell), 2);
}

/// A task that owns what it follows, as an executor's does.
struct Task {
    _follows: Mutex<netabase_store::changes::ChangeStream>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

fn a_waker_may_drop_another_follower(place: &Place) {
    let (store, messages) = open(place);
    let follow = || store.changes(WatchFrom::Now).unwrap().into_stream();
    let mut stream = follow();
    let task = |owned| Waker::from(Arc::new(Task { _follows: Mutex::new(owned) }));
    // Each waker is the last to hold its task by the time the store forgets it.
    let (first, second) = (task(follow()), task(follow()));
    assert!(poll(&mut stream, &first).is_pending());
    drop(first);
    assert!(poll(&mut stream, &second).is_pending());
    drop(second);
    drop(stream);
    messages.put(&message(1, "hall")).unwrap();
}

/// Panics when it wakes.
struct Panics(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("the waker of this test panics");
    }
}

fn a_waker_that_panics_stops_nobody(place: &Place) {
    let (store, messages) = open(place);
    let follow = || store.changes(WatchFrom::Now).unwrap().into_stream();
    let panics = Arc::new(Panics(AtomicUsize::new(0)));
    let mut bad = [follow(), follow()];
    for stream in &mut bad {
        assert!(poll(stream, &Waker::from(Arc::clone(&panics))).is_pending());
    }
    let good = follow();
    let follower = thread::spawn(move || {
        let mut good = good;
        [next(&mut good), next(&mut good)].map(|change| change.unwrap().unwrap().sequence)
    });
    messages.put(&message(1, "hall")).unwrap();
    assert_eq!(panics.0.load(Ordering::SeqCst), 2);
    messages.put(&message(2, "hall")).unwrap();
    assert_eq!(follower.join().unwrap(), [1, 2]);
}

fn a_list_is_followed_without_a_gap(place: &Place) {
    if !place.has_snapshots() {
        return;
    }
    let times = 200;
    let (store, messages) = open(place);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..times {
                messages
                    .put(&Message { sent_at: round, ..message(round.unsigned_abs() % 7, "hall") })
                    .unwrap();
                if round % 3 == 0 {
                    messages.remove(&key(round.unsigned_abs() % 5)).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut begun = Vec::new();
        while !done.load(Ordering::Acquire) {
            let snapshot = store.read().unwrap();
            let listed: Vec<_> =
                snapshot.open_tree::<Message>().unwrap().iter().unwrap().map(Result::unwrap).collect();
            // The snapshot's changes are committed, but the writer may not have published them yet.
            let watch = messages.watch(WatchFrom::After(snapshot.sequence().unwrap())).unwrap();
            if begun.len() < 50 {
                begun.push((listed, watch));
            }
        }
        let expected: Vec<_> = messages.iter().unwrap().map(Result::unwrap).collect();
        for (listed, mut watch) in begun {
            let mut records: std::collections::BTreeMap<_, _> =
                listed.into_iter().map(|record| (record.id, record)).collect();
            for event in drain(&mut watch) {
                match event {
                    WatchEvent::Inserted { record } => {
                        assert_eq!(records.insert(record.id, record), None);
                    }
                    WatchEvent::Updated { old, new } => {
                        assert_eq!(records.insert(new.id, new), Some(old));
                    }
                    WatchEvent::Removed { record, reason } => {
                        assert_eq!(reason, Deleted);
                        assert_eq!(records.remove(&record.id), Some(record));
                    }
                }
            }
            assert_eq!(records.into_values().collect::<Vec<_>>(), expected);
        }
    });
}

/// A peer's version of a message, or its removal of one.
fn deliver(store: &NetabaseStore, place: &Place, id: u64, record: Option<&Message>, expires: u64) {
    place.time.advance(Duration::from_millis(10));
    let payload = record.map(|record| EncodedRecord::of(record).unwrap().payload);
    let timestamp = Timestamp::from_unix_millis(place.time.now() + 1_000);
    let envelope = Envelope::sign(&identity(9), &record_key(id), timestamp, expires, payload.as_deref());
    assert_eq!(store.replica().admit(record_key(id).as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
}

fn changes_by_peers_are_seen(place: &Place) {
    let (store, messages) = open(place);
    let mut watch = messages.watch(WatchFrom::Now).unwrap();
    messages.put(&message(1, "hall")).unwrap();
    deliver(&store, place, 1, Some(&message(1, "yard")), 0);
    deliver(&store, place, 2, Some(&message(2, "yard")), 0);
    deliver(&store, place, 1, None, 0);
    // A later program's version cannot be read, and is a change all the same.
    let mut payload = EncodedRecord::of(&message(2, "attic")).unwrap().payload;
    payload[0] = 2;
    let timestamp = Timestamp::from_unix_millis(place.time.now() + 2_000);
    let newer = Envelope::sign(&identity(9), &record_key(2), timestamp, 0, Some(&payload));
    assert_eq!(store.replica().admit(record_key(2).as_bytes(), newer.as_bytes()), Ok(true));
    store.flush().unwrap();
    let seen: Vec<_> = std::iter::from_fn(|| watch.try_next().unwrap()).collect();
    let events: Vec<_> = seen.iter().map(|seen| seen.event.clone()).collect();
    let expected = [
        inserted(message(1, "hall")),
        updated(message(1, "hall"), message(1, "yard")),
        inserted(message(2, "yard")),
        removed(message(1, "yard"), Deleted),
        removed(message(2, "yard"), RemovalReason::Unreadable),
    ];
    assert_eq!(events, expected);
    let origins: Vec<_> = seen.iter().map(|seen| seen.origin).collect();
    assert_eq!(origins, [Local, Network, Network, Network, Network]);
    let last = changes(&store, WatchFrom::After(4)).unwrap();
    assert_eq!(last[0].change.envelope, Some(newer));
}

fn an_expired_record_is_seen_to_leave(place: &Place) {
    let (store, messages) = open(place);
    deliver(&store, place, 1, Some(&message(1, "hall")), place.time.now() + 5_000);
    let mut watch = messages.query().room("hall").watch(WatchFrom::Now).unwrap();
    place.time.advance(Duration::from_secs(10));
    // Wakes the writer, which sweeps after it.
    messages.put(&message(2, "yard")).unwrap();
    let watched = watch.next_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(watched.event, removed(message(1, "hall"), RemovalReason::Expired));
    let change = &changes(&store, WatchFrom::After(watched.sequence - 1)).unwrap()[0].change;
    assert_eq!((change.kind, &change.envelope), (ChangeKind::Expired, &change.previous));
}

fn a_batch_that_fails_is_no_change(place: &Place) {
    let (store, messages) = open(place);
    messages.put(&message(1, "hall")).unwrap();
    let mut all = store.changes(WatchFrom::Now).unwrap();
    let held = HeldWriter::hold(&store, |store| {
        store.replica().submit(&EncodedRecord::of(&message(2, "hall")).unwrap(), |_| ()).unwrap();
    });
    // In one group: one that fails between two that do not.
    let (sender, receiver) = sync_channel(3);
    for (id, slug) in [(3, "m3"), (4, "m1"), (5, "m5")] {
        let sender = sender.clone();
        let record = EncodedRecord::of(&Message { slug: slug.into(), ..message(id, "hall") }).unwrap();
        store.replica().submit(&record, move |result| sender.send(result.is_ok()).unwrap()).unwrap();
    }
    held.release();
    assert_eq!([(); 3].map(|()| receiver.recv_timeout(PATIENCE).unwrap()), [true, false, true]);
    let failing = [message(6, "hall"), Message { slug: "m1".into(), ..message(7, "hall") }];
    messages.put_many(&failing).unwrap_err();
    messages.insert(&message(1, "hall")).unwrap_err();
    messages.put(&message(8, "hall")).unwrap();
    let seen = std::iter::from_fn(|| all.try_next().unwrap());
    let seen: Vec<_> = seen.map(|seen| (seen.sequence, seen.change.key)).collect();
    assert_eq!(seen, [(2, record_key(2)), (3, record_key(3)), (4, record_key(5)), (5, record_key(8))]);
}

fn a_wait_ends_in_time(place: &Place) {
    let (store, messages) = open(place);
    let mut watch = messages.watch(WatchFrom::Now).unwrap();
    assert!(watch.next_timeout(Duration::from_millis(1)).unwrap().is_none());
    // Changes of others do not make it wait for longer.
    store.open_tree().unwrap().put(&account("ada", "a@x")).unwrap();
    assert!(watch.next_timeout(Duration::ZERO).unwrap().is_none());
    messages.put(&message(1, "hall")).unwrap();
    assert!(watch.next_timeout(Duration::MAX).unwrap().is_some());
}
