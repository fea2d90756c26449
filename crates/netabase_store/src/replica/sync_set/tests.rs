//! The messages are those of negentropy, and never more of them.

use std::collections::BTreeSet;

use negentropy::{Id, Negentropy, NegentropyStorageBase, NegentropyStorageVector};
use proptest::prelude::*;

use super::*;
use crate::options::{StorageBackend, StoreOptions};

/// Items of which many have the same time or ids that begin alike.
fn an_item() -> impl Strategy<Value = SyncItem> {
    let id = prop_oneof![Just([7; 2]), Just([7, 8]), any::<[u8; 2]>()];
    (prop_oneof![0..20_u64, 1_700_000_000_000..1_700_000_001_000_u64], id, any::<[u8; 8]>()).prop_map(
        |(timestamp, begin, end)| {
            let mut item = SyncItem { timestamp, id: [3; SYNC_ID_BYTES] };
            item.id[..2].copy_from_slice(&begin);
            item.id[24..].copy_from_slice(&end);
            item
        },
    )
}

fn items(count: usize) -> impl Strategy<Value = BTreeSet<SyncItem>> {
    prop::collection::btree_set(an_item(), 0..=count)
}

fn store() -> NetabaseStore {
    let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
    NetabaseStore::open_with("", None, options).unwrap()
}

fn ours(store: &NetabaseStore, items: &BTreeSet<SyncItem>) -> SyncSet {
    let snapshot = store.core().engine().snapshot().unwrap();
    let items = Gathered::new(items.iter().map(|item| (*item, [].into())).collect());
    SyncSet::of_items(store.clone(), snapshot, 0, Arc::new(items), 0)
}

fn theirs(items: &BTreeSet<SyncItem>) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::new();
    for item in items {
        storage.insert(item.timestamp, Id::from_byte_array(item.id)).unwrap();
    }
    storage.seal().unwrap();
    storage
}

/// The number of messages and bytes of a comparison.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Cost {
    rounds: usize,
    bytes: usize,
}

impl Cost {
    fn add(&mut self, asked: &[u8], answer: &[u8]) {
        self.rounds += 1;
        self.bytes += asked.len() + answer.len();
        assert!(self.rounds < 1000);
    }
}

fn ids(difference: &SyncDifference) -> [BTreeSet<[u8; 32]>; 2] {
    let need = difference.need.iter().flat_map(|need| need.ids.iter().copied());
    [difference.have.iter().map(|item| item.id).collect(), need.collect()]
}

/// Compares two sets by this module's messages, which the crate answers as well.
fn compare(left: &mut SyncSet, right: &mut SyncSet, limit: usize, split: bool) -> (SyncDifference, Cost) {
    let (mut difference, mut cost) = (SyncDifference::default(), Cost::default());
    let first = if split { left.initiate_split() } else { left.initiate() };
    let mut message = Some(first.unwrap());
    while let Some(asked) = message {
        let answer = right.respond(&asked, limit).unwrap();
        cost.add(&asked, &answer);
        message = left.reconcile(&answer, limit, &mut difference).unwrap().message;
    }
    (difference, cost)
}

fn reference(left: &NegentropyStorageVector, right: &NegentropyStorageVector, limit: usize) -> Vec<Vec<u8>> {
    let mut asker = Negentropy::borrowed(left, limit as u64).unwrap();
    let mut answerer = Negentropy::borrowed(right, limit as u64).unwrap();
    let (mut messages, mut message) = (Vec::new(), Some(asker.initiate().unwrap()));
    while let Some(asked) = message {
        let answer = answerer.reconcile(&asked).unwrap();
        message = asker.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new()).unwrap();
        messages.extend([asked, answer]);
        assert!(messages.len() < 2000);
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_messages_are_those_of_the_crate_byte_for_byte(
        common in items(3000),
        left in items(400),
        right in items(400),
        limit in prop_oneof![4096..6000_usize, Just(1 << 30)],
    ) {
        let store = store();
        let left: BTreeSet<_> = common.union(&left).copied().collect();
        let right: BTreeSet<_> = common.union(&right).copied().collect();
        let (mut ours_left, mut ours_right) = (ours(&store, &left), ours(&store, &right));
        let messages = reference(&theirs(&left), &theirs(&right), limit);
        let (mut difference, mut next) = (SyncDifference::default(), Some(ours_left.initiate_split().unwrap()));
        for pair in messages.chunks(2) {
            prop_assert_eq!(next.as_ref(), Some(&pair[0]));
            let answer = ours_right.respond(&pair[0], limit).unwrap();
            prop_assert_eq!(&answer, &pair[1]);
            next = ours_left.reconcile(&answer, limit, &mut difference).unwrap().message;
        }
        prop_assert_eq!(next, None);
        let expected = |one: &BTreeSet<SyncItem>, other: &BTreeSet<SyncItem>| {
            one.difference(other).map(|item| item.id).collect::<BTreeSet<_>>()
        };
        let expected = [expected(&left, &right), expected(&right, &left)];
        prop_assert_eq!(ids(&difference), expected.clone());
        for need in &difference.need {
            for item in right.iter().filter(|item| need.ids.contains(&item.id) && !left.contains(item)) {
                prop_assert!(need.from.item() <= item && item < need.to.item());
            }
        }
        // The first message that we choose ourselves leads to the same.
        let (difference, _) = compare(&mut ours_left, &mut ours_right, limit, false);
        prop_assert_eq!(ids(&difference), expected);
    }

    #[test]
    fn fingerprints_are_those_of_the_crate(items in items(3000), from: prop::sample::Index, to: prop::sample::Index) {
        let store = store();
        let (mut ours, theirs) = (ours(&store, &items), theirs(&items));
        let (from, to) = (from.index(items.len() + 1), to.index(items.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let fingerprint = theirs.fingerprint(from, to).unwrap().to_bytes();
        prop_assert_eq!(ours.fingerprint_of(from, to).unwrap(), fingerprint);
    }

    #[test]
    fn any_bytes_are_answered_or_refused(items in items(600), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut set = ours(&store(), &items);
        for version in [&[][..], &[0x61]] {
            let message = [version, &bytes].concat();
            if let Ok(answer) = set.respond(&message, 4096) {
                prop_assert!(answer.len() <= 4096);
            }
            let _ = set.reconcile(&message, 4096, &mut SyncDifference::default());
        }
    }
}

#[test]
fn a_message_that_is_cut_off_does_not_say_that_sets_are_equal() {
    // The version, then the possible beginnings of a message.
    const VERSION: u8 = 0x61;
    let store = store();
    let item = SyncItem { timestamp: 5, id: [3; SYNC_ID_BYTES] };
    let mut set = ours(&store, &[item].into());
    let endless = [&[VERSION][..], &[0xff; 20]].concat();
    let cut = [&[][..], &[VERSION, 5], &[VERSION, 0x85], &[VERSION, 5, 0], &[VERSION, 0, 0, 1, 7], &endless];
    for message in cut {
        let answer = set.respond(message, SyncSet::MIN_MESSAGE_BYTES);
        assert!(matches!(answer, Err(SyncError::Malformed)), "{message:x?}: {answer:x?}");
    }
}

#[test]
fn our_first_message_costs_no_more_than_that_of_the_crate() {
    const LIMIT: usize = 1 << 20;
    let store = store();
    let item = |number: u64| {
        let id = *blake3::hash(&number.to_be_bytes()).as_bytes();
        SyncItem { timestamp: 1_700_000_000_000 + number * 37, id }
    };
    for size in [0, 1, 31, 32, 500, 511, 513, 8000, 10_000, 200_000] {
        for differences in [0, 10, 100] {
            let left: BTreeSet<_> = (0..size).map(item).collect();
            let mut right = left.clone();
            for number in 0..differences {
                right.remove(&item(number * 7919 % size.max(1)));
                right.insert(item(1_000_000 + number));
            }
            let (mut left, mut right) = (ours(&store, &left), ours(&store, &right));
            let (_, plain) = compare(&mut left, &mut right, LIMIT, true);
            let (_, chosen) = compare(&mut left, &mut right, LIMIT, false);
            assert!(chosen.rounds <= plain.rounds, "{size}, {differences}: {chosen:?}, {plain:?}");
            assert!(chosen.bytes <= plain.bytes, "{size}, {differences}: {chosen:?}, {plain:?}");
        }
    }
}

/// Prints the cost of a comparison of a million items with a million; run it by name.
#[test]
#[ignore = "takes a while, and measures"]
fn what_a_million_costs() {
    const LIMIT: usize = 1 << 20;
    let store = store();
    let item = |number: u64| {
        let id = *blake3::hash(&number.to_be_bytes()).as_bytes();
        SyncItem { timestamp: 1_700_000_000_000 + number * 37, id }
    };
    let left: BTreeSet<_> = (0..1_000_000).map(item).collect();
    for differences in [0, 100, 10_000] {
        let mut right = left.clone();
        for number in 0..differences {
            right.remove(&item(number * 7919 % 1_000_000));
        }
        let (mut left, mut right) = (ours(&store, &left), ours(&store, &right));
        for (name, split) in [("plain", true), ("ours", false)] {
            let begun = std::time::Instant::now();
            let (difference, cost) = compare(&mut left, &mut right, LIMIT, split);
            assert_eq!(difference.have.len() as u64, differences);
            eprintln!("{differences} differences, {name}: {cost:?}, {:?}", begun.elapsed());
        }
    }
}

proptest! {
    #[test]
    fn a_comparison_that_keeps_few_items_in_mind_finds_the_same(
        common in items(300),
        [left, right] in [items(300), items(300)],
        (limit, split) in (1..40_usize, any::<bool>()),
    ) {
        let store = store();
        let [mut left, mut right] =
            [left, right].map(|items| ours(&store, &common.union(&items).copied().collect()));
        let (all, _) = compare(&mut left, &mut right, SyncSet::MIN_MESSAGE_BYTES, split);
        for ignores_have in [false, true] {
            let mut difference =
                SyncDifference { have_limit: Some(limit), ignores_have, ..SyncDifference::default() };
            let first = if split { left.initiate_split() } else { left.initiate() };
            let (mut message, mut have, mut cost) = (Some(first.unwrap()), Vec::new(), Cost::default());
            while let Some(asked) = message {
                let answer = right.respond(&asked, SyncSet::MIN_MESSAGE_BYTES).unwrap();
                cost.add(&asked, &answer);
                message = left.reconcile(&answer, SyncSet::MIN_MESSAGE_BYTES, &mut difference).unwrap().message;
                prop_assert!(difference.have.len() <= limit);
                if difference.have.len() >= limit {
                    have.append(&mut difference.have);
                }
            }
            have.append(&mut difference.have);
            // Some are found twice.
            let [expected, needed] = ids(&all);
            let have: BTreeSet<_> = have.iter().map(|item| item.id).collect();
            let expected = if ignores_have { BTreeSet::new() } else { expected };
            prop_assert!(have == expected && ids(&difference)[1] == needed);
        }
    }
}
