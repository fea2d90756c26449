//! Closed networks: only members write, and the root key says who is one.

use netabase_store::schema::SchemaError;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netabase_store::admin::CheckOptions;
use netabase_store::changes::StoreEvent;
use netabase_store::members::{MemberList, MembersError, SignedMembers};
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, Change, ChangeKind, Clock, Envelope, NetabaseDefinition, NetabaseStore, OpenError, Origin,
    RecordKey, Refusal, StorageBackend, StoreError, StoreOptions, Timestamp, WatchFrom, WriteError,
    WritePolicy, netabase_definition_module,
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
        pub(crate) id: u8,
        #[merge(counter)]
        pub(crate) votes: i64,
    }
}
use tallies::*;

/// The seed of the root's key; the stores of the tests sign with 1.
const ROOT: u8 = 9;
const MEMBER: u8 = 2;
const STRANGER: u8 = 3;

fn author(seed: u8) -> Author {
    Author::of(&identity(seed))
}

fn closed_on(backend: StorageBackend) -> Place {
    let mut place = Place::signed(backend);
    place.options.root = Some(author(ROOT));
    place
}

fn closed() -> Place {
    closed_on(StorageBackend::Memory)
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn list_key() -> RecordKey {
    MemberList::key("ShopDefinition").unwrap()
}

/// Milliseconds after the start.
fn at(after: u64) -> Timestamp {
    Timestamp::from_unix_millis(START + after)
}

fn list(members: &[u8]) -> MemberList {
    let mut list = MemberList::default();
    for seed in members {
        list.add(author(*seed)).unwrap();
    }
    list
}

fn signed(seed: u8, after: u64, payload: Option<&[u8]>) -> Envelope {
    Envelope::sign(&identity(seed), &list_key(), at(after), 0, payload)
}

/// Makes `list` the current one, and waits until it is on the disk.
fn publish(store: &NetabaseStore, list: &MemberList) -> SignedMembers {
    let signed = store.replica().sign_members(list, &identity(ROOT)).unwrap();
    apply(store, &signed).unwrap();
    signed
}

fn apply(store: &NetabaseStore, signed: &SignedMembers) -> Result<Option<ChangeKind>, StoreError> {
    let (done, is_done) = sync_channel(1);
    store.replica().submit_members(signed, move |result| done.send(result).unwrap())?;
    is_done.recv_timeout(PATIENCE).unwrap()
}

/// Offers a customer that `seed` has signed so many milliseconds after the start.
fn offer(store: &NetabaseStore, seed: u8, after: u64, id: i64) -> Result<bool, Refusal> {
    let payload = EncodedRecord::of(&customer(id, "Ada")).unwrap().payload;
    let envelope = Envelope::sign(&identity(seed), &key(id), at(after), 0, Some(&payload));
    store.replica().admit(key(id).as_bytes(), envelope.as_bytes())
}

fn remove(store: &NetabaseStore, seed: u8, after: u64, id: i64) -> Result<bool, Refusal> {
    let tombstone = Envelope::sign(&identity(seed), &key(id), at(after), 0, None);
    store.replica().admit(key(id).as_bytes(), tombstone.as_bytes())
}

fn ids(store: &NetabaseStore) -> Vec<i64> {
    let customers = store.open_tree::<Customer>().unwrap().iter().unwrap();
    customers.map(|customer| customer.unwrap().id).collect()
}

/// Waits until the records `expected` are left, and everything is on the disk.
fn wait_until_left(store: &NetabaseStore, events: &Receiver<StoreEvent>, expected: &[i64]) {
    store.flush().unwrap();
    while ids(store) != expected {
        events.recv_timeout(PATIENCE).unwrap();
    }
    store.flush().unwrap();
}

/// A vote of `seed`, so many milliseconds after the start.
fn vote(seed: u8, after: u64) -> (RecordKey, Envelope) {
    let key = RecordKey::of(&TallyPrimaryKey(1)).unwrap();
    let payload = EncodedRecord::of(&Tally { id: 1, votes: seed.into() }).unwrap().payload;
    (key.clone(), Envelope::sign(&identity(seed), &key, at(after), 0, Some(&payload)))
}

fn votes(store: &NetabaseStore) -> Option<i64> {
    store.open_tree::<Tally>().unwrap().get(&TallyPrimaryKey(1)).unwrap().map(|tally| tally.votes)
}

#[test]
fn of_a_merged_record_only_what_members_contribute_is_kept() {
    let place = closed();
    let store = place.try_open::<TallyDefinition>().unwrap();
    let (key, member) = vote(MEMBER, 1);
    let (_, stranger) = vote(STRANGER, 2);
    let publish = |list: &MemberList| {
        apply(&store, &store.replica().sign_members(list, &identity(ROOT)).unwrap()).unwrap();
        store.flush().unwrap();
    };
    publish(&list(&[MEMBER]));
    let only = Envelope::bundle([&stranger]).unwrap();
    assert_eq!(store.replica().admit(key.as_bytes(), only.as_bytes()), Err(Refusal::NotMember));
    let both = Envelope::bundle([&member, &stranger]).unwrap();
    assert_eq!(store.replica().admit(key.as_bytes(), both.as_bytes()), Ok(true));
    assert_eq!(votes(&store), Some(MEMBER.into()), "what the stranger contributes is left out");

    publish(&list(&[MEMBER, STRANGER]));
    assert_eq!(store.replica().admit(key.as_bytes(), both.as_bytes()), Ok(true));
    store.flush().unwrap();
    assert_eq!(votes(&store), Some((MEMBER + STRANGER).into()));
    let changes = store.open_tree::<Tally>().unwrap().watch(WatchFrom::Now).unwrap();
    publish(&list(&[MEMBER]));
    let mut changes = changes.into_iter();
    while votes(&store) != Some(MEMBER.into()) {
        changes.next().unwrap().unwrap();
    }
    store.flush().unwrap();
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn an_open_network_has_no_members() {
    let place = Place::signed(StorageBackend::Memory);
    let store = place.open();
    let envelope = list(&[MEMBER]).sign(&identity(ROOT), "ShopDefinition", None).unwrap();
    assert_eq!(
        store.replica().admit(list_key().as_bytes(), signed(ROOT, 0, Some(b"")).as_bytes()),
        Err(Refusal::NotMember)
    );
    assert!(matches!(store.replica().members(), Err(StoreError::Members(MembersError::OpenNetwork))));
    assert!(matches!(apply(&store, &envelope), Err(StoreError::Members(MembersError::OpenNetwork))));
    assert_eq!((store.replica().members_key(), offer(&store, STRANGER, 0, 1)), (None, Ok(true)));
}

#[test]
fn a_root_without_a_schema_is_refused() {
    let options = StoreOptions { backend: StorageBackend::Memory, ..closed().options };
    assert!(matches!(
        NetabaseStore::open_with("", None, options),
        Err(StoreError::Schema(SchemaError::Missing))
    ));
}

#[test]
fn without_a_list_only_the_root_may_write() {
    let store = closed().open();
    assert_eq!(store.replica().members().unwrap(), None);
    assert_eq!(offer(&store, MEMBER, 0, 1), Err(Refusal::NotMember));
    assert_eq!(remove(&store, MEMBER, 0, 1), Err(Refusal::NotMember));
    assert_eq!(offer(&store, ROOT, 0, 1), Ok(true));
    assert_eq!(store.replica().refusals(), [(Refusal::NotMember, 2)]);
}

#[test]
fn a_list_says_who_may_write_and_until_when() {
    let store = closed().open();
    let mut members = list(&[MEMBER]);
    members.add_since(author(4), at(5)).unwrap();
    let published = publish(&store, &members);
    assert_eq!(store.replica().members().unwrap(), Some(published));
    assert_eq!(offer(&store, MEMBER, 0, 1), Ok(true));
    assert_eq!(offer(&store, STRANGER, 0, 2), Err(Refusal::NotMember));
    assert_eq!((offer(&store, 4, 4, 2), offer(&store, 4, 5, 2)), (Err(Refusal::NotMember), Ok(true)));
    members.revoke(author(MEMBER), at(10));
    publish(&store, &members);
    assert_eq!(
        (offer(&store, MEMBER, 9, 3), offer(&store, MEMBER, 10, 3)),
        (Ok(true), Err(Refusal::NotMember))
    );
    let payload = EncodedRecord::of(&customer(4, "Ada")).unwrap().payload;
    let late = Envelope::sign(&identity(MEMBER), &key(4), at(10), 0, Some(&payload));
    assert_eq!(store.replica().check_record(&key(4), late.as_bytes()).unwrap_err(), Refusal::NotMember);
}

#[test]
fn a_list_of_a_peer_counts_at_once_and_the_newest_wins() {
    let store = closed().open();
    let [older, newer] = [(1, list(&[MEMBER])), (2, list(&[STRANGER]))].map(|(after, list)| {
        let signed = store.replica().sign_members(&list, &identity(ROOT)).unwrap();
        Envelope::sign(&identity(ROOT), &list_key(), at(after), 0, Some(signed.envelope().payload()))
    });
    let admit = |envelope: &Envelope| store.replica().admit(list_key().as_bytes(), envelope.as_bytes());
    assert_eq!(admit(&older), Ok(true));
    assert_eq!(offer(&store, MEMBER, 0, 1), Ok(true));
    assert_eq!((admit(&newer), admit(&newer), admit(&older)), (Ok(true), Ok(false), Err(Refusal::Outdated)));
    assert_eq!(
        (offer(&store, MEMBER, 0, 2), offer(&store, STRANGER, 0, 2)),
        (Err(Refusal::NotMember), Ok(true))
    );
    let outdated = SignedMembers::parse(older.as_bytes()).unwrap();
    let error = apply(&store, &outdated).unwrap_err();
    assert!(
        matches!(error, StoreError::Members(MembersError::Outdated { current }) if current == at(2)),
        "{error}"
    );
    assert_eq!(apply(&store, &SignedMembers::parse(newer.as_bytes()).unwrap()).unwrap(), None, "it is here");
}

#[test]
fn what_is_no_list_of_the_root_is_refused() {
    let store = closed().open();
    let members = store.replica().sign_members(&list(&[MEMBER]), &identity(ROOT)).unwrap();
    let payload = members.envelope().payload();
    let admit = |envelope: Envelope| store.replica().admit(list_key().as_bytes(), envelope.as_bytes());
    assert_eq!(admit(signed(STRANGER, 0, Some(payload))), Err(Refusal::NotMember));
    assert_eq!(admit(signed(ROOT, 0, None)), Err(Refusal::InvalidEnvelope), "a tombstone");
    let expires = Envelope::sign(&identity(ROOT), &list_key(), at(0), START + 1000, Some(payload));
    assert_eq!(admit(expires), Err(Refusal::InvalidEnvelope));
    assert_eq!(admit(signed(ROOT, 0, Some(b"\x01no list"))), Err(Refusal::InvalidValue));
    let ahead = u64::try_from((Clock::MAX_SKEW * 2).as_millis()).unwrap();
    assert_eq!(admit(signed(ROOT, ahead, Some(payload))), Err(Refusal::FutureTimestamp));
    let mut forged = signed(ROOT, 0, Some(payload)).as_bytes().to_vec();
    forged[60] ^= 1;
    assert_eq!(store.replica().admit(list_key().as_bytes(), &forged), Err(Refusal::InvalidSignature));
    let other = RecordKey::with_policy(WritePolicy::Root, "ShopDefinition", "others", b"").unwrap();
    let envelope = Envelope::sign(&identity(ROOT), &other, at(0), 0, Some(payload));
    assert_eq!(store.replica().admit(other.as_bytes(), envelope.as_bytes()), Err(Refusal::InvalidKey));
    assert_eq!(store.replica().members().unwrap(), None);
    let by_stranger = list(&[]).sign(&identity(STRANGER), "ShopDefinition", None).unwrap();
    let error = apply(&store, &by_stranger).unwrap_err();
    assert!(matches!(error, StoreError::Members(MembersError::NotRoot { .. })), "{error}");
    let error = store.replica().sign_members(&list(&[]), &identity(STRANGER)).unwrap_err();
    assert!(matches!(error, StoreError::Members(MembersError::NotRoot { .. })), "{error}");
}

#[test]
fn a_program_that_is_no_member_cannot_write() {
    let place = closed();
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    let is_refused = |result: Result<(), StoreError>, why: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(&author(ROOT).to_string()), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(
            matches!(error, StoreError::Write(WriteError::NotMember { author: ours, .. }) if ours == author(1)),
            "{error}"
        );
    };
    let all_are_refused = |why: &str| {
        is_refused(customers.put(&customer(1, "Ada")), why);
        is_refused(customers.remove(&CustomerPrimaryKey(1)).map(drop), why);
        let mut transaction = store.begin_write();
        transaction.put(&customer(1, "Ada")).unwrap();
        is_refused(transaction.commit(), why);
        let record = EncodedRecord::of(&customer(1, "Ada")).unwrap();
        is_refused(store.replica().submit(&record, |_| {}).map(drop), why);
        is_refused(store.replica().submit_removal(&key(1), |_| {}).map(drop), why);
    };
    all_are_refused("to add it to the members");
    let mut members = list(&[1]);
    publish(&store, &members);
    customers.put(&customer(1, "Ada")).unwrap();
    place.time.advance(Duration::from_secs(1));
    members.revoke(author(1), at(500));
    publish(&store, &members);
    all_are_refused(&format!("was revoked as a member of this network from {} on", at(500)));
    assert_eq!(ids(&store), [1], "it was written before");
    members.remove(&author(1));
    members.add_since(author(1), at(5000)).unwrap();
    publish(&store, &members);
    all_are_refused(&format!("is a member of this network from {} on", at(5000)));
}

#[test]
fn a_store_that_cannot_sign_only_reads_in_a_closed_network() {
    let mut place = closed();
    place.options.identity = None;
    let store = place.open();
    publish(&store, &list(&[MEMBER]));
    let customers = store.open_tree::<Customer>().unwrap();
    assert!(matches!(customers.put(&customer(1, "Ada")), Err(StoreError::Write(WriteError::NoIdentity))));
    assert_eq!(offer(&store, MEMBER, 0, 1), Ok(true));
    store.flush().unwrap();
    assert!(matches!(
        customers.remove(&CustomerPrimaryKey(1)),
        Err(StoreError::Write(WriteError::NoIdentity))
    ));
    assert_eq!(ids(&store), [1]);
}

#[test]
fn what_waits_for_the_disk_when_a_list_forbids_it_is_not_written() {
    let place = closed();
    let store = place.open();
    let mut members = list(&[1, MEMBER]);
    publish(&store, &members);
    let customers = store.open_tree::<Customer>().unwrap();
    let held = HeldWriter::hold(&store, |store| assert_eq!(offer(store, ROOT, 0, 1), Ok(true)));
    let (done, is_done) = sync_channel(1);
    let record = EncodedRecord::of(&customer(2, "Ada")).unwrap();
    store.replica().submit(&record, move |result| done.send(result).unwrap()).unwrap();
    assert_eq!(offer(&store, MEMBER, 0, 3), Ok(true));
    members.revoke(author(1), Timestamp::default());
    members.revoke(author(MEMBER), Timestamp::default());
    let signed = store.replica().sign_members(&members, &identity(ROOT)).unwrap();
    store.replica().submit_members(&signed, |_| {}).unwrap();
    held.release();
    let outcome = is_done.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(outcome, Err(StoreError::Write(WriteError::NotMember { .. }))), "{outcome:?}");
    store.flush().unwrap();
    assert_eq!(ids(&store), [1]);
    assert_eq!(store.envelope(&key(3)).unwrap(), None);
    drop(customers);
}

macro_rules! on_every_closed_backend {
    ($($test:ident),* $(,)?) => {
        $(mod $test {
            use netabase_store::StorageBackend::*;

            #[test]
            fn redb() {
                super::$test(&super::closed_on(Redb));
            }

            #[test]
            fn sled() {
                super::$test(&super::closed_on(Sled));
            }

            #[test]
            fn memory() {
                super::$test(&super::closed_on(Memory));
            }
        })*
    };
}
on_every_closed_backend! {
    a_newer_list_removes_what_it_does_not_allow,
    what_came_while_the_network_was_open_is_removed,
    a_list_of_another_root_is_forgotten,
}

fn a_newer_list_removes_what_it_does_not_allow(place: &Place) {
    // More than one step of every kind.
    const MANY: i64 = 5000;
    let store = place.open();
    let mut members = list(&[1, MEMBER]);
    publish(&store, &members);
    let customers = store.open_tree::<Customer>().unwrap();
    customers.put_many(&[customer(-3, "Ada"), customer(-2, "Ada")]).unwrap();
    for id in 0..MANY {
        let after = u64::try_from(id % 2).unwrap();
        assert_eq!(offer(&store, MEMBER, after, id), Ok(true));
    }
    let unknown = RecordKey::new("ShopDefinition", "Voucher", b"1").unwrap();
    let voucher = Envelope::sign(&identity(MEMBER), &unknown, at(1), 0, Some(b"\x01"));
    store.replica().admit(unknown.as_bytes(), voucher.as_bytes()).unwrap();
    assert_eq!(remove(&store, MEMBER, 2, -2), Ok(true), "the deletion of another author's record");
    assert_eq!(remove(&store, MEMBER, 2, -1), Ok(true));
    store.flush().unwrap();
    let events = events(&store);
    let mut changes = store.changes(WatchFrom::Now).unwrap();

    members.revoke(author(MEMBER), at(1));
    publish(&store, &members);
    let left: Vec<i64> = std::iter::once(-3).chain((0..MANY).step_by(2)).collect();
    wait_until_left(&store, &events, &left);
    while store.envelope(&key(-1)).unwrap().is_some() {
        store.flush().unwrap();
    }
    assert_eq!(store.envelope(&unknown).unwrap(), None);
    assert_eq!(customers.find(CustomerNameSecondaryKey("Ada".into())).unwrap().len(), left.len());
    assert!(store.check(CheckOptions::default()).unwrap().is_clean());

    let first = changes.next_timeout(PATIENCE).unwrap().unwrap().change;
    assert_eq!((&first.key, first.kind), (&list_key(), ChangeKind::Updated));
    for id in (1..MANY).step_by(2) {
        let change = changes.next_timeout(PATIENCE).unwrap().unwrap().change;
        assert_eq!(
            (&change.key, change.kind, change.origin),
            (&key(id), ChangeKind::Removed, Origin::Network)
        );
        assert_eq!(
            (change.envelope, change.previous.and_then(|old| old.author())),
            (None, Some(author(MEMBER)))
        );
    }
}

fn what_came_while_the_network_was_open_is_removed(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    let members = publish(&store, &list(&[MEMBER]));
    assert_eq!(offer(&store, MEMBER, 0, 1), Ok(true));
    drop(store);
    // Records that came while there was no root were compared with no list.
    let open = NetabaseStore::open_with(
        place.path(),
        Some(ShopDefinition::SCHEMA),
        StoreOptions { root: None, ..place.options.clone() },
    );
    let open = open.unwrap();
    assert_eq!((offer(&open, STRANGER, 0, 2), offer(&open, STRANGER, 0, 3)), (Ok(true), Ok(true)));
    drop(open);
    let store = place.open();
    let events = events(&store);
    assert_eq!(store.replica().members().unwrap(), Some(members));
    assert_eq!(offer(&store, STRANGER, 0, 4), Err(Refusal::NotMember));
    wait_until_left(&store, &events, &[1]);
}

#[test]
fn a_removal_that_was_interrupted_is_finished_at_the_next_start() {
    const MANY: i64 = 3000;
    let place = closed_on(StorageBackend::Redb);
    let store = place.open();
    let mut members = list(&[MEMBER]);
    publish(&store, &members);
    for id in 0..MANY {
        assert_eq!(offer(&store, MEMBER, 1, id), Ok(true));
    }
    store.flush().unwrap();
    members.revoke(author(MEMBER), at(1));
    let signed = store.replica().sign_members(&members, &identity(ROOT)).unwrap();

    // The store is closed by the first removal, from inside of the first step.
    let (removed, is_removed) = sync_channel(10_000);
    let last = Arc::new(Mutex::new(None));
    store.set_observer({
        let last = Arc::clone(&last);
        move |event| {
            if matches!(event, StoreEvent::Changed(Change { kind: ChangeKind::Removed, .. })) {
                drop(last.lock().unwrap().take());
                removed.send(()).unwrap();
            }
        }
    });
    // Nobody else keeps it open, and the observer waits until the list is queued.
    last.lock().unwrap().insert(store).replica().submit_members(&signed, |_| {}).unwrap();
    let before = is_removed.iter().count();
    assert!((1..usize::try_from(MANY).unwrap()).contains(&before), "{before}");

    let store = loop {
        match place.try_open::<ShopDefinition>() {
            Err(StoreError::Open(OpenError::Locked { .. })) => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    let events = events(&store);
    wait_until_left(&store, &events, &[]);
}

fn a_list_of_another_root_is_forgotten(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let store = place.open();
    publish(&store, &list(&[MEMBER]));
    assert_eq!(offer(&store, MEMBER, 0, 1), Ok(true));
    drop(store);
    let options = StoreOptions { root: Some(author(8)), ..place.options.clone() };
    let store = NetabaseStore::open_with(place.path(), Some(ShopDefinition::SCHEMA), options).unwrap();
    assert_eq!(store.replica().members().unwrap(), None);
    assert_eq!(offer(&store, MEMBER, 0, 2), Err(Refusal::NotMember));
    assert_eq!(ids(&store), [1], "nothing is removed without a list");
    let older = Envelope::sign(&identity(8), &list_key(), Timestamp::from_unix_millis(1), 0, Some(b"\x01\0"));
    assert_eq!(store.replica().admit(list_key().as_bytes(), older.as_bytes()), Ok(true));
}
