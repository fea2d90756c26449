//! Checking, repairing, measuring, compacting, backing up and restoring.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use netabase_store::admin::AdminError;
use netabase_store::admin::{CheckOptions, CheckReport, Problem};
use netabase_store::{
    Envelope, KeyField, NetabaseStore, OpenError, RecordKey, StorageBackend, StoreError, StoreOptions,
    WatchFrom, WriteError,
};
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;

use crate::common::tables;
use crate::common::*;

// A store without an identity has fewer tables: one engine is enough for it.
on_every_backend! {
    @each [
        a_store_is_clean_whatever_was_done_with_it
        a_report_counts_what_was_checked
        a_missing_index_entry_is_found_and_added
        a_superfluous_index_entry_is_found_and_removed
        a_damaged_index_entry_is_found_and_replaced
        a_flipped_bit_in_a_record_is_found
        a_record_that_is_no_envelope_is_found
        a_record_in_the_place_of_another_is_found
        a_record_that_is_live_and_deleted_is_found
        a_missing_and_a_superfluous_expiry_are_found_and_corrected
        a_schedule_that_does_not_fit_is_found_and_corrected
        a_wrong_description_is_corrected_when_the_store_is_opened
        a_gap_in_the_history_is_found
        a_record_that_a_new_model_drops_leaves_nothing_behind
        a_record_of_a_later_version_is_counted
        a_unique_key_of_two_records_is_said_and_no_fault
        a_check_can_be_stopped
        a_callback_cannot_write_while_writers_wait
        indexes_are_built_again_while_the_store_is_used
        a_check_and_a_backup_see_no_indexes_half_built
        a_snapshot_from_before_a_rebuild_shows_no_stale_entries
        a_backup_has_everything
        a_backup_is_of_one_moment
        a_backup_overwrites_nothing_and_leaves_nothing_behind
        a_backup_is_restored_to_any_backend
        what_a_killed_backup_left_is_removed
        a_restore_refuses_what_is_no_backup
        a_store_shrinks_when_it_is_compacted
        statistics_agree_with_what_was_written
    ]
    redb = crate::common::Place::new(netabase_store::StorageBackend::Redb);
    redb_signed = crate::common::Place::signed(netabase_store::StorageBackend::Redb);
    sled_signed = crate::common::Place::signed(netabase_store::StorageBackend::Sled);
    memory_signed = crate::common::Place::signed(netabase_store::StorageBackend::Memory);
}

type Entry = (Vec<u8>, Vec<u8>);

/// The tables of a store that is closed.
struct Raw {
    backend: StorageBackend,
    path: PathBuf,
}

impl Raw {
    fn open(place: &Place) -> Self {
        Self { backend: place.options.backend, path: place.path() }
    }

    /// Sets or removes an entry, with its checksum and what its table should hold.
    fn set(&self, table: &str, key: &[u8], value: Option<&[u8]>) {
        tables::set(self.backend, &self.path, table, key, value);
    }

    fn entries(&self, table: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        tables::rewrite_at(self.backend, &self.path, |tables| {
            let found = tables.iter().filter(|((name, _), _)| name == table);
            entries.extend(found.map(|((_, key), value)| (key.clone(), value.clone())));
        });
        entries
    }
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn primary(id: i64) -> Vec<u8> {
    CustomerPrimaryKey(id).to_key_bytes()
}

fn in_city(id: i64, name: &str, city: &str) -> Customer {
    Customer { city: Some(city.into()), ..customer(id, name) }
}

fn name_entry(name: &str, id: i64) -> Vec<u8> {
    [CustomerNameSecondaryKey(name.into()).to_key_bytes(), primary(id)].concat()
}

fn check(store: &NetabaseStore) -> CheckReport {
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_complete);
    assert_eq!(usize::try_from(report.total_problems).unwrap(), report.problems.len());
    report
}

fn repair(store: &NetabaseStore) -> CheckReport {
    store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap()
}

fn assert_clean(store: &NetabaseStore) {
    let report = check(store);
    assert!(report.is_clean() && report.problems.is_empty(), "{:#?}", report.problems);
}

/// Fills a store, closes it, lets `damage` have its tables, and opens it again.
fn damaged(place: &Place, damage: impl FnOnce(&Raw)) -> NetabaseStore {
    let store = place.open();
    let customers = store.open_tree().unwrap();
    customers
        .put_many(&[in_city(1, "Ada", "Paris"), customer(2, "Grace"), in_city(3, "Ada", "Rome")])
        .unwrap();
    store.open_tree().unwrap().put_many(&[order(1, 7), order(2, 7)]).unwrap();
    store.open_tree().unwrap().put(&visit("home", 1)).unwrap();
    customers.put(&customer(4, "Edsger")).unwrap();
    customers.remove(&CustomerPrimaryKey(4)).unwrap();
    assert_clean(&store);
    drop((store, customers));
    damage(&Raw::open(place));
    place.open()
}

/// Expects these problems, and that they are gone after a repair.
fn assert_repaired(store: &NetabaseStore, expected: &[Problem]) {
    let report = check(store);
    assert_eq!(report.problems, expected);
    assert!(!report.is_clean());
    for problem in expected {
        let said = problem.to_string();
        assert!(said.contains("repair"), "{said}");
    }
    let repaired = repair(store);
    assert!(repaired.is_clean(), "{:#?}", repaired.problems);
    assert_eq!(repaired.repaired, expected);
    assert_clean(store);
}

/// An operation on a store.
#[derive(Debug, Clone)]
enum Call {
    Put(Customer),
    PutMany(Vec<Customer>),
    Remove(i64),
    PutOrder(Order),
    Abandon(Customer),
    /// A version of a peer's, by a clock that is so much ahead; a tombstone without a customer.
    Admit {
        id: i64,
        record: Option<Customer>,
        ahead: u64,
        lifetime: Option<u64>,
    },
    AdmitForeign {
        id: u8,
        ahead: u64,
        lifetime: Option<u64>,
    },
    Schedule(i64, Option<u64>),
    Wait(u64),
    Reopen,
    Rebuild,
}

fn a_customer() -> impl Strategy<Value = Customer> {
    let (name, city) = (select(vec!["", "a", "a\0", "b"]), prop::option::of(select(vec!["", "x", "y"])));
    (0..8_i64, name, city)
        .prop_map(|(id, name, city)| Customer { city: city.map(Into::into), ..customer(id, name) })
}

fn a_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => a_customer().prop_map(Call::Put),
        3 => prop::collection::vec(a_customer(), 0..6).prop_map(Call::PutMany),
        4 => (0..8_i64).prop_map(Call::Remove),
        4 => (0..8_i64, 0..3_i64).prop_map(|(id, customer)| Call::PutOrder(order(id, customer))),
        2 => a_customer().prop_map(Call::Abandon),
        6 => (a_customer(), any::<bool>(), 0..5000_u64, prop::option::of(5001..9000_u64)).prop_map(
            |(customer, live, ahead, lifetime)| Call::Admit {
                id: customer.id,
                record: live.then_some(customer),
                ahead,
                lifetime: lifetime.filter(|_| live),
            }
        ),
        2 => (0..3_u8, 0..5000_u64, prop::option::of(1..3000_u64))
            .prop_map(|(id, ahead, lifetime)| Call::AdmitForeign { id, ahead, lifetime }),
        3 => (0..8_i64, prop::option::of(0..100_u64)).prop_map(|(id, due)| Call::Schedule(id, due)),
        3 => (0..2000_u64).prop_map(Call::Wait),
        1 => Just(Call::Reopen),
        1 => Just(Call::Rebuild),
    ]
}

/// Lets a peer send a version, which may be refused as an older one.
fn admit(
    place: &Place,
    store: &NetabaseStore,
    key: &RecordKey,
    payload: Option<&[u8]>,
    ahead: u64,
    lifetime: Option<u64>,
) {
    let now = place.time.now();
    let version = netabase_store::Timestamp::from_unix_millis(now + ahead);
    let expires = lifetime.map_or(0, |lifetime| now + lifetime);
    let envelope = Envelope::sign(&identity(9), key, version, expires, payload);
    match store.replica().admit(key.as_bytes(), envelope.as_bytes()) {
        Ok(_) | Err(netabase_store::Refusal::Outdated) => {}
        Err(refusal) => panic!("{refusal}"),
    }
}

fn do_call(place: &Place, store: &mut Option<NetabaseStore>, call: &Call) {
    if let (Call::Reopen, true) = (call, place.is_on_disk()) {
        *store = None;
        *store = Some(place.open());
    }
    let store = store.as_ref().unwrap();
    let customers = store.open_tree::<Customer>().unwrap();
    match call {
        Call::Put(customer) => customers.put(customer).unwrap(),
        Call::PutMany(many) => customers.put_many(many).unwrap(),
        Call::Remove(id) => drop(customers.remove(&CustomerPrimaryKey(*id)).unwrap()),
        Call::PutOrder(order) => store.open_tree().unwrap().put(order).unwrap(),
        Call::Abandon(customer) => {
            let mut transaction = store.begin_write();
            transaction.put(customer).unwrap();
            transaction.get(&CustomerPrimaryKey(9)).unwrap();
            customers.put(&self::customer(9, "other")).unwrap();
            let _ = transaction.commit();
        }
        Call::Admit { id, record, ahead, lifetime } => {
            let payload = record
                .as_ref()
                .map(|record| netabase_store::schema::EncodedRecord::of(record).unwrap().payload);
            admit(place, store, &key(*id), payload.as_deref(), *ahead, *lifetime);
        }
        Call::AdmitForeign { id, ahead, lifetime } => {
            let foreign = RecordKey::new("Elsewhere", "Thing", &[*id]).unwrap();
            admit(place, store, &foreign, Some(b"thing"), *ahead, *lifetime);
        }
        Call::Schedule(id, due) => {
            if let Some(published) = store.envelope(&key(*id)).unwrap() {
                store.replica().schedule(&key(*id), &published, due.map(|due| START + due));
            }
        }
        Call::Wait(millis) => place.time.advance(Duration::from_millis(*millis)),
        Call::Rebuild => store.rebuild_indexes().unwrap(),
        Call::Reopen => {}
    }
}

fn a_store_is_clean_whatever_was_done_with_it(place: &Place) {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(calls in prop::collection::vec(a_call(), 1..40))| {
        let mut place = place.elsewhere();
        place.options.record_lifetime = Some(Duration::from_secs(3));
        let mut store = Some(place.open());
        for call in &calls {
            do_call(&place, &mut store, call);
        }
        let report = store.as_ref().unwrap().check(CheckOptions::default()).unwrap();
        prop_assert!(report.is_clean() && report.problems.is_empty(), "{:#?}", report.problems);
        drop(store);
        if place.is_on_disk() {
            let report = place.open().check(CheckOptions::default()).unwrap();
            prop_assert!(report.is_clean(), "{:#?}", report.problems);
        }
    });
}

fn a_report_counts_what_was_checked(place: &Place) {
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&[in_city(1, "Ada", "Paris"), customer(2, "Grace")]).unwrap();
    customers.remove(&CustomerPrimaryKey(2)).unwrap();
    let foreign = RecordKey::new("Elsewhere", "Thing", b"1").unwrap();
    let version = netabase_store::Timestamp::from_unix_millis(START);
    let envelope = Envelope::sign(&identity(9), &foreign, version, START + 60_000, Some(b"thing"));
    assert_eq!(store.replica().admit(foreign.as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    let report = check(&store);
    assert!(report.is_clean());
    let signed = u64::from(store.author().is_some());
    assert_eq!((report.records, report.foreign, report.tombstones), (1, 1, signed));
    assert_eq!((report.signatures, report.unsigned), (1 + 2 * signed, 1 - signed));
    assert_eq!((report.index_entries, report.newer, report.changes), (2, 0, 4));
    let quick = store.check(CheckOptions { signatures: false, ..CheckOptions::default() }).unwrap();
    assert_eq!((quick.signatures, quick.unsigned), (0, 1 - signed));
}

fn a_missing_index_entry_is_found_and_added(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| raw.set("index/Customer/name", &name_entry("Ada", 3), None));
    let found =
        || store.open_tree::<Customer>().unwrap().find(CustomerNameSecondaryKey("Ada".into())).unwrap();
    assert_eq!(found().len(), 1);
    assert_repaired(&store, &[Problem::MissingIndexEntry { key: key(3), index: "name" }]);
    assert_eq!(found(), [in_city(1, "Ada", "Paris"), in_city(3, "Ada", "Rome")]);
}

fn a_superfluous_index_entry_is_found_and_removed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| {
        let len = CustomerNameSecondaryKey("Alan".into()).to_key_bytes().len();
        let len = u16::try_from(len).unwrap().to_be_bytes();
        raw.set("index/Customer/name", &name_entry("Alan", 1), Some(&len));
        raw.set("index/Customer/name", &name_entry("Alan", 99), Some(&len));
    });
    let superfluous = |id| Problem::SuperfluousIndexEntry { key: key(id), index: "name" };
    assert_repaired(&store, &[superfluous(1), superfluous(99)]);
}

fn a_damaged_index_entry_is_found_and_replaced(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let entry = name_entry("Ada", 3);
    for value in [&b""[..], &[0, 1], &[0xff, 0xff], b"long"] {
        let place = place.elsewhere();
        let store = damaged(&place, |raw| raw.set("index/Customer/name", &entry, Some(value)));
        let problem = Problem::DamagedIndexEntry { index: "name", entry: entry.clone() };
        assert_repaired(&store, &[problem]);
    }
}

fn a_flipped_bit_in_a_record_is_found(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| {
        let (_, mut envelope) =
            raw.entries("records/Customer").into_iter().find(|(key, _)| *key == primary(1)).unwrap();
        // A number that does not end.
        let end = envelope.len() - if place.options.identity.is_some() { 65 } else { 1 };
        envelope[end] ^= 0x80;
        raw.set("records/Customer", &primary(1), Some(&envelope));
    });
    let mut report = check(&store);
    // It is another version than the one in the keyspace, which a repair corrects.
    report.problems.retain(|problem| {
        let (position, item) =
            (Problem::MissingPosition { key: key(1) }, Problem::MissingSyncItem { key: key(1) });
        *problem != position
            && *problem != item
            && *problem != Problem::SuperfluousSyncItem { model: "Customer" }
    });
    let kinds: Vec<_> = report.problems.iter().map(std::mem::discriminant).collect();
    let expected: &[Problem] = if store.author().is_some() {
        &[Problem::Signature { key: key(1) }, Problem::Unreadable { key: key(1) }]
    } else {
        &[Problem::Unreadable { key: key(1) }]
    };
    assert_eq!(&report.problems[..expected.len()], expected, "{kinds:?}");
    let report = repair(&store);
    assert!(!report.is_clean(), "nobody knows what it was");
    assert_eq!(report.problems, expected);
    assert_eq!(report.records, 6, "no record is deleted");
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    assert_clean(&store);
}

fn a_record_that_is_no_envelope_is_found(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| raw.set("records/Visit", b"home\0\0\0\0\x01", Some(b"\x09")));
    let report = check(&store);
    let reason = netabase_store::version::EnvelopeError::UnknownFormat { found: 9 };
    let key = RecordKey::of(&VisitPrimaryKey("home".into(), 1)).unwrap();
    assert!(report.problems.contains(&Problem::Envelope { key: key.clone(), reason }));
    let report = repair(&store);
    assert_eq!(
        report.problems,
        [Problem::Envelope {
            key,
            reason: netabase_store::version::EnvelopeError::UnknownFormat { found: 9 }
        }]
    );
    assert!(report.problems[0].to_string().contains("put it again"));
    store.open_tree().unwrap().put(&visit("home", 1)).unwrap();
    assert_clean(&store);
}

fn a_record_in_the_place_of_another_is_found(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| {
        let (_, envelope) = raw.entries("records/Order").into_iter().next().unwrap();
        raw.set("records/Order", &OrderPrimaryKey(9).to_key_bytes(), Some(&envelope));
    });
    let key = RecordKey::of(&OrderPrimaryKey(9)).unwrap();
    let misplaced = Problem::Misplaced { key: key.clone(), table: "records/Order".into() };
    let mut expected = vec![misplaced];
    if store.author().is_some() {
        expected.insert(0, Problem::Signature { key: key.clone() });
    }
    let mut found = check(&store).problems;
    found.retain(|problem| {
        *problem != Problem::MissingPosition { key: key.clone() }
            && *problem != Problem::MissingSyncItem { key: key.clone() }
            && *problem != Problem::WrongUsage
    });
    assert_eq!(found, expected);
    assert_eq!(repair(&store).problems, expected);
    store.open_tree::<Order>().unwrap().remove(&OrderPrimaryKey(9)).unwrap();
    repair(&store);
    assert_clean(&store);
}

fn a_record_that_is_live_and_deleted_is_found(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let version = netabase_store::Timestamp::from_unix_millis(START);
    let tombstone = Envelope::sign(&identity(1), &key(1), version, 0, None);
    let store = damaged(place, |raw| raw.set("tombstones", key(1).as_bytes(), Some(tombstone.as_bytes())));
    assert_eq!(check(&store).problems, [Problem::LiveAndDeleted { key: key(1) }]);
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(1)).unwrap();
    assert_clean(&store);
}

fn a_missing_and_a_superfluous_expiry_are_found_and_corrected(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(60));
    let (expires, never) = (START + 60_000, START + 99_000);
    let entry = |time: u64, id| [&time.to_be_bytes(), key(id).as_bytes()].concat();
    let store = damaged(&place, |raw| {
        raw.set("expiry", &entry(expires, 1), None);
        raw.set("expiry", &entry(never, 2), Some(b""));
        raw.set("expiry", &entry(never, 99), Some(b""));
    });
    let superfluous = |id| Problem::SuperfluousExpiry { key: key(id), time: never };
    let expected = [Problem::MissingExpiry { key: key(1) }, superfluous(2), superfluous(99)];
    assert_repaired(&store, &expected);
    place.time.advance(Duration::from_secs(61));
    pass_a_group(&store);
    assert!(store.open_tree::<Customer>().unwrap().is_empty().unwrap());
    assert_eq!(check(&store).problems, []);
}

/// Writes two groups: what the writer does between them is done when this returns.
fn pass_a_group(store: &NetabaseStore) {
    let tree = store.open_tree::<Visit>().unwrap();
    tree.put(&visit("pass", 1)).unwrap();
    tree.put(&visit("pass", 2)).unwrap();
}

fn a_schedule_that_does_not_fit_is_found_and_corrected(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let due = START + 30_000;
    let entry = |time: u64, id| [&time.to_be_bytes(), key(id).as_bytes()].concat();
    let store = damaged(place, |raw| {
        raw.set("due", &entry(due, 1), None);
        raw.set("due", &entry(due + 1, 2), Some(b""));
        raw.set("schedule", key(99).as_bytes(), Some(&due.to_be_bytes()));
        raw.set("due", &entry(due, 99), Some(b""));
    });
    let expected = [
        Problem::MissingDue { key: key(1) },
        Problem::ScheduledWithoutRecord { key: key(99) },
        Problem::SuperfluousDue { key: key(2), time: due + 1 },
    ];
    assert_repaired(&store, &expected);
    place.time.advance(Duration::from_secs(60));
    assert_eq!(store.replica().due(100).unwrap().len(), 7);
}

fn a_wrong_description_is_corrected_when_the_store_is_opened(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| raw.set("meta", b"model/Customer", Some(b"odd")));
    assert_clean(&store);
}

#[test]
fn a_wrong_count_is_found_and_corrected() {
    for counted in [0_u64, 1, 50] {
        let place = Place::signed(StorageBackend::Sled);
        let store = damaged(&place, |raw| {
            let database = open_sled(&raw.path);
            let (table, row) = (&b"records/Customer"[..], [counted.to_be_bytes(), [0; 8]].concat());
            let row = tables::seal("counts", table, &row);
            database.insert([b"\0\x085/counts", table].concat(), row).unwrap();
            database.flush().unwrap();
        });
        let customers = store.open_tree::<Customer>().unwrap();
        assert_eq!(customers.len().unwrap(), counted);
        let table = "records/Customer".to_owned();
        assert_repaired(&store, &[Problem::WrongCount { table, stored: counted, counted: 3 }]);
        assert_eq!(customers.len().unwrap(), 3);
    }
}

fn a_gap_in_the_history_is_found(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = damaged(place, |raw| {
        let rows = raw.entries("history");
        raw.set("history", &rows[1].0, None);
        let mut row = rows[3].1.clone();
        row[4] ^= 0x40;
        raw.set("history", &rows[3].0, Some(&row));
        raw.set("history", b"", Some(b"odd"));
    });
    let report = check(&store);
    assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
    assert!(matches!(&report.problems[0], Problem::Malformed { entry, .. } if entry.is_empty()));
    assert!(matches!(report.problems[1], Problem::HistoryGap { next: 6 }), "{:?}", report.problems);
    assert!(matches!(report.problems[2], Problem::DamagedHistory { .. }), "{:?}", report.problems);
    assert_eq!(repair(&store).total_problems, 3, "what has happened cannot be made up");
}

/// The definition of [`ShopDefinition`]'s name in other programs.
mod others {
    use netabase_store::netabase_definition_module;

    #[netabase_definition_module(EarlierDefinition, EarlierKeys, name = "ShopDefinition")]
    pub(crate) mod earlier {
        use netabase_store::NetabaseModel;
        use serde::{Deserialize, Serialize};

        #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[netabase(EarlierDefinition)]
        pub(crate) struct Visit {
            #[primary_key]
            pub(crate) page: String,
        }
    }

    #[netabase_definition_module(LaterDefinition, LaterKeys, name = "ShopDefinition")]
    pub(crate) mod later {
        use netabase_store::NetabaseModel;
        use serde::{Deserialize, Serialize};

        #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[netabase(LaterDefinition, version = 2)]
        pub(crate) struct Order {
            #[primary_key]
            pub(crate) id: i64,
            #[secondary_key]
            pub(crate) customer: i64,
        }
    }
}

fn a_record_that_a_new_model_drops_leaves_nothing_behind(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.try_open::<others::earlier::EarlierDefinition>().unwrap();
    let record = netabase_store::schema::EncodedRecord::of(&order(1, 7)).unwrap();
    let key = |id| RecordKey::of(&OrderPrimaryKey(id)).unwrap();
    let version = netabase_store::Timestamp::from_unix_millis(START);
    for (id, seed) in [(1, 9), (2, 9), (3, 1)] {
        let envelope =
            Envelope::sign(&identity(seed), &key(id), version, START + 60_000, Some(&record.payload));
        assert_eq!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()), Ok(true));
    }
    store.flush().unwrap();
    assert_clean(&store);
    drop(store);
    let store = place.open();
    assert_eq!(store.open_tree::<Order>().unwrap().len().unwrap(), 1);
    assert_clean(&store);
}

fn a_record_of_a_later_version_is_counted(place: &Place) {
    use others::later::{LaterDefinition, Order as Later};
    if !place.is_on_disk() {
        return;
    }
    let store = place.try_open::<LaterDefinition>().unwrap();
    store
        .open_tree()
        .unwrap()
        .put_many(&[Later { id: 1, customer: 7 }, Later { id: 2, customer: 7 }])
        .unwrap();
    drop(store);
    let store = place.open();
    store.open_tree().unwrap().put(&order(3, 7)).unwrap();
    let report = check(&store);
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((report.records, report.newer, report.index_entries), (3, 2, 1));
    assert_eq!(store.statistics().unwrap().models[2].newer, 2);
    store.rebuild_indexes().unwrap();
    assert_clean(&store);
    let refused = store.open_tree().unwrap().put(&order(1, 8));
    assert!(matches!(refused, Err(StoreError::Write(WriteError::NewerRecord { .. }))), "{refused:?}");
    drop(store);
    let store = damaged_meta(place);
    assert_repaired(&store, &[Problem::Fact { fact: "newer/Order".into() }]);
    let refused = store.open_tree().unwrap().put(&order(1, 8));
    assert!(matches!(refused, Err(StoreError::Write(WriteError::NewerRecord { .. }))), "{refused:?}");
}

/// Lets a store forget that it has records of a later version.
fn damaged_meta(place: &Place) -> NetabaseStore {
    Raw::open(place).set("meta", b"newer/Order", None);
    place.open()
}

mod unique {
    use netabase_store::netabase_definition_module;

    #[netabase_definition_module(AccountsDefinition, AccountsKeys)]
    pub(crate) mod accounts {
        use netabase_store::NetabaseModel;
        use serde::{Deserialize, Serialize};

        #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[netabase(AccountsDefinition)]
        pub(crate) struct Account {
            #[primary_key]
            pub(crate) id: u64,
            #[secondary_key(unique)]
            pub(crate) name: String,
        }
    }
}

fn a_unique_key_of_two_records_is_said_and_no_fault(place: &Place) {
    use unique::accounts::*;
    let store = place.try_open::<AccountsDefinition>().unwrap();
    let accounts = store.open_tree::<Account>().unwrap();
    accounts.put(&Account { id: 1, name: "ada".into() }).unwrap();
    accounts.put(&Account { id: 2, name: "grace".into() }).unwrap();
    let second = RecordKey::of(&AccountPrimaryKey(3)).unwrap();
    let record = netabase_store::schema::EncodedRecord::of(&Account { id: 3, name: "ada".into() }).unwrap();
    let version = netabase_store::Timestamp::from_unix_millis(START);
    let envelope = Envelope::sign(&identity(9), &second, version, 0, Some(&record.payload));
    assert_eq!(store.replica().admit(second.as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    let first = RecordKey::of(&AccountPrimaryKey(1)).unwrap();
    let report = check(&store);
    assert_eq!(report.problems, [Problem::NotUnique { index: "name", first, second }]);
    assert!(report.is_clean());
    assert_eq!(repair(&store).problems, report.problems);
}

fn a_check_can_be_stopped(place: &Place) {
    let store = place.open();
    let customers: Vec<_> = (0..3000).map(|id| customer(id, "Ada")).collect();
    store.open_tree().unwrap().put_many(&customers).unwrap();
    let mut calls = 0;
    let options = CheckOptions { signatures: false, repair: true, ..CheckOptions::default() };
    let report = store.check_with(options, |progress| {
        assert!(progress.done <= progress.total);
        calls += 1;
        ControlFlow::Break(())
    });
    let report = report.unwrap();
    assert!(!report.is_complete && !report.is_clean() && report.faults == 0);
    assert_eq!(calls, 1);
    let mut last = None;
    let report = store.check_with(CheckOptions { signatures: false, ..options }, |progress| {
        last = Some(progress);
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().is_clean());
    assert!(last.is_some_and(|last| last.done == last.total && last.done > 6000));
}

fn a_callback_cannot_write_while_writers_wait(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let (sender, receiver) = sync_channel(1);
    let (writer, mut waiting) = (tree.clone(), None);
    let report = store.check_with(CheckOptions { repair: true, ..CheckOptions::default() }, |_| {
        assert!(matches!(tree.put(&customer(1, "Ada")), Err(StoreError::InCallback)));
        assert!(matches!(store.rebuild_indexes(), Err(StoreError::InCallback)));
        assert!(matches!(
            store.check(CheckOptions { repair: true, ..CheckOptions::default() }),
            Err(StoreError::InCallback)
        ));
        let (writer, sender) = (writer.clone(), sender.clone());
        waiting = Some(thread::spawn(move || sender.send(writer.put(&customer(2, "Grace"))).unwrap()));
        assert!(receiver.try_recv().is_err());
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().is_clean());
    receiver.recv_timeout(PATIENCE).unwrap().unwrap();
    waiting.unwrap().join().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    assert_eq!(tree.len().unwrap(), 2);
}

fn indexes_are_built_again_while_the_store_is_used(place: &Place) {
    let store = place.open();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let tree = store.open_tree::<Customer>().unwrap();
            for id in 0.. {
                tree.put(&in_city(id % 50, if id % 3 == 0 { "Ada" } else { "Grace" }, "Paris")).unwrap();
                if id > 100 && done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        for _ in 0..5 {
            store.rebuild_indexes().unwrap();
            assert_clean(&store);
        }
        done.store(true, Ordering::Release);
    });
    assert_clean(&store);
}

fn a_check_and_a_backup_see_no_indexes_half_built(place: &Place) {
    let store = place.open();
    let many: Vec<_> = (0..100).map(|id| in_city(id, "Ada", "Paris")).collect();
    store.open_tree().unwrap().put_many(&many).unwrap();
    let beside = Beside::new();
    thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| store.rebuild_indexes().unwrap()));
        (0..10).for_each(|_| assert_clean(&store));
        store.backup(beside.path("backup")).unwrap();
    });
    let table = ::redb::TableDefinition::<&[u8], &[u8]>::new("5/index/Customer/name");
    let backup = ::redb::Database::open(beside.path("backup")).unwrap();
    let transaction = ::redb::ReadableDatabase::begin_read(&backup).unwrap();
    let entries = ::redb::ReadableTableMetadata::len(&transaction.open_table(table).unwrap()).unwrap();
    assert_eq!(entries, 100);
}

fn a_snapshot_from_before_a_rebuild_shows_no_stale_entries(place: &Place) {
    if !place.is_on_disk() || !place.has_snapshots() {
        return;
    }
    let store = damaged(place, |raw| raw.set("records/Customer", &primary(1), Some(b"\x09")));
    let customers = store.open_tree::<Customer>().unwrap();
    // Nobody knows any more that Ada was the name.
    customers.put(&customer(1, "Grace")).unwrap();
    let snapshot = store.read().unwrap();
    let stale = check(&store).problems;
    assert!(stale.contains(&Problem::SuperfluousIndexEntry { key: key(1), index: "name" }), "{stale:?}");
    store.rebuild_indexes().unwrap();
    // Nor how much of whose the damaged record took.
    repair(&store);
    assert_clean(&store);
    let ada = || CustomerNameSecondaryKey("Ada".into());
    let before = snapshot.open_tree::<Customer>().unwrap();
    assert_eq!(before.find(ada()).unwrap(), [in_city(3, "Ada", "Rome")]);
    assert_eq!(customers.find(ada()).unwrap(), [in_city(3, "Ada", "Rome")]);
}

/// Everything in a store that can be seen from outside.
#[derive(Debug, PartialEq)]
struct Contents {
    customers: Vec<Customer>,
    found: Vec<Customer>,
    records: BTreeMap<Vec<u8>, Envelope>,
    changes: Vec<(u64, RecordKey, Option<Envelope>)>,
    due: Vec<RecordKey>,
    removed: Option<Envelope>,
}

fn contents(store: &NetabaseStore) -> Contents {
    let customers = store.open_tree::<Customer>().unwrap();
    let records = store.local_records(None).unwrap();
    let mut changes = Vec::new();
    let mut follow = store.changes(WatchFrom::Oldest).unwrap();
    while let Some(change) = follow.try_next().unwrap() {
        changes.push((change.sequence, change.change.key, change.change.envelope));
    }
    Contents {
        customers: customers.iter().unwrap().map(Result::unwrap).collect(),
        found: customers.find(CustomerNameSecondaryKey("Ada".into())).unwrap(),
        records: records.into_iter().map(|(key, record)| (key.as_bytes().to_vec(), record)).collect(),
        changes,
        due: store.replica().due(100).unwrap(),
        removed: store.envelope(&key(4)).unwrap(),
    }
}

fn fill(store: &NetabaseStore) {
    let customers = store.open_tree::<Customer>().unwrap();
    customers
        .put_many(&[in_city(1, "Ada", "Paris"), customer(2, "Grace"), in_city(3, "Ada", "Rome")])
        .unwrap();
    customers.put(&customer(4, "Edsger")).unwrap();
    customers.remove(&CustomerPrimaryKey(4)).unwrap();
    customers.put(&customer(2, "Ada")).unwrap();
    store.open_tree().unwrap().put_many(&[order(1, 7), order(2, 7)]).unwrap();
    let large: Vec<_> =
        (0..20).map(|id| Customer { notes: "n".repeat(500_000), ..customer(id + 100, "x") }).collect();
    customers.put_many(&large).unwrap();
}

fn open_redb(path: &Path, place: &Place) -> NetabaseStore {
    let options = StoreOptions { backend: StorageBackend::Redb, ..place.options.clone() };
    NetabaseStore::open_with(
        path,
        Some(<ShopDefinition as netabase_store::NetabaseDefinition>::SCHEMA),
        options,
    )
    .unwrap()
}

/// A place for a backup.
struct Beside {
    directory: TempDir,
}

impl Beside {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn a_backup_has_everything(place: &Place) {
    let store = place.open();
    fill(&store);
    let beside = Beside::new();
    let mut last = None;
    store
        .backup_with(beside.path("backup"), |progress| {
            last = Some(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(last.is_some_and(|last| last.done == last.total && last.done > 50), "{last:?}");
    assert_eq!(beside.names(), ["backup"]);
    place.time.advance(Duration::from_secs(60));
    let copy = open_redb(&beside.path("backup"), place);
    assert_eq!(contents(&copy), contents(&store));
    assert_clean(&copy);
    copy.open_tree().unwrap().put(&customer(1, "other")).unwrap();
    assert_ne!(contents(&copy), contents(&store), "it is a store of its own");
}

fn a_backup_is_of_one_moment(place: &Place) {
    let store = place.open();
    let padding: Vec<_> = (0..3000).map(|id| customer(id + 1000, "padding")).collect();
    store.open_tree().unwrap().put_many(&padding).unwrap();
    let (beside, done) = (Beside::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..2 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for round in 1.. {
                    let mut transaction = store.begin_write();
                    transaction.put(&Order { id: writer, customer: 1, cents: round }).unwrap();
                    transaction.put(&customer(writer, &round.to_string())).unwrap();
                    transaction.commit().unwrap();
                    if done.load(Ordering::Acquire) {
                        break;
                    }
                }
            });
        }
        for round in 0..5 {
            let before = store.counters().commits;
            while store.counters().commits == before {
                thread::yield_now();
            }
            store.backup(beside.path(&round.to_string())).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let mut seen = 0;
    for round in 0..5 {
        let copy = open_redb(&beside.path(&round.to_string()), place);
        for writer in 0..2 {
            let order = copy.open_tree::<Order>().unwrap().get(&OrderPrimaryKey(writer)).unwrap();
            let customer = copy.open_tree::<Customer>().unwrap().get(&CustomerPrimaryKey(writer)).unwrap();
            assert_eq!(order.as_ref().map(|order| order.cents.to_string()), customer.map(|it| it.name));
            seen += order.map_or(0, |order| order.cents);
        }
        assert_clean(&copy);
    }
    assert!(seen > 0, "there were writes");
}

fn a_backup_overwrites_nothing_and_leaves_nothing_behind(place: &Place) {
    let store = place.open();
    fill(&store);
    let beside = Beside::new();
    fs::write(beside.path("file"), b"precious").unwrap();
    let error = store.backup(beside.path("file")).unwrap_err();
    assert!(
        matches!(&error, StoreError::Admin(AdminError::Occupied { path }) if *path == beside.path("file")),
        "{error:?}"
    );
    assert_eq!(fs::read(beside.path("file")).unwrap(), b"precious");
    let error = store.backup_with(beside.path("stopped"), |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, StoreError::Admin(AdminError::Stopped)), "{error:?}");
    // Another program takes the name while the backup is being made.
    let error = store.backup_with(beside.path("late"), |_| {
        fs::write(beside.path("late"), b"theirs").unwrap();
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(StoreError::Admin(AdminError::Occupied { .. }))), "{error:?}");
    assert_eq!(fs::read(beside.path("late")).unwrap(), b"theirs");
    let error = store.backup(beside.path("missing").join("backup")).unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error:?}");
    assert_eq!(beside.names(), ["file", "late"]);
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
}

fn what_a_killed_backup_left_is_removed(place: &Place) {
    let place = place.elsewhere();
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    fill(&store);
    let (beside, directory) = (Beside::new(), place.path().parent().unwrap().to_owned());
    // The files of an unfinished backup in a directory.
    let on_its_way = |directory: &Path| {
        let mut left = None;
        let _ = store.backup_with(directory.join("copy"), |_| {
            let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            left = names.into_iter().find(|path| path.to_string_lossy().ends_with(".partial"));
            ControlFlow::Break(())
        });
        left.unwrap()
    };
    let (ours, elsewhere) = (on_its_way(&directory), on_its_way(beside.path("").as_path()));
    for left in
        [&ours, &elsewhere, &beside.path("copy.0123456789abcdef.aBcDeF.partial"), &beside.path("a.partial")]
    {
        assert!(!left.exists(), "a backup that was stopped removes it itself");
        fs::write(left, b"half").unwrap();
    }
    let restored = directory.join("store.aBcDeF.partial");
    fs::create_dir(&restored).unwrap();
    drop(store);
    let store = place.open();
    assert!(!ours.exists() && !restored.exists());
    assert!(elsewhere.exists());
    store.remove_partial_backups(beside.path(""));
    assert_eq!(beside.names(), ["a.partial", "copy.0123456789abcdef.aBcDeF.partial"]);

    for name in ["store.peers", "store.identity", "store.anything"] {
        let error = store.backup(directory.join(name)).unwrap_err();
        assert!(matches!(error, StoreError::Admin(AdminError::OwnFile { .. })), "{error:?}");
    }
    store.backup(directory.join("storehouse")).unwrap();
    store.backup(beside.path("store.peers")).unwrap();
}

fn a_backup_is_restored_to_any_backend(place: &Place) {
    let store = place.open();
    fill(&store);
    let beside = Beside::new();
    store.backup(beside.path("backup")).unwrap();
    let bytes = fs::read(beside.path("backup")).unwrap();
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        let mut other = place.elsewhere();
        other.options.backend = backend;
        NetabaseStore::restore(beside.path("backup"), other.path(), backend).unwrap();
        let restored = other.open();
        assert_eq!(contents(&restored), contents(&store));
        assert_clean(&restored);
        let last = contents(&store).changes.last().unwrap().0;
        let mut follow = restored.changes(WatchFrom::After(last - 1)).unwrap();
        assert_eq!(follow.try_next().unwrap().unwrap().sequence, last);
        restored.open_tree().unwrap().put(&customer(1, "later")).unwrap();
        assert_clean(&restored);
        drop(restored);
        let error = NetabaseStore::restore(beside.path("backup"), other.path(), backend).unwrap_err();
        assert!(matches!(error, StoreError::Admin(AdminError::Occupied { .. })), "{error:?}");
        let left = fs::read_dir(other.path().parent().unwrap()).unwrap().count();
        assert_eq!(left, 1);
    }
    assert_eq!(fs::read(beside.path("backup")).unwrap(), bytes, "it is only read");
    let error = NetabaseStore::restore(beside.path("backup"), beside.path("memory"), StorageBackend::Memory);
    assert!(matches!(error, Err(StoreError::Unsupported { .. })), "{error:?}");
}

fn a_restore_refuses_what_is_no_backup(place: &Place) {
    let store = place.open();
    fill(&store);
    let beside = Beside::new();
    let (backup, target) = (beside.path("backup"), beside.path("target"));
    store.backup(&backup).unwrap();
    let whole = fs::read(&backup).unwrap();
    let refused = |backend| {
        let error = NetabaseStore::restore(&backup, &target, backend).unwrap_err();
        assert_eq!(beside.names().iter().filter(|name| name.contains("target")).count(), 0, "{error:?}");
        error
    };
    for backend in [StorageBackend::Redb, StorageBackend::Sled] {
        for len in [0, 10, 4096, whole.len() / 2, whole.len() - 4096] {
            fs::write(&backup, &whole[..len]).unwrap();
            let error = refused(backend);
            let named =
                matches!(&error, StoreError::Open(OpenError::NotADatabase { path, .. }) if *path == backup);
            assert!(named && error.source().is_some(), "{len}: {error:?}");
        }
        fs::write(&backup, b"no database at all, whatever it says").unwrap();
        assert!(matches!(refused(backend), StoreError::Open(OpenError::NotADatabase { .. })));
        fs::remove_file(&backup).unwrap();
        assert!(matches!(refused(backend), StoreError::Open(OpenError::NotADatabase { .. })));
        assert!(!backup.exists(), "it is not created");
        let marker = ::redb::TableDefinition::<&[u8], &[u8]>::new("meta");
        let facts = ::redb::TableDefinition::<&[u8], &[u8]>::new("5/meta");
        for (format, value) in [("none", None), ("newer", Some(99_u32)), ("damaged", Some(0))] {
            fs::write(&backup, &whole).unwrap();
            let database = ::redb::Database::open(&backup).unwrap();
            let transaction = database.begin_write().unwrap();
            match value {
                Some(value) => {
                    let value = value.to_be_bytes();
                    let sealed = tables::seal("meta", b"format", &value);
                    let (mut marker, mut facts) =
                        (transaction.open_table(marker).unwrap(), transaction.open_table(facts).unwrap());
                    marker.insert(b"format".as_slice(), value.as_slice()).unwrap();
                    facts.insert(b"format".as_slice(), sealed.as_slice()).unwrap();
                }
                None => {
                    for table in [marker, facts] {
                        transaction.open_table(table).unwrap().remove(b"format".as_slice()).unwrap();
                    }
                }
            }
            transaction.commit().unwrap();
            assert!(matches!(refused(backend), StoreError::Open(OpenError::Locked { .. })), "it is open");
            drop(database);
            let error = refused(backend);
            match format {
                "newer" => assert!(
                    matches!(error, StoreError::Open(OpenError::UnknownFormat { found: 99, .. })),
                    "{error:?}"
                ),
                _ => assert!(matches!(error, StoreError::Open(OpenError::NotADatabase { .. })), "{error:?}"),
            }
        }
        fs::write(&backup, &whole).unwrap();
    }
}

#[test]
fn a_backup_whose_bytes_have_changed_is_not_restored() {
    let place = Place::new(StorageBackend::Redb);
    let store = place.open();
    fill(&store);
    let (beside, expected) = (Beside::new(), contents(&store));
    let backup = beside.path("backup");
    store.backup(&backup).unwrap();
    let whole = fs::read(&backup).unwrap();
    let (mut refused, mut restored) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&backup, damaged).unwrap();
        let target = beside.path(&at.to_string());
        if let Err(error) = NetabaseStore::restore(&backup, &target, StorageBackend::Redb) {
            let named =
                matches!(&error, StoreError::Open(OpenError::NotADatabase { path, .. }) if *path == backup);
            assert!(named, "{at}: {error:?}");
            refused += 1;
        } else {
            // It was in space that is not used.
            assert_eq!(contents(&open_redb(&target, &place)), expected, "{at}");
            restored += 1;
        }
    }
    assert!(refused > 10, "{refused} {restored}");
}

fn a_store_shrinks_when_it_is_compacted(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    let notes = "n".repeat(10_000);
    let many: Vec<_> = (0..1000).map(|id| Customer { notes: notes.clone(), ..customer(id, "Ada") }).collect();
    tree.put_many(&many).unwrap();
    if place.options.backend != StorageBackend::Redb {
        let error = store.compact().unwrap_err();
        let backend = place.options.backend;
        assert!(
            matches!(error, StoreError::Unsupported { backend: found, .. } if found == backend),
            "{error:?}"
        );
        return;
    }
    let rows = tree.iter().unwrap();
    for id in 1..1000 {
        tree.remove(&CustomerPrimaryKey(id)).unwrap();
    }
    assert!(matches!(store.compact(), Err(StoreError::Admin(AdminError::InUse))));
    assert_eq!(rows.map(Result::unwrap).count(), 1000, "it goes on");
    let snapshot = store.read().unwrap();
    assert!(matches!(store.compact(), Err(StoreError::Admin(AdminError::InUse))));
    drop(snapshot);
    // Neither followers nor concurrent readers block it.
    let mut watch = tree.watch(WatchFrom::Now).unwrap();
    let done = AtomicBool::new(false);
    let compaction = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert!(tree.get(&CustomerPrimaryKey(0)).unwrap().is_some());
            }
        });
        scope.spawn(|| {
            for number in 0..20 {
                store.open_tree().unwrap().put(&visit("meanwhile", number)).unwrap();
            }
        });
        let compaction = store.compact();
        done.store(true, Ordering::Release);
        compaction.unwrap()
    });
    assert!(compaction.after_bytes < compaction.before_bytes, "{compaction:?}");
    assert_clean(&store);
    assert_eq!(store.open_tree::<Visit>().unwrap().len().unwrap(), 20);
    tree.put(&customer(7, "Grace")).unwrap();
    assert!(watch.try_next().unwrap().is_some());
    drop((store, tree, watch));
    assert_eq!(place.open().open_tree::<Customer>().unwrap().len().unwrap(), 2);
}

fn statistics_agree_with_what_was_written(place: &Place) {
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&[in_city(1, "Ada", "Paris"), customer(2, "Grace"), customer(3, "Ada")]).unwrap();
    customers.remove(&CustomerPrimaryKey(3)).unwrap();
    store.open_tree().unwrap().put(&order(1, 7)).unwrap();
    let foreign = RecordKey::new("Elsewhere", "Thing", b"1").unwrap();
    let version = netabase_store::Timestamp::from_unix_millis(START);
    let envelope = Envelope::sign(&identity(9), &foreign, version, START + 60_000, Some(b"thing"));
    assert_eq!(store.replica().admit(foreign.as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    let statistics = store.statistics().unwrap();
    let signed = u64::from(store.author().is_some());
    let envelope_bytes =
        |key: &RecordKey| u64::try_from(store.envelope(key).unwrap().unwrap().as_bytes().len()).unwrap();
    let names: Vec<_> = statistics.models.iter().map(|model| model.name).collect();
    assert_eq!(names, ["Customer", "Visit", "Order"]);
    let of_customers = &statistics.models[0];
    assert_eq!((of_customers.records.count, of_customers.records.key_bytes, of_customers.newer), (2, 16, 0));
    assert_eq!(of_customers.records.value_bytes, envelope_bytes(&key(1)) + envelope_bytes(&key(2)));
    let indexes: Vec<_> = of_customers
        .indexes
        .iter()
        .map(|index| (index.name, index.entries.count, index.entries.key_bytes))
        .collect();
    assert_eq!(indexes, [("name", 2, 4 + 8 + 6 + 8), ("city", 1, 6 + 8)]);
    assert_eq!((statistics.models[1].records.count, statistics.models[2].records.count), (0, 1));
    assert_eq!((statistics.foreign.count, statistics.tombstones.count), (1, signed));
    assert_eq!((statistics.expiring, statistics.scheduled), (1, 4 * signed));
    let history = statistics.history;
    assert_eq!((history.changes, history.first, history.last), (6, Some(1), 6));
    assert!(history.bytes > 100);
    assert_eq!(statistics.disk_bytes.is_some(), place.is_on_disk());
    assert!(statistics.disk_bytes.is_none_or(|bytes| bytes > 1000));
    assert_eq!(statistics.commits, store.counters().commits);
}
