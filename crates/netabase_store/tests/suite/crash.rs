//! The database after a power failure or a failing disk: a storage that loses unsynced writes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::thread;

use netabase_store::admin::CheckOptions;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    NetabaseDefinition, NetabaseModel, NetabaseStore, OpenError, Query, StoreError, StoreOptions, Tree,
    WatchFrom,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::common::disk::{Disk, Fault, Faults, Loss};
use crate::common::*;

/// How many histories are tried.
const CASES: u32 = 250;
/// The ids of a thread; few, so that records are replaced.
const IDS: i64 = 12;

/// A store from its opening to its end.
#[derive(Debug, Clone)]
struct Life {
    /// The calls of each thread.
    threads: Vec<Vec<Call>>,
    fault: Option<Fault>,
    /// The loss at the end; with `None` the system keeps running.
    loss: Option<Loss>,
    chance: u64,
}

#[derive(Debug, Clone)]
enum Call {
    Put(i64, usize),
    PutMany(Vec<i64>, usize),
    Remove(i64),
    /// Writes or removes the customer and the order of each id.
    Transaction(Vec<(i64, bool)>, usize),
}

fn a_call() -> impl Strategy<Value = Call> {
    let id = || 0..IDS;
    let size = || prop_oneof![4 => 0..100_usize, 1 => 1000..9000_usize];
    prop_oneof![
        4 => (id(), size()).prop_map(|(id, size)| Call::Put(id, size)),
        2 => (prop::collection::vec(id(), 1..6), size()).prop_map(|(ids, size)| Call::PutMany(ids, size)),
        2 => id().prop_map(Call::Remove),
        3 => (prop::collection::vec((id(), prop::bool::weighted(0.7)), 1..6), size())
            .prop_map(|(ids, size)| Call::Transaction(ids, size)),
    ]
}

fn a_fault() -> impl Strategy<Value = Option<Fault>> {
    // A commit changes the disk about ten times.
    let at = || prop_oneof![1 => 0..20_u32, 3 => 0..200_u32];
    prop_oneof![
        4 => at().prop_map(|at| Some(Fault::PowerLoss { at })),
        2 => at().prop_map(|at| Some(Fault::Full { at })),
        2 => at().prop_map(|at| Some(Fault::Sync { at })),
        1 => (0..60_u32).prop_map(|at| Some(Fault::Read { at })),
        1 => Just(None),
    ]
}

fn a_life() -> impl Strategy<Value = Life> {
    let calls = || prop::collection::vec(a_call(), 1..12);
    let threads = prop_oneof![prop::collection::vec(calls(), 1), prop::collection::vec(calls(), 3)];
    let losses = prop::sample::select(vec![Loss::All, Loss::Prefix, Loss::Subset, Loss::Sectors]);
    let loss = prop::option::weighted(0.9, losses);
    (threads, a_fault(), loss, any::<u64>()).prop_map(|(threads, fault, loss, chance)| {
        // Nothing runs on without power.
        let loss =
            if matches!(fault, Some(Fault::PowerLoss { .. })) { loss.or(Some(Loss::All)) } else { loss };
        Life { threads, fault, loss, chance }
    })
}

/// A record of either model.
#[derive(Debug, Clone, PartialEq)]
enum Row {
    Customer(Customer),
    Order(Order),
}

/// The records by model and id.
type Rows = BTreeMap<(char, i64), Row>;
/// The writes of a call, which are atomic.
type Writes = BTreeMap<(char, i64), Option<Row>>;

/// Makes records that no other call makes.
fn a_customer(id: i64, stamp: u32, size: usize) -> Customer {
    let city = (!stamp.is_multiple_of(3)).then(|| format!("city-{}", stamp % 3));
    let notes = format!("{stamp}-").repeat(size / 3 + 1);
    Customer { id, name: format!("name-{}", stamp % 4), city, notes }
}

fn an_order(id: i64, stamp: u32) -> Order {
    Order { id, customer: i64::from(stamp % 5), cents: stamp.into() }
}

impl Call {
    fn writes(&self, first: i64, stamp: u32) -> Writes {
        let put = |id: &i64, size: &usize| {
            (('c', first + id), Some(Row::Customer(a_customer(first + id, stamp, *size))))
        };
        match self {
            Self::Put(id, size) => [put(id, size)].into(),
            Self::PutMany(ids, size) => ids.iter().map(|id| put(id, size)).collect(),
            Self::Remove(id) => [(('c', first + id), None)].into(),
            Self::Transaction(ids, size) => ids
                .iter()
                .flat_map(|(id, present)| {
                    let order = Row::Order(an_order(first + id, stamp));
                    let customer = put(id, size).1;
                    [
                        (('c', first + id), customer.filter(|_| *present)),
                        (('o', first + id), Some(order).filter(|_| *present)),
                    ]
                })
                .collect(),
        }
    }

    fn make(&self, store: &NetabaseStore, writes: &Writes) -> Result<(), StoreError> {
        let customers = store.open_tree::<Customer>()?;
        let records = || {
            writes.values().flatten().filter_map(|row| match row {
                Row::Customer(customer) => Some(customer),
                Row::Order(_) => None,
            })
        };
        match self {
            Self::Put(..) => records().try_for_each(|customer| customers.put(customer)),
            Self::PutMany(..) => customers.put_many(records()),
            Self::Remove(_) => {
                let mut ids = writes.keys().map(|(_, id)| *id);
                ids.try_for_each(|id| customers.remove(&CustomerPrimaryKey(id)).map(drop))
            }
            Self::Transaction(..) => {
                let mut transaction = store.begin_write();
                for ((model, id), row) in writes {
                    match row {
                        Some(Row::Customer(customer)) => transaction.put(customer)?,
                        Some(Row::Order(order)) => transaction.put(order)?,
                        None if *model == 'c' => transaction.remove(&CustomerPrimaryKey(*id))?,
                        None => transaction.remove(&OrderPrimaryKey(*id))?,
                    }
                }
                transaction.commit()
            }
        }
    }
}

fn apply(rows: &mut Rows, writes: &Writes) {
    for (key, row) in writes {
        match row {
            Some(row) => rows.insert(*key, row.clone()),
            None => rows.remove(key),
        };
    }
}

/// Makes a thread's calls until one fails; returns what was acknowledged, and what failed.
fn live(
    store: &NetabaseStore,
    calls: &[Call],
    (thread, life): (usize, usize),
) -> (Vec<Writes>, Option<Writes>) {
    let first = IDS * i64::try_from(thread).unwrap();
    let mut acknowledged = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let stamp = u32::try_from(life * 1000 + number * 10 + thread).unwrap();
        let writes = call.writes(first, stamp);
        match call.make(store, &writes) {
            Ok(()) => acknowledged.push(writes),
            Err(_) => return (acknowledged, Some(writes)),
        }
    }
    (acknowledged, None)
}

fn records<M: NetabaseModel>(tree: &Tree<M>) -> Vec<M> {
    tree.iter().unwrap().collect::<Result<_, _>>().unwrap()
}

/// Reads everything, and compares every index with it.
fn read(store: &NetabaseStore) -> Rows {
    let (customers, orders) = (store.open_tree::<Customer>().unwrap(), store.open_tree::<Order>().unwrap());
    let (all_customers, all_orders) = (records(&customers), records(&orders));
    for name in (0..4).map(|name| format!("name-{name}")) {
        let named = all_customers.iter().filter(|customer| customer.name == name).cloned();
        assert_eq!(
            customers.find(CustomerNameSecondaryKey(name.clone())).unwrap(),
            named.collect::<Vec<_>>()
        );
    }
    for id in 0..5 {
        let of = all_orders.iter().filter(|order| order.customer == id).cloned();
        assert_eq!(orders.find(OrderCustomerSecondaryKey(id)).unwrap(), of.collect::<Vec<_>>());
    }
    assert_eq!(customers.len().unwrap(), u64::try_from(all_customers.len()).unwrap());
    assert_eq!(orders.len().unwrap(), u64::try_from(all_orders.len()).unwrap());
    let customers = all_customers.into_iter().map(|row| (('c', row.id), Row::Customer(row)));
    let orders = all_orders.into_iter().map(|row| (('o', row.id), Row::Order(row)));
    customers.chain(orders).collect()
}

/// Compares the index tables with the records, entry by entry: a lookup passes over stale ones.
fn check_index_tables(disk: Disk, rows: &Rows) {
    let mut expected = BTreeMap::<String, Vec<Vec<u8>>>::new();
    for row in rows.values() {
        let record = match row {
            Row::Customer(customer) => EncodedRecord::of(customer),
            Row::Order(order) => EncodedRecord::of(order),
        }
        .unwrap();
        for (index, key) in record.keys.secondary.iter() {
            let table = format!("index/{}/{}", record.model.name, record.model.indexes[index].name);
            let entry = [key, record.keys.primary.as_slice()].concat();
            expected.entry(table).or_default().push(entry);
        }
    }
    let database = redb::Database::builder().create_with_backend(disk).unwrap();
    let snapshot = database.begin_read().unwrap();
    for model in ShopDefinition::SCHEMA.models {
        for index in model.indexes {
            let name = format!("index/{}/{}", model.name, index.name);
            let stored = format!("5/{name}");
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&stored);
            let found: Vec<_> = match snapshot.open_table(table) {
                Ok(table) => table.iter().unwrap().map(|entry| entry.unwrap().0.value().to_vec()).collect(),
                Err(redb::TableError::TableDoesNotExist(_)) => Vec::new(),
                Err(error) => panic!("{error}"),
            };
            let mut entries = expected.remove(&name).unwrap_or_default();
            entries.sort();
            assert_eq!(found, entries, "{name}");
        }
    }
}

/// Finds out which of the calls that failed were done nevertheless, each whole.
fn settle(rows: &mut Rows, failed: &[Writes], found: &Rows) -> u64 {
    let mut done = 0;
    for writes in failed {
        let changes = writes.iter().filter(|(key, row)| rows.get(key) != row.as_ref());
        let is_done: Vec<_> = changes.map(|(key, row)| found.get(key) == row.as_ref()).collect();
        assert!(!(is_done.contains(&true) && is_done.contains(&false)), "{writes:?} was done in part");
        if is_done.contains(&true) {
            apply(rows, writes);
            done += 1;
        }
    }
    done
}

/// The counts of all cases.
#[derive(Debug, Default)]
struct Totals {
    faults: Faults,
    acknowledged: usize,
    failed: usize,
    failed_and_done: u64,
    openings_failed: u64,
}

fn options(signed: bool, cache_bytes: usize) -> StoreOptions {
    StoreOptions { cache_bytes, identity: signed.then(|| identity(1)), ..StoreOptions::default() }
}

/// A random number generator that proptest need not know.
fn chance(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

fn live_and_crash(
    disk: &Disk,
    life: &Life,
    number: usize,
    options: &StoreOptions,
    rows: &mut Rows,
    totals: &mut Totals,
) -> Disk {
    disk.fail(life.fault);
    let mut failed = Vec::new();
    match NetabaseStore::open_with_storage(disk.clone(), Some(ShopDefinition::SCHEMA), options.clone()) {
        Err(error) => {
            assert!(life.fault.is_some(), "{error:?}");
            totals.openings_failed += 1;
        }
        Ok(store) => {
            let lives = thread::scope(|scope| {
                let threads = life.threads.iter().enumerate();
                let threads: Vec<_> = threads
                    .map(|(thread, calls)| {
                        let store = &store;
                        scope.spawn(move || live(store, calls, (thread, number)))
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            for (acknowledged, in_flight) in lives {
                totals.acknowledged += acknowledged.len();
                for writes in &acknowledged {
                    apply(rows, writes);
                }
                failed.extend(in_flight);
            }
            if !failed.is_empty() {
                let again = store.open_tree().unwrap().put(&customer(-1, "too late"));
                // An identity reads before it writes, which may fail on its own.
                let poisoned = matches!(again, Err(StoreError::Poisoned(_)));
                assert!(poisoned || options.identity.is_some() && again.is_err(), "{again:?}");
            }
        }
    }
    let (left, faults) = match life.loss {
        Some(loss) => disk.after(loss, chance(life.chance | 1)),
        None => disk.as_it_is(),
    };
    totals.failed += failed.len();
    totals.faults.failed += faults.failed;
    totals.faults.dropped += faults.dropped;
    totals.faults.kept += faults.kept;

    let schema = Some(ShopDefinition::SCHEMA);
    let store = NetabaseStore::open_with_storage(left.clone(), schema, options.clone()).unwrap();
    let found = read(&store);
    drop(store);
    totals.failed_and_done += settle(rows, &failed, &found);
    assert_eq!(found, *rows, "after {life:?}");
    check_index_tables(left.clone(), rows);
    Disk::holding(left.bytes())
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_what_was_not_synced() {
    let totals = RefCell::new(Totals::default());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let cache = prop::sample::select(vec![0, 64 * 1024, 1024 * 1024]);
    let cases = (any::<bool>(), cache, prop::collection::vec(a_life(), 1..4));
    let outcome = TestRunner::new(config).run(&cases, |(signed, cache, lives)| {
        let options = options(signed, cache);
        let (mut disk, mut rows) = (Disk::default(), Rows::new());
        for (number, life) in lives.iter().enumerate() {
            let mut totals = totals.borrow_mut();
            disk = live_and_crash(&disk, life, number, &options, &mut rows, &mut totals);
        }
        Ok(())
    });
    outcome.unwrap();
    let totals = totals.into_inner();
    let Totals { faults, .. } = totals;
    assert!(faults.failed > 0 && faults.dropped > 0 && faults.kept > 0, "{totals:?}");
    assert!(totals.acknowledged > 0 && totals.failed > 0 && totals.openings_failed > 0, "{totals:?}");
}

/// Opens a store on a disk, without a cache: everything that is read is read from the disk.
fn open_on(disk: &Disk) -> NetabaseStore {
    let options = StoreOptions { cache_bytes: 0, ..StoreOptions::default() };
    NetabaseStore::open_with_storage(disk.clone(), Some(ShopDefinition::SCHEMA), options).unwrap()
}

fn told(error: &StoreError) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |error| Error::source(*error));
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_full_disk_is_an_error_that_names_it_and_ends_the_writing_until_there_is_room() {
    let disk = Disk::default();
    let store = open_on(&disk);
    let customers = store.open_tree::<Customer>().unwrap();
    let mut changes = store.changes(WatchFrom::Now).unwrap();
    customers.put(&customer(1, "Ada")).unwrap();
    disk.fail(Some(Fault::Full { at: 0 }));
    let error = customers.put(&customer(2, "Bob")).unwrap_err();
    assert!(told(&error).contains("no storage space"), "{error:?}");
    assert!(matches!(store.failure(), Some(StoreError::Poisoned(_))));
    let again = customers.put(&customer(2, "Bob")).unwrap_err();
    assert!(
        matches!(again, StoreError::Poisoned(_)) && told(&again).contains("no storage space"),
        "{again:?}"
    );
    assert_eq!(changes.next().unwrap().unwrap().sequence, 1);
    let told = changes.next();
    assert!(matches!(told, Some(Err(StoreError::Poisoned(_)))), "who follows is told, too: {told:?}");
    assert!(changes.next().is_none());
    drop((store, customers, changes));
    disk.fail(None);
    let store = open_on(&disk);
    let customers = store.open_tree::<Customer>().unwrap();
    assert_eq!(records(&customers), [customer(1, "Ada")]);
    customers.put(&customer(2, "Bob")).unwrap();
}

#[test]
fn reads_go_on_on_a_full_disk_and_writes_once_there_is_room() {
    let disk = Disk::default();
    let store = open_on(&disk);
    let customers = store.open_tree::<Customer>().unwrap();
    let many: Vec<_> = (0..200).map(|id| a_customer(id, 7, 5000)).collect();
    customers.put_many(&many).unwrap();
    for (round, at) in [0, 3, 60].into_iter().enumerate() {
        disk.fail(Some(Fault::Full { at }));
        let more: Vec<_> = (1000..1400).map(|id| a_customer(id, 8, 5000)).collect();
        assert!(customers.put_many(&more).is_err(), "the disk is full");
        let full = disk.bytes();
        assert_eq!(records(&customers).len(), 200 + round, "every record is read from the disk");
        assert_eq!(store.read().unwrap().sequence().unwrap(), u64::try_from(200 + round).unwrap());
        assert!(store.check(CheckOptions::default()).unwrap().is_clean());
        assert_eq!(disk.bytes(), full, "nothing was written");

        disk.fail(None);
        // The store retries at intervals, and writes are refused meanwhile.
        let id = 500 + i64::try_from(round).unwrap();
        while let Err(error) = customers.put(&customer(id, "Ada")) {
            assert!(matches!(error, StoreError::Poisoned(_)), "{error:?}");
            thread::yield_now();
        }
        assert!(store.failure().is_none());
        let mut changes = store.changes(WatchFrom::After(200)).unwrap();
        let numbers: Vec<_> = (0..=round).map(|_| changes.next().unwrap().unwrap().sequence).collect();
        assert_eq!(numbers, (201..=201 + u64::try_from(round).unwrap()).collect::<Vec<_>>());
    }
    drop((store, customers));
    let (left, _) = disk.after(Loss::All, || false);
    let store = open_on(&left);
    assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 203, "what was acknowledged is there");
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn a_disk_that_failed_to_sync_is_read_and_not_written_again() {
    let disk = Disk::default();
    let store = open_on(&disk);
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put(&customer(1, "Ada")).unwrap();
    disk.fail(Some(Fault::Sync { at: 0 }));
    assert!(customers.put(&customer(2, "Bob")).is_err());
    disk.fail(None);
    // The system may have dropped pages that it could not sync, without another error.
    assert!(matches!(customers.put(&customer(3, "Cleo")), Err(StoreError::Poisoned(_))));
    assert!(customers.get(&CustomerPrimaryKey(1)).unwrap().is_some());
    assert!(customers.get(&CustomerPrimaryKey(3)).unwrap().is_none());
}

#[test]
fn a_database_that_is_refused_is_left_as_it_was() {
    let disk = Disk::default();
    let store = open_on(&disk);
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&(0..300).map(|id| a_customer(id, 7, 3000)).collect::<Vec<_>>()).unwrap();
    customers.remove_all(Query::new()).unwrap();
    drop(customers);
    let (unclean, _) = disk.as_it_is();
    drop(store);
    for disk in [disk, unclean] {
        let bytes = disk.bytes();
        let options = StoreOptions { cache_bytes: 0, ..StoreOptions::default() };
        let error = NetabaseStore::open_with_storage(disk.clone(), None, options).unwrap_err();
        assert!(matches!(error, StoreError::Open(OpenError::OtherDefinition { .. })), "{error:?}");
        assert_eq!(disk.bytes(), bytes);
    }
}
