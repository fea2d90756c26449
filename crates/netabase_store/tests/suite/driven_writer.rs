//! Stores whose writer is driven by its callers, and whose clock moves only when it is told.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use netabase_store::admin::CheckOptions;
use netabase_store::changes::WatchFrom;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Durability, Envelope, NetabaseStore, RecordKey, StorageBackend, StoreError, Timestamp, WriterMode,
};

use crate::common::*;

/// How long a write may wait for the disk with `Durability::Interval`.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

const BACKENDS: [StorageBackend; 3] = [StorageBackend::Redb, StorageBackend::Sled, StorageBackend::Memory];

fn encoded(id: i64) -> EncodedRecord {
    EncodedRecord::of(&customer(id, "Ada")).unwrap()
}

fn len(store: &NetabaseStore) -> u64 {
    store.open_tree::<Customer>().unwrap().len().unwrap()
}

/// Drives the writer until there is nothing to do; returns for how long.
fn drive(store: &NetabaseStore) -> Duration {
    loop {
        let rest = store.drive_writer().unwrap();
        if !rest.is_zero() {
            return rest;
        }
    }
}

/// A version of a customer that a peer has signed.
fn of_a_peer(id: i64, place: &Place) -> (RecordKey, Envelope) {
    let key = RecordKey::of(&CustomerPrimaryKey(id)).unwrap();
    let timestamp = Timestamp::from_unix_millis(place.time.now());
    let envelope = Envelope::sign(&identity(9), &key, timestamp, 0, Some(&encoded(id).payload));
    (key, envelope)
}

#[test]
fn nothing_is_written_before_the_writer_is_driven() {
    for backend in BACKENDS {
        let place = Place::new(backend).driven();
        let store = place.open();
        let (sender, written) = sync_channel(1);
        let caller = thread::current().id();
        store
            .replica()
            .submit(&encoded(1), move |result| sender.send((result.is_ok(), thread::current().id())).unwrap())
            .unwrap();
        assert_eq!((store.counters().waiting_writes, len(&store)), (1, 0));
        assert!(written.try_recv().is_err());
        drive(&store);
        assert_eq!((store.counters().waiting_writes, len(&store)), (0, 1));
        assert_eq!(written.try_recv(), Ok((true, caller)), "the callback runs on the calling thread");
    }
}

#[test]
fn a_call_that_waits_writes_what_was_queued_before() {
    for backend in BACKENDS {
        let place = Place::new(backend).driven();
        let store = place.open();
        let (sender, written) = sync_channel(1);
        store.replica().submit(&encoded(1), move |result| sender.send(result.is_ok()).unwrap()).unwrap();
        store.open_tree().unwrap().put(&customer(2, "Grace")).unwrap();
        assert_eq!(written.try_recv(), Ok(true));
        assert_eq!((len(&store), store.counters().commits), (2, 1), "they share a commit");
    }
}

#[test]
fn a_writer_with_a_thread_leaves_nothing_to_drive() {
    let place = Place::new(StorageBackend::Memory);
    assert_eq!(place.options.writer, WriterMode::Thread, "which is the default here");
    assert_eq!(place.open().drive_writer().unwrap(), Duration::MAX);
}

#[test]
fn an_interval_passes_when_the_clock_says_so() {
    for backend in BACKENDS {
        let mut place = Place::new(backend).driven();
        place.options.durability = Durability::Interval;
        let store = place.open();
        let mut changes = store.changes(WatchFrom::Now).unwrap();
        store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
        assert_eq!(drive(&store), FLUSH_INTERVAL);
        assert!(changes.try_next().unwrap().is_none(), "it is not on the disk");
        place.time.advance(FLUSH_INTERVAL.saturating_sub(Duration::from_millis(1)));
        assert_eq!(drive(&store), Duration::from_millis(1));
        assert!(changes.try_next().unwrap().is_none());
        place.time.advance(Duration::from_millis(1));
        drive(&store);
        assert_eq!(changes.try_next().unwrap().map(|change| change.sequence), Some(1));
    }
}

#[test]
fn what_peers_bring_gathers_by_the_clock() {
    let place = Place::signed(StorageBackend::Memory).driven();
    let store = place.open();
    let admit = |id| {
        let (key, envelope) = of_a_peer(id, &place);
        assert!(store.replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap());
    };
    admit(1);
    drive(&store);
    assert_eq!(store.counters().commits, 1, "the first waits for nothing");
    (2..10).for_each(admit);
    let rest = drive(&store);
    assert!(rest > Duration::ZERO && rest < Duration::from_secs(1), "{rest:?}");
    assert_eq!(store.counters().commits, 1, "those after it wait for more");
    place.time.advance(rest);
    drive(&store);
    assert_eq!((store.counters().commits, len(&store)), (2, 9));
}

#[test]
fn a_lazy_write_waits_no_longer_than_the_clock_says() {
    let place = Place::signed(StorageBackend::Memory).driven();
    let store = place.open();
    drive(&store);
    let (key, envelope) = of_a_peer(1, &place);
    store.replica().keep(store.replica().check_record(&key, envelope.as_bytes()).unwrap());
    let rest = drive(&store);
    assert!(rest > Duration::ZERO && rest < Duration::from_secs(1), "{rest:?}");
    place.time.advance(rest / 2);
    assert_eq!(drive(&store), rest.saturating_sub(rest / 2), "looking at it does not make it wait anew");
    assert_eq!(store.counters().commits, 0);
    place.time.advance(rest.saturating_sub(rest / 2));
    drive(&store);
    assert_eq!(store.counters().commits, 1);
}

#[test]
fn expired_records_go_when_the_clock_says_so() {
    for backend in BACKENDS {
        let mut place = Place::signed(backend).driven();
        place.options.record_lifetime = Some(Duration::from_secs(60));
        let store = place.open();
        store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
        place.time.advance(Duration::from_secs(59));
        drive(&store);
        assert_eq!(store.statistics().unwrap().own.records, 1);
        place.time.advance(Duration::from_secs(2));
        drive(&store);
        assert_eq!(store.statistics().unwrap().own.records, 0);
    }
}

#[test]
fn a_callback_can_neither_wait_for_a_write_nor_drive() {
    let store = Place::new(StorageBackend::Memory).driven().open();
    let (sender, refused) = sync_channel(1);
    let clone = store.clone();
    store
        .replica()
        .submit(&encoded(1), move |_| {
            let put = clone.open_tree().unwrap().put(&customer(2, "Grace")).map(drop);
            sender.send([put, clone.drive_writer().map(drop)]).unwrap();
        })
        .unwrap();
    drive(&store);
    let refused = refused.try_recv().unwrap();
    assert!(refused.iter().all(|result| matches!(result, Err(StoreError::InCallback))), "{refused:?}");
    store.open_tree().unwrap().put(&customer(2, "Grace")).unwrap();
}

#[test]
fn a_full_queue_is_written_by_those_who_fill_it() {
    /// More than the queue holds.
    const MANY: usize = 70_000;
    let store = Place::new(StorageBackend::Memory).driven().open();
    let record = encoded(1);
    for _ in 0..MANY {
        store.replica().submit(&record, |result| assert!(result.is_ok())).unwrap();
    }
    assert!(store.counters().commits > 0 && store.counters().waiting_writes < MANY);
    store.flush().unwrap();
    assert_eq!(store.counters().waiting_writes, 0);
}

#[test]
fn a_write_that_panics_is_answered() {
    let store = Place::new(StorageBackend::Memory).driven().open();
    store.replica().submit(&encoded(1), |_| panic!("a callback that panics, on purpose")).unwrap();
    store.open_tree().unwrap().put(&customer(2, "Grace")).unwrap();
    assert_eq!(len(&store), 2);
}

#[test]
fn what_was_submitted_is_written_before_a_store_closes() {
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        let place = Place::new(backend).driven();
        let store = place.open();
        store.replica().submit(&encoded(1), |result| assert!(result.is_ok())).unwrap();
        drop(store);
        assert_eq!(len(&place.open()), 1);
    }
}

#[test]
fn whoever_waits_for_a_change_drives_the_writer() {
    for backend in BACKENDS {
        let store = Place::new(backend).driven().open();
        let mut changes = store.changes(WatchFrom::Now).unwrap();
        store.replica().submit(&encoded(1), |result| assert!(result.is_ok())).unwrap();
        assert!(changes.try_next().unwrap().is_none(), "which is no waiting");
        assert_eq!(changes.next().unwrap().unwrap().sequence, 1);
    }
}

#[test]
fn a_follower_writes_everything_if_its_store_is_closed_by_a_callback() {
    for backend in BACKENDS {
        let place = Place::new(backend).driven();
        let store = place.open();
        let changes = store.changes(WatchFrom::Now).unwrap();
        let last = store.clone();
        store.replica().submit(&encoded(1), move |_| drop(last)).unwrap();
        store.replica().submit(&encoded(2), |result| assert!(result.is_ok())).unwrap();
        drop(store);
        // The callback has the last handle now, so that the store is closed in the midst of a step.
        assert_eq!(changes.count(), 0, "nothing is read of a closed store");
        if place.is_on_disk() {
            assert_eq!(len(&place.open()), 2);
        }
    }
}

#[test]
fn a_database_is_cared_for_without_a_thread() {
    for backend in BACKENDS {
        let place = Place::signed(backend).driven();
        let store = place.open();
        store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Grace")]).unwrap();
        store.replica().submit(&encoded(3), |result| assert!(result.is_ok())).unwrap();
        let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
        assert_eq!((report.is_clean(), report.records), (true, 3), "what was queued is written before");
        store.rebuild_indexes().unwrap();
        let backup = place.path().with_file_name("copy");
        store.backup(&backup).unwrap();
        assert_eq!(
            store
                .open_tree::<Customer>()
                .unwrap()
                .find(CustomerNameSecondaryKey("Grace".into()))
                .unwrap()
                .len(),
            1
        );
    }
}

#[test]
fn many_threads_drive_one_writer() {
    for backend in BACKENDS {
        let store = Place::signed(backend).driven().open();
        let tree = store.open_tree::<Customer>().unwrap();
        tree.put(&customer(0, "Ada")).unwrap();
        thread::scope(|scope| {
            for part in 0..4 {
                let tree = &tree;
                scope.spawn(move || {
                    for id in 1..=25 {
                        tree.put(&customer(part * 25 + id, "Grace")).unwrap();
                        tree.update(&CustomerPrimaryKey(0), |first| first.notes.push('x')).unwrap();
                    }
                });
            }
        });
        assert_eq!(len(&store), 101);
        assert_eq!(tree.get(&CustomerPrimaryKey(0)).unwrap().unwrap().notes.len(), 100);
    }
}
