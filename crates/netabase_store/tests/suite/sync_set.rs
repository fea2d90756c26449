//! The sets that are compared with others' have what is here, whatever was done.

use std::collections::BTreeMap;
use std::time::Duration;

use negentropy::{Id, Negentropy, NegentropyStorageBase, NegentropyStorageVector};
use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::replica::ScopeError;
use netabase_store::replica::{SyncDifference, SyncItem};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Envelope, NetabaseStore, RecordKey, Scope, StorageBackend, StoreError, Timestamp,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::tables::rewrite;
use crate::common::*;

on_every_backend! {
    a_set_is_what_one_made_afresh_is,
    pieces_are_cut_and_joined,
    a_record_that_is_pinned_is_not_released,
    what_is_pinned_is_evicted_last,
    a_database_of_format_3_is_brought_up_to_date,
    damaged_sets_are_found_and_repaired,
}

const LIMIT: usize = 1 << 20;

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

/// An operation on a store.
#[derive(Debug, Clone)]
enum Call {
    Put(i64, &'static str),
    PutMany(Vec<(i64, &'static str)>),
    PutOrder(i64),
    Remove(i64),
    /// A batch that fails.
    Abandon(i64),
    /// A version of a peer's, whose clock differs; a tombstone without a name.
    Admit(i64, Option<&'static str>, i64, Option<u64>),
    Evict(i64),
    Wait(u64),
    Reopen,
    Rebuild,
    Repair,
}

fn a_call() -> impl Strategy<Value = Call> {
    let id = || 0..40_i64;
    let name = || select(vec!["a", "b", "c"]);
    prop_oneof![
        6 => (id(), name()).prop_map(|(id, name)| Call::Put(id, name)),
        3 => prop::collection::vec((0..900_i64, name()), 0..700).prop_map(Call::PutMany),
        2 => id().prop_map(Call::PutOrder),
        4 => id().prop_map(Call::Remove),
        2 => id().prop_map(Call::Abandon),
        8 => (id(), prop::option::of(name()), -5000..5000_i64, prop::option::of(5001..9000_u64))
            .prop_map(|(id, name, by, lifetime)| Call::Admit(id, name, by, lifetime.filter(|_| name.is_some()))),
        3 => id().prop_map(Call::Evict),
        3 => (0..3000_u64).prop_map(Call::Wait),
        1 => Just(Call::Reopen),
        1 => Just(Call::Rebuild),
        1 => Just(Call::Repair),
    ]
}

fn envelope(author: u8, id: i64, time: u64, name: Option<&str>, expires: u64) -> Envelope {
    let payload = name.map(|name| EncodedRecord::of(&customer(id, name)).unwrap().payload);
    Envelope::sign(
        &identity(author),
        &key(id),
        Timestamp::from_unix_millis(time),
        expires,
        payload.as_deref(),
    )
}

fn do_call(place: &Place, store: &mut Option<NetabaseStore>, call: &Call) {
    if let (Call::Reopen, true) = (call, place.is_on_disk()) {
        *store = None;
        *store = Some(place.open());
    }
    let store = store.as_ref().unwrap();
    let customers = store.open_tree::<Customer>().unwrap();
    match call {
        Call::Put(id, name) => customers.put(&customer(*id, name)).unwrap(),
        Call::PutMany(many) => {
            let many: Vec<_> = many.iter().map(|(id, name)| customer(*id, name)).collect();
            customers.put_many(&many).unwrap();
        }
        Call::PutOrder(id) => store.open_tree().unwrap().put(&order(*id, 1)).unwrap(),
        Call::Remove(id) => drop(customers.remove(&CustomerPrimaryKey(*id)).unwrap()),
        Call::Abandon(id) => {
            let mut transaction = store.begin_write();
            transaction.put(&customer(*id, "abandoned")).unwrap();
            transaction.get(&CustomerPrimaryKey(901)).unwrap();
            customers.put(&customer(901, "other")).unwrap();
            let _ = transaction.commit();
        }
        Call::Admit(id, name, by, lifetime) => {
            let now = place.time.now();
            let expires = lifetime.map_or(0, |lifetime| now + lifetime);
            let envelope = envelope(9, *id, now.checked_add_signed(*by).unwrap(), *name, expires);
            let _ = store.replica().admit(key(*id).as_bytes(), envelope.as_bytes());
        }
        Call::Evict(id) => {
            let placed = store.replica().positions(&[0; 32], usize::MAX).unwrap();
            if let Some(placed) = placed.iter().find(|placed| placed.key == key(*id)) {
                store.replica().release(placed).unwrap();
            }
        }
        Call::Wait(millis) => place.time.advance(Duration::from_millis(*millis)),
        Call::Rebuild => store.rebuild_indexes().unwrap(),
        Call::Repair => {
            store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
        }
        Call::Reopen => {}
    }
}

/// Waits until everything was written, and what is over was deleted.
fn settle(store: &NetabaseStore) {
    for _ in 0..3 {
        store.flush().unwrap();
    }
}

/// The items of a model, from a read of its records.
fn afresh(store: &NetabaseStore, model: &str) -> BTreeMap<SyncItem, RecordKey> {
    let placed = store.replica().positions(&[0; 32], usize::MAX).unwrap();
    let ours = placed.into_iter().filter(|placed| placed.key.model() == model);
    ours.map(|placed| {
        let envelope = store.replica().version_for_peers(&placed.key).unwrap().unwrap();
        (SyncItem::of(&placed.key, &envelope).unwrap(), placed.key)
    })
    .collect()
}

fn vector<'a>(items: impl IntoIterator<Item = &'a SyncItem>) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::new();
    for item in items {
        storage.insert(item.timestamp, Id::from_byte_array(item.id)).unwrap();
    }
    storage.seal().unwrap();
    storage
}

fn assert_is_afresh(store: &NetabaseStore) {
    for (scope, model) in [(Scope::model::<Customer>(), "Customer"), (Scope::model::<Order>(), "Order")] {
        let items = afresh(store, model);
        let storage = vector(items.keys());
        let mut set = store.replica().sync_set(&scope).unwrap();
        assert_eq!(set.len(), items.len());
        let fingerprint = storage.fingerprint(0, items.len()).unwrap().to_bytes();
        assert_eq!(set.fingerprint().unwrap(), fingerprint);
        let mut found = Vec::new();
        let (from, to) = (netabase_store::replica::SyncBound::BEGIN, netabase_store::replica::SyncBound::END);
        let looked_at = set
            .read(&from, &to, |_| true, &mut |item, record| {
                found.push((item, record.unwrap().0));
                true
            })
            .unwrap();
        assert_eq!(looked_at, items.len());
        assert!(found.iter().map(|(item, key)| (item, key)).eq(&items));
        // Half of it is compared as the crate compares it.
        let half = vector(items.keys().step_by(2));
        let mut other = Negentropy::borrowed(&half, LIMIT as u64).unwrap();
        let (mut difference, mut message) = (SyncDifference::default(), Some(set.initiate_split().unwrap()));
        while let Some(asked) = message {
            let answer = other.reconcile(&asked).unwrap();
            message = set.reconcile(&answer, LIMIT, &mut difference).unwrap().message;
        }
        assert!(difference.have.iter().eq(items.keys().skip(1).step_by(2)));
        assert_eq!(difference.needed(), 0);
    }
}

/// Values that were looked up before have what records say, too.
fn assert_values_are_afresh(store: &NetabaseStore) {
    let customers = store.open_tree::<Customer>().unwrap();
    for name in ["a", "b", "c"] {
        let found = customers.find(CustomerNameSecondaryKey(name.into())).unwrap();
        let expected = found.iter().filter_map(|found| {
            let key = key(found.id);
            SyncItem::of(&key, &store.envelope(&key).unwrap()?).map(|item| (item, key))
        });
        let expected: BTreeMap<_, _> = expected.collect();
        let mut set =
            store.replica().sync_set(&Scope::value(&CustomerNameSecondaryKey(name.into()))).unwrap();
        let fingerprint = vector(expected.keys()).fingerprint(0, expected.len()).unwrap().to_bytes();
        assert_eq!((set.len(), set.fingerprint().unwrap()), (expected.len(), fingerprint), "{name}");
    }
}

#[test]
fn a_value_that_was_gathered_is_not_read_again_until_something_has_changed_in_it() {
    for backend in [StorageBackend::Redb, StorageBackend::Memory] {
        let place = Place::signed(backend);
        let store = place.open();
        let customers = store.open_tree::<Customer>().unwrap();
        let named = |ids: std::ops::Range<i64>, name| ids.map(|id| customer(id, name)).collect::<Vec<_>>();
        customers.put_many(&named(0..500, "a")).unwrap();
        customers.put_many(&named(500..600, "b")).unwrap();
        let read = |name: &str| {
            let set =
                store.replica().sync_set(&Scope::value(&CustomerNameSecondaryKey(name.into()))).unwrap();
            (set.entries_read(), set.len())
        };
        assert_eq!([read("a"), read("a"), read("b")], [(500, 500), (0, 500), (100, 100)]);
        // Something else changes.
        customers.put(&customer(1000, "c")).unwrap();
        customers.remove(&CustomerPrimaryKey(500)).unwrap();
        assert_eq!([read("a"), read("b"), read("b")], [(0, 500), (99, 99), (0, 99)]);
        // It loses one to another value, and gets one.
        customers.put(&customer(7, "b")).unwrap();
        assert_eq!([read("a"), read("b")], [(499, 499), (100, 100)]);
        customers.put(&customer(1000, "a")).unwrap();
        assert_eq!([read("a"), read("a")], [(500, 500), (0, 500)]);
        // More changes of other records than are compared.
        customers.put_many(&named(2000..2400, "c")).unwrap();
        assert_eq!([read("a"), read("a")], [(500, 500), (0, 500)]);
        // An expired version is in no set.
        let envelope = envelope(9, 3000, START, Some("a"), START + 1000);
        store.replica().admit(key(3000).as_bytes(), envelope.as_bytes()).unwrap();
        store.flush().unwrap();
        assert_eq!([read("a"), read("a")], [(501, 501), (0, 501)]);
        place.time.advance(Duration::from_secs(2));
        assert_eq!(read("a").1, 500);
        // More values than are kept.
        for value in 0..40 {
            customers.put(&customer(4000 + value, &format!("value {value}"))).unwrap();
            assert_eq!(read(&format!("value {value}")).1, 1);
        }
        assert!(read("a").0 > 0);
    }
}

fn a_set_is_what_one_made_afresh_is(place: &Place) {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(calls in prop::collection::vec(a_call(), 1..40))| {
        let mut place = place.elsewhere();
        place.options.record_lifetime = Some(Duration::from_secs(6));
        place.options.tombstone_floor = Duration::from_secs(9);
        let mut store = Some(place.open());
        for call in &calls {
            do_call(&place, &mut store, call);
            settle(store.as_ref().unwrap());
            assert_values_are_afresh(store.as_ref().unwrap());
        }
        let open = store.as_ref().unwrap();
        settle(open);
        assert_is_afresh(open);
        let report = open.check(CheckOptions::default()).unwrap();
        prop_assert!(report.is_clean(), "{:#?}", report.problems);
    });
}

fn pieces_are_cut_and_joined(place: &Place) {
    let store = place.open();
    let admit = |id, time| {
        let envelope = envelope(9, id, START + time, Some("name"), 0);
        assert_eq!(store.replica().admit(key(id).as_bytes(), envelope.as_bytes()), Ok(true));
    };
    // At the end, in the middle, at the beginning, and then most of it goes.
    (0..1500).for_each(|id| admit(id, 300_000 + id.cast_unsigned()));
    store.flush().unwrap();
    (1500..3000).for_each(|id| admit(id, 300_400 + id.cast_unsigned() % 7));
    (3000..3700).for_each(|id| admit(id, id.cast_unsigned() % 3));
    settle(&store);
    assert_is_afresh(&store);
    let placed = store.replica().positions(&[0; 32], usize::MAX).unwrap();
    for placed in placed.iter().filter(|placed| !placed.key.as_bytes().ends_with(&[0])) {
        while !store.replica().release(placed).unwrap() {
            store.flush().unwrap();
        }
    }
    settle(&store);
    assert!(store.replica().sync_set(&Scope::model::<Customer>()).unwrap().len() < 30);
    assert_is_afresh(&store);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn a_record_that_is_pinned_is_not_released(place: &Place) {
    let store = place.open();
    for (id, name) in [(1, "a"), (2, "b")] {
        let envelope = envelope(9, id, START, Some(name), 0);
        store.replica().admit(key(id).as_bytes(), envelope.as_bytes()).unwrap();
    }
    store.flush().unwrap();
    let release = |id| {
        let placed = store.replica().positions(&[0; 32], 10).unwrap();
        store.replica().release(placed.iter().find(|placed| placed.key == key(id)).unwrap()).unwrap()
    };
    let all = store.replica().pin(&Scope::definition::<ShopDefinition>());
    let named = store.replica().pin(&Scope::value(&CustomerNameSecondaryKey("a".into())));
    assert!(!release(1) && !release(2));
    drop(all);
    assert!(!release(1));
    assert!(release(2));
    drop(named);
    assert!(release(1));
}

fn what_is_pinned_is_evicted_last(place: &Place) {
    let mut place = place.elsewhere();
    place.options.position = Some([0x5a; 32]);
    let one = envelope(9, 1, START, Some("a"), 0);
    place.options.max_replica_bytes = 10 * (key(1).as_bytes().len() + one.as_bytes().len()) as u64;
    let store = place.open();
    let events = events(&store);
    let _pin = store.replica().pin(&Scope::value(&CustomerNameSecondaryKey("p".into())));
    let admit = |id, name| {
        let envelope = envelope(9, id, START, Some(name), 0);
        let admitted = store.replica().admit(key(id).as_bytes(), envelope.as_bytes());
        settle(&store);
        admitted
    };
    for id in 0..10 {
        assert_eq!(admit(id, if id < 5 { "p" } else { "u" }), Ok(true));
    }
    // Each takes the place of one that is not pinned, however far it is itself.
    for id in 10..15 {
        assert_eq!(admit(id, "p"), Ok(true));
    }
    let evicted: Vec<_> = events
        .try_iter()
        .filter_map(|event| match event {
            netabase_store::changes::StoreEvent::Changed(change) if change.kind == ChangeKind::Evicted => {
                Some(change.key)
            }
            _ => None,
        })
        .collect();
    assert_eq!(evicted.len(), 5);
    assert!((5..10).all(|id| evicted.contains(&key(id))), "{evicted:?}");
    // Now there are no others.
    let (mut near, mut far) = (0, 0);
    for id in 20..60 {
        match admit(id, "p") {
            Ok(_) => near += 1,
            Err(netabase_store::Refusal::Full) => far += 1,
            Err(refusal) => panic!("{refusal}"),
        }
    }
    assert!(near > 0 && far > 0);
    assert_eq!(store.replica().sync_set(&Scope::model::<Customer>()).unwrap().len(), 10);
}

#[test]
fn a_value_has_the_records_that_have_it() {
    let place = Place::signed(StorageBackend::Memory);
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&[customer(1, "a"), customer(2, "ab"), customer(3, "a"), customer(4, "a")]).unwrap();
    customers.put(&customer(3, "b")).unwrap();
    customers.remove(&CustomerPrimaryKey(4)).unwrap();
    let named = |name: &str| {
        let mut set =
            store.replica().sync_set(&Scope::value(&CustomerNameSecondaryKey(name.into()))).unwrap();
        let mut keys = Vec::new();
        set.read(
            &netabase_store::replica::SyncBound::BEGIN,
            &netabase_store::replica::SyncBound::END,
            |_| true,
            &mut |_, record| {
                keys.extend(record.map(|(key, _)| key));
                true
            },
        )
        .unwrap();
        keys
    };
    assert_eq!((named("a"), named("ab"), named("b")), (vec![key(1)], vec![key(2)], vec![key(3)]));
}

#[test]
fn a_scope_that_is_not_here_is_refused() {
    let store = Place::new(StorageBackend::Memory).open();
    let mut scope = Scope::model::<Customer>();
    scope.definition = "Other".into();
    assert!(matches!(store.replica().sync_set(&scope), Err(StoreError::Scope(ScopeError::Unknown { .. }))));
    assert!(matches!(
        store.replica().sync_set(&Scope::definition::<ShopDefinition>()),
        Err(StoreError::Scope(ScopeError::Unknown { .. }))
    ));
    assert_eq!(store.replica().parts_of_scope(&Scope::definition::<ShopDefinition>()).unwrap().len(), 3);
    let mut named = Scope::value(&CustomerNameSecondaryKey("a".into()));
    if let netabase_store::ScopePart::Value { index, .. } = &mut named.part {
        *index = "none".into();
    }
    assert!(matches!(
        store.replica().parts_of_scope(&named),
        Err(StoreError::Scope(ScopeError::Unknown { .. }))
    ));
}

/// Records, tombstones, and a version of a peer's.
fn fill(store: &NetabaseStore) {
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&(0..900).map(|id| customer(id, "a")).collect::<Vec<_>>()).unwrap();
    customers.remove(&CustomerPrimaryKey(3)).unwrap();
    store.open_tree().unwrap().put(&order(1, 1)).unwrap();
    let envelope = envelope(9, 5, START + 60_000, None, 0);
    store.replica().admit(key(5).as_bytes(), envelope.as_bytes()).unwrap();
    settle(store);
}

fn a_database_of_format_3_is_brought_up_to_date(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    fill(&store);
    drop(store);
    rewrite(place, |tables| {
        tables.insert(("meta".into(), b"format".to_vec()), 3_u32.to_be_bytes().to_vec());
        tables.retain(|(name, _), _| !name.starts_with("sync/"));
        // Left over from an upgrade that was interrupted, and an earlier program went on.
        tables.insert(("sync/Customer".into(), vec![1; 41]), vec![1]);
    });
    let store = place.open();
    assert_is_afresh(&store);
    // The sums that the writer has are those of the upgrade.
    store
        .open_tree()
        .unwrap()
        .put_many(&(2000..2600).map(|id| customer(id, "b")).collect::<Vec<_>>())
        .unwrap();
    assert_is_afresh(&store);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn damaged_sets_are_found_and_repaired(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    fill(&store);
    let items = afresh(&store, "Customer");
    let (first, gone) = items.iter().next().map(|(item, key)| (*item, key.clone())).unwrap();
    drop(store);
    let item_key = |item: &SyncItem| [&[1][..], &item.timestamp.to_be_bytes(), &item.id].concat();
    rewrite(place, |tables| {
        let table = || "sync/Customer".to_owned();
        tables.remove(&(table(), item_key(&first)));
        let other = SyncItem { timestamp: START + 7, id: [7; 32] };
        tables.insert((table(), item_key(&other)), b"nobody".to_vec());
        tables.insert((table(), b"nonsense".to_vec()), Vec::new());
        tables.insert(("sync/Order".into(), vec![0; 41]), vec![9; 36]);
    });
    let store = place.open();
    // Damaged sums do not make the call fail.
    store.replica().sync_set(&Scope::model::<Customer>()).unwrap().initiate_split().unwrap();
    let report = store.check(CheckOptions::default()).unwrap();
    let malformed = Problem::Malformed { table: "sync/Customer".into(), entry: b"nonsense".to_vec() };
    let mut expected = vec![malformed, Problem::WrongSyncSums { model: "Order" }];
    if place.options.identity.is_some() {
        expected
            .extend([Problem::MissingSyncItem { key: gone }, Problem::WrongSyncSums { model: "Customer" }]);
    }
    for problem in expected {
        assert!(report.problems.contains(&problem), "{problem:?}: {:#?}", report.problems);
    }
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    assert_is_afresh(&store);
    store.open_tree().unwrap().put(&customer(4000, "after")).unwrap();
    assert_is_afresh(&store);
}
