//! The store as Kademlia's record store: what peers may write, and what they are told.
#![cfg(feature = "libp2p")]

use std::time::{Duration, Instant};

use libp2p::kad::store::{Error, RecordStore};
use libp2p::kad::{ProviderRecord, Record, RecordKey as KadKey};
use libp2p::{Multiaddr, PeerId};
use netabase_store::changes::StoreEvent;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    ChangeKind, Clock, Envelope, NetabaseStore, Origin, RecordKey, Refusal, StorageBackend, Timestamp, Tree,
    WritePolicy, netabase_definition_module,
};

use crate::common::*;

on_every_backend! {
    a_record_of_a_peer_is_found_in_the_tree,
    a_record_of_the_tree_is_given_to_peers,
    a_newer_version_of_a_peer_replaces_the_record_and_its_index_entries,
    a_tombstone_of_a_peer_deletes_the_record_and_its_index_entries,
    a_tombstone_comes_before_its_record,
    a_record_of_another_definition_is_kept_and_given,
    a_bundle_is_given_without_what_is_merged,
    an_owned_record_of_another_definition_is_taken_from_its_owner_alone,
    an_equal_version_is_accepted_and_changes_nothing,
    a_version_on_its_way_to_the_disk_is_given_to_peers,
    a_removed_record_is_forgotten_without_a_tombstone,
    a_record_of_a_peer_expires,
    a_record_of_a_peer_survives_a_restart,
    providers_survive_a_restart,
    a_removed_provider_stays_removed,
    an_expired_provider_is_not_given_and_makes_room,
}

fn store(place: &Place) -> (NetabaseStore, Tree<Customer>) {
    let store = place.open();
    let tree = store.open_tree().unwrap();
    (store, tree)
}

fn key(id: i64) -> RecordKey {
    RecordKey::of(&CustomerPrimaryKey(id)).unwrap()
}

fn kad_key(key: &RecordKey) -> KadKey {
    KadKey::new(key)
}

fn payload(customer: &Customer) -> Vec<u8> {
    EncodedRecord::of(customer).unwrap().payload
}

/// The version of `customer` by author `seed`, so many milliseconds after the start.
fn version(seed: u8, after: u64, customer: &Customer) -> Envelope {
    let timestamp = Timestamp::from_unix_millis(START + after);
    Envelope::sign(&identity(seed), &key(customer.id), timestamp, 0, Some(&payload(customer)))
}

fn tombstone(seed: u8, after: u64, id: i64) -> Envelope {
    Envelope::sign(&identity(seed), &key(id), Timestamp::from_unix_millis(START + after), 0, None)
}

fn record(key: &RecordKey, envelope: &Envelope) -> Record {
    // Publisher and expiry are anybody's claims and do not count.
    Record {
        key: kad_key(key),
        value: envelope.as_bytes().to_vec(),
        publisher: Some(PeerId::random()),
        expires: Some(Instant::now()),
    }
}

/// Puts a record as kad does, and waits until it is on the disk.
fn put(store: &mut NetabaseStore, key: &RecordKey, envelope: &Envelope) {
    let events = events(store);
    RecordStore::put(store, record(key, envelope)).unwrap();
    let change = next_change(&events);
    assert_eq!((&change.key, change.origin), (key, Origin::Network));
    assert_eq!(change.envelope.as_ref(), Some(envelope));
}

fn given(store: &NetabaseStore, key: &RecordKey) -> Option<Vec<u8>> {
    RecordStore::get(store, &kad_key(key)).map(|record| record.value.clone())
}

fn named(tree: &Tree<Customer>, name: &str) -> usize {
    tree.find(CustomerNameSecondaryKey(name.into())).unwrap().len()
}

fn a_record_of_a_peer_is_found_in_the_tree(place: &Place) {
    let (mut store, tree) = store(place);
    let envelope = version(9, 0, &customer(1, "Ada"));
    put(&mut store, &key(1), &envelope);
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Ada")));
    assert_eq!(tree.find(CustomerNameSecondaryKey("Ada".into())).unwrap(), [customer(1, "Ada")]);
    assert_eq!(tree.len().unwrap(), 1);
    let found = RecordStore::get(&store, &kad_key(&key(1))).unwrap().into_owned();
    assert_eq!((found.value.as_slice(), found.publisher, found.expires), (envelope.as_bytes(), None, None));
    assert_eq!(store.replica().due(10).unwrap(), [], "others publish their own records");
    assert_eq!((store.records().count(), store.provided().count()), (0, 0), "kad republishes nothing");
    tree.put(&customer(1, "Grace")).unwrap();
    assert_eq!((named(&tree, "Ada"), named(&tree, "Grace")), (0, 1));
}

fn a_record_of_the_tree_is_given_to_peers(place: &Place) {
    let (store, tree) = store(place);
    tree.put(&customer(1, "Ada")).unwrap();
    let envelope = store.envelope(&key(1)).unwrap().unwrap();
    let found = given(&store, &key(1));
    if store.author().is_some() {
        assert_eq!(found.as_deref(), Some(envelope.as_bytes()));
        envelope.verify(&key(1)).unwrap();
        assert_eq!(envelope.author(), store.author());
    } else {
        assert_eq!(found, None, "nobody would believe it");
    }
    assert_eq!(given(&store, &key(2)), None);
    assert!(RecordStore::get(&store, &KadKey::new(&b"not a record key")).is_none());
}

fn a_newer_version_of_a_peer_replaces_the_record_and_its_index_entries(place: &Place) {
    let (mut store, tree) = store(place);
    tree.put(&customer(1, "Ada")).unwrap();
    put(&mut store, &key(1), &version(9, 1, &customer(1, "Grace")));
    assert_eq!((named(&tree, "Ada"), named(&tree, "Grace"), tree.len().unwrap()), (0, 1, 1));
    place.time.advance(Duration::from_secs(3600));
    assert_eq!(store.replica().due(10).unwrap(), [], "the record is not ours any more");
    tree.put(&customer(1, "Edsger")).unwrap();
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Edsger")));
}

fn a_tombstone_of_a_peer_deletes_the_record_and_its_index_entries(place: &Place) {
    let (mut store, tree) = store(place);
    tree.put_many(&[customer(1, "Ada"), customer(2, "Ada")]).unwrap();
    put(&mut store, &key(1), &tombstone(9, 1, 1));
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), None);
    assert_eq!((named(&tree, "Ada"), tree.len().unwrap()), (1, 1));
    assert_eq!(given(&store, &key(1)).as_deref(), Some(tombstone(9, 1, 1).as_bytes()));
    assert_eq!(store.local_records(None).unwrap().len(), 1);
}

fn a_tombstone_comes_before_its_record(place: &Place) {
    let (mut store, tree) = store(place);
    assert_eq!(store.replica().admit(key(1).as_bytes(), tombstone(9, 2, 1).as_bytes()), Ok(true));
    let late = RecordStore::put(&mut store, record(&key(1), &version(8, 1, &customer(1, "Ada"))));
    assert!(late.is_err());
    assert_eq!(store.replica().refusals(), [(Refusal::Outdated, 1)]);
    put(&mut store, &key(1), &version(7, 3, &customer(1, "Grace")));
    assert_eq!((named(&tree, "Grace"), tree.len().unwrap()), (1, 1));
}

fn a_record_of_another_definition_is_kept_and_given(place: &Place) {
    let (mut store, tree) = store(place);
    for name in ["Other/Customer", "ShopDefinition/Unknown"] {
        let key = RecordKey::parse(format!("/{name}/1").as_bytes()).unwrap();
        let sign = |millis, payload| {
            Envelope::sign(&identity(9), &key, Timestamp::from_unix_millis(millis), 0, payload)
        };
        put(&mut store, &key, &sign(START, Some(b"anything")));
        assert_eq!(given(&store, &key).as_deref(), Some(sign(START, Some(b"anything")).as_bytes()));
        put(&mut store, &key, &sign(START + 1, None));
        assert_eq!(given(&store, &key).as_deref(), Some(sign(START + 1, None).as_bytes()));
    }
    assert!(tree.is_empty().unwrap());
}

fn a_bundle_is_given_without_what_is_merged(place: &Place) {
    use polls::{Poll, PollDefinition, PollPrimaryKey};

    let mut store = place.try_open::<PollDefinition>().unwrap();
    let key = RecordKey::of(&PollPrimaryKey(1)).unwrap();
    let payload = EncodedRecord::of(&Poll { id: 1, votes: 3 }).unwrap().payload;
    let part =
        |seed| Envelope::sign(&identity(seed), &key, Timestamp::from_unix_millis(START), 0, Some(&payload));
    let bundle = Envelope::bundle(&[part(8), part(9)]).unwrap();
    let events = events(&store);
    RecordStore::put(&mut store, record(&key, &bundle)).unwrap();
    for _ in 0..2 {
        assert_eq!(given(&store, &key).as_deref(), Some(bundle.as_bytes()));
        assert_ne!(store.envelope(&key).unwrap().unwrap().payload(), b"", "it is merged here");
        store.flush().unwrap();
    }
    next_change(&events);
}

#[netabase_definition_module(PollDefinition, PollKeys)]
mod polls {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PollDefinition)]
    pub(crate) struct Poll {
        #[primary_key]
        pub(crate) id: u8,
        #[merge(counter)]
        pub(crate) votes: i64,
    }
}

fn an_owned_record_of_another_definition_is_taken_from_its_owner_alone(place: &Place) {
    let (mut store, _) = store(place);
    let owner = identity(9).verifying_key().to_bytes();
    let key = RecordKey::with_policy(WritePolicy::Owned, "WallDefinition", "Post", &owner).unwrap();
    let sign =
        |seed, payload| Envelope::sign(&identity(seed), &key, Timestamp::from_unix_millis(START), 0, payload);
    let events = events(&store);
    for squatter in [sign(8, Some(b"\x01mine".as_slice())), sign(8, None)] {
        assert!(matches!(RecordStore::put(&mut store, record(&key, &squatter)), Err(Error::ValueTooLarge)));
        let refused = events.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(refused, StoreEvent::Refused { reason: Refusal::NotOwner, .. }), "{refused:?}");
    }
    let post = sign(9, Some(b"\x01post"));
    put(&mut store, &key, &post);
    assert_eq!(given(&store, &key).as_deref(), Some(post.as_bytes()));
}

fn an_equal_version_is_accepted_and_changes_nothing(place: &Place) {
    let (mut store, tree) = store(place);
    let envelope = version(9, 0, &customer(1, "Ada"));
    put(&mut store, &key(1), &envelope);
    let events = events(&store);
    assert_eq!(store.replica().admit(key(1).as_bytes(), envelope.as_bytes()), Ok(false));
    tree.put(&customer(2, "Grace")).unwrap();
    assert_eq!(next_change(&events).key, key(2));
    assert_eq!(store.replica().refusals(), []);
}

fn a_version_on_its_way_to_the_disk_is_given_to_peers(place: &Place) {
    let (mut store, tree) = store(place);
    let held = HeldWriter::hold(&store, |store| {
        store.replica().submit(&EncodedRecord::of(&customer(0, "first")).unwrap(), |_| ()).unwrap();
    });
    let envelope = version(9, 1, &customer(1, "Ada"));
    RecordStore::put(&mut store, record(&key(1), &envelope)).unwrap();
    assert_eq!(given(&store, &key(1)).as_deref(), Some(envelope.as_bytes()));
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), Some(customer(1, "Ada")));
    let older = record(&key(1), &version(9, 0, &customer(1, "older")));
    assert!(RecordStore::put(&mut store, older).is_err(), "what waits counts");
    assert_eq!((named(&tree, "Ada"), tree.len().unwrap()), (0, 1), "scans see what is on the disk");
    held.release();
    tree.put(&customer(2, "Grace")).unwrap();
    assert_eq!((named(&tree, "Ada"), tree.len().unwrap()), (1, 3));
}

fn a_removed_record_is_forgotten_without_a_tombstone(place: &Place) {
    let (mut store, tree) = store(place);
    put(&mut store, &key(1), &version(9, 0, &customer(1, "Ada")));
    let events = events(&store);
    RecordStore::remove(&mut store, &kad_key(&key(1)));
    let change = next_change(&events);
    assert_eq!((change.key, change.kind, change.envelope), (key(1), ChangeKind::Removed, None));
    assert_eq!(given(&store, &key(1)), None);
    assert_eq!((named(&tree, "Ada"), tree.len().unwrap()), (0, 0));
    RecordStore::remove(&mut store, &KadKey::new(&b"not a record key"));
}

fn expiring(id: i64, lifetime: Duration) -> Envelope {
    let expires = START + u64::try_from(lifetime.as_millis()).unwrap();
    let payload = payload(&customer(id, "Ada"));
    Envelope::sign(&identity(9), &key(id), Timestamp::from_unix_millis(START), expires, Some(&payload))
}

fn a_record_of_a_peer_expires(place: &Place) {
    let place = place.elsewhere();
    let (mut store, tree) = store(&place);
    let lifetime = Duration::from_secs(3600);
    let before = Instant::now() + lifetime;
    put(&mut store, &key(1), &expiring(1, lifetime));
    let expires = RecordStore::get(&store, &kad_key(&key(1))).unwrap().expires.unwrap();
    assert!((before..=Instant::now() + lifetime).contains(&expires), "it is the signed expiry");
    place.time.advance(lifetime);
    assert_eq!((given(&store, &key(1)), tree.get(&CustomerPrimaryKey(1)).unwrap()), (None, None));
    // The expired version is still on the disk until the writer deletes it after the next write.
    assert_eq!(store.replica().admit(key(1).as_bytes(), expiring(1, lifetime).as_bytes()), Ok(false));
    tree.put(&customer(2, "Grace")).unwrap();
    (0..3).for_each(|_| store.flush().unwrap());
    let again = RecordStore::put(&mut store, record(&key(1), &expiring(1, lifetime)));
    assert!(again.is_err());
    assert_eq!(store.replica().refusals(), [(Refusal::Expired, 1)]);
}

fn a_record_of_a_peer_survives_a_restart(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let place = place.elsewhere();
    let lifetime = Duration::from_secs(3600);
    let (mut first, tree) = store(&place);
    put(&mut first, &key(1), &expiring(1, lifetime));
    assert_eq!(first.replica().admit(key(2).as_bytes(), tombstone(9, 0, 2).as_bytes()), Ok(true));
    let other = RecordKey::new("Other", "Model", b"1").unwrap();
    let foreign = Envelope::sign(&identity(9), &other, Timestamp::from_unix_millis(START), 0, Some(b"x"));
    put(&mut first, &other, &foreign);
    drop((first, tree));
    let (second, tree) = store(&place);
    assert_eq!(given(&second, &key(1)).as_deref(), Some(expiring(1, lifetime).as_bytes()));
    assert_eq!(given(&second, &key(2)).as_deref(), Some(tombstone(9, 0, 2).as_bytes()));
    assert_eq!(given(&second, &other).as_deref(), Some(foreign.as_bytes()));
    assert_eq!(named(&tree, "Ada"), 1);
    place.time.advance(lifetime);
    assert_eq!(given(&second, &key(1)), None);
}

fn provider(key: &[u8], expires_in: Option<Duration>) -> ProviderRecord {
    let address: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
    ProviderRecord {
        key: KadKey::new(&key),
        provider: PeerId::random(),
        expires: expires_in.map(|expires_in| Instant::now() + expires_in),
        addresses: vec![address],
    }
}

fn peers(store: &NetabaseStore, key: &[u8]) -> Vec<PeerId> {
    let providers = RecordStore::providers(store, &KadKey::new(&key));
    providers.into_iter().map(|provider| provider.provider).collect()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn providers_survive_a_restart(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    let place = place.elsewhere();
    let (mut first, tree) = store(&place);
    let (for_ever, for_a_day) = (provider(b"key", None), provider(b"key", Some(DAY)));
    first.add_provider(for_ever.clone()).unwrap();
    first.add_provider(for_a_day.clone()).unwrap();
    assert_eq!(peers(&first, b"key"), [for_ever.provider, for_a_day.provider]);
    assert_eq!(peers(&first, b"ke"), []);
    drop((first, tree));

    let (second, tree) = store(&place);
    let mut found = RecordStore::providers(&second, &for_ever.key);
    found.sort_by_key(|provider| provider.expires.is_some());
    assert_eq!(found[0], for_ever);
    assert_eq!((found[1].provider, &found[1].addresses), (for_a_day.provider, &for_a_day.addresses));
    let late = found[1].expires.unwrap().saturating_duration_since(for_a_day.expires.unwrap());
    assert!(late < Duration::from_secs(60), "{late:?}");
    assert_eq!(second.replica().provided_by(&for_a_day.provider), [b"key"]);
    drop((second, tree));

    place.time.advance(DAY);
    let (third, _) = store(&place);
    assert_eq!(peers(&third, b"key"), [for_ever.provider]);
    assert_eq!(third.replica().provided_by(&for_a_day.provider).len(), 0);
}

fn a_removed_provider_stays_removed(place: &Place) {
    let (mut first, tree) = store(place);
    let (one, other) = (provider(b"key", None), provider(b"key", None));
    first.add_provider(one.clone()).unwrap();
    first.add_provider(other.clone()).unwrap();
    first.remove_provider(&one.key, &one.provider);
    first.remove_provider(&one.key, &one.provider);
    first.remove_provider(&KadKey::new(&b"nothing"), &one.provider);
    assert_eq!(peers(&first, b"key"), [other.provider]);
    if place.is_on_disk() {
        drop((first, tree));
        assert_eq!(peers(&store(place).0, b"key"), [other.provider]);
    }
}

fn an_expired_provider_is_not_given_and_makes_room(place: &Place) {
    let place = place.elsewhere();
    let (mut store, _) = store(&place);
    for _ in 0..20 {
        store.add_provider(provider(b"key", Some(DAY))).unwrap();
    }
    let refused = store.add_provider(provider(b"key", Some(DAY)));
    assert!(matches!(refused, Err(Error::MaxProvidedKeys)), "{refused:?}");
    let known = RecordStore::providers(&store, &KadKey::new(&b"key")).remove(3);
    store.add_provider(ProviderRecord { expires: None, ..known.clone() }).unwrap();
    place.time.advance(DAY);
    assert_eq!(peers(&store, b"key"), [known.provider], "the one that was renewed");
    for _ in 0..19 {
        store.add_provider(provider(b"key", None)).unwrap();
    }
    assert_eq!(peers(&store, b"key").len(), 20);
}

/// The most provider records of all keys together.
const MAX_PROVIDERS: usize = 65_536;

#[test]
fn the_providers_of_all_keys_are_bounded() {
    let place = Place::new(StorageBackend::Memory);
    let (mut store, _) = store(&place);
    let providers = providers();
    let mut record = provider(b"", Some(DAY));
    let mut add = |position: usize| {
        record.key = KadKey::new(&position.to_be_bytes());
        record.provider = providers[position % providers.len()];
        store.add_provider(record.clone())
    };
    for position in 0..MAX_PROVIDERS {
        add(position).unwrap();
    }
    assert!(add(MAX_PROVIDERS).is_err());
    add(0).unwrap();
    place.time.advance(DAY + Duration::from_secs(60));
    add(MAX_PROVIDERS).unwrap();
    assert_eq!(store.replica().provided_by(&record.provider), [MAX_PROVIDERS.to_be_bytes()]);
}

/// So many that none is kept from having its share of all.
fn providers() -> [PeerId; 16] {
    std::array::from_fn(|_| PeerId::random())
}

#[test]
fn the_records_of_one_provider_are_bounded() {
    const MAX_OF_ONE: usize = 8192;
    let place = Place::new(StorageBackend::Memory);
    let (mut store, _) = store(&place);
    let mut record = provider(b"", Some(DAY));
    let mut add = |position: usize| {
        record.key = KadKey::new(&position.to_be_bytes());
        store.add_provider(record.clone())
    };
    for position in 0..MAX_OF_ONE {
        add(position).unwrap();
    }
    assert!(matches!(add(MAX_OF_ONE), Err(Error::MaxProvidedKeys)));
    add(0).unwrap();
    store.add_provider(provider(b"another's", Some(DAY))).unwrap();
    store.remove_provider(&KadKey::new(&0_usize.to_be_bytes()), &record.provider);
    record.key = KadKey::new(b"in its place");
    store.add_provider(record).unwrap();
}

#[test]
fn what_this_node_provides_is_never_refused_because_of_others() {
    let place = Place::new(StorageBackend::Memory);
    let (mut store, _) = store(&place);
    let within = |seconds| Some(Duration::from_secs(seconds));
    let first = provider(b"key", within(10));
    store.add_provider(first.clone()).unwrap();
    for _ in 1..20 {
        store.add_provider(provider(b"key", Some(DAY))).unwrap();
    }
    let ours = provider(b"key", None);
    store.add_provider(ours.clone()).unwrap();
    let known = peers(&store, b"key");
    assert!(known.len() == 20 && known.contains(&ours.provider) && !known.contains(&first.provider));
    assert!(store.add_provider(provider(b"key", Some(DAY))).is_err(), "a peer makes nobody go");

    let earliest = provider(b"earliest", within(20));
    store.add_provider(earliest.clone()).unwrap();
    let mut theirs = provider(b"", Some(DAY));
    let providers = providers();
    for position in 21..MAX_PROVIDERS {
        theirs.key = KadKey::new(&position.to_be_bytes());
        theirs.provider = providers[position % providers.len()];
        store.add_provider(theirs.clone()).unwrap();
    }
    theirs.key = KadKey::new(b"one more");
    assert!(store.add_provider(theirs).is_err());
    let another = ProviderRecord { key: KadKey::new(b"another"), ..ours.clone() };
    store.add_provider(another.clone()).unwrap();
    assert_eq!(peers(&store, b"earliest"), []);
    let mut provided = store.replica().provided_by(&ours.provider);
    provided.sort();
    assert_eq!(provided, [b"another".to_vec(), b"key".to_vec()]);
    store.remove_provider(&another.key, &another.provider);
    store.add_provider(earliest).unwrap();
}

#[test]
fn the_bytes_of_all_providers_are_bounded() {
    let (mut store, _) = store(&Place::new(StorageBackend::Memory));
    let long: Multiaddr = format!("/dns4/{}/tcp/1", "x".repeat(450)).parse().unwrap();
    let mut record = provider(b"", Some(DAY));
    record.addresses = vec![long; 16];
    let providers = providers();
    let mut added = 0_usize;
    let refused = loop {
        record.key = KadKey::new(&[&added.to_be_bytes()[..], &[0; 2000]].concat());
        record.provider = providers[added % providers.len()];
        if store.add_provider(record.clone()).is_err() {
            break record;
        }
        added += 1;
    };
    let bytes = refused.key.to_vec().len() + 16 * refused.addresses[0].to_vec().len();
    assert_eq!(added, 16 * 1024 * 1024 / bytes);
    store.add_provider(ProviderRecord { expires: None, ..refused.clone() }).unwrap();
    let held: usize = providers.iter().map(|provider| store.replica().provided_by(provider).len()).sum();
    assert_eq!(held, added, "it took the place of one");
    store.remove_provider(&refused.key, &refused.provider);
    store.add_provider(refused).unwrap();
}

#[test]
fn a_provider_brings_so_many_addresses_of_such_a_length() {
    let (mut store, _) = store(&Place::new(StorageBackend::Memory));
    let mut record = provider(b"key", None);
    let long: Multiaddr = format!("/dns4/{}/tcp/1", "x".repeat(600)).parse().unwrap();
    let short = |port| format!("/ip4/10.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
    record.addresses = std::iter::once(long).chain((1..100).map(short)).collect();
    store.add_provider(record).unwrap();
    let found = RecordStore::providers(&store, &KadKey::new(&b"key")).remove(0);
    assert_eq!(found.addresses, (1..=16).map(short).collect::<Vec<_>>());
    let too_long = provider(&[0; 2049], None);
    assert!(matches!(store.add_provider(too_long), Err(Error::MaxProvidedKeys)));
}

/// Offers bytes under a key and expects a refusal that is counted, told, and changes nothing.
fn assert_refused(key: &[u8], value: &[u8], reason: Refusal) {
    let place = Place::new(StorageBackend::Memory);
    let (mut store, tree) = store(&place);
    put(&mut store, &self::key(1), &version(9, 5, &customer(1, "Ada")));
    let events = events(&store);
    let offered = Record::new(KadKey::new(&key), value.to_vec());
    RecordStore::put(&mut store, offered).unwrap_err();
    assert_eq!(store.replica().refusals(), [(reason, 1)]);
    let told = events.try_recv().unwrap();
    let parsed = RecordKey::parse(key).ok();
    assert!(
        matches!(&told, StoreEvent::Refused { key, reason: told } if *told == reason && *key == parsed),
        "{told:?}"
    );
    assert_eq!(store.replica().admit(key, value), Err(reason));
    assert_eq!(store.replica().refusals(), [(reason, 2)]);
    if let (Some(key), false) = (parsed, reason == Refusal::Outdated) {
        let answer = store.replica().check_record(&key, value).map(drop);
        assert_eq!(answer, Err(reason), "an answer is judged the same");
    }
    // Nothing was queued: the next change is ours.
    tree.put(&customer(2, "Grace")).unwrap();
    let changes: Vec<_> = events.try_iter().collect();
    let ours = changes.iter().filter(|event| matches!(event, StoreEvent::Changed(_)));
    assert_eq!(ours.count(), 1);
    assert_eq!((tree.len().unwrap(), named(&tree, "Ada")), (2, 1));
    assert_eq!(given(&store, &self::key(1)).as_deref(), Some(version(9, 5, &customer(1, "Ada")).as_bytes()));
}

fn newer() -> Vec<u8> {
    version(9, 10, &customer(1, "newer")).as_bytes().to_vec()
}

#[test]
fn a_key_that_is_no_record_key_is_refused() {
    for bad in [&b"key"[..], b"", b"/", b"/a/b", b"/ShopDefinition//1"] {
        assert_refused(bad, &newer(), Refusal::InvalidKey);
    }
    let long = [b"/ShopDefinition/Customer/".as_slice(), &[b'x'; 1025]].concat();
    assert_refused(&long, &newer(), Refusal::InvalidKey);
}

#[test]
fn a_value_over_the_limit_is_refused() {
    assert_refused(key(1).as_bytes(), &vec![1; 2 << 20], Refusal::TooLarge);
}

#[test]
fn bytes_that_are_no_signed_envelope_are_refused() {
    let unsigned = Envelope::unsigned(&payload(&customer(1, "newer"))).as_bytes().to_vec();
    let mut tombstone_with_payload = newer();
    tombstone_with_payload[1] = 1;
    let cut_off = newer()[..100].to_vec();
    let malformed = [vec![], unsigned, tombstone_with_payload, cut_off];
    for value in malformed {
        assert_refused(key(1).as_bytes(), &value, Refusal::InvalidEnvelope);
    }
}

#[test]
fn a_format_of_a_later_program_is_refused_as_unknown() {
    let [mut format, mut flag] = [newer(), newer()];
    format[0] = 3;
    flag[1] = 2;
    for value in [format, flag] {
        assert_refused(key(1).as_bytes(), &value, Refusal::UnknownFormat);
    }
    for (mark, reason) in
        [("~", Refusal::UnknownFormat), ("~~", Refusal::InvalidKey), (" ", Refusal::InvalidKey)]
    {
        let key = format!("/ShopDefinition/{mark}Customer/1");
        assert_refused(key.as_bytes(), &newer(), reason);
    }
}

#[test]
fn a_tombstone_that_expires_is_refused() {
    let timestamp = Timestamp::from_unix_millis(START);
    let sign = |expires| Envelope::sign(&identity(9), &key(1), timestamp, expires, None);
    assert_refused(key(1).as_bytes(), sign(START + 60_000).as_bytes(), Refusal::InvalidEnvelope);
    let store = Place::signed(StorageBackend::Memory).open();
    assert_eq!(store.replica().admit(key(1).as_bytes(), sign(0).as_bytes()), Ok(true));
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut changed = newer();
    *changed.last_mut().unwrap() ^= 1;
    assert_refused(key(1).as_bytes(), &changed, Refusal::InvalidSignature);
    let mut later = newer();
    later[9] += 1; // the last byte of the timestamp
    assert_refused(key(1).as_bytes(), &later, Refusal::InvalidSignature);
    let mut other_author = newer();
    other_author[18..50].copy_from_slice(identity(8).verifying_key().as_bytes());
    assert_refused(key(1).as_bytes(), &other_author, Refusal::InvalidSignature);
    let mut no_author = newer();
    no_author[18..50].fill(0);
    assert_refused(key(1).as_bytes(), &no_author, Refusal::InvalidSignature);
    assert_refused(key(3).as_bytes(), tombstone(9, 10, 1).as_bytes(), Refusal::InvalidSignature);
}

#[test]
fn a_signature_for_another_key_is_refused() {
    // The value belongs under this key; the signature does not.
    let timestamp = Timestamp::from_unix_millis(START + 10);
    let envelope = Envelope::sign(&identity(9), &key(2), timestamp, 0, Some(&payload(&customer(1, "newer"))));
    assert_refused(key(1).as_bytes(), envelope.as_bytes(), Refusal::InvalidSignature);
}

#[test]
fn a_timestamp_is_refused_if_it_is_too_far_ahead() {
    let skew = u64::try_from(Clock::MAX_SKEW.as_millis()).unwrap();
    let ahead = |by| version(9, by, &customer(1, "ahead"));
    assert_refused(key(1).as_bytes(), ahead(skew + 1).as_bytes(), Refusal::FutureTimestamp);
    let (mut store, tree) = store(&Place::signed(StorageBackend::Memory));
    put(&mut store, &key(1), &ahead(skew));
    tree.put(&customer(1, "after")).unwrap();
    assert_eq!(
        tree.get(&CustomerPrimaryKey(1)).unwrap(),
        Some(customer(1, "after")),
        "a local write follows"
    );
}

#[test]
fn an_expired_record_is_refused() {
    // Of a record that is not here; one that is would be ended by it.
    let payload = payload(&customer(2, "newer"));
    let timestamp = Timestamp::from_unix_millis(START + 10);
    let envelope = Envelope::sign(&identity(9), &key(2), timestamp, START, Some(&payload));
    assert_refused(key(2).as_bytes(), envelope.as_bytes(), Refusal::Expired);
}

#[test]
fn a_value_of_another_model_or_of_no_known_version_is_refused() {
    let sign = |payload: &[u8]| {
        let timestamp = Timestamp::from_unix_millis(START + 10);
        Envelope::sign(&identity(9), &key(1), timestamp, 0, Some(payload)).as_bytes().to_vec()
    };
    let valid = payload(&customer(1, "newer"));
    let no_version = [&[0], &valid[1..]].concat();
    let trailing = [&valid[..], &[0]].concat();
    let cut_off = &valid[..valid.len() - 1];
    let long_name = payload(&customer(1, &"x".repeat(1024)));
    for payload in [&[], &b"\x01"[..], &no_version, &trailing, cut_off, &long_name] {
        assert_refused(key(1).as_bytes(), &sign(payload), Refusal::InvalidValue);
    }
}

#[test]
fn a_value_under_the_key_of_another_is_refused() {
    let timestamp = Timestamp::from_unix_millis(START + 10);
    let envelope = Envelope::sign(&identity(9), &key(1), timestamp, 0, Some(&payload(&customer(2, "other"))));
    assert_refused(key(1).as_bytes(), envelope.as_bytes(), Refusal::KeyMismatch);
}

#[test]
fn an_older_version_is_refused() {
    let older = version(9, 4, &customer(1, "older"));
    assert_refused(key(1).as_bytes(), older.as_bytes(), Refusal::Outdated);
    let smaller_author = [1, 2, 3, 4, 5, 6, 7, 8]
        .into_iter()
        .find(|seed| identity(*seed).verifying_key().as_bytes() < identity(9).verifying_key().as_bytes());
    let same_time = version(smaller_author.unwrap(), 5, &customer(1, "same time"));
    assert_refused(key(1).as_bytes(), same_time.as_bytes(), Refusal::Outdated);
    assert_refused(key(1).as_bytes(), tombstone(9, 4, 1).as_bytes(), Refusal::Outdated);
}

/// A record of nearly a mebibyte.
fn large(id: i64) -> Customer {
    Customer { notes: "x".repeat(1_000_000), ..customer(id, "large") }
}

#[test]
fn records_of_peers_are_refused_while_their_share_of_the_queue_is_full() {
    let (mut store, tree) = store(&Place::signed(StorageBackend::Memory));
    let held = HeldWriter::hold(&store, |store| {
        store.replica().submit(&EncodedRecord::of(&customer(0, "first")).unwrap(), |_| ()).unwrap();
    });
    let offer =
        |store: &mut NetabaseStore, id| RecordStore::put(store, record(&key(id), &version(9, 1, &large(id))));
    let accepted = (1..100).take_while(|id| offer(&mut store, *id).is_ok()).count();
    let refused = i64::try_from(accepted).unwrap() + 1;
    assert!((40..60).contains(&accepted), "48 MiB is their share, {accepted} were accepted");
    assert_eq!(store.replica().refusals(), [(Refusal::Busy, 1)]);
    let outcome = offer(&mut store, refused);
    assert!(matches!(outcome, Err(Error::MaxRecords)), "{outcome:?}");
    assert_eq!(given(&store, &key(refused)), None, "what was refused is not shown");
    // A refused version hides none that waits.
    let newer = version(9, 2, &large(1));
    assert!(RecordStore::put(&mut store, record(&key(1), &newer)).is_err());
    assert_eq!(given(&store, &key(1)).as_deref(), Some(version(9, 1, &large(1)).as_bytes()));
    // The rest of the queue is for local writes.
    let local =
        store.replica().submit(&EncodedRecord::of(&large(-1)).unwrap(), |result| assert!(result.is_ok()));
    local.unwrap();
    held.release();
    tree.put(&customer(-2, "last")).unwrap();
    assert_eq!(tree.len().unwrap(), u64::try_from(accepted).unwrap() + 3);
    offer(&mut store, refused).unwrap();
    assert_eq!(store.replica().refusals(), [(Refusal::Busy, 3)]);
}
