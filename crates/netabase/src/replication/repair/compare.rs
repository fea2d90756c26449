//! Comparison of two peers' sets of versions without complete lists.
//!
//! A peer sends a digest of its items in a range of the keyspace. The other peer answers that it
//! has the same items, lists its items if they are few, or splits the range. This is range-based
//! set reconciliation (Meyer, "Range-Based Set Reconciliation", 2023) with hashes over the sorted
//! items instead of sums, so that no peer can make two different sets look the same.

use crate::dht::holders::Position;
use crate::replication::repair::limits::{LISTED_AT_ONCE, MAX_LISTED, SPLIT_PARTS};
use netabase_store::replica::Placed;

/// An item of a comparison: a version of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) position: Position,
    pub(crate) fingerprint: [u8; 16],
}

/// An abbreviated item of a list, which identifies the record and the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Brief {
    pub(crate) position: [u8; 16],
    pub(crate) fingerprint: [u8; 8],
}

impl Item {
    pub(crate) fn of(placed: &Placed) -> Self {
        Self { position: placed.position, fingerprint: placed.fingerprint }
    }

    pub(crate) fn brief(&self) -> Brief {
        Brief { position: first(&self.position), fingerprint: first(&self.fingerprint) }
    }
}

/// Returns the first bytes of a longer array.
pub(super) fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// A range of the keyspace with the digest of a peer's items in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first position.
    pub(crate) from: Position,
    /// The first position after it; `None` for the end of the keyspace.
    pub(crate) to: Option<Position>,
    pub(crate) count: u32,
    pub(crate) digest: [u8; 16],
}

impl Range {
    /// Computes the range of `items`, which are all of the peer's items from `from` to `to`, in
    /// order.
    pub(crate) fn new(from: Position, to: Option<Position>, items: &[Item]) -> Self {
        Self { from, to, count: u32::try_from(items.len()).unwrap_or(u32::MAX), digest: digest(items) }
    }

    /// Returns the items inside the range.
    pub(crate) fn select<'a>(&self, items: &'a [Item]) -> &'a [Item] {
        within(items, &self.from, self.to.as_ref())
    }

    /// Splits the range into parts with about as many of `items`, which lie in it, each.
    pub(crate) fn split(&self, items: &[Item]) -> Vec<Self> {
        let size = items.len().div_ceil(SPLIT_PARTS).max(1);
        let mut from = self.from;
        let mut parts = Vec::with_capacity(SPLIT_PARTS);
        let mut chunks = items.chunks(size).peekable();
        while let Some(chunk) = chunks.next() {
            let next = chunks.peek().and_then(|next| next.first()).map(|item| item.position);
            let to = next.or(self.to);
            parts.push(Self::new(from, to, chunk));
            from = next.unwrap_or(from);
        }
        parts
    }

    /// Returns the rest of the range from `until` on, with the peer's `items`.
    pub(crate) fn rest(&self, until: Position, items: &[Item]) -> Self {
        Self::new(until, self.to, within(items, &until, self.to.as_ref()))
    }

    /// Returns whether the range is valid. A peer may send any bytes.
    pub(crate) fn is_valid(&self) -> bool {
        self.to.is_none_or(|to| self.from < to)
    }
}

/// A peer's answer about a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The peer has the same items.
    Equal,
    /// The peer has other items, too many to list.
    Split,
    /// The peer has these items, in order, up to the position `until`, or up to the end of the
    /// range if `None`.
    Listed { items: Vec<Brief>, until: Option<Position> },
}

impl Comparison {
    /// Compares a peer's `range` with `items`, this node's items in it, in order.
    ///
    /// `scanned_to` is the position up to which this node has read, or `None` for all of the range.
    pub(crate) fn of(range: &Range, items: &[Item], scanned_to: Option<Position>) -> Self {
        if scanned_to.is_none() && *range == Range::new(range.from, range.to, items) {
            return Self::Equal;
        }
        let theirs = usize::try_from(range.count).unwrap_or(usize::MAX);
        if theirs > LISTED_AT_ONCE && (items.len() > LISTED_AT_ONCE || scanned_to.is_some()) {
            return Self::Split;
        }
        let until = items.get(MAX_LISTED).map(|item| item.position).or(scanned_to);
        Self::Listed { items: items.iter().take(MAX_LISTED).map(Item::brief).collect(), until }
    }

    /// Returns whether the answer is valid for `range`. A peer may send any bytes.
    pub(crate) fn is_valid_for(&self, range: &Range) -> bool {
        let Self::Listed { items, until } = self else { return true };
        // The peer may have read nothing of it, after earlier ranges.
        let before_end = |until: &Position| range.from <= *until && range.to.is_none_or(|to| *until < to);
        let (begin, end) = (first::<16>(&range.from), until.or(range.to).map(|end| first::<16>(&end)));
        let within = |item: &Brief| item.position >= begin && end.is_none_or(|end| item.position <= end);
        items.len() <= MAX_LISTED
            && items.is_sorted()
            && items.iter().all(within)
            && until.as_ref().is_none_or(before_end)
    }
}

/// The difference of two peers' sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The items that this node has and the peer lacks or has in another version.
    pub(crate) offers: Vec<Item>,
    /// The positions of the items that only the peer has.
    pub(crate) missing: Vec<[u8; 16]>,
}

impl Difference {
    /// Adds the difference of `mine` and `theirs`, both in order and of the same range.
    pub(crate) fn add(&mut self, mine: &[Item], theirs: &[Brief]) {
        let mut theirs = theirs.iter().peekable();
        for item in mine {
            let brief = item.brief();
            while let Some(other) = theirs.next_if(|other| other.position < brief.position) {
                self.missing.push(other.position);
            }
            let same = theirs.next_if(|other| other.position == brief.position);
            if same != Some(&brief) {
                self.offers.push(*item);
            }
        }
        self.missing.extend(theirs.map(|other| other.position));
    }
}

/// Returns the items between two positions. The items are in order.
pub(crate) fn within<'a>(items: &'a [Item], from: &Position, to: Option<&Position>) -> &'a [Item] {
    let start = items.partition_point(|item| item.position < *from);
    let end = to.map_or(items.len(), |to| items.partition_point(|item| item.position < *to));
    items.get(start..end).unwrap_or_default()
}

fn digest(items: &[Item]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("netabase range of versions v1");
    for item in items {
        hasher.update(&item.position);
        hasher.update(&item.fingerprint);
    }
    first(hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use negentropy::{Id, Negentropy, NegentropyStorageVector};
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::record::{Response, compare_request};
    use crate::replication::repair::limits::MAX_RANGES;

    fn items(records: &BTreeMap<u16, u8>) -> Vec<Item> {
        let place = |number: u16| {
            let mut position = [0; 32];
            // The numbers are spread over the keyspace, in their order.
            position[..2].copy_from_slice(&number.to_be_bytes());
            position
        };
        records
            .iter()
            .map(|(number, version)| Item { position: place(*number), fingerprint: [*version; 16] })
            .collect()
    }

    /// Returns the difference that the requester finds, and the number of messages.
    fn compare(mine: &[Item], theirs: &[Item], scan: usize) -> (Difference, usize) {
        let mut difference = Difference::default();
        let mut ranges = vec![Range::new([0; 32], None, mine)];
        let mut messages = 0;
        while !ranges.is_empty() {
            messages += 1;
            let mut next = Vec::new();
            for range in ranges {
                assert!(range.is_valid());
                let there = range.select(theirs);
                let scanned_to = there.get(scan).map(|item| item.position);
                let answer = Comparison::of(&range, &there[..there.len().min(scan)], scanned_to);
                assert!(answer.is_valid_for(&range));
                let here = range.select(mine);
                match answer {
                    Comparison::Equal => {}
                    Comparison::Split => next.extend(range.split(here)),
                    Comparison::Listed { items, until } => {
                        let end = until.or(range.to);
                        difference.add(within(here, &range.from, end.as_ref()), &items);
                        next.extend(until.map(|until| range.rest(until, here)));
                    }
                }
            }
            ranges = next;
        }
        (difference, messages)
    }

    proptest! {
        #[test]
        fn every_difference_is_found(
            common in btree_map(any::<u16>(), 0..2_u8, 0..3000),
            mine in btree_map(any::<u16>(), 0..3_u8, 0..300),
            theirs in btree_map(any::<u16>(), 0..3_u8, 0..300),
            scan in 1_usize..4000,
        ) {
            let with = |more: BTreeMap<u16, u8>| common.clone().into_iter().chain(more).collect::<BTreeMap<_, _>>();
            let (mine, theirs) = (with(mine), with(theirs));
            let (found, _) = compare(&items(&mine), &items(&theirs), scan);
            let offers: Vec<_> = mine.iter().filter(|(key, version)| theirs.get(key) != Some(version)).collect();
            let missing = theirs.keys().filter(|key| !mine.contains_key(key)).count();
            prop_assert_eq!(found.offers.len(), offers.len());
            prop_assert_eq!(found.missing.len(), missing);
        }
    }

    #[test]
    fn an_answer_lists_nothing_beyond_its_range() {
        let place = |first: u8| [first; 32];
        let brief = |first: u8| Brief { position: [first; 16], fingerprint: [0; 8] };
        let range = Range { from: place(10), to: Some(place(20)), count: 0, digest: [0; 16] };
        let is_valid = |items: &[u8], until: Option<u8>| {
            let items = items.iter().map(|first| brief(*first)).collect();
            Comparison::Listed { items, until: until.map(place) }.is_valid_for(&range)
        };
        assert!(is_valid(&[10, 15, 19], None) && is_valid(&[10], Some(12)) && is_valid(&[], Some(12)));
        assert!(!is_valid(&[9, 15], None) && !is_valid(&[15, 21], None), "beyond the range");
        assert!(!is_valid(&[10, 15], Some(12)), "beyond what it has looked at");
        assert!(is_valid(&[], Some(10)), "it has looked at nothing, after the ranges before");
        assert!(!is_valid(&[15, 10], None) && !is_valid(&[], Some(9)) && !is_valid(&[], Some(20)));
    }

    /// A slice of records: positions are hashes, and the records were written one after the other.
    fn written(records: impl IntoIterator<Item = u64>, version: u8) -> Vec<(u64, Item)> {
        let item = |number: u64| {
            let position = *blake3::hash(&number.to_be_bytes()).as_bytes();
            let seed = [&number.to_be_bytes()[..], &[version]].concat();
            let time = if version == 0 { number } else { u64::from(u32::MAX) + number };
            (time, Item { position, fingerprint: first(blake3::hash(&seed).as_bytes()) })
        };
        records.into_iter().map(item).collect()
    }

    /// Counts the round trips and bytes in which the asker finds out what differs.
    fn cost(mine: &[(u64, Item)], theirs: &[(u64, Item)]) -> (usize, usize) {
        let sorted = |set: &[(u64, Item)]| {
            let mut items: Vec<Item> = set.iter().map(|(_, item)| *item).collect();
            items.sort_unstable();
            items
        };
        let (mine, theirs) = (sorted(mine), sorted(theirs));
        let (mut ranges, mut trips, mut bytes) = (vec![Range::new([0; 32], None, &mine)], 0, 0);
        while !ranges.is_empty() {
            let asked = std::mem::take(&mut ranges);
            let answers: Vec<_> =
                asked.iter().map(|range| Comparison::of(range, range.select(&theirs), None)).collect();
            for (range, answer) in asked.iter().zip(&answers) {
                if *answer == Comparison::Split {
                    ranges.extend(range.split(range.select(&mine)));
                }
            }
            trips += 1;
            for (asked, answers) in asked.chunks(MAX_RANGES).zip(answers.chunks(MAX_RANGES)) {
                let answer = Response::Compared(answers.to_vec()).encode(1 << 20);
                bytes += compare_request(asked).len() + answer.len();
            }
        }
        (trips, bytes)
    }

    /// Counts the same for negentropy over the same sets in the order of time, without a limit.
    fn negentropy_cost(mine: &[(u64, Item)], theirs: &[(u64, Item)]) -> (usize, usize) {
        let storage = |set: &[(u64, Item)]| {
            let mut storage = NegentropyStorageVector::new();
            for (time, Item { position, fingerprint }) in set {
                let id = blake3::hash(&[&position[..], fingerprint].concat());
                storage.insert(*time, Id::from_byte_array(*id.as_bytes())).unwrap();
            }
            storage.seal().unwrap();
            storage
        };
        let (mine, theirs) = (storage(mine), storage(theirs));
        let mut asker = Negentropy::borrowed(&mine, 0).unwrap();
        let mut answerer = Negentropy::borrowed(&theirs, 0).unwrap();
        let (mut message, mut trips, mut bytes) = (Some(asker.initiate().unwrap()), 0, 0);
        while let Some(asked) = message {
            let answer = answerer.reconcile(&asked).unwrap();
            (trips, bytes) = (trips + 1, bytes + asked.len() + answer.len());
            message = asker.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new()).unwrap();
        }
        (trips, bytes)
    }

    /// Prints the table of "Sums here, hashes in the repair" in `docs/design.md`.
    #[test]
    #[expect(clippy::print_stdout, reason = "the figures of a table")]
    fn equal_sets_cost_less_than_with_negentropy_and_others_more() {
        let whole = written(0..4096, 0);
        for differences in [0, 1, 16, 256] {
            let missed: Vec<_> = whole[..4096 - differences].to_vec();
            let spread: std::collections::BTreeSet<u64> =
                (0..differences as u64).map(|number| number * 4093 % 4096).collect();
            let mut lost = written((0..4096).filter(|number| !spread.contains(number)), 0);
            let lost_cost = (cost(&lost, &whole), negentropy_cost(&lost, &whole));
            lost.extend(written(spread.iter().copied(), 1));
            for (name, (ours, plain)) in [
                ("missed the last", (cost(&missed, &whole), negentropy_cost(&missed, &whole))),
                ("lost some", lost_cost),
                ("changed some", (cost(&lost, &whole), negentropy_cost(&lost, &whole))),
            ] {
                println!("{differences} {name}: {ours:?} negentropy {plain:?}");
                let (everything, is_equal) = (whole.len() * size_of::<Brief>(), differences == 0);
                assert!(ours.1 < everything, "{differences} {name}: {ours:?}");
                assert_eq!(is_equal, ours.0 == 1 && ours.1 < plain.1, "{differences} {name}: {ours:?}");
            }
        }
    }

    #[test]
    fn equal_sets_cost_one_message_and_one_difference_few() {
        let mine: BTreeMap<u16, u8> = (0..20_000).map(|number| (number, 1)).collect();
        let (found, messages) = compare(&items(&mine), &items(&mine), usize::MAX);
        assert_eq!((found, messages), (Difference::default(), 1));
        let mut theirs = mine.clone();
        theirs.remove(&777);
        let (found, messages) = compare(&items(&mine), &items(&theirs), usize::MAX);
        assert_eq!((found.offers.len(), found.missing.len()), (1, 0));
        assert!(messages <= 4, "{messages}");
    }
}
