//! Copies of other nodes' records: checked once, kept without a commit of their own.

use netabase_store::schema::EncodedRecord;
use netabase_store::{Envelope, NetabaseStore, Origin, RecordKey, Refusal, StorageBackend, Timestamp};

use crate::common::*;

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

/// Another author's version of `customer`, so many milliseconds after the start.
fn version(after: u64, customer: &Customer) -> Envelope {
    let timestamp = Timestamp::from_unix_millis(START + after);
    let payload = EncodedRecord::of(customer).unwrap().payload;
    Envelope::sign(&identity(9), &key(customer.id), timestamp, 0, Some(&payload))
}

fn keep(store: &NetabaseStore, id: i64, version: &Envelope) {
    store.replica().keep(store.replica().check_record(&key(id), version.as_bytes()).unwrap());
}

#[test]
fn kept_records_are_seen_at_once_and_share_a_commit() {
    let store = Place::signed(StorageBackend::Redb).open();
    let events = events(&store);
    let copies: Vec<_> = (1..=200).map(|id| version(1, &customer(id, "Ada"))).collect();
    let commits = store.counters().commits;
    for (id, copy) in (1..).zip(&copies) {
        keep(&store, id, copy);
        assert_eq!(store.envelope(&key(id)).unwrap().as_ref(), Some(copy));
    }
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put(&customer(0, "Grace")).unwrap();
    // One, and one more for every half second that the machine lost in between.
    assert!(store.counters().commits - commits < 20, "{}", store.counters().commits - commits);
    assert_eq!(customers.find(CustomerNameSecondaryKey("Ada".into())).unwrap().len(), 200);
    let change = next_change(&events);
    assert_eq!(
        (change.key, change.origin, change.envelope),
        (key(1), Origin::Network, Some(copies[0].clone()))
    );
}

#[test]
fn a_kept_record_survives_a_restart() {
    let place = Place::signed(StorageBackend::Redb);
    let copy = version(1, &customer(1, "Ada"));
    keep(&place.open(), 1, &copy);
    assert_eq!(place.open().envelope(&key(1)).unwrap(), Some(copy));
}

#[test]
fn a_record_that_is_not_newer_is_not_kept() {
    let store = Place::signed(StorageBackend::Memory).open();
    let newer = version(2, &customer(1, "newer"));
    let queued = events(&store);
    keep(&store, 1, &newer);
    keep(&store, 1, &newer);
    keep(&store, 1, &version(1, &customer(1, "older")));
    assert_eq!(store.envelope(&key(1)).unwrap(), Some(newer.clone()));
    store.open_tree::<Customer>().unwrap().put(&customer(2, "Grace")).unwrap();
    assert_eq!(next_change(&queued).envelope, Some(newer));
    assert_eq!(next_change(&queued).key, key(2));
    assert_eq!(store.replica().refusals(), []);
}

#[test]
fn a_forged_record_cannot_be_kept() {
    let store = Place::signed(StorageBackend::Memory).open();
    let copy = version(1, &customer(1, "Ada"));
    assert_eq!(
        store.replica().check_record(&key(2), copy.as_bytes()).unwrap_err(),
        Refusal::InvalidSignature
    );
    let mut forged = copy.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(store.replica().check_record(&key(1), &forged).unwrap_err(), Refusal::InvalidSignature);
    assert_eq!(store.replica().refusals(), [(Refusal::InvalidSignature, 2)]);
}
