//! Files that are damaged, or no databases: an error, or a store that works, and never a panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;
#[allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#[path = "common/disk.rs"]
mod disk;
#[path = "common/tables.rs"]
mod tables;

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use std::path::{Path, PathBuf};

use common::*;
use disk::{Disk, Fault, Loss};
use netabase_store::{
    CheckOptions, NetabaseDefinition, NetabaseStore, SigningKey, StorageBackend, StoreError, StoreOptions,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 300;
/// sled's databases are files in a directory.
const SLED_CASES: u32 = 60;
const PAGE: usize = 4096;

/// What was done to a file.
#[derive(Debug, Clone)]
enum Damage {
    Truncated(Index),
    Flipped(Vec<(Index, u8)>),
    /// Flipped within the bytes that are in use, most of which are at the beginning.
    FlippedEarly(Vec<(u16, u8)>),
    Zeroed(Index),
    Overwritten(Index, u8),
    /// A page that is where another one should be.
    Swapped(Index, Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let (len, pages) = (bytes.len(), bytes.len() / PAGE);
        let page = |index: &Index| {
            let start = index.index(pages.max(1)) * PAGE;
            start..(start + PAGE).min(len)
        };
        match self {
            Self::Truncated(index) => bytes.truncate(index.index(bytes.len())),
            Self::Flipped(flips) => {
                for (index, bit) in flips {
                    let offset = index.index(bytes.len());
                    bytes[offset] ^= 1 << (bit % 8);
                }
            }
            Self::FlippedEarly(flips) => {
                for (offset, bit) in flips {
                    bytes[usize::from(*offset) % len] ^= 1 << (bit % 8);
                }
            }
            Self::Zeroed(index) => bytes[page(index)].fill(0),
            Self::Overwritten(index, byte) => bytes[page(index)].fill(*byte),
            Self::Swapped(from, to) => {
                let copy = bytes[page(from)].to_vec();
                bytes[page(to)].copy_from_slice(&copy);
            }
        }
    }
}

fn a_damage() -> impl Strategy<Value = Damage> {
    let flips = || prop::collection::vec((any::<Index>(), any::<u8>()), 1..2000);
    let early = || prop::collection::vec((any::<u16>(), any::<u8>()), 1..20);
    prop_oneof![
        1 => any::<Index>().prop_map(Damage::Truncated),
        2 => flips().prop_map(Damage::Flipped),
        4 => early().prop_map(Damage::FlippedEarly),
        1 => prop::collection::vec((0..320_u16, any::<u8>()), 1..4).prop_map(Damage::FlippedEarly),
        2 => any::<Index>().prop_map(Damage::Zeroed),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Damage::Overwritten(index, byte)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Swapped(from, to)),
    ]
}

/// Returns the bytes of a database, closed or as a crash leaves it.
fn a_database(closed: bool) -> Vec<u8> {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    fill(&store);
    let crashed = disk.bytes();
    drop(store);
    if closed { disk.bytes() } else { crashed }
}

fn fill(store: &NetabaseStore) {
    let customers = store.open_tree().unwrap();
    for round in 0..4 {
        let all: Vec<_> = (0..300)
            .map(|id| Customer {
                notes: "n".repeat(usize::try_from(id % 40 * 30).unwrap()),
                ..customer(id, &format!("{}", id % (7 + round)))
            })
            .collect();
        customers.put_many(&all).unwrap();
    }
    customers.remove(&CustomerPrimaryKey(5)).unwrap();
    store.open_tree().unwrap().put_many(&(0..50).map(|id| order(id, id % 5)).collect::<Vec<_>>()).unwrap();
}

fn open(disk: &Disk) -> Result<NetabaseStore, StoreError> {
    let options = StoreOptions { cache_bytes: 256 * 1024, ..StoreOptions::default() };
    NetabaseStore::open_with_storage(disk.clone(), Some(ShopDefinition::SCHEMA), options)
}

/// Does everything that can be done; returns the errors.
fn use_everything(store: &NetabaseStore) -> Vec<StoreError> {
    let mut errors = Vec::new();
    let mut keep = |outcome: Result<(), StoreError>| errors.extend(outcome.err());
    let (customers, orders) = (store.open_tree::<Customer>().unwrap(), store.open_tree::<Order>().unwrap());
    keep(customers.iter().and_then(|mut iter| iter.try_for_each(|record| record.map(drop))));
    keep(customers.iter().and_then(|iter| iter.rev().try_for_each(|record| record.map(drop))));
    keep(orders.iter().and_then(|mut iter| iter.try_for_each(|record| record.map(drop))));
    keep(customers.len().map(drop));
    for id in (0..300).step_by(7) {
        keep(customers.get(&CustomerPrimaryKey(id)).map(drop));
    }
    for name in 0..8 {
        keep(customers.find(CustomerNameSecondaryKey(name.to_string())).map(drop));
    }
    keep(store.local_records(None).map(drop));
    keep(store.due(10).map(drop));
    for id in (0..300).step_by(11) {
        keep(customers.put(&customer(id, "again")));
        keep(customers.remove(&CustomerPrimaryKey(id + 1)).map(drop));
    }
    let mut transaction = store.begin_write();
    keep(transaction.get(&CustomerPrimaryKey(2)).map(drop));
    keep(transaction.put(&order(1000, 1)));
    keep(transaction.commit());
    errors
}

fn add(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

#[test]
fn a_damaged_database_is_an_error_or_works() {
    let bytes = [a_database(false), a_database(true)];
    let (refused, failed, fine) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(any::<bool>(), a_damage()), |(closed, damage)| {
        let mut bytes = bytes[usize::from(closed)].clone();
        damage.apply(&mut bytes);
        let disk = Disk::holding(bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| open(&disk).map(|store| use_everything(&store))));
        match outcome {
            Err(_) => return Err(TestCaseError::fail("a panic")),
            Ok(Err(_)) => add(&refused),
            Ok(Ok(errors)) if errors.is_empty() => add(&fine),
            Ok(Ok(_)) => add(&failed),
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(refused.get() > 0 && failed.get() > 0 && fine.get() > 0, "{refused:?} {failed:?} {fine:?}");
}

/// Returns the files of a sled directory, the blobs of large pages among them.
fn files_of_sled(directory: &Path) -> Vec<PathBuf> {
    let list = |name: &str| {
        let entries = directory.join(name).read_dir().into_iter().flatten().map(Result::unwrap);
        let files = entries.filter(|entry| entry.metadata().unwrap().is_file());
        files.map(|entry| Path::new(name).join(entry.file_name())).collect::<Vec<_>>()
    };
    let mut files = [list(""), list("blobs")].concat();
    files.sort();
    files
}

#[test]
fn a_damaged_sled_directory_is_an_error_or_works() {
    let whole = Place::new(StorageBackend::Sled);
    fill(&whole.open());
    wait_until_closed(&whole.path());
    let (refused, opened) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: SLED_CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(any::<Index>(), a_damage()), |(file, damage)| {
        let place = Place::new(StorageBackend::Sled);
        fs::create_dir_all(place.path().join("blobs")).unwrap();
        let files = files_of_sled(&whole.path());
        let damaged = file.index(files.len());
        for (number, name) in files.iter().enumerate() {
            let mut bytes = fs::read(whole.path().join(name)).unwrap();
            if number == damaged {
                damage.apply(&mut bytes);
            }
            fs::write(place.path().join(name), bytes).unwrap();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            place.try_open::<ShopDefinition>().map(|store| use_everything(&store))
        }));
        match outcome {
            Err(_) => return Err(TestCaseError::fail("a panic")),
            Ok(Err(_)) => add(&refused),
            Ok(Ok(_)) => add(&opened),
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(refused.get() > 0 && opened.get() > 0, "{refused:?} {opened:?}");
}

/// Opens a file that is no database, and returns what the user is told.
fn told(path: &Path, backend: StorageBackend) -> String {
    let options = StoreOptions { backend, ..StoreOptions::default() };
    NetabaseStore::open_with(path, Some(ShopDefinition::SCHEMA), options).unwrap_err().to_string()
}

#[test]
fn what_is_no_database_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "Dear diary,\n".repeat(1000)).unwrap();
    let zeros = directory.path().join("zeros");
    fs::write(&zeros, [vec![0; 100_000], b"the end".to_vec()].concat()).unwrap();
    let others = directory.path().join("others");
    let database = redb::Database::create(&others).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for path in [directory.path(), &text, &zeros, &others] {
        for backend in [StorageBackend::Redb, StorageBackend::Sled] {
            if path == directory.path() && backend == StorageBackend::Sled {
                continue;
            }
            let before = fs::read(path).ok();
            let message = told(path, backend);
            assert!(message.starts_with(&path.display().to_string()), "{message}");
            assert!(message.contains("choose another path"), "{message}");
            // redb notes in the file that it was opened.
            assert!(path == others || fs::read(path).ok() == before, "{path:?} is left as it was");
        }
    }
}

#[test]
fn a_database_that_somebody_has_open_is_left_alone() {
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        let place = Place::new(backend);
        let _store = place.open();
        assert!(matches!(place.try_open::<ShopDefinition>(), Err(StoreError::Locked { .. })));
        assert!(told(&place.path(), backend).contains("close the other program"));
    }
}

#[test]
fn a_database_whose_creation_was_interrupted_is_begun_anew() {
    for interrupted_at in 0..8 {
        for loss in [Loss::All, Loss::Prefix, Loss::Subset, Loss::Sectors] {
            let disk = Disk::default();
            disk.fail(Some(Fault::PowerLoss { at: interrupted_at }));
            let _ = open(&disk);
            let (left, faults) = disk.after(loss, || true);
            assert!(faults.failed > 0);
            let place = Place::new(StorageBackend::Redb);
            fs::write(place.path(), left.bytes()).unwrap();
            place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
        }
    }
}

/// Opens a store whose records are signed.
fn open_signed(disk: &Disk) -> Result<NetabaseStore, StoreError> {
    let identity = Some(SigningKey::from_bytes(&[7; 32]));
    let options = StoreOptions { identity, ..StoreOptions::default() };
    NetabaseStore::open_with_storage(disk.clone(), Some(ShopDefinition::SCHEMA), options)
}

#[test]
fn a_repair_that_was_interrupted_is_done_when_the_store_is_opened() {
    let whole = Disk::default();
    fill(&open_signed(&whole).unwrap());
    let place = Place::new(StorageBackend::Redb);
    fs::write(place.path(), whole.bytes()).unwrap();
    tables::rewrite(&place, |tables| {
        let lost = tables.keys().find(|(table, _)| table == "positions").unwrap().clone();
        tables.remove(&lost);
    });
    let damaged = fs::read(place.path()).unwrap();
    let repair = CheckOptions { repair: true, ..CheckOptions::default() };
    let (mut interrupted, mut half_done) = (0, 0);
    for at in (0..).step_by(3) {
        let disk = Disk::holding(damaged.clone());
        let store = open_signed(&disk).unwrap();
        disk.fail(Some(Fault::PowerLoss { at }));
        let done = store.check(repair);
        drop(store);
        let (left, faults) = disk.after(Loss::All, || true);
        if faults.failed == 0 {
            assert!(done.unwrap().is_clean());
            break;
        }
        let found = open_signed(&left).unwrap().check(CheckOptions::default()).unwrap();
        interrupted += 1;
        // Either nothing was done, or all of it.
        half_done += u32::from(!found.is_clean() && found.problems.len() != 1);
    }
    assert_eq!(half_done, 0, "of {interrupted}");
    assert!(interrupted > 5, "{interrupted}");
}

#[test]
fn a_file_of_zeros_is_as_good_as_an_empty_one_unless_somebody_has_it_open() {
    let place = Place::new(StorageBackend::Redb);
    fs::write(place.path(), vec![0; 1 << 20]).unwrap();
    let file = fs::File::open(place.path()).unwrap();
    file.lock().unwrap();
    assert!(place.try_open::<ShopDefinition>().is_err());
    assert_eq!(fs::read(place.path()).unwrap(), vec![0; 1 << 20]);
    drop(file);
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
}

#[test]
fn sled_passes_over_a_snapshot_that_was_not_finished() {
    let place = Place::new(StorageBackend::Sled);
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    wait_until_closed(&place.path());
    // sled writes a snapshot to this name first; it takes the last name for the newest.
    let unfinished = place.path().join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, [7; 100]).unwrap();
    let customers = place.open().open_tree::<Customer>().unwrap();
    assert_eq!(customers.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Ada")));
    assert!(!unfinished.exists());
}

/// sled's own threads hold a directory for a moment after it was closed.
fn wait_until_closed(path: &Path) {
    drop(open_sled(path));
    while fs::File::open(path.join("db")).unwrap().try_lock().is_err() {
        std::thread::yield_now();
    }
}
