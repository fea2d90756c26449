//! Group commit, callbacks and the order of events.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use netabase_store::changes::StoreEvent;
use netabase_store::query::PageBounds;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Clock, Envelope, NetabaseDefinition, NetabaseStore, Origin, Query, RecordKey, StorageBackend,
    StoreError, Timestamp, Tree,
};

use crate::common::*;

on_every_backend! {
    writes_that_wait_share_commits,
    what_the_writer_does_is_counted,
    what_peers_bring_shares_commits_though_nothing_waits,
    changes_arrive_in_the_order_of_their_commits,
    a_transaction_is_seen_whole_or_not_at_all,
    the_answer_says_what_a_write_changed,
    a_callback_may_submit_while_the_queue_is_full,
    a_callback_that_waits_for_a_write_is_refused,
    a_callback_that_panics_stops_nobody,
    a_write_that_panics_is_answered_and_not_shown,
    what_was_submitted_is_written_before_a_store_closes,
    what_a_peer_has_sent_is_seen_by_every_read,
    a_submitted_version_is_seen_at_once,
    a_batch_that_was_overtaken_wins_as_a_whole,
    a_transaction_that_was_overtaken_wins_as_a_whole,
    a_put_is_not_lost_to_a_peers_version_that_came_meanwhile,
    a_submitted_version_that_was_superseded_says_so,
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn encoded(id: i64) -> EncodedRecord {
    EncodedRecord::of(&customer(id, "Ada")).unwrap()
}

fn submit(store: &NetabaseStore, id: i64) {
    store.replica().submit(&encoded(id), |result| assert!(result.is_ok())).unwrap();
}

fn what_the_writer_does_is_counted(place: &Place) {
    let store = place.open();
    let held = HeldWriter::hold(&store, |store| submit(store, -1));
    let before = store.counters();
    (0..100).for_each(|id| submit(&store, id));
    let waiting = store.counters();
    assert_eq!(waiting.waiting_writes, before.waiting_writes + 100);
    assert!(waiting.waiting_bytes > before.waiting_bytes);
    held.release();
    store.flush().unwrap();
    let after = store.counters();
    assert_eq!((after.waiting_writes, after.waiting_bytes), (0, 0));
    assert!(after.commit_writes.sum >= before.commit_writes.sum + 100);
    assert_eq!(after.commits - before.commits, after.commit_writes.count() - before.commit_writes.count());
    assert_eq!(after.commit_nanos.count(), after.commit_writes.count());
    assert!(after.commit_nanos.sum > before.commit_nanos.sum);
    let statistics = store.statistics().unwrap();
    assert_eq!(after.usage.records, statistics.own.records + statistics.others.records);
    assert_eq!(after.usage.bytes(), statistics.own.bytes() + statistics.others.bytes());
    assert_eq!(after.disk_bytes.is_some(), statistics.disk_bytes.is_some());
}

fn writes_that_wait_share_commits(place: &Place) {
    let store = place.open();
    let held = HeldWriter::hold(&store, |store| submit(store, -1));
    let before = store.counters().commits;
    let (sender, receiver) = sync_channel(100);
    for id in 0..100 {
        let sender = sender.clone();
        store.replica().submit(&encoded(id), move |result| sender.send(result.unwrap()).unwrap()).unwrap();
    }
    held.release();
    for _ in 0..100 {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Some(ChangeKind::Stored));
    }
    assert_eq!(store.counters().commits - before, 1);
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 101);
}

fn what_peers_bring_shares_commits_though_nothing_waits(place: &Place) {
    /// How long peers' records gather at least, after the first.
    const PACE: Duration = Duration::from_millis(20);
    let store = place.open();
    let records: Vec<_> = (0..300).map(|id| (key(id), of_a_peer(id, place))).collect();
    let (before, start) = (store.counters().commits, Instant::now());
    for (key, envelope) in &records {
        assert!(store.replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap());
        assert_eq!(store.envelope(key).unwrap().as_ref(), Some(envelope), "it is seen at once");
    }
    let (commits, time) = (store.counters().commits - before, start.elapsed());
    let most = time.as_nanos() / PACE.as_nanos() + 1;
    assert!(u128::from(commits) <= most, "{commits} commits in {time:?}");
    store.flush().unwrap();
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 300);
}

fn changes_arrive_in_the_order_of_their_commits(place: &Place) {
    let store = place.open();
    let events = events(&store);
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put_many(&[customer(1, "Ada"), customer(2, "Ada")]).unwrap();
    tree.put(&customer(1, "Grace")).unwrap();
    tree.remove(&CustomerPrimaryKey(2)).unwrap();
    tree.remove(&CustomerPrimaryKey(3)).unwrap();
    tree.put(&customer(2, "Ada")).unwrap();
    let expected = [
        (1, ChangeKind::Stored),
        (2, ChangeKind::Stored),
        (1, ChangeKind::Updated),
        (2, ChangeKind::Removed),
        (2, ChangeKind::Stored),
    ];
    let mut last = None;
    for (id, kind) in expected {
        let change = next_change(&events);
        assert_eq!((change.key, change.kind, change.origin), (key(id), kind, Origin::Local));
        assert_eq!(change.previous.is_some(), kind != ChangeKind::Stored);
        let time = change.envelope.and_then(|envelope| envelope.timestamp());
        assert!(time.is_none() || time > last, "versions only grow");
        last = time.or(last);
    }
    assert!(events.try_recv().is_err(), "the removal of nothing is no change");
}

fn a_transaction_is_seen_whole_or_not_at_all(place: &Place) {
    if !place.has_snapshots() {
        return;
    }
    let rounds = 50;
    let store = place.open();
    let (tree, done) = (store.open_tree::<Order>().unwrap(), AtomicBool::new(false));
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            begin.wait();
            for cents in 1..=rounds {
                let mut transaction = store.begin_write();
                for id in 1..=3 {
                    transaction.put(&Order { id, customer: 1, cents }).unwrap();
                }
                transaction.commit().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        begin.wait();
        let mut seen = 0;
        while !done.load(Ordering::Acquire) || seen == 0 {
            let cents: Vec<_> = tree.iter().unwrap().map(|order| order.unwrap().cents).collect();
            assert!(cents.is_empty() || cents == [cents[0]; 3], "{cents:?}");
            seen += u64::try_from(cents.len()).unwrap();
        }
    });
    assert_eq!(tree.find(OrderCustomerSecondaryKey(1)).unwrap()[2].cents, rounds);
}

fn the_answer_says_what_a_write_changed(place: &Place) {
    let store = place.open();
    let (sender, receiver) = sync_channel(1);
    let kind = |id, name: &str| {
        let sender = sender.clone();
        let record = EncodedRecord::of(&customer(id, name)).unwrap();
        let (stored, envelope) =
            store.replica().submit(&record, move |result| sender.send(result).unwrap()).unwrap();
        let kind = receiver.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!((store.envelope(&stored).unwrap(), stored), (Some(envelope), key(id)));
        kind
    };
    assert_eq!(kind(1, "Ada"), Some(ChangeKind::Stored));
    assert_eq!(kind(1, "Grace"), Some(ChangeKind::Updated));
}

/// More than the writer's queue holds.
const MANY: i64 = 70_000;

fn a_callback_may_submit_while_the_queue_is_full(place: &Place) {
    if place.is_on_disk() {
        return; // nothing here differs by backend, and it takes long
    }
    let store = place.open();
    let clone = store.clone();
    let (sender, receiver) = sync_channel(1);
    store
        .replica()
        .submit(&encoded(-1), move |_| {
            let record = encoded(0);
            for _ in 0..MANY {
                clone.replica().submit(&record, |result| assert!(result.is_ok())).unwrap();
            }
            clone.replica().submit(&encoded(1), move |result| sender.send(result.unwrap()).unwrap()).unwrap();
        })
        .unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Some(ChangeKind::Stored));
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 3);
}

fn a_callback_that_waits_for_a_write_is_refused(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let mut transaction = store.begin_write();
    let (sender, receiver) = sync_channel(3);
    store
        .replica()
        .submit(&encoded(1), move |_| {
            transaction.put(&customer(4, "Ada")).unwrap();
            sender.send(tree.put(&customer(2, "Ada")).err()).unwrap();
            sender.send(tree.remove(&CustomerPrimaryKey(1)).err()).unwrap();
            sender.send(transaction.commit().err()).unwrap();
        })
        .unwrap();
    for _ in 0..3 {
        let error = receiver.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(error, Some(StoreError::InCallback)), "{error:?}");
    }
    let tree = store.open_tree::<Customer>().unwrap();
    assert_eq!(tree.get(&CustomerPrimaryKey(2)).unwrap(), None, "nothing was shown either");
    assert_eq!(tree.len().unwrap(), 1);
}

fn a_callback_that_panics_stops_nobody(place: &Place) {
    let store = place.open();
    let panicked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&panicked);
    store.set_observer(move |event| {
        if matches!(&event, StoreEvent::Changed(change) if change.key == key(1)) {
            flag.store(true, Ordering::Release);
            panic!("the observer of this test panics");
        }
    });
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    assert!(panicked.load(Ordering::Acquire));
    store.replica().submit(&encoded(2), |_| panic!("the callback of this test panics")).unwrap();
    tree.put(&customer(3, "Ada")).unwrap();
    assert_eq!(tree.len().unwrap(), 3);
}

fn a_write_that_panics_is_answered_and_not_shown(place: &Place) {
    let (mut place, time) = (place.elsewhere(), place.time.clone());
    let asks = Arc::new(AtomicUsize::new(usize::MAX));
    let left = Arc::clone(&asks);
    place.options.clock = Clock::from_fn(move || {
        let is_writer = thread::current().name() == Some("netabase-writer");
        assert!(!is_writer || left.fetch_sub(1, Ordering::AcqRel) != 1, "the clock of this test panics");
        time.now()
    });
    let store = place.open();
    let held = HeldWriter::hold(&store, |store| submit(store, 0));
    // The writer asks for the time when it looks for expired records, then in the next write.
    asks.store(2, Ordering::Release);
    let (sender, receiver) = sync_channel(2);
    for id in 1..=2 {
        let sender = sender.clone();
        store.replica().submit(&encoded(id), move |result| sender.send(result).unwrap()).unwrap();
    }
    held.release();
    for _ in 1..=2 {
        let result = receiver.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(result, Err(StoreError::Poisoned(_))), "{result:?}");
    }
    assert_eq!(store.envelope(&key(1)).unwrap(), None, "what was not written is not shown");
    let tree = store.open_tree::<Customer>().unwrap();
    assert!(matches!(tree.put(&customer(3, "Ada")), Err(StoreError::Poisoned(_))));
    assert_eq!(tree.len().unwrap(), 1);
}

fn what_was_submitted_is_written_before_a_store_closes(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    let held = HeldWriter::hold(&store, |store| submit(store, 0));
    for id in 1..50 {
        let (key, envelope) = store.replica().submit(&encoded(id), |result| assert!(result.is_ok())).unwrap();
        if id == 7 {
            store.replica().schedule(&key, &envelope, Some(1));
        }
    }
    held.release();
    drop(store);
    let store = place.open();
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 50);
    assert_eq!(store.replica().due(10).unwrap(), [key(7)]);
}

/// Signs a customer as a peer would, and has the store take it in.
fn receive(store: &NetabaseStore, id: i64, name: &str) {
    let payload = EncodedRecord::of(&customer(id, name)).unwrap().payload;
    let time = Timestamp::from_unix_millis(START);
    let envelope = Envelope::sign(&identity(9), &key(id), time, 0, Some(&payload));
    assert!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()).unwrap());
}

fn what_a_peer_has_sent_is_seen_by_every_read(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let raw = Query::<Customer>::new().raw().resolve(ShopDefinition::SCHEMA).unwrap();
    for id in 1..20_i64 {
        // The records after the first gather for a while before they are written.
        receive(&store, id, "Ada");
        let there = usize::try_from(id).unwrap();
        match id % 6 {
            0 => assert_eq!(tree.find(CustomerNameSecondaryKey("Ada".into())).unwrap().len(), there),
            1 => assert_eq!(tree.query().count().unwrap(), id.unsigned_abs()),
            2 => assert_eq!(tree.iter().unwrap().count(), there),
            3 => assert_eq!(tree.len().unwrap(), id.unsigned_abs()),
            4 => {
                let bounds = PageBounds { entries: usize::MAX, bytes: usize::MAX };
                let mut found = 0;
                let take = |_: &RecordKey, _| {
                    found += 1;
                    true
                };
                raw.page(&store, bounds, |_| true, take).unwrap();
                assert_eq!(found, there);
            }
            _ => match store.read() {
                Ok(read) => {
                    let tree = read.open_tree::<Customer>().unwrap();
                    assert_eq!(tree.len().unwrap(), id.unsigned_abs());
                }
                Err(error) => assert!(!place.has_snapshots(), "{error}"),
            },
        }
    }
}

#[test]
fn a_writer_that_is_held_up_does_not_hold_up_the_reads() {
    let store = Place::new(StorageBackend::Memory).open();
    let tree = store.open_tree::<Customer>().unwrap();
    let held = HeldWriter::hold(&store, |store| receive(store, 0, "Ada"));
    receive(&store, 1, "Grace");
    assert!(tree.contains(&CustomerPrimaryKey(1)).unwrap());
    assert_eq!(tree.len().unwrap(), 1, "it waits for a while, and goes on with what is committed");
    held.release();
    assert_eq!(tree.len().unwrap(), 2);
}

fn a_submitted_version_is_seen_at_once(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let held = HeldWriter::hold(&store, |store| submit(store, 0));
    let (_, envelope) = store.replica().submit(&encoded(1), |_| ()).unwrap();
    let signed = store.author().is_some();
    assert_eq!(store.envelope(&key(1)).unwrap(), signed.then_some(envelope));
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), signed.then(|| customer(1, "Ada")));
    assert_eq!(tree.get_many(&[CustomerPrimaryKey(1)]).unwrap()[0].is_some(), signed);
    assert_eq!(tree.contains(&CustomerPrimaryKey(1)).unwrap(), signed);
    assert_eq!(tree.len().unwrap(), 1, "scans see what is on the disk");
    if signed {
        store.replica().submit_removal(&key(0), |_| ()).unwrap();
        assert_eq!(tree.get(&CustomerPrimaryKey(0)).unwrap(), None);
        assert!(store.envelope(&key(0)).unwrap().unwrap().is_tombstone());
        let newest = store.replica().submit(&encoded(0), |_| ()).unwrap().1;
        assert_eq!(store.envelope(&key(0)).unwrap(), Some(newest));
    }
    held.release();
    tree.put(&customer(2, "Ada")).unwrap();
    assert_eq!(tree.len().unwrap(), 3);
}

fn names(tree: &Tree<Customer>) -> Vec<String> {
    tree.iter().unwrap().map(|customer| customer.unwrap().name).collect()
}

fn a_batch_that_was_overtaken_wins_as_a_whole(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let (first, second) = (customer(1, "outer"), customer(2, "outer"));
    // By the time the second record is asked for, the first one is signed, but not committed.
    let inner = [customer(1, "inner"), customer(2, "inner")];
    let overtaking = std::iter::once(&second).inspect(|_| tree.put_many(&inner).unwrap());
    tree.put_many(std::iter::once(&first).chain(overtaking)).unwrap();
    assert_eq!(names(&tree), ["outer", "outer"]);
    assert_eq!(tree.find(CustomerNameSecondaryKey("outer".into())).unwrap().len(), 2);
    assert_eq!(tree.find(CustomerNameSecondaryKey("inner".into())).unwrap(), []);
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(first));
}

thread_local! {
    /// A callback of the clock of `interrupted` for the next call on this thread.
    static INTERRUPTION: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
}

/// Opens a store whose signing can be interrupted, after it has read what it replaces.
fn interrupted(place: &Place) -> NetabaseStore {
    let (mut place, time) = (place.elsewhere(), place.time.clone());
    place.options.clock = Clock::from_fn(move || {
        if let Some(interrupt) = INTERRUPTION.with_borrow_mut(Option::take) {
            interrupt();
        }
        time.now()
    });
    place.open()
}

fn interrupt(interruption: impl FnOnce() + 'static) {
    INTERRUPTION.set(Some(Box::new(interruption)));
}

fn a_transaction_that_was_overtaken_wins_as_a_whole(place: &Place) {
    let store = interrupted(place);
    if store.author().is_none() {
        return;
    }
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "before")).unwrap();
    let mut outer = store.begin_write();
    outer.put(&customer(1, "outer")).unwrap();
    outer.remove(&CustomerPrimaryKey(2)).unwrap();
    outer.put(&customer(3, "outer")).unwrap();
    let (inner, ids) = (tree.clone(), 1..=3);
    interrupt(move || ids.for_each(|id| inner.put(&customer(id, "inner")).unwrap()));
    outer.commit().unwrap();
    assert!(INTERRUPTION.take().is_none(), "the transaction was overtaken");
    assert!(store.envelope(&key(2)).unwrap().unwrap().is_tombstone());
    assert_eq!(names(&tree), ["outer", "outer"]);
}

/// A peer's version, signed later than anything of this store.
fn of_a_peer(id: i64, place: &Place) -> Envelope {
    let timestamp = Timestamp::from_unix_millis(place.time.now() + 1_000);
    let record = EncodedRecord::of(&customer(id, "peer")).unwrap();
    Envelope::sign(&identity(9), &key(id), timestamp, 0, Some(&record.payload))
}

fn a_put_is_not_lost_to_a_peers_version_that_came_meanwhile(place: &Place) {
    let store = interrupted(place);
    if store.author().is_none() {
        return;
    }
    let tree = store.open_tree::<Customer>().unwrap();
    let (clone, peers) = (store.clone(), of_a_peer(1, place));
    let timestamp = peers.timestamp();
    interrupt(move || assert!(clone.replica().admit(key(1).as_bytes(), peers.as_bytes()).unwrap()));
    tree.put(&customer(1, "Ada")).unwrap();
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Ada")));
    let envelope = store.envelope(&key(1)).unwrap().unwrap();
    envelope.verify(&key(1)).unwrap();
    assert_eq!(envelope.author(), store.author());
    assert!(envelope.timestamp() > timestamp);
    place.time.advance(Duration::from_secs(60));
    assert_eq!(store.replica().due(10).unwrap(), [key(1)]);
}

fn a_submitted_version_that_was_superseded_says_so(place: &Place) {
    let store = interrupted(place);
    if store.author().is_none() {
        return;
    }
    let (clone, peers) = (store.clone(), of_a_peer(1, place));
    let expected = Some(peers.clone());
    interrupt(move || assert!(clone.replica().admit(key(1).as_bytes(), peers.as_bytes()).unwrap()));
    let (sender, receiver) = sync_channel(1);
    store.replica().submit(&encoded(1), move |result| sender.send(result.unwrap()).unwrap()).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), None);
    assert_eq!(store.envelope(&key(1)).unwrap(), expected);
}
