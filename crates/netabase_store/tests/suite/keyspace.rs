//! The places of records in Kademlia's keyspace, and the marks of walks over it.

use netabase_store::admin::{CheckOptions, Problem};
use netabase_store::replica::Placed;
use netabase_store::schema::EncodedRecord;
use netabase_store::{Envelope, NetabaseStore, RecordKey, StoreError, Timestamp, WriteError};
use proptest::prelude::*;

use crate::common::chat;
use crate::common::tables::{Tables, rewrite};
use crate::common::*;

/// The most marks of a store.
const MAX_MARKS: usize = 64;
/// The longest value of a mark, in bytes.
const MAX_MARK_BYTES: usize = 1024;

on_every_backend! {
    positions_follow_the_records,
    a_batch_that_is_refused_moves_nothing,
    the_keyspace_is_read_in_pages,
    a_database_of_format_2_is_brought_up_to_date,
    damaged_positions_are_found_and_repaired,
    marks_are_kept,
    marks_are_bounded,
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn foreign(id: u8) -> RecordKey {
    RecordKey::new("OtherDefinition", "Thing", &[id]).unwrap()
}

fn everything(store: &NetabaseStore) -> Vec<Placed> {
    let placed = store.replica().positions(&[0; 32], usize::MAX).unwrap();
    assert_eq!(store.replica().positions_len().unwrap(), placed.len() as u64);
    placed
}

/// The places that the keyspace should have of these records.
fn expected(store: &NetabaseStore, keys: impl IntoIterator<Item = RecordKey>) -> Vec<([u8; 32], [u8; 16])> {
    let mut expected: Vec<_> = keys
        .into_iter()
        // With what has expired and ends an earlier version, as peers are given it.
        .filter_map(|key| Some((key.position(), store.replica().version_for_peers(&key).unwrap()?)))
        .filter(|(_, envelope)| envelope.is_signed())
        .map(|(position, envelope)| (position, envelope.version().unwrap().hash[..16].try_into().unwrap()))
        .collect();
    expected.sort_unstable();
    expected
}

fn assert_placed(store: &NetabaseStore) {
    store.flush().unwrap();
    let found: Vec<_> =
        everything(store).into_iter().map(|placed| (placed.position, placed.fingerprint)).collect();
    assert_eq!(found, expected(store, (0..8).map(key).chain((0..4).map(foreign))));
    for key in (0..9).map(key).chain((0..5).map(foreign)) {
        let envelope = store.envelope(&key).unwrap();
        let version = envelope.and_then(|envelope| Some((envelope.timestamp()?, envelope.fingerprint())));
        assert_eq!(store.replica().version_of(&key).unwrap(), version);
    }
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[derive(Debug, Clone)]
enum Call {
    Put(Vec<i64>),
    Remove(i64),
    /// A peer's record, or deletion.
    Admit(i64, u64, bool),
    Foreign(u8, u64, bool),
    Expire,
    Reopen,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        prop::collection::vec(0..8_i64, 1..100).prop_map(Call::Put),
        (0..8_i64).prop_map(Call::Remove),
        (0..8_i64, 0..5_u64, any::<bool>()).prop_map(|(id, time, live)| Call::Admit(id, time, live)),
        (0..4_u8, 0..5_u64, any::<bool>()).prop_map(|(id, time, live)| Call::Foreign(id, time, live)),
        Just(Call::Expire),
        Just(Call::Reopen),
    ]
}

fn from_peer(store: &NetabaseStore, key: &RecordKey, time: u64, payload: Option<&[u8]>) {
    let timestamp = Timestamp::from_unix_millis(START - 2 + time);
    let expires = if payload.is_some() && time == 4 { START + 1000 } else { 0 };
    let envelope = Envelope::sign(&identity(2), key, timestamp, expires, payload);
    // A version older than the stored one is refused.
    let _ = store.replica().admit(key.as_bytes(), envelope.as_bytes());
}

fn positions_follow_the_records(place: &Place) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = |calls: Vec<Call>| {
        let place = place.elsewhere();
        let mut store = place.open();
        for call in calls {
            match call {
                Call::Put(ids) => {
                    let customers: Vec<_> = ids.iter().map(|id| customer(*id, "Ada")).collect();
                    store.open_tree().unwrap().put_many(&customers).unwrap();
                }
                Call::Remove(id) => {
                    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(id)).unwrap();
                }
                Call::Admit(id, time, live) => {
                    let payload = EncodedRecord::of(&customer(id, "Bob")).unwrap().payload;
                    from_peer(&store, &key(id), time, live.then_some(&payload));
                }
                Call::Foreign(id, time, live) => {
                    from_peer(&store, &foreign(id), time, live.then_some(b"foreign"));
                }
                Call::Expire => place.time.advance(std::time::Duration::from_millis(1001)),
                Call::Reopen if place.is_on_disk() => {
                    drop(store);
                    store = place.open();
                }
                Call::Reopen => {}
            }
            // The sweep runs behind the next write, and the next flush comes behind the sweep.
            store.flush().unwrap();
            assert_placed(&store);
        }
        Ok(())
    };
    runner.run(&prop::collection::vec(call(), 1..12), run).unwrap();
}

fn a_batch_that_is_refused_moves_nothing(place: &Place) {
    let store = place.try_open::<chat::ChatDefinition>().unwrap();
    let messages = store.open_tree().unwrap();
    messages.put(&chat::message(1, "hall")).unwrap();
    let before = everything(&store);
    let same_slug = chat::Message { slug: "m1".into(), ..chat::message(3, "hall") };
    let error = messages.put_many(&[chat::message(2, "hall"), same_slug]).unwrap_err();
    assert!(matches!(error, StoreError::Write(WriteError::NotUnique { .. })), "{error:?}");
    assert_eq!(everything(&store), before);
}

fn the_keyspace_is_read_in_pages(place: &Place) {
    let store = place.open();
    store.open_tree().unwrap().put_many(&(0..50).map(|id| customer(id, "Ada")).collect::<Vec<_>>()).unwrap();
    let all = everything(&store);
    if place.options.identity.is_none() {
        return assert_eq!(all, []);
    }
    assert_eq!(all.len(), 50);
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(store.replica().positions(&[0; 32], 7).unwrap(), all[..7]);
    assert_eq!(store.replica().positions(&all[7].position, 7).unwrap(), all[7..14]);
    assert_eq!(store.replica().positions(&[0xff; 32], 7).unwrap(), []);
}

/// Makes of a database what a program of format 2 would have written.
fn make_format_2(tables: &mut Tables) {
    tables.insert(("meta".into(), b"format".to_vec()), 2_u32.to_be_bytes().to_vec());
    tables.retain(|(name, _), _| {
        !["positions", "buried", "authors"].contains(&name.as_str()) && !name.starts_with("sync/")
    });
}

fn a_database_of_format_2_is_brought_up_to_date(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Bob")]).unwrap();
    store.open_tree::<Customer>().unwrap().remove(&CustomerPrimaryKey(1)).unwrap();
    from_peer(&store, &foreign(1), 1, Some(b"foreign"));
    from_peer(&store, &key(3), 1, None);
    store.flush().unwrap();
    let before = everything(&store);
    drop(store);
    rewrite(place, |tables| {
        make_format_2(tables);
        // Left over from an upgrade that was interrupted, and an earlier program went on.
        tables.insert(("positions".into(), b"left over".to_vec()), Vec::new());
    });
    let store = place.open();
    assert_eq!(everything(&store), before);
    assert_placed(&store);
    drop(store);
    rewrite(place, |tables| {
        assert_eq!(tables[&("meta".into(), b"format".to_vec())], 5_u32.to_be_bytes());
    });
}

fn damaged_positions_are_found_and_repaired(place: &Place) {
    if !place.is_on_disk() || place.options.identity.is_none() {
        return;
    }
    let store = place.open();
    store.open_tree().unwrap().put_many(&[customer(1, "Ada"), customer(2, "Bob")]).unwrap();
    let before = everything(&store);
    drop(store);
    let entry = |id| [&key(id).position()[..], key(id).as_bytes()].concat();
    rewrite(place, |tables| {
        let table = || "positions".to_owned();
        tables.remove(&(table(), entry(1))).unwrap();
        tables.insert((table(), entry(2)), vec![0; 16]);
        tables.insert((table(), entry(3)), vec![0; 16]);
        tables.insert((table(), b"nonsense".to_vec()), Vec::new());
    });
    let store = place.open();
    let report = store.check(CheckOptions::default()).unwrap();
    for problem in [
        Problem::MissingPosition { key: key(1) },
        Problem::MissingPosition { key: key(2) },
        Problem::SuperfluousPosition { key: key(3) },
        Problem::Malformed { table: "positions".into(), entry: b"nonsense".to_vec() },
    ] {
        assert!(report.problems.contains(&problem), "{problem}: {report:?}");
    }
    assert_eq!(report.total_problems, 4);
    let report = store.check(CheckOptions { repair: true, ..CheckOptions::default() }).unwrap();
    assert!(report.is_clean() && report.repaired.len() == 4, "{report:?}");
    assert_eq!(everything(&store), before);
}

fn marks_are_kept(place: &Place) {
    let store = place.open();
    assert_eq!(store.replica().mark("sweep"), None);
    store.replica().set_mark("sweep", b"here").unwrap();
    store.replica().set_mark("sweep", b"there").unwrap();
    assert_eq!(store.replica().mark("sweep").unwrap(), b"there");
    drop(store);
    if place.is_on_disk() {
        let store = place.open();
        assert_eq!(store.replica().mark("sweep").unwrap(), b"there");
        assert!(store.check(CheckOptions::default()).unwrap().is_clean());
    }
}

fn marks_are_bounded(place: &Place) {
    let store = place.open();
    let refused = |name: &str, value: &[u8]| {
        assert!(matches!(
            store.replica().set_mark(name, value),
            Err(StoreError::Write(WriteError::Mark { .. }))
        ));
    };
    refused("large", &[0; MAX_MARK_BYTES + 1]);
    refused(&"n".repeat(65), b"");
    for number in 0..MAX_MARKS {
        store.replica().set_mark(&number.to_string(), b"").unwrap();
    }
    refused("one more", b"");
    store.replica().set_mark("0", b"changed").unwrap();
}

#[cfg(feature = "libp2p")]
#[test]
fn a_position_is_that_of_kademlia() {
    let kad = libp2p::kad::KBucketKey::new(key(7).as_bytes().to_vec());
    assert_eq!(kad.hashed_bytes(), &key(7).position()[..]);
    let store = Place::signed(netabase_store::StorageBackend::Memory).open();
    store.open_tree().unwrap().put(&customer(7, "Ada")).unwrap();
    assert_eq!(&everything(&store)[0].position[..], kad.hashed_bytes());
}
