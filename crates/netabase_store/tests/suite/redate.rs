//! Versions of a store whose clock was ahead, which no other store accepts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netabase_store::admin::CheckOptions;
use netabase_store::replica::AheadOfClock;
use netabase_store::{
    Clock, Envelope, NetabaseDefinition, NetabaseStore, RecordKey, Refusal, StorageBackend, StoreOptions,
    Timestamp, netabase_definition_module,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::common::*;

#[netabase_definition_module(KindsDefinition, KindsKeys)]
mod kinds {
    use netabase_store::NetabaseModel;
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
    #[netabase(KindsDefinition)]
    pub(crate) struct Tally {
        #[primary_key]
        pub(crate) id: u8,
        #[merge(counter)]
        #[secondary_key]
        pub(crate) count: i32,
    }
}
use kinds::*;

const MINUTE: u64 = 60 * 1000;
const HOUR: u64 = 60 * MINUTE;
const START: u64 = 1_800_000_000_000;

/// A store, and the time that it believes.
struct Told {
    store: NetabaseStore,
    time: Arc<AtomicU64>,
}

impl Told {
    fn open(seed: u8) -> Self {
        let time = Arc::new(AtomicU64::new(START));
        let clock = Clock::from_fn({
            let time = Arc::clone(&time);
            move || time.load(Ordering::Relaxed)
        });
        let options = StoreOptions {
            backend: StorageBackend::Memory,
            identity: Some(identity(seed)),
            clock,
            ..StoreOptions::default()
        };
        let store = NetabaseStore::open_with("", Some(KindsDefinition::SCHEMA), options).unwrap();
        Self { store, time }
    }

    fn set(&self, time: u64) {
        self.time.store(time, Ordering::Relaxed);
    }

    fn count(&self, id: u8, by: i32) {
        let tallies = self.store.open_tree::<Tally>().unwrap();
        let count = tallies.get(&TallyPrimaryKey(id)).unwrap().map_or(0, |tally| tally.count);
        tallies.put(&Tally { id, count: count.wrapping_add(by) }).unwrap();
    }

    /// Returns all versions, tombstones included.
    fn versions(&self) -> BTreeMap<RecordKey, Envelope> {
        let keys = (0..KEYS).flat_map(|id| [plain(id), tally(id)]);
        keys.filter_map(|key| Some((key.clone(), self.store.envelope(&key).unwrap()?.to_wire()))).collect()
    }

    fn give(&self, other: &Self, key: &RecordKey) -> Option<Result<bool, Refusal>> {
        let envelope = self.store.envelope(key).unwrap()?.to_wire();
        Some(other.store.replica().admit(key.as_bytes(), envelope.as_bytes()))
    }

    fn give_all(&self, other: &Self) {
        for key in self.versions().keys() {
            self.give(other, key);
        }
    }

    /// Does what a node does: sends its versions from the future to the others, and dates those
    /// anew that everybody refuses for it.
    fn redate(&self, others: &[&Self]) {
        let mut position = AheadOfClock::default();
        loop {
            let ahead = self.store.replica().ahead_of_clock(&mut position, 2).unwrap();
            if ahead.is_empty() {
                break;
            }
            for key in ahead {
                let sent = self.store.envelope(&key).unwrap().unwrap();
                let answers: Vec<_> = others.iter().filter_map(|other| self.give(other, &key)).collect();
                if !answers.is_empty()
                    && answers.iter().all(|answer| *answer == Err(Refusal::FutureTimestamp))
                {
                    self.store.replica().redate(&key, &sent);
                }
            }
        }
        self.store.flush().unwrap();
    }

    fn is_clean(&self) -> bool {
        self.store.check(CheckOptions::default()).unwrap().is_clean()
    }
}

const KEYS: u8 = 3;

fn plain(id: u8) -> RecordKey {
    KindsDefinition::SCHEMA.model("Plain").unwrap().record_key("KindsDefinition", &[id]).unwrap()
}

fn tally(id: u8) -> RecordKey {
    KindsDefinition::SCHEMA.model("Tally").unwrap().record_key("KindsDefinition", &[id]).unwrap()
}

#[test]
fn what_nobody_accepted_is_dated_anew_when_the_clock_is_right_again() {
    let (ours, theirs) = (Told::open(1), Told::open(2));
    let plains = ours.store.open_tree::<Plain>().unwrap();
    plains.put(&Plain { id: 2, value: 2 }).unwrap();
    ours.count(0, 1);
    ours.give_all(&theirs);
    theirs.count(0, 10);
    theirs.give_all(&ours);
    // In the year 2100.
    ours.set(4_102_444_800_000);
    plains.put(&Plain { id: 0, value: 1 }).unwrap();
    plains.remove(&PlainPrimaryKey(2)).unwrap();
    ours.count(0, 100);
    let ahead = ours.versions();
    // As long as the clock says so, they are not from the future.
    ours.redate(&[&theirs]);
    assert_eq!(ours.versions(), ahead);

    ours.set(START + HOUR);
    theirs.set(START + HOUR);
    // A version stays without the answer of a peer.
    ours.redate(&[]);
    assert_eq!(ours.versions(), ahead);
    ours.redate(&[&theirs]);
    let now = Timestamp::from_unix_millis(START + HOUR);
    let dated: Vec<_> = ours.versions().values().map(|version| version.timestamp().unwrap()).collect();
    assert!(
        dated.len() == 3 && dated.iter().all(|dated| dated.unix_millis() == now.unix_millis()),
        "{dated:?}"
    );
    assert!(ours.is_clean());
    assert_eq!(plains.get(&PlainPrimaryKey(0)).unwrap(), Some(Plain { id: 0, value: 1 }));
    ours.give_all(&theirs);
    assert_eq!(theirs.versions(), ours.versions());
    let tallies = theirs.store.open_tree::<Tally>().unwrap();
    assert_eq!(tallies.get(&TallyPrimaryKey(0)).unwrap(), Some(Tally { id: 0, count: 111 }));
    assert_eq!(theirs.store.open_tree::<Plain>().unwrap().get(&PlainPrimaryKey(2)).unwrap(), None);

    // The keys are not locked.
    plains.put(&Plain { id: 0, value: 3 }).unwrap();
    assert_eq!(ours.give(&theirs, &plain(0)), Some(Ok(true)));
}

#[test]
fn a_version_that_another_has_replaced_is_left_alone() {
    let (ours, theirs) = (Told::open(1), Told::open(2));
    let plains = ours.store.open_tree::<Plain>().unwrap();
    ours.set(START + HOUR);
    plains.put(&Plain { id: 0, value: 1 }).unwrap();
    let refused = ours.store.envelope(&plain(0)).unwrap().unwrap();
    plains.put(&Plain { id: 0, value: 2 }).unwrap();
    ours.set(START);
    let replaced = ours.store.envelope(&plain(0)).unwrap().unwrap();
    ours.store.replica().redate(&plain(0), &refused);
    ours.store.flush().unwrap();
    assert_eq!(ours.store.envelope(&plain(0)).unwrap(), Some(replaced));
    // Nor is a version of another author, or one that peers may accept.
    theirs.set(START + 2 * HOUR);
    theirs.store.open_tree::<Plain>().unwrap().put(&Plain { id: 1, value: 1 }).unwrap();
    ours.set(START + 2 * HOUR);
    assert_eq!(theirs.give(&ours, &plain(1)), Some(Ok(true)));
    let foreign = ours.store.envelope(&plain(1)).unwrap().unwrap();
    ours.set(START);
    ours.store.replica().redate(&plain(1), &foreign);
    ours.store.flush().unwrap();
    assert_eq!(ours.store.envelope(&plain(1)).unwrap(), Some(foreign));
    let found = ours.store.replica().ahead_of_clock(&mut AheadOfClock::default(), 10).unwrap();
    assert_eq!(found, [plain(0)]);
}

/// A step of one of three stores, of which the first has a clock that may be wrong.
#[derive(Debug, Clone, Copy)]
enum Step {
    Put {
        store: usize,
        id: u8,
        value: i32,
    },
    Remove {
        store: usize,
        id: u8,
    },
    Count {
        store: usize,
        id: u8,
        by: i32,
    },
    Give {
        from: usize,
        to: usize,
        id: u8,
    },
    /// The clock of the first or of the second store is ahead by so many minutes.
    Skew {
        store: usize,
        minutes: u64,
    },
    /// A minute passes.
    Pass,
    Redate {
        store: usize,
        asked: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (store, id) = (0..3_usize, 0..KEYS);
    prop_oneof![
        (store.clone(), id.clone(), 0..3).prop_map(|(store, id, value)| Step::Put { store, id, value }),
        (store.clone(), id.clone()).prop_map(|(store, id)| Step::Remove { store, id }),
        (store.clone(), id.clone(), 1..3).prop_map(|(store, id, by)| Step::Count { store, id, by }),
        (store.clone(), store.clone(), id).prop_map(|(from, to, id)| Step::Give { from, to, id }),
        (0..2_usize, prop::sample::select(vec![0, 5, 60, 600]))
            .prop_map(|(store, minutes)| Step::Skew { store, minutes }),
        Just(Step::Pass),
        (store, 1..3_usize).prop_map(|(store, asked)| Step::Redate { store, asked }),
    ]
}

fn converge(steps: &[Step]) -> TestCaseResult {
    let stores = [1, 2, 3].map(Told::open);
    let (mut now, mut skews) = (START, [0; 3]);
    for step in steps {
        // Nobody but its author replaces a version by an earlier one.
        let before: Vec<_> = stores.iter().map(Told::versions).collect();
        let mut author = None;
        match *step {
            Step::Put { store, id, value } => {
                stores[store].store.open_tree::<Plain>().unwrap().put(&Plain { id, value }).unwrap();
            }
            Step::Remove { store, id } => {
                stores[store].store.open_tree::<Plain>().unwrap().remove(&PlainPrimaryKey(id)).unwrap();
            }
            Step::Count { store, id, by } => stores[store].count(id, by),
            Step::Give { from, to, id } => {
                stores[from].give(&stores[to], &plain(id));
                stores[from].give(&stores[to], &tally(id));
            }
            Step::Skew { store, minutes } => skews[store] = minutes * MINUTE,
            Step::Pass => now += MINUTE,
            Step::Redate { store, asked } => {
                author = Some(store);
                let asked: Vec<_> = (1..=asked).map(|step| &stores[(store + step) % 3]).collect();
                stores[store].redate(&asked);
            }
        }
        for (store, skew) in stores.iter().zip(skews) {
            store.set(now + skew);
            store.store.flush().unwrap();
        }
        for (at, (store, before)) in stores.iter().zip(before).enumerate() {
            let after = store.versions();
            for (key, before) in before {
                prop_assert!(author == Some(at) || after[&key] == before || after[&key].adds_to(&before));
            }
        }
    }
    // All clocks are right, and every store offers what it has; what is still from the future is
    // taken when its time has come.
    for (store, later) in stores.iter().zip([0; 3]) {
        store.set(now + later);
    }
    for (at, store) in stores.iter().enumerate() {
        store.redate(&[&stores[(at + 1) % 3], &stores[(at + 2) % 3]]);
    }
    for store in &stores {
        store.set(now + 24 * HOUR);
    }
    for _ in 0..3 {
        for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
            stores[from].give_all(&stores[to]);
        }
    }
    for store in &stores {
        store.store.flush().unwrap();
        prop_assert_eq!(store.versions(), stores[0].versions());
        prop_assert!(store.is_clean());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stores_whose_clocks_were_wrong_end_in_the_same_records(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        converge(&steps)?;
    }
}

#[test]
fn a_version_is_signed_again_after_one_that_its_author_did_not_know() {
    let [ours, other] = [Told::open(1), Told::open(2)];
    let plains = ours.store.open_tree::<Plain>().unwrap();
    plains.put(&Plain { id: 1, value: 7 }).unwrap();
    let key = plain(1);
    let first = ours.store.envelope(&key).unwrap().unwrap();
    // Another author's deletion, a minute ahead.
    let ahead = Timestamp::from_unix_millis(START + MINUTE);
    let newer = Envelope::sign(&identity(2), &key, ahead, 0, None);
    let again = ours.store.replica().sign_after(&key, &first, &newer).unwrap();
    assert!(again.timestamp().unwrap() > ahead);
    assert_eq!(ours.store.envelope(&key).unwrap().as_ref(), Some(&again), "it is seen at once");
    assert_eq!(ours.store.replica().sign_after(&key, &first, &newer), None, "it is replaced already");
    ours.store.flush().unwrap();
    let found = plains.find(PlainValueSecondaryKey(7)).unwrap();
    assert_eq!(found, [Plain { id: 1, value: 7 }], "its index entries stay");
    assert!(ours.store.check(CheckOptions::default()).unwrap().is_clean());
    assert_eq!(other.store.replica().admit(key.as_bytes(), newer.as_bytes()), Ok(true));
    assert_eq!(ours.give(&other, &key), Some(Ok(true)));
    // Who did not write a version does not sign it.
    assert_eq!(other.store.replica().sign_after(&key, &again, &newer), None);
}
