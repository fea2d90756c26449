//! Durability after a write, after a flush, after some time and after closing.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use netabase_store::{Durability, NetabaseStore, StorageBackend, Tree, WatchFrom};

use crate::common::*;

on_every_backend! {
    an_immediate_write_is_on_the_disk,
    a_flush_brings_everything_to_the_disk,
    unflushed_writes_are_lost_as_a_whole_and_nothing_else,
    an_interval_passes_and_the_write_is_on_the_disk,
    a_lazy_write_does_not_hold_up_an_interval,
    a_closed_store_has_everything,
    an_unflushed_write_is_seen_at_once,
    an_immediate_write_brings_those_before_it,
    groups_are_counted,
}

fn with(place: &Place, durability: Durability) -> Place {
    let mut place = place.elsewhere();
    place.options.durability = durability;
    place
}

/// Copies the files of a database as they are: what a crash would leave.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_file() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        match copy(&from.join(&name), &to.join(&name)) {
            // sled writes snapshots of its own under names that go away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Opens what a crash at this moment would leave.
fn after_a_crash(place: &Place) -> (Place, NetabaseStore) {
    let left = place.elsewhere();
    copy(&place.path(), &left.path()).unwrap();
    let store = left.open();
    (left, store)
}

/// The ids that are there, after a comparison of everything that belongs to them.
fn ids(store: &NetabaseStore) -> Vec<i64> {
    let tree = store.open_tree::<Customer>().unwrap();
    let ids: Vec<_> = tree.iter().unwrap().map(|customer| customer.unwrap().id).collect();
    let found: Vec<_> = tree.query().name("Ada").rows().unwrap().map(|row| row.unwrap().id).collect();
    assert_eq!(found, ids);
    assert_eq!(tree.len().unwrap(), u64::try_from(ids.len()).unwrap());
    let mut changes = store.changes(WatchFrom::Oldest).unwrap();
    let changes = std::iter::from_fn(|| changes.try_next().unwrap());
    assert_eq!(changes.count(), ids.len(), "each was stored once");
    ids
}

fn open(place: &Place) -> (NetabaseStore, Tree<Customer>) {
    let store = place.open();
    let tree = store.open_tree().unwrap();
    (store, tree)
}

fn put(tree: &Tree<Customer>, ids: std::ops::Range<i64>) {
    for id in ids {
        tree.put(&customer(id, "Ada")).unwrap();
    }
}

fn an_immediate_write_is_on_the_disk(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let (_store, tree) = open(place);
    for id in 0..5 {
        put(&tree, id..id + 1);
        let (_left, store) = after_a_crash(place);
        assert_eq!(ids(&store), (0..=id).collect::<Vec<_>>());
    }
}

fn a_flush_brings_everything_to_the_disk(place: &Place) {
    for durability in [Durability::OnFlush, Durability::Interval] {
        let place = with(place, durability);
        let (store, tree) = open(&place);
        for round in 0..3 {
            put(&tree, round * 10..round * 10 + 10);
            store.flush().unwrap();
            if place.is_on_disk() {
                let (_left, store) = after_a_crash(&place);
                assert_eq!(ids(&store), (0..round * 10 + 10).collect::<Vec<_>>());
            }
        }
        store.flush().unwrap();
        assert_eq!(ids(&store).len(), 30);
    }
}

fn unflushed_writes_are_lost_as_a_whole_and_nothing_else(place: &Place) {
    let place = with(place, Durability::OnFlush);
    if !place.is_on_disk() {
        return;
    }
    let (store, tree) = open(&place);
    put(&tree, 0..10);
    store.flush().unwrap();
    put(&tree, 10..20);
    let (left, crashed) = after_a_crash(&place);
    let there = ids(&crashed);
    assert!(there.len() >= 10 && there.iter().copied().eq(0..there.len().try_into().unwrap()), "{there:?}");
    if place.options.backend == StorageBackend::Redb {
        assert_eq!(there.len(), 10, "this test tells the durabilities apart");
    }
    // Life goes on.
    put(&crashed.open_tree().unwrap(), 20..30);
    drop(crashed);
    assert_eq!(ids(&left.open()).len(), there.len() + 10);
}

fn an_interval_passes_and_the_write_is_on_the_disk(place: &Place) {
    let place = with(place, Durability::Interval);
    if !place.is_on_disk() {
        return;
    }
    let (store, tree) = open(&place);
    put(&tree, 0..10);
    let written = store.counters().commits;
    // The flush is a commit of its own.
    let begin = Instant::now();
    while store.counters().commits == written {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let (_left, store) = after_a_crash(&place);
    assert_eq!(ids(&store), (0..10).collect::<Vec<_>>());
}

fn a_lazy_write_does_not_hold_up_an_interval(place: &Place) {
    let place = with(place, Durability::Interval);
    let (store, tree) = open(&place);
    put(&tree, 0..1);
    let key = netabase_store::RecordKey::of(&CustomerPrimaryKey(0)).unwrap();
    let envelope = store.envelope(&key).unwrap().unwrap();
    // Half a second is how long a lazy write would wait by itself. A machine may be busy, but not
    // always.
    let in_time = (0..5).any(|_| {
        put(&tree, 0..1);
        let (begin, written) = (Instant::now(), store.counters().commits);
        store.replica().schedule(&key, &envelope, Some(1));
        while store.counters().commits == written {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        begin.elapsed() < Duration::from_millis(450)
    });
    assert!(in_time);
}

fn a_closed_store_has_everything(place: &Place) {
    for durability in [Durability::Immediate, Durability::Interval, Durability::OnFlush] {
        let place = with(place, durability);
        if !place.is_on_disk() {
            return;
        }
        let (store, tree) = open(&place);
        put(&tree, 0..10);
        drop((store, tree));
        let (_left, store) = after_a_crash(&place);
        assert_eq!(ids(&store).len(), 10);
    }
}

fn an_unflushed_write_is_seen_at_once(place: &Place) {
    let place = with(place, Durability::OnFlush);
    let (store, tree) = open(&place);
    for id in 0..10 {
        put(&tree, id..id + 1);
        assert_eq!(tree.get(&CustomerPrimaryKey(id)).unwrap(), Some(customer(id, "Ada")));
    }
    assert_eq!(tree.iter().unwrap().count(), 10);
    // Followers are told what no crash can take back.
    let mut changes = store.changes(WatchFrom::Oldest).unwrap();
    assert!(changes.try_next().unwrap().is_none());
    store.flush().unwrap();
    assert_eq!(changes.next_timeout(PATIENCE).unwrap().unwrap().sequence, 1);
    assert_eq!(ids(&store).len(), 10);
}

fn an_immediate_write_brings_those_before_it(place: &Place) {
    let mut place = with(place, Durability::OnFlush);
    if !place.is_on_disk() {
        return;
    }
    let (store, tree) = open(&place);
    put(&tree, 0..10);
    drop((store, tree));
    place.options.durability = Durability::Immediate;
    let (_store, tree) = open(&place);
    put(&tree, 10..11);
    let (_left, store) = after_a_crash(&place);
    assert_eq!(ids(&store).len(), 11);
}

fn groups_are_counted(place: &Place) {
    for durability in [Durability::Immediate, Durability::OnFlush] {
        let (store, tree) = open(&with(place, durability));
        assert_eq!(store.counters().commits, 0);
        put(&tree, 0..3);
        assert_eq!(store.counters().commits, 3);
        tree.put_many(&[customer(4, "Ada"), customer(5, "Ada")]).unwrap();
        assert_eq!(store.counters().commits, 4);
        store.flush().unwrap();
        assert_eq!(store.counters().commits, 5);
    }
}
