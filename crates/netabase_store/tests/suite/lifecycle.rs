//! Opening, closing and opening again: what lasts, what is refused, what is left behind.

use netabase_store::admin::DamageError;
use netabase_store::schema::SchemaError;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Envelope, KeyField, NetabaseDefinition, NetabaseStore, OpenError, RecordKey, StorageBackend,
    StoreError, StoreOptions, Timestamp, WriteError, netabase_definition_module,
};

use crate::common::tables;
use crate::common::*;

on_every_backend! {
    a_reopened_store_has_its_records_and_indexes,
    a_removed_record_stays_removed,
    what_is_due_is_due_after_a_restart,
    a_schedule_entry_ends_with_its_record,
    a_record_that_is_not_there_is_not_scheduled,
    a_version_that_was_replaced_does_not_schedule_the_next_one,
    a_record_expires,
    a_record_that_expired_meanwhile_is_gone_after_a_restart,
    a_store_is_opened_by_one_at_a_time,
    a_store_of_another_definition_is_refused,
    a_store_of_an_unknown_format_is_refused,
    a_damaged_record_is_reported_and_can_be_replaced,
    a_store_without_an_identity_signs_no_removal,
    an_iteration_may_outlive_its_store,
    a_store_may_be_dropped_in_its_own_callback,
    an_index_that_is_new_finds_the_records_that_are_old,
    a_model_that_went_and_came_back_has_its_records,
    a_record_that_a_returning_model_cannot_read_is_kept,
    a_store_without_a_schema_has_no_trees,
}

#[netabase_definition_module(OtherDefinition, OtherKeys)]
mod other {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(OtherDefinition)]
    pub(crate) struct Customer {
        #[primary_key]
        pub(crate) id: i64,
    }
}

use earlier::{CustomerNotesSecondaryKey, EarlierDefinition};
use other::OtherDefinition;

/// The definition of [`ShopDefinition`]'s name in an earlier program: customers cannot be found by
/// city but by notes, and there are no orders.
#[netabase_definition_module(EarlierDefinition, EarlierKeys, name = "ShopDefinition")]
mod earlier {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(EarlierDefinition)]
    pub(crate) struct Customer {
        #[primary_key]
        pub(crate) id: i64,
        #[secondary_key]
        pub(crate) name: String,
        pub(crate) city: Option<String>,
        #[secondary_key]
        pub(crate) notes: String,
    }
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

/// Writes two groups: what the writer does between them is done when this returns.
fn pass_a_group(store: &NetabaseStore) {
    let tree = store.open_tree::<Visit>().unwrap();
    tree.put(&visit("pass", 1)).unwrap();
    tree.put(&visit("pass", 2)).unwrap();
}

/// Schedules the version of a customer that is there.
fn schedule(store: &NetabaseStore, id: i64, due: Option<u64>) {
    let published = store.envelope(&key(id)).unwrap().unwrap();
    store.replica().schedule(&key(id), &published, due);
}

fn a_reopened_store_has_its_records_and_indexes(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Grace")]).unwrap();
    store.open_tree().unwrap().put(&visit("home", 1)).unwrap();
    drop(store);
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    assert_eq!(customers.len().unwrap(), 2);
    assert_eq!(customers.find(CustomerNameSecondaryKey("Ada".into())).unwrap(), [customer(1, "Ada")]);
    assert_eq!(
        store.open_tree().unwrap().get(&VisitPrimaryKey("home".into(), 1)).unwrap(),
        Some(visit("home", 1))
    );
}

fn a_removed_record_stays_removed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    tree.remove(&CustomerPrimaryKey(1)).unwrap();
    let before = store.envelope(&key(1)).unwrap();
    assert_eq!(before.as_ref().map(Envelope::is_tombstone), store.author().map(|_| true));
    drop((store, tree));
    let store = place.open();
    assert_eq!(store.envelope(&key(1)).unwrap(), before);
    let tree = store.open_tree::<Customer>().unwrap();
    assert!(tree.is_empty().unwrap());
    assert_eq!(tree.find(CustomerNameSecondaryKey("Ada".into())).unwrap(), []);
    tree.put(&customer(1, "Grace")).unwrap();
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Grace")));
}

fn what_is_due_is_due_after_a_restart(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put_many(&[customer(1, "Ada"), customer(2, "Grace"), customer(3, "Edsger")]).unwrap();
    tree.remove(&CustomerPrimaryKey(3)).unwrap();
    let soon = place.time.now() + 1_000;
    schedule(&store, 2, Some(soon));
    pass_a_group(&store);
    assert_eq!(store.replica().due(10).unwrap(), [], "whoever wrote them has time to publish them");
    let store = if place.is_on_disk() {
        drop((store, tree));
        place.open()
    } else {
        store
    };
    place.time.advance(Duration::from_secs(1));
    assert_eq!(store.replica().due(10).unwrap(), [key(2)]);
    place.time.advance(Duration::from_secs(60));
    let due = store.replica().due(3).unwrap();
    if store.author().is_some() {
        assert_eq!(due, [key(2), key(1), key(3)], "tombstones are published too");
    } else {
        assert_eq!(due, [key(2)], "unsigned records are nobody's but ours");
    }
}

fn a_schedule_entry_ends_with_its_record(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    schedule(&store, 1, Some(1));
    schedule(&store, 1, Some(2));
    pass_a_group(&store);
    assert_eq!(store.replica().due(10).unwrap(), [key(1)]);
    tree.remove(&CustomerPrimaryKey(1)).unwrap();
    assert_eq!(store.replica().due(10).unwrap(), [], "the tombstone is due later, if there is one");
}

fn a_record_that_is_not_there_is_not_scheduled(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    let gone = store.envelope(&key(1)).unwrap().unwrap();
    tree.remove(&CustomerPrimaryKey(1)).unwrap();
    store.replica().schedule(&key(1), &gone, Some(1));
    pass_a_group(&store);
    assert_eq!(store.replica().due(10).unwrap(), []);
}

fn a_version_that_was_replaced_does_not_schedule_the_next_one(place: &Place) {
    let store = place.open();
    if store.author().is_none() {
        return;
    }
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    let published = store.envelope(&key(1)).unwrap().unwrap();
    tree.put(&customer(1, "Grace")).unwrap();
    store.replica().schedule(&key(1), &published, None);
    store.replica().schedule(&key(1), &published, Some(1));
    store.replica().unschedule(&key(1));
    pass_a_group(&store);
    assert_eq!(store.replica().due(10).unwrap(), [], "it is not due as the old version was");
    place.time.advance(Duration::from_secs(60));
    assert_eq!(store.replica().due(1).unwrap(), [key(1)], "it is due as it was put");
    schedule(&store, 1, None);
    pass_a_group(&store);
    assert!(!store.replica().due(10).unwrap().contains(&key(1)));
}

fn a_record_expires(place: &Place) {
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let store = place.open();
    let events = events(&store);
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    assert_eq!(next_change(&events).kind, ChangeKind::Stored);
    place.time.advance(Duration::from_secs(9));
    assert!(tree.contains(&CustomerPrimaryKey(1)).unwrap());
    place.time.advance(Duration::from_secs(1));
    let expires = store.author().is_some();
    assert_eq!(tree.contains(&CustomerPrimaryKey(1)).unwrap(), !expires, "unsigned records do not expire");
    assert_eq!(tree.iter().unwrap().count(), usize::from(!expires));
    assert_eq!(tree.find(CustomerNameSecondaryKey("Ada".into())).unwrap().len(), usize::from(!expires));
    if !expires {
        return;
    }
    // Wakes the writer, which may have swept already.
    tree.put(&customer(2, "Grace")).unwrap();
    let changes = [next_change(&events), next_change(&events)];
    let change = changes.iter().find(|change| change.kind == ChangeKind::Expired).unwrap();
    assert_eq!(change.key, key(1));
    assert_eq!(change.envelope.as_ref().map(Envelope::is_tombstone), Some(false));
    assert_eq!(tree.len().unwrap(), 1);
    assert_eq!(tree.get(&CustomerPrimaryKey(2)).unwrap(), Some(customer(2, "Grace")));
}

fn a_record_that_expired_meanwhile_is_gone_after_a_restart(place: &Place) {
    let mut place = place.elsewhere();
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Ada")]).unwrap();
    drop(store);
    place.time.advance(Duration::from_secs(5));
    let store = place.open();
    store.open_tree().unwrap().put(&customer(2, "Ada")).unwrap();
    drop(store);
    place.time.advance(Duration::from_secs(5));
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    assert_eq!(tree.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [customer(2, "Ada")]);
    pass_a_group(&store);
    assert_eq!(tree.len().unwrap(), 1, "and its entry is deleted");
    assert_eq!(tree.find(CustomerNameSecondaryKey("Ada".into())).unwrap(), [customer(2, "Ada")]);
}

fn a_store_is_opened_by_one_at_a_time(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let first = place.open();
    let error = place.try_open::<ShopDefinition>().unwrap_err();
    let ours = cfg!(target_os = "linux").then(std::process::id);
    assert!(
        matches!(&error, StoreError::Open(OpenError::Locked { path, pid, api: None }) if *path == place.path() && *pid == ours),
        "{error:?}"
    );
    let says = if ours.is_some() {
        "has it open already; use the handle that it has"
    } else {
        "has it open; stop it"
    };
    assert!(error.to_string().contains(says), "{error}");
    let options = StoreOptions { lock_timeout: PATIENCE, ..place.options.clone() };
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| {
            NetabaseStore::open_with(place.path(), Some(ShopDefinition::SCHEMA), options).map(drop)
        });
        drop(first);
        waiting.join().unwrap().unwrap();
    });
    let first = place.open();
    first.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    drop(first);
    assert_eq!(place.open().open_tree::<Customer>().unwrap().len().unwrap(), 1);
}

fn a_store_of_another_definition_is_refused(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    drop(place.open());
    let error = place.try_open::<OtherDefinition>().unwrap_err();
    assert!(
        matches!(&error, StoreError::Open(OpenError::OtherDefinition { found, expected: "OtherDefinition" }) if found == "ShopDefinition"),
        "{error:?}"
    );
    let error = NetabaseStore::open_with(place.path(), None, place.options.clone()).unwrap_err();
    assert!(matches!(&error, StoreError::Open(OpenError::OtherDefinition { expected: "", .. })), "{error:?}");
    place.open();
}

fn a_store_of_an_unknown_format_is_refused(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    drop(place.open());
    let later = 6_u32.to_be_bytes().to_vec();
    tables::rewrite(place, |tables| drop(tables.insert(("meta".into(), b"format".to_vec()), later)));
    let error = place.try_open::<ShopDefinition>().unwrap_err();
    assert!(matches!(error, StoreError::Open(OpenError::UnknownFormat { found: 6, known: 5 })), "{error:?}");
    for damaged in [&b"odd"[..], b"", &[0; 4]] {
        let place = place.elsewhere();
        drop(place.open());
        tables::rewrite(&place, |tables| {
            tables.insert(("meta".into(), b"format".to_vec()), damaged.to_vec());
        });
        let error = place.try_open::<ShopDefinition>().unwrap_err();
        assert!(matches!(error, StoreError::Open(OpenError::NotADatabase { .. })), "{error:?}");
    }
}

fn a_damaged_record_is_reported_and_can_be_replaced(place: &Place) {
    if place.options.backend != StorageBackend::Redb {
        return;
    }
    let key = CustomerPrimaryKey(1);
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    let damaged = Some(&b"\x09 no envelope"[..]);
    let backend = place.options.backend;
    tables::set(backend, &place.path(), "records/Customer", &key.to_key_bytes(), damaged);
    let customers = place.open().open_tree::<Customer>().unwrap();
    assert!(matches!(customers.get(&key), Err(StoreError::Damage(DamageError::Record(_)))));
    customers.put(&customer(1, "Grace")).unwrap();
    assert_eq!(customers.get(&key).unwrap(), Some(customer(1, "Grace")));
}

fn a_store_without_an_identity_signs_no_removal(place: &Place) {
    let store = place.open();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    let (sender, receiver) = sync_channel(1);
    let outcome = store.replica().submit_removal(&key(1), move |result| sender.send(result).unwrap());
    if store.author().is_some() {
        assert!(outcome.unwrap().unwrap().is_tombstone());
        let kind = receiver.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(kind, Some(ChangeKind::Removed));
        let nothing = store.replica().submit_removal(&key(1), |_| panic!("there is nothing to write"));
        assert_eq!(nothing.unwrap(), None);
    } else {
        assert!(matches!(outcome, Err(StoreError::Write(WriteError::NoIdentity))), "{outcome:?}");
        receiver.recv().unwrap_err();
        assert_eq!(store.open_tree::<Customer>().unwrap().len().unwrap(), 1);
    }
}

fn an_iteration_may_outlive_its_store(place: &Place) {
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Grace")]).unwrap();
    let records = store.open_tree::<Customer>().unwrap().iter().unwrap();
    drop(store);
    assert_eq!(records.map(Result::unwrap).count(), 2, "it keeps the store open");
    if place.is_on_disk() {
        assert_eq!(place.open().open_tree::<Customer>().unwrap().len().unwrap(), 2);
    }
}

fn a_store_may_be_dropped_in_its_own_callback(place: &Place) {
    let store = place.open();
    let record = EncodedRecord::of(&customer(1, "Ada")).unwrap();
    let (sender, receiver) = sync_channel(1);
    let (give, take) = sync_channel::<NetabaseStore>(1);
    let clone = store.clone();
    clone
        .replica()
        .submit(&record, move |result| {
            drop(take.recv().unwrap());
            sender.send(result).unwrap();
        })
        .unwrap();
    drop(clone);
    give.send(store).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap().unwrap();
}

fn found_by_city(store: &NetabaseStore, city: &str) -> Vec<i64> {
    let tree = store.open_tree::<Customer>().unwrap();
    let found = tree.find(CustomerCitySecondaryKey(city.into())).unwrap();
    found.into_iter().map(|customer| customer.id).collect()
}

fn an_index_that_is_new_finds_the_records_that_are_old(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let in_city = |id, city: &str| earlier::Customer {
        id,
        name: "Ada".into(),
        city: Some(city.into()),
        notes: "note".into(),
    };
    let store = place.try_open::<EarlierDefinition>().unwrap();
    store.open_tree().unwrap().put_many(&[in_city(1, "Paris"), in_city(2, "Paris")]).unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(found_by_city(&store, "Paris"), [1, 2]);
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(2)).unwrap();
    drop(store);
    // The earlier program keeps no index of cities; the later one must not trust what it left.
    let store = place.try_open::<EarlierDefinition>().unwrap();
    let tree = store.open_tree::<earlier::Customer>().unwrap();
    assert_eq!(tree.find(CustomerNotesSecondaryKey("note".into())).unwrap(), [in_city(1, "Paris")]);
    tree.put(&in_city(1, "London")).unwrap();
    drop((store, tree));
    let store = place.open();
    assert_eq!((found_by_city(&store, "Paris"), found_by_city(&store, "London")), (vec![], vec![1]));
}

fn a_model_that_went_and_came_back_has_its_records(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let key = RecordKey::of(&OrderPrimaryKey(1)).unwrap();
    let store = place.open();
    store.open_tree().unwrap().put(&order(1, 7)).unwrap();
    let envelope = store.envelope(&key).unwrap();
    drop(store);
    let store = place.try_open::<EarlierDefinition>().unwrap();
    assert_eq!(store.envelope(&key).unwrap(), envelope, "peers may still ask for it");
    drop(store);
    let store = place.open();
    let tree = store.open_tree::<Order>().unwrap();
    assert_eq!(tree.find(OrderCustomerSecondaryKey(7)).unwrap(), [order(1, 7)]);
    drop((store, tree));
    if place.options.identity.is_some() {
        place.time.advance(Duration::from_secs(10));
        let store = place.try_open::<EarlierDefinition>().unwrap();
        let tree = store.open_tree::<earlier::Customer>().unwrap();
        (0..2).for_each(|_| assert!(!tree.remove(&earlier::CustomerPrimaryKey(1)).unwrap()));
        drop((store, tree));
        assert!(place.open().open_tree::<Order>().unwrap().is_empty().unwrap(), "it expired on the way");
    }
}

fn a_record_that_a_returning_model_cannot_read_is_kept(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let key = |id| RecordKey::of(&OrderPrimaryKey(id)).unwrap();
    let sign = |id, payload: &[u8]| {
        Envelope::sign(&identity(9), &key(id), Timestamp::from_unix_millis(START), 0, Some(payload))
    };
    let payload = EncodedRecord::of(&order(1, 7)).unwrap().payload;
    let mut of_another_version = payload.clone();
    of_another_version[0] += 1;
    let (readable, unreadable, misplaced) =
        (sign(1, &payload), sign(2, &of_another_version), sign(3, &payload));
    let store = place.try_open::<EarlierDefinition>().unwrap();
    for (id, envelope) in [(1, &readable), (2, &unreadable), (3, &misplaced)] {
        assert_eq!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()), Ok(true));
    }
    drop(store);
    let expected = [Some(readable), Some(unreadable), None];
    let stored = |store: &NetabaseStore| [1, 2, 3].map(|id| store.envelope(&key(id)).unwrap());
    let store = place.open();
    assert_eq!(stored(&store), expected);
    let orders = store.open_tree::<Order>().unwrap();
    assert_eq!(orders.find(OrderCustomerSecondaryKey(7)).unwrap(), [order(1, 7)]);
    assert!(matches!(orders.get(&OrderPrimaryKey(2)), Err(StoreError::Value(_))));
    drop((store, orders));
    let store = place.try_open::<EarlierDefinition>().unwrap();
    assert_eq!(stored(&store), expected, "a program that can read it may come yet");
}

fn a_store_without_a_schema_has_no_trees(place: &Place) {
    let store = NetabaseStore::open_with(place.path(), None, place.options.clone()).unwrap();
    let error = store.open_tree::<Customer>().unwrap_err();
    assert!(
        matches!(error, StoreError::Schema(SchemaError::OtherModel { definition: "", model: "Customer" })),
        "{error:?}"
    );
    assert!(store.begin_write().put(&customer(1, "Ada")).is_err());
    let record = EncodedRecord::of(&customer(1, "Ada")).unwrap();
    assert!(store.replica().submit(&record, |_| ()).is_err());
    assert_eq!(store.local_records(None).unwrap().len(), 0);
}

/// Opens `path`, which is no database, and returns what the user is told.
fn open_no_database(path: &Path, backend: StorageBackend) -> String {
    let options = StoreOptions { backend, ..StoreOptions::default() };
    let error = NetabaseStore::open_with(path, Some(ShopDefinition::SCHEMA), options).unwrap_err();
    assert!(
        matches!(&error, StoreError::Open(OpenError::NotADatabase { path: found, backend: tried, .. }) if found == path && *tried == backend),
        "{error:?}"
    );
    let message = format!("{error}: {}", error.source().unwrap());
    assert!(message.contains(&path.display().to_string()), "{message}");
    message
}

fn garbage(len: usize) -> Vec<u8> {
    (0..len).map(|position| u8::try_from(position * 31 % 251).unwrap()).collect()
}

#[test]
fn redb_refuses_a_file_that_is_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for len in [1, 100, 4096, 1 << 20] {
        fs::write(&path, garbage(len)).unwrap();
        open_no_database(&path, StorageBackend::Redb);
        assert_eq!(fs::read(&path).unwrap(), garbage(len), "the file is left as it was");
    }
}

#[test]
fn redb_refuses_a_file_that_was_cut_off() {
    let place = Place::new(StorageBackend::Redb);
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    let whole = fs::read(place.path()).unwrap();
    for len in [whole.len() / 2, 5000, 4096, 500, 64, 10] {
        fs::write(place.path(), &whole[..len]).unwrap();
        open_no_database(&place.path(), StorageBackend::Redb);
    }
}

#[test]
fn redb_refuses_a_directory_and_a_missing_one() {
    let directory = tempfile::tempdir().unwrap();
    open_no_database(directory.path(), StorageBackend::Redb);
    open_no_database(&directory.path().join("missing").join("file"), StorageBackend::Redb);
}

#[test]
fn redb_refuses_the_tables_of_another_program() {
    let place = Place::new(StorageBackend::Redb);
    let database = ::redb::Database::create(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = ::redb::TableDefinition::<u64, u64>::new("theirs");
    transaction.open_table(table).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    open_no_database(&place.path(), StorageBackend::Redb);
}

#[test]
fn sled_refuses_the_trees_of_another_program() {
    let place = Place::new(StorageBackend::Sled);
    let database = open_sled(&place.path());
    database.open_tree("theirs").unwrap();
    database.flush().unwrap();
    drop(database);
    open_no_database(&place.path(), StorageBackend::Sled);
}

#[test]
fn redb_refuses_an_empty_file() {
    let place = Place::new(StorageBackend::Redb);
    fs::write(place.path(), b"").unwrap();
    open_no_database(&place.path(), StorageBackend::Redb);
    assert_eq!(fs::read(place.path()).unwrap(), b"");
}

#[test]
fn sled_refuses_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, garbage(4096)).unwrap();
    open_no_database(&path, StorageBackend::Sled);
    assert_eq!(fs::read(&path).unwrap(), garbage(4096));
}

#[test]
fn sled_begins_in_an_empty_directory() {
    let place = Place::new(StorageBackend::Sled);
    fs::create_dir(place.path()).unwrap();
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
}

#[test]
fn sled_refuses_a_directory_with_a_damaged_configuration() {
    // A damaged log is not noticed: sled takes it for the torn end of a crash and begins anew.
    let place = Place::new(StorageBackend::Sled);
    place.open().open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    fs::write(place.path().join("conf"), garbage(100)).unwrap();
    open_no_database(&place.path(), StorageBackend::Sled);
}

#[test]
fn a_path_of_one_backend_is_refused_by_the_other() {
    let redb = Place::new(StorageBackend::Redb);
    drop(redb.open());
    open_no_database(&redb.path(), StorageBackend::Sled);
    let sled = Place::new(StorageBackend::Sled);
    drop(sled.open());
    open_no_database(&sled.path(), StorageBackend::Redb);
}

/// Set for the process that keeps a temporary store, which thus has a temporary directory to
/// itself.
const CHILD: &str = "NETABASE_TEST_TEMPORARY_STORE";

#[test]
fn a_temporary_store_deletes_its_directory() {
    if std::env::var_os(CHILD).is_some() {
        let temporary = || fs::read_dir(std::env::temp_dir()).unwrap().count();
        assert_eq!(temporary(), 0);
        let store = NetabaseStore::temporary::<ShopDefinition>().unwrap();
        store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
        assert_eq!(temporary(), 1);
        drop(store);
        assert_eq!(temporary(), 0);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::a_temporary_store_deletes_its_directory"])
        .env(CHILD, "1")
        .env("TMPDIR", directory.path())
        .env("TMP", directory.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}
