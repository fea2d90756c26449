//! The items of a set, and sums of them.

use crate::version::envelope::{Envelope, FINGERPRINT_BYTES};
use crate::version::record_key::RecordKey;

/// The length of the id of an item.
pub(crate) const SYNC_ID_BYTES: usize = 32;
/// The length of an item where it is a key.
pub(crate) const ITEM_BYTES: usize = 8 + SYNC_ID_BYTES;
/// Tells these hashes from every other use of the hash.
const ID_KEY: &[u8; 32] = b"netabase set reconciliation id 1";

/// A version of a record in a [`SyncSet`](crate::replica::SyncSet): when it was written, and which
/// one it is.
///
/// Items are ordered by time, so that recent writes are in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SyncItem {
    /// The version's timestamp in milliseconds since the Unix epoch; of a merged record that of its
    /// latest part.
    pub timestamp: u64,
    /// A hash of the record's key and of the signed bytes.
    pub id: [u8; SYNC_ID_BYTES],
}

impl SyncItem {
    /// The length of an id, in bytes.
    pub const ID_BYTES: usize = SYNC_ID_BYTES;
    /// The first item that there can be.
    pub const FIRST: Self = Self { timestamp: 0, id: [0; SYNC_ID_BYTES] };

    /// Returns the item of a signed version; one that is not signed is in no set.
    pub fn of(key: &RecordKey, envelope: &Envelope) -> Option<Self> {
        envelope.is_signed().then(|| Self::with_fingerprint(key, envelope, &envelope.fingerprint()))
    }

    /// The same where the fingerprint is known.
    pub(crate) fn with_fingerprint(
        key: &RecordKey,
        envelope: &Envelope,
        fingerprint: &[u8; FINGERPRINT_BYTES],
    ) -> Self {
        let timestamp = envelope.timestamp().unwrap_or_default().unix_millis();
        // The fingerprint's length is always the same, so nothing else has these bytes.
        let named = [key.as_bytes(), fingerprint].concat();
        Self { timestamp, id: *blake3::keyed_hash(ID_KEY, &named).as_bytes() }
    }

    pub(crate) fn to_bytes(self) -> [u8; ITEM_BYTES] {
        let mut bytes = [0; ITEM_BYTES];
        let (time, id) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.timestamp.to_be_bytes());
        id.copy_from_slice(&self.id);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (time, id) = bytes.split_first_chunk()?;
        Some(Self { timestamp: u64::from_be_bytes(*time), id: id.try_into().ok()? })
    }
}

/// The sum of ids as numbers of 256 bits, the first byte the lowest one; a carry beyond them is
/// dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    pub(crate) fn of(id: &[u8; SYNC_ID_BYTES]) -> Self {
        let (lanes, _) = id.as_chunks::<8>();
        let mut sum = [0; 4];
        sum.iter_mut().zip(lanes).for_each(|(lane, bytes)| *lane = u64::from_le_bytes(*bytes));
        Self(sum)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let mut carry = false;
        let mut sum = self.0;
        for (lane, other) in sum.iter_mut().zip(other.0) {
            let (added, first) = lane.overflowing_add(other);
            let (added, second) = added.overflowing_add(u64::from(carry));
            (*lane, carry) = (added, first || second);
        }
        Self(sum)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        let mut borrow = false;
        let mut sum = self.0;
        for (lane, other) in sum.iter_mut().zip(other.0) {
            let (left, first) = lane.overflowing_sub(other);
            let (left, second) = left.overflowing_sub(u64::from(borrow));
            (*lane, borrow) = (left, first || second);
        }
        Self(sum)
    }

    pub(crate) fn add(&mut self, item: &SyncItem) {
        *self = self.plus(Self::of(&item.id));
    }

    pub(crate) fn to_bytes(self) -> [u8; SYNC_ID_BYTES] {
        let mut bytes = [0; SYNC_ID_BYTES];
        let (lanes, _) = bytes.as_chunks_mut::<8>();
        lanes.iter_mut().zip(self.0).for_each(|(bytes, lane)| *bytes = lane.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_undone_and_need_no_order(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (Sum::of(&a), Sum::of(&b));
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(b).minus(b), a);
        }

        #[test]
        fn items_are_ordered_as_their_bytes(a: (u64, [u8; 32]), b: (u64, [u8; 32])) {
            let item = |(timestamp, id)| SyncItem { timestamp, id };
            let (a, b) = (item(a), item(b));
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(SyncItem::parse(&a.to_bytes()), Some(a));
        }
    }

    #[test]
    fn a_sum_carries_from_one_lane_to_the_next() {
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(Sum::of(&[0xff; 32]).plus(Sum::of(&one)), Sum::default());
        assert_eq!(Sum::default().minus(Sum::of(&one)), Sum::of(&[0xff; 32]));
    }
}
