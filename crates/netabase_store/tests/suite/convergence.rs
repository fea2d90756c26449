//! Random versions, delivered in any order, any number of times and in any bundles, end in the same
//! records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use netabase_store::admin::CheckOptions;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Author, Envelope, NetabaseStore, RecordKey, StorageBackend, Timestamp, WritePolicy,
    netabase_definition_module,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use crate::common::*;

#[netabase_definition_module(KindsDefinition, KindsKeys)]
mod kinds {
    use std::collections::BTreeSet;

    use netabase_store::{Author, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(KindsDefinition)]
    pub(crate) struct Plain {
        #[primary_key]
        pub(crate) id: u8,
        #[secondary_key]
        pub(crate) value: i32,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(KindsDefinition, owned)]
    pub(crate) struct Owned {
        #[primary_key]
        pub(crate) owner: Author,
        #[secondary_key]
        pub(crate) value: i32,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(KindsDefinition)]
    pub(crate) struct Merged {
        #[primary_key]
        pub(crate) id: u8,
        #[secondary_key]
        pub(crate) latest: i32,
        #[merge(counter)]
        #[secondary_key]
        pub(crate) counted: i32,
        #[merge(counter)]
        pub(crate) small: u8,
        #[merge(max)]
        pub(crate) largest: i32,
        #[merge(min)]
        pub(crate) smallest: i32,
        #[merge(set)]
        #[secondary_key]
        pub(crate) elements: BTreeSet<i32>,
    }
}
use kinds::*;

/// The authors of versions.
const AUTHORS: u8 = 4;
/// The stores that they are delivered to.
const STORES: usize = 3;

/// A version of the one record of each model: a value, or a tombstone.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Written {
    author: u8,
    time: u64,
    value: Option<i32>,
}

fn written() -> impl Strategy<Value = Written> {
    let value = prop::option::weighted(0.8, prop::sample::select(vec![-3, -1, 0, 1, 2, 7, i32::MAX]));
    (1..=AUTHORS, 0..8_u64, value).prop_map(|(author, time, value)| Written { author, time, value })
}

fn author(seed: u8) -> Author {
    Author::from_bytes(identity(seed).verifying_key().to_bytes())
}

fn plain(value: i32) -> Plain {
    Plain { id: 1, value }
}

fn owned(value: i32) -> Owned {
    Owned { owner: author(1), value }
}

fn contribution(value: i32) -> Merged {
    Merged {
        id: 1,
        latest: value,
        counted: value,
        small: value.unsigned_abs().try_into().unwrap_or(u8::MAX),
        largest: value,
        smallest: value,
        elements: [value, value / 2].into(),
    }
}

/// The key of a kind, and the payload that a value has.
fn kind(kind: &str, value: Option<i32>) -> (RecordKey, Option<Vec<u8>>) {
    let payload = |record: Result<EncodedRecord, _>| record.unwrap().payload;
    let keys = match kind {
        "plain" => RecordKey::of(&PlainPrimaryKey(1)),
        "owned" => RecordKey::of(&OwnedPrimaryKey(author(1))),
        _ => RecordKey::of(&MergedPrimaryKey(1)),
    };
    let payload = value.map(|value| match kind {
        "plain" => payload(EncodedRecord::of(&plain(value))),
        "owned" => payload(EncodedRecord::of(&owned(value))),
        _ => payload(EncodedRecord::of(&contribution(value))),
    });
    (keys.unwrap(), payload)
}

/// The envelope that an author signs.
fn sign(of: &str, Written { author, time, value }: Written) -> Envelope {
    let (key, payload) = kind(of, value);
    let time = Timestamp::from_bits((START << 16) + time);
    Envelope::sign(&identity(author), &key, time, 0, payload.as_deref())
}

fn store(backend: StorageBackend) -> (NetabaseStore, Place) {
    let place = Place::new(backend);
    (place.try_open::<KindsDefinition>().unwrap(), place)
}

/// How versions reach one store: which of them are together, in which order.
type Deliveries = Vec<Vec<Index>>;

fn deliveries() -> impl Strategy<Value = Vec<Deliveries>> {
    let together = prop::collection::vec(any::<Index>(), 1..4);
    prop::collection::vec(prop::collection::vec(together, 0..12), STORES)
}

/// Delivers versions in any way, and then whatever is missing.
fn deliver(store: &NetabaseStore, of: &str, versions: &[Envelope], how: &Deliveries) {
    let (key, _) = kind(of, None);
    let admit = |parts: &[Envelope]| {
        // A version that others have overtaken is refused, as it should be.
        if key.policy() == WritePolicy::Merged {
            let _ = store.replica().admit(key.as_bytes(), Envelope::bundle(parts).unwrap().as_bytes());
        } else {
            for part in parts {
                let _ = store.replica().admit(key.as_bytes(), part.as_bytes());
            }
        }
    };
    for (number, together) in how.iter().enumerate() {
        let parts: Vec<_> = together.iter().map(|index| index.get(versions).clone()).collect();
        admit(&parts);
        if number % 3 == 0 {
            store.flush().unwrap();
        }
    }
    let (early, late) = versions.split_at(versions.len() / 2);
    late.iter().chain(early).for_each(|version| admit(std::slice::from_ref(version)));
    store.flush().unwrap();
}

/// Everything that a reader can see.
#[derive(Debug, PartialEq)]
struct Seen {
    bytes: Option<Vec<u8>>,
    plain: Vec<Plain>,
    owned: Vec<Owned>,
    merged: Vec<Merged>,
    /// By which index entries the records are found.
    index_entries: u64,
}

fn see(store: &NetabaseStore, of: &str) -> Seen {
    let (key, _) = kind(of, None);
    let report = store.check(CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let read = |rows: netabase_store::Rows<Merged>| rows.map(Result::unwrap).collect::<Vec<_>>();
    let merged = store.open_tree::<Merged>().unwrap();
    for record in merged.iter().unwrap() {
        let record = record.unwrap();
        assert_eq!(
            merged.find(MergedCountedSecondaryKey(record.counted)).unwrap(),
            std::slice::from_ref(&record)
        );
        for element in &record.elements {
            assert_eq!(
                merged.find(MergedElementsSecondaryKey(*element)).unwrap(),
                std::slice::from_ref(&record)
            );
        }
    }
    Seen {
        bytes: store.envelope(&key).unwrap().map(|envelope| envelope.as_bytes().to_vec()),
        plain: store.open_tree::<Plain>().unwrap().iter().unwrap().map(Result::unwrap).collect(),
        owned: store.open_tree::<Owned>().unwrap().iter().unwrap().map(Result::unwrap).collect(),
        merged: read(merged.iter().unwrap()),
        index_entries: report.index_entries,
    }
}

/// Delivers versions of a kind to several stores; returns what all of them hold.
fn converge(of: &str, written: &[Written], how: &[Deliveries], backend: StorageBackend) -> Seen {
    let versions: Vec<_> = written.iter().map(|written| sign(of, *written)).collect();
    let seen: Vec<_> = how
        .iter()
        .map(|how| {
            let (store, _place) = store(backend);
            deliver(&store, of, &versions, how);
            see(&store, of)
        })
        .collect();
    for other in &seen[1..] {
        assert_eq!(other, &seen[0], "{of}");
    }
    seen.into_iter().next().unwrap()
}

/// The value of the latest of several versions, in the documented order.
fn latest(written: &[Written]) -> Option<i32> {
    written
        .iter()
        .max_by_key(|written| (written.time, author(written.author)))
        .and_then(|written| written.value)
}

/// The expected result of merging, in the simplest form.
fn reference(written: &[Written]) -> Option<Merged> {
    let moment = |written: &Written| (written.time, author(written.author));
    let deleted = written.iter().filter(|written| written.value.is_none()).map(moment).max();
    let mut latest = BTreeMap::new();
    for written in written.iter().filter(|written| written.value.is_some()) {
        let slot: &mut Written = latest.entry(written.author).or_insert(*written);
        if moment(slot) < moment(written) {
            *slot = *written;
        }
    }
    let mut live: Vec<_> = latest.into_values().filter(|written| Some(moment(written)) > deleted).collect();
    live.sort_by_key(moment);
    let values: Vec<i32> = live.iter().map(|written| written.value.unwrap()).collect();
    let sum: i64 = values.iter().map(|value| i64::from(*value)).sum();
    let small: u64 = values.iter().map(|value| u64::from(contribution(*value).small)).sum();
    Some(Merged {
        id: 1,
        latest: *values.last()?,
        counted: sum.clamp(i32::MIN.into(), i32::MAX.into()).try_into().unwrap(),
        small: small.min(255).try_into().unwrap(),
        largest: *values.iter().max()?,
        smallest: *values.iter().min()?,
        elements: values.iter().flat_map(|value| [*value, *value / 2]).collect::<BTreeSet<_>>(),
    })
}

/// Leaves out versions of which an author should not have signed two.
fn distinct(mut written: Vec<Written>) -> Vec<Written> {
    let mut seen = BTreeSet::new();
    written.retain(|written| seen.insert((written.author, written.time)));
    written
}

fn check_kinds(written: &[Written], how: &[Deliveries], backend: StorageBackend) -> TestCaseResult {
    let once = distinct(written.to_vec());
    let plain_seen = converge("plain", &once, how, backend);
    prop_assert_eq!(plain_seen.plain, latest(&once).map(plain).into_iter().collect::<Vec<_>>());
    let ours: Vec<_> = once.iter().copied().filter(|written| written.author == 1).collect();
    let owned_seen = converge("owned", &once, how, backend);
    prop_assert_eq!(owned_seen.owned, latest(&ours).map(owned).into_iter().collect::<Vec<_>>());
    let merged_seen = converge("merged", &once, how, backend);
    prop_assert_eq!(merged_seen.merged, reference(&once).into_iter().collect::<Vec<_>>());
    // Two versions of an author with the same timestamp do not make stores diverge.
    for of in ["plain", "owned", "merged"] {
        converge(of, written, how, backend);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_end_with_the_same(written in prop::collection::vec(written(), 1..12), how in deliveries()) {
        check_kinds(&written, &how, StorageBackend::Memory)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_on_disk_end_with_the_same(
        written in prop::collection::vec(written(), 1..12),
        how in deliveries(),
    ) {
        check_kinds(&written, &how, StorageBackend::Redb)?;
        check_kinds(&written, &how, StorageBackend::Sled)?;
    }
}

/// Versions of more authors than are kept, some of them tombstones.
fn many() -> &'static [Envelope] {
    static MANY: OnceLock<Vec<Envelope>> = OnceLock::new();
    MANY.get_or_init(|| {
        let authors = 1..=u8::try_from(Envelope::MAX_CONTRIBUTIONS).unwrap() + 8;
        let versions = authors.flat_map(|author| {
            let time = u64::from(author) * 31 % 97;
            let later = Written { author, time: time + 40, value: (author % 16 > 0).then_some(2) };
            [Written { author, time, value: Some(1) }, later]
        });
        versions.map(|written| sign("merged", written)).collect()
    })
}

/// Many, or few that meet often.
fn some_versions() -> impl Strategy<Value = Vec<Envelope>> {
    let few = prop::collection::vec(written(), 1..6)
        .prop_map(|written| written.into_iter().map(|written| sign("merged", written)).collect());
    let many = prop::collection::vec(any::<Index>(), 1..200)
        .prop_map(|some| some.into_iter().map(|index| index.get(many()).clone()).collect());
    prop_oneof![few, many]
}

fn bundle(parts: &[Envelope]) -> Envelope {
    Envelope::bundle(parts).unwrap()
}

proptest! {
    #[test]
    fn joining_is_commutative_associative_and_idempotent(
        a in some_versions(), b in some_versions(), c in some_versions(),
    ) {
        let all = bundle(&[a.clone(), b.clone(), c.clone()].concat());
        let (a, b, c) = (bundle(&a), bundle(&b), bundle(&c));
        prop_assert_eq!(a.join(&b), b.join(&a));
        prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
        prop_assert_eq!(a.join(&a), a.clone());
        prop_assert_eq!(a.join(&b).join(&c), all.clone());
        prop_assert!(!a.adds_to(&all));
        prop_assert_eq!(a.adds_to(&b), a.join(&b) != b);
        prop_assert_eq!(Envelope::parse(all.as_bytes()), Ok(all.clone()));
        // A bundle that has more is never the earlier one.
        prop_assert!((all.timestamp(), all.author()) >= (a.timestamp(), a.author()));
        prop_assert_eq!(all.version() == a.version(), all == a);
    }

    #[test]
    fn any_changed_byte_of_a_bundle_is_noticed(parts in some_versions(), at: Index, bit in 0_u8..8) {
        let (key, _) = kind("merged", None);
        let bundle = bundle(&parts[..parts.len().min(3)]);
        let mut bytes = bundle.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let outcome = Envelope::parse(&bytes).and_then(|changed| changed.verify(&key));
        prop_assert!(outcome.is_err());
    }

    #[test]
    fn any_bytes_parse_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [[2, 0].as_slice(), &bytes].concat();
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let _ = (envelope.payload(), envelope.version(), envelope.expires(), envelope.contributions());
        }
    }
}

/// A step of stores that have one author each.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Counts and adds an element.
    Count(usize, i32),
    /// Counts without having read, as a program does that makes a new record each time.
    Put(usize, i32),
    /// Sends what one has to another.
    Send(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..STORES, -5..9_i32).prop_map(|(store, by)| Step::Count(store, by)),
        (0..STORES, -5..9_i32).prop_map(|(store, by)| Step::Put(store, by)),
        (0..STORES, 0..STORES).prop_map(|(from, to)| Step::Send(from, to)),
    ]
}

fn send(from: &NetabaseStore, to: &NetabaseStore) {
    let (key, _) = kind("merged", None);
    if let Some(envelope) = from.envelope(&key).unwrap() {
        let _ = to.replica().admit(key.as_bytes(), envelope.to_wire().as_bytes());
    }
}

fn count(store: &NetabaseStore, by: i32) {
    let tree = store.open_tree::<Merged>().unwrap();
    let change = |merged: &mut Merged| {
        merged.counted += by;
        merged.latest = by;
        merged.elements.insert(by);
    };
    if tree.update(&MergedPrimaryKey(1), change).unwrap().is_none() {
        let mut merged = Merged { counted: 0, ..contribution(0) };
        change(&mut merged);
        tree.put(&merged).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_counted_anywhere_is_counted_once(steps in prop::collection::vec(step(), 1..24)) {
        let places: Vec<_> = (1..).take(STORES).map(|seed| {
            let mut place = Place::new(StorageBackend::Memory);
            place.options.identity = Some(identity(seed));
            place
        }).collect();
        let stores: Vec<_> =
            places.iter().map(|place| place.try_open::<KindsDefinition>().unwrap()).collect();
        let (mut sum, mut elements, mut any) = (0, BTreeSet::from([0]), false);
        for step in steps {
            match step {
                Step::Count(store, by) => {
                    count(&stores[store], by);
                    sum += by;
                    elements.insert(by);
                    any = true;
                }
                Step::Put(store, by) => {
                    let tree = stores[store].open_tree::<Merged>().unwrap();
                    let seen = tree.get(&MergedPrimaryKey(1)).unwrap();
                    let counted = seen.as_ref().map_or(0, |seen| seen.counted);
                    // The elements that others have added cannot be left out, nor those of its own
                    // be meant.
                    let elements = seen.map_or([0].into(), |seen| seen.elements);
                    tree.put(&Merged { counted: counted + by, elements, ..contribution(0) }).unwrap();
                    sum += by;
                    any = true;
                }
                Step::Send(from, to) => send(&stores[from], &stores[to]),
            }
        }
        for _ in 0..STORES {
            for from in &stores {
                for to in &stores {
                    send(from, to);
                }
            }
        }
        for store in &stores {
            store.flush().unwrap();
            let merged = store.open_tree::<Merged>().unwrap().get(&MergedPrimaryKey(1)).unwrap();
            prop_assert_eq!(merged.is_some(), any);
            if let Some(merged) = merged {
                prop_assert_eq!((merged.counted, &merged.elements), (sum, &elements));
            }
            prop_assert_eq!(see(store, "merged"), see(&stores[0], "merged"));
        }
    }
}
