//! The cost of peers' contributions to a merged record, which may be small.

use netabase_store::admin::CheckOptions;
use netabase_store::changes::StoreEvent;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Envelope, NetabaseStore, RecordKey, Refusal, Timestamp, WatchFrom, WritePolicy,
    netabase_definition_module,
};

use crate::common::*;

#[netabase_definition_module(TallyDefinition, TallyKeys)]
mod tallies {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(TallyDefinition)]
    pub(crate) struct Tally {
        #[primary_key]
        pub(crate) id: u64,
        #[merge(counter)]
        pub(crate) votes: i64,
        #[merge(lww)]
        pub(crate) text: String,
    }
}
use tallies::*;

on_every_backend! {
    contributions_that_wait_together_are_written_once,
    contributions_to_one_record_that_wait_are_bounded,
}

fn key(id: u64) -> RecordKey {
    RecordKey::of(&TallyPrimaryKey(id)).unwrap()
}

fn tally(id: u64, votes: i64) -> Tally {
    Tally { id, votes, text: String::new() }
}

/// The contribution of author `seed`, so many milliseconds after the start.
fn contribution(seed: u8, after: u64, tally: Option<&Tally>, id: u64) -> Envelope {
    let payload = tally.map(|tally| EncodedRecord::of(tally).unwrap().payload);
    let time = Timestamp::from_unix_millis(START + after);
    Envelope::sign(&identity(seed), &key(id), time, 0, payload.as_deref())
}

fn admit(store: &NetabaseStore, id: u64, parts: &[Envelope]) -> Result<bool, Refusal> {
    store.replica().admit(key(id).as_bytes(), Envelope::bundle(parts).unwrap().as_bytes())
}

fn votes(store: &NetabaseStore, id: u64) -> Option<i64> {
    store.open_tree::<Tally>().unwrap().get(&TallyPrimaryKey(id)).unwrap().map(|tally| tally.votes)
}

/// Holds up the writer by a contribution to another record.
fn hold(store: &NetabaseStore) -> HeldWriter {
    HeldWriter::hold(store, |store| {
        admit(store, 100, &[contribution(2, 0, Some(&tally(100, 1)), 100)]).unwrap();
    })
}

fn contributions_that_wait_together_are_written_once(place: &Place) {
    let store = place.try_open::<TallyDefinition>().unwrap();
    let held = hold(&store);
    let mut changes = store.changes(WatchFrom::Now).unwrap();
    for seed in 2..42_u8 {
        let part = contribution(seed, 2 * u64::from(seed), Some(&tally(1, 1)), 1);
        assert_eq!(admit(&store, 1, &[part]), Ok(true));
        assert_eq!(admit(&store, 2, &[contribution(seed, 1, Some(&tally(2, 2)), 2)]), Ok(true));
    }
    // Later contributions in the queue count, too.
    let all_before = contribution(50, 43, None, 1);
    assert_eq!(admit(&store, 1, &[all_before]), Ok(true));
    let version = || {
        let envelope = store.envelope(&key(1)).unwrap().unwrap();
        assert_eq!(
            store.replica().version_of(&key(1)).unwrap(),
            envelope.timestamp().zip(Some(envelope.fingerprint()))
        );
        envelope.fingerprint()
    };
    let before = version();
    drop(held);
    store.flush().unwrap();
    assert_eq!(version(), before);
    assert_eq!((votes(&store, 1), votes(&store, 2)), (Some(20), Some(80)), "those after the deletion count");
    let stored: Vec<_> = std::iter::from_fn(|| changes.try_next().unwrap())
        .map(|change| (change.change.kind, change.change.key))
        .filter(|(_, key)| key.primary_key() != self::key(100).primary_key())
        .collect();
    assert_eq!(stored, [(ChangeKind::Stored, key(1)), (ChangeKind::Stored, key(2))]);
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

fn contributions_to_one_record_that_wait_are_bounded(place: &Place) {
    const WAITING: u64 = 256;
    let store = place.try_open::<TallyDefinition>().unwrap();
    let held = hold(&store);
    let part = |after| contribution(2, after, Some(&tally(1, 1)), 1);
    for after in 0..WAITING {
        assert_eq!(admit(&store, 1, &[part(after)]), Ok(true));
    }
    assert_eq!(admit(&store, 1, &[part(WAITING)]), Err(Refusal::Busy));
    assert_eq!(
        admit(&store, 2, &[contribution(2, 0, Some(&tally(2, 1)), 2)]),
        Ok(true),
        "others do not wait"
    );
    drop(held);
    store.flush().unwrap();
    assert_eq!(admit(&store, 1, &[part(WAITING)]), Ok(true));
    store.flush().unwrap();
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn a_contribution_costs_its_parts_and_what_it_is_added_to() {
    let place = Place::new(netabase_store::StorageBackend::Memory);
    let store = place.try_open::<TallyDefinition>().unwrap();
    let cost = |parts: &[Envelope]| {
        store.replica().admission_cost(key(1).as_bytes(), Envelope::bundle(parts).unwrap().as_bytes())
    };
    let small = contribution(2, 1, Some(&tally(1, 1)), 1);
    assert_eq!(cost(std::slice::from_ref(&small)), 1);
    let parts: Vec<_> = (2..66).map(|seed| contribution(seed, 1, Some(&tally(1, 1)), 1)).collect();
    assert_eq!(cost(&parts), 64 + Envelope::bundle(&parts).unwrap().as_bytes().len() / 4096);

    let large = Tally { text: "x".repeat(10_000), ..tally(1, 1) };
    let large: Vec<_> = (2..34).map(|seed| contribution(seed, 2, Some(&large), 1)).collect();
    assert_eq!(admit(&store, 1, &large), Ok(true));
    assert!((76..90).contains(&cost(std::slice::from_ref(&small))), "while it waits for the disk");
    store.flush().unwrap();
    let later = contribution(40, 3, Some(&tally(1, 1)), 1);
    assert!((76..90).contains(&cost(&[later])), "10,000 bytes of 32 authors, and the merged value");
    // The cost of bytes that are no merged record, or no record at all, is one.
    assert_eq!(store.replica().admission_cost(b"no key", small.as_bytes()), 1);
    let open = RecordKey::new("TallyDefinition", "Other", b"1").unwrap();
    assert_eq!(
        store.replica().admission_cost(open.as_bytes(), Envelope::bundle(&large).unwrap().as_bytes()),
        1
    );
    assert_eq!(store.replica().admission_cost(key(1).as_bytes(), b"\x02no bundle"), 1);
}

#[test]
fn what_nobody_has_signed_passes_by_no_way() {
    let place = Place::new(netabase_store::StorageBackend::Memory);
    let store = place.try_open::<TallyDefinition>().unwrap();
    let open = RecordKey::new("Other", "Thing", b"1").unwrap();
    let owned = RecordKey::with_policy(WritePolicy::Owned, "Other", "Thing", &[7; 40]).unwrap();
    let time = Timestamp::from_unix_millis(START);
    let sign = |key: &RecordKey| Envelope::sign(&identity(2), key, time, 0, Some(b"value"));
    let forged = |envelope: &Envelope| {
        let mut bytes = envelope.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Envelope::parse(&bytes).unwrap()
    };
    let part = forged(&contribution(2, 0, Some(&tally(1, 1)), 1));
    let bundle = Envelope::bundle([&part, &contribution(3, 0, Some(&tally(1, 1)), 1)]).unwrap();
    for (key, envelope, reason) in [
        (&open, forged(&sign(&open)), Refusal::InvalidSignature),
        (&key(1), bundle, Refusal::InvalidSignature),
        (&owned, sign(&owned), Refusal::NotOwner),
    ] {
        assert_eq!(store.replica().admit(key.as_bytes(), envelope.as_bytes()), Err(reason), "{key}");
        assert_eq!(store.replica().check_record(key, envelope.as_bytes()).unwrap_err(), reason, "{key}");
        assert_eq!(store.envelope(key).unwrap(), None);
    }
    assert_eq!(store.replica().admit(open.as_bytes(), sign(&open).as_bytes()), Ok(true));
}

/// A contribution adds to the stored bytes, and these count for no single author.
#[test]
fn a_contribution_takes_room_beside_what_is_there_and_of_no_ones_quota() {
    let mut place = Place::new(netabase_store::StorageBackend::Memory);
    let large = |seed| {
        let tally = Tally { text: "x".repeat(1000), ..tally(1, 1) };
        contribution(seed, 1, Some(&tally), 1)
    };
    place.options.max_author_bytes = 10;
    place.options.max_replica_bytes = 3000;
    let store = place.try_open::<TallyDefinition>().unwrap();
    for (seed, expected) in [(2, Ok(true)), (3, Ok(true)), (4, Err(Refusal::Full))] {
        assert_eq!(admit(&store, 1, &[large(seed)]), expected, "{seed}");
        store.flush().unwrap();
    }
    let statistics = store.statistics().unwrap();
    assert_eq!(statistics.others.records, 1);
    let [(author, _)] = statistics.largest_authors.as_slice() else { panic!("{statistics:?}") };
    assert_eq!(author.as_bytes(), &[0; 32], "the bundle of one author, too");
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

/// A value that is none is found before any signature is looked at, and told from one that its
/// author did not sign.
#[test]
fn whoever_did_not_sign_a_wrong_value_is_not_blamed_for_it() {
    let place = Place::new(netabase_store::StorageBackend::Memory);
    let store = place.try_open::<TallyDefinition>().unwrap();
    let time = Timestamp::from_unix_millis(START);
    let wrong = Envelope::sign(&identity(3), &key(1), time, 0, Some(b"\x01no tally"));
    let other = Envelope::sign(
        &identity(3),
        &key(1),
        time,
        0,
        Some(&EncodedRecord::of(&tally(2, 1)).unwrap().payload),
    );
    let elsewhere = contribution(3, 0, Some(&tally(2, 1)), 2);
    let good = contribution(2, 0, Some(&tally(1, 1)), 1);
    assert_eq!(admit(&store, 1, &[good.clone(), wrong]), Err(Refusal::InvalidValue));
    assert_eq!(admit(&store, 1, &[good.clone(), other]), Err(Refusal::KeyMismatch));
    assert_eq!(admit(&store, 1, &[good.clone(), elsewhere]), Err(Refusal::InvalidSignature));
    let mut forged = good.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = Envelope::parse(&forged).unwrap();
    assert_eq!(admit(&store, 1, &[forged]), Err(Refusal::InvalidSignature));
    assert_eq!(votes(&store, 1), None);
    let told = events(&store);
    assert_eq!(admit(&store, 1, &[good]), Ok(true));
    assert!(matches!(told.recv_timeout(PATIENCE).unwrap(), StoreEvent::Changed(_)));
}
